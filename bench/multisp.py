"""What the rows of all levels need to pass a linear classifier: `python -m bench.multisp`.

MultiSp-SLT and -LT of notebook 08, their networks with a sparse binary or a sign ConvPEP alone, and the linear classifier
with as many passes, at other widths and with longer steps, each with the recipe that was tuned at `mini`'s size. Judged on
the validation split with the first tuning seed; writes every training to results/tuning/multisp.csv.
"""

import argparse

import pandas

from sltlib import run, table2
from sltlib.base import files, paths
from sltlib.experiment import FIELDS
from sltlib.notebook import recipes, tune

ROWS = ("MultiSp-SLT", "MultiSp-LT", "Spikeformer, binary ConvPEP", "Transformer, sign ConvPEP", "linear")
TRIED = (
    dict(),
    dict(search_epochs=12),
    dict(search_epochs=12, epochs=9),
    dict(width=0.3333),
    dict(width=0.3333, search_epochs=12, epochs=6),
    dict(width=0.5, search_epochs=12, epochs=6),
)
FILE = paths.ROOT / "results" / "tuning" / "multisp.csv"


def trainings(tried=TRIED):
    """[(width, search_epochs, epochs, row, Experiment)] of the sizes and steps."""
    found = tune.settings("mini", tune.TRANSFORMER)
    base = {name: value for name, value in found.items() if name in FIELDS and name not in ("sparsity", "patch_sparsity")}
    recipe, out = recipes.recipes("mini-08"), []
    for change in tried:
        width, search, epochs = ({**found, **change}[name] for name in ("width", "search_epochs", "epochs"))
        for name in ROWS:
            fields = base | dict(width=width, epochs=epochs)
            made = table2.row(name, fields, recipe, found["sparsity"], found["patch_sparsity"], tune.SEEDS[0], search, found["rank_epochs"])
            out.append((width, search, epochs, name, made))
    return out


def told(table):
    """The table as Markdown: a line a size, validation accuracy in percent by row."""
    lines = ["| width | search, encoder (epochs) | " + " | ".join(ROWS) + " |", "|---" * (len(ROWS) + 2) + "|"]
    for (width, search, epochs), part in table.groupby(["width", "search_epochs", "epochs"], sort=False):
        value = dict(zip(part.row, part.val_accuracy, strict=True))
        lines.append(f"| {width:g} | {search:g}, {epochs:g} | {' | '.join(f'{value[name]:.1f}' for name in ROWS)} |")
    return "\n".join(lines)


def main(argv=None):
    argparse.ArgumentParser("python -m bench.multisp", description=__doc__.splitlines()[0]).parse_args(argv)
    wanted = trainings()
    found = run([e for *_, e in wanted])
    table = pandas.DataFrame([line[:4] for line in wanted], columns=["width", "search_epochs", "epochs", "row"])
    table["seed"], table["val_accuracy"], table["key"] = tune.SEEDS[0], found.val_accuracy, found.key
    files.write(FILE, table.to_csv(index=False, lineterminator="\n", float_format="%.8g"))
    print(told(table))


if __name__ == "__main__":
    main()
