"""Goals, tables, the figure and the part on speed of docs/speed.md, made from what results/bench holds."""

import json

import pandas as pd

from sltlib import figures
from sltlib.base import files, paths
from sltlib.notebook import readme

LOOKS = {name: figures.look(name) for name in ("ours", "snnTorch", "spikingjelly", "floor")}
CNNS = ("mini", "small28", "conv6")
SPEED_GOALS = {"mini": (1.6, 1.4), "small28": (1.6, 1.4), "conv6": (1.05, 1.15)}  # over snnTorch, over spikingjelly
FLOOR_GOAL, READY_GOAL, AT = 1.1, 2.0, 4


def read(place):
    """{part: DataFrame} of the parts that have run."""
    return {path.stem: files.table(path) for path in sorted(place.glob("*.csv"))}


def ratios(step):
    """DataFrame by (network, T): how many times our step the others take, and ours over the floor."""
    ms = step.pivot_table(index=["network", "T"], columns="contestant", values="ms", sort=False)
    out = pd.DataFrame({f"{name} over ours": ms[name] / ms["ours"] for name in ("snnTorch", "spikingjelly") if name in ms})
    out["ours over floor"] = ms["ours"] / ms["floor"]
    for name in [name for name in ms if name.startswith("ours, ")]:
        out[f"{name.removeprefix('ours, ')} over ours"] = ms[name] / ms["ours"]
    return out


def goals(parts):
    """[(goal, limit, measured, whether it is met)] of the parts that have run."""
    found = []
    if "step" in parts:
        table = ratios(parts["step"])
        for network in CNNS:
            if (network, AT) not in table.index:
                continue
            line = table.loc[(network, AT)]
            found.append((f"{network}, T=4: our step over the floor", FLOOR_GOAL, line["ours over floor"], line["ours over floor"] <= FLOOR_GOAL))
            for name, least in zip(("snnTorch", "spikingjelly"), SPEED_GOALS[network], strict=True):
                if f"{name} over ours" in line:
                    value = line[f"{name} over ours"]
                    found.append((f"{network}, T=4: {name}'s step over ours", least, value, value >= least))
    if "memory" in parts:
        for (network, timesteps), part in parts["memory"].groupby(["network", "T"], sort=False):
            mib = dict(zip(part.contestant, part.MiB, strict=True))
            for name in set(mib) - {"ours"}:
                share = mib["ours"] / mib[name]
                found.append((f"{network}, T={timesteps}: our peak memory over {name}'s", 1.0, share, share < 1))
    if "pipeline" in parts:
        seconds = dict(zip(parts["pipeline"].what, parts["pipeline"].seconds, strict=True))["a further worker"]
        found.append(("a new worker ready to train (s)", READY_GOAL, seconds, seconds <= READY_GOAL))
    out = pd.DataFrame(found, columns=["goal", "limit", "measured", "met"]).sort_values("goal", kind="stable")
    return out.reset_index(drop=True)


def draw(step):
    """A panel a network: a training step's time over T, in steps of our network at T=1, both axes logarithmic."""
    networks = list(dict.fromkeys(step.network))
    fig, axes = figures.new(figures.PAGE, 2.6, 1, len(networks), sharey=True)
    for ax, network in zip(axes, networks, strict=True):
        part = step[step.network == network]
        one = part[(part.contestant == "ours") & (part["T"] == 1)].ms.item()
        for name, look in LOOKS.items():
            line = part[part.contestant == name].sort_values("T")
            if len(line):
                ax.plot(line["T"], line.ms / one, label=name, markersize=4, **look)
                ax.fill_between(line["T"], line.low / one, line.high / one, color=look["color"], alpha=0.2, linewidth=0)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        times = sorted(part["T"].unique())
        ax.set_xticks(times, [str(t) for t in times])
        ax.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
        ax.set_title(network)
        ax.set_xlabel("time steps T")
    axes[0].set_ylabel("training step\n(ours at T=1 is 1)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LOOKS))
    figures.caption(
        fig,
        "One thread of a CPU, interleaved; medians, bands between the quartiles. Floor: T times the forward and backward of the "
        "network with ReLU (spikformer: its GELU twin), less the first layer's repetitions; no optimiser.",
    )
    return fig


def write(place):
    """Write goals.csv, ratios.csv and figures/speed.png, .pdf; print the goals; return those that are missed."""
    parts = read(place)
    if "step" in parts:
        figures.save(draw(parts["step"]), place, "speed")
        shown = ratios(parts["step"]).reset_index()
        files.write(place / "ratios.csv", shown.to_csv(index=False, lineterminator="\n", float_format="%.3g"))
    table = goals(parts)
    files.write(place / "goals.csv", table.to_csv(index=False, lineterminator="\n", float_format="%.3g"))
    print(table.round(2).to_string(index=False))
    return [goal for goal, met in zip(table.goal, table.met, strict=True) if not met]


def speed(place):
    """The README's part on speed: steps beside the other libraries' and the floor, the goals missed, searches."""
    parts, about = read(place), json.loads((place / "about.json").read_text())["step"]
    steps, goals = parts["ratios"], parts["goals"]
    columns = list(steps.columns[2:])
    lines = [f"| network | T | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for line in steps.to_dict("records"):
        lines.append(f"| {line['network']} | {line['T']} | {' | '.join(_number(line[name]) for name in columns)} |")
    rounds = parts["step"].rounds
    lines += ["", f"One thread of {about['device']}, torch {about['versions']['torch']}, huge pages for every contestant; "
              f"medians of {rounds.min()} to {rounds.max()} interleaved steps."]  # fmt: skip
    missed = [f"{g.goal}: {_number(g.measured)} (goal {_number(g.limit)})" for g in goals[~goals.met].itertuples()]
    lines += ["", f"{goals.met.sum()} of {len(goals)} goals met (results/bench/goals.csv)."]
    lines[-1] += f" Missed: {'; '.join(missed)}." if missed else ""
    return "\n".join([*lines, "", _searches(parts["search"]), "", *_cheaper(parts["cheaper"], json.loads((place / "cheaper.json").read_text()))])


def _searches(table):
    """How long a ticket search takes with each library: n and range beside each median."""
    seconds = table.pivot(index="seed", columns="contestant", values="seconds")
    words = []
    for name in dict.fromkeys(table.contestant):
        if name != "ours" and seconds[name].notna().all():
            over = (seconds[name] / seconds["ours"]).sort_values().tolist()
            words.append(f"{over[len(over) // 2]:.2f} ({over[0]:.2f} to {over[-1]:.2f}) times as long with {name}")
    return (f"A ticket search (MPSLT, mini) to {table.target[0]:g} % validation accuracy takes {', '.join(words)} as with ours "
            f"(median and range of n={len(seconds)} seeds).")  # fmt: skip


def _cheaper(table, verdicts):
    """The cheaper searches at their most epochs, each with its verdict."""
    told = {found["claim"].rsplit(":", 1)[0]: found for found in verdicts}
    lines = ["| cheaper search (MPSLT, mini) | epochs | time over exact | test accuracy (%) | at most 1 point below exact |"]
    lines += ["|---" * 5 + "|"]
    for way, found in table.groupby("way", sort=False):
        last = found[found.epochs == found.epochs.max()]
        verdict = f"**{told[way]['verdict']}** (n={told[way]['n']})" if way in told else ""
        share, mean = _number(last["time over exact"].iloc[0]), last.test_accuracy.mean()
        lines.append(f"| {way} | {last.epochs.iloc[0]} | {share} | {mean:.2f} | {verdict} |")
    return lines


def _number(value):
    return f"{value:.2f}" if pd.notna(value) else ""


def fill_readme(place):
    """Put the part on speed into docs/speed.md."""
    path = paths.ROOT / "docs" / "speed.md"
    files.write(path, readme.replaced(path.read_text(encoding="utf-8"), "speed", speed(place)))
