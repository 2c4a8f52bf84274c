"""The figure and the part of docs/speed.md on packed tickets, made from results/bench/packed*: `python -m bench --report`."""

import json

import numpy as np
import pandas as pd

from sltlib import figures
from sltlib.base import files, paths
from sltlib.notebook import readme

AT = 32  # the batch that the goals are about
KINDS = {"spiking, T=4": figures.look("BinWSNN-ConnS"), "sign, T=1": figures.look("ActBNN-ConnS")}
FP32_GOALS = {0.5: 2.5, 0.8: 4.0, 0.95: 8.0}
INT8_GOALS = {False: {0.5: 1.2, 0.8: 2.0, 0.95: 4.0}, True: {0.5: 1.0, 0.8: 1.5, 0.95: 2.5}}  # without VNNI, with it
MEMORY_GOAL = 1 / 6


def there(place):
    """Whether the bench of packed tickets has run."""
    return (place / "packed_about.json").is_file()


def own(name):
    return name.startswith("packed ")


def best(ms, kind):
    """The fastest engine of a kind, "fp32" or "int8", or None; ms : milliseconds by contestant."""
    rivals = ms[[name for name in ms.index if kind in name and not own(name)]]
    return None if rivals.empty else rivals.idxmin()


def goals(table, memory, vnni):
    """DataFrame of the goals at batch 32, each with the rival, both times, what was wanted and what was measured."""
    ms = table[table.batch == AT].set_index("contestant").ms
    rows = []
    for kind, wanted in (("fp32", FP32_GOALS), ("int8", INT8_GOALS[vnni])):
        first = best(ms, kind)
        if first is None:
            continue
        for sparsity, limit in wanted.items():
            mine = ms[f"packed spiking, T=4, {sparsity:.0%}"]
            ratio = ms[first] / mine
            rows.append((f"T=4, {sparsity:.0%}: over the best {kind}", first, mine, ms[first], limit, ratio, ratio >= limit))
    share = memory["packed spiking, T=4, 50%"]
    rows.append(("T=4, 50%: weights in memory over float32's", "", np.nan, np.nan, MEMORY_GOAL, share, share <= MEMORY_GOAL))
    return pd.DataFrame(rows, columns=["goal", "rival", "ms", "rival ms", "limit", "measured", "met"])


def measured(goal):
    """What a line of packed_goals.csv says was measured: a ratio of the times beside it, so that no page rounds it otherwise."""
    return goal.measured if pd.isna(goal.ms) else goal.rival_ms / goal.ms


def draw(table):
    """Milliseconds an image over sparsity at batch 32, beside the dense network's best engines."""
    part = table[table.batch == AT].set_index("contestant")
    fig, ax = figures.new(figures.COLUMN, 3.0)
    for kind, look in KINDS.items():
        names = [name for name in part.index if name.startswith(f"packed {kind}")]
        at = [float(name.rpartition(" ")[2].rstrip("%")) for name in names]
        line = part.loc[names]
        places = range(len(at))
        ax.errorbar(places, line.ms, [line.ms - line.low, line.high - line.ms], capsize=2, label=f"packed, {kind}", **look)
        ax.set_xticks(places, [f"{x:g}" for x in at])
    for kind, style in (("fp32", "-"), ("int8", "--"), ("dense SNN", ":")):
        name = best(part.ms, kind)
        if name:
            ax.axhline(part.ms[name], color="black", linestyle=style, linewidth=0.9, label=name if kind == "dense SNN" else f"dense, {name}")
    ax.set(xlabel="weights removed (%)", ylabel="ms an image (log scale)", yscale="log")
    ticks = [x for x in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if 0.8 * part.ms.min() < x < 1.2 * part.ms.max()]
    ax.set_yticks(ticks, [f"{x:g}" for x in ticks])
    ax.minorticks_off()
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)
    figures.caption(fig, f"conv6 at 32x32, random tickets, batch {AT}, all cores: medians and quartiles of interleaved rounds.")
    return fig


def write(place):
    """figures/packed.png and .pdf of a folder that holds packed.csv."""
    figures.save(draw(files.table(place / "packed.csv")), place, "packed")


def page(place):
    """The part of docs/speed.md: every contestant, the goals, the trained tickets, the machine."""
    table, goals, trained = (files.table(place / f"{name}.csv") for name in ("packed", "packed_goals", "packed_trained"))
    about = json.loads((place / "packed_about.json").read_text(encoding="utf-8"))
    ms, low, high = (table.pivot(index="contestant", columns="batch", values=name) for name in ("ms", "low", "high"))
    fastest = best(ms[AT], "fp32")
    lines = [f"| contestant | {' | '.join(f'batch {b}' for b in ms)} | times as fast as {fastest} at batch {AT} |", "|---" * (len(ms.columns) + 2) + "|"]
    for name in dict.fromkeys(table.contestant):
        cells = [f"{ms[b][name]:.3f} ({low[b][name]:.3f} to {high[b][name]:.3f})" for b in ms]
        lines.append(f"| {name} | {' | '.join(cells)} | {ms[AT][fastest] / ms[AT][name]:.1f} |")
    engines = ", ".join(f"{name} {version}" for name, version in about["engines"].items() if version)
    lines += ["", f"Milliseconds an image, medians and quartiles of {table.rounds.min()} to {table.rounds.max()} interleaved rounds; {about['threads']} threads of "
              f"{about['device']} ({about['instructions']}; the kernel uses {about['kernel']}), {engines}."]  # fmt: skip
    lines += ["", f"{goals.met.sum()} of {len(goals)} goals at batch {AT} met:", "", "| goal | wanted | measured | |", "|---|---|---|---|"]
    for goal in goals.rename(columns={"rival ms": "rival_ms"}).itertuples():
        sign = "at most" if pd.isna(goal.ms) else "at least"
        lines.append(f"| {goal.goal} | {sign} {goal.limit:.2g} | {measured(goal):.2g} | {'met' if goal.met else '**missed**'} |")
    lines += ["", "The trained tickets of notebook 10 (`mini`, first seed), at their own size:", ""]
    lines += ["| ticket | removed | test accuracy (%) | times as fast as the dense relu network, float32 in torch | bytes over float32 |", "|---|---|---|---|---|"]
    for x in trained.itertuples():
        lines.append(f"| {x.model}, width {x.width:g}, {x.size}x{x.size}, {x.neuron}, T={x.T} | {100 * x.sparsity:g} % | {x.accuracy:.2f} | {x.over_torch:.1f} | {x.over_float32:.3f} |")
    return "\n".join(lines)


def sentence(place):
    """What the README says: how many times as fast as the dense network in the fastest engine of each kind."""
    goals, about = files.table(place / "packed_goals.csv"), json.loads((place / "packed_about.json").read_text(encoding="utf-8"))
    goals = goals[goals.rival.notna() & (goals.rival != "")].rename(columns={"rival ms": "rival_ms"})
    percents, words = None, []
    for kind, named in (("fp32", "float32"), ("int8", "int8")):
        own = goals[goals.goal.str.endswith(kind)]
        if own.empty:
            continue
        percents = _listed([goal.split(", ")[1].split("%")[0] for goal in own.goal])
        words.append(f"{_listed([f'{measured(x):.1f}' for x in own.itertuples()])} times as fast as in {named} ({own.rival.iloc[0].removesuffix(kind).strip(' ,')})")
    return (
        f"Packed, a random spiking ticket (conv6 at 32x32, T=4; the time goes by the mask, not by what was learned) with {percents} % of the weights removed "
        f"predicts, beside the dense relu network in the fastest engine of each kind, {' and '.join(words)}; {AT} images at once, {about['threads']} cores with "
        f"{about['instructions']} ([speed](docs/speed.md#tickets-that-run))."
    )


def _listed(words):
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def fill(place):
    """Put the part on packed tickets into docs/speed.md, and the sentence into README.md."""
    for name, made in PARTS.items():
        path = paths.ROOT / name
        files.write(path, readme.replaced(path.read_text(encoding="utf-8"), "packed", made(place)))


PARTS = {"docs/speed.md": page, "README.md": sentence}
