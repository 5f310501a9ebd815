"""Two sets of identities that share nobody: against scipy and statsmodels, exact dealing, and by simulation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from bench.stats.intervals import Estimate
from bench.stats.unpaired import LEAST, detectable, difference_of, label_test, unpaired


def rng(seed=0):
    return np.random.default_rng(seed)


def rates(mean, n, seed):
    return rng(seed).binomial(5, mean, n) / 5


@pytest.mark.parametrize(("one", "two"), [((3, 30), (12, 40)), ((0, 20), (5, 25)), ((39, 40), (20, 40))])
def test_the_interval_of_a_difference_is_newcombes(one, two):
    def wilson(hits, n):
        found = stats.binomtest(hits, n).proportion_ci(method="wilson")
        return Estimate(hits / n, found.low, found.high)

    found = difference_of(wilson(*one), wilson(*two))
    low, high = confint_proportions_2indep(*one, *two, method="newcomb", compare="diff")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.value == pytest.approx(one[0] / one[1] - two[0] / two[1])


def test_without_an_interval_there_is_none_of_the_difference():
    alone = Estimate(0.5, reason="one identity has no interval")
    assert difference_of(alone, Estimate(0.1, 0.0, 0.2)) == Estimate(0.4, reason=alone.reason)
    assert difference_of(Estimate.missing("nobody"), alone).reason == "nobody"


def test_labels_dealt_at_random_come_to_what_all_dealings_give():
    first, second = np.array([0.0, 0.2, 0.4, 0.4, 1.0]), np.array([0.6, 1.0, 0.8, 1.0])
    pooled = np.concatenate([first, second])

    def welch(rows):
        others = [k for k in range(len(pooled)) if k not in rows]
        return abs(stats.ttest_ind(pooled[list(rows)], pooled[others], equal_var=False).statistic)

    every = [welch(rows) for rows in combinations(range(len(pooled)), len(first))]
    exact = np.mean([each >= welch(range(len(first))) - 1e-9 for each in every])
    assert label_test(first, second, rng(), 40_000) == pytest.approx(exact, abs=0.01)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), sizes=st.tuples(st.integers(2, 30), st.integers(2, 30)))
def test_p_is_a_p_value_whichever_set_is_first(seed, sizes):
    one, two = rates(0.3, sizes[0], seed), rates(0.5, sizes[1], seed + 1)
    p = label_test(one, two, rng(seed), 199)
    assert 1 / 200 <= p <= 1
    assert label_test(two, one, rng(seed), 9_999) == pytest.approx(
        label_test(one, two, rng(seed), 9_999), abs=0.03
    )


def test_sets_that_are_alike_throughout_do_not_differ():
    assert label_test(np.full(8, 0.2), np.full(9, 0.2), rng()) == 1.0
    assert label_test(np.zeros(8), np.ones(9), rng()) < 0.01


@pytest.mark.parametrize("sizes", [(12, 60), (30, 30)])
def test_of_sets_alike_in_the_mean_one_in_twenty_differs(sizes):
    """Also where they are unlike in spread: 600 draws, 95 % of them within 3.4 to 6.9 %."""
    draws = rng(5)
    found = []
    for _ in range(600):
        one = np.clip(draws.normal(0.5, 0.1, sizes[0]), 0, 1)
        two = np.clip(draws.normal(0.5, 0.25, sizes[1]), 0, 1)
        found.append(label_test(one, two, draws, 199) <= 0.05)
    assert 0.025 <= np.mean(found) <= 0.08


def test_the_detectable_difference_is_found_with_the_power_that_is_said():
    one, two = rng(1).normal(0.5, 0.15, 25), rng(2).normal(0.5, 0.3, 60)
    least, spreads, draws, found = detectable(one, two), (one.std(ddof=1), two.std(ddof=1)), rng(3), []
    for _ in range(800):
        first, second = draws.normal(least, spreads[0], 25), draws.normal(0, spreads[1], 60)
        found.append(stats.ttest_ind(first, second, equal_var=False).pvalue <= 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)
    assert detectable(one, two, alpha=0.001) > least
    assert detectable(np.full(5, 0.2), np.full(7, 0.8)) is None
    assert detectable(rates(0.5, 6, 1), rates(0.5, 6, 2), alpha=0.05 / 2000) is None


def test_what_is_reported_and_what_too_few_identities_leave_out():
    one, two = rates(0.2, 30, 1), rates(0.7, 40, 2)
    found = unpaired(one, two, (150, 200), rng())
    assert (found.first.value, found.second.value) == pytest.approx((one.mean(), two.mean()))
    assert found.difference.low < found.difference.value < found.difference.high < 0
    assert found.p < 0.01
    few = unpaired(one[: LEAST - 1], two, (25, 200), rng())
    assert few.p is None
    assert f"at least {LEAST} of each" in few.reason
    assert few.difference.low is not None
    assert unpaired(np.ones(9), np.ones(8), (45, 40), rng()).reason == "every identity has the same rate"
    nobody = unpaired([], two, (0, 200), rng())
    assert (nobody.first.value, nobody.difference.value, nobody.p) == (None, None, None)
