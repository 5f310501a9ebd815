"""Numbers and names in a report."""

import math

import pandas as pd

from bench.report import wording
from bench.report.wording import count, difference, names, p_text, percent, points, sentence


def test_numbers_and_what_is_missing():
    assert [percent(0.4339, 0.408, 0.4612), percent(0.5, None, None)] == ["43.4 % [40.8, 46.1]", "50.0 %"]
    assert [difference(-0.0134, -0.02, 0.01), difference(0.5)] == ["-1.3 [-2.0, +1.0]", "+50.0"]
    assert [p_text(0.00004), p_text(0.01234), points(0.221)] == ["< 0.0001", "0.0123", "22.1"]
    assert {show(empty) for show in (percent, difference, p_text, points) for empty in (None, math.nan)} == {
        "NA"
    }


def test_nouns_names_and_sentences():
    assert [count(n, "identity", "identities") for n in (1, 1069)] == ["1 identity", "1,069 identities"]
    assert [count(0, "cell"), names([]), names(["a", "b"])] == ["0 cells", "none", "`a`, `b`"]
    assert names(list("abcdefgh")) == "`a`, `b`, `c`, `d`, `e`, `f`, … (8 in all)"
    assert [sentence(text) for text in ("so it is..", "`jpeg` helps", " ")] == [
        "So it is.",
        "`jpeg` helps.",
        "",
    ]


def test_rows_that_match_all_columns_have_none_for_what_is_empty():
    table = pd.DataFrame({"a": [1.5, None, 1.5], "b": ["x", "x", "y"]})
    assert wording.records(wording.matching(table, b="x")) == [{"a": 1.5, "b": "x"}, {"a": None, "b": "x"}]
    assert list(wording.matching(table, a=1.5, b="y").index) == [2]
