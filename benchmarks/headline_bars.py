"""Hold the headline's tables against the paper's claim and the bars: met, short or open by the interval.

    python -m benchmarks.headline_bars results/headline

prints the table of docs/headline.md. What lives here: the bars, and which row of `bench table means` each is about.
What must not: any rate or interval of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.comparison_groups import EVERY
from bench.leaderboard.significance_tables import to_markdown
from bench.stats.criteria import verdict

PAPER_UNDEFENDED, PAPER_DEFENDED = 0.6984, 0.0761
"""ASR without and with PuFace (arXiv 2406.02253, abstract)."""

TRAINED = 0.01
"""ASR at most against attacks that the purifier was trained on."""

TABLES = {
    "published": "published",
    "strong": "strong",
    "published w/o v3": "published-without-v3",
    "strong w/o v3": "strong-without-v3",
}
"""What the cloaks are called → the table's name."""

ALONE = {"fawkes": "puface:train=lowkey", "lowkey": "puface:train=fawkes"}
"""Attack → the purifier that never saw it."""


@dataclass(frozen=True)
class Bar:
    """One bar on one table and head: the rate with its interval, and what is asked of it."""

    what: str
    low: float
    value: float
    high: float
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        """What is asked, in per cent."""
        sign, bound = ("≥", self.least) if self.most is None else ("≤", self.most)
        assert bound is not None
        return f"{sign} {100 * bound:g}"

    @property
    def verdict(self) -> str:
        """Whether it is met, by the interval."""
        if self.most is not None:
            return verdict(self.low, self.high, most=self.most)
        return verdict(self.low, self.high, least=self.least)


def bars(table: pd.DataFrame) -> Iterator[Bar]:
    """Yield the bars on ASR of one head.

    Args:
        table: rows of `bench table means` of one head.
    """
    for what, defense, bounds in (
        ("undefended", "none", {"least": PAPER_UNDEFENDED}),
        ("`puface`, trained on both", "puface", {"most": TRAINED}),
        ("`puface`, trained on both", "puface", {"most": PAPER_DEFENDED}),
    ):
        yield _bar(what, _row(table, EVERY, defense), bounds)
    unseen = [_row(table, _attack(table, attack), defense) for attack, defense in ALONE.items()]
    # Two rates of the same identities: the mean of their ends is not too narrow, whatever they have in common.
    mean = {name: sum(row[name] for row in unseen) / len(unseen) for name in ("asr", "asr_low", "asr_high")}
    yield _bar("not trained on it, mean of the two", mean, {"most": PAPER_DEFENDED})
    siblings = _row(table, EVERY, "puface:features=real-siblings")
    yield _bar("extractors that nobody else uses", siblings, {"most": PAPER_DEFENDED})


def held(folder: Path) -> pd.DataFrame:
    """Return every bar of the headline's tables, with ``met``, ``short`` or ``open``.

    Args:
        folder: with the tables that docs/headline.md names.
    """
    rows = []
    for cloaks, name in TABLES.items():
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])
        for head, own in table.groupby("head", sort=False):
            rows += [
                {
                    "bar": bar.what,
                    "cloaks": cloaks,
                    "head": head,
                    "ASR, per cent [95 %]": f"{100 * bar.value:.1f} [{100 * bar.low:.1f}, {100 * bar.high:.1f}]",
                    "wanted": bar.wanted,
                    "": bar.verdict,
                }
                for bar in bars(own)
            ]
    return pd.DataFrame(rows).sort_values("bar", kind="stable", key=lambda column: column.map(_order(column)))


def _order(column: pd.Series[Any]) -> dict[Any, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(column))}


def _bar(what: str, row: Any, bounds: dict[str, float]) -> Bar:
    return Bar(what, *(float(row[name]) for name in ("asr_low", "asr", "asr_high")), **bounds)


def _row(table: pd.DataFrame, against: str, defense: str) -> Any:
    (found,) = table[(table["against"] == against) & (table["defense"] == defense)].to_dict("records")
    return found


def _attack(table: pd.DataFrame, name: str) -> str:
    (found,) = {one for one in table["against"] if str(one).partition(":")[0] == name}
    return str(found)


def main() -> None:
    """Print the bars."""
    parser = argparse.ArgumentParser(description="Hold the headline's tables against their bars.")
    parser.add_argument("folder", type=Path, help="results/headline")
    print(to_markdown(held(parser.parse_args().folder)), end="")


if __name__ == "__main__":
    main()
