"""Means and differences over seeds: t-intervals, p-values, Holm, and what a number of seeds resolves (power).

Wherever values go by seed, give a dict or a pandas Series {seed: value}; two of them are paired by
seed. Plain sequences of equal length are paired by position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
POWER = 0.8  # the chance of resolving a difference that is there, in every word on how many seeds it takes
MOST = 10_000  # trainings; a difference that takes more is called out of reach


@dataclass(frozen=True)
class Interval:
    """A mean with its t-interval over n values; p is a difference's two-sided p-value.

    With n=1 the interval is unbounded. Without any spread that of a mean is the mean itself, and that of a difference
    is unbounded: see `Estimate`.
    """

    mean: float
    low: float
    high: float
    n: int
    p: float | None = None

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2

    def __str__(self):
        half = f" ± {self.half:.2f}" if math.isfinite(self.half) else ""
        return f"{self.mean:.2f}{half} (n={self.n})"


class Estimate(NamedTuple):
    """What a t-interval is made of: the estimate, its variance (infinite where n=1), the degrees of freedom, n.

    A variance of 0 says that the values are coarser than their spread, as accuracies on few images are: two differences of
    one image are often equal. It says nothing of how far the next value may lie, so it resolves nothing (`known`).
    """

    mean: float
    variance: float
    df: float
    n: int

    @property
    def known(self) -> bool:
        """Whether there is a spread to judge by: more than one value, and not all the same."""
        return math.isfinite(self.variance) and self.variance > 0

    def interval(self, level: float = LEVEL) -> Interval:
        """The two-sided t-interval with the two-sided p-value of "it is 0"; unbounded, with p = 1, where no spread is `known`."""
        if not self.known:
            return Interval(self.mean, -math.inf, math.inf, self.n, 1.0)
        from scipy.special import stdtr, stdtrit  # scipy.stats would take a second to import

        error = math.sqrt(self.variance)
        half = float(stdtrit(self.df, (1 + level) / 2)) * error
        p = float(2 * stdtr(self.df, -abs(self.mean) / error))
        return Interval(self.mean, self.mean - half, self.mean + half, self.n, p)


def by_seed(values, name: str = "values") -> dict:
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


def estimate(values) -> Estimate:
    """The mean of independent values: variance s²/n, n - 1 degrees of freedom."""
    x = np.array(list(by_seed(values).values()))
    if np.ptp(x) <= 1e-9 * max(np.abs(x).max(), 1e-3):  # no spread, where rounding would leave some
        return Estimate(float(x[0]), math.inf if len(x) == 1 else 0.0, len(x) - 1, len(x))
    return Estimate(math.fsum(x) / len(x), float(np.var(x, ddof=1)) / len(x), len(x) - 1, len(x))


def interval(values, level: float = LEVEL) -> Interval:
    """Mean and two-sided t-interval of independent values; level in (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: give a number above 0 and below 1")
    found = estimate(values)
    if found.variance == 0:
        return Interval(found.mean, found.mean, found.mean, found.n)
    found = found.interval(level)
    return Interval(found.mean, found.low, found.high, found.n)


def paired(a, b, level: float = LEVEL) -> Interval:
    """Interval of a - b over pairs, with the paired t-test's two-sided p (1 where n=1, or all differences are equal).

    For what shares something by seed: initial weights, a mask, a ConvPEP. Else `contrast`. Raises ValueError
    where a seed has no partner: no pair is dropped in silence.
    """
    return estimate(sums([(1, a), (-1, b)])).interval(level)


def welch(terms) -> Estimate:
    """The sum of weight · mean over independent groups, [(weight, values)], each with its own variance.

    Degrees of freedom by Welch and Satterthwaite; scipy and statsmodels have it for two groups only. n is the
    smallest group's; a group of one value leaves the variance unknown (infinite).
    """
    groups = [(weight, estimate(values)) for weight, values in terms]
    mean = math.fsum(weight * group.mean for weight, group in groups)
    n = min(group.n for _, group in groups)
    if n == 1:
        return Estimate(mean, math.inf, 0, 1)
    parts = [(weight**2 * group.variance, group.df) for weight, group in groups]
    return Estimate(mean, *satterthwaite(parts), n)


def satterthwaite(parts) -> tuple[float, float]:
    """Variance and degrees of freedom of a sum of independent variances, [(variance, df)]; those below 0 are taken off."""
    variance = math.fsum(part for part, _ in parts)
    spread = math.fsum(part**2 / df for part, df in parts)
    return variance, variance**2 / spread if spread else min(df for _, df in parts)


def combined(terms, groups: str) -> Estimate:
    """The sum of weight · values, [(weight, values by seed)]: "paired" by seed, or of "independent" groups."""
    if groups == "independent":
        return welch(terms)
    if groups != "paired":
        raise ValueError(f"groups={groups!r}: choose from paired, independent")
    return estimate(sums(terms))


def sums(terms) -> dict:
    """{seed: sum of weight · value}; ValueError where the terms have other seeds."""
    names = [chr(ord("a") + i) for i in range(len(terms))]
    groups = {name: by_seed(values, name) for name, (_, values) in zip(names, terms, strict=True)}
    a = groups["a"]
    for name, b in groups.items():
        only = [
            f"only {whose} has {', '.join(map(str, sorted(mine.keys() - other.keys())))}"
            for whose, mine, other in (("a", a, b), (name, b, a))
            if mine.keys() - other.keys()
        ]
        if only:
            raise ValueError(f"a and {name} must have the same seeds: {'; '.join(only)}")
    weights = [weight for weight, _ in terms]
    return {s: math.fsum(w * b[s] for w, b in zip(weights, groups.values(), strict=True)) for s in a}


def contrast(terms, level: float = LEVEL) -> Interval:
    """Interval of the sum of weight · mean over independent groups, [(weight, values)]: Welch's t, with its p.

    [(1, a), (-1, b)] is a - b; a difference of differences has four terms.
    """
    return welch(terms).interval(level)


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


# --- power


def power(effect: float, variance: float, df: float, level: float = LEVEL) -> float:
    """The chance that the t-interval of an estimate lies wholly on the effect's side of 0, if the effect is true.

    variance, df : of the estimate. Noncentral t; statsmodels' solve_power knows no sums of groups.
    """
    from scipy.special import nctdtr, stdtrit

    if variance == 0 or effect == 0:
        return 1.0 if effect else (1 - level) / 2
    return float(1 - nctdtr(df, abs(effect) / math.sqrt(variance), stdtrit(df, (1 + level) / 2)))


def resolvable(found: Estimate, level: float = LEVEL, chance: float = POWER) -> float:
    """The smallest true difference that as many seeds of this spread resolve with a power of 80 %."""
    from scipy.special import nctdtrinc, stdtrit

    if not found.known:
        return math.inf
    return float(nctdtrinc(found.df, 1 - chance, stdtrit(found.df, (1 + level) / 2))) * math.sqrt(found.variance)


def needed(effect: float, found: Estimate, floor: float = 0.0, level: float = LEVEL, chance: float = POWER) -> int | None:
    """How many trainings a row resolve a true difference `effect` with a power of 80 %; None above `MOST`.

    found : the estimate over trainings, whose variance falls with n. floor : variance that does not, as that of
    the test images.
    """
    if not found.known or effect == 0:
        return None

    def enough(n):
        seeds, df = found.variance * found.n / n, found.df * (n - 1) / (found.n - 1)
        return power(effect, *satterthwaite([(seeds, df), (floor, math.inf)]), level) >= chance

    if not enough(MOST):
        return None
    low, high = 1, MOST  # the power grows with n: halve
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
