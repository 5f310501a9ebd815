import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.stats.rankings import (
    compact_letters,
    critical_difference,
    critical_difference_groups,
    mean_ranks,
    rank_methods,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def table(means, n=120, seed=0):
    """n identities × methods, paired: one difficulty an identity."""
    draws = rng(seed)
    hard = draws.normal(0, 0.15, size=(n, 1))
    rates = np.clip(np.array(list(means.values())) + hard + draws.normal(0, 0.1, size=(n, len(means))), 0, 1)
    return pd.DataFrame(rates, columns=list(means), index=[f"p{i}" for i in range(n)])


@st.composite
def decisions(draw):
    items = tuple(range(draw(st.integers(1, 8))))
    pairs = [(i, j) for i in items for j in items if i < j]
    return items, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


@settings(max_examples=200)
@given(decisions())
def test_letters_are_shared_exactly_where_a_pair_is_not_told_apart(case):
    items, apart = case
    letters = compact_letters(items, apart)
    for i in items:
        assert letters[i]
        assert list(letters[i]) == sorted(set(letters[i]))
        for j in items[i + 1 :]:
            assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in apart)


@settings(max_examples=100)
@given(decisions())
def test_no_letter_is_needless(case):
    items, apart = case
    letters = compact_letters(items, apart)
    groups = {letter: {i for i in items if letter in letters[i]} for letter in set("".join(letters.values()))}
    assert not any(one < two for one in groups.values() for two in groups.values())
    assert compact_letters(items, [(j, i) for i, j in reversed(apart)]) == letters


def test_letters_are_not_transitive():
    assert compact_letters("ABC", [("A", "C")]) == {"A": "a", "B": "ab", "C": "b"}
    assert compact_letters("ABC", []) == dict.fromkeys("ABC", "a")
    assert compact_letters("ABC", [("A", "B"), ("B", "C"), ("A", "C")]) == {"A": "a", "B": "b", "C": "c"}
    assert compact_letters((), []) == {}


def test_more_groups_than_letters_still_have_one_character_each():
    items = list(range(60))
    letters = compact_letters(items, [(i, j) for i in items for j in items if i < j])
    assert len(set(letters.values())) == 60
    assert all(len(text) == 1 for text in letters.values())


def test_letters_of_items_that_are_not_there_are_refused():
    for pair in (("A", "Z"), ("A", "A")):
        with pytest.raises(ValueError, match="two of the items"):
            compact_letters("AB", [pair])


def test_a_clear_order_is_ranked():
    rates = table({"weak": 0.2, "strong": 0.8, "middle": 0.5})
    ranking = rank_methods(rates, higher_is_better=True, rng=rng())
    assert [m.method for m in ranking.methods] == ["strong", "middle", "weak"]
    assert [(m.rank_low, m.rank_high, m.tie_group) for m in ranking.methods] == [
        (1, 1, "a"),
        (2, 2, "b"),
        (3, 3, "c"),
    ]
    assert ranking.methods[0].mean == pytest.approx(rates["strong"].mean())
    assert ranking.reason == ""
    errors = rank_methods(rates, higher_is_better=False, rng=rng())
    assert [m.method for m in errors.methods] == ["weak", "middle", "strong"]
    assert ranking.omnibus.p == pytest.approx(stats.friedmanchisquare(*rates.to_numpy().T).pvalue)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_letters_say_what_the_pairs_say(seed):
    rates = table({"a": 0.5, "b": 0.52, "c": 0.54, "d": 0.56, "e": 0.6}, n=60, seed=seed)
    ranking = rank_methods(rates, higher_is_better=True, rng=rng(), resamples=4999)
    place = {m.method: m for m in ranking.methods}
    k = len(place)
    assert len(ranking.pairs) == k * (k - 1) / 2
    for (better, worse), test in ranking.pairs.items():
        assert place[better].mean >= place[worse].mean
        assert test.significant == (ranking.omnibus.p <= 0.05 and test.p_holm <= 0.05)
        assert test.p_holm >= test.found.p
        assert test.significant != bool(set(place[better].tie_group) & set(place[worse].tie_group))
    for name, one in place.items():
        assert one.rank_low == 1 + sum(t.significant for (_, w), t in ranking.pairs.items() if w == name)
        assert one.rank_high == k - sum(t.significant for (b, _), t in ranking.pairs.items() if b == name)
        assert 1 <= one.rank_low <= one.rank_high <= k


def test_all_are_tied_where_friedman_does_not_reject():
    rates = table({"a": 0.5, "b": 0.5, "c": 0.5}, n=30, seed=3)
    ranking = rank_methods(rates, higher_is_better=True, rng=rng(), resamples=999)
    assert ranking.omnibus.p > 0.05
    assert {(m.rank_low, m.rank_high, m.tie_group) for m in ranking.methods} == {(1, 3, "a")}
    assert ranking.reason.startswith("all tied: Friedman's test over the 3 methods has p = ")


def test_all_are_tied_with_the_reason_where_friedman_cannot_be_given():
    rates = table({"a": 0.1, "b": 0.5, "c": 0.9}, n=9)
    ranking = rank_methods(rates, higher_is_better=True, rng=rng(), resamples=999)
    assert {m.tie_group for m in ranking.methods} == {"a"}
    assert ranking.reason == "9 of 9 identities tell the methods apart; Friedman's test needs 10"


def test_two_methods_need_no_omnibus_and_one_stands_alone():
    two = rank_methods(table({"a": 0.3, "b": 0.6}), higher_is_better=True, rng=rng())
    assert two.omnibus is None
    assert [(m.method, m.rank_low, m.tie_group) for m in two.methods] == [("b", 1, "a"), ("a", 2, "b")]
    (one,) = rank_methods(table({"a": 0.3}), higher_is_better=True, rng=rng()).methods
    assert (one.rank_low, one.rank_high, one.mean_rank, one.tie_group) == (1, 1, 1.0, "a")


def test_a_pair_without_a_p_value_is_a_tie():
    same = table({"a": 0.3, "b": 0.6})
    same["c"] = same["b"]
    ranking = rank_methods(same, higher_is_better=True, rng=rng(), resamples=4999)
    assert ranking.pairs["b", "c"].p_holm is None
    assert not ranking.pairs["b", "c"].significant
    assert [(m.rank_low, m.rank_high) for m in ranking.methods] == [(1, 2), (1, 2), (3, 3)]


def test_a_slice_with_a_failed_cell_is_not_ranked():
    rates = table({"a": 0.3, "b": 0.6, "c": 0.9})
    rates["b"] = np.nan
    ranking = rank_methods(rates, higher_is_better=True, rng=rng())
    assert ranking.methods == ()
    assert ranking.pairs == {}
    assert ranking.reason == "not ranked: 2 of 3 methods have results for everyone"
    nothing = rank_methods(pd.DataFrame(), higher_is_better=True, rng=rng())
    assert nothing.reason == "not ranked: 0 of 0 methods have results for everyone"


def test_the_order_of_columns_decides_nothing_but_chance():
    rates = table({"a": 0.5, "b": 0.5, "c": 0.7})
    rates["b"] = rates["a"]
    one = rank_methods(rates, higher_is_better=True, rng=rng(), resamples=999)
    other = rank_methods(rates[["c", "b", "a"]], higher_is_better=True, rng=rng(), resamples=999)
    assert one == other


def test_a_name_twice_is_refused():
    rates = table({"a": 0.5, "b": 0.5})
    with pytest.raises(ValueError, match="once"):
        rank_methods(rates[["a", "a"]], higher_is_better=True, rng=rng())


def test_critical_difference_has_demsars_table_5a():
    # q_0.05 of Demšar (2006), table 5(a), for 2, 5 and 10 classifiers.
    for k, q in ((2, 1.960), (5, 2.728), (10, 3.164)):
        assert critical_difference(k, 30) == pytest.approx(q * np.sqrt(k * (k + 1) / 180), abs=1e-3)
    for k, n, alpha in ((1, 30, 0.05), (3, 0, 0.05), (3, 30, 1.0)):
        with pytest.raises(ValueError, match="critical difference"):
            critical_difference(k, n, alpha)


def test_critical_difference_agrees_with_posthoc_nemenyi():
    rates = table({"a": 0.5, "b": 0.52, "c": 0.54, "d": 0.6}, n=40)
    p = scikit_posthocs.posthoc_nemenyi_friedman(rates.to_numpy())
    ranks = list(mean_ranks(rates, higher_is_better=True).values())
    reach = critical_difference(4, 40)
    for i in range(4):
        for j in range(i):
            assert (p.iloc[i, j] < 0.05) == (abs(ranks[i] - ranks[j]) > reach)


def test_mean_ranks_put_the_best_first_and_share_ties():
    rates = pd.DataFrame({"a": [0.1, 0.1 + 0.2], "b": [0.5, 0.3]}, index=["p", "q"])
    assert mean_ranks(rates, higher_is_better=True) == {"a": 1.75, "b": 1.25}
    assert mean_ranks(rates, higher_is_better=False) == {"a": 1.25, "b": 1.75}


def test_critical_difference_groups_hold_all_within_reach_and_no_group_within_another():
    rates = table({"a": 0.5, "b": 0.55, "c": 0.6, "d": 0.65, "e": 0.9}, n=25)
    ranks = mean_ranks(rates, higher_is_better=True)
    groups = critical_difference_groups(rates, higher_is_better=True)
    reach = critical_difference(5, 25)
    together = {frozenset((x, y)) for group in groups for x in group for y in group if x != y}
    expected = {
        frozenset((x, y)) for x in ranks for y in ranks if x != y and abs(ranks[x] - ranks[y]) <= reach
    }
    assert together == expected
    assert not any(set(one) < set(two) for one in groups for two in groups)
