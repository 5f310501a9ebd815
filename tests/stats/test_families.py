"""Many pairs at once give the numbers of one pair at a time."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare

from bench.errors import DataError
from bench.stats.families import differences, families
from bench.stats.intervals import difference_interval
from bench.stats.significance import friedman, paired_difference, paired_differences, sign_flip_tests

RATES = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 1.0])
MATRICES = st.integers(2, 14).flatmap(
    lambda n: st.lists(st.lists(RATES, min_size=n, max_size=n), min_size=2, max_size=5)
)


def cells_of(matrix):
    index = [f"i{k:02d}" for k in range(len(matrix[0]))]
    return [pd.Series(row, index=index, name="asr") for row in matrix]


@settings(max_examples=60, deadline=None)
@given(MATRICES)
def test_differences_are_those_of_one_pair_to_the_last_bit(matrix):
    first, second = np.array(matrix[:-1]), np.array(matrix[1:])
    found = differences(first, second, 1e-12)
    for row, (one, two) in enumerate(zip(first, second, strict=True)):
        alone = difference_interval(one, two)
        assert (found.value[row], found.low[row], found.high[row]) == (alone.value, alone.low, alone.high)
        assert (found.first[row], found.second[row]) == (one.mean(), two.mean())
        assert found.differing[row] == np.count_nonzero(one != two)


@settings(max_examples=40, deadline=None)
@given(MATRICES, st.integers(0, 5))
def test_a_family_is_described_and_tested_as_its_pairs_are_in_any_order(matrix, seed):
    rows = cells_of(matrix)
    rng = np.random.default_rng(seed)
    shuffled = [row.iloc[rng.permutation(len(row))] for row in rows]
    pairs = [(one, two) for one in range(len(rows)) for two in range(len(rows)) if one < two]
    together = paired_differences(
        [(rows[one], rows[two]) for one, two in pairs], rng=np.random.default_rng(0)
    )
    mixed = paired_differences(
        [(shuffled[one], rows[two]) for one, two in pairs], rng=np.random.default_rng(0)
    )
    alone = [paired_difference(rows[one], rows[two], rng=np.random.default_rng(0)) for one, two in pairs]
    assert together == alone
    assert [one.p for one in mixed] == [one.p for one in alone]  # so few identities are counted, not drawn


def test_pairs_are_grouped_by_their_identities_and_lacking_rates_are_counted():
    two, three = pd.Series([0.0, np.nan], ["a", "b"]), pd.Series([0.0, 0.5, 1.0], ["a", "b", "c"])
    small, large = families([(three, three), (two, two)])
    assert (small.places, large.places) == ((1,), (0,))
    assert list(small.lacking) == [1]
    assert list(large.lacking) == [0]
    assert families([]) == []
    with pytest.raises(DataError, match="different identities"):
        families([(two, three)])


@settings(max_examples=30, deadline=None)
@given(MATRICES, st.permutations(range(5)))
def test_tests_of_the_same_differences_have_the_same_p(matrix, order):
    columns = np.array(matrix).T
    flipped = columns[:, [k for k in order if k < columns.shape[1]]] * -1
    both = np.column_stack([columns, flipped])
    found = sign_flip_tests(both, np.random.default_rng(0))
    alone = [sign_flip_tests(column[:, None], np.random.default_rng(0))[0] for column in both.T]
    assert found.tolist() == alone


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 30), st.integers(3, 6), st.integers(0, 10_000))
def test_friedman_s_test_is_scipy_s(n, k, seed):
    values = np.random.default_rng(seed).integers(0, 4, (n, k)) / 3
    found = friedman(values)
    if found.p is None:
        assert found.n_differing < 10
        return
    with np.errstate(all="ignore"):
        other = friedmanchisquare(*values.T)
    assert found.statistic == pytest.approx(other.statistic, rel=1e-9, abs=1e-9)
    assert found.p == pytest.approx(other.pvalue, rel=1e-9, abs=1e-12)
