"""Exact and partial adaptation are told apart wherever rows are read."""

import pandas as pd
import pytest

from bench.leaderboard import adaptation
from bench.leaderboard.adaptation import COLUMNS, MARKS, WORDS, in_a_word, in_short, short
from bench.run.threat import CellThreat

NO = dict.fromkeys(COLUMNS.values(), False)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (NO, None),
        (NO | {COLUMNS["exact"]: True}, "exact"),
        (NO | {COLUMNS["partial"]: True}, "partial"),
        (NO | {COLUMNS["partial"]: "True"}, "partial"),  # as a table with gaps holds it
        (dict.fromkeys(COLUMNS.values(), float("nan")), None),
        ({}, None),
    ],
)
def test_a_row_says_whether_its_attack_is_adapted_to_the_whole_or_a_part(row, expected):
    assert adaptation.adaptation(row) == expected
    if row:
        assert adaptation.column(pd.DataFrame([row])) == [expected]


def test_a_threat_model_says_it_too():
    threat = CellThreat(
        surrogates="", extractors="", access="", related=False, extractors_are_surrogates=False,
        attack_seen_by_defense="unseen", attack_adapts_to_defense=False, attack_adapts_in_part=True,
        identity_overlap="no",
    )  # fmt: skip
    assert adaptation.adaptation(threat) == "partial"


def test_no_word_and_no_mark_stands_for_both():
    for words in (MARKS, WORDS, {kind: short(kind) for kind in MARKS}):
        assert len(set(words.values())) == len(words) == 2
    assert adaptation.explained([]) == ""
    assert adaptation.explained([None, "partial"]) == f"{MARKS['partial']}: the attack is {WORDS['partial']}."
    both = adaptation.explained(["partial", "exact"])
    assert both.index(MARKS["exact"]) < both.index(MARKS["partial"])


@pytest.mark.parametrize("kind", COLUMNS)
def test_an_attack_that_has_the_recipe_alone_is_said_to(kind):
    row = NO | {COLUMNS[kind]: True}
    assert (in_a_word(row), in_short(row)) == (kind, f"adapted ({kind})")
    recipe = row | {"attack_knows": "recipe"}
    assert (in_a_word(recipe), in_short(recipe)) == (f"{kind} (recipe)", f"adapted ({kind}; recipe)")
    assert (in_a_word(NO), in_short(NO)) == ("no", "")
