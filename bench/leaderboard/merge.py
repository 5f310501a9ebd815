"""The leaderboards of several runs as one: each cell once, ranked together where that can be done.

What lives here: which rows are the same cell, when they agree, and which runs are ranked over their union. What must
not: how a row is made (`bench.leaderboard.table`) and how a table is written (`bench.leaderboard.summary`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.comparison_groups import rank_columns
from bench.analysis.measured import Measured
from bench.analysis.reference_tests import reference_tests
from bench.analysis.results import Results
from bench.analysis.worst_case import worst_columns
from bench.contracts import ConditionFacts, Decided
from bench.errors import DataError, UsageError
from bench.leaderboard import as_csv, plausible
from bench.leaderboard.columns import COLUMNS, KEY, WHOLE
from bench.leaderboard.from_decisions import ENDING, differences, read_files
from bench.leaderboard.standing import in_order, with_standing
from bench.leaderboard.table import build
from bench.run.digest import digest
from bench.run.folder import RunFolder, split_json
from bench.run.spec import BENCHMARK_VERSION, Cell
from bench.run.task import without_version

RESULTS = (
    *("status", "n_identities", "n_probes", "asr", "asr_low", "asr_high", "asr_pooled"),
    *("normal_accuracy", "normal_accuracy_low", "normal_accuracy_high", "normal_accuracy_pooled"),
    *(
        "threshold",
        "cloak_psnr",
        "cloak_ssim",
        "purified_psnr",
        "purified_ssim",
        "surrogates",
        "extractors",
        "access",
    ),
)
"""What two rows of one cell must agree in: what does not depend on the other cells of a run, or on an optional file.

Numbers are compared as the CSV shows them.
"""

CHECKS = (
    "complete matrix",
    "run of its specification",
    "benchmark version",
    "packages recorded",
    "code recorded",
    "files as written",
    "rows from decisions",
    "threat models",
    "audit clean",
    "enough identities",
    "licences stated",
    "no names, no paths",
)
"""What `bench submit` checks, all of which the record of a submission must name."""

_FORMER_CHECKS: Mapping[str, str] = {"enough people": "enough identities"}
"""Name of a check in records of version 0.1 → today's."""

RANKS = ("rank_low", "rank_high", "tie_group", "ranking_reason", "ranked_over")

RANKED_ALONE = "ranked within its run"

_GROUP = ("dataset", "protocol", "attack", "head", "condition", "access")


@dataclass(frozen=True)
class Source:
    """A leaderboard that goes into the merged one.

    Attributes:
        name: the folder or file as it was given.
        leaderboard: its rows.
        folder: the run's folder, None for a table.
        record: what a submission says of itself, empty for all else.
        checked: whether a submission's rates were made again here from decisions beside its record.
    """

    name: str
    leaderboard: pd.DataFrame
    folder: RunFolder | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    checked: bool = False

    @cached_property
    def results(self) -> Results:
        """Return the decisions of every cell.

        Raises:
            DataError: the run's folder is damaged.
        """
        assert self.folder is not None
        return Results.of(self.folder)

    @property
    def comparable(self) -> str:
        """Return a digest of what sources must share to stand on one board; "" where that is not known.

        The fields of `bench.analysis.comparability`, but for LPIPS, which no board ranks by.
        """
        if self.folder is not None:
            facts = self.results.facts
            spec, fingerprint, given = facts.spec.model_dump(), facts.fingerprint, facts.given_targets
        else:
            spec, fingerprint = dict(self.record.get("spec", {})), str(self.record.get("fingerprint", ""))
            given = str(self.record.get("given_targets", ""))
        if not fingerprint:
            return ""
        fields = ("protocol", "dataset", "split", "split_seed", "identities")
        said = [BENCHMARK_VERSION, fingerprint, *(str(spec.get(name)) for name in fields)]
        return digest([*said, given] if given else said)

    @cached_property
    def ground(self) -> str:
        """Return a digest of what runs must share to be ranked together; "" where that is not known.

        Benchmark version, protocol, photos, who is evaluated on which of them, who is protected when, precision.
        """
        if self.folder is None:
            return ""
        facts = self.results.facts
        if not facts.fingerprint:
            return ""
        said = [facts.benchmark_version, facts.spec.protocol, facts.spec.dataset, facts.fingerprint]
        said += [] if facts.precision == "float32" else [facts.precision]
        said += [facts.given_targets] if facts.given_targets else []
        return digest([*said, str(facts.spec.split_seed), split_json(self.folder.split())])


@dataclass(frozen=True)
class Merged:
    """Several leaderboards as one.

    Attributes:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
        sources: what it is made from, in order.
        repeated: rows left out because an earlier source has the same cell with the same results.
    """

    leaderboard: pd.DataFrame
    sources: tuple[Source, ...]
    repeated: int = 0


@dataclass
class UnionResults(Results):
    """The results of several runs of the same identities and photos; a cell of two is that of the first."""

    owners: dict[Cell, Results] = field(default_factory=dict)

    @classmethod
    def over(cls, parts: Sequence[Results]) -> UnionResults:
        """Return the union."""
        owners: dict[Cell, Results] = {}
        for part in parts:
            for point in part.cells:
                owners.setdefault(point, part)
        cells = {point: part.cells[point] for point, part in owners.items()}
        return cls(parts[0].folder, parts[0].facts, cells, owners=owners)

    def decided(self, point: Cell) -> Decided | None:
        """Return a cell's decisions, None where it failed or is in no run."""
        owner = self.owners.get(point)
        return None if owner is None else owner.decided(point)

    def facts_of(self, point: Cell) -> Mapping[str, ConditionFacts] | None:
        """Return what is known of each of a cell's conditions, None where it has no decisions."""
        owner = self.owners.get(point)
        return None if owner is None else owner.facts_of(point)

    def measured(self, point: Cell, condition: str) -> Measured | None:
        """Return what tables need of a cell under one condition, None where there are no decisions."""
        owner = self.owners.get(point)
        return None if owner is None else owner.measured(point, condition)


def read_source(path: Path) -> list[Source]:
    """Return what a path holds: a finished run's folder, a leaderboard's CSV, or a folder of submissions.

    Raises:
        DataError: it is none of these, or it is damaged.
    """
    if path.is_file():
        return [Source(str(path), as_csv.read_csv(path))]
    if path.is_dir() and not (path / "spec.json").exists():
        records = [file for file in sorted(path.glob("*.json")) if _is_record(file)]
        if records:
            _check_pairs(path, records)
            return [read_submission(record) for record in records]
    folder = RunFolder(path)
    return [Source(str(path), build(folder), folder)]


def _is_record(path: Path) -> bool:
    """Say whether a JSON file is, or should be, the record of a submission."""
    if path.with_suffix(".csv").exists():
        return True
    try:
        return "leaderboard_sha256" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _check_pairs(folder: Path, records: Sequence[Path]) -> None:
    """Refuse a table without its record, and a record without its table: neither may drop out unseen."""
    stems = {record.stem for record in records}
    tables = {table.stem for table in folder.glob("*.csv")}
    archives = {found.name.removesuffix(ENDING) for found in folder.glob(f"*{ENDING}")}
    lonely = [f"{name}.csv has no {name}.json" for name in sorted(tables - stems)]
    lonely += [f"{name}{ENDING} has no {name}.json" for name in sorted(archives - stems)]
    lonely += [f"{name}.json has no {name}.csv" for name in sorted(stems - tables)]
    if lonely:
        raise DataError(
            f"'{folder}' is a folder of submissions, and {'; '.join(lonely)}. A submission is both files: put the "
            "other one back, or take this one away."
        )


def read_submission(path: Path) -> Source:
    """Return a submission as `read_as_submitted` does, held against its decisions where they lie beside the record.

    Args:
        path: of its record; the table lies beside it, and its decisions may.

    Raises:
        DataError: it is damaged, or its rows are not what the decisions beside it give.
    """
    source, archive = read_as_submitted(path), path.with_name(path.stem + ENDING)
    if not archive.exists():
        return source
    _check_decisions(path.with_suffix(".csv"), source.record, source.leaderboard, archive)
    return replace(source, checked=True)


def read_as_submitted(path: Path) -> Source:
    """Return a submission, checked to be the one that was written and to have passed every check there is.

    Args:
        path: of its record; the table lies beside it.

    Raises:
        DataError: it is damaged.
    """
    table = path.with_suffix(".csv")
    record = plausible.read_record(path)
    checks = {_FORMER_CHECKS.get(name, name): found for name, found in record["checks"].items()}
    lacking = [name for name in CHECKS if not checks.get(name)]
    if lacking:
        raise DataError(
            f"'{path}' does not say that the run passed {', '.join(map(repr, lacking))}, which `bench submit` checks. "
            "Submit the run again."
        )
    if sha256(_content(table)).hexdigest() != record["leaderboard_sha256"]:
        raise DataError(
            f"'{table}' is not what was submitted: its SHA-256 is not the one in {path.name}. Take the file that was "
            "submitted, or submit the run again."
        )
    leaderboard = as_csv.read_csv(table)
    plausible.check_rows(path, record, leaderboard)
    return Source(str(table), leaderboard, record=record)


def _content(table: Path) -> bytes:
    try:
        return table.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read '{table}': {error.strerror}. A submission is both files: put the table beside its record."
        ) from None


def _check_decisions(
    table: Path, record: Mapping[str, Any], leaderboard: pd.DataFrame, archive: Path
) -> None:
    found = differences(record, leaderboard, read_files(archive, record))
    if found:
        first = found[0]
        raise DataError(
            f"'{table}' is not what its decisions give: {len(found)} values are others, e.g. {first.row}: "
            f"{first.column} is {first.submitted or 'empty'}, and {first.made or 'empty'} by {archive.name}. Submit "
            "the run again."
        )


def read_sources(paths: Sequence[Path]) -> list[Source]:
    """Return the leaderboards of all paths, each once.

    Raises:
        DataError: a path is no run, table or folder of submissions.
    """
    return [source for path in dict.fromkeys(paths) for source in read_source(path)]


def merge(sources: Sequence[Source], *, keep_both: bool = False) -> Merged:
    """Return several leaderboards as one, rows in the order of the sources, entries before runs submitted against them.

    A cell (`columns.KEY`) that two sources have with the same results (`RESULTS`) is there once, as the
    first has it, requested where either says so. Runs of the same identities, photos, split and protocol are ranked
    and tested over all their cells. Else ranks and corrected p values are of each run alone, and `ranking_reason`
    says why where another source ranks defences against the same attack.

    Args:
        sources: at least one.
        keep_both: keep both rows of a cell whose results differ; their `run` tells them apart.

    Raises:
        UsageError: the benchmark's versions, a task's or the splits differ, or two sources disagree about a cell; both
        are named.
    """
    _check_versions(sources)
    _check_splits(sources)
    _check_tasks(sources)
    sources = [sources[at] for at in in_order(sources)]
    if len(sources) == 1:
        return Merged(with_standing(sources[0].leaderboard, sources), tuple(sources))
    rows, repeated, disputed = _distinct(sources, keep_both=keep_both)
    leaderboards = _ranked_together(sources, rows, disputed)
    leaderboard = pd.concat(
        [leaderboard for leaderboard in leaderboards if len(leaderboard)], ignore_index=True
    )
    return Merged(with_standing(leaderboard[list(COLUMNS)], sources), tuple(sources), repeated)


def _check_versions(sources: Sequence[Source]) -> None:
    versions = {
        version: source.name for source in sources for version in source.leaderboard["benchmark_version"]
    }
    if len(versions) > 1:
        said = "; ".join(f"{name} has version {version}" for version, name in versions.items())
        raise UsageError(
            f"rows of different versions of the benchmark are not compared: {said}. Make the older run again."
        )


def _check_splits(sources: Sequence[Source]) -> None:
    splits = {split: source.name for source in sources for split in source.leaderboard["split"]}
    if len(splits) > 1:
        said = "; ".join(f"{name} is of split {split}" for split, name in splits.items())
        raise UsageError(
            f"choices are made on the development split, and results are of evaluated identities: {said}. Give runs of "
            "one split."
        )


def _check_tasks(sources: Sequence[Source]) -> None:
    """Refuse two versions of one task; a table from before tasks had versions says of none."""
    seen: dict[str, tuple[str, str]] = {}
    for source in sources:
        for task in sorted(set(source.leaderboard["task"]) - {""}):
            other, name = seen.setdefault(without_version(task), (task, source.name))
            if other != task:
                raise UsageError(
                    f"rates of two versions of a task are of other photos or other rules: {name} is of {other}, "
                    f"{source.name} of {task}. Make the older run again."
                )


def _keys(leaderboard: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(leaderboard[list(KEY)].itertuples(index=False, name=None))


def _distinct(
    sources: Sequence[Source], *, keep_both: bool
) -> tuple[list[pd.DataFrame], int, set[tuple[int, int]]]:
    """Return each source's rows that no earlier one has, the number left out, and the pairs that disagree."""
    seen: dict[tuple[Any, ...], list[tuple[int, int, tuple[str, ...]]]] = {}
    keep: list[list[int]] = []
    requested = [source.leaderboard["requested"].tolist() for source in sources]
    disputed: set[tuple[int, int]] = set()
    for number, source in enumerate(sources):
        keep.append([])
        results = _results(source.leaderboard)
        for at, key in enumerate(_keys(source.leaderboard)):
            earlier = seen.setdefault(key, [])
            same = next((one for one in earlier if one[2] == results[at]), None)
            if same is not None:
                requested[same[0]][same[1]] |= requested[number][at]
                continue
            run = source.leaderboard["run"].iloc[at]
            if any(sources[one[0]].leaderboard["run"].iloc[one[1]] == run for one in earlier):
                raise _same_name(sources[earlier[0][0]], source, key, run)
            if earlier and not keep_both:
                first = earlier[0]
                raise _disagreement(sources[first[0]], source, key, first[2], results[at])
            disputed |= {(other[0], number) for other in earlier}
            earlier.append((number, at, results[at]))
            keep[number].append(at)
    rows = [
        source.leaderboard.assign(requested=requested[number]).iloc[keep[number]].reset_index(drop=True)
        for number, source in enumerate(sources)
    ]
    return rows, sum(len(source.leaderboard) for source in sources) - sum(map(len, keep)), disputed


def _results(leaderboard: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the results of each row, as the CSV shows it."""
    columns = [[as_csv.as_text(value) for value in leaderboard[name]] for name in RESULTS]
    return list(zip(*columns, strict=True))


def _disagreement(
    first: Source, second: Source, key: tuple[Any, ...], one: Sequence[str], other: Sequence[str]
) -> UsageError:
    name, here, there = next((name, a, b) for name, a, b in zip(RESULTS, one, other, strict=True) if a != b)
    cell = " × ".join(str(part) for part in key if part != "")
    return UsageError(
        f"{first.name} and {second.name} have the same cell with different results: {cell}: {name} is "
        f"{here or 'empty'} and {there or 'empty'}. They are of other identities, photos or code; "
        f"leave one out, or keep "
        "both rows with --keep-both."
    )


def _same_name(first: Source, second: Source, key: tuple[Any, ...], run: str) -> UsageError:
    cell = " × ".join(str(part) for part in key if part != "")
    return UsageError(
        f"{first.name} and {second.name} are both run {run}, and have a cell with different results: "
        f"{cell}. Nothing would tell the two rows apart, so that --keep-both does not take them; leave one out."
    )


# -- ranks over several runs --------------------------------------------------------------------------------------


def _ranked_together(
    sources: Sequence[Source], rows: Sequence[pd.DataFrame], disputed: set[tuple[int, int]]
) -> list[pd.DataFrame]:
    """Return the rows of each source with the ranks and tests of all runs that can be ranked with it."""
    groups = _groups(sources, disputed)
    found = list(rows)
    for group in groups:
        if len(group) > 1:
            united = pd.concat([rows[number].assign(_source=number) for number in group], ignore_index=True)
            united = _rank_union(united, [sources[number].results for number in group])
            for number in group:
                found[number] = united[united["_source"] == number].drop(columns="_source")
    return list(_explained(sources, found, groups, disputed))


def _groups(sources: Sequence[Source], disputed: set[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Return the numbers of sources that are ranked together; runs that disagree about a cell stand alone."""
    alone = {number for pair in disputed for number in pair}
    groups: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        name = f"alone {number}" if number in alone or not source.ground else source.ground
        groups.setdefault(name, []).append(number)
    return [tuple(group) for group in groups.values()]


def _rank_union(rows: pd.DataFrame, parts: Sequence[Results]) -> pd.DataFrame:
    """Return the rows with ranks, tests and worst cases over all cells of several runs.

    A comparison group that cannot be ranked over the union, as its methods met no common tracker, keeps the ranks of
    its run.
    """
    union = UnionResults.over(parts)
    tested = rows.assign(**reference_tests(union, rows), **worst_columns(union, rows))
    runs = "|".join(sorted({part.facts.run for part in parts}))
    ranks = pd.DataFrame(rank_columns(union, rows), index=rows.index).assign(ranked_over=runs)
    kept = ranks["rank_low"].isna() & rows["rank_low"].notna()
    for name in RANKS:
        tested[name] = ranks[name].where(~kept, rows[name])
    tested.loc[kept, "ranking_reason"] = f"{RANKED_ALONE}: " + ranks.loc[kept, "ranking_reason"].astype(str)
    return tested.astype(dict.fromkeys(WHOLE, "Int64"))


def _explained(
    sources: Sequence[Source],
    leaderboards: Sequence[pd.DataFrame],
    groups: Sequence[tuple[int, ...]],
    disputed: set[tuple[int, int]],
) -> Iterator[pd.DataFrame]:
    """Say in `ranking_reason` where another source ranks the same comparison group by itself, and why."""
    group_of = {number: group for group in groups for number in group}
    comparison_groups = [
        set(leaderboard[list(_GROUP)].itertuples(index=False, name=None)) for leaderboard in leaderboards
    ]
    for number, leaderboard in enumerate(leaderboards):
        reasons = leaderboard["ranking_reason"].tolist()
        ranked, runs = leaderboard["rank_low"].notna().tolist(), leaderboard["ranked_over"].tolist()
        for at, one in enumerate(leaderboard[list(_GROUP)].itertuples(index=False, name=None)):
            others = [
                other
                for other in range(len(leaderboards))
                if ranked[at] and other not in group_of[number] and one in comparison_groups[other]
            ]
            if others:
                over = f"ranked over runs {runs[at].replace('|', ', ')}" if runs[at] else RANKED_ALONE
                why = f"{over}: {_why_apart(sources, number, others[0], disputed)}"
                reasons[at] = "; ".join(filter(None, [why, reasons[at]]))
        yield leaderboard.assign(ranking_reason=reasons)


def _why_apart(sources: Sequence[Source], number: int, other: int, disputed: set[tuple[int, int]]) -> str:
    one, two = sources[number], sources[other]
    if any(number in pair or other in pair for pair in disputed):
        return "runs disagree about a cell"
    for source in (one, two):
        if source.folder is None:
            return f"{source.name} is a table, without per-identity decisions"
        if not source.ground:
            return f"{source.name} did not record the fingerprint of its photos"
    return f"{two.name if number < other else one.name} is of other identities, photos or another split"
