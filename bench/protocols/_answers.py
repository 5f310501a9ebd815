"""Answers of a tracker to every probe in every rotation, found in blocks of probes: memory stays flat however many.

A head whose scores of a class depend on that class's photos alone needs no training for each rotation, and no table of
all probes × all identities: per probe and per group of identities that are protected together, the best score with and
without cloaks decides every rotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.protocols._rotation import Gallery, Probes, scores_by_fold
from bench.protocols.heads import Head, Labels, Scorer, Scores, Vectors

BLOCK_BYTES = 1 << 26
"""What a block of probes may take as float64 scores of every gallery photo."""


@dataclass(frozen=True)
class Answers:
    """One rotation's answers.

    Attributes:
        answer: label of the identity with the highest score, of equals the first; M.
        score: that score; −inf where no identity has a photo.
        margin: the true identity's score minus the best other one; NaN where either has no photo.
    """

    answer: Labels
    score: Scores
    margin: Scores

    @classmethod
    def of(cls, scores: Scores, labels: Labels) -> Answers:
        """Return the answers by the M×K scores of one rotation, for probes of the identities `labels`."""
        own, others = _apart(scores.copy(), labels)
        rival = others.argmax(axis=1)
        return cls.against(own, labels, others[np.arange(len(others)), rival], rival)

    @classmethod
    def against(cls, own: Scores, labels: Labels, rival: Scores, rivals: Labels) -> Answers:
        """Return the answers by each probe's own score and that of its best rival, with whose labels they are."""
        wins = (own > rival) | ((own == rival) & (labels < rivals))
        known = np.isfinite(own) & np.isfinite(rival)
        margin = np.full(len(own), np.nan, dtype=np.float32)
        np.subtract(own, rival, out=margin, where=known)
        return cls(np.where(wins, labels, rivals), np.where(wins, own, rival), margin)

    def part(self, rows: slice) -> Answers:
        """Return the answers to some of the probes."""
        return Answers(self.answer[rows], self.score[rows], self.margin[rows])


def answers_by_fold(
    head: Head, gallery: Gallery, probes: Probes, block_bytes: int = BLOCK_BYTES
) -> Iterator[Answers]:
    """Yield the answers of each rotation.

    Args:
        head: of the tracker.
        gallery: in both states of every identity.
        probes: likewise.
        block_bytes: see `BLOCK_BYTES`; decides memory alone.

    Raises:
        MethodError: embeddings are not finite, or the head does not converge.
    """
    if not head.separable:
        for scores in scores_by_fold(head, gallery, probes):
            yield Answers.of(scores, probes.labels)
        return
    search = _Search(gallery, probes, block_bytes)
    nobody = np.zeros(len(gallery.identities), dtype=bool)
    normal = search.both(gallery.fit(head, nobody))
    cloaked = normal if gallery.unaltered.all() else search.both(gallery.fit(head, ~nobody))
    for fold in range(gallery.folds):
        found = [
            before.with_cloaked(after, fold, own_cloaked=protected)
            for before, after, protected in zip(normal, cloaked, (False, True), strict=True)
        ]
        is_protected = gallery.fold[probes.labels] == fold
        own, rival, rivals = (np.where(is_protected, b, a) for a, b in zip(*found, strict=True))
        yield Answers.against(own, probes.labels, rival, rivals)


@dataclass(frozen=True)
class _Best:
    """What a search finds for each probe.

    Attributes:
        own: the score of its own identity, M.
        rival: the best score of others in each group that is protected together, M×folds.
        rivals: whose it is, of equals the first; M×folds.
    """

    own: Scores
    rival: Scores
    rivals: Labels

    def with_cloaked(self, cloaked: _Best, fold: int, *, own_cloaked: bool) -> tuple[Scores, Scores, Labels]:
        """Return own score, best rival's, and whose it is, where one group is cloaked.

        Args:
            cloaked: found with everybody cloaked.
            fold: the group.
            own_cloaked: whether the probe's own identity is in it.
        """
        rival, rivals = self.rival.copy(), self.rivals.copy()
        rival[:, fold], rivals[:, fold] = cloaked.rival[:, fold], cloaked.rivals[:, fold]
        best = rival.max(axis=1)
        first = np.where(rival == best[:, None], rivals, np.iinfo(np.intp).max).min(axis=1)
        return cloaked.own if own_cloaked else self.own, best, first


class _Search:
    """Asks a trained head for all probes, block by block.

    Args:
        gallery: whose identities are searched.
        probes: that ask.
        block_bytes: see `BLOCK_BYTES`.
    """

    def __init__(self, gallery: Gallery, probes: Probes, block_bytes: int) -> None:
        self.probes = probes
        self.groups = [np.flatnonzero(gallery.fold == fold) for fold in range(gallery.folds)]
        photos = max(
            len(gallery.identities), *(sum(map(len, rows)) for rows in (gallery.natural, gallery.protected))
        )
        self.rows = max(1, block_bytes // (8 * photos))

    def both(self, scorer: Scorer) -> tuple[_Best, _Best]:
        """Return what natural and what protected probes find."""
        natural = self.best(scorer, self.probes.natural)
        return natural, natural if self.probes.unaltered else self.best(scorer, self.probes.protected)

    def best(self, scorer: Scorer, vectors: Vectors) -> _Best:
        """Return what some state of the probes finds."""
        blocks = [
            self._block(
                scorer(vectors[start : start + self.rows]), self.probes.labels[start : start + self.rows]
            )
            for start in range(0, len(vectors), self.rows)
        ]
        return _Best(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))

    def _block(self, scores: Scores, labels: Labels) -> tuple[Scores, Scores, Labels]:
        own, others = _apart(scores, labels)
        rival = np.full((len(scores), len(self.groups)), -np.inf, dtype=np.float32)
        rivals = np.zeros(rival.shape, dtype=np.intp)
        every = np.arange(len(scores))
        for fold, members in enumerate(self.groups):
            if len(members):
                of_group = others[:, members]
                first = of_group.argmax(axis=1)
                rival[:, fold], rivals[:, fold] = of_group[every, first], members[first]
        return own, rival, rivals


def _apart(scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
    """Return each probe's own score and, in the same memory, the scores of all others: its own is −inf there."""
    every = np.arange(len(scores))
    own = scores[every, labels]
    scores[every, labels] = -np.inf
    return own, scores


def decision_rows(fold: int, gallery: Gallery, probes: Probes, answers: Answers) -> Any:
    """Return one rotation's decisions as a data frame."""
    import pandas as pd

    names = np.array(gallery.identities, dtype=object)
    answered = np.isfinite(answers.score)
    predicted = names[answers.answer]
    predicted[~answered] = None
    return pd.DataFrame(
        {
            "fold": np.full(len(answered), fold, dtype=np.int16),
            "identity": names[probes.labels],
            "image": np.array(probes.images, dtype=object),
            "protected": gallery.fold[probes.labels] == fold,
            "predicted": predicted,
            "correct": answered & (answers.answer == probes.labels),
            "score": np.where(answered, answers.score, np.float32(np.nan)),
            "margin": answers.margin,
        }
    )


def decisions_by_fold(head: Head, gallery: Gallery, probes: Probes) -> Iterator[Any]:
    """Yield the decisions of each rotation, a data frame each; see `answers_by_fold`."""
    for fold, answers in enumerate(answers_by_fold(head, gallery, probes)):
        yield decision_rows(fold, gallery, probes, answers)
