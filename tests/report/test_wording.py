"""Numbers and names in a report."""

import math
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.wording import (
    count,
    difference,
    is_missing,
    names,
    p_text,
    percent,
    points,
    records,
    sentence,
)


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 cells"), (1, "1 cell"), (2, "2 cells"), (1069, "1,069 cells")]
)
def test_a_noun_follows_its_number(number, said):
    assert count(number, "cell") == said


def test_a_plural_of_its_own():
    assert [count(n, "identity", "identities") for n in (1, 5)] == ["1 identity", "5 identities"]


def test_names_are_code_and_many_are_counted():
    assert names([]) == "none"
    assert names(["a", "b"]) == "`a`, `b`"
    assert names(list("abcd"), most=2) == "`a`, `b`, … (4 in all)"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.5,), "50.0 %"),
        ((0.4339, 0.408, 0.4612), "43.4 % [40.8, 46.1]"),
        ((None, 0.1, 0.2), "NA"),
        ((math.nan,), "NA"),
        ((0.5, None, None), "50.0 %"),
    ],
)
def test_percent(values, said):
    assert percent(*values) == said


@given(st.floats(0, 1))
def test_percent_is_the_rate_to_a_decimal(rate):
    found = re.fullmatch(r"(\d+\.\d) %", percent(rate))
    assert found is not None
    assert abs(float(found[1]) / 100 - rate) <= 0.00051


def test_a_difference_has_its_sign_and_interval_in_points():
    assert difference(-0.0134, -0.02, 0.01) == "-1.3 [-2.0, +1.0]"
    assert difference(0.5) == "+50.0"
    assert difference(None, 0.1, 0.2) == "NA"
    assert [points(value) for value in (0.221, None)] == ["22.1", "NA"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.00004, "< 0.0001"), (0.01234, "0.0123"), (1.0, "1.0000"), (None, "NA")]
)
def test_p_text(value, text):
    assert p_text(value) == text


def test_records_have_none_for_what_is_empty():
    found = records(pd.DataFrame({"a": [1.5, None], "b": ["x", None]}))
    assert found == [{"a": 1.5, "b": "x"}, {"a": None, "b": None}]


def test_a_sentence_has_one_capital_and_one_full_stop():
    assert sentence("no cell failed") == "No cell failed."
    assert sentence("so it is..") == "So it is."
    assert sentence("`jpeg` helps") == "`jpeg` helps."
    assert sentence(" ") == ""


def test_missing_is_none_and_nan_and_not_zero():
    assert [is_missing(value) for value in (None, math.nan, 0, 0.0, False)] == [
        True,
        True,
        False,
        False,
        False,
    ]
