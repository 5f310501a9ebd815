import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint, proportion_effectsize

from bench.stats.intervals import (
    Estimate,
    bootstrap_interval,
    bootstrap_means,
    cohens_h,
    difference_interval,
    effective_sample_size,
    rate_interval,
    wilson_interval,
)

RATES = st.lists(st.integers(0, 4).map(lambda k: k / 4), min_size=2, max_size=30)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (77, 158), (1, 1000)])
def test_wilson_interval_agrees_with_statsmodels(hits, n):
    low, high = wilson_interval(hits / n, n, stats.norm.ppf(0.975))
    expected = proportion_confint(hits, n, alpha=0.05, method="wilson")
    assert (low, high) == pytest.approx(expected, abs=1e-12)


def test_rate_interval_is_wilson_at_n_eff_with_students_t_in_place_of_z():
    rates = np.array([0.0, 0.5, 0.5, 1.0, 0.25])
    p, s2 = 0.45, np.var(rates, ddof=1)
    # Four of the five are above 0 and below 1; one more has shown the largest variance.
    n_eff = p * (1 - p) / ((4 * s2 / 5 + p * (1 - p) / 5) / 5)
    assert effective_sample_size(rates, 20) == pytest.approx(n_eff)
    # statsmodels takes a level for z; ask it for the level whose z is our t quantile.
    level = 2 * stats.norm.sf(stats.t.ppf(0.975, 4))
    expected = proportion_confint(p * n_eff, n_eff, alpha=level, method="wilson")
    found = rate_interval(rates, 20)
    assert found.value == pytest.approx(p)
    assert (found.low, found.high) == pytest.approx(expected)


def test_n_eff_is_bounded_by_identities_and_probes():
    assert (
        effective_sample_size([0.0, 1.0, 0.0, 1.0], 40) == 4
    )  # nothing but between identities: p(1−p)/v = 3
    assert effective_sample_size([0.49, 0.5, 0.51, 0.5] * 5, 40) == 40


def test_n_eff_is_little_where_few_people_tell_of_the_variance():
    rates = np.r_[np.full(3, 1 / 10), np.zeros(97)]
    p, s2 = rates.mean(), rates.var(ddof=1)
    expected = p * (1 - p) / ((3 * s2 / 100 + p * (1 - p) / 100) / 4)
    assert effective_sample_size(rates, 700) == pytest.approx(expected)
    assert expected < 400
    assert p * (1 - p) / (s2 / 100) > 700  # what s² alone would say


@pytest.mark.parametrize("rate", [0.0, 1.0, 1 / 3])
def test_n_eff_is_the_number_of_identities_where_they_do_not_vary(rate):
    assert effective_sample_size([rate] * 7, 70) == 7
    found = rate_interval([rate] * 7, 70)
    assert (found.low, found.high) == pytest.approx(wilson_interval(rate, 7, stats.t.ppf(0.975, 6)))


def test_extreme_rates_have_one_open_end():
    none, every = rate_interval([0.0] * 20, 60), rate_interval([1.0] * 20, 60)
    assert none.low == 0.0
    assert every.high == 1.0
    assert none.high == pytest.approx(1 - every.low)
    assert 0.1 < none.high < 0.25


def test_rate_interval_of_too_few_identities_gives_reasons():
    assert rate_interval([], 0) == Estimate.missing("no identities")
    one = rate_interval([0.5], 4)
    assert (one.value, one.low, one.high) == (0.5, None, None)
    assert one.reason == "one identity has no interval"


@pytest.mark.parametrize(
    ("rates", "n_probes", "message"),
    [([0.5, 1.5], 9, "in \\[0, 1\\]"), ([0.5, math.nan], 9, "in \\[0, 1\\]"), ([0.5, 0.5], 1, "1 probes")],
)
def test_rate_interval_refuses_what_is_not_a_rate(rates, n_probes, message):
    with pytest.raises(ValueError, match=message):
        rate_interval(rates, n_probes)


@given(RATES)
def test_rate_interval_holds_the_rate_inside_0_to_1_and_mirrors(rates):
    n_probes = 4 * len(rates)
    found = rate_interval(rates, n_probes)
    assert 0 <= found.low <= found.value <= found.high <= 1
    mirrored = rate_interval([1 - r for r in rates], n_probes)
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-9)


@pytest.mark.parametrize(("p", "concentration"), [(0.1, 1.0), (0.5, 0.3), (0.8, 1.0), (0.95, 5.0)])
def test_coverage_is_nominal_for_clustered_probes_with_lfw_like_counts(p, concentration):
    rng = np.random.default_rng(7)
    runs, n = 800, 158
    # LFW's 158 identities with ten photos or more: most have 3 to 6 probes, some the cap of 10.
    probes = rng.choice([3, 4, 5, 6, 8, 10], p=[0.2, 0.2, 0.15, 0.1, 0.1, 0.25], size=n)
    true = rng.beta(p * concentration, (1 - p) * concentration, size=(runs, n))
    rates = rng.binomial(probes, true) / probes
    intervals = [rate_interval(one, int(probes.sum())) for one in rates]
    covered = np.mean([found.low <= p <= found.high for found in intervals])
    assert 0.92 <= covered <= 0.98


def test_bootstrap_means_are_means_of_whole_rows_drawn_with_replacement():
    columns = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    means = bootstrap_means(columns, np.random.default_rng(0), 5000)
    assert means.shape == (5000, 2)
    np.testing.assert_allclose(means.sum(axis=1), 1.0)  # rows stay paired
    assert set(np.unique(np.round(means * 6))) <= set(range(7))
    assert means[:, 0].mean() == pytest.approx(0.5, abs=0.02)
    assert means[:, 0].var() == pytest.approx(columns[:, 0].var() / 3, rel=0.1)


def test_bootstrap_interval_agrees_with_scipys_bca():
    rng = np.random.default_rng(3)
    first = rng.beta(4, 1, size=60)
    second = first * rng.beta(2, 3, size=60)
    found = bootstrap_interval(
        np.column_stack([first, second]),
        lambda m: m[..., 1] / m[..., 0],
        np.random.default_rng(1),
        resamples=20_000,
    )
    expected = stats.bootstrap(
        (first, second),
        lambda a, b, axis: b.mean(axis=axis) / a.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(2),
        method="BCa",
    ).confidence_interval
    assert found.value == pytest.approx(second.mean() / first.mean())
    width = expected.high - expected.low
    assert abs(found.low - expected.low) < 0.03 * width
    assert abs(found.high - expected.high) < 0.03 * width


def test_bootstrap_interval_is_the_same_for_the_same_generator():
    columns = np.random.default_rng(0).random((20, 1))
    one, two = (bootstrap_interval(columns, lambda m: m[..., 0], np.random.default_rng(5)) for _ in range(2))
    assert one == two


def test_bootstrap_interval_says_why_it_is_missing():
    def ratio(mean):
        return mean[..., 0] / mean[..., 1]

    rng = np.random.default_rng(0)
    assert bootstrap_interval(np.empty((0, 2)), ratio, rng) == Estimate.missing("no identities")
    assert bootstrap_interval([[1.0, 0.0], [1.0, 0.0]], ratio, rng) == Estimate.missing("not finite")
    assert bootstrap_interval([[1.0, 2.0]], ratio, rng) == Estimate(
        0.5, reason="one identity has no interval"
    )
    constant = bootstrap_interval([[1.0, 2.0]] * 9, ratio, rng)
    assert (constant.value, constant.low) == (0.5, None)
    assert "no variation" in constant.reason
    sometimes = bootstrap_interval([[1.0, 0.0], [1.0, 2.0]], ratio, rng)
    assert (sometimes.value, sometimes.low) == (1.0, None)
    assert "not finite in some resamples" in sometimes.reason


@given(RATES, st.integers(1, 7))
def test_groups_of_one_size_are_as_many_rates(rates, size):
    plain = rate_interval(rates, 4 * len(rates))
    grouped = rate_interval(rates, 4 * len(rates), sizes=[size] * len(rates))
    assert grouped.value == pytest.approx(plain.value)
    assert (grouped.low, grouped.high) == pytest.approx((plain.low, plain.high))


def test_groups_of_unlike_size_have_the_variance_of_a_ratio():
    rates, sizes = np.array([0.2, 0.9, 0.4, 0.5]), np.array([1, 5, 2, 2])
    everyone = np.repeat(rates, sizes)
    p = everyone.mean()
    # The delta method for a ratio of two totals, from their covariance matrix.
    gradient = np.array([1, -p]) / sizes.mean()
    between = gradient @ np.cov(rates * sizes, sizes) @ gradient / 4
    groups = sizes.sum() ** 2 / (sizes**2).sum()
    expected = p * (1 - p) / ((4 * between + p * (1 - p) / groups) / 5)
    assert effective_sample_size(rates, 100, sizes) == pytest.approx(max(expected, groups))
    found = rate_interval(rates, 100, sizes=sizes)
    assert found.value == pytest.approx(p)
    assert found.low < p < found.high


def test_groups_bound_the_effective_sample_size_and_need_sizes():
    assert effective_sample_size([1.0, 1.0, 1.0], 90, [28, 1, 1]) == pytest.approx(900 / 786)
    assert rate_interval([0.5], 40, sizes=[10]) == Estimate(0.5, reason="one group has no interval")
    assert rate_interval([1.0, 1.0], 40, sizes=[3, 7]).high == 1.0
    for sizes in ([1, 0], [1], [1, 2, 3]):
        with pytest.raises(ValueError, match="2 rates needs a size above 0"):
            rate_interval([0.5, 0.2], 40, sizes=sizes)


def test_a_mean_over_cells_has_the_interval_of_a_rate_with_the_answers_of_all_cells():
    cells = np.random.default_rng(0).integers(0, 5, size=(3, 30)) / 4
    rates = cells.mean(axis=0)
    assert rate_interval(rates, 3 * 120) == rate_interval(list(rates), 360)
    nobody = rate_interval(np.zeros((3, 30)).mean(axis=0), 360)
    assert (nobody.value, nobody.low) == (0.0, 0.0)
    assert nobody.high > 0.1  # thirty identities without an error are thirty, in however many cells


@given(st.floats(0, 1), st.floats(0, 1))
def test_cohens_h_agrees_with_statsmodels(first, second):
    assert cohens_h(first, second) == pytest.approx(proportion_effectsize(first, second), abs=1e-12)
    assert cohens_h(first, second) == -cohens_h(second, first)


def test_cohens_h_refuses_what_is_not_a_rate():
    with pytest.raises(ValueError, match=r"1\.2 is not in"):
        cohens_h(0.1, 1.2)


def test_an_estimate_without_value_or_interval_needs_a_reason():
    with pytest.raises(ValueError, match="needs a reason"):
        Estimate(None)
    with pytest.raises(ValueError, match="needs a reason"):
        Estimate(0.5)
    with pytest.raises(ValueError, match="two ends"):
        Estimate(0.5, low=0.1)


def test_difference_interval_is_students_where_many_differ():
    rng = np.random.default_rng(4)
    first, second = rng.binomial(6, 0.6, 4000) / 6, rng.binomial(6, 0.5, 4000) / 6
    expected = stats.ttest_rel(first, second).confidence_interval()
    found = difference_interval(first, second)
    assert found.value == pytest.approx((first - second).mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=2e-5)


def test_difference_interval_by_hand():
    first, second = np.array([1.0, 0.5, 0.5, 0.0]), np.array([0.5, 0.5, 0.5, 0.0])
    variance = np.var([0.5, 0, 0, 0], ddof=1) / 4
    p, q = (4 * 0.5 + 1) / 6, (4 * 0.375 + 1) / 6
    error = math.sqrt((1 * variance + (p * (1 - p) + q * (1 - q)) / 2 / 4) / 2)
    found = difference_interval(first, second)
    half = stats.t.ppf(0.975, 3) * error
    assert (found.value, found.low, found.high) == pytest.approx((0.125, 0.125 - half, 0.125 + half))


def test_difference_interval_where_nobody_differs_narrows_with_identities():
    few, many = (difference_interval([0.0] * n, [0.0] * n) for n in (20, 158))
    assert few.value == many.value == 0.0
    assert few.high == pytest.approx(stats.t.ppf(0.975, 19) * math.sqrt(21 / 22**2 / 20))
    assert 1.5 / 158 < many.high < 3 / 158  # of the rule of three's order
    assert few.low == -few.high


def test_difference_interval_says_why_it_is_missing():
    assert difference_interval([], []) == Estimate.missing("no identities")
    assert difference_interval([1.0], [0.5]).reason == "one identity has no interval"
    with pytest.raises(ValueError, match="same identities"):
        difference_interval([1.0], [0.5, 0.5])
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        difference_interval([1.5, 0.0], [0.5, 0.5])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30))
def test_difference_interval_changes_sign_with_the_order(pairs):
    first, second = np.array(pairs).T / 4
    there, back = difference_interval(first, second), difference_interval(second, first)
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
