"""Bounds and radii of smoothing against scipy, exact coverage, and the functions that meet the bound."""

import math
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from bench.stats.smoothing import bernstein_width, certified_radius, score_bounds

scores = st.floats(-0.999, 0.999)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(1e-9, 0.5))
def test_the_width_is_that_of_the_theorem_by_pairs_of_samples(values, failure):
    n = len(values)
    # The paper's own form of the variance: half the mean squared difference of two different samples.
    variance = sum((a - b) ** 2 for a, b in combinations(values, 2)) / (n * (n - 1))
    expected = math.sqrt(2 * variance * math.log(2 / failure) / n) + 7 * math.log(2 / failure) / (3 * (n - 1))
    assert bernstein_width(np.var(values, ddof=1), n, failure) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [2, 30, 400])
@pytest.mark.parametrize("failure", [0.3, 0.05, 0.001])
def test_the_bounds_cover_as_they_say_exactly_for_coins(n, failure):
    for p in np.linspace(0, 1, 41):
        hits = np.arange(n + 1)
        chances = stats.binom.pmf(hits, n, p)
        means = 2 * hits / n - 1  # scores −1 and 1
        variances = 4 * (hits / n) * (1 - hits / n) * n / (n - 1)
        low, high = score_bounds(means, variances, n, failure)
        assert chances[low > 2 * p - 1 + 1e-12].sum() <= failure
        assert chances[high < 2 * p - 1 - 1e-12].sum() <= failure
        assert (low >= -1).all()
        assert (high <= 1).all()


def test_more_samples_and_less_certainty_narrow_a_bound():
    assert bernstein_width(0.1, 1000, 1e-3) < bernstein_width(0.1, 100, 1e-3)
    assert bernstein_width(0.1, 100, 1e-2) < bernstein_width(0.1, 100, 1e-3)
    assert bernstein_width(0.0, 100, 1e-3) < bernstein_width(0.1, 100, 1e-3)


@pytest.mark.parametrize(("samples", "failure"), [(1, 0.1), (10, 0.0), (10, 1.0)])
def test_what_is_no_bound_is_refused(samples, failure):
    with pytest.raises(ValueError, match="got"):
        bernstein_width(0.1, samples, failure)


@given(scores, scores, st.floats(0.01, 2))
def test_the_radius_is_the_distance_of_quantiles(own, other, sigma):
    standard = NormalDist()
    expected = sigma * (standard.inv_cdf((1 + own) / 2) - standard.inv_cdf((1 + other) / 2))
    assert certified_radius(own, other, sigma) == pytest.approx(expected, abs=1e-6)
    scipys = sigma * (stats.norm.ppf((1 + own) / 2) - stats.norm.ppf((1 + other) / 2))
    assert certified_radius(own, other, sigma) == pytest.approx(scipys, abs=1e-9)


@given(scores, scores, st.floats(0.05, 1))
def test_a_half_space_reaches_the_radius_and_no_more(own, other, sigma):
    """Score 1 on one side of a plane and −1 on the other: no function falls faster, so nothing better can be said."""
    assume(own > other)
    radius = float(certified_radius(own, other, sigma))
    distance = sigma * NormalDist().inv_cdf((1 + own) / 2)  # of the photo to the plane

    def after(change):
        return 2 * NormalDist().cdf((distance - change) / sigma) - 1

    assert after(0) == pytest.approx(own, abs=1e-6)
    assert after(radius) == pytest.approx(other, abs=1e-6)
    assert after(radius * 0.99) > other - 1e-9


@pytest.mark.parametrize(("own", "other"), [(-1.0, -1.0), (-1.0, 0.5), (0.9, 1.0), (1.0, 1.0)])
def test_a_bound_that_says_nothing_certifies_nothing(own, other):
    assert certified_radius(own, other, 0.25) == -np.inf


def test_the_worked_example_of_two_scores():
    assert certified_radius([0.6, 0.3], [0.3, 0.6], 0.25) == pytest.approx([0.1141, -0.1141], abs=1e-4)
