"""Two intervals, P(A > B), power and verdicts, held to simulations whose truth is known, and to statsmodels."""

import math

import numpy as np
import pytest
import scipy.stats
from scipy.special import ndtr

from sltlib import evidence, intervals, stats

RNG_DRAWS = 400


def accuracies(right):
    return dict(enumerate(100 * right.mean(1)))


def seeds(right):
    return dict(enumerate(right))


class World:
    """Two methods on images of their own difficulty: r = 1 where 1 + image + method's own + seed + rest > 0."""

    def __init__(self, rng, n, images, seed_spread, own_spread):
        self.rng, self.n, self.spread = rng, n, seed_spread
        difficulty = rng.normal(0, 1.2, images)
        self.bent = [difficulty + rng.normal(0, own_spread, images) for _ in "ab"]

    def draw(self, shared=False):
        """Both methods' right and wrong, (n, N); shared : one seed moves both."""
        moves = [self.rng.normal(0, self.spread, (self.n, 1)) for _ in "ab"]
        moves = [moves[0]] * 2 if shared else moves
        return [1 + bent + move + self.rng.normal(0, 1, (self.n, len(bent))) > 0 for bent, move in zip(self.bent, moves, strict=True)]

    def truth(self):
        """The difference in points that endless trainings have on this world's images."""
        a, b = (100 * ndtr((1 + bent) / math.hypot(1, self.spread)).mean() for bent in self.bent)
        return a - b


def covered(groups, n, images, seed_spread, own_spread):
    """Shares of the intervals (over trainings, for new images) that hold their truth, and the variances, told and true."""
    rng = np.random.default_rng(3)
    inside, told, found_at = np.zeros(2), [], []
    for _ in range(RNG_DRAWS):
        world = World(rng, n, images, seed_spread, own_spread)
        a, b = world.draw(groups == "paired")
        found = evidence.evidence([(1, accuracies(a)), (-1, accuracies(b))], groups, [seeds(a), seeds(b)])
        on_these, anywhere = found.over_trainings, found.over_images
        inside += [on_these.low <= world.truth() <= on_these.high, anywhere.low <= 0 <= anywhere.high]
        told.append(found.images.variance)
        found_at.append(found.difference)
    return inside / RNG_DRAWS, np.mean(told), np.var(found_at)


ERROR = 3 * math.sqrt(0.95 * 0.05 / RNG_DRAWS)  # three standard deviations of the share of covered draws


@pytest.mark.parametrize(
    ("groups", "n", "images", "seed_spread", "own_spread"),
    [
        ("independent", 6, 500, 0.3, 0.2),  # seeds decide
        ("independent", 6, 300, 0.02, 0.8),  # images decide
        ("independent", 10, 300, 0.1, 0.3),
        ("paired", 6, 300, 0.3, 0.5),
        ("paired", 3, 300, 0.1, 0.5),
    ],
)
def test_both_intervals_cover_the_truth(groups, n, images, seed_spread, own_spread):
    (on_these, anywhere), told, true = covered(groups, n, images, seed_spread, own_spread)
    assert on_these == pytest.approx(0.95, abs=ERROR)
    assert anywhere >= 0.95 - ERROR  # wider where few seeds leave the rest unsure
    assert told == pytest.approx(true, rel=0.35) and told > 0.85 * true


def test_the_interval_over_trainings_says_nothing_of_new_images():
    """So the second interval is needed: where images decide, the first misses the truth of new ones far too often."""
    rng, inside = np.random.default_rng(0), np.zeros(2)
    for _ in range(200):
        a, b = World(rng, 6, 300, 0.0, 1.5).draw()
        found = evidence.evidence([(1, accuracies(a)), (-1, accuracies(b))], "independent", [seeds(a), seeds(b)])
        inside += [abs(i.mean) <= i.half for i in (found.over_trainings, found.over_images)]
    assert inside[0] / 200 < 0.8 and 0.9 < inside[1] / 200 < 0.99


def test_the_variance_is_that_of_a_two_way_table_by_hand():
    right = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], bool)  # 3 seeds, 4 images
    zero = np.zeros_like(right)
    found = evidence.evidence([(1, accuracies(right)), (-1, accuracies(zero))], "paired", [seeds(right), seeds(zero)])
    table = 100.0 * right
    total = ((table - table.mean()) ** 2).sum()
    by_seed, by_image = 4 * ((table.mean(1) - table.mean()) ** 2).sum(), 3 * ((table.mean(0) - table.mean()) ** 2).sum()
    ms_seed, ms_image, ms_rest = by_seed / 2, by_image / 3, (total - by_seed - by_image) / 6
    assert found.images.variance == pytest.approx((ms_seed + ms_image - ms_rest) / 12)  # analysis of variance
    assert found.images.mean == pytest.approx(found.difference)


def test_a_sum_of_many_rows_is_one_table_a_row():
    """The mean over two sparsities, against one row: weights of a half."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.random((4, 50)) < share for share in (0.6, 0.8, 0.9))
    terms = [(0.5, accuracies(a)), (0.5, accuracies(b)), (-1, accuracies(c))]
    found = evidence.evidence(terms, "independent", [seeds(a), seeds(b), seeds(c)])
    assert found.images.mean == pytest.approx(found.difference)
    by_hand = sum(w**2 * np.var(list(values.values()), ddof=1) / 4 for w, values in terms)
    assert found.trainings.variance == pytest.approx(by_hand)
    assert found.images.variance > by_hand


def test_one_training_and_foreign_images_are_refused_or_unbounded():
    a = np.array([[True, False, True]])
    found = evidence.evidence([(1, accuracies(a)), (-1, accuracies(a))], "independent", [seeds(a), seeds(a)])
    assert found.over_images.high == found.over_trainings.high == math.inf and found.wins.n == 1
    assert evidence.judge(found, "above", 1.0)[0] == stats.OPEN
    with pytest.raises(ValueError, match="3, 2\\] images"):
        evidence.evidence([(1, {0: 1}), (-1, {0: 1})], "paired", [seeds(a), seeds(a[:, :2])])
    with pytest.raises(ValueError, match="no seed in common"):
        evidence.evidence([(1, {0: 1}), (-1, {1: 1})], "independent")


# --- P(A > B)


def test_wins_are_counted_with_scipys_exact_interval():
    for won, n in ((0, 6), (3, 7), (6, 6)):
        found = evidence.wins([1] * won + [-1] * (n - won))
        theirs = scipy.stats.binomtest(won, n).proportion_ci(0.95)
        assert (found.share, found.low, found.high) == (won / n, pytest.approx(theirs.low), pytest.approx(theirs.high))
    tied = evidence.wins([1, 0, -1])
    assert tied.share == 0.5 and tied.low == evidence.wins([1, -1, -1]).low and tied.high == evidence.wins([1, 1, -1]).high
    assert evidence.wins([1, 2, 3], bar=2).share == 0.5
    assert evidence.wins([1] * 6).meaningful and not evidence.wins([1] * 5).meaningful


@pytest.mark.parametrize("share", [0.5, 0.75, 0.95])
def test_the_interval_of_the_wins_covers_the_truth(share):
    rng = np.random.default_rng(0)
    found = [evidence.wins(rng.random(8) < share, bar=0.5) for _ in range(1000)]
    assert np.mean([one.low <= share <= one.high for one in found]) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1000)


# --- power


def test_power_and_the_smallest_difference_are_statsmodels():
    from statsmodels.stats.power import TTestIndPower, TTestPower

    for n in (3, 6, 20):
        assert intervals.power(0.8, 1 / n, n - 1) == pytest.approx(TTestPower().power(0.8, n, 0.05), abs=0.01)
        found = intervals.Estimate(0.0, 4.0 / n, n - 1, n)  # a spread of 2
        theirs = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
        assert intervals.resolvable(found) == pytest.approx(2 * theirs, rel=0.02)
        two = intervals.welch([(1, [0.0, 1.0] * n), (-1, [0.0, 1.0] * n)])
        effect = 1.5 * math.sqrt(two.variance * n)  # in units of the common deviation: sqrt(2/(2n)) deviations an error
        theirs = TTestIndPower().power(1.5, 2 * n, 0.05)
        assert intervals.power(effect, two.variance, two.df) == pytest.approx(theirs, abs=0.01)


def test_needed_is_the_number_that_statsmodels_finds():
    from statsmodels.stats.power import TTestPower

    found = intervals.Estimate(0.5, 1.0 / 6, 5, 6)  # a spread of 1 over 6 seeds
    theirs = TTestPower().solve_power(effect_size=0.5, alpha=0.05, power=0.8)
    assert intervals.needed(0.5, found) == math.ceil(theirs) == 34
    assert intervals.needed(0.5, found, floor=0.01) > 34  # the images' variance stays
    assert intervals.needed(0.5, found, floor=0.05) is None  # and can be too much for any number of seeds
    assert intervals.needed(0.0, found) is None and intervals.needed(1e-4, found) is None


def test_as_many_seeds_as_are_called_needed_resolve_it():
    """The power by simulation: 80 %, of the number that the verdict's words tell."""
    rng = np.random.default_rng(0)
    n = intervals.needed(1.0, intervals.Estimate(1.0, 1.0 / 4, 3, 4))
    resolved = [stats.interval(rng.normal(1, 1, n)).low > 0 for _ in range(1000)]
    assert np.mean(resolved) == pytest.approx(0.8, abs=0.05)


# --- verdicts


def of(*differences, images=None):
    found = intervals.estimate(list(differences))
    return evidence.Evidence(found, images, evidence.wins(list(differences)))


@pytest.mark.parametrize(
    ("differences", "kind", "margin", "verdict"),
    [
        ((2, 2.1, 2.2), "above", 1, stats.HOLDS),
        ((0.3, 0.4, 0.5), "above", 1, stats.HOLDS),  # within the margin too, but above
        ((-2, -2.1, -2.2), "above", 1, stats.FAILS),
        ((-0.1, 0.0, 0.2), "above", 1, stats.EQUAL),
        ((-0.1, 0.0, 0.2), "above", 0.1, stats.OPEN),
        ((-2, 0, 2.5), "above", 1, stats.OPEN),
        ((-0.1, 0.0, 0.2), "no worse", 1, stats.HOLDS),
        ((4, 5, 6), "no worse", 1, stats.HOLDS),
        ((-2, -2.1, -2.2), "no worse", 1, stats.FAILS),
        ((-0.9, -1.0, -1.2), "no worse", 1, stats.OPEN),
    ],
)
def test_verdicts(differences, kind, margin, verdict):
    found, words = evidence.judge(of(*differences), kind, margin)
    assert found == verdict
    assert ("n would have to be" in words) == (verdict == stats.OPEN)
    assert ("equal within 1" in words) == (kind == "no worse" and differences == (-0.1, 0.0, 0.2))


def test_the_verdict_goes_by_new_images_where_they_are_known():
    wide = intervals.Estimate(2.1, 9.0, 500, 3)
    assert evidence.judge(of(2, 2.1, 2.2), "above", 1)[0] == stats.HOLDS
    assert evidence.judge(of(2, 2.1, 2.2, images=wide), "above", 1) == (
        stats.OPEN,
        "n would have to be above 10,000, or there would have to be more test images",
    )
    narrow = intervals.Estimate(2.1, 1e-9, 500, 3)  # never narrower than over trainings
    found = of(2, 2.1, 2.2, images=narrow)
    assert found.over_images == found.over_trainings


def test_equal_is_statsmodels_two_one_sided_tests_and_the_drawn_interval():
    from statsmodels.stats.weightstats import ttost_ind, ttost_paired

    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        a, b = rng.normal(0, 0.5, 6), rng.normal(rng.choice([0, 0.4, 1.4]), 0.5, 6)
        for groups, p in (("paired", ttost_paired(a, b, -1, 1)[0]), ("independent", ttost_ind(a, b, -1, 1, usevar="unequal")[0])):
            found = stats.equal(a, b, "the same", 1.0, groups)
            shown = intervals.combined([(1, a), (-1, b)], groups).interval()
            assert (found.verdict == stats.EQUAL) == (p < 0.025) == (-1 < shown.low and shown.high < 1)
            seen.add(found.verdict)
    assert seen == {stats.EQUAL, stats.OPEN, stats.FAILS}


def test_equal_without_spread_or_with_one_seed():
    assert stats.equal([1.5, 2.5], [1, 2], "c").verdict == stats.OPEN
    assert stats.equal([5, 6], [1, 2], "c").verdict == stats.OPEN
    assert stats.equal([1], [1], "c").verdict == stats.OPEN
    with pytest.raises(ValueError, match="margin=0"):
        stats.equal([1, 2], [1, 2], "c", 0)


def test_false_verdicts_are_rare():
    """Nothing there: "above" is wrong in 5 % at most, on either side. As bad as the margin: "no worse" and "equal" too."""
    rng, wrong = np.random.default_rng(0), {"above": 0, "no worse": 0, "equal": 0}
    for _ in range(1000):
        a, b = rng.normal(0, 1, 6), rng.normal(0, 1, 6)
        wrong["above"] += evidence.judge(_groups(a, b), "above", 1e-6)[0] != stats.OPEN
        wrong["no worse"] += evidence.judge(_groups(a - 2, b), "no worse", 2)[0] == stats.HOLDS
        wrong["equal"] += evidence.judge(_groups(a - 2, b), "above", 2)[0] == stats.EQUAL
    limit = 1000 * (0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000))
    assert max(wrong.values()) <= limit and wrong["above"] > 20, wrong


def test_false_verdicts_for_new_images_are_rare():
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(300):
        a, b = World(rng, 6, 200, 0.1, 0.5).draw()
        found = evidence.evidence([(1, accuracies(a)), (-1, accuracies(b))], "independent", [seeds(a), seeds(b)])
        wrong += evidence.judge(found, "above", 1e-6)[0] != stats.OPEN
    assert wrong <= 300 * (0.05 + 2 * math.sqrt(0.05 * 0.95 / 300))


def _groups(a, b):
    return evidence.evidence([(1, a), (-1, b)], "independent")


def test_the_sanity_check_is_one_sided():
    assert evidence.above([85, 86, 85], [80, 81, 80]) is True
    assert evidence.above([80, 81, 80], [85, 86, 85]) is False
    assert evidence.above([80, 90, 85], [80, 84, 88]) is False
    assert evidence.above([85], [80, 81]) is None


def test_independent_groups_are_scipys_welch():
    a, b = [1.0, 2.0, 4.0, 4.5], [0.0, 0.1, 0.3]
    theirs = scipy.stats.ttest_ind(a, b, equal_var=False)
    found = stats.contrast([(1, a), (-1, b)])
    assert (found.p, found.n) == (pytest.approx(theirs.pvalue), 3)
    ci = theirs.confidence_interval()
    assert (found.low, found.high) == (pytest.approx(ci.low), pytest.approx(ci.high))
    rows = {"a": a, "b": b, "c": [0.0, 1.0, 5.0], "d": [2.0, 2.0, 2.5]}
    family = stats.family(rows, {"x": ("a", "b", "c", "d"), "y": ("a", "b")}, groups="independent")
    assert family.differences["y"] == found
    assert family.differences["x"].mean == pytest.approx((2.875 - 0.4 / 3) - (2 - 6.5 / 3))
    with pytest.raises(ValueError, match="groups='other'"):
        stats.superior(a, a, "c", groups="other")
