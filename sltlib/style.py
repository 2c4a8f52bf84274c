"""One style for every figure: colours, sizes, captions, words for those who cannot see it, and its files.

The same colour is the same thing everywhere: neurons have theirs, libraries and methods others. No time,
host or date gets into a file, so that the same figure is the same bytes. `sltlib.figures` has all names of this file.
"""

from __future__ import annotations

import io
import re
import textwrap
from pathlib import Path

from sltlib.base import files
from sltlib.table1 import ROWS

COLUMN, PAGE = 3.4, 7.0  # widths in inches of a paper's column and page
# Okabe and Ito's colours, and two of Tol's for their yellow, which no white page shows, and their orange, which is
# too near the spiking neuron's. Readers who are colour-blind can tell them apart; no neuron wears one.
PALETTE = ("#000000", "#CC79A7", "#56B4E9", "#882255", "#999933")
GREY, LIGHT = "#555555", "#bbbbbb"
ON, OFF = "#E69F00", "#56B4E9"  # events of an event camera: brighter, darker
COLOURS = {"relu": "#0072B2", "gelu": "#0072B2", "lif": "#D55E00", "sign": "#009E73", "linear": GREY}
# So that a print in grey can be read as well.
MARKERS = {"relu": "o", "gelu": "o", "lif": "^", "sign": "s", "linear": "P"}
LINES = {"relu": "-", "gelu": "-", "lif": "--", "sign": ":", "linear": "-."}
# The papers' names of rows, as the rows are called here.
ALIASES = {"dense SNN": "SNN", "SLT": "SNN-ConnS", "MPSLT": "BinWSNN-ConnS", "LT": "ANN-ConnS", "MPLT 1/32": "BNN-ConnS",
           "MPLT 1/1": "ActBNN-ConnS"}  # fmt: skip
# What is no neuron and stands in more than one figure: its place in PALETTE, None for grey.
OTHERS = {
    "ours": 0, "snnTorch": 1, "spikingjelly": 2, "floor": None,
    "learned": 0, "rate": 1, "attention": 2, "random": None,
}  # fmt: skip

STYLE = {
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "savefig.bbox": "standard",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
}
# Points of the letters in a figure of one column; wider ones are shown smaller, so theirs are larger.
LETTERS = {
    "font.size": 7, "axes.titlesize": 8, "axes.labelsize": 7.5, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7,
}  # fmt: skip
CAPTION = 7


def _larger(width: float) -> float:
    """How much larger letters are in a figure of so many inches: readable where it is shown 500 pixels wide."""
    return max(1.0, (width / COLUMN) ** 0.3)


def use(width: float = COLUMN) -> None:
    """Take the style for every figure from here on; the drawing functions do so themselves."""
    import cycler
    import matplotlib

    letters = {name: size * _larger(width) for name, size in LETTERS.items()}
    matplotlib.rcParams.update(STYLE | letters, **{"axes.prop_cycle": cycler.cycler(color=PALETTE)})


def new(width: float = COLUMN, height: float = 2.4, rows: int = 1, columns: int = 1, **options):
    """A figure of width x height inches and its axes, in the style; options are those of plt.subplots."""
    import matplotlib.pyplot as plt

    use(width)
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def look(hue, i: int = 0) -> dict:
    """Colour, marker and line of a name that has its own (neurons, OTHERS); of anything else those of place i.

    A row of Table 1, by either name, has its neuron's colour and marker; binary weights are hollow and dashed.
    """
    if hue in COLOURS:
        return {"color": COLOURS[hue], "marker": MARKERS[hue], "linestyle": LINES[hue]}
    if row := ROWS.get(ALIASES.get(hue, hue)):
        neuron, binary = row["neuron"], row["weights"] == "binary"
        style = {"color": COLOURS[neuron], "marker": MARKERS[neuron], "linestyle": "--" if binary else "-"}
        return style | {"fillstyle": "none" if binary else "full"}
    i = OTHERS.get(hue, i)
    if i is None:
        return {"color": GREY, "marker": "h", "linestyle": (0, (1, 1))}
    return {"color": PALETTE[i % 5], "marker": "DvXp*"[i % 5], "linestyle": ("-", "--", "-.", ":")[i % 4]}


def caption(fig, text: str) -> None:
    """Words below a figure: data set, what is drawn, intervals and n belong there."""
    size, text = CAPTION * _larger(fig.get_figwidth()), re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", text)
    letters = int(fig.get_figwidth() * 72 / (0.53 * size))  # a letter's width, on average
    fig.supxlabel(textwrap.fill(text, letters), x=0.01, ha="left", fontsize=size, color=GREY)


def describe(fig, text: str) -> None:
    """The words that stand in for a figure where it cannot be seen (its alt text); the drawing functions give some."""
    fig.set_label(" ".join(text.split()))


def alt(fig) -> str:
    """A figure's alt text: what `describe` was given, else its titles, axes and caption."""
    if fig.get_label():
        return fig.get_label()
    parts = [word for ax in fig.axes for word in (ax.get_title(), ax.get_title("left"), ax.get_ylabel(), ax.get_xlabel())]
    parts = [*dict.fromkeys(" ".join(part.split()) for part in parts if part), fig.get_supxlabel()]
    return "; ".join(" ".join(part.split()) for part in parts if part)


def alt_of(path) -> str:
    """The alt text within a picture that `save` or `headline` wrote; "" where there is none."""
    from PIL import Image

    with Image.open(path) as picture:
        return picture.info.get("Description", "")


def _drawn(fig, kind, words):
    """A figure's bytes, the same on every run: no version, no date."""
    empty = {"png": ["Software"], "pdf": ["Creator", "Producer", "CreationDate"]}[kind]
    told = {"png": "Description", "pdf": "Subject"}[kind]
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, dpi=STYLE["savefig.dpi"], metadata=dict.fromkeys(empty) | ({told: words} if words else {}))
    return buffer.getvalue()


def save(fig, output, name: str, alt: str | None = None) -> None:
    """Write <output>/figures/<name>.png and .pdf; alt : its alt text, by default the figure's own."""
    if not name or Path(name).name != name:
        raise ValueError(f"name={name!r}: give a file name without folder and ending")
    words = _words(fig, alt)
    drawn = {kind: _drawn(fig, kind, words) for kind in ("png", "pdf")}
    for kind, content in drawn.items():
        files.write(Path(output) / "figures" / f"{name}.{kind}", content)


def headline(fig, output, alt: str | None = None) -> None:
    """Write <output>/figure.png, the one that stands for the notebook."""
    files.write(Path(output) / "figure.png", _drawn(fig, "png", _words(fig, alt)))


def _words(fig, given):
    if given is not None:
        describe(fig, given)
    return alt(fig)
