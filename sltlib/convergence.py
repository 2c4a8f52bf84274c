"""How far trainings that Reward 1 compares came: the training loss over the epochs, in every profile.

A comparison of tickets that still learn fast compares speeds as well. A flat end does not prove the contrary: the learning
rate falls to 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from sltlib import figures
from sltlib.base.words import shown
from sltlib.claims import PROFILES
from sltlib.compared import fits, records, select

FILE = "curves.csv"  # in a notebook's folder of results
NOTEBOOK = "03_reward1_sparsity"
# label: (row of a network, sparsity or None, line)
LINES = {
    "dense": ("{}", None, "-"), "50 %": ("{}-ConnS", 0.5, "--"), "95 %": ("{}-ConnS", 0.95, ":"),
}  # fmt: skip
NETWORKS = {"lif": "BinWSNN", "relu": "BNN"}


def read(folder) -> dict[tuple[str, str], dict]:
    """{(neuron, label): {"losses": [[loss or None of each epoch] of each seed], "scale": of the logits}} of notebook 03's folder.

    What the profile did not train is left out; {} where the notebook left no curves.
    """
    if not (folder / FILE).is_file() or not (folder / "table.csv").is_file():
        return {}
    curves, table, out = {line["key"]: line for line in records(folder / FILE)}, records(folder / "table.csv"), {}
    for neuron, network in NETWORKS.items():
        for label, (row, sparsity, _) in LINES.items():
            where = {"row": row.format(network)} | ({"sparsity": sparsity} if sparsity else {})
            if not any(fits(line, where) for line in table):
                continue  # of a smaller profile
            found = [curves[line["key"]] for line in select(table, where).values()]
            losses = [[None if line[n] == "" else line[n] for n in line if n.isdigit()] for line in found]
            for each in losses:
                while each and each[-1] is None:  # of a longer training's epochs
                    each.pop()
            out[neuron, label] = {"losses": losses, "scale": found[0]["logit_scale"]}
    return out


def draw(found: Mapping, profiles: Iterable[str] = PROFILES):
    """The picture of {profile: `read`}; ValueError where no profile has curves."""
    there = [profile for profile in profiles if found.get(profile)]
    if not there:
        raise ValueError(f"none of {shown(list(profiles))} has curves: run notebook {NOTEBOOK} first")
    fig, axes = figures.new(figures.PAGE, 2.9, 1, len(there), squeeze=False, sharey=True)
    told, scaled, seeds = [], {}, set()
    for ax, profile in zip(axes[0], there, strict=True):
        epochs = 0
        for (neuron, label), line in found[profile].items():
            look = {"color": figures.COLOURS[neuron], "linestyle": LINES[label][2]}
            epochs = max(epochs, *map(len, line["losses"]))
            columns = [[each[i] for each in line["losses"] if i < len(each)] for i in range(max(map(len, line["losses"])))]
            columns = [[math.nan] if None in column else column for column in columns]  # one that diverged leaves a gap
            at = range(1, len(columns) + 1)
            mean = [sum(column) / len(column) for column in columns]
            ax.fill_between(at, [min(c) for c in columns], [max(c) for c in columns], color=look["color"], alpha=0.18, linewidth=0)
            ax.plot(at, mean, marker=figures.MARKERS[neuron], markersize=3, **look)
            if line["scale"] != 1:
                scaled.setdefault(f"{profile}'s {neuron}" if len(there) > 1 else neuron, []).append(label)
            seeds.add(len(line["losses"]))
            told.append(f"{profile}, {neuron} {label}: {mean[0]:.2f} to {mean[-1]:.2f} in {len(mean)} epochs (n={len(line['losses'])})")
        ax.set(title=profile, xlabel="epoch", yscale="log")
        ax.set_xticks(range(1, epochs + 1, -(-epochs // 10)))
    axes[0, 0].set_ylabel("training loss (log scale)")
    _ticks(axes[0, 0], found, there)
    _legend(fig)
    n = " to ".join(map(str, sorted({min(seeds), max(seeds)})))
    which = "; ".join(f"{whose} {' and '.join(labels)}" for whose, labels in scaled.items())
    of = f" Of {which} the loss is taken of a multiple of the logits: its slope tells, not its height." if scaled else ""
    figures.caption(fig, f"Notebook 03's binary networks and their tickets: the mean loss within an epoch, means and ranges over {n} seeds.{of}")
    figures.describe(fig, "Training loss over epochs. " + "; ".join(told))
    return fig


def _ticks(ax, found, there):
    values = [x for profile in there for line in found[profile].values() for losses in line["losses"] for x in losses if x is not None]
    ticks = [x for x in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5) if 0.9 * min(values) < x < 1.1 * max(values)]
    ax.set_yticks(ticks, [f"{x:g}" for x in ticks])
    ax.minorticks_off()


def _legend(fig):
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=figures.COLOURS[n], marker=figures.MARKERS[n], linestyle="", label=n) for n in NETWORKS]
    names = {"dense": "dense", "50 %": "50 % removed", "95 %": "95 % removed"}
    handles += [Line2D([], [], color=figures.GREY, linestyle=LINES[label][2], label=words) for label, words in names.items()]
    fig.legend(handles=handles, loc="outside upper center", ncols=len(handles))
