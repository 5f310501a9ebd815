"""The results of a finished run, read once each: what every table, test and figure starts from."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from bench.analysis.measured import Measured, Reader, of_rows
from bench.contracts import ConditionFacts, Decided
from bench.quality import diagnosis, image_columns, per_image
from bench.quality.detections import DetectedShard, Detections
from bench.randomness import numpy_generator
from bench.run.decisions import CodedTable, conditions_of, decided_of
from bench.run.folder import CellResult, RunFacts, RunFolder
from bench.run.spec import Cell
from bench.stats import rates
from bench.stats.intervals import Draws, Estimate

Measure = Literal["asr", "normal_accuracy"]

KEPT_ROWS = 1_000_000
"""Decisions that are kept, about 150 MB, however many a run has; what tables are made from is kept of all."""


@dataclass
class Results:
    """A run's cells with their decisions.

    Attributes:
        folder: the run's folder.
        facts: what was requested.
        cells: every cell by its place, in the run's order.
        derived: what others made of all these cells, by a key of theirs; a part of a run (`replace`) begins anew.
    """

    folder: RunFolder
    facts: RunFacts
    cells: dict[Cell, CellResult]
    _read: dict[Cell, Decided] = field(default_factory=dict, repr=False)
    _kept: Counter[str] = field(default_factory=Counter, repr=False)
    _facts: dict[Cell, Mapping[str, ConditionFacts]] = field(default_factory=dict, repr=False)
    _draws: dict[int, Draws] = field(default_factory=dict, repr=False)
    _gains: dict[tuple[Cell, str], Estimate | None] = field(default_factory=dict, init=False, repr=False)
    _images: dict[str, rates.ImageSummary] = field(default_factory=dict, repr=False)
    _flagged: dict[str, tuple[Estimate, ...]] = field(default_factory=dict, repr=False)
    _measured: dict[tuple[Cell, str], Measured] = field(default_factory=dict, repr=False)
    _reader: Reader = field(default_factory=Reader, repr=False)
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, folder: RunFolder) -> "Results":
        """Return the results in a run's folder.

        Raises:
            DataError: it is not a finished run, or its specification or cells are not what the run wrote.
        """
        folder.check_files("spec.json", "cells.json")
        return cls(folder, folder.facts(), {result.cell: result for result in folder.cells()})

    def decided(self, point: Cell) -> Decided | None:
        """Return a cell's decisions, None where it failed or is not in the run.

        Raises:
            DataError: its file is missing, damaged or another cell's.
        """
        decided = self._read.pop(point, None)
        if decided is None:
            coded = self._coded(point)
            if coded is None:
                return None
            decided = decided_of(coded)
            self._kept["rows"] += len(decided.rows)  # a part of a run (`replace`) shares what is kept
            self._let_go()
        self._read[point] = decided  # last, as it was asked for last
        return decided

    def _coded(self, point: Cell) -> CodedTable | None:
        """Return a cell's decisions, noted; None where it failed or is not in the run."""
        cell = self.cells.get(point)
        if cell is None or not cell.decisions:
            return None
        coded = self._coded_of(cell)
        if point not in self._facts:
            conditions = conditions_of(coded, str(self.folder.path / cell.decisions))
            self._note(point, conditions, self._reader.by_condition(coded))
        return coded

    def _note(
        self, point: Cell, conditions: Mapping[str, ConditionFacts], found: Iterable[tuple[str, Measured]]
    ) -> None:
        """Keep what tables need of a cell."""
        self._measured |= {(point, name): one for name, one in found}
        self._facts[point] = conditions

    def _coded_of(self, cell: CellResult) -> CodedTable:
        """Read a cell's decisions."""
        return self.folder.coded(cell, self.facts.spec)

    def _let_go(self) -> None:
        while self._kept["rows"] > KEPT_ROWS and self._read:
            self._kept["rows"] -= len(self._read.pop(next(iter(self._read))).rows)

    def facts_of(self, point: Cell) -> Mapping[str, ConditionFacts] | None:
        """Return what is known of each of a cell's conditions, None where it has no decisions."""
        if point not in self._facts and point in self._read:
            decided = self._read[point]
            self._note(point, decided.conditions, of_rows(decided.rows))
        if point not in self._facts and self._coded(point) is None:
            return None
        return self._facts[point]

    def measured(self, point: Cell, condition: str) -> Measured | None:
        """Return what tables need of a cell under one condition, None where there are no decisions."""
        if self.facts_of(point) is None:
            return None
        return self._measured.get((point, condition))

    def rows(self, point: Cell, condition: str) -> pd.DataFrame | None:
        """Return a cell's decisions under one condition, None where there are none."""
        decided = self.decided(point)
        if decided is None:
            return None
        chosen: pd.DataFrame = decided.rows[decided.rows["condition"] == condition]
        return chosen if len(chosen) else None

    def identities(self, point: Cell, condition: str) -> pd.DataFrame | None:
        """Return each identity's own rates (`rates.per_identity`), None where there are no decisions."""
        measured = self.measured(point, condition)
        return None if measured is None else measured.identities

    def rates_of(self, point: Cell, condition: str, measure: Measure) -> "pd.Series[float] | None":
        """Return one of each identity's own rates, None where there are no decisions."""
        measured = self.measured(point, condition)
        if measured is None:
            return None
        return measured.asr if measure == "asr" else measured.normal_accuracy

    def summary(self, point: Cell, condition: str) -> rates.CellSummary | None:
        """Return a cell's rates with their intervals, None where there are no decisions."""
        measured = self.measured(point, condition)
        return None if measured is None else measured.summary

    def draws(self, identities: int) -> Draws:
        """Return draws of so many identities, the same for every interval of this run's leaderboard."""
        if identities not in self._draws:
            rng = numpy_generator(self.facts.spec.split_seed, "leaderboard", str(identities))
            self._draws[identities] = Draws(identities, rng)
        return self._draws[identities]

    def gain(self, point: Cell, condition: str) -> Estimate | None:
        """Return by how much a cell's attack raises the error undefended, None where a reference cell is lacking."""
        undefended = point._replace(defense="none")
        if (undefended, condition) not in self._gains:
            own = self.rates_of(undefended, condition, "asr")
            baseline = self.rates_of(undefended._replace(attack="none"), condition, "asr")
            self._gains[undefended, condition] = (
                None if own is None or baseline is None else rates.gain_of(own, baseline)
            )
        return self._gains[undefended, condition]

    def images(self, name: str) -> rates.ImageSummary:
        """Return the means of one of the run's files of image measures.

        Raises:
            DataError: the file is missing, damaged or not what the run wrote.
        """
        if name not in self._images:
            columns = image_columns.from_bytes(self.folder.content(name), name)
            changed = columns.pop("changed")
            self._images[name] = rates.image_means(columns, changed)
        return self._images[name]

    def flagged_shares(self, name: str) -> tuple[Estimate, Estimate]:
        """Return what share of cloaks, and of natural photos, a detector flagged, by one of the run's files.

        Raises:
            DataError: the file is missing, damaged or not what the run wrote.
        """
        if name not in self._flagged:
            found = diagnosis.read(Detections, self.folder.content(name), name)
            parts = (found.cloaked, found.natural)
            self._flagged[name] = tuple(_flagged_share(shards, found.reason) for shards in parts)
        cloaks, photos = self._flagged[name]
        return cloaks, photos

    def image_rows(self, name: str) -> pd.DataFrame:
        """Return the measures in one of the run's files (`per_image.COLUMNS`), one row an image.

        Raises:
            DataError: the file is missing, damaged or not what the run wrote.
        """
        return per_image.from_bytes(self.folder.content(name), name)

    def conditions(self, point: Cell | None = None) -> tuple[str, ...]:
        """Return the conditions of a cell in the protocol's order; without one, or of a failed one, of any other."""
        own = None if point is None else self.facts_of(point)
        others = (self.facts_of(other) for other in self.cells)
        found = own if own is not None else next((each for each in others if each is not None), None)
        return tuple(found) if found is not None else ("",)

    def ranked_conditions(self) -> tuple[str, ...]:
        """Return the conditions under which a lower rate is good for a defence and a higher one for an attack.

        Under what a protocol restores (erasure with its key) no defence acts, and a lower rate is the attack's
        own success: nothing is ranked there.
        """
        return tuple(name for name in self.conditions() if name not in self._restored)

    @cached_property
    def _restored(self) -> frozenset[str]:
        return frozenset(name for cell in self.cells.values() for name in cell.restored_measures)

    def is_undefended(self, condition: str) -> bool:
        """Return whether no defence acts under a condition: the protocol looks at what it restored."""
        return condition not in self.ranked_conditions()

    def recognises(self, condition: str) -> bool:
        """Return whether a condition asks for recognition, so that it has an accuracy without any cloak.

        Impersonation does not: only a cloak with a target is decided there.
        """
        return any(
            self.measured(point, condition) is not None for point in self.cells if point.attack == "none"
        )

    def not_applicable(self, point: Cell, condition: str) -> str:
        """Return why a cell that did not fail has no decisions under a condition, or ""."""
        facts = self.facts_of(point)
        if facts is None or condition not in facts:
            return ""
        return facts[condition].reason if self.measured(point, condition) is None else ""

    def dependence(self, point: Cell, condition: str) -> str:
        """Return why a cell's identities are not independent, or "": they were compared with the same photo."""
        measured = self.measured(point, condition)
        return "" if measured is None else measured.dependence

    def values(self, axis: str) -> tuple[Any, ...]:
        """Return the values of a field of `Cell` in the run's order."""
        return tuple(dict.fromkeys(getattr(point, axis) for point in self.cells))


def _flagged_share(shards: Sequence[DetectedShard], reason: str) -> Estimate:
    """Return `rates.flagged_share` of all photos of some shards; missing for `reason` where there is one."""
    identities = [name for shard in shards for name in shard.identities]
    if reason or not identities:
        return Estimate.missing(reason or "no photos")
    return rates.flagged_share(identities, [flag for shard in shards for flag in shard.flagged])
