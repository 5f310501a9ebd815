"""Numbers and lists in sentences."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.row_warnings import split_warnings
from bench.report.wording import count, few, is_missing, listing, p_value, percent, points, sentence


@pytest.mark.parametrize(
    ("number", "said"), [(0, "no cells"), (1, "1 cell"), (2, "2 cells"), (1069, "1,069 cells")]
)
def test_a_noun_follows_its_number(number, said):
    assert count(number, "cell") == said


def test_a_plural_of_its_own():
    assert [count(n, "identity", "identities") for n in (0, 1, 5)] == [
        "no identities",
        "1 identity",
        "5 identities",
    ]


@pytest.mark.parametrize(
    ("items", "said"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_listing(items, said):
    assert listing(items) == said


def test_few_names_are_named_and_many_counted():
    assert few(["a", "b"], "attack") == "`a` and `b`"
    assert few(list("abcd"), "attack") == "4 attacks"
    assert few(list("abcd"), "attack of it", "attacks of it") == "4 attacks of it"


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


@pytest.mark.parametrize(
    ("value", "said"), [(-0.0034, "0.3 points"), (0.01, "1.0 point"), (-0.01, "1.0 point"), (None, "NA")]
)
def test_points_have_no_sign(value, said):
    assert points(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0004, "p < 0.001"), (0.0123, "p = 0.012"), (1.0, "p = 1.000"), (None, "no p value")],
)
def test_p_value(value, said):
    assert p_value(value) == said


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


def test_warnings_come_apart_where_a_code_begins():
    text = (
        "unchanged: the attack left 3 of 24 photos; that is a lot; like-noise: tiny-b moves 1.1 times as far"
    )
    assert split_warnings(text) == [
        ("unchanged", "the attack left 3 of 24 photos; that is a lot"),
        ("like-noise", "tiny-b moves 1.1 times as far"),
    ]
    assert split_warnings("") == split_warnings(None) == split_warnings(math.nan) == []
