"""The results of a finished run, read once each: what every table, test and figure starts from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.contracts import Decided
from bench.run.folder import CellResult, RunFacts, RunFolder
from bench.run.spec import Cell
from bench.stats import rates


@dataclass
class Results:
    """A run's cells with their decisions.

    Attributes:
        folder: the run's folder.
        facts: what was requested.
        cells: every cell by its place, in the run's order.
    """

    folder: RunFolder
    facts: RunFacts
    cells: dict[Cell, CellResult]
    _read: dict[Cell, Decided] = field(default_factory=dict, repr=False)
    _identities: dict[tuple[Cell, str], pd.DataFrame] = field(default_factory=dict, repr=False)

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
        cell = self.cells.get(point)
        if cell is None or not cell.decisions:
            return None
        if point not in self._read:
            self._read[point] = self.folder.decided(cell, self.facts.spec)
        return self._read[point]

    def rows(self, point: Cell, condition: str) -> pd.DataFrame | None:
        """Return a cell's decisions under one condition, None where there are none."""
        decided = self.decided(point)
        if decided is None:
            return None
        chosen: pd.DataFrame = decided.rows[decided.rows["condition"] == condition]
        return chosen if len(chosen) else None

    def identities(self, point: Cell, condition: str) -> pd.DataFrame | None:
        """Return each identity's own rates (`measures.per_identity`), None where there are no decisions."""
        if (point, condition) not in self._identities:
            rows = self.rows(point, condition)
            if rows is None:
                return None
            self._identities[point, condition] = rates.per_identity(rows)
        return self._identities[point, condition]

    def conditions(self, point: Cell | None = None) -> tuple[str, ...]:
        """Return the conditions of a cell in the protocol's order; without one, or of a failed one, of any other."""
        decided = None if point is None else self.decided(point)
        others: Iterator[Decided | None] = (self.decided(other) for other in self.cells)
        found = decided or next((other for other in others if other is not None), None)
        return tuple(found.conditions) if found is not None else ("",)

    def ranked_conditions(self) -> tuple[str, ...]:
        """Return the conditions under which a lower rate is good for a defence and a higher one for an attack.

        Under what a protocol restores (erasure with its key) no defence acts, and a lower rate is the attack's
        own success: nothing is ranked there.
        """
        restored = {name for cell in self.cells.values() for name in cell.restored_measures}
        return tuple(name for name in self.conditions() if name not in restored)

    def is_undefended(self, condition: str) -> bool:
        """Return whether no defence acts under a condition: the protocol looks at what it restored."""
        return condition not in self.ranked_conditions()

    def recognises(self, condition: str) -> bool:
        """Return whether a condition asks for recognition, so that it has an accuracy without any cloak.

        Impersonation does not: only a cloak with a target is decided there.
        """
        return any(self.rows(point, condition) is not None for point in self.cells if point.attack == "none")

    def not_applicable(self, point: Cell, condition: str) -> str:
        """Return why a cell that did not fail has no decisions under a condition, or ""."""
        decided = self.decided(point)
        if decided is None or condition not in decided.conditions:
            return ""
        return decided.conditions[condition].reason if self.rows(point, condition) is None else ""

    def dependence(self, point: Cell, condition: str) -> str:
        """Return why a cell's identities are not independent, or "": they were compared with the same photo."""
        rows = self.rows(point, condition)
        return "" if rows is None else rates.dependence(rows)

    def values(self, axis: str) -> tuple[Any, ...]:
        """Return the values of a field of `Cell` in the run's order."""
        return tuple(dict.fromkeys(getattr(point, axis) for point in self.cells))
