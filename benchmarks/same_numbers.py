"""Compare two folders of one run, made by two versions: every decision and every number of the leaderboard.

    python -m benchmarks.same_numbers BEFORE AFTER [--markdown]

Columns that were renamed are compared under their new name. Texts (reasons, warnings) and digests may differ between
versions; they are listed, and only a number or a decision makes the exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

RENAMED = {
    "asked": "requested",
    "mdd": "minimum_detectable_difference",
    "background_overlap": "impostor_overlap",
    "threshold_people": "threshold_identities",
}
CELL = ["attack", "defense", "backbone", "head"]
SHOWN = {"asr": "ASR %", "normal_accuracy": "normal accuracy %", "recovery": "recovery %"}


def read(run: Path) -> pd.DataFrame:
    """Return a leaderboard's fields as they are written, under today's names of columns."""
    table = pd.read_csv(run / "leaderboard.csv", dtype=str, keep_default_na=False)
    return table.rename(columns=RENAMED).drop(columns="run")


def different_columns(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, bool]:
    """Return each column that differs → whether it holds numbers."""
    shared = [name for name in before if name in after and not before[name].equals(after[name])]
    return {name: bool(pd.to_numeric(before[name], errors="coerce").notna().any()) for name in shared}


def different_decisions(before: Path, after: Path) -> list[str]:
    """Return the cells' files of decisions whose rows differ, or that only one run has."""
    files = {path.name for run in (before, after) for path in (run / "decisions").glob("*.parquet")}
    return [
        name for name in sorted(files) if not _same(before / "decisions" / name, after / "decisions" / name)
    ]


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and pd.read_parquet(one).equals(pd.read_parquet(other))


def markdown(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Return the rates of both, a row a cell, ``before → after``."""

    def percent(value: str) -> str:
        return f"{100 * float(value):.1f}" if value else "NA"

    lines = ["| " + " | ".join([*CELL, *SHOWN.values()]) + " |", "|---|---|---|---|" + "---:|" * len(SHOWN)]
    for old, new in zip(before.to_dict("records"), after.to_dict("records"), strict=True):
        rates = [f"{percent(old[name])} → {percent(new[name])}" for name in SHOWN]
        lines.append("| " + " | ".join([*(new[name] for name in CELL), *rates]) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print what differs; return 1 where a number or a decision does."""
    parser = argparse.ArgumentParser(description="Compare two folders of one run, made by two versions.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print the rates of both as a table too")
    given = parser.parse_args()
    before, after = read(given.before), read(given.after)
    columns, decisions = different_columns(before, after), different_decisions(given.before, given.after)
    compared = len(list((given.after / "decisions").glob("*.parquet")))
    print(f"{len(before)} rows, {compared} files of decisions; files that differ: {len(decisions)}")
    print(f"columns that differ: {', '.join(columns) or 'none'}; of numbers: {sum(columns.values())}")
    if given.markdown:
        print(markdown(before, after))
    return int(bool(decisions) or any(columns.values()))


if __name__ == "__main__":
    sys.exit(main())
