"""Evidence in words: verdicts computed from intervals over seeds, alone, in families and over sweeps.

Everything of `sltlib.intervals` that a notebook needs is here as well. Values go by seed: a dict or a pandas
Series {seed: value}, or sequences of equal length. Comparisons are paired by seed, or, where nothing is shared
by seed, between independent groups: which of them is said beforehand (`groups`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sltlib.intervals import LEVEL, POWER, Interval, by_seed, combined, contrast, estimate, holm, interval, paired, resolvable

__all__ = ["LEVEL", "Interval", "contrast", "estimate", "holm", "interval", "paired"]  # beside what is defined here
HOLDS, EQUAL, FAILS, OPEN = "holds", "equal within the margin", "does not hold", "not resolved"
UNTESTED = "not tested"


@dataclass(frozen=True)
class Verdict:
    """What the data say of a claim: "holds", "does not hold" or "not resolved", and why."""

    claim: str
    verdict: str
    detail: str
    n: int

    def __str__(self):
        return f"{self.claim}: {self.verdict} (n={self.n}). {self.detail}"


def _difference(found, groups):
    """One sentence on a difference."""
    if found.n == 1:
        return f"Difference {found.mean:+.2f}; one seed gives no interval."
    if not math.isfinite(found.half):
        return f"Difference {found.mean:+.2f} in each of {found.n} seeds: values without any spread give no interval."
    how = {"paired": "paired", "independent": "Welch"}[groups]
    return f"Difference {found.mean:+.2f}, {LEVEL:.0%} interval ({how}) {found.low:+.2f} to {found.high:+.2f}."


def _resolvable(found):
    """What the seeds could have resolved, as a statement on power; found : an Estimate."""
    if not found.known:
        return ""
    return f" {found.n} seeds of this spread resolve a difference of {resolvable(found):.2f} with a power of {POWER:.0%}."


def _itself(a, b, claim):
    """The verdict on a row that is compared with itself under another name, or with one that says the same; else None."""
    a, b = by_seed(a), by_seed(b)
    if len(a) > 1 and a == b:
        return Verdict(claim, UNTESTED, "Both rows have the same value in every seed, as one network under two names has.", len(a))
    return None


def _superior(found, claim, p_adjusted, groups):
    """found : the Estimate of a difference."""
    shown = found.interval()
    if p_adjusted is None:
        verdict = HOLDS if shown.low > 0 else FAILS if shown.high < 0 else OPEN
        detail = _difference(shown, groups)
    else:
        verdict = OPEN
        if found.n > 1 and p_adjusted < 1 - LEVEL:
            verdict = HOLDS if found.mean > 0 else FAILS
        detail = f"{_difference(shown, groups)} Holm-adjusted p = {p_adjusted:.3g}."
    if verdict == OPEN:
        detail += _resolvable(found)
    return Verdict(claim, verdict, detail, found.n)


def superior(a, b, claim: str, p_adjusted: float | None = None, groups: str = "paired") -> Verdict:
    """Is a above b? Judged by the interval of the difference a - b.

    p_adjusted : where the claim is one of a family, its p-value after `holm`; then the sign of the
        difference and p_adjusted < 0.05 decide.
    groups : "paired" by seed, or "independent" where the seeds share nothing (Welch).
    """
    found = combined([(1, a), (-1, b)], groups)
    return _itself(a, b, claim) or _superior(found, claim, p_adjusted, groups)


def _margin(margin):
    if not margin > 0:
        raise ValueError(f"margin={margin!r}: give a number above 0")


def _noninferior(found, claim, margin, groups):
    _margin(margin)
    shown = found.interval()
    verdict = HOLDS if shown.low > -margin else FAILS if shown.high < -margin else OPEN
    detail = f"{_difference(shown, groups)} Margin {margin:g}."
    if verdict == OPEN:
        detail += _resolvable(found)
    return Verdict(claim, verdict, detail, found.n)


def noninferior(a, b, claim: str, margin: float = 1.0, groups: str = "paired") -> Verdict:
    """Is a at most `margin` below b? Judged by the interval of the difference a - b; groups as in `superior`."""
    found = _noninferior(combined([(1, a), (-1, b)], groups), claim, margin, groups)
    return _itself(a, b, claim) or found


def equal(a, b, claim: str, margin: float = 1.0, groups: str = "paired") -> Verdict:
    """Is a within `margin` of b, on either side? Two one-sided tests, each at 2.5 %, groups as in `superior`.

    It is the same to say that the 95 % interval, as it is drawn, lies within the margin. It does not hold
    where the interval lies outside.
    """
    _margin(margin)
    found = combined([(1, a), (-1, b)], groups)
    if same := _itself(a, b, claim):
        return same
    shown, p = found.interval(), 1.0
    if found.known:
        p = _two_one_sided(a, b, margin, groups)
    outside = shown.low > margin or shown.high < -margin
    verdict = EQUAL if p < (1 - LEVEL) / 2 else FAILS if outside else OPEN
    detail = f"{_difference(shown, groups)} Margin {margin:g}, two one-sided tests: p = {p:.3g}."
    return Verdict(claim, verdict, detail + (_resolvable(found) if verdict == OPEN else ""), found.n)


def _two_one_sided(a, b, margin, groups):
    """The larger of the two one-sided tests' p-values."""
    from statsmodels.stats import weightstats  # takes seconds to import

    a, b = by_seed(a), by_seed(b)
    if groups == "paired":
        both = (np.array([values[seed] for seed in a]) for values in (a, b))
        return float(weightstats.ttost_paired(*both, -margin, margin)[0])
    both = (np.array(list(values.values())) for values in (a, b))
    return float(weightstats.ttost_ind(*both, -margin, margin, usevar="unequal")[0])


def _sweep(values_by_x, least):
    """{x: {seed: value}} in the order of x, and n; ValueError when there are too few points."""
    if not isinstance(values_by_x, Mapping) or len(values_by_x) < least:
        raise ValueError(f"values_by_x: give a dict of at least {least} points, {{x: values by seed}}")
    sweep = {x: by_seed(values_by_x[x], f"values_by_x[{x!r}]") for x in sorted(values_by_x)}
    return sweep, min(len(values) for values in sweep.values())


def monotone(values_by_x: Mapping, claim: str, increasing: bool = True) -> Verdict:
    """Does every step to the next x go up (or down)? values_by_x: {x: values by seed}, 2 points or more.

    It holds when each step is resolved on that side, and does not when one is resolved on the other;
    paired by seed, Holm-corrected over the steps.
    """
    sweep, n = _sweep(values_by_x, 2)
    points = list(sweep)
    sign = 1 if increasing else -1
    steps = [paired(sweep[after], sweep[before]) for before, after in zip(points, points[1:], strict=False)]
    resolved = [p < 1 - LEVEL for p in holm(step.p for step in steps)]
    on_side = [sign * step.mean > 0 for step in steps]
    if any(sure and not side for sure, side in zip(resolved, on_side, strict=True)):
        verdict = FAILS
    else:
        verdict = HOLDS if all(resolved) else OPEN
    parts = [
        f"{before:g} to {after:g}: {step.mean:+.2f}{'' if sure else ' (not resolved)'}"
        for before, after, step, sure in zip(points, points[1:], steps, resolved, strict=False)
    ]
    return Verdict(claim, verdict, "Steps " + ", ".join(parts) + ".", n)


def interior_optimum(values_by_x: Mapping, claim: str) -> Verdict:
    """Is the best x neither the smallest nor the largest? values_by_x: {x: values by seed}, 3 points or more.

    It holds when some inner point is resolved above both ends, and does not when an end is resolved
    above every inner point; paired by seed, corrected for the number of points that could have won.
    """
    sweep, n = _sweep(values_by_x, 3)
    points = list(sweep)
    ends, inner = (points[0], points[-1]), points[1:-1]

    def above(x, others):  # p-value of "x is above all the others": that of its weakest comparison
        found = [paired(sweep[x], sweep[other]) for other in others]
        return max(step.p if step.mean > 0 else 1.0 for step in found)

    inner_p = min(1.0, len(inner) * min(above(x, ends) for x in inner))
    ends_p = min(1.0, 2 * min(above(x, inner) for x in ends))
    verdict = HOLDS if inner_p < 1 - LEVEL else FAILS if ends_p < 1 - LEVEL else OPEN
    means = {x: interval(values).mean for x, values in sweep.items()}
    best = max(means, key=means.get)
    detail = f"Best mean {means[best]:.2f} at {best:g}; ends {means[ends[0]]:.2f} and {means[ends[1]]:.2f}."
    detail += f" Corrected p = {inner_p:.3g} for an inner optimum, {ends_p:.3g} for one at an end."
    return Verdict(claim, verdict, detail, n)


@dataclass(frozen=True)
class Family:
    """Comparisons that are judged together, by name: differences, p-values after `holm`, verdicts.

    groups : "paired" by seed, or "independent" (Welch).
    """

    differences: dict[str, Interval]
    adjusted: dict[str, float]
    claims: dict[str, Verdict]
    groups: str = "paired"


def family(values: Mapping, comparisons: Mapping, margin: float | None = None, groups: str = "paired") -> Family:
    """Named comparisons of rows: each superiority, Holm-corrected together, or with a margin non-inferiority.

    values : {row: {seed: value}}. comparisons : {claim: rows}, where (a, b) is a - b, and (a, b, c, d) is
    the difference of differences (a - b) - (c - d). groups : as in `superior`.
    """
    estimates = {}
    for claim, rows in comparisons.items():
        weights = (1, -1, -1, 1)[: len(rows)]
        estimates[claim] = combined([(w, values[row]) for w, row in zip(weights, rows, strict=True)], groups)
    found = {claim: difference.interval() for claim, difference in estimates.items()}
    itself = {claim: _itself(*(values[row] for row in rows), claim) for claim, rows in comparisons.items() if len(rows) == 2}
    itself = {claim: verdict for claim, verdict in itself.items() if verdict}
    if margin is not None:
        judged, adjusted = {claim: _noninferior(e, claim, margin, groups) for claim, e in estimates.items()}, {}
    else:
        adjusted = dict(zip(found, holm([difference.p for difference in found.values()]), strict=True))
        judged = {claim: _superior(e, claim, adjusted[claim], groups) for claim, e in estimates.items()}
    return Family(found, adjusted, judged | itself, groups)


def summary(table, by, value: str, level: float = LEVEL):
    """DataFrame with one row for each group, in order of appearance: by, mean, low, high, n.

    table : DataFrame with one row an experiment; by : a column or a list of them; value : a column.
    """
    import pandas

    by = [by] if isinstance(by, str) else list(by)
    rows = []
    for group, part in table.groupby(by, sort=False, dropna=False):
        found = interval(part[value].tolist(), level)
        rows.append([*group, found.mean, found.low, found.high, found.n])
    return pandas.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])
