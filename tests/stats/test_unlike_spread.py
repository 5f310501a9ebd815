"""Where a significant difference may be a false positive, by hand."""

import numpy as np
import pandas as pd
import pytest

from bench.errors import DataError
from bench.stats.intervals import rate_interval
from bench.stats.significance import paired_difference
from bench.stats.unlike_spread import LEAST_TELLING, unlike_spread


def series(values):
    return pd.Series(values, index=[f"p{i:03d}" for i in range(len(values))], dtype=float)


NOBODY = series([0.0] * 158)
TEN = series([1 / 7] * 10 + [0.0] * 148)


def test_ten_small_errors_against_none_are_significant_and_said_to_be_doubtful():
    assert paired_difference(TEN, NOBODY, rng=np.random.default_rng(0), resamples=9999).p < 0.01
    text = unlike_spread(TEN, NOBODY)
    assert text.startswith("of the rate of 0.0 % only 0 of 158 identities tell")
    assert "could be 0.9 % too" in text
    assert unlike_spread(NOBODY, TEN[::-1]) == text


def test_near_one_it_is_the_successes_that_tell():
    assert "of the rate of 100.0 % only 0 of 158" in unlike_spread(1 - TEN, 1 - NOBODY)


def test_a_difference_that_no_spread_explains_has_no_caution():
    half = series([0.5] * 79 + [0.0] * 79)
    assert unlike_spread(half, NOBODY) == ""
    high = rate_interval(NOBODY, 158).high  # all of an identity's probes alike: as many trials as identities
    below, above = (series([high + shift] * 40 + [high + shift] * 118) for shift in (-1e-6, 1e-6))
    assert unlike_spread(below, NOBODY) != ""
    assert unlike_spread(above, NOBODY) == ""


def test_identities_enough_tell_of_the_spread_whatever_the_means():
    few, enough = (series([0.2] * k + [0.0] * (158 - k)) for k in (LEAST_TELLING - 1, LEAST_TELLING))
    other = series([0.3] * 40 + [0.0] * 118)
    assert unlike_spread(few, other * 0.5) != ""
    assert unlike_spread(enough, other * 0.5) == ""


def test_nothing_is_said_without_rates_and_other_identities_are_no_pair():
    assert unlike_spread(series([0.0]), series([0.1])) == ""
    assert unlike_spread(series([np.nan, 0.0]), series([0.1, 0.0])) == ""
    with pytest.raises(DataError, match="different identities"):
        unlike_spread(series([0.0, 0.0]), series([0.0, 0.0]).rename({"p000": "q"}))
