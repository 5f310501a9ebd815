"""What most tables need of a cell under one condition, taken from its decisions as they are read.

The names of a file stay the numbers that stand for them: no frame of strings is made, and cells of the same identities
share one index.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from bench.run.decisions import CodedTable, Codes
from bench.stats import rates
from bench.stats.intervals import Floats


@dataclass(frozen=True)
class Measured:
    """What most tables need of a cell under one condition.

    Attributes:
        own: each identity's rates.
        summary: of the cell.
        groups: which identities were compared with the same photos (`rates.groups_of`).
        dependence: why they are not independent, or "".
        answers: decisions that have a score.
        spread: largest minus smallest score, 0 where there is none.
    """

    own: rates.PerIdentity
    summary: rates.CellSummary
    groups: Codes
    dependence: str
    answers: int
    spread: float

    @classmethod
    def of(cls, decisions: rates.Coded, scores: Floats) -> "Measured":
        """Return it of a cell's decisions under one condition.

        Args:
            decisions: of that condition.
            scores: of each, NaN where there is none.
        """
        identities, groups = rates.PerIdentity.of(decisions), rates.groups_of(decisions)
        known = scores[~np.isnan(scores)]
        return cls(
            identities,
            rates.summarize(identities, groups),
            groups,
            rates.dependence(groups),
            len(known),
            float(known.max() - known.min()) if len(known) else 0.0,
        )

    @cached_property
    def identities(self) -> pd.DataFrame:
        """Each identity's own rates, as `rates.per_identity` returns them."""
        return self.own.frame()

    @cached_property
    def asr(self) -> "pd.Series[float]":
        """Each identity's ASR."""
        return pd.Series(self.own.asr, index=self.own.names, name="asr")

    @cached_property
    def normal_accuracy(self) -> "pd.Series[float]":
        """Each identity's normal accuracy."""
        return pd.Series(self.own.normal_accuracy, index=self.own.names, name="normal_accuracy")


def of_rows(decisions: pd.DataFrame) -> Iterator[tuple[str, Measured]]:
    """Yield each condition of a cell's decisions with what is measured of it.

    Args:
        decisions: rows of `bench.run.decisions.SCHEMA`, names as strings.
    """
    for name, rows in decisions.groupby("condition", sort=False):
        yield str(name), Measured.of(rates.Coded.of(rows), rows["score"].to_numpy(dtype=np.float64))


@dataclass
class Reader:
    """Takes tables of decisions apart; what their cells share is kept once."""

    _indexes: dict[tuple[str, ...], tuple[pd.Index, Codes]] = field(default_factory=dict, repr=False)

    def by_condition(self, coded: CodedTable) -> Iterator[tuple[str, Measured]]:
        """Yield each condition of a cell that has decisions, with what is measured of it."""
        conditions, condition = coded.names["condition"], coded.codes["condition"]
        there = np.flatnonzero(np.bincount(condition, minlength=len(conditions)))
        scores, whole = coded.table["score"].to_numpy(), self._whole(coded)
        for code in there:
            rows = slice(None) if len(there) == 1 else np.flatnonzero(condition == code)
            yield conditions[code], Measured.of(whole.only(rows), scores[rows])

    def _whole(self, coded: CodedTable) -> rates.Coded:
        index, place = self._index(coded.names["identity"])
        references = coded.table["reference"].null_count < len(coded.table)
        return rates.Coded(
            names=index,
            identity=place[coded.codes["identity"]],
            image=coded.codes["image"],
            protected=coded.table["protected"].to_numpy(),
            correct=coded.table["correct"].to_numpy(),
            reference=coded.codes["reference"] if references else None,
        )

    def _index(self, names: tuple[str, ...]) -> tuple[pd.Index, Codes]:
        """Return the names sorted, and the place of each among them."""
        if names not in self._indexes:
            order = sorted(range(len(names)), key=names.__getitem__)
            place = np.empty(len(names), dtype=np.int64)
            place[order] = np.arange(len(names))
            self._indexes[names] = pd.Index([names[i] for i in order], dtype="str", name="identity"), place
        return self._indexes[names]
