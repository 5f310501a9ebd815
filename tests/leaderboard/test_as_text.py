"""Tables for a terminal: what fits into a width, and what is said of the rest."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.leaderboard.as_csv import from_csv, to_csv
from bench.leaderboard.as_text import TextColumn, fit, of_leaderboard, texts
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.summary import MISSING, SummaryField, without_effect

PLAIN = {
    "dataset": "tiny", "protocol": "tracker", "attack": "fog", "defense": "none", "backbone": "net-a", "head": "nn",
    "condition": "", "seed": 0, "requested": True, "status": "ok", "n_identities": 20, "n_probes": 40,
    "asr": 0.5, "asr_low": 0.4, "asr_high": 0.6, "baseline_error": 0.01, "defended_baseline_error": 0.01,
    "normal_accuracy": 0.99, "normal_accuracy_low": 0.95, "normal_accuracy_high": 1.0, "recovery": 0.25,
    "cloak_psnr": 31.26, "cloak_unchanged": 0.0, "access": "black-box", "p_holm": 0.001, "benchmark_version": "1",
    "extractor_is_tracker": False, "related": False, "extractors_are_surrogates": False,
    "attack_adapts_to_defense": False, "attack_adapts_in_part": False, "external": False,
}  # fmt: skip

USUAL = ("fawkes", "lowkey", "my-cloak", "pgd:eps=15,goal=targeted")
DEFENSES = ("none", "jpeg:quality=75", "puface")


def leaderboard_of(*rows):
    table = pd.DataFrame([PLAIN | row for row in rows], columns=list(COLUMNS))
    return from_csv(to_csv(table), "the test's")


def usual(**more):
    """Return a leaderboard with the names a first week brings, references included."""
    rows = [
        {"attack": attack, "defense": defense, "asr": (i + 3 * j) / 100, "recovery": (i + j) / 10, **more}
        for i, attack in enumerate(("none", *USUAL))
        for j, defense in enumerate(DEFENSES)
    ]
    for row in rows:
        if row["attack"] == "none":
            row |= {"access": None, "recovery": None, "cloak_psnr": None}
    return leaderboard_of(*rows)


def shown(table):
    return [column.name for column in table.columns]


def test_usual_names_are_whole_on_one_line_at_80_columns():
    table = fit(of_leaderboard(usual()), 80)
    assert table.width() <= 80
    names = [str(field) for field in table.columns[0].fields]
    assert set(names) == {"none", *USUAL}
    assert names[-3:] == ["none"] * 3  # what a reader came for stands on top
    assert {"attack", "defense", "ASR"} <= set(shown(table))


def test_what_all_rows_share_is_said_once():
    table = fit(of_leaderboard(usual()), 200)
    assert table.same == ("backbone net-a", "head nn", "seed 0", "access black-box", "status ok")
    assert not {"backbone", "head", "seed", "access", "status", "condition"} & set(shown(table))


def test_what_differs_is_a_column():
    board = leaderboard_of({}, {"head": "linear", "status": "failed", "asr": None, "reason": "it broke"})
    table = fit(of_leaderboard(board), 80)
    assert {"head", "status"} <= set(shown(table))
    assert [str(field) for field in table.columns[shown(table).index("ASR")].fields][1] == MISSING


def test_a_wide_terminal_shows_intervals_and_a_narrow_one_says_that_it_does_not():
    columns = of_leaderboard(usual())
    wide, narrow = fit(columns, 140), fit(columns, 60)
    assert any("[40.0, 60.0]" in str(field) for column in wide.columns for field in column.fields)
    assert "[95 %]" in " ".join(column.title() for column in wide.columns)
    assert not wide.intervals
    assert not any("[" in str(field) for column in narrow.columns for field in column.fields)
    assert narrow.intervals
    assert fit(columns, None) == wide


def test_columns_go_where_there_is_no_room_and_are_named():
    table = fit(of_leaderboard(usual()), 50)
    assert table.width() <= 50
    assert set(table.no_room) & {"cloak PSNR", "recovery", "normal accuracy"}
    assert not set(table.no_room) & set(shown(table))


def test_a_column_without_a_value_is_left_out():
    assert "recovery" not in shown(fit(of_leaderboard(leaderboard_of({"recovery": None})), 200))


def test_a_zero_has_no_sign():
    (column,) = (c for c in of_leaderboard(leaderboard_of({"recovery": -0.0001})) if c.name == "recovery")
    assert str(column.fields[0]) == "0.0"


NAMES = st.lists(st.text("abc:=,", min_size=1, max_size=30), min_size=1, max_size=5)


@given(names=NAMES, width=st.integers(20, 150))
def test_a_table_fits_unless_what_must_stay_does_not(names, width):
    values = tuple(
        SummaryField("1.0", 1.0, "[0.5, 1.5]") if i % 2 else SummaryField("2.0", 2.0)
        for i, _ in enumerate(names)
    )
    columns = [
        TextColumn("name", "name", texts(names), says="always"),
        TextColumn("rate", "rate", values, numeric=True, ends=1),
        TextColumn("more", "more", texts(f"{i}" for i, _ in enumerate(names)), ends=0),
    ]
    table = fit(columns, width)
    least = TextColumn("name", "name", texts(names)).width()
    assert table.width() <= max(width, least)
    assert [str(field) for field in table.columns[0].fields] == names
    left_out = {column.name for column in columns} - set(shown(table))
    said = {part.partition(" ")[0] for part in table.same} | set(table.no_room)
    assert left_out <= said


# -- attacks that do nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"asr": 0.01}, "No effect"),
        ({"asr": 0.0}, "No effect"),
        ({"asr": 0.01, "cloak_unchanged": 1.0}, "No photo changed"),
        ({"asr": 0.05, "p_holm": 0.4}, "No significant effect"),
        ({"asr": 0.05, "p_holm": None}, "No significant effect"),
        ({"asr": 0.5}, ""),
        ({"asr": None}, ""),
        ({"attack": "none", "asr": 0.01}, ""),
        ({"defense": "jpeg", "asr": 0.01}, ""),
    ],
)
def test_an_attack_without_effect_is_named(row, kind):
    found = without_effect(leaderboard_of(row))
    assert [sentence.partition(":")[0] for sentence in found] == ([kind] if kind else [])


def test_an_attack_that_works_on_one_tracker_has_an_effect():
    assert without_effect(leaderboard_of({"asr": 0.01}, {"backbone": "net-b"})) == []


def test_attacks_of_a_kind_share_a_sentence_with_their_rates():
    rows = ({"asr": 0.01}, {"attack": "mist", "asr": 0.0}, {"attack": "storm", "asr": 0.9})
    assert without_effect(leaderboard_of(*rows)) == [
        "No effect: fog, mist. ASR without a defence 0.0 to 1.0 %, without any cloak 1.0 %: no defence can be judged "
        "by it."
    ]
