"""The plots: results as dots, differences against zero, ratios, distributions and curves, in one style.

Every function returns the matplotlib Figure, or draws into `ax`; its caption tells data set, interval and n, and
its alt text the numbers. Style and files are in `sltlib.style`, pictures of data in `sltlib.pictures`; all of
their names are here too.
"""

from __future__ import annotations

import math
import textwrap

from sltlib import stats
from sltlib.pictures import faded, frame_pictures, images, recording
from sltlib.style import (
    COLOURS, COLUMN, GREY, LIGHT, LINES, MARKERS, OFF, ON, OTHERS, PAGE, PALETTE, STYLE,
    alt, alt_of, caption, describe, headline, look, new, save, use,
)  # fmt: skip

__all__ = [
    "COLOURS", "COLUMN", "GREY", "LIGHT", "LINES", "MARKERS", "OFF", "ON", "OTHERS", "PAGE", "PALETTE", "STYLE",
    "alt", "alt_of", "caption", "curves", "describe", "differences", "distribution", "dots", "faded", "frame_pictures",
    "headline", "images", "look", "new", "ratios", "recording", "save", "use",
]  # fmt: skip
LONGEST = 34  # letters of a row's name before it goes on in a second line


def _seeds(drawn, counts):
    """How the caption words what is drawn, n included."""
    low, high = min(counts), max(counts)
    if high == 1:
        return "One seed (n=1), which gives no interval"
    return f"{drawn} and 95 % t-interval, n={low if low == high else f'{low} to {high}'} seeds"


def _about(about, table=None):
    """What the caption begins with: the data set, as it was given or as the table's one `dataset` is called."""
    if about is None and table is not None and "dataset" in table and table["dataset"].nunique() == 1:
        from sltlib.data import DATASETS

        name = table["dataset"].iloc[0]
        about = DATASETS[name].title if name in DATASETS else str(name)
    return f"{about}. " if about else ""


def _place(fig, axes_given, about, words, told):
    """Caption and alt text of a figure; panels of one figure that say the same share it."""
    caption(fig, f"{about}{words}")
    before = fig.get_label() if axes_given else ""
    describe(fig, "; ".join(part for part in (before, told, f"{about}{words}") if part))


def _line(ax, low, high, at, across="x", **style):
    """An interval as a line; nothing where one seed gives none."""
    if math.isfinite(high - low):
        ends, place = (low, high), (at, at)
        ax.plot(*((ends, place) if across == "x" else (place, ends)), **{"linewidth": 1.2, **style})


def _legend(fig, hues, more=()):
    from matplotlib.lines import Line2D

    looks = {hue: look(hue, i) for i, hue in enumerate(hues) if hue is not None}
    handles = [
        Line2D([], [], **s | {"linestyle": ""}, label=str(h)) for h, s in looks.items()
    ] + list(more)
    if len(handles) > 1:
        columns = max(1, min(5, int(fig.get_figwidth() * 17 / max(6, *(len(h.get_label()) + 4 for h in handles)))))
        fig.legend(handles=handles, loc="outside upper center", ncols=columns, handletextpad=0.1, columnspacing=1)


def _diamond(label):
    """The mark of what others measured."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color="white", marker="D", markeredgecolor=GREY, markersize=4, linestyle="", label=label)


def _rows(ax, labels):
    """Named rows from the top down."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)


def _lane(row, j, count):
    """Where the j-th of so many marks of a row stands: side by side, none on another."""
    return row + 0.56 * ((j + 0.5) / count - 0.5)


def dots(
    table,
    x: str,
    y: str,
    hue: str | None = "neuron",
    reference=None,
    reference_label="the paper's",
    xlabel=None,
    ax=None,
    about=None,
):
    """A row for each y: the mean of x as a mark, its 95 % t-interval, and every seed as a small point below.

    table : DataFrame with one row an experiment; rows of the chart come in its order.
    hue : column that gives colour and marker, or None.
    reference : {y: value} drawn as hollow diamonds named reference_label.
    about : the data set, for the caption; by default that of a column `dataset`.
    """
    import pandas
    import seaborn

    labels = list(dict.fromkeys(table[y]))
    hues = list(dict.fromkeys(table[hue])) if hue else [None]
    given, (fig, ax) = ax is not None, (ax.figure, ax) if ax is not None else new(COLUMN, 1.0 + 0.22 * len(labels))
    counts, told, seeds = [], [], []
    for i, label in enumerate(labels):
        part = table[table[y] == label]
        own = [h for h in hues if hue is None or h in set(part[hue])]
        for j, h in enumerate(own):
            values = (part if hue is None else part[part[hue] == h])[x].tolist()
            found, style, at = stats.interval(values), look(h, hues.index(h)), _lane(i, j, len(own)) - 0.08
            _line(ax, found.low, found.high, at, color=style["color"])
            edge = {"markeredgecolor": "white", "markeredgewidth": 0.4} if style.get("fillstyle") != "none" else {}
            ax.plot(found.mean, at, zorder=3, **style | edge)
            seeds += [{"value": v, "at": at + 0.3 / len(own), "colour": style["color"]} for v in values if found.n > 1]
            counts.append(found.n)
            told.append(f"{label}{f' ({h})' if len(own) > 1 else ''} {found}")
        if reference and label in reference:
            ax.plot(reference[label], i, marker="D", color="white", markeredgecolor=GREY, markersize=4, zorder=2)
    if seeds:  # in a swarm: equal values stand beside each other
        seeds = pandas.DataFrame(seeds)
        seaborn.swarmplot(seeds, x="value", y="at", hue="colour", palette={c: c for c in seeds.colour}, orient="y", native_scale=True,
                          size=2.4, alpha=0.6, legend=False, zorder=2, warn_thresh=1, ax=ax)  # fmt: skip
    _rows(ax, labels)
    ax.set(xlabel=xlabel or x, ylabel="")
    drawn = set(labels) & set(reference or {})
    _legend(fig, hues, [_diamond(reference_label)] if drawn else ())
    words = f"{_seeds('Mean', counts)}{'' if max(counts) == 1 else '; small: each seed'}."
    _place(fig, given, _about(about, table), words, f"{xlabel or x} by row: {', '.join(told)}")
    return fig


def _corrected(found, adjusted):
    """The ends of a difference's interval at the level that Holm's correction leaves it.

    The correction multiplies a p-value by adjusted / p, so the interval is one of 95 % whose 5 % are divided by
    that: it excludes zero exactly where the adjusted p-value is below 0.05. Its width says how many degrees of
    freedom it has: with n - 1 the p-value must be that of the 95 % interval, else (Welch) they are looked for.
    """
    from scipy.special import stdtr, stdtrit

    if not math.isfinite(found.half) or not found.half or not found.p or adjusted <= found.p:
        return found.low, found.high
    alpha = 1 - stats.LEVEL

    def p_value(df):
        return 2 * stdtr(df, -abs(found.mean) / found.half * stdtrit(df, 1 - alpha / 2))

    df = found.n - 1
    if abs(found.mean) > found.half and abs(p_value(df) - found.p) > 1e-3 * found.p:
        low, high = 0.5, 1e6
        for _ in range(100):
            df = math.sqrt(low * high)
            low, high = (df, high) if p_value(df) > found.p else (low, df)
    half = found.half * stdtrit(df, 1 - alpha * found.p / adjusted / 2) / stdtrit(df, 1 - alpha / 2)
    return found.mean - half, found.mean + half


def differences(
    found: dict,
    xlabel: str = "difference (points)",
    margin: float | None = None,
    adjusted=None,
    reference=None,
    ax=None,
    about=None,
    groups: str = "paired",
):
    """A row for each difference: its interval against zero, filled where it is resolved.

    found : {label: stats.Interval}. adjusted : {label: p-value after `stats.holm`}; then resolved means below 0.05,
    and a thin line goes on to where the interval ends at the level that the correction leaves it: it excludes
    zero exactly where the mark is filled. Otherwise resolved means that the 95 % interval excludes zero, or -margin
    where there is a margin of non-inferiority; it is drawn there. reference : {label: value}, drawn as hollow
    diamonds. about : the data set, and groups : "paired" by seed or "independent" (`stats.Family.groups`), for the caption.
    """
    given, names = ax is not None, list(found)
    if not given:
        names = [textwrap.fill(name, LONGEST) for name in found]  # or they would leave the intervals no room
        fig, ax = new(COLUMN, 0.9 + sum(0.22 + 0.12 * name.count("\n") for name in names))
    fig, bar = ax.figure, -(margin or 0)
    ax.axvline(0, color="black", linewidth=0.8)
    if margin is not None:
        ax.axvline(bar, color=GREY, linewidth=0.8, linestyle=":")
    colour, told = PALETTE[0], []
    for i, (label, interval) in enumerate(found.items()):
        low, high = (interval.low, interval.high) if adjusted is None else _corrected(interval, adjusted[label])
        sure = (interval.low > bar or interval.high < bar) if adjusted is None else adjusted[label] < 1 - stats.LEVEL
        if adjusted is not None:
            _line(ax, low, high, i, color=colour, linewidth=0.6, marker="|", markersize=3, markeredgewidth=0.6)
        _line(ax, interval.low, interval.high, i, color=colour, linewidth=1.6 if adjusted is not None else 1.2, solid_capstyle="butt")
        ax.plot(interval.mean, i, marker="o", color=colour if sure else "white", markeredgecolor=colour, zorder=3)
        told.append(f"{label} {interval}{'' if sure else ', not resolved'}")
        if label in (reference or {}):
            ax.plot(reference[label], i + 0.24, marker="D", color="white", markeredgecolor=GREY, markersize=3.5, zorder=2)
    _rows(ax, names)
    ax.set_xlabel(xlabel)
    kind = {"paired": "Mean paired difference", "independent": "Difference of the means of independent groups (Welch)"}[groups]
    words = _seeds(kind, [interval.n for interval in found.values()])
    words += "; hollow: not resolved" + (" after Holm's correction, to which the thin lines belong." if adjusted is not None else ".")
    words += f" Dotted: margin of {margin:g}." if margin is not None else ""
    words += " Diamonds: the paper's, one run." if set(reference or {}) & set(found) else ""
    _place(fig, given, _about(about), words, f"{xlabel}: {', '.join(told)}")
    return fig


def ratios(found: dict, xlabel: str = "ratio (log scale)", reference=None, reference_label="the paper's", ax=None, about=None):
    """A row for each ratio on a logarithmic axis, a mark for each way of taking it: a dot, for a bar has no zero there.

    found : {row: {way: stats.Interval}}, all above zero. reference : {row: value}, drawn as hollow diamonds.
    """
    ways = list(dict.fromkeys(way for row in found.values() for way in row))
    given, (fig, ax) = ax is not None, (ax.figure, ax) if ax is not None else new(COLUMN, 1.0 + 0.34 * len(found))
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xscale("log")
    counts, told = [], []
    for i, (row, part) in enumerate(found.items()):
        for way, interval in part.items():
            style, at = look(way, ways.index(way)), _lane(i, ways.index(way), len(ways))
            _line(ax, interval.low, interval.high, at, color=style["color"])
            ax.plot(interval.mean, at, zorder=3, **style)
            counts.append(interval.n)
            told.append(f"{row}, {way} {interval}")
        if row in (reference or {}):
            ax.plot(reference[row], i - 0.38, marker="D", color="white", markeredgecolor=GREY, markersize=4, zorder=2)
    _rows(ax, list(found))
    _plain_ticks(ax)
    ax.set_xlabel(xlabel)
    _legend(fig, ways, [_diamond(reference_label)] if set(reference or {}) & set(found) else ())
    _place(fig, given, _about(about), f"{_seeds('Mean', counts)}.", f"{xlabel}: {', '.join(told)}")
    return fig


def _plain_ticks(ax):
    """1, 2 and 5 of each power of ten that a logarithmic axis shows, as plain numbers."""
    low, high = ax.get_xlim()
    places = [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    places = [place for place in places if low <= place <= high]
    ax.set_xticks(places, [f"{place:g}" for place in places])
    ax.set_xticks([], minor=True)


def distribution(table, x: str, y: str, hue: str | None = "neuron", xlabel=None, ax=None, about=None):
    """A row for each y: how the values of x lie (a density, the middle half, the median) and every one of them.

    table : DataFrame with a row a value. hue : column that gives the colour, the same within a row, or None.
    """
    import seaborn

    labels = list(dict.fromkeys(table[y]))
    hues = list(dict.fromkeys(table[hue])) if hue else [None]
    given, (fig, ax) = ax is not None, (ax.figure, ax) if ax is not None else new(COLUMN, 1.0 + 0.34 * len(labels))
    own = [table[table[y] == label][hue].iloc[0] if hue else None for label in labels]
    colours = {label: look(h, hues.index(h))["color"] for label, h in zip(labels, own, strict=True)}
    shared = dict(data=table, x=x, y=y, order=labels, hue=y, hue_order=labels, palette=colours, orient="y", legend=False, ax=ax)
    seaborn.violinplot(**shared, inner="quart", cut=0, density_norm="width", width=0.8, alpha=0.25, linewidth=0.7)
    seaborn.swarmplot(**shared, size=2.4, alpha=0.8, warn_thresh=1)
    _rows(ax, labels)
    ax.set(xlabel=xlabel or x, ylabel="")
    counts = table.groupby(y, sort=False)[x].count()
    n = f"n={counts.min()}" if counts.min() == counts.max() else f"n={counts.min()} to {counts.max()}"
    medians = table.groupby(y, sort=False)[x].median()
    told = ", ".join(f"{label} median {medians[label]:.2f}" for label in labels)
    words = f"Every value ({n} a row), their density, median and quartiles."
    _place(fig, given, _about(about, table), words, f"{xlabel or x} by row: {told}")
    return fig


def curves(table, x: str, y: str, hue: str | None = "neuron", xlabel=None, ylabel=None, ax=None, about=None):
    """The mean of y over x as one line a hue, with its 95 % t-interval: dodged bars, or bands from 13 points on.

    table : DataFrame with one row an experiment (or a step of one, for learning curves). Where x is a name and
    not a number the points are kinds, and no line joins them.
    """
    from pandas.api.types import is_numeric_dtype

    hues = list(dict.fromkeys(table[hue])) if hue else [None]
    given, (fig, ax) = ax is not None, (ax.figure, ax) if ax is not None else new()
    scale = is_numeric_dtype(table[x])
    places = sorted(table[x].unique()) if scale else list(dict.fromkeys(table[x]))
    gap = (min(b - a for a, b in zip(places, places[1:], strict=False)) if scale and len(places) > 1 else 1) * 0.08
    counts, told = [], []
    for i, h in enumerate(hues):
        part = stats.summary(table if hue is None else table[table[hue] == h], x, y).set_index(x)
        part = part.loc[[place for place in places if place in part.index]]
        style, label = look(h, i), None if h is None else str(h)
        at, known = list(part.index) if scale else [places.index(place) for place in part.index], part["n"] > 1
        if len(part) > 12:
            ax.plot(at, part["mean"], **style | {"marker": ""}, label=label)
            if known.all():
                ax.fill_between(at, part["low"], part["high"], color=style["color"], alpha=0.18, linewidth=0)
        else:
            at = [place + gap * (i - (len(hues) - 1) / 2) for place in at]
            half = ((part["high"] - part["low"]) / 2).where(known, 0)
            ax.errorbar(at, part["mean"], half, capsize=2, **style | ({} if scale else {"linestyle": ""}), label=label)
        counts += part["n"].tolist()
        ends = part["mean"].iloc[[0, -1]].round(2).tolist()
        told.append(f"{label or y} {ends[0]:g} at {part.index[0]}, {ends[1]:g} at {part.index[-1]}")
    if not scale:
        ax.set_xticks(range(len(places)), places)
    ax.set(xlabel=xlabel or x, ylabel=ylabel or y)
    if len(hues) > 1:
        ax.legend(handlelength=2.6)
    _place(fig, given, _about(about, table), f"{_seeds('Mean', counts)}.", f"{ylabel or y} over {xlabel or x}: {', '.join(told)}")
    return fig
