"""Learning curves as text: the CSV in a stored result."""

from __future__ import annotations

import csv
import io


def write(lines) -> str:
    """Lines, dicts of numbers, as text: a column for each name in the order of its first use, nothing for what a line lacks."""
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def read(text) -> list[dict]:
    """The lines again, with their numbers."""
    return [
        {name: _number(value) for name, value in line.items() if value != ""}
        for line in csv.DictReader(io.StringIO(text))
    ]


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
