"""Are a submission's rows what its decisions give? Those it names by digest, and the rates made from them again.

What lives here: the archive of decisions, how it is held against a record, and the comparison of rows. What must not:
what a submission must pass (`bench.publish.submission`), and what can be told without decisions
(`bench.leaderboard.plausible`).
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from bench.analysis.reference_tests import reference_tests
from bench.analysis.results import Results
from bench.analysis.worst_case import worst_columns
from bench.errors import DataError
from bench.leaderboard import decision_archive
from bench.leaderboard.as_csv import as_text
from bench.leaderboard.table import rates_of
from bench.printable import printable
from bench.run import decision_files
from bench.run.decisions import CodedTable
from bench.run.folder import CellResult, RunFacts, RunFolder, decisions_file
from bench.run.spec import Cell, RunSpec, cells

ENDING = ".decisions.zip"
"""What the archive beside a record is called after the run's digest."""

LARGEST = 25_000_000
"""Bytes of an archive beside a record, and of all files in it.

Those of 224 cells of 158 identities take about 10,000,000.
"""

LARGEST_ELSEWHERE = 2_000_000_000
"""The same of decisions that lie elsewhere and are checked by hand: they are held in memory."""

_MOST_CELLS = 1_000_000
"""Cells of a record's specification; so many are no run's, and listing them takes a minute."""

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


def read_files(path: Path, record: Mapping[str, Any], largest: int | None = None) -> dict[str, bytes]:
    """Return the files of decisions that a record names, checked against its digests.

    Args:
        path: an archive, a folder of the files, or a run's folder.
        record: of the submission.
        largest: bytes of all of them; None for `LARGEST`.

    Raises:
        DataError: the record names none, or a file is missing or another one, or they are too large.
    """
    largest = LARGEST if largest is None else largest
    wanted: Mapping[str, str] = record.get("decisions") or {}
    if not wanted:
        raise DataError(
            "the record names no decisions: it was written before records did. Submit the run again; its rows cannot "
            "be checked without."
        )
    read = _in_folder if path.is_dir() else decision_archive.read
    found = read(path, wanted, largest)
    for name, digest in wanted.items():
        if name not in found:
            raise DataError(f"'{path}' lacks {name}, which the record names.")
        if sha256(found[name]).hexdigest() != digest:
            raise DataError(f"{name} in '{path}' is not what was submitted: its SHA-256 is not the record's.")
    return found


def _in_folder(path: Path, wanted: Collection[str], largest: int) -> dict[str, bytes]:
    inside = path / "decisions" if (path / "decisions").is_dir() else path
    try:
        there = [inside / name for name in wanted if (inside / name).is_file()]
        if sum(file.stat().st_size for file in there) > largest:
            raise decision_archive.too_large(inside, largest)
        return {file.name: file.read_bytes() for file in there}
    except OSError as error:
        raise DataError(f"cannot read decisions in '{path}': {error.strerror}.") from None


def differences(
    record: Mapping[str, Any], leaderboard: pd.DataFrame, files: Mapping[str, bytes]
) -> list[Difference]:
    """Return every value of a submission's table that its decisions do not give, and every cell it lacks.

    Compared are counts, rates with their intervals, baselines, recoveries, thresholds and tests against the reference.
    Ranks, image measures and threat models are not made of decisions alone. Each cell of the record's specification
    must have rows, and each must be ``ok``: a run that is not complete is not submitted.

    Args:
        record: of the submission.
        leaderboard: its table.
        files: its decisions (`read_files`).

    Raises:
        DataError: a file holds no decisions, more than a run has, or another cell's.
    """
    decision_files.check_sizes(files)
    results = _results(record, leaderboard, files)
    made_of_all = {**reference_tests(results, leaderboard), **worst_columns(results, leaderboard)}
    compared = [*_NUMBERS, *(_WORST if leaderboard["asr_worst"].notna().any() else ())]
    found = [*_completeness(results, leaderboard, record), *_number_of_rows(results, leaderboard)]
    for number, (_, row) in enumerate(leaderboard.iterrows()):
        point, condition = _cell(row), str(row["condition"])
        given = rates_of(results, point, condition)
        made = given | {name: values[number] for name, values in made_of_all.items()} if given else {}
        found += [
            Difference(_called(point, condition), name, as_text(row[name]), as_text(made.get(name)))
            for name in compared
            if name in leaderboard.columns and not _same(name, row[name], made.get(name))
        ]
    return found


_NUMBERS = (
    *("n_identities", "n_probes", "asr", "asr_low", "asr_high", "asr_pooled"),
    *("normal_accuracy", "normal_accuracy_low", "normal_accuracy_high", "normal_accuracy_pooled"),
    *("baseline_error", "defended_baseline_error", "recovery", "recovery_low", "recovery_high"),
    *("threshold", "threshold_rate", "threshold_rate_measured", "threshold_rate_low", "threshold_rate_high"),
    *("threshold_pairs", "threshold_identities"),
    *("gallery_cloaked", "gallery_cloaked_low", "gallery_cloaked_high"),
    *("gallery_missed", "gallery_missed_low", "gallery_missed_high"),
    *("probes_missed", "probes_missed_low", "probes_missed_high"),
    *("p", "p_holm", "effect_h", "minimum_detectable_difference"),
)

_WORST = ("asr_worst", "asr_worst_low", "asr_worst_high", "worst_over", "worst_of", "worst_attack_asr")
"""Columns of the worst case; a table of an earlier version has none of them."""


# Known up to chance alone: random numbers are drawn for them, others in another version.
_P = ("p", "p_holm")
_P_SLACK = 0.15  # of the larger one
_LEAST_P = 2e-4  # below it p values are as good as the same
_RECOVERY_ENDS = ("recovery_low", "recovery_high")
_RECOVERY_SLACK = 0.1


@dataclass
class _Submitted(Results):
    """The results of a submission, whose decisions are given."""

    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    restored: frozenset[str] = frozenset()

    def _coded_of(self, cell: CellResult) -> CodedTable:
        """Read a cell's decisions."""
        name = decision_files.name_of(cell.cell, self.facts.spec)
        return decision_files.coded_from_bytes(self.files[cell.decisions], cell.decisions, name)

    def ranked_conditions(self) -> tuple[str, ...]:
        """Return the conditions under which nothing was restored."""
        return tuple(name for name in self.conditions() if name not in self.restored)


def _results(record: Mapping[str, Any], leaderboard: pd.DataFrame, files: Mapping[str, bytes]) -> _Submitted:
    try:
        spec = RunSpec.model_validate_json(json.dumps(record["spec"]))
    except (KeyError, ValidationError):
        raise DataError("the record has no specification that can be read. Submit the run again.") from None
    facts = RunFacts(run=str(record.get("run", "")), requested=spec, spec=spec)
    there = {}
    for _, row in leaderboard.iterrows():
        point, name = _cell(row), Path(decisions_file(_cell(row))).name
        named = name if name in files else ""
        if row["status"] == "ok" and not named:
            raise DataError(f"the record names no decisions of {_called(point)}, which the table has.")
        there[point] = CellResult.model_construct(**point._asdict(), status=row["status"], decisions=named)
    restored = leaderboard.loc[leaderboard["restored_psnr"].notna(), "condition"]
    return _Submitted(RunFolder(Path()), facts, there, files=files, restored=frozenset(restored))


def _completeness(
    results: _Submitted, leaderboard: pd.DataFrame, record: Mapping[str, Any]
) -> Iterator[Difference]:
    """Tell which cells the table lacks, has beyond the specification or calls failed, and which files no row is of."""
    wanted = dict.fromkeys(_planned(results.facts.spec))
    for point in wanted:
        if point not in results.cells:
            yield Difference(_called(point), "status", "", "ok")
    for point, cell in results.cells.items():
        if point not in wanted or cell.status != "ok":
            yield Difference(_called(point), "status", cell.status, "ok" if point in wanted else "")
    named = {Path(decisions_file(point)).name for point in (*wanted, *results.cells)}
    for name in sorted({*record.get("decisions", ())} - named):
        yield Difference(name, "decisions", "", "a cell")


def _planned(spec: RunSpec) -> tuple[Cell, ...]:
    axes = ({"none", *spec.attacks}, {"none", *spec.defenses}, spec.backbones, spec.heads, spec.seeds)
    if math.prod(map(len, axes)) > _MOST_CELLS:
        raise DataError(
            f"the record's specification has more than {_MOST_CELLS:,} cells, which is no run. Submit the run again."
        )
    return cells(spec)[0]


def _number_of_rows(results: _Submitted, leaderboard: pd.DataFrame) -> Iterator[Difference]:
    """Tell where a cell has other conditions in the table than in its decisions."""
    there: dict[Cell, set[str]] = {}
    for _, row in leaderboard.iterrows():
        there.setdefault(_cell(row), set()).add(str(row["condition"]))
    for point, conditions in there.items():
        known = results.facts_of(point)
        if known is not None and conditions != {*known}:
            said = (", ".join(sorted(some)) for some in (conditions, known))
            yield Difference(_called(point), "condition", *said)


def _cell(row: pd.Series[Any]) -> Cell:
    attack, defense, backbone, head = (str(row[name]) for name in ("attack", "defense", "backbone", "head"))
    return Cell(attack, defense, backbone, head, int(row["seed"]))


def _called(point: Cell, condition: str = "") -> str:
    return printable(" × ".join(filter(None, [*map(str, point), condition])), 300)


def _same(name: str, submitted: Any, made: Any) -> bool:
    one, other = (None if value is None or pd.isna(value) else float(value) for value in (submitted, made))
    if one is None or other is None:
        return one is other or name in _RECOVERY_ENDS  # not finite in some draws, finite in others
    slack = _SLACK * max(1.0, abs(one))
    if name in _P:
        slack = max(_P_SLACK * max(one, other), _LEAST_P)
    elif name in _RECOVERY_ENDS:
        slack = _RECOVERY_SLACK
    return abs(one - other) <= slack
