"""The worst case over attacks: against plain loops, and what must hold of any maximum."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import DataError
from bench.stats.intervals import rate_interval
from bench.stats.rates import NEVER_PROTECTED
from bench.stats.worst_case import worst_case

PROBES = 4


@st.composite
def attacks(draw):
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=8, unique=True))
    hits = st.lists(st.integers(0, PROBES), min_size=len(names), max_size=len(names))
    found = draw(st.lists(hits, min_size=1, max_size=4))
    return {
        f"attack {number}": pd.Series([hit / PROBES for hit in own], index=names)
        for number, own in enumerate(found)
    }


def probes_of(rates):
    return pd.Series(PROBES, index=next(iter(rates.values())).index)


@settings(deadline=None)
@given(attacks())
def test_it_is_the_mean_of_each_identitys_highest_rate(rates):
    found = worst_case(rates, probes_of(rates))
    names = next(iter(rates.values())).index
    highest = [max(own[name] for own in rates.values()) for name in names]
    assert found.asr.value == pytest.approx(sum(highest) / len(highest))
    expected = rate_interval(highest, PROBES * len(highest))
    assert (found.asr.low, found.asr.high) == pytest.approx((expected.low, expected.high))
    means = {name: sum(own) / len(own) for name, own in rates.items()}
    assert found.attack_asr == pytest.approx(max(means.values()))
    assert means[found.attack] == pytest.approx(found.attack_asr)


@settings(deadline=None)
@given(attacks())
def test_one_attack_for_all_is_never_worse_and_no_attack_takes_anything_away(rates):
    found = worst_case(rates, probes_of(rates))
    assert found.attack_asr <= found.asr.value + 1e-12
    fewer = dict(list(rates.items())[:1])
    assert worst_case(fewer, probes_of(rates)).asr.value <= found.asr.value + 1e-12


@settings(deadline=None)
@given(attacks(), st.randoms(use_true_random=False))
def test_the_order_of_identities_does_not_matter(rates, random):
    def shuffled(series):
        return series.sample(frac=1, random_state=random.randrange(1000))

    mixed = {name: shuffled(own) for name, own in rates.items()}
    assert worst_case(mixed, shuffled(probes_of(rates))) == worst_case(rates, probes_of(rates))


def test_of_equal_attacks_the_first_is_named_and_a_single_one_is_its_own_rate():
    one = pd.Series({"a": 1.0, "b": 0.5, "c": 0.0})
    found = worst_case({"fog": one, "mist": one}, probes_of({"fog": one}))
    assert (found.attack, found.attack_asr, found.asr.value) == ("fog", 0.5, 0.5)
    assert worst_case({"mist": one}, probes_of({"mist": one})).asr == found.asr


def test_who_was_never_protected_is_left_out():
    fog, mist = pd.Series({"a": 0.5, "b": math.nan}), pd.Series({"a": 0.25, "b": math.nan})
    found = worst_case({"fog": fog, "mist": mist}, pd.Series({"a": 4, "b": 4}))
    assert found.asr.value == 0.5
    nobody = worst_case({"fog": fog * np.nan}, pd.Series({"a": 4, "b": 4}))
    assert (nobody.asr.value, nobody.asr.reason, nobody.attack) == (None, NEVER_PROTECTED, "")


def test_identities_that_depend_on_each_other_have_no_interval():
    one = pd.Series({"a": 1.0, "b": 0.5})
    found = worst_case({"fog": one}, probes_of({"fog": one}), "they share photos")
    assert (found.asr.value, found.asr.low, found.asr.reason) == (0.75, None, "they share photos")


def test_no_attack_is_no_worst_case_and_other_identities_are_refused():
    assert worst_case({}, pd.Series(dtype=int)).asr.reason == "no attack has a rate"
    with pytest.raises(DataError, match="different identities"):
        worst_case({"fog": pd.Series({"a": 1.0}), "mist": pd.Series({"b": 1.0})}, pd.Series({"a": 4}))
