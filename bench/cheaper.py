"""Searches that cost less, beside the exact one: accuracy over search time, MPSLT on the mini network.

Trainings come from the store where it has them (`sltlib.run`). Time is the median training step of every
setting, measured interleaved in this process, times the number of steps, as a share of the exact search.
The exact search with fewer epochs is the control: a cheaper gradient must beat a shorter search.
"""

import json

import numpy as np
import torch

from sltlib import figures, run, stats
from sltlib.base import files
from sltlib.base.words import plain
from sltlib.notebook import parameters, profiles, recipes, tune
from sltlib.data import load_data
from sltlib.table1 import row
from sltlib.models import build_model
from sltlib.pruning import prepare
from sltlib.train import batch, loss_of, make_optimizer

from .measure import interleaved

ROW = "BinWSNN-ConnS"
SEEDS = (0, 1, 2)
MARGIN = 1.0  # points of test accuracy that a cheaper search may lose
EXACT = "exact"
COLOURS = (*figures.PALETTE, figures.GREY, figures.LIGHT)  # none of a neuron
# name: (fields, epochs). At fewer steps until the last epoch, after Kim et al.'s Early-Time (2022); and at T=1 altogether.
SEARCHES = {
    EXACT: ({}, (1, 2, 3)),
    "T=2, then 4": (dict(search_timesteps=2), (3,)),
    "T=1, then 4": (dict(search_timesteps=1), (2, 3)),
    "T=1 throughout": (dict(timesteps=1), (1, 2, 3)),
    "bfloat16": (dict(precision="bfloat16"), (3,)),
}


def experiments(searches=SEARCHES, seeds=SEEDS, **changes):
    """{(name, epochs, seed): Experiment} of the mini profile's ticket with its tuned recipe."""
    mini = profiles.settings("mini", tune.IMAGES)
    fields, sparsity = parameters.shared(mini) | changes, mini["sparsity"]
    recipe = recipes.recipe("mini", ROW)
    return {
        (name, epochs, seed): row(ROW, sparsity, **fields | recipe | dict(epochs=epochs, seed=seed) | options)
        for name, (options, every) in searches.items()
        for epochs in every
        for seed in seeds
    }


def passes(experiment):
    """[(an Experiment that trains at one number of steps throughout, its epochs)] that a search consists of."""
    whole = experiment.replace(search_timesteps=0)
    if not experiment.search_timesteps:
        return [(whole, experiment.epochs)]
    return [(whole.replace(timesteps=experiment.search_timesteps), experiment.epochs - 1), (whole, 1)]


def step(experiment):
    """A function that does one step of the search."""
    data = load_data(experiment.dataset, experiment.image_size, experiment.batch_size)
    model = prepare(build_model(experiment), experiment)
    optimizer, x = make_optimizer(model, experiment), batch(data, data.train.x, torch.arange(experiment.batch_size))

    def one():
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, x, data.train.y).backward()
        optimizer.step()

    return one


def measured(all_experiments, rounds):
    """The share of the exact search's time of every search, by (name, epochs); one more epoch counts as one."""
    plain = {e.replace(seed=0, epochs=1, source=None) for found in all_experiments.values() for e, _ in passes(found)}
    steps = {experiment: step(experiment) for experiment in plain}
    medians = {e: float(np.median(taken)) for e, taken in interleaved(steps, rounds).items()}

    def seconds(experiment):
        return sum(medians[e.replace(seed=0, epochs=1)] * epochs for e, epochs in passes(experiment))

    times = {(name, epochs): seconds(e) for (name, epochs, _), e in all_experiments.items()}
    longest = times[EXACT, max(epochs for name, epochs in times if name == EXACT)]
    return {key: value / longest for key, value in times.items()}


def table(rounds=15, searches=SEARCHES, seeds=SEEDS, **changes):
    """(one row a training, the verdicts) of all searches."""
    every = experiments(searches, seeds, **changes)
    shares = measured(every, rounds)
    found = run(every.values())
    found.insert(0, "way", [name for name, _, _ in every])
    found.insert(1, "time over exact", [shares[name, epochs] for name, epochs, _ in every])
    columns = ["way", "epochs", "time over exact", "seed", "val_accuracy", "test_accuracy", "key"]
    return found[columns], verdicts(found)


def verdicts(found):
    """Every search at its most epochs: at most MARGIN below the exact one?"""
    by_name = {}
    for name, part in found.groupby("way", sort=False):
        last = part[part.epochs == part.epochs.max()]
        by_name[name] = dict(zip(last.seed, last.test_accuracy, strict=True))
    comparisons = {f"{name}: at most {MARGIN:g} point below the exact search": (name, EXACT) for name in by_name if name != EXACT}
    return list(stats.family(by_name, comparisons, margin=MARGIN).claims.values())


def draw(found):
    """Accuracy over search time: one line a search, through its numbers of epochs."""
    fig, ax = figures.new(figures.PAGE, 3.4)
    for place, (name, part) in enumerate(found.groupby("way", sort=False)):
        mean = stats.summary(part, "time over exact", "test_accuracy")
        half = (mean.high - mean["mean"]).where(mean.n > 1, 0)
        style = dict(figures.look(name, place), color=COLOURS[place % len(COLOURS)])
        if name == EXACT:
            style |= dict(marker="o", linestyle="-")
        ax.errorbar(mean["time over exact"], mean["mean"], half, label=name, capsize=2, markersize=4, **style)
    ax.set_xscale("log")
    ticks = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel(f"search time, as a share of the exact search ({found.epochs.max()} epochs, T=4)")
    ax.set_ylabel("test accuracy (%)")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figures.caption(
        fig,
        f"MPSLT on the mini network. Mean and 95 % t-interval, n={found.seed.nunique()} seeds; every point is a search of "
        "its own, of up to 3 epochs. Time is the interleaved median step on one thread times the number of steps.",
    )
    return fig


def text(found, claims):
    """The table in Markdown: one line a search, at its most epochs."""
    lines = ["| search | epochs | time over exact | test accuracy (%) | verdict |", "|---|---|---|---|---|"]
    told = {claim.claim.rsplit(":", 1)[0]: claim for claim in claims}
    for name, part in found.groupby("way", sort=False):
        last = part[part.epochs == part.epochs.max()]
        cell = f"**{told[name].verdict}** {told[name].detail}" if name in told else ""
        share = last["time over exact"].iloc[0]
        lines.append(f"| {name} | {last.epochs.iloc[0]} | {share:.2f} | {stats.interval(last.test_accuracy.tolist())} | {cell} |")
    return "\n".join(lines)


def main(place, rounds=15):
    """The table; writes cheaper.json (the verdicts) and figures/cheaper_search.png, .pdf into `place`."""
    found, claims = table(rounds)
    print(text(found, claims))
    files.write(place / "cheaper.json", json.dumps(plain(claims, digits=6), indent=1) + "\n")
    figures.save(draw(found), place, "cheaper_search")
    return found
