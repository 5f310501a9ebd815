import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from bench.errors import DataError
from bench.stats import significance
from bench.stats.intervals import cohens_h, difference_interval
from bench.stats.significance import (
    LEAST_BLOCKS,
    LEAST_DIFFERING,
    benjamini_hochberg,
    friedman,
    holm,
    mean_over,
    non_inferiority,
    paired_difference,
    paired_differences,
    resamples_for,
    seed_variance,
    sign_flip_test,
    sign_flip_tests,
)

FEW = st.lists(st.integers(-6, 6).map(lambda k: k / 6), min_size=1, max_size=9)
MAYBE_P = st.dictionaries(st.integers(), st.none() | st.floats(0, 1), max_size=12)


def series(values, start=0):
    return pd.Series(np.asarray(values, dtype=float), index=[f"p{start + i:03d}" for i in range(len(values))])


def rng(seed=0):
    return np.random.default_rng(seed)


def studentised(values, axis=-1):
    """|t|, infinite where a resample has no variance: the definition, for SciPy."""
    n = values.shape[axis]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(values.mean(axis=axis)) / np.sqrt(values.var(axis=axis, ddof=1) / n)
    return np.nan_to_num(t, nan=0.0, posinf=np.inf)


@settings(max_examples=50)
@given(FEW)
def test_exact_p_is_the_share_of_all_sign_vectors(differences):
    values = [d for d in differences if d]
    sums = [
        abs(sum(s * d for s, d in zip(signs, values, strict=True)))
        for signs in product((1, -1), repeat=len(values))
    ]
    expected = np.mean(np.array(sums) >= abs(sum(values)) - 1e-9)
    assert sign_flip_test(differences, rng()) == expected


def test_exact_p_agrees_with_scipys_permutation_test_of_the_t_statistic():
    values = rng(1).normal(0.4, 1, size=12)
    expected = stats.permutation_test(
        (values,), studentised, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert sign_flip_test(values, rng()) == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1])
def test_resampled_p_agrees_with_scipys_permutation_test(shift):
    differences = (rng(2).binomial(6, 0.5 + shift, 158) - rng(3).binomial(6, 0.5, 158)) / 6
    expected = stats.permutation_test(
        (differences,),
        studentised,
        permutation_type="samples",
        alternative="greater",
        n_resamples=20_000,
        vectorized=True,
        batch=4096,
        rng=rng(4),
    ).pvalue
    found = sign_flip_test(differences, rng(5), 40_000)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000) + 1e-4)


def test_the_least_p_of_resampling_counts_the_observation_itself():
    assert sign_flip_test(np.ones(60), rng(), 999) == 1 / 1000
    assert sign_flip_test(np.ones(6), rng(), 99_999) == 2 / 2**6
    assert sign_flip_test(np.ones(17), rng(), 2**17) == 2 / 2**17  # more than one batch


def test_p_is_one_where_nobody_differs():
    assert sign_flip_test(np.zeros(20), rng()) == 1.0
    assert sign_flip_test([], rng()) == 1.0


def test_five_differing_identities_cannot_reach_the_level_and_six_can():
    assert sign_flip_test(np.ones(LEAST_DIFFERING - 1), rng()) > 0.05
    assert sign_flip_test(np.ones(LEAST_DIFFERING), rng()) <= 0.05


@given(st.lists(st.integers(-8, 8).map(lambda k: k / 8), min_size=17, max_size=40), st.integers(0, 99))
def test_p_does_not_change_with_swapping_or_zeros(differences, seed):
    d = np.array(differences)
    one = sign_flip_test(d, rng(seed), 499)
    assert 0 < one <= 1
    assert sign_flip_test(-d, rng(seed), 499) == pytest.approx(one, abs=1e-12)
    assert sign_flip_test(np.r_[d, np.zeros(9)], rng(seed), 499) == one


def test_p_is_uniform_under_the_null():
    draws = rng(7)
    p = [sign_flip_test(draws.normal(size=25), draws, 199) for _ in range(800)]
    assert stats.kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize("bad", [[[1.0]], [math.nan], [math.inf]])
def test_the_sign_flip_test_refuses_what_is_not_a_number_an_identity(bad):
    with pytest.raises(ValueError, match="one finite number"):
        sign_flip_test(bad, rng())


def test_resamples_grow_with_the_family():
    assert resamples_for(1) == resamples_for(124) == 99_999
    assert resamples_for(1000) == 800_000
    assert resamples_for(1000, 0.01) == 4_000_000
    for family, alpha in ((0, 0.05), (3, 0.0), (3, 1.0)):
        with pytest.raises(ValueError, match="family"):
            resamples_for(family, alpha)


def test_paired_difference_puts_its_parts_together():
    first = series(rng(1).binomial(6, 0.7, 40) / 6)
    second = series(rng(2).binomial(6, 0.4, 40) / 6)
    found = paired_difference(first, second.sample(frac=1, random_state=0), rng=rng(3), resamples=9999)
    assert (found.n_identities, found.n_differing) == (40, int((first != second).sum()))
    assert (found.first, found.second) == pytest.approx((first.mean(), second.mean()))
    assert found.difference == difference_interval(first, second)
    assert found.p == sign_flip_test(first - second, rng(3), 9999) < 0.05
    assert found.effect_h == pytest.approx(cohens_h(first.mean(), second.mean()))
    assert found.reason == ""


def test_paired_difference_has_no_p_where_too_few_differ():
    first = series([1.0] * 5 + [0.0] * 15)
    found = paired_difference(first, series([0.0] * 20), rng=rng())
    assert found.p is None
    assert found.reason == "5 of 20 identities differ; a test needs at least 6"
    assert found.difference.low < 0.25 < found.difference.high  # the difference itself stands
    six = paired_difference(series([1.0] * 6 + [0.0] * 14), series([0.0] * 20), rng=rng())
    assert six.p == 2 / 2**6


def test_rates_that_are_equal_up_to_rounding_do_not_differ():
    first = series([0.1 + 0.2] * 8)
    assert paired_difference(first, series([0.3] * 8), rng=rng()).n_differing == 0


def test_paired_difference_of_missing_rates_or_other_people():
    found = paired_difference(series([math.nan, 0.5]), series([0.5, 0.5]), rng=rng())
    assert (found.p, found.difference.value, found.effect_h) == (None, None, None)
    assert found.reason == "1 of 2 identities have no rate"
    assert paired_difference(series([]), series([]), rng=rng()).reason == "no identities"
    with pytest.raises(DataError, match="different identities"):
        paired_difference(series([0.5]), series([0.5], start=1), rng=rng())


@settings(max_examples=15)  # statsmodels collects garbage in each call
@given(MAYBE_P)
def test_corrections_leave_out_what_is_missing(p_values):
    known = {key: p for key, p in p_values.items() if p is not None}
    for correct, name in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        found = correct(p_values)
        assert list(found) == list(p_values)
        assert {key for key, p in found.items() if p is not None} == set(known)
        if known:
            expected = multipletests(list(known.values()), method=name)[1]
            assert [found[key] for key in known] == pytest.approx(list(expected))


@settings(max_examples=15)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotone_and_between_the_p_value_and_bonferroni(values):
    found = holm(dict(enumerate(values)))
    m = len(values)
    for i, p in enumerate(values):
        assert p - 1e-12 <= found[i] <= min(1.0, m * p) + 1e-12
        assert all(found[i] <= found[j] + 1e-12 for j, q in enumerate(values) if p <= q)
    least = np.argmin(values)
    assert found[least] == pytest.approx(min(1.0, m * values[least]))
    assert all(benjamini_hochberg(dict(enumerate(values)))[i] <= found[i] + 1e-12 for i in range(m))


def test_non_inferiority_agrees_with_scipys_one_sided_t_test_where_many_differ():
    first, second = series(rng(1).binomial(9, 0.5, 3000) / 9), series(rng(2).binomial(9, 0.51, 3000) / 9)
    for margin in (0.005, 0.02, 0.05):
        expected = stats.ttest_1samp(first.to_numpy() - second.to_numpy(), -margin, alternative="greater")
        found = non_inferiority(first, second, margin)
        assert found.p == pytest.approx(expected.pvalue, rel=0.02, abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=6, max_size=40),
    st.floats(0.01, 0.5),
    st.booleans(),
)
def test_not_worse_is_where_the_interval_lies_on_the_better_side_of_the_margin(pairs, margin, higher):
    first, second = (series(column) for column in np.array(pairs).T / 4)
    found = non_inferiority(first, second, margin, higher_is_better=higher)
    inside = found.difference.low > -margin if higher else found.difference.high < margin
    assert found.not_worse == inside
    # An error is the same question about what is right.
    mirrored = non_inferiority(1 - first, 1 - second, margin, higher_is_better=not higher)
    assert mirrored.p == pytest.approx(found.p)


def test_not_worse_is_not_a_missing_difference():
    noisy = series(rng(1).integers(0, 2, 20)), series(rng(2).integers(0, 2, 20))
    assert paired_difference(*noisy, rng=rng()).p > 0.05
    assert non_inferiority(*noisy, 0.05).not_worse is False


def test_non_inferiority_says_why_it_has_no_p():
    found = non_inferiority(series([0.5] * 5), series([0.5] * 5), 0.1)
    assert (found.p, found.not_worse) == (None, None)
    assert found.reason == "5 identities; a test needs at least 6"
    gap = non_inferiority(series([math.nan] + [0.5] * 9), series([0.5] * 10), 0.1)
    assert gap.reason == "1 of 10 identities have no rate"
    for margin in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match="margin"):
            non_inferiority(series([0.5] * 9), series([0.5] * 9), margin)


def test_friedman_agrees_with_the_textbook_formula_without_ties():
    values = rng(5).normal(size=(30, 4)) + np.array([0, 0, 0.3, 0.8])
    ranks = stats.rankdata(values, axis=1).mean(axis=0)
    chi2 = 12 * 30 / (4 * 5) * ((ranks**2).sum() - 4 * 25 / 4)  # Demšar 2006, eq. in 3.2.2
    found = friedman(values)
    assert found.statistic == pytest.approx(chi2)
    assert found.p == pytest.approx(stats.chi2.sf(chi2, 3))
    assert found.n_differing == 30


def test_friedman_needs_people_who_tell_the_methods_apart():
    tied = np.full((50, 3), 0.5)
    assert friedman(tied).p is None
    tied[: LEAST_BLOCKS - 1, 0] = 1
    assert friedman(tied).reason == "9 of 50 identities tell the methods apart; Friedman's test needs 10"
    tied[:LEAST_BLOCKS, 0] = 1
    assert 0 < friedman(tied).p < 1
    rounding = np.column_stack([np.full(20, 0.1 + 0.2), np.full(20, 0.3), np.full(20, 0.3)])
    assert friedman(rounding).n_differing == 0
    for bad in (np.zeros((20, 2)), np.full((20, 3), math.nan)):
        with pytest.raises(ValueError, match="at least 3 methods"):
            friedman(bad)


def test_mean_over_seeds_is_one_number_an_identity():
    one, two = series([0.0, 1.0, 0.5]), series([1.0, 1.0, 0.0])
    found = mean_over([one, two.iloc[::-1]])
    pd.testing.assert_series_equal(found, series([0.5, 1.0, 0.25]))
    with pytest.raises(DataError, match="different identities"):
        mean_over([one, two.iloc[1:]])
    with pytest.raises(ValueError, match="at least one"):
        mean_over([])


def test_seed_variance_agrees_with_statsmodels_two_way_analysis_of_variance():
    n, k = 12, 4
    draws = rng(8)
    values = (
        0.5 + 0.1 * draws.normal(size=(n, 1)) + 0.05 * draws.normal(size=k) + 0.02 * draws.normal(size=(n, k))
    )
    long = pd.DataFrame({"x": values.ravel(), "i": np.repeat(range(n), k), "s": np.tile(range(k), n)})
    table = anova_lm(ols("x ~ C(i) + C(s)", data=long).fit())
    square = table["sum_sq"] / table["df"]
    found = seed_variance([series(values[:, j]) for j in range(k)])
    assert (found.n_identities, found.n_seeds) == (n, k)
    assert found.mean == pytest.approx(values.mean())
    assert found.seed_means == pytest.approx(values.mean(axis=0).std(ddof=1))
    assert found.residual == pytest.approx(math.sqrt(square["Residual"]))
    assert found.seeds == pytest.approx(math.sqrt((square["C(s)"] - square["Residual"]) / n))
    assert found.identities == pytest.approx(math.sqrt((square["C(i)"] - square["Residual"]) / k))


def test_seed_variance_of_equal_seeds_is_zero_and_of_one_seed_is_missing():
    identities = series([0.0, 0.5, 1.0])
    same = seed_variance([identities, identities])
    assert (same.seed_means, same.seeds, same.residual) == (0, 0, 0)
    assert same.identities == pytest.approx(0.5)
    one = seed_variance([identities])
    assert (one.seeds, one.mean, one.reason) == (None, 0.5, "1 seed; a variance needs 2")
    assert seed_variance([series([math.nan]), series([1.0])]).reason == "an identity has no rate"


# -- many tests at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [21, 30])
def test_two_halves_count_what_all_sign_vectors_give(n):
    values = rng(n).integers(-4, 9, n) / 8
    values[values == 0] = 0.5
    sums = np.zeros(1)
    for value in values[:20]:
        sums = np.concatenate([sums - value, sums + value])
    beyond = 0
    for signs in product((1, -1), repeat=n - 20):
        beyond += int((np.abs(sums + np.dot(signs, values[20:])) >= abs(values.sum()) - 1e-9).sum())
    assert sign_flip_test(values, rng()) == beyond / 2**n


def test_a_family_gives_each_test_about_what_it_gives_alone():
    shifts = np.linspace(0, 0.12, 40)
    columns = np.column_stack([(rng(k).normal(shift, 0.3, 158)) for k, shift in enumerate(shifts)])
    family = sign_flip_tests(columns, rng(1), 99_999)
    alone = [sign_flip_test(column, rng(2), 99_999) for column in columns.T]
    for one, other in zip(family, alone, strict=True):
        spread = math.sqrt(2 * (1 / 5000 + 1 / (99_999 * min(one, other))))
        assert one == pytest.approx(other, rel=5 * spread)


def test_tables_and_products_give_the_same_sums():
    values, codes = rng(1).normal(size=(37, 12)), rng(2).integers(0, 256, (50, 5), dtype=np.uint8)
    whole = significance._sums(values, codes)
    parts = np.hstack([significance._sums(values[:, [column]], codes) for column in range(12)])
    np.testing.assert_allclose(whole, parts, atol=1e-12)


def test_a_test_stops_where_enough_lie_beyond_and_is_right_all_the_same(monkeypatch):
    differences = rng(5).normal(0.02, 0.3, 158)
    whole = rng(9)
    expected = sign_flip_test(differences, rng(3), 2_000_000)
    monkeypatch.setattr(significance, "ENOUGH", 10**9)
    assert expected == pytest.approx(sign_flip_test(differences, whole, 400_000), rel=0.06)


def test_what_cannot_be_drawn_is_not_drawn():
    drawn = rng(4)
    before = drawn.bit_generator.state
    assert sign_flip_test(np.full(158, 0.7), drawn, 99_999) == 1 / 100_000
    assert drawn.bit_generator.state == before


def test_pairs_of_one_family_are_each_what_a_pair_alone_is():
    names = [f"p{k}" for k in range(12)]
    rates = [pd.Series(rng(k).integers(0, 5, 12) / 4, index=names) for k in range(4)]
    rates.append(pd.Series(np.nan, index=names))
    asked = [(rates[0], rates[1]), (rates[2], rates[4]), (rates[2], rates[3]), (rates[0], rates[0])]
    together = paired_differences(asked, rng=rng())
    assert together == [paired_difference(*pair, rng=rng()) for pair in asked]
    assert [one.p is None for one in together] == [False, True, False, True]
