"""Exact search for the nearest points of each class, in blocks of probes × points: memory stays flat however many.

Scores of all points are found in float32, by one product of matrices a block; the few that could be the best are
computed again in float64, as `Head.fit` computes them. So answers are those of the table of all scores, at half of its
arithmetic and without the table; but where scores differ by float64's own rounding, as of orthogonal vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.protocols.heads import Labels, Points, Scores, Vectors, unit

_CHUNK = 1 << 12
"""Rows that are computed in float64 at a time: 4 MB of 128 numbers, and as much again twice for their lengths."""

_PAIRS = 1 << 20
"""Pairs of probe and point that are settled at a time, until a probe's last one."""

_WIDTH = 1 << 10
"""Points of a block at most: scores stay in the processor's cache, and no product is thin however large a group is."""

_MANY = 0.05
"""Share of a group's points from which one product of all in float64 is quicker than a product for each."""


@dataclass(frozen=True)
class Best:
    """What a search finds for each probe.

    Attributes:
        own: the score of its own identity, −inf where that has no point; M.
        rival: the best score of others in each group, −inf where there is nobody; M×groups.
        rivals: whose it is, of equals the first label; M×groups.
    """

    own: Scores
    rival: Scores
    rivals: Labels


@dataclass(frozen=True)
class _Block:
    """Some points of a group, and what of their table of scores does not count.

    Attributes:
        part: of the sorted points.
        left_out: (row, column) of each probe's own points.
    """

    part: slice
    left_out: tuple[Labels, Labels]


@dataclass
class _Near:
    """The points whose float32 score is as good as the best so far of their row, within the margin of error.

    Attributes:
        top: the best score so far of each row; M.
        margin_of_error: of a difference of two scores.
    """

    top: Scores
    margin_of_error: np.float32
    _rows: Labels = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    _points: Labels = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    _scores: Scores = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    def add(self, scores: Scores, start: int, most: float) -> bool:
        """Look at the scores of some more points; returns False where more than `most` are that good.

        Args:
            scores: M×points; −inf: does not count.
            start: number of the first point.
            most: how many may be kept.
        """
        here = scores.max(axis=1)
        np.maximum(self.top, here, out=self.top)
        least = self.top - self.margin_of_error
        rows = np.flatnonzero((here >= least) & np.isfinite(here))  # else nobody but the probe's own identity
        part = scores if len(rows) == len(scores) else scores[rows]
        good = (part >= least[rows, None]).reshape(-1)
        if len(self._rows) + np.count_nonzero(good) > most:
            return False
        # In one dimension, where numpy finds them several times as fast as in two.
        places = np.flatnonzero(good)
        row, point = np.divmod(places, scores.shape[1])
        self._rows = np.concatenate([self._rows, rows[row]])
        self._points = np.concatenate([self._points, point + start])
        self._scores = np.concatenate([self._scores, part.reshape(-1)[places]])
        self._forget_what_was_surpassed(least)
        return True

    def _forget_what_was_surpassed(self, least: Scores) -> None:
        still = self._scores >= least[self._rows]
        self._rows, self._points, self._scores = self._rows[still], self._points[still], self._scores[still]

    def found(self) -> tuple[Labels, Labels]:
        """Return (row, point) of each, by row."""
        order = np.argsort(self._rows, kind="stable")
        return self._rows[order], self._points[order]


class NearestPoints:
    """Points sorted by group and class, ready to be searched.

    Args:
        points: to search.
        group: label → number of the group it belongs to, from 0.
        block_bytes: what the float32 scores of a block of probes × points may take; decides memory alone.

    Raises:
        MethodError: a point is not finite.
    """

    def __init__(self, points: Points, group: NDArray[Any], block_bytes: int) -> None:
        order = np.lexsort((points.labels, group[points.labels]))
        self.labels = points.labels[order]
        self.vectors, self.order = points.vectors, order
        self.narrow = np.empty((len(order), points.vectors.shape[1]), dtype=np.float32)
        for start in range(0, len(order), _CHUNK):
            part = slice(start, start + _CHUNK)
            self.narrow[part] = unit(self.vectors[order[part]])
        count = 1 + int(group.max())
        self.bounds = np.searchsorted(group[self.labels], np.arange(count + 1))
        self.first = np.full(len(group), len(order), dtype=np.intp)
        self.count = np.bincount(self.labels, minlength=len(group))
        self.first[self.labels[::-1]] = np.arange(len(order))[::-1]
        widest = int(np.diff(self.bounds).max(initial=1))
        self.width = min(widest, _WIDTH, max(1, block_bytes // 4))
        self.rows = min(_CHUNK, max(1, block_bytes // (4 * self.width)))
        # Twice the bound of a float32 dot product of unit vectors, rounding of the vectors included.
        self.margin_of_error = np.float32(2.02 * (points.vectors.shape[1] + 3) * 2.0**-24)

    def best(self, probes: Vectors, labels: Labels) -> Best:
        """Return what probes of the identities `labels` find.

        Raises:
            MethodError: a probe is not finite.
        """
        starts = range(0, len(probes), self.rows)
        blocks = [self._block(unit(probes[s : s + self.rows]), labels[s : s + self.rows]) for s in starts]
        groups = len(self.bounds) - 1
        if not blocks:
            nothing = np.empty((0, groups))
            return Best(np.empty(0, np.float32), nothing.astype(np.float32), nothing.astype(np.intp))
        return Best(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))

    def _block(self, probes: NDArray[np.float64], labels: Labels) -> tuple[Scores, Scores, Labels]:
        narrow = probes.astype(np.float32)
        own_rows, own_points = self._own(labels)
        own = np.full((len(probes), 1), -np.inf, dtype=np.float32)
        self._keep(own, np.zeros(own.shape, dtype=np.intp), 0, probes, own_rows, own_points)
        rival = np.full((len(probes), len(self.bounds) - 1), -np.inf, dtype=np.float32)
        rivals = np.zeros(rival.shape, dtype=np.intp)
        for group, (start, stop) in enumerate(pairwise(self.bounds)):
            if start == stop:
                continue
            inside = (start <= own_points) & (own_points < stop)
            blocks = [*self._blocks(start, stop, own_rows[inside], own_points[inside])]
            found = self._candidates(narrow, blocks)
            if found is None:
                rival[:, group], rivals[:, group] = self._in_tables(probes, blocks)
            else:
                self._keep(rival, rivals, group, probes, *found)
        return own[:, 0], rival, rivals

    def _own(self, labels: Labels) -> tuple[Labels, Labels]:
        """Return (row, point) of every point of each probe's own identity."""
        counts = self.count[labels]
        rows = np.repeat(np.arange(len(labels)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, self.first[labels[rows]] + within

    def _blocks(self, start: int, stop: int, own_rows: Labels, own_points: Labels) -> Iterator[_Block]:
        """Yield the parts of a group's points, each with the places of probes' own points in its table of scores."""
        for first in range(start, stop, self.width):
            part = slice(first, min(first + self.width, stop))
            inside = (part.start <= own_points) & (own_points < part.stop)
            yield _Block(part, (own_rows[inside], own_points[inside] - first))

    def _candidates(self, probes: Scores, blocks: list[_Block]) -> tuple[Labels, Labels] | None:
        """Return (row, point) of all that could be the best of their row, sorted by row.

        Returns:
            None where there are so many that a product of all in float64 is quicker.
        """
        most = _MANY * len(probes) * sum(block.part.stop - block.part.start for block in blocks)
        near = _Near(np.full(len(probes), -np.inf, dtype=np.float32), self.margin_of_error)
        # One table for all blocks: fresh pages take as long as a third of the product.
        table = np.empty(len(probes) * self.width, dtype=np.float32)
        for block in blocks:
            those = self.narrow[block.part].T
            scores = table[: len(probes) * those.shape[1]].reshape(len(probes), -1)
            np.matmul(probes, those, out=scores)
            scores[block.left_out] = -np.inf
            if not near.add(scores, block.part.start, most):
                return None
        return near.found()

    def _keep(
        self,
        best: Scores,
        whose: Labels,
        column: int,
        probes: NDArray[np.float64],
        rows: Labels,
        points: Labels,
    ) -> None:
        """Write the best of some pairs of probe and point, of equals the first label, into a column."""
        for part in _whole_rows(rows):
            row, point = rows[part], points[part]
            found = self._exact(probes, row, point)
            order = np.lexsort((self.labels[point], -found, row))
            row, point, found = row[order], point[order], found[order]
            leads = np.flatnonzero(np.diff(row, prepend=-1))
            best[row[leads], column] = found[leads]
            whose[row[leads], column] = self.labels[point[leads]]

    def _in_tables(self, probes: NDArray[np.float64], blocks: list[_Block]) -> tuple[Scores, Labels]:
        """Return the best of each probe and whose it is, of a group that float32 cannot tell apart, all in float64."""
        best = np.full(len(probes), -np.inf, dtype=np.float32)
        whose = np.full(len(probes), self.labels[blocks[0].part.start])
        for block in blocks:
            found = (probes @ unit(self.vectors[self.order[block.part]]).T).astype(np.float32)
            found[block.left_out] = -np.inf
            first = found.argmax(
                axis=1
            )  # of equals the first: points stand by label, in a block and among blocks
            score = found[np.arange(len(found)), first]
            better = score > best
            best[better], whose[better] = score[better], self.labels[block.part.start + first[better]]
        return best, whose

    def _exact(self, probes: NDArray[np.float64], rows: Labels, points: Labels) -> Scores:
        """Return the cosine of each pair, in float64, as it is stored."""
        found = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            those = unit(self.vectors[self.order[points[part]]])
            found[part] = np.einsum("ij,ij->i", probes[rows[part]], those)
        return found


def _whole_rows(rows: Labels) -> list[slice]:
    """Return parts of sorted rows, of `_PAIRS` each or some more, that end where a row ends."""
    ends = [*range(_PAIRS, len(rows), _PAIRS)]
    cuts = [0, *dict.fromkeys(int(np.searchsorted(rows, rows[end])) for end in ends), len(rows)]
    return [slice(a, b) for a, b in pairwise(cuts) if a < b]
