"""The tables of README.md, docs/secondary.md and results/tuning/README.md, made from the committed results: `python -m sltlib readme`.

Between `<!-- NAME -->` and `<!-- /NAME -->` stands what the function of that name below returns, so no
number there is typed in; results/claims has the claims and the convergence as pictures and their data. With --check nothing is written. docs/speed.md is bench's: `python -m bench --report`.
"""

import argparse
import json
import re
import sys

from sltlib import claims as tested
from sltlib.base import files, paths
from sltlib.notebook import primary, profiles, recipes, tune
from sltlib.table1 import ROWS

PROFILE = "mini"
SWEPT = "mini-03"  # the tuning of the sweep over sparsities
FOREST = paths.ROOT / "results" / "claims"
# notebook: (what it shows, its time class on two cores from an empty store)
NOTEBOOKS = {
    "00_spiking_neuron": ("the LIF neuron by hand, by snnTorch, fused; surrogate gradients; a training and a search by hand", "seconds"),
    "01_first_ticket": ("find a spiking ticket, hold it against chance, look inside, use it, add a search", "a minute"),
    "02_table1_cnn": ("the ten rows of Table 1 and their controls, with intervals and verdicts", "minutes"),
    "03_reward1_sparsity": ("accuracy and loss over sparsity for all ticket kinds; gates beside edge-popup, one threshold for all layers", "minutes"),
    "04_time_and_decay": ("time steps and decay: accuracy, firing rate, energy", "minutes"),
    "05_energy": ("operations counted from real spikes, energy read in four ways, firing rates", "seconds after 02"),
    "06_event_data": ("from recordings to frames to spikes; the ten rows of Table 1 on (simulated) events", "minutes"),
    "07_patch_tickets": ("which patches a (spiking) transformer needs: four rankings, random as the control", "minutes"),
    "08_table2_multisp": ("multi-level sparsity: Table 2, each level alone and together, Reward 2", "minutes"),
    "09_standard_tickets": ("tickets of trained networks beside the spiking ones: IMP, Early-Bird, Early-Time, SNIP, at equal cost", "minutes"),
    "10_packed_tickets": ("what a ticket saves when it runs: from a mask to lists of bits, exactness, bytes, time", "minutes"),
}


def _path(notebook):
    return paths.ROOT / "results" / PROFILE / notebook / "metrics.json"


def _ran(notebook):
    return primary.has_run(_path(notebook).parent)


def _metrics(notebook):
    path = _path(notebook)
    if not path.is_file():
        raise ValueError(f"no {path}: run `python -m sltlib figure {notebook} --profile {PROFILE}` first")
    return json.loads(path.read_text())


def notebooks():
    """A row for each notebook: what it shows, time class and main result."""
    lines = ["| notebook | shows | time | main result (`mini`) |", "|---|---|---|---|"]
    for name in profiles.blocks(PROFILE):
        shows, time = NOTEBOOKS[name]
        result = _metrics(name)["result"] if _ran(name) else "not run yet"
        lines.append(f"| [{name}](notebooks/{name}.ipynb) | {shows} | {time} | {result} |")
    return "\n".join(lines)


def claims():
    """The seven claims under test: what the papers say, mini and the study found, and the verdict."""
    found = tested.table(("mini", "study"), paths.ROOT / "results")
    return tested.markdown(found, ("mini", "study"))


def secondary():
    """A row for each comparison under test: its verdict, the measured difference and n, and where it is tested."""
    lines = ["| claim | verdict | measured | n | notebook |", "|---|---|---|---|---|"]
    for name in filter(_ran, profiles.blocks(PROFILE)):
        made = _metrics(name)
        for found in (*made.get("claims", ()), *made.get("verdicts", ())):
            cells = (found["claim"], f"**{found['verdict']}**", found["detail"], found["n"], name[:2])
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def rows():
    """The ten rows and the linear classifier: mean, interval and n, from the committed table."""
    accuracy = _metrics("02_table1_cnn")["accuracy"]
    lines = ["| row | test accuracy (%) | 95 % interval | n |", "|---|---|---|---|"]
    for name in (*ROWS, "linear"):
        found = accuracy[name]
        interval = "" if found["low"] is None else f"{found['low']:.1f} to {found['high']:.1f}"
        lines.append(f"| {name} | {found['mean']:.2f} | {interval} | {found['n']} |")
    return "\n".join(lines)


def replaced(text, name, made):
    """The text with what stands between `<!-- name -->` and `<!-- /name -->` made anew; ValueError unless there is one."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"the page must have one part between <!-- {name} --> and <!-- /{name} -->")
    return pattern.sub(lambda found: f"{found[1]}{made}\n{found[2]}", text)


def forest():
    """(results/claims/table.csv as a text, a function that draws the figure beside it): every claim in every profile."""
    import pandas

    from sltlib import figures, forest
    from sltlib.notebook import outputs

    found = {name: each for name, each in tested.table(("mini", "study"), paths.ROOT / "results").items() if each}
    return outputs.table_text(pandas.DataFrame(forest.rows(found))), lambda: figures.headline(forest.draw(found), FOREST)


def converged():
    """The same of results/claims/figures/convergence, what notebook 03 left in every profile; None before it has run."""
    from sltlib import convergence, figures

    found = {profile: convergence.read(paths.ROOT / "results" / profile / convergence.NOTEBOOK) for profile in tested.PROFILES}
    lines = {f"{profile}, {neuron}, {label}": line for profile, each in found.items() for (neuron, label), line in each.items()}
    return lines and (files.json_text(lines), lambda: figures.save(convergence.draw(found), FOREST, "convergence"))


def against():
    """What the same runs say against tickets, as prominently as what they say for them."""
    found, ratios = _metrics("03_reward1_sparsity")["accuracy"], _metrics("05_energy")["ratios"]
    top = max(float(name.rpartition(" ")[2]) for name in found)
    rows = {"a *random* mask under trained weights": "SNN-ConnS random-trained", "the SLT": "SNN-ConnS", "the MPSLT": "BinWSNN-ConnS"}
    means = {words: found[f"{row} {top:g}"] for words, row in rows.items()}
    half = _metrics("02_table1_cnn")["controls"]["SNN-ConnS − random-trained"]
    costs = {name: ratios[f"{name}, memory"] for name in ("ANN / MPSLT", "MPLT 1/32 / MPSLT")}
    return (
        f"With {100 * top:g} % of the weights removed "
        + ", ".join(f"{words} has {_within(each)} %" for words, each in means.items())
        + f" (n={means['the SLT']['n']}). At 50 % the SLT is {_within(half)} points from the random mask (n={half['n']}). With memory counted the ANN costs "
        f"{costs['ANN / MPSLT']['mean']:.1f} times the MPSLT, not {ratios['ANN / MPSLT, arithmetic']['mean']:.1f} times, and the MPSLT's relu twin "
        f"{costs['MPLT 1/32 / MPSLT']['mean']:.2f} times (n={costs['ANN / MPSLT']['n']}). Means and 95 % intervals."
    )


def favour():
    """What the right scale of the logits gives a ticket, from the tuning of the sweep."""
    best, top = _best(), max(_points())
    worth = {name: best(arm, top, 4.0) - best(arm, top, 1.0) for name, arm in (("SLT", "SNN-ConnS"), ("MPSLT", "BinWSNN-ConnS"))}
    return (
        f"With the loss computed on four times the logits, which a frozen last layer cannot enlarge itself, the SLT at {100 * top:g} % ends "
        f"{worth['SLT']:.0f} points higher on the validation split, and the MPSLT {worth['MPSLT']:.0f} (one seed, the best of {best.rates} rates "
        "at each scale; [how recipes are tuned](results/tuning/README.md))."
    )


SCALED = {
    "MPSLT (lif, binary)": "BinWSNN-ConnS", "SLT (lif, float)": "SNN-ConnS", "MPLT 1/32 (relu, binary)": "BNN-ConnS",
    "LT (relu, float)": "ANN-ConnS", "MPLT 1/1 (sign, binary)": "ActBNN-ConnS", "SNN random-trained": "SNN-ConnS random-trained",
    "MPSLT by gates": "BinWSNN-ConnS bernoulli",
}  # fmt: skip


def scales():
    """The best validation accuracy at each scale of the logits and sparsity, by the first seed of the sweep's tuning."""
    best, points = _best(), _points()
    lines = [f"| network | scale | {' | '.join(f'{100 * s:g} %' for s in points)} |", "|---" * (2 + len(points)) + "|"]
    for name, arm in SCALED.items():
        lines += [f"| {name} | {scale:g} | {' | '.join(f'{best(arm, s, scale):.1f}' for s in points)} |" for scale in tune.SCALES]
    return f"Of {best.rates} learning rates at each scale, seed {tune.SEEDS[0]}:\n\n" + "\n".join(lines)


def _points():
    return sorted(recipes.read(SWEPT)["settings"]["sparsities"])


def _best():
    """A function of (arm, sparsity, scale): the best validation accuracy of the first seed; `.rates`: of how many."""
    grid = files.table(recipes.folder(SWEPT) / "grid.csv")
    grid = grid[grid.seed == tune.SEEDS[0]].set_index(["arm", "logit_scale"]).sort_index()

    def best(arm, sparsity, scale):
        return grid.val_accuracy.loc[f"{arm}{recipes.AT}{sparsity:g}", scale].max()

    best.rates = grid.groupby(level=(0, 1)).lr.nunique().min()
    return best


def _within(found):
    return f"{found['mean']:.1f} ± {(found['high'] - found['low']) / 2:.1f}"


PAGES = {"README.md": (notebooks, claims, against, favour), "docs/secondary.md": (secondary, rows), "results/tuning/README.md": (scales,)}


def filled(text, page="README.md"):
    """A page's text with every part that is made from the notebooks' results made anew."""
    for make in PAGES[page]:
        text = replaced(text, make.__name__, make())
    return text


def main(argv=None):
    """`python -m sltlib readme [--check]`: fill the README's tables, or say (status 1) that they are stale."""
    parser = argparse.ArgumentParser(prog="python -m sltlib readme", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail if README.md is out of date")
    check = parser.parse_args(argv).check
    stale = {}
    for page in PAGES:
        old = (paths.ROOT / page).read_text(encoding="utf-8")
        if (new := filled(old, page)) != old:
            stale[page] = new
    for page, new in stale.items():
        if check:
            print(f"{page} does not show the committed results: run `python -m sltlib readme`", file=sys.stderr)
        else:
            files.write(paths.ROOT / page, new)
            print(f"{page}: tables made anew")
    for path, make in ((FOREST / "table.csv", forest), (FOREST / "convergence.json", converged)):
        if not (made := make()):
            continue
        data, draw = made
        if not path.is_file() or path.read_text(encoding="utf-8") != data:
            stale[path] = data
            words = "does not show the committed results: run `python -m sltlib readme`" if check else "made anew"
            print(f"{path} {words}", file=sys.stderr if check else sys.stdout)
            if not check:
                files.write(path, data)
        if not check:  # also of the same data: the drawing may have changed
            draw()
    return int(check and bool(stale))
