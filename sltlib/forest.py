"""The claims as one picture: a row each, what was measured in every profile beside what it takes, and the papers' number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sltlib import figures
from sltlib.claims import PROFILES

# a profile never wears a neuron's colour
LOOKS = ((figures.PALETTE[2], "s"), (figures.PALETTE[0], "o"), (figures.PALETTE[1], "v"))
LINEAR = 3.0  # points on either side of 0 that the axis shows to scale; further out it is logarithmic


def rows(found: Mapping) -> list[dict]:
    """The picture's data from `claims.table`: a dict for each claim and profile, in points, of energy beyond the claim's 80 %.

    claim, profile, dataset (None where the run does not say), unit (of all numbers to `paper`), estimate, trainings and images
    (intervals as (low, high), None where there is none), needs (what the interval must lie above), paper (None where there is
    none), same (the papers' is the same quantity), verdict, n, wins (P(A > B): share of seeds and its interval; of sums over the
    rows where the claim has more than two). Where a claim is not tested the numbers are None.
    """
    out = []
    for tested_by in found.values():
        for profile, tested in tested_by.items():
            claim, evidence = tested.claim, tested.found
            shown = {"estimate": None, "trainings": None, "images": None}
            if evidence:
                shown["estimate"] = evidence.difference - claim.bar
                for name, interval in (("trainings", evidence.over_trainings), ("images", evidence.over_images)):
                    if interval and math.isfinite(interval.half):
                        shown[name] = (interval.low - claim.bar, interval.high - claim.bar)
            paper, unit = claim.paper["value"], f"% saved, beyond {claim.bar:g}" if claim.saving else "points of accuracy"
            wins = evidence and (evidence.wins.share, evidence.wins.low, evidence.wins.high)
            out.append({
                "claim": claim.claim, "profile": profile, "dataset": tested.dataset or None, "unit": unit, **shown,
                "needs": -claim.margin if claim.kind == "no worse" else 0.0, "paper": None if paper is None else paper - claim.bar, "same": claim.paper["same"],
                "verdict": tested.verdict, "n": tested.n, "wins": wins,
            })  # fmt: skip
    return out


def draw(found: Mapping, profiles=PROFILES, width: float = figures.PAGE):
    """The forest plot of `claims.table`: thick over trainings, thin for new images, a bar at what the claim needs."""
    lines = rows(found)
    titles = list(dict.fromkeys(line["claim"] for line in lines))
    if not titles:
        raise ValueError(f"none of the claims has results in {', '.join(profiles)}: run their notebooks first")
    fig, (ax, words) = figures.new(width, 1.0 + 0.5 * len(titles), 1, 2, width_ratios=(1.4, 1.1), sharey=True)
    ax.axvline(0, color="black", linewidth=0.6)
    for line in lines:
        if line["profile"] not in profiles:
            continue
        place = profiles.index(line["profile"])
        at = titles.index(line["claim"]) + 0.5 * ((place + 0.5) / len(profiles) - 0.5)
        colour, marker = LOOKS[place % len(LOOKS)]
        for name, thick in (("images", 0.8), ("trainings", 2.2)):
            if line[name]:
                caps = dict(marker="|", markersize=5, markeredgewidth=0.8) if name == "images" else {}
                ax.plot(line[name], (at, at), color=colour, linewidth=thick, solid_capstyle="butt", **caps)
        if line["estimate"] is not None:
            ax.plot(line["estimate"], at, marker=marker, color=colour, markeredgecolor="white", markeredgewidth=0.5, zorder=3)
        n = f" (n={line['n']})" if line["n"] else ""
        words.text(0, at, f"{_run(line)}: {line['verdict']}{n}", va="center", fontsize=7)
    for i, title in enumerate(titles):
        line = next(line for line in lines if line["claim"] == title)
        ax.plot((line["needs"],) * 2, (i - 0.38, i + 0.38), color=figures.GREY, linewidth=1.2, linestyle=(0, (1.5, 1)), zorder=2.5)
        if line["paper"] is not None:
            edge = figures.GREY if line["same"] else figures.LIGHT
            ax.plot(line["paper"], i, marker="D", color="white", markeredgecolor=edge, markersize=4, zorder=2, linestyle="")
    _axes(ax, words, titles)
    _legend(fig, profiles, {line["profile"] for line in lines}, lines)
    figures.caption(fig, "Points of accuracy (of energy: of saving beyond 80 %), mean and 95 % intervals: thick over trainings, on this "
                         "test set; thin, with ends, for new images as well. The claim holds where the interval lies right of its dotted bar. The papers' "
                         f"number is one run. Beyond {LINEAR:g} points the axis is logarithmic.")  # fmt: skip
    figures.describe(fig, "; ".join(map(_told, (line for line in lines if line["profile"] in profiles))))
    return fig


def _run(line):
    """The profile, and its data set: the same claim may be tested on another one in each."""
    return f"{line['profile']}, {line['dataset']}" if line["dataset"] else line["profile"]


def _told(line):
    """A mark in words, for those who cannot see it."""
    n = f" (n={line['n']})" if line["n"] else ""
    ends = line["images"] or line["trainings"]
    seen = "" if line["estimate"] is None else f", {line['estimate']:+.2f} points"
    seen += f" ({ends[0]:+.2f} to {ends[1]:+.2f})" if ends else ""
    return f"{line['claim']}, {_run(line)}: {line['verdict']}{n}{seen}"


def _axes(ax, words, titles):
    import textwrap

    ax.set_yticks(range(len(titles)), [textwrap.fill(title, 36, break_on_hyphens=False) for title in titles])
    ax.set_ylim(len(titles) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)
    ax.set_xscale("symlog", linthresh=LINEAR, linscale=1.0)
    far = max(10.0, *map(abs, ax.get_xlim()))
    ticks = [tick for tick in (-30, -10, -3, -1, 0, 1, 3, 10, 30) if abs(tick) <= far]
    ax.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("difference (points)")
    words.set_axis_off()
    words.set_xlim(0, 1)


def _legend(fig, profiles, drawn, lines):
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=LOOKS[i % len(LOOKS)][0], marker=LOOKS[i % len(LOOKS)][1], label=profile)
        for i, profile in enumerate(profiles)
        if profile in drawn
    ]
    for same, edge, label in ((True, figures.GREY, "the papers'"), (False, figures.LIGHT, "the papers', of another quantity")):
        if any(line["paper"] is not None and line["same"] == same for line in lines):
            handles.append(Line2D([], [], color="white", marker="D", markeredgecolor=edge, linestyle="", label=label))
    fig.legend(handles=handles, loc="outside upper center", ncols=len(handles))
