"""What searches of recipes have tried, as files under results/tuning: grid.csv of one that has ended, begun.csv of one that has not.

Both have a line a training with its key and validation accuracy, so that no search does it again, here or elsewhere.
"""

from __future__ import annotations

import pandas

from sltlib.base import files
from sltlib.notebook import recipes

GRID, BEGUN = "grid.csv", "begun.csv"


def write(table, path) -> None:
    """Write a table of candidates, whole or not at all."""
    files.write(path, table.to_csv(index=False, lineterminator="\n", float_format="%.8g"))


def scores() -> dict[str, float]:
    """{key: validation accuracy} of every training that a grid.csv or begun.csv tells of."""
    there = sorted(path for name in (GRID, BEGUN) for path in recipes.folder("").glob(f"*/{name}"))
    tables = [files.table(path).dropna(subset=["key", "val_accuracy"]) for path in there]
    return {key: score for table in tables for key, score in zip(table.key, table.val_accuracy, strict=True)}


def keep(folder, table) -> None:
    """Add the candidates of a search that goes on to its begun.csv; what could not be trained has no score, and an earlier one stays."""
    path = folder / BEGUN
    found = pandas.concat([files.table(path), table], ignore_index=True) if path.is_file() else table
    write(found.sort_values("val_accuracy", kind="stable", na_position="last").drop_duplicates("key").sort_index(), path)


def ended(folder, whole: bool) -> None:
    """Remove begun.csv after a search that left its grid.csv; of one that was not whole, where the grid has all that it holds."""
    path = folder / BEGUN
    if path.is_file() and (whole or set(files.table(path).key) <= set(files.table(folder / GRID).key)):
        path.unlink()
