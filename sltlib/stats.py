"""Intervals, paired differences and computed verdicts over seeds; NumPy only (method: t statistics).

Wherever values go by seed, give a dict or a pandas Series {seed: value}; two of them are paired by
seed. Plain sequences of equal length are paired by position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
HOLDS, FAILS, OPEN = "holds", "does not hold", "not resolved"


@dataclass(frozen=True)
class Interval:
    """A mean with its t-interval over n values; p is a paired difference's two-sided p-value.

    With n=1 the interval is unbounded. Without any spread it is the mean itself.
    """

    mean: float
    low: float
    high: float
    n: int
    p: float | None = None

    @property
    def half(self) -> float:
        """Half the interval's width: the smallest difference from `mean` that n values resolve."""
        return (self.high - self.low) / 2

    def __str__(self):
        half = f" ± {self.half:.2f}" if math.isfinite(self.half) else ""
        return f"{self.mean:.2f}{half} (n={self.n})"


@dataclass(frozen=True)
class Verdict:
    """What the data say of a claim: "holds", "does not hold" or "not resolved", and why."""

    claim: str
    verdict: str
    detail: str
    n: int

    def __str__(self):
        return f"{self.claim}: {self.verdict} (n={self.n}). {self.detail}"


def _by_seed(values, name):
    """{seed: float} of a mapping, a Series or a sequence; ValueError on repeats, non-numbers or nothing."""
    items = list(values.items()) if hasattr(values, "items") else list(enumerate(values))
    out = {seed: float(value) for seed, value in items}
    if not out:
        raise ValueError(f"{name} is empty: give at least one value")
    if len(out) < len(items):
        raise ValueError(f"{name} has {len(items)} values for {len(out)} seeds: give one value a seed")
    if bad := [seed for seed, value in out.items() if not math.isfinite(value)]:
        raise ValueError(f"{name} is not a finite number at {', '.join(map(str, bad))}")
    return out


def interval(values, level: float = LEVEL) -> Interval:
    """Mean and two-sided t-interval of independent values; level in (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: give a number above 0 and below 1")
    x = np.array(list(_by_seed(values, "values").values()))
    n, spread = len(x), _spread(x)
    mean = math.fsum(x) / n if spread else float(x[0])
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    from scipy.special import stdtrit  # scipy.stats would take a second to import

    half = float(stdtrit(n - 1, (1 + level) / 2)) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def _spread(x):
    """Standard deviation, n - 1 in the denominator; exactly 0 for equal values."""
    return 0.0 if np.all(x == x[0]) else float(np.std(x, ddof=1))


def paired(a, b, level: float = LEVEL) -> Interval:
    """Interval of a - b over pairs, with the paired t-test's two-sided p (1 where n=1).

    Raises ValueError where a seed has no partner: no pair is dropped in silence.
    """
    a, b = _by_seed(a, "a"), _by_seed(b, "b")
    if a.keys() != b.keys():
        only = [
            f"only {name} has {', '.join(map(str, sorted(mine.keys() - other.keys())))}"
            for name, mine, other in (("a", a, b), ("b", b, a))
            if mine.keys() - other.keys()
        ]
        raise ValueError(f"a and b must have the same seeds: {'; '.join(only)}")
    differences = [a[seed] - b[seed] for seed in a]
    found = interval(differences, level)
    return Interval(found.mean, found.low, found.high, found.n, _p_value(found.mean, np.array(differences)))


def _p_value(mean, differences):
    n, spread = len(differences), _spread(differences)
    if n == 1 or mean == 0:
        return 1.0
    if spread == 0:
        return 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(n - 1, -abs(mean) / (spread / math.sqrt(n))))


def holm(pvalues) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in the given order."""
    p = np.asarray(list(pvalues), float)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"pvalues={p.tolist()}: give numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    stepped = p[order] * np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(stepped)) if len(p) else stepped
    return adjusted.tolist()


def _difference(found):
    """One sentence on a paired difference."""
    if found.n == 1:
        return f"Difference {found.mean:+.2f}; one seed gives no interval."
    return f"Difference {found.mean:+.2f}, {LEVEL:.0%} interval {found.low:+.2f} to {found.high:+.2f}."


def _resolvable(found):
    return "" if found.n == 1 else f" {found.n} seeds of this spread resolve {found.half:.2f}."


def superior(a, b, claim: str, p_adjusted: float | None = None) -> Verdict:
    """Is a above b? Judged by the interval of the paired difference a - b.

    p_adjusted : where the claim is one of a family, its p-value after `holm`; then the sign of the
        difference and p_adjusted < 0.05 decide.
    """
    found = paired(a, b)
    if p_adjusted is None:
        verdict = HOLDS if found.low > 0 else FAILS if found.high < 0 else OPEN
        detail = _difference(found)
    else:
        verdict = OPEN
        if found.n > 1 and p_adjusted < 1 - LEVEL:
            verdict = HOLDS if found.mean > 0 else FAILS
        detail = f"{_difference(found)} Holm-adjusted p = {p_adjusted:.3g}."
    if verdict == OPEN:
        detail += _resolvable(found)
    return Verdict(claim, verdict, detail, found.n)


def noninferior(a, b, claim: str, margin: float = 1.0) -> Verdict:
    """Is a at most `margin` below b? Judged by the interval of the paired difference a - b."""
    if not margin > 0:
        raise ValueError(f"margin={margin!r}: give a number above 0")
    found = paired(a, b)
    verdict = HOLDS if found.low > -margin else FAILS if found.high < -margin else OPEN
    detail = f"{_difference(found)} Margin {margin:g}."
    if verdict == OPEN:
        detail += _resolvable(found)
    return Verdict(claim, verdict, detail, found.n)


def _sweep(values_by_x, least):
    """{x: {seed: value}} in the order of x, and n; ValueError when there are too few points."""
    if not isinstance(values_by_x, Mapping) or len(values_by_x) < least:
        raise ValueError(f"values_by_x: give a dict of at least {least} points, {{x: values by seed}}")
    sweep = {x: _by_seed(values_by_x[x], f"values_by_x[{x!r}]") for x in sorted(values_by_x)}
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
    """Comparisons that are judged together, by name: paired differences, p-values after `holm`, verdicts."""

    differences: dict[str, Interval]
    adjusted: dict[str, float]
    claims: dict[str, Verdict]


def family(values: Mapping, comparisons: Mapping, margin: float | None = None) -> Family:
    """Named comparisons of rows: each superiority, Holm-corrected together, or with a margin non-inferiority.

    values : {row: {seed: value}}. comparisons : {claim: rows}, where (a, b) is a - b, and (a, b, c, d) is
    the difference of differences (a - b) - (c - d).
    """
    sides = {claim: _sides(values, rows) for claim, rows in comparisons.items()}
    found = {claim: paired(*both) for claim, both in sides.items()}
    if margin is not None:
        return Family(found, {}, {claim: noninferior(*both, claim, margin) for claim, both in sides.items()})
    adjusted = dict(zip(found, holm([difference.p for difference in found.values()]), strict=True))
    return Family(found, adjusted, {claim: superior(*both, claim, adjusted[claim]) for claim, both in sides.items()})


def _sides(values, rows):
    """Both sides of a comparison by seed."""
    if len(rows) == 2:
        return values[rows[0]], values[rows[1]]
    a, b, c, d = (values[name] for name in rows)
    return {seed: a[seed] - b[seed] for seed in a}, {seed: c[seed] - d[seed] for seed in c}


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
