"""Intervals, paired differences, Holm and verdicts, against textbook numbers, scipy.stats and simulation."""

import math
import subprocess
import sys

import numpy as np
import pandas
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sltlib.base import paths
from sltlib import stats

# Student (1908): extra hours of sleep of ten patients under two drugs
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

numbers = st.floats(-1e3, 1e3).map(lambda v: round(v, 3))


def lists(least):
    return st.lists(numbers, min_size=least, max_size=8)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, sltlib.stats as s; s.superior([1, 2, 4], [0, 0, 0], 'x');"
        "sys.exit('torch' in sys.modules or 'scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


def test_students_sleep_data():
    found = stats.paired(DRUG_2, DRUG_1)
    assert (found.mean, found.n) == (pytest.approx(1.58), 10)
    assert (found.low, found.high) == (pytest.approx(0.7001142), pytest.approx(2.4598858))
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert stats.interval([2, 4, 6]).half == pytest.approx(4.302653 * 2 / math.sqrt(3), rel=1e-6)


@given(lists(2), st.sampled_from([0.5, 0.95, 0.99]))
@settings(deadline=None)
def test_interval_is_scipys(values, level):
    found = stats.interval(values, level)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    if len(set(values)) > 1:
        spread = scipy.stats.sem(values)
        low, high = scipy.stats.t.interval(level, len(values) - 1, np.mean(values), spread)
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    else:
        assert found.low == found.mean == found.high


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8))
@settings(deadline=None)
def test_paired_is_scipys_and_antisymmetric(pairs):
    a, b = zip(*pairs, strict=True)
    found, turned = stats.paired(a, b), stats.paired(b, a)
    assert (found.mean, found.low, found.high, found.p) == (-turned.mean, -turned.high, -turned.low, turned.p)
    differences = np.subtract(a, b)
    if np.ptp(differences) > 1e-6:
        assert found.p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, rel=1e-6, abs=1e-12)
        # the interval excludes 0 exactly when p < 0.05
        if abs(found.p - 0.05) > 1e-9:
            assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_pairs_go_by_seed_not_by_position():
    a, b = {0: 1.0, 1: 2.0, 2: 4.0}, {2: 4.0, 0: 1.0, 1: 2.0}
    assert stats.paired(a, b).mean == 0
    assert stats.paired(pandas.Series(a), pandas.Series(b)) == stats.paired(a, b)
    assert stats.paired([1, 2, 4], [4, 1, 2]).half > 0


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ({0: 1, 1: 2}, {0: 1, 2: 2}, "only a has 1; only b has 2"),
        ([1, 2, 3], [1, 2], "only a has 2"),
        ([], [], "a is empty"),
        (pandas.Series([1, 2, 3], index=[0, 0, 1]), [1, 2], "3 values for 2 seeds"),
        ([1, math.nan], [1, 2], "not a finite number at 1"),
    ],
)
def test_values_without_partner_are_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        stats.paired(a, b)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_is_a_fraction(level):
    with pytest.raises(ValueError, match="level="):
        stats.interval([1, 2], level)


def test_one_seed_and_no_spread_give_no_nan():
    one = stats.paired([3], [1])
    assert (one.mean, one.low, one.high, one.p, one.n) == (2, -math.inf, math.inf, 1, 1)
    assert stats.paired([3, 4], [1, 2]) == stats.Interval(2, -math.inf, math.inf, 2, 1.0)
    assert stats.paired([80.05, 80.1], [80.0, 80.05]).p == 1.0, "what rounding leaves is no spread"
    assert stats.paired([3, 4], [3, 4]) == stats.Interval(0, -math.inf, math.inf, 2, 1.0)
    assert stats.interval([0.1] * 3) == stats.Interval(0.1, 0.1, 0.1, 3)
    assert str(stats.interval([1, 2, 3])) == "2.00 ± 2.48 (n=3)" and str(stats.interval([1])) == "1.00 (n=1)"


def test_interval_covers_95_in_100():
    rng = np.random.RandomState(0)
    draws = rng.normal(7, 3, (4000, 3))
    found = [stats.interval(row) for row in draws]
    assert np.mean([f.low <= 7 <= f.high for f in found]) == pytest.approx(0.95, abs=0.01)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.9]) == [1, 1] and stats.holm([]) == []
    with pytest.raises(ValueError, match="pvalues"):
        stats.holm([0.5, math.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_rejects_step_by_step_in_any_order(p, random):
    adjusted = stats.holm(p)
    assert all(
        before <= after <= min(1, before * len(p)) + 1e-12 for before, after in zip(p, adjusted, strict=True)
    )
    places = list(range(len(p)))
    random.shuffle(places)
    assert stats.holm([p[i] for i in places]) == [adjusted[i] for i in places]
    rejected = set()  # Holm's procedure as it is defined
    for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] * (len(p) - step) > 0.05:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(adjusted) if value <= 0.05} == rejected


# --- verdicts

BASE = {0: 80.0, 1: 81.0, 2: 82.0}


def plus(*gains):
    return {seed: value + gain for (seed, value), gain in zip(BASE.items(), gains, strict=True)}


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((2, 2.2, 2.1), stats.HOLDS),
        ((-2, -2.2, -2.1), stats.FAILS),
        ((2, -1, 1), stats.OPEN),
    ],
)
def test_superior(gains, verdict):
    found = stats.superior(plus(*gains), BASE, "a beats b")
    assert (found.claim, found.verdict, found.n) == ("a beats b", verdict, 3)
    if verdict == stats.OPEN:
        assert "3 seeds of this spread resolve" in found.detail


@pytest.mark.parametrize("judge", [stats.superior, stats.noninferior, stats.equal])
def test_equal_differences_resolve_nothing(judge):
    """Accuracies are multiples of an image's share: two equal differences are no measure of how far the next may lie."""
    found = judge(plus(1, 1, 1), BASE, "c")
    assert found.verdict == stats.OPEN and "Difference +1.00 in each of 3 seeds" in found.detail and "resolve" not in found.detail


@pytest.mark.parametrize("groups", ["paired", "independent"])
def test_a_row_is_not_compared_with_itself(groups):
    """One training under two names would be "no worse" than itself, and of independent groups with an interval."""
    for judge in (stats.superior, stats.noninferior, stats.equal):
        assert judge(BASE, dict(BASE), "c", groups=groups).verdict == stats.UNTESTED
    values = {"a": BASE, "b": dict(BASE), "c": plus(1, 2, 3)}
    for margin in (None, 1.0):
        found = stats.family(values, {"a, b": ("a", "b"), "c, a": ("c", "a"), "four": ("a", "b", "c", "c")}, margin, groups)
        assert [found.claims[name].verdict == stats.UNTESTED for name in ("a, b", "c, a", "four")] == [True, False, False]
        assert found.groups == groups


@pytest.mark.parametrize(("n", "images"), [(2, 2000), (3, 100), (2, 10_000)])
def test_a_family_of_rounded_values_has_few_false_verdicts(n, images):
    """Nothing there, values as coarse as accuracies: Holm promises a verdict in 5 % of families at most."""
    rng, wrong, tried = np.random.default_rng(0), 0, 200
    for _ in range(tried):
        values = {name: np.round(rng.normal(83, 0.5, n) * images / 100) * 100 / images for i in range(16) for name in (f"a{i}", f"b{i}")}
        found = stats.family({k: dict(enumerate(v)) for k, v in values.items()}, {str(i): (f"a{i}", f"b{i}") for i in range(16)})
        wrong += any(one.verdict in (stats.HOLDS, stats.FAILS) for one in found.claims.values())
    assert wrong <= tried * (0.05 + 2 * math.sqrt(0.05 * 0.95 / tried)), wrong


def test_superior_in_a_family_goes_by_the_adjusted_p():
    a = plus(2, 2.2, 2.1)
    assert stats.superior(a, BASE, "c", p_adjusted=0.049).verdict == stats.HOLDS
    assert stats.superior(BASE, a, "c", p_adjusted=0.049).verdict == stats.FAILS
    assert stats.superior(a, BASE, "c", p_adjusted=0.051).verdict == stats.OPEN
    assert stats.superior({0: 9}, {0: 1}, "c", p_adjusted=0.0).verdict == stats.OPEN


def test_a_difference_of_a_quarter_point_is_not_resolved_by_three_seeds():
    found = stats.superior(plus(0.24, 0.74, -0.26), BASE, "0.24 points better")
    assert found.verdict == stats.OPEN and "resolve a difference of 1.63 with a power of 80%" in found.detail and "(n=3)" in str(found)


@pytest.mark.parametrize(
    ("gains", "margin", "verdict"),
    [
        ((-0.5, -0.6, -0.4), 1.0, stats.HOLDS),
        ((-0.5, -0.6, -0.4), 0.1, stats.FAILS),
        ((-0.5, -0.6, -0.4), 0.5, stats.OPEN),
        ((5, 5.5, 6), 1.0, stats.HOLDS),
    ],
)
def test_noninferior(gains, margin, verdict):
    assert stats.noninferior(plus(*gains), BASE, "no worse", margin).verdict == verdict


def test_margin_is_positive():
    with pytest.raises(ValueError, match="margin=-1"):
        stats.noninferior(BASE, BASE, "no worse", -1)


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ({1: (0, 0, 0), 2: (2, 2.1, 2.2), 4: (4, 4.1, 4.3)}, stats.HOLDS),
        ({4: (4, 4.1, 4.3), 1: (0, 0, 0), 2: (2, 2.1, 2.2)}, stats.HOLDS),  # in the order of x
        ({1: (0, 0, 0), 2: (2, 2.1, 2.2), 4: (1, 1.1, 1.3)}, stats.FAILS),
        ({1: (0, 0, 0), 2: (2, 2.1, 2.2), 4: (2, 2.3, 2.1)}, stats.OPEN),
        # p = 0.029 for either step: enough alone, not in a family of two
        ({1: (0, 0, 0), 2: (1, 1.3, 0.7), 4: (2, 2.6, 1.4)}, stats.OPEN),
    ],
)
def test_monotone(steps, verdict):
    found = stats.monotone({x: plus(*gains) for x, gains in steps.items()}, "more is better")
    assert (found.verdict, found.n) == (verdict, 3)


def test_monotone_can_go_down():
    falling = {x: plus(-2 * x, -2.1 * x, -2.2 * x) for x in (1, 2, 4)}
    assert stats.monotone(falling, "c", increasing=False).verdict == stats.HOLDS
    assert stats.monotone(falling, "c").verdict == stats.FAILS


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({0.2: (0, 0, 0), 0.5: (3, 3.1, 3.2), 0.9: (1, 1.1, 1)}, stats.HOLDS),
        ({0.2: (0, 0, 0), 0.5: (3, 3.1, 3.2), 0.9: (6, 6.1, 6)}, stats.FAILS),
        ({0.2: (9, 9, 9.1), 0.5: (3, 3.1, 3.2), 0.7: (2, 1, 2), 0.9: (1, 0, 1)}, stats.FAILS),
        ({0.2: (0, 0, 0), 0.5: (3, 3.1, 3.2), 0.9: (2, 3.5, 3)}, stats.OPEN),
        # above one end only
        ({0.2: (0, 0, 0), 0.5: (3, 3.1, 3.2), 0.9: (3, 3.1, 3.2)}, stats.OPEN),
    ],
)
def test_interior_optimum(gains, verdict):
    found = stats.interior_optimum({x: plus(*g) for x, g in gains.items()}, "one best value")
    assert (found.verdict, found.n) == (verdict, 3)


def test_an_optimum_is_corrected_for_the_points_that_could_have_won():
    low, high = (-5, -5.1, -4.9), (1, 1.3, 0.7)  # high is above 0 with p = 0.029
    sweep = {x: plus(*g) for x, g in {1: (0, 0, 0), 2: high, 5: (0, 0, 0)}.items()}
    assert stats.interior_optimum(sweep, "c").verdict == stats.HOLDS
    assert stats.interior_optimum({**sweep, 3: plus(*low)}, "c").verdict == stats.OPEN
    end = {1: plus(*low), 2: plus(0, 0, 0), 3: plus(*high)}
    assert stats.interior_optimum(end, "c").verdict == stats.OPEN
    assert "0.0574 for one at an end" in stats.interior_optimum(end, "c").detail


def test_sweeps_of_noise_are_rarely_resolved():
    rng = np.random.RandomState(0)
    wrong = {"monotone": 0, "interior": 0}
    for _ in range(400):
        sweep = {x: rng.normal(0, 1, 3) for x in (1, 2, 3, 4, 5)}
        wrong["monotone"] += stats.monotone(sweep, "c").verdict != stats.OPEN
        wrong["interior"] += stats.interior_optimum(sweep, "c").verdict != stats.OPEN
    assert wrong["monotone"] <= 0.05 * 400 and wrong["interior"] <= 0.05 * 400


@pytest.mark.parametrize("verdict", [stats.monotone, stats.interior_optimum])
def test_sweeps_need_points_and_more_than_one_seed(verdict):
    with pytest.raises(ValueError, match="at least"):
        verdict({1: [1, 2]}, "c")
    one = verdict({1: [1], 2: [5], 3: [9]}, "c")
    assert (one.verdict, one.n) == (stats.OPEN, 1)


def test_summary_has_a_row_for_each_group_in_the_tables_order():
    table = pandas.DataFrame({"row": ["snn", "ann", "snn", "ann", "ann"], "acc": [1.0, 5, 3, 6, 7]})
    found = stats.summary(table, "row", "acc")
    assert found.columns.tolist() == ["row", "mean", "low", "high", "n"]
    assert found[["row", "mean", "n"]].values.tolist() == [["snn", 2, 2], ["ann", 6, 3]]
    assert found["low"][1] == stats.interval([5, 6, 7]).low
