"""Differences over identities and training seeds, against an analysis of variance and its limits."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.errors import DataError
from bench.stats.intervals import difference_error, difference_interval
from bench.stats.random_seeds import (
    non_inferiority_over_seeds,
    paired_difference_over_seeds,
    seed_effects,
)
from bench.stats.significance import non_inferiority

NAMES = [f"p{i:02d}" for i in range(30)]


def series(values):
    return pd.Series(values, index=NAMES[: len(values)])


def cells(shifts, n=30, seed=0):
    """Return rates of two cells under as many seeds as there are shifts of the first."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.2, 0.6, n)
    first = [series(np.clip(base + shift + rng.normal(0, 0.05, n), 0, 1)) for shift in shifts]
    second = [series(np.clip(base + rng.normal(0, 0.05, n), 0, 1)) for _ in shifts]
    return first, second


def test_the_error_is_that_of_identities_and_of_seeds_together():
    first, second = cells((0.1, 0.2, -0.1))
    found = seed_effects(first, second)
    d = np.column_stack([a - b for a, b in zip(first, second, strict=True)])
    of_seeds = stats.sem(d.mean(axis=0)) ** 2
    of_identities = difference_error(*(np.mean(side, axis=0) for side in (first, second))) ** 2
    assert found.difference == pytest.approx(d.mean())
    assert found.error**2 == pytest.approx(of_seeds + of_identities)
    # Satterthwaite, with the weights that statsmodels and SAS use for two mean squares.
    shares = np.array([of_identities, of_seeds])
    assert found.degrees == pytest.approx(shares.sum() ** 2 / (shares**2 / [29, 2]).sum())
    low, high = stats.t.interval(0.95, found.degrees, loc=d.mean(), scale=found.error)
    interval = found.interval()
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert found.p() == pytest.approx(2 * stats.t.sf(abs(d.mean()) / found.error, found.degrees))


def test_seeds_that_agree_leave_the_interval_over_identities():
    (first, *_), (second, *_) = cells((0.1,))
    found = seed_effects([first] * 3, [second] * 3)
    assert found.degrees == pytest.approx(29)
    interval, alone = found.interval(), difference_interval(first, second)
    assert (interval.low, interval.high) == pytest.approx((alone.low, alone.high))
    test = non_inferiority_over_seeds([first] * 3, [second] * 3, 0.05, higher_is_better=False)
    plain = non_inferiority(first, second, 0.05, higher_is_better=False)
    assert (test.p, test.not_worse) == (pytest.approx(plain.p), plain.not_worse)


def test_what_three_seeds_disagree_about_is_no_difference_however_many_identities():
    first, second = cells((0.3, 0.0, 0.0))
    assert stats.ttest_rel(np.mean(first, axis=0), np.mean(second, axis=0)).pvalue < 1e-6
    found = paired_difference_over_seeds(first, second)
    assert found.p > 0.05
    assert found.difference.low < 0 < found.difference.value
    assert (found.n_identities, found.n_differing, found.reason) == (30, 30, "")
    assert not non_inferiority_over_seeds(first, second, 0.01, higher_is_better=False).not_worse


@given(st.integers(2, 5), st.integers(2, 12), st.integers(0, 1000))
def test_both_sides_swapped_give_the_mirrored_interval(seeds, n, seed):
    first, second = cells(np.random.default_rng(seed).uniform(-0.2, 0.2, seeds), n, seed)
    one, other = seed_effects(first, second), seed_effects(second, first)
    assert one.interval().low == pytest.approx(-other.interval().high)
    assert one.p() == pytest.approx(other.p())
    assert 0 < one.degrees <= n + seeds
    assert 0 <= one.p() <= 1


def test_too_little_is_refused_and_other_identities_are_no_pair():
    first, second = cells((0.1, 0.2))
    for sides in ((first[:1], second[:1]), (first, second[:1])):
        with pytest.raises(ValueError, match="two seeds of both cells"):
            seed_effects(*sides)
    with pytest.raises(ValueError, match="two identities"):
        seed_effects([one[:1] for one in first], [one[:1] for one in second])
    with pytest.raises(DataError, match="different identities"):
        seed_effects(first, [one.rename({"p00": "q00"}) for one in second])
    with pytest.raises(ValueError, match="margin"):
        non_inferiority_over_seeds(first, second, 0)
