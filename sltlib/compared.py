"""Which lines of a notebook's table a claim compares: its rows, and the columns that tell them apart."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping

from sltlib.base import files

NAMES = ("row", *files.HEX)  # columns that name something, with whatever digits
CLOSE = 1e-3  # sparsities are exact counts, 0.8999 for 0.9


def number(value) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def records(table) -> list[dict]:
    """The lines of a DataFrame or of a table.csv's path, as dicts; of a file, numbers are numbers, but for names and keys."""
    if hasattr(table, "to_dict"):
        return table.to_dict("records")
    with open(table, newline="", encoding="utf-8") as file:
        return [{name: text if name in NAMES else _value(text) for name, text in line.items()} for line in csv.DictReader(file)]


def _value(text):
    try:
        return float(text)
    except ValueError:
        return text


def select(lines: list[dict], where: Mapping) -> dict:
    """{seed: line} of a table's lines that have these values; ValueError where there are none, or two of a seed."""
    words = ", ".join(f"{name} {value}" for name, value in where.items())
    found = {}
    for line in lines:
        if fits(line, where):
            seed = int(line["seed"])
            if seed in found:
                raise ValueError(f"the table has two lines for {words}, seed {seed}: say which")
            found[seed] = line
    if not found:
        raise ValueError(f"the table has no {words}")
    return found


def fits(line: Mapping, where: Mapping) -> bool:
    """Whether a table's line has these values."""
    return all(same(line.get(name), value) for name, value in where.items())


def same(mine, wanted) -> bool:
    """Whether a table's value is the one that a claim names; a sparsity is an exact count there, 0.8999 for 0.9."""
    if number(wanted) and number(mine):
        return abs(mine - wanted) < CLOSE
    return mine == wanted


def _points(claim):
    """[(weight, {column: value})] of a claim's difference, lists of values spread out into their mean."""
    out = []
    for term in claim.compare:
        where = {name: value if isinstance(value, list) else [value] for name, value in term.items() if name != "weight"}
        points = [dict(zip(where, values, strict=True)) for values in itertools.product(*where.values())]
        out += [(term["weight"] / len(points), point) for point in points]
    return out


def terms(claim, lines: list[dict]) -> list[tuple[float, dict]]:
    """[(weight, {seed: line})] of a claim's difference."""
    return [(weight, select(lines, point)) for weight, point in _points(claim)]


def needs(claim, notebook: str) -> list[dict]:
    """What a claim is judged by of a notebook's table: a dict of columns and values each, row first."""
    own = [point for _, point in _points(claim)] if claim.notebook == notebook else []
    checked = [pair[side] for pair in claim.sanity if pair.get("notebook", claim.notebook) == notebook for side in ("row", "above")]
    out = []
    for point in [*own, *checked]:
        out += [point] if point not in out else []
    return out
