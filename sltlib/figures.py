"""Figures, tables and metrics of notebooks: one style, the same colour for the same neuron, stable bytes.

Every drawing function returns the matplotlib Figure, or draws into `ax`. What is written replaces
its file at once, and holds no times, hosts or dates.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import textwrap
from pathlib import Path

import numpy as np

from sltlib import stats

COLUMN, PAGE = 3.4, 7.0  # widths in inches of a paper's column and page

# Okabe and Ito's palette, which colour-blind readers can tell apart: three colours are the
# neurons', the others are for everything else.
PALETTE = ("#000000", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
GREY = "#666666"
ON, OFF = "#E69F00", "#56B4E9"  # events of an event camera: brighter, darker
COLOURS = {"relu": "#0072B2", "gelu": "#0072B2", "lif": "#D55E00", "sign": "#009E73", "linear": GREY}
# So that a print in grey can be read as well.
MARKERS = {"relu": "o", "gelu": "o", "lif": "^", "sign": "s", "linear": "P"}
LINES = {"relu": "-", "gelu": "-", "lif": "--", "sign": ":", "linear": "-."}

STYLE = {
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "savefig.bbox": "standard",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
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


def use() -> None:
    """Take the style for every figure from here on; the drawing functions do so themselves."""
    import cycler
    import matplotlib

    matplotlib.rcParams.update(STYLE, **{"axes.prop_cycle": cycler.cycler(color=PALETTE)})


def new(width: float = COLUMN, height: float = 2.4, rows: int = 1, columns: int = 1, **options):
    """A figure of width x height inches and its axes, in the style; options are those of plt.subplots."""
    import matplotlib.pyplot as plt

    use()
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def look(hue, i: int = 0) -> dict:
    """Colour, marker and line of a neuron's name; of anything else those of place i."""
    if hue in COLOURS:
        return {"color": COLOURS[hue], "marker": MARKERS[hue], "linestyle": LINES[hue]}
    return {"color": PALETTE[i % 5], "marker": "DvXp*"[i % 5], "linestyle": ("-", "--", "-.", ":")[i % 4]}


def caption(fig, text: str) -> None:
    """Small grey words below a figure; intervals and n belong there."""
    text = textwrap.fill(text, int(fig.get_figwidth() * 20))
    fig.supxlabel(text, x=0.01, ha="left", fontsize=6, color=GREY)


def _seeds(drawn, counts):
    """How the caption words what is drawn, n included."""
    low, high = min(counts), max(counts)
    if high == 1:
        return "One seed (n=1), which gives no interval"
    return f"{drawn} and 95 % t-interval, n={low if low == high else f'{low} to {high}'} seeds"


def _interval_line(ax, found, at, style, across="x"):
    """An interval as a line; nothing where one seed gives none."""
    if math.isfinite(found.half):
        ends, place = (found.low, found.high), (at, at)
        ax.plot(*((ends, place) if across == "x" else (place, ends)), color=style["color"], linewidth=1.2)


def _legend(fig, ax, hues, more=()):
    from matplotlib.lines import Line2D

    looks = {hue: look(hue, i) for i, hue in enumerate(hues) if hue is not None}
    handles = [
        Line2D([], [], color=s["color"], marker=s["marker"], linestyle="", label=str(h))
        for h, s in looks.items()
    ] + list(more)
    if len(handles) > 1:
        fig.legend(handles=handles, loc="outside upper center", ncols=5, handletextpad=0.1, columnspacing=1)


def _rows(ax, labels):
    """Named rows from the top down."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def dots(
    table,
    x: str,
    y: str,
    hue: str | None = "neuron",
    reference=None,
    reference_label="the paper's",
    xlabel=None,
    ax=None,
):
    """A row for each y: the mean of x as a dot, its 95 % t-interval, each seed as a faint point.

    table : DataFrame with one row an experiment; rows of the chart come in its order.
    hue : column that gives colour and marker, or None.
    reference : {y: value} drawn as hollow diamonds named reference_label.
    """
    labels = list(dict.fromkeys(table[y]))
    hues = list(dict.fromkeys(table[hue])) if hue else [None]
    fig, ax = (ax.figure, ax) if ax is not None else new(COLUMN, 0.9 + 0.21 * len(labels))
    from matplotlib.lines import Line2D

    counts = []
    for i, label in enumerate(labels):
        part = table[table[y] == label]
        own = [h for h in hues if hue is None or h in set(part[hue])]
        for j, h in enumerate(own):
            values = (part if hue is None else part[part[hue] == h])[x].tolist()
            found, style = stats.interval(values), look(h, hues.index(h))
            at = i + (0.5 * (j + 0.5) / len(own) - 0.25)  # several in one row stand side by side
            below = [at + 0.26 / len(own)] * len(values)  # on the interval they would hide
            ax.scatter(values, below, s=6, color=style["color"], alpha=0.45, linewidths=0, zorder=2)
            _interval_line(ax, found, at, style)
            ax.plot(found.mean, at, marker=style["marker"], color=style["color"], markeredgecolor="white",
                    markeredgewidth=0.4, zorder=3)  # fmt: skip
            counts.append(found.n)
        if reference and label in reference:
            ax.plot(
                reference[label], i, marker="D", color="white", markeredgecolor=GREY, markersize=3, zorder=1
            )
    _rows(ax, labels)
    ax.set_xlabel(xlabel or x)
    drawn = set(labels) & set(reference or {})
    paper = [
        Line2D([], [], color="white", marker="D", markeredgecolor=GREY, linestyle="", label=reference_label)
    ]
    _legend(fig, ax, hues, paper if drawn else ())
    caption(fig, f"{_seeds('Mean', counts)}{'' if max(counts) == 1 else '; small: each seed'}.")
    return fig


def differences(found: dict, xlabel: str = "difference (points)", margin: float | None = None, adjusted=None, reference=None, ax=None):
    """A row for each paired difference: its interval against zero, filled where it is resolved.

    found : {label: stats.Interval}. adjusted : {label: p-value after `stats.holm`}; then resolved means
    below 0.05, and otherwise that the interval excludes zero, or -margin where there is a margin of
    non-inferiority; it is drawn there. reference : {label: value}, drawn as hollow diamonds.
    """
    fig, ax = (ax.figure, ax) if ax is not None else new(COLUMN, 0.8 + 0.21 * len(found))
    ax.axvline(0, color="black", linewidth=0.8)
    if margin is not None:
        ax.axvline(-margin, color=GREY, linewidth=0.8, linestyle=":")
    style = {"color": PALETTE[0]}
    for i, interval in enumerate(found.values()):
        _interval_line(ax, interval, i, style)
        line = -(margin or 0)
        sure = (interval.low > line or interval.high < line) if adjusted is None else adjusted[list(found)[i]] < 0.05
        face = style["color"] if sure else "white"
        ax.plot(interval.mean, i, marker="o", color=face, markeredgecolor=style["color"], zorder=3)
    for i, label in enumerate(found):
        if label in (reference or {}):
            ax.plot(reference[label], i, marker="D", color="white", markeredgecolor=GREY, markersize=3)
    _rows(ax, list(found))
    ax.set_xlabel(xlabel)
    words = _seeds("Mean paired difference", [interval.n for interval in found.values()])
    hollow = "hollow: not resolved" + (" after Holm's correction" if adjusted else "")
    line = f" Dotted: margin of {margin:g}." if margin is not None else ""
    line += " Diamonds: the paper's, one run." if reference else ""
    caption(fig, f"{words}; {hollow}.{line}")
    return fig


def curves(table, x: str, y: str, hue: str | None = "neuron", xlabel=None, ylabel=None, ax=None):
    """The mean of y over x as one line a hue, with its 95 % t-interval as a band.

    table : DataFrame with one row an experiment (or a step of one, for learning curves).
    """
    hues = list(dict.fromkeys(table[hue])) if hue else [None]
    fig, ax = (ax.figure, ax) if ax is not None else new()
    counts = []
    for i, h in enumerate(hues):
        part = stats.summary(table if hue is None else table[table[hue] == h], x, y).sort_values(x)
        style = look(h, i)
        if part[["low", "high"]].map(math.isfinite).all(axis=None):
            ax.fill_between(part[x], part["low"], part["high"], color=style["color"], alpha=0.18, linewidth=0)
        if len(part) > 12:
            style["marker"] = ""
        ax.plot(part[x], part["mean"], **style, label=None if h is None else str(h))
        counts += part["n"].tolist()
    ax.set_xlabel(xlabel or x)
    ax.set_ylabel(ylabel or y)
    if len(hues) > 1:
        ax.legend(handlelength=2.6)
    caption(fig, f"{_seeds('Mean', counts)}.")
    return fig


def images(pictures, titles=None, columns: int = 10, width: float = PAGE, colours: str = "gray"):
    """A grid of small pictures, (N, H, W), (N, 1, H, W) or (N, 3, H, W); grey ones share one scale.

    Recordings (N, T, 2, H, W) are drawn as the sum of their frames, ON and OFF in colour.
    titles : N strings; colours : a matplotlib colour map for those of one channel.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim == 5 and pictures.shape[2] == 2:
        pictures = frame_pictures(pictures.sum(1, dtype=np.int64))
    if pictures.ndim not in (3, 4):
        raise ValueError(f"pictures has the shape {pictures.shape}: give (N, H, W), (N, 3, H, W) or (N, T, 2, H, W)")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles has {len(titles)} strings for {len(pictures)} pictures")
    if pictures.ndim == 4:
        pictures = np.moveaxis(pictures, 1, -1)
        pictures = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell = width / columns
    tall = cell * pictures.shape[1] / pictures.shape[2] + (0.16 if titles is not None else 0.02)
    fig, axes = new(width, rows * tall, rows, columns, squeeze=False)
    limits = {"vmin": pictures.min(), "vmax": pictures.max()} if pictures.ndim == 3 else {}
    for i, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if i < len(pictures):
            ax.imshow(pictures[i], cmap=colours, interpolation="nearest", **limits)
            if titles is not None:
                ax.set_title(titles[i], fontsize=6, pad=2)
    return fig


def recording(found, sensor, most: int = 6000, ax=None):
    """The events of a recording in space and time, ON and OFF, as points in three dimensions.

    found : structured array with t (microseconds), x, y and p, as from `sltlib.data.events`. sensor : its
    (height, width) in pixels. most : of longer recordings every n-th event is drawn.
    """
    if ax is None:
        fig, ax = new(COLUMN, 2.6, subplot_kw={"projection": "3d"})
    fig = ax.figure
    shown = found[:: -(-len(found) // most) or 1]
    for colour, polarity, label in ((ON, 1, "ON"), (OFF, 0, "OFF")):
        part = shown[shown["p"] == polarity]
        ax.scatter(part["t"] / 1000, part["x"], sensor[0] - 1 - part["y"].astype(int), s=1, color=colour,
                   linewidths=0, alpha=0.6, label=label, rasterized=True)  # fmt: skip
    ax.set(xlabel="time (ms)", ylabel="x (pixels)", zlabel="y (pixels)", ylim=(0, sensor[1]), zlim=(0, sensor[0]))
    ax.set_box_aspect((2, 1, 1), zoom=0.95)
    ax.locator_params(nbins=4)
    ax.view_init(elev=18, azim=-62)
    ax.tick_params(labelsize=5, pad=-2)
    return fig


def frame_pictures(frames, full=None):
    """Frames of event counts (..., 2, H, W) as colours (..., 3, H, W) in 0..1 for `images`: white is none.

    full : the count that has its full colour, by default the 99th percentile of those above 0.
    """
    frames = np.asarray(frames, np.float64)
    if full is None:
        full = np.percentile(frames[frames > 0], 99) if (frames > 0).any() else 1.0
    strength = np.clip(frames / full, 0, 1)[..., None, :, :]  # (..., 2, 1, H, W)
    ink = 1 - np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in (OFF, ON)])  # (2, 3)
    return np.clip(1 - (strength * ink[:, :, None, None]).sum(-4), 0, 1)


def faded(pictures, index, side: int):
    """Images (N, C, H, W) or recordings (N, T, 2, H, W), uint8, in colours (N, 3, H, W): a veil is on removed patches.

    index : (N, K), the patches that stay, numbered row by row. side : patches along a side.
    """
    pictures = np.asarray(pictures)
    colours = frame_pictures(pictures.sum(1, dtype=np.int64)) if pictures.ndim == 5 else pictures / 255
    colours = np.broadcast_to(colours, (len(colours), 3, *colours.shape[2:]))
    kept = np.zeros((len(colours), side * side), bool)
    kept[np.arange(len(colours))[:, None], index] = True
    height, width = colours.shape[2:]
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
    kept = kept.reshape(-1, side, side)[:, rows[:, None], columns]  # (N, H, W)
    veil = np.array([0.86, 0.78, 0.86])[:, None, None]  # neither black nor white, which images are full of
    return np.where(kept[:, None], colours, 0.2 * colours + 0.8 * veil)


# --- what a notebook leaves


def _write(path, content: bytes):
    """All or nothing: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(text: str, path) -> None:
    """Write a text file as UTF-8; a failure leaves the old file as it was."""
    _write(Path(path), text.encode())


def _drawn(fig, kind):
    """A figure's bytes, the same on every run: no version, no date."""
    empty = {"png": ["Software"], "pdf": ["Creator", "Producer", "CreationDate"]}[kind]
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, dpi=STYLE["savefig.dpi"], metadata=dict.fromkeys(empty))
    return buffer.getvalue()


def save(fig, output, name: str) -> None:
    """Write <output>/figures/<name>.png and .pdf."""
    if not name or Path(name).name != name:
        raise ValueError(f"name={name!r}: give a file name without folder and ending")
    drawn = {kind: _drawn(fig, kind) for kind in ("png", "pdf")}
    for kind, content in drawn.items():
        _write(Path(output) / "figures" / f"{name}.{kind}", content)


def headline(fig, output) -> None:
    """Write <output>/figure.png, the one that stands for the notebook."""
    _write(Path(output) / "figure.png", _drawn(fig, "png"))


def plain(value, name: str = "metrics"):
    """Values as JSON has them: dataclasses as dicts, floats to 6 digits, None for what is not finite.

    Raises TypeError naming the entry that is none of these.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, f"{name}[{i}]") for i, entry in enumerate(value)]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: give numbers, strings, lists, dicts or dataclasses")


def write_metrics(metrics: dict, output) -> None:
    """Write <output>/metrics.json, keys sorted; leave times, hosts and dates out of it."""
    text = json.dumps(plain(metrics), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_text(text, Path(output) / "metrics.json")


def write_table(table, output) -> None:
    """Write <output>/table.csv: floats to 6 digits, nothing for what is missing, nested values as JSON."""

    def cell(value):
        value = plain(value, "table")
        if value is None or isinstance(value, str):
            return value
        return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, sort_keys=True)

    named = any(name is not None for name in table.index.names)
    cells = table.astype(object).map(cell)
    write_text(cells.to_csv(index=named, lineterminator="\n"), Path(output) / "table.csv")
