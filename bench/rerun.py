"""Makes a run again from its folder alone, and says whether it came out the same."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench import leaderboard
from bench.errors import UsageError
from bench.graph import Node
from bench.provenance import check_files_are_there, check_weights_are_the_same, describe_methods
from bench.run_folder import RunFolder
from bench.runner import Options, Prepared, execute
from bench.verify import prepare_again

KEY = ("attack", "defense", "backbone", "head", "condition", "seed")
"""Columns that name a row of a leaderboard."""


@dataclass(frozen=True)
class RowDifference:
    """A value of the leaderboard that came out otherwise.

    Attributes:
        row: attack, defence, backbone, head, condition and seed, joined.
        column: which value; "" where the whole row is in one of the two only.
        first: the value of the run, as text.
        second: the value of the run made again.
        difference: second − first for numbers, else None.
    """

    row: str
    column: str
    first: str
    second: str
    difference: float | None = None


def prepare_rerun(folder: RunFolder, options: Options) -> Prepared:
    """Prepare to make a run again, and check that everything it was made with is here.

    Args:
        folder: a finished run.
        options: out and store for the run made again; device and threads as in `prepare_again`.

    Raises:
        UsageError: the new folder is the run's own, or a method is not installed.
        DataError: a plugin's file, weights or photos are missing or others than then.
    """
    facts = folder.facts()
    folder.cells()
    if options.out is not None and options.out.resolve() == folder.path.resolve():
        raise UsageError(f"--out {options.out} is the run itself; choose another folder.")
    check_files_are_there(facts.methods)
    prepared = prepare_again(folder, options)
    check_weights_are_the_same(facts.methods, describe_methods(prepared.run))
    return prepared


def rerun(
    folder: RunFolder, prepared: Prepared, advance: Callable[[Node, int], None] = lambda _node, _n: None
) -> list[RowDifference]:
    """Make a prepared run, write its leaderboard, and return in what it differs from the run's; [] if in nothing.

    Raises:
        StoreError: the store or the folder cannot be written.
        DataError: a file of the first run is missing or damaged.
    """
    execute(prepared, advance)
    made = leaderboard.build(prepared.folder)
    prepared.folder.write_bytes("leaderboard.csv", leaderboard.to_csv(made).encode())
    prepared.folder.write_manifest()
    return compare_boards(leaderboard.build(folder), made)


def compare_boards(first: pd.DataFrame, second: pd.DataFrame) -> list[RowDifference]:
    """Return every value in which two leaderboards differ; numbers are compared as the CSV shows them."""
    one, other = _by_row(first), _by_row(second)
    found = []
    for row in dict.fromkeys((*one, *other)):
        if row not in one or row not in other:
            here, there = ("there", "absent") if row in one else ("absent", "there")
            found.append(RowDifference(row, "", here, there))
            continue
        columns = dict.fromkeys((*one[row], *other[row]))
        found += [
            _difference(row, name, one[row].get(name), other[row].get(name))
            for name in columns
            if _as_text(one[row].get(name)) != _as_text(other[row].get(name))
        ]
    return found


def _by_row(board: pd.DataFrame) -> dict[str, dict[str, Any]]:
    rows = ({str(name): value for name, value in row.items()} for row in board.to_dict("records"))
    return {" × ".join(str(row[name]) for name in KEY if row[name] != ""): row for row in rows}


def _difference(row: str, column: str, first: Any, second: Any) -> RowDifference:
    numbers = all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and not pd.isna(value)
        for value in (first, second)
    )
    return RowDifference(
        row, column, _as_text(first), _as_text(second), float(second - first) if numbers else None
    )


def _as_text(value: Any) -> str:
    if value is None or pd.isna(value):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def default_folder(folder: RunFolder) -> Path:
    """Return where a run is made again unless another folder is named: beside it."""
    path = folder.path.resolve()
    return (
        folder.path.parent / f"{path.name}-rerun" if folder.path.name else path.parent / f"{path.name}-rerun"
    )
