"""Are a submission's rows what its decisions give? Those it names by digest, and the rates made from them again.

What lives here: the archive of decisions, how it is held against a record, and the comparison of rows. What must not:
what a submission must pass (`bench.publish.submission`), and what can be told without decisions
(`bench.leaderboard.plausible`).
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from bench.analysis.reference_tests import reference_tests
from bench.analysis.results import Results
from bench.contracts import Decided
from bench.errors import DataError
from bench.leaderboard.as_csv import as_text
from bench.leaderboard.table import rates_of
from bench.printable import printable
from bench.run import decision_files
from bench.run.folder import CellResult, RunFacts, RunFolder, decisions_file
from bench.run.spec import Cell, RunSpec

ENDING = ".decisions.zip"
"""What the archive beside a record is called after the run's digest."""

LARGEST = 25_000_000
"""Bytes of an archive, and of all files in one. Those of 224 cells of 158 identities take about 10,000,000."""

_SLACK = 2e-6
"""By how much two numbers of one rate may differ: a table is written with six digits."""


@dataclass(frozen=True)
class Difference:
    """A value of a submission that its decisions do not give.

    Attributes:
        row: attack, defence, backbone, head, seed and condition, joined.
        column: which value.
        submitted: as the table has it.
        made: as the decisions give it.
    """

    row: str
    column: str
    submitted: str
    made: str


def digests(folder: RunFolder, cells: Sequence[CellResult]) -> dict[str, str]:
    """Return the name of each finished cell's file of decisions → its SHA-256.

    Raises:
        DataError: a file is missing, or is not what the run wrote.
    """
    named = (cell.decisions for cell in cells if cell.decisions)
    return {Path(name).name: sha256(folder.content(name)).hexdigest() for name in sorted(named)}


def archive(folder: RunFolder, cells: Sequence[CellResult]) -> bytes:
    """Return all files of decisions as one ZIP file; the same files give the same bytes, anywhere.

    Raises:
        DataError: a file is missing, or they are more than `LARGEST` bytes.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as whole:  # Parquet files are compressed
        for name in sorted(cell.decisions for cell in cells if cell.decisions):
            whole.writestr(zipfile.ZipInfo(Path(name).name), folder.content(name))
    if made.tell() > LARGEST:
        raise DataError(
            f"the decisions of {folder.path} take {made.tell():,} bytes, and beside a record may lie {LARGEST:,}. "
            "Put them elsewhere, and say where with --decisions."
        )
    return made.getvalue()


def read_files(path: Path, record: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of decisions that a record names, checked against its digests.

    Args:
        path: an archive, a folder of the files, or a run's folder.
        record: of the submission.

    Raises:
        DataError: the record names none, or a file is missing or another one.
    """
    wanted: Mapping[str, str] = record.get("decisions") or {}
    if not wanted:
        raise DataError(
            "the record names no decisions: it was written before records did. Submit the run again; its rows cannot "
            "be checked without."
        )
    found = _in_folder(path, wanted) if path.is_dir() else _in_archive(path, wanted)
    for name, digest in wanted.items():
        if name not in found:
            raise DataError(f"'{path}' lacks {name}, which the record names.")
        if sha256(found[name]).hexdigest() != digest:
            raise DataError(f"{name} in '{path}' is not what was submitted: its SHA-256 is not the record's.")
    return found


def _in_folder(path: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    inside = path / "decisions" if (path / "decisions").is_dir() else path
    try:
        return {name: (inside / name).read_bytes() for name in wanted if (inside / name).is_file()}
    except OSError as error:
        raise DataError(f"cannot read decisions in '{path}': {error.strerror}.") from None


def _in_archive(path: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as whole:
            inside = {entry.filename: entry for entry in whole.infolist()}
            if sum(entry.file_size for entry in inside.values()) > LARGEST:
                raise DataError(f"'{path}' holds more than {LARGEST:,} bytes; decisions take less.")
            return {name: whole.read(inside[name]) for name in wanted if name in inside}
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"'{path}' is no archive of decisions ({printable(str(error), 200)}).") from None


def differences(
    record: Mapping[str, Any], leaderboard: pd.DataFrame, files: Mapping[str, bytes]
) -> list[Difference]:
    """Return every value of a submission's table that its decisions do not give.

    Compared are counts, rates with their intervals, baselines, recoveries, thresholds and tests against the reference.
    Ranks, image measures and threat models are not made of decisions alone.

    Args:
        record: of the submission.
        leaderboard: its table.
        files: its decisions (`read_files`).

    Raises:
        DataError: a file holds no decisions, or another cell's.
    """
    results = _results(record, leaderboard, files)
    tests = reference_tests(results, leaderboard)
    found = list(_number_of_rows(results, leaderboard))
    for number, (_, row) in enumerate(leaderboard.iterrows()):
        point, condition = _cell(row), str(row["condition"])
        given = rates_of(results, point, condition)
        made = given | {name: values[number] for name, values in tests.items()} if given else {}
        found += [
            Difference(_called(point, condition), name, as_text(row[name]), as_text(made.get(name)))
            for name in _NUMBERS
            if name in leaderboard.columns and not _same(row[name], made.get(name))
        ]
    return found


_NUMBERS = (
    *("n_identities", "n_probes", "asr", "asr_low", "asr_high", "asr_pooled"),
    *("normal_accuracy", "normal_accuracy_low", "normal_accuracy_high", "normal_accuracy_pooled"),
    *("baseline_error", "defended_baseline_error", "recovery", "recovery_low", "recovery_high"),
    *("threshold", "threshold_rate", "threshold_rate_measured", "threshold_rate_low", "threshold_rate_high"),
    *("threshold_pairs", "threshold_identities"),
    *("p", "p_holm", "effect_h", "minimum_detectable_difference"),
)


@dataclass
class _Submitted(Results):
    """The results of a submission, whose decisions are given."""

    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    restored: frozenset[str] = frozenset()

    def decided(self, point: Cell) -> Decided | None:
        """Return a cell's decisions, None where it failed."""
        cell = self.cells.get(point)
        if cell is None or not cell.decisions:
            return None
        if point not in self._read:
            data, name = self.files[cell.decisions], decision_files.name_of(point, self.facts.spec)
            self._read[point] = decision_files.from_bytes(data, cell.decisions, name)
        return self._read[point]

    def ranked_conditions(self) -> tuple[str, ...]:
        """Return the conditions under which nothing was restored."""
        return tuple(name for name in self.conditions() if name not in self.restored)


def _results(record: Mapping[str, Any], leaderboard: pd.DataFrame, files: Mapping[str, bytes]) -> _Submitted:
    try:
        spec = RunSpec.model_validate_json(json.dumps(record["spec"]))
    except (KeyError, ValidationError):
        raise DataError("the record has no specification that can be read. Submit the run again.") from None
    facts = RunFacts(run=str(record.get("run", "")), requested=spec, spec=spec)
    cells = {}
    for _, row in leaderboard.iterrows():
        point, name = _cell(row), Path(decisions_file(_cell(row))).name
        named = name if name in files else ""
        if row["status"] == "ok" and not named:
            raise DataError(f"the record names no decisions of {_called(point)}, which the table has.")
        cells[point] = CellResult.model_construct(**point._asdict(), status=row["status"], decisions=named)
    restored = leaderboard.loc[leaderboard["restored_psnr"].notna(), "condition"]
    return _Submitted(RunFolder(Path()), facts, cells, files=files, restored=frozenset(restored))


def _number_of_rows(results: _Submitted, leaderboard: pd.DataFrame) -> Iterator[Difference]:
    """Tell where a cell has other conditions in the table than in its decisions."""
    there: dict[Cell, set[str]] = {}
    for _, row in leaderboard.iterrows():
        there.setdefault(_cell(row), set()).add(str(row["condition"]))
    for point, conditions in there.items():
        decided = results.decided(point)
        if decided is not None and conditions != {*decided.conditions}:
            said = (", ".join(sorted(some)) for some in (conditions, decided.conditions))
            yield Difference(_called(point), "condition", *said)


def _cell(row: pd.Series[Any]) -> Cell:
    attack, defense, backbone, head = (str(row[name]) for name in ("attack", "defense", "backbone", "head"))
    return Cell(attack, defense, backbone, head, int(row["seed"]))


def _called(point: Cell, condition: str = "") -> str:
    return printable(" × ".join(filter(None, [*map(str, point), condition])), 300)


def _same(submitted: Any, made: Any) -> bool:
    one, other = (None if value is None or pd.isna(value) else float(value) for value in (submitted, made))
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _SLACK * max(1.0, abs(one))
