"""The performance bars: what counts as met, and the drawn run that tables are timed on."""

from pathlib import Path

import pandas as pd
import pytest

from bench.leaderboard.table import build
from benchmarks.bars import BARS, _stream, keep
from benchmarks.bars_table import MEASURED, markdown, read
from benchmarks.drawn_run import draw, matrix, plan
from benchmarks.ratios import amount, interleaved, ratio, summary


@pytest.mark.parametrize(
    ("values", "how", "verdict"),
    [
        ([1.0, 1.01, 1.02], {"most": 1.03}, "met"),
        ([1.2, 1.21, 1.22], {"most": 1.03}, "short"),
        ([1.0, 1.02, 1.2], {"most": 1.03}, "open"),
        ([1.9, 1.85, 1.95], {"least": 1.8}, "met"),
        ([1.5, 1.6, 1.7], {"least": 1.8}, "short"),
    ],
)
def test_a_bar_is_met_where_its_interval_says_so(values, how, verdict):
    assert ratio("loop", "one / other", values, **how).verdict == verdict


def test_one_measurement_is_judged_by_its_value():
    assert [amount("start", "help", value, "s", most=0.2).verdict for value in (0.1, 0.3)] == ["met", "short"]
    assert amount("start", "help", 0.1, "s").verdict == "—"


def test_ratios_are_of_runs_in_turn():
    calls = []
    values = interleaved(lambda: calls.append("a"), lambda: calls.append("b"), 3)
    assert calls == ["a", "b"] * 4
    assert len(values) == 3


def test_the_interval_holds_the_median():
    value, low, high = summary([1.0, 2.0, 3.0, 4.0, 5.0])
    assert low <= value == 3 <= high


def test_every_bar_has_its_name():
    assert set(BARS) == {
        "start",
        "loop",
        "peers",
        "padding",
        "adding",
        "tables",
        "answers",
        "memory",
        "engines",
        "cores",
        "purifier",
    }


def test_measuring_again_takes_the_place_of_what_was_there(tmp_path):
    table = tmp_path / "bars.csv"
    keep(table, "start", [amount("start", "help", 0.3, "s", most=0.2), amount("start", "list", 0.1, "s")])
    keep(table, "loop", [ratio("attack loop", "a / b", [1.0, 1.01, 1.02], most=1.03, note="one thread")])
    keep(table, "start", [amount("start", "help", 0.1, "s", most=0.2)])
    assert [(row["name"], row["what"], row["verdict"]) for row in read(table)] == [
        ("start", "help", "met"),
        ("loop", "a / b", "met"),
    ]
    assert list(markdown(read(table)))[2:] == [
        "| start | help | 0.1 s | ≤ 0.2 | met |",
        "| attack loop | a / b | 1.01 [1, 1.02] × | ≤ 1.03 | met |",
    ]


def test_the_page_has_the_table_that_was_measured():
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    assert "\n".join(markdown(read(MEASURED))) in page


def test_a_drawn_run_is_one_that_tables_can_be_made_of(tmp_path):
    prepared = plan(matrix(2, 3, 8), tmp_path / "run")
    table = build(draw(prepared))
    assert len(table) == len(prepared.run.cells) == 12
    assert set(table["status"]) == {"ok"}
    assert table["asr"].between(0, 1).all()
    pd.testing.assert_frame_equal(table, build(draw(prepared)))


@pytest.mark.system
def test_a_stream_of_faces_says_what_it_took_and_what_lies_on_disk():
    found = _stream(100)
    assert found.pop("seconds") > 0
    assert found.pop("peak") > 100
    assert found.pop("a decision") < 500
    assert found.pop("an embedding") > 4 * 128
    assert found.pop("a crop") > 3 * 112**2 < found.pop("a cloak")
    assert found.pop("a cell besides its decisions") > 500
    assert not found
