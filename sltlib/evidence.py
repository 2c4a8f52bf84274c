"""What a difference between methods says beyond its trainings and test images: two intervals, P(A > B), a verdict.

A method is trained with n seeds and judged on N test images: a table of right and wrong, seeds x images,
where r[s, i] = mean + seed[s] + image[i] + rest[s, i]. Two questions have two intervals (Jordan, arXiv
2304.01910; Bouthillier et al., arXiv 2103.03098):

- other trainings, this test set: the seeds' means vary by V1 = s²(seeds) / n, which holds seed and rest;
- new images as well: Var = σ²_seed / n + σ²_image / N + σ²_rest / (n N). The seeds' means give the first and the
  last term, the images' means V2 = s²(images) / N the second and the last; what would count twice is taken off,
  V3 = MS(rest) / (n N): Var = V1 + V2 - V3.

For a difference of methods the table is that of the difference. Where the methods share their seeds it is one
table; where their trainings are independent each has its own V1 and V3, and the images, which are shared, one V2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sltlib.intervals import LEVEL, POWER, Estimate, Interval, by_seed, combined, needed, satterthwaite
from sltlib.stats import EQUAL, FAILS, HOLDS, OPEN

GAMMA = 0.75  # P(A > B) worth speaking of, Bouthillier et al.
KINDS = ("above", "no worse")


@dataclass(frozen=True)
class Share:
    """P(A > B): in how many of n seeds A won (a tie is half), with the exact (Clopper-Pearson) interval.

    Ties count as lost for the lower end and as won for the upper one.
    """

    share: float
    low: float
    high: float
    n: int

    def __str__(self):
        return f"A wins {self.share:.0%} of {self.n} seeds ({self.low:.0%} to {self.high:.0%})"

    @property
    def meaningful(self) -> bool:
        """Above chance, and perhaps above `GAMMA`: the criterion of Bouthillier et al."""
        return self.low > 0.5 and self.high > GAMMA


@dataclass(frozen=True)
class Evidence:
    """A difference in percent points: its estimates over trainings and for new images (None where unknown), and wins."""

    trainings: Estimate
    images: Estimate | None
    wins: Share

    @property
    def difference(self) -> float:
        return self.trainings.mean

    @property
    def over_trainings(self) -> Interval:
        """For other trainings, on this test set."""
        return self.trainings.interval()

    @property
    def over_images(self) -> Interval | None:
        """For other trainings and new images; never narrower than over trainings alone, where these have a spread."""
        if self.images is None:
            return None
        wide, narrow = self.images.interval(), self.over_trainings
        return wide if wide.half >= narrow.half or self.trainings.variance == 0 else narrow

    @property
    def decisive(self) -> Interval:
        """The interval that the verdict goes by: the one for new images where there is one."""
        return self.over_images or self.over_trainings


def wins(differences, bar: float = 0.0, level: float = LEVEL) -> Share:
    """The share of seeds whose difference is above `bar`; differences : {seed: a - b} or a sequence."""
    from scipy.special import betaincinv  # scipy.stats.binomtest gives the same a hundred times slower

    values = np.array(list(by_seed(differences, "differences").values()))
    won, tied, n = int((values > bar).sum()), int((values == bar).sum()), len(values)
    low = float(betaincinv(won, n - won + 1, (1 - level) / 2)) if won else 0.0
    high = float(betaincinv(won + tied + 1, n - won - tied, (1 + level) / 2)) if won + tied < n else 1.0
    return Share((won + tied / 2) / n, low, high, n)


def evidence(terms, groups: str, right=None, bar: float = 0.0) -> Evidence:
    """The evidence on a sum of weight · mean: [(1, a), (-1, b)] is a - b; a and b {seed: accuracy in percent}.

    groups : "paired" where the methods share something by seed, "independent" where they do not.
    right : for each term {seed: bool array (N,), which test images it got right}, in the same order of images;
        None where that is unknown. bar : what P counts as won.
    """
    found = combined(terms, groups)
    seeds = set.intersection(*(set(by_seed(values)) for _, values in terms))
    if not seeds:
        raise ValueError("the methods have no seed in common: number the seeds of each from 0")
    each = {seed: math.fsum(weight * by_seed(values)[seed] for weight, values in terms) for seed in sorted(seeds)}
    both = None if right is None else _new_images([weight for weight, _ in terms], right, groups)
    return Evidence(found, both, wins(each, bar))


def _new_images(weights, right, groups):
    """The Estimate for new trainings and new images; right : for each weight {seed: bool array (N,)}."""
    tables = [100 * w * np.stack([np.asarray(t[seed], bool) for seed in sorted(t)]) for w, t in zip(weights, right, strict=True)]
    if len({table.shape[1] for table in tables}) > 1:
        raise ValueError(f"right: the terms have {[t.shape[1] for t in tables]} images: give those of one test split")
    if groups == "paired":
        if len({frozenset(term) for term in right}) > 1:
            raise ValueError("right: paired terms must have the same seeds")
        tables = [np.sum(tables, axis=0)]  # (n, N), of the difference
    images = np.sum([table.mean(0) for table in tables], axis=0)  # (N,), of the difference
    mean, count = float(images.mean()), len(images)
    if min(map(len, tables)) == 1:
        return Estimate(mean, math.inf, 0, 1)
    seeds, rest = [], []
    for table in tables:
        n, left = len(table), table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
        freedom = (n - 1) * (count - 1)
        seeds.append((table.mean(1).var(ddof=1) / n, n - 1))
        rest.append(((left**2).sum() / freedom / (n * count), freedom))
    shared = (images.var(ddof=1) / count, count - 1)
    variance, df = satterthwaite([*seeds, shared, *((-part, freedom) for part, freedom in rest)])
    least = max(sum(part for part, _ in seeds), shared[0])  # both are part of the truth, whatever V3's noise says
    return Estimate(mean, max(variance, least), max(df, min(freedom for _, freedom in seeds)), min(map(len, tables)))


def judge(found: Evidence, kind: str, margin: float, bar: float = 0.0) -> tuple[str, str]:
    """(verdict, why) on a difference: is it "above" the bar, or "no worse" than the margin below it?

    Both by the 95 % interval that is drawn (`decisive`), which is the same as one-sided tests at 2.5 %. "above" may
    also come out as equal within the margin, which it then does not exceed. Where nothing is resolved the words say
    how many trainings a row would resolve a difference as large as the measured one, with a power of 80 %.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: choose from {', '.join(KINDS)}")
    low, high = found.decisive.low - bar, found.decisive.high - bar
    line = 0.0 if kind == "above" else -margin
    if low > line:
        verdict = HOLDS
    elif high < line:
        verdict = FAILS
    else:
        verdict = EQUAL if kind == "above" and low > -margin and high < margin else OPEN
    words = []
    if verdict == HOLDS and kind == "no worse" and high < margin:
        words = [f"equal within {margin:g}"]
    if verdict == OPEN:
        words = [f"n would have to be {_more(found, kind, margin, bar)}"]
    if verdict in (HOLDS, FAILS) and found.over_images:
        words.append("for new images too")
    elif verdict == EQUAL:
        words.append(f"margin {margin:g}")
    return verdict, "; ".join(words)


def _more(found, kind, margin, bar):
    """How many trainings a row would resolve what was measured, in words."""
    seeds = found.trainings
    if not seeds.known:
        return f"at least {seeds.n + 1}"
    gap = seeds.mean - bar
    # the nearest verdict that a difference of this size would come to
    distances = [gap, margin - abs(gap)] if kind == "above" else [gap + margin]
    floor = max(0.0, found.images.variance - seeds.variance) if found.images else 0.0
    counts = [needed(max(d, 0.0) if i else d, seeds, floor) for i, d in enumerate(distances)]
    if counts := [count for count in counts if count is not None]:
        return f"about {max(min(counts), seeds.n + 1)} (power {POWER:.0%})"
    return "above 10,000, or there would have to be more test images" if floor else "above 10,000"


def above(a, b) -> bool | None:
    """Is a above b, one-sided at 5 %, independent groups? None where there is no spread to tell by. The sanity check."""
    found = combined([(1, a), (-1, b)], "independent")
    return None if not found.known else bool(found.interval(0.9).low > 0)
