"""The bars of the headline: decided by intervals, and the page shows what the tables give."""

from pathlib import Path

import pandas as pd
import pytest

from bench.analysis.comparison_groups import EVERY
from bench.leaderboard.significance_tables import to_markdown
from benchmarks.headline_bars import TABLES, Bar, bars, held

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("ends", "bounds", "wanted", "expected"),
    [
        ((0.679, 0.699, 0.718), {"least": 0.6984}, "≥ 69.84", "open"),
        ((0.7, 0.72, 0.74), {"least": 0.6984}, "≥ 69.84", "met"),
        ((0.005, 0.008, 0.013), {"most": 0.01}, "≤ 1", "open"),
        ((0.054, 0.063, 0.075), {"most": 0.01}, "≤ 1", "short"),
    ],
)
def test_a_bar_is_held_by_the_interval_not_by_the_rate(ends, bounds, wanted, expected):
    bar = Bar("some", *ends, **bounds)
    assert (bar.wanted, bar.verdict) == (wanted, expected)


def test_every_bar_is_about_its_row():
    rates = {
        (EVERY, "none"): 0.7, (EVERY, "puface"): 0.06, (EVERY, "puface:features=real-siblings"): 0.25,
        ("fawkes:budget=1", "puface:train=lowkey"): 0.02, ("lowkey", "puface:train=fawkes"): 0.24,
        ("lowkey", "puface:train=lowkey"): 0.5,
    }  # fmt: skip
    table = pd.DataFrame(
        [
            {
                "against": attack,
                "defense": defense,
                "asr": rate,
                "asr_low": rate - 0.01,
                "asr_high": rate + 0.01,
            }
            for (attack, defense), rate in rates.items()
        ]
    )
    found = [(bar.what, round(bar.value, 4), bar.verdict) for bar in bars(table)]
    assert found == [
        ("undefended", 0.7, "open"),
        ("`puface`, trained on both", 0.06, "short"),
        ("`puface`, trained on both", 0.06, "met"),
        ("not trained on it, mean of the two", 0.13, "short"),
        ("extractors that nobody else uses", 0.25, "short"),
    ]


def test_the_page_shows_what_the_committed_tables_give():
    table = held(ROOT / "results" / "headline")
    assert len(table) == 5 * 2 * len(TABLES)
    assert set(table[""]) <= {"met", "short", "open"}
    assert to_markdown(table) in (ROOT / "docs" / "headline.md").read_text(encoding="utf-8")
