"""Recipes searched in the open: the same grid and budget for every row, judged on the validation split.

`python -m sltlib tune` trains the grid of a profile's settings of a notebook (02_table1_cnn; for event
data 06_event_data, for transformers 08_table2_multisp) and writes, under results/tuning/<name>/: grid.csv
(every candidate and its validation accuracy), choices.json (the best of each arm, which the notebooks
read) and sizes.csv (what the sizes were chosen among). <name> is the profile, for 06 and 08 followed by
"-06" or "-08". Nothing here looks at the test split, and the tuning seeds are not those of the reported
runs.
"""

import argparse
import json
import sys

import pandas

from sltlib import figures, table2
from sltlib.notebook import params
from sltlib.table1 import ROWS, TICKETS, row

# The notebooks whose rows are tuned.
IMAGES, EVENT, TRANSFORMER = "02_table1_cnn", "06_event_data", "08_table2_multisp"
SEEDS = {IMAGES: (1000, 1001), EVENT: (1000,), TRANSFORMER: (1000,)}  # as many for one arm as for another
GRID = [("adam", lr) for lr in (0.0006, 0.002, 0.006, 0.02, 0.06, 0.2)] + [("sgd", lr) for lr in (0.1, 1.0)]
ARMS = (*ROWS, "linear", *(f"{name} {control}" for name in TICKETS for control in ("random-readout", "random-trained")))
DENSE = tuple(name for name in ROWS if name not in TICKETS)  # the rows that may have affine norms
# What the sizes are chosen among; each with the linear classifier, the dense SNN and its binary ticket.
_SIZE = ("model", "width", "image_size", "epochs", "batch_size", "train_images")
SIZES = {
    IMAGES: [
        dict(zip(_SIZE, values, strict=True))
        for values in (
            ("conv2", 0.25, 14, 4, 50, 0),
            ("conv2", 0.5, 14, 2, 50, 0),
            ("conv2", 0.5, 14, 2, 100, 0),
            ("conv2", 0.5, 14, 3, 50, 0),  # chosen
            ("conv2", 1.0, 14, 1, 50, 0),
            ("conv2", 0.25, 28, 1, 50, 0),
            ("conv4", 0.5, 14, 2, 50, 0),
        )
    ],
    EVENT: [
        dict(zip(_SIZE, values, strict=True))
        for values in (
            ("conv2", 0.5, 17, 3, 50, 4000),  # chosen
            ("conv2", 0.5, 17, 2, 50, 6000),
            ("conv2", 0.25, 17, 4, 50, 6000),
            ("conv2", 1.0, 17, 2, 50, 2000),
            ("conv2", 0.5, 12, 3, 50, 8000),
            ("conv2", 1.0, 12, 2, 50, 4000),
            ("conv4", 0.5, 17, 2, 50, 4000),
        )
    ],
}
SIZE_ARMS = {"linear": (0.006, 0.02), "SNN": (0.006, 0.02), "BinWSNN-ConnS": (0.02, 0.06)}
SETTINGS = (
    *("dataset", "model", "width", "image_size", "train_images", "epochs", "batch_size"),
    *("timesteps", "beta", "augment", "affine", "binning"),
    *("depth", "heads", "stem_pools", "threshold", "search_epochs", "rank_epochs", "patch_sparsity"),
)


def name_of(profile, notebook=IMAGES):
    """The name of a tuning: the profile's, and the notebook's number where it is not 02."""
    return profile if notebook == IMAGES else f"{profile}-{notebook[:2]}"


def settings(profile, notebook=IMAGES):
    """The fields of a notebook in a profile that a recipe is tuned for, and its sparsity."""
    values = {**params.declared(notebook), **params.block(profile, notebook)}
    return {name: values[name] for name in SETTINGS if name in values}, values["sparsity"]


def arms(notebook=IMAGES):
    """The arms of a notebook in groups; those of a later group start from what an earlier one chose."""
    return [tuple(group) for group in table2.TUNED] if notebook == TRANSFORMER else [ARMS]


def candidates(profile, notebook=IMAGES, chosen=None):
    """(arm, Experiment) of the whole grid: as many for one arm as for another.

    chosen : of transformers: None for the first group of arms, then its recipes, for the second.
    """
    fixed, sparsity = settings(profile, notebook)
    if notebook == TRANSFORMER:
        patch_sparsity, *steps = (fixed.pop(name) for name in ("patch_sparsity", "search_epochs", "rank_epochs"))
        return [
            (arm, table2.judged(arm, dict(optimizer=optimizer, lr=lr), chosen or {}, fixed, sparsity, patch_sparsity, seed, *steps))
            for arm in arms(notebook)[chosen is not None]
            for optimizer, lr in GRID
            for seed in SEEDS[notebook]
        ]
    affine = fixed.pop("affine")
    return [
        (arm, row(arm, sparsity, optimizer=optimizer, lr=lr, seed=seed, affine=affine and arm in DENSE, **fixed))
        for arm in ARMS
        for optimizer, lr in GRID
        for seed in SEEDS[notebook]
    ]


def best(table):
    """{arm: its best recipe} by mean validation accuracy over the seeds; the first of the grid on a tie."""
    means = table.groupby(["arm", "optimizer", "lr"], sort=False)["val_accuracy"].mean().reset_index()
    top = means.loc[means.groupby("arm", sort=False)["val_accuracy"].idxmax()]
    return {r.arm: {"optimizer": r.optimizer, "lr": r.lr, "val_accuracy": round(r.val_accuracy, 2)} for r in top.itertuples()}


def trained(pairs, columns):
    """Train (arm, Experiment) pairs; a table of arm, the named columns, validation accuracy and key."""
    from sltlib.engine.runner import run
    from sltlib.engine.store import Store

    try:
        table = run([experiment for _, experiment in pairs])
    except RuntimeError as error:  # a rate too high for its row must not end the search: it has no score
        print(error, file=sys.stderr)
        store, rows = Store(), []
        if not any(store.get(experiment) for _, experiment in pairs):
            raise  # nothing trains: no table of holes over an older one
        for _, experiment in pairs:
            found = store.get(experiment)
            score = found.metrics["val_accuracy"] if found else float("nan")
            rows.append(experiment.spec() | {"val_accuracy": score, "key": experiment.key})
        table = pandas.DataFrame(rows)
    table.insert(0, "arm", [arm for arm, _ in pairs])
    return table[["arm", *columns, "seed", "val_accuracy", "key"]]


def sizes(profile, notebook=IMAGES):
    """(arm, Experiment) of the sizes that a notebook's was chosen among."""
    fixed = {name: value for name, value in settings(profile, notebook)[0].items() if name in ("dataset", "timesteps", "binning")}
    return [
        (arm, row(arm, 0.5, lr=lr, seed=SEEDS[notebook][0], **fixed, **size))
        for size in SIZES[notebook]
        for arm, rates in SIZE_ARMS.items()
        for lr in rates
    ]


def main(argv=None):
    """`python -m sltlib tune [--profile mini] [--notebook 06_event_data] [--sizes]`."""
    parser = argparse.ArgumentParser(prog="python -m sltlib tune", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mini", help="whose settings to tune for (default: mini)")
    parser.add_argument("--notebook", default=IMAGES, choices=tuple(SEEDS), help=f"whose rows (default: {IMAGES})")
    parser.add_argument("--sizes", action="store_true", help="compare image sizes, widths and passes instead")
    chosen = parser.parse_args(argv)
    place = params.tuning_folder(name_of(chosen.profile, chosen.notebook))
    if chosen.sizes:
        table = trained(sizes(chosen.profile, chosen.notebook), [*_SIZE, "lr"])
        figures.write_text(table.to_csv(index=False, lineterminator="\n"), place / "sizes.csv")
        shown = table.groupby([*_SIZE, "arm"], sort=False)["val_accuracy"].max().unstack("arm", sort=False)
        print(shown.to_string())
        return
    fixed, sparsity = settings(chosen.profile, chosen.notebook)
    table, choices = None, None
    for _ in arms(chosen.notebook):
        recipes = choices and {arm: {name: found[name] for name in ("optimizer", "lr")} for arm, found in choices.items()}
        part = trained(candidates(chosen.profile, chosen.notebook, recipes), ["optimizer", "lr"])
        table, choices = pandas.concat([table, part]), {**(choices or {}), **best(part)}
    about = {
        "settings": fixed | {"sparsity": sparsity},
        "budget": f"{len(GRID)} candidates of {len(SEEDS[chosen.notebook])} seeds for every arm",
        "choices": choices,
    }
    figures.write_text(table.to_csv(index=False, lineterminator="\n"), place / "grid.csv")
    figures.write_text(json.dumps(about, indent=1) + "\n", place / "choices.json")
    for arm, found in choices.items():
        print(f"{arm:32} {found['optimizer']:5} lr={found['lr']:<6} validation {found['val_accuracy']:.2f} %")
