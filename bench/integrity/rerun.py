"""Makes a run again from its folder alone, and says whether it came out the same."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import DataError, UsageError
from bench.files import write_atomically
from bench.integrity.consistency import called
from bench.leaderboard import as_csv
from bench.leaderboard.table import build
from bench.run.folder import RunFolder
from bench.run.graph import Node
from bench.run.planning import Options, Prepared, prepare_again
from bench.run.provenance import check_files_are_there, check_weights_are_the_same, describe_methods
from bench.run.runner import execute

KEY = ("attack", "defense", "backbone", "head", "condition", "seed")
"""Columns that name a row of a leaderboard."""

MARKER = "made-by-rerun.json"
"""Lies in a store that `OwnStore` made; a folder without it is somebody else's."""


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


@dataclass(frozen=True)
class RerunOutcome:
    """What came of making a run again.

    Attributes:
        differences: every value of the leaderboard that came out otherwise.
        stored: why the run's stored ``leaderboard.csv`` is not what its own decisions give; "" where it is, or where
            there is none.
        failed: the cells that failed, with their reasons.
        made: the number of cells that did not fail.
    """

    differences: tuple[RowDifference, ...]
    stored: str
    failed: tuple[str, ...]
    made: int

    @property
    def identical(self) -> bool:
        """Whether every cell was made and nothing differs."""
        return not (self.differences or self.stored or self.failed)

    @property
    def exit_code(self) -> int:
        """0: nothing differs; 1: something does; 2: no cell could be made, so that there is nothing to compare."""
        if self.differences or self.stored:
            return 1
        return 0 if self.made else 2


@dataclass(frozen=True)
class OwnStore:
    """A store of one rerun's own, kept until the rerun is done, so that one that was killed can go on.

    Attributes:
        path: the folder.
        run: digest of the run.
    """

    path: Path
    run: str

    @classmethod
    def beside(cls, place: Path, run: str) -> "OwnStore":
        """Return the store beside the folder `place`; makes nothing.

        Raises:
            UsageError: something lies there that no rerun of this run has made.
        """
        own = cls(place.with_name(f"{place.name}-store"), run)
        if own.path.is_symlink() or (own.path.exists() and not own._is_ours()):
            raise UsageError(
                f"{own.path} is there and is not what an earlier rerun of run {run} left; it will not be touched. "
                "Choose another --out, or reuse it as it is with --store."
            )
        return own

    def _is_ours(self) -> bool:
        try:
            return bool(json.loads((self.path / MARKER).read_bytes()) == {"run": self.run})
        except (OSError, ValueError):
            return False

    def make(self) -> None:
        """Make the folder and say in it whose it is."""
        write_atomically(self.path / MARKER, json.dumps({"run": self.run}).encode())

    def remove(self) -> None:
        """Remove the folder, if it still says that a rerun of this run has made it."""
        if not self.path.is_symlink() and self._is_ours():
            shutil.rmtree(self.path, ignore_errors=True)


def checked_place(folder: RunFolder, out: Path | None) -> Path:
    """Return the folder to make a run in again: `out`, or ``RUN-rerun`` beside the run.

    Raises:
        UsageError: it is the run itself, a file, the root, or holds something else than this run.
    """
    run = folder.path.resolve()
    place = out or folder.path.parent / f"{run.name}-rerun"
    if out is None and folder.path.name in ("", ".."):
        place = run.parent / f"{run.name}-rerun"
    there = place.resolve()
    if there == run:
        raise UsageError(f"--out {out} is the run itself; choose another folder.")
    if not there.name or (there.exists() and not there.is_dir()):
        raise UsageError(f"--out {out} is no folder that a run can be made in; choose another.")
    if there.is_dir() and any(there.iterdir()) and not (there / "spec.json").exists():
        raise UsageError(f"--out {out or place} holds other files and no run; choose a new folder.")
    RunFolder(place).check_free_for(folder.facts().run)
    return place if place.name not in ("", "..") else there


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
    checked_place(folder, options.out)
    check_files_are_there(facts.methods)
    prepared = prepare_again(folder, options)
    check_weights_are_the_same(facts.methods, describe_methods(prepared.run))
    return prepared


def rerun(
    folder: RunFolder, prepared: Prepared, advance: Callable[[Node, int], None] = lambda _node, _n: None
) -> RerunOutcome:
    """Make a prepared run, write its leaderboard, and return in what it differs from the run's.

    Raises:
        StoreError: the store or the folder cannot be written.
        DataError: a file of the first run is missing or damaged.
    """
    cells = execute(prepared, advance)
    made = as_csv.write(prepared.folder)
    first = build(folder)
    failed = [f"{called(cell.cell)}: {cell.reason}" for cell in cells if cell.status != "ok"]
    return RerunOutcome(
        tuple(compare_leaderboards(first, made)),
        _stored_table(folder, first),
        tuple(failed),
        len(cells) - len(failed),
    )


def _stored_table(folder: RunFolder, leaderboard: pd.DataFrame) -> str:
    path = folder.path / "leaderboard.csv"
    try:
        if not path.is_file() or as_csv.holds(path.read_bytes().decode(), leaderboard, str(path)):
            return ""
    except (DataError, UnicodeDecodeError):
        pass  # a damaged table is another one
    return f"{path} is not what the run's own decisions and measures give; bench verify {folder.path} says where."


def compare_leaderboards(first: pd.DataFrame, second: pd.DataFrame) -> list[RowDifference]:
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
            if as_csv.as_text(one[row].get(name)) != as_csv.as_text(other[row].get(name))
        ]
    return found


def _by_row(leaderboard: pd.DataFrame) -> dict[str, dict[str, Any]]:
    rows = ({str(name): value for name, value in row.items()} for row in leaderboard.to_dict("records"))
    return {" × ".join(str(row[name]) for name in KEY if row[name] != ""): row for row in rows}


def _difference(row: str, column: str, first: Any, second: Any) -> RowDifference:
    numbers = all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and not pd.isna(value)
        for value in (first, second)
    )
    return RowDifference(
        row, column, as_csv.as_text(first), as_csv.as_text(second), float(second - first) if numbers else None
    )
