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

from bench.protocols._nearest import Best, NearestPoints
from bench.protocols._rotation import Gallery, Probes, scores_by_fold
from bench.protocols.heads import Head, Labels, Points, Scores

BLOCK_BYTES = 1 << 22
"""What a block of probes × gallery photos may take as float32 scores."""


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
    nobody = np.zeros(len(gallery.identities), dtype=bool)
    points = head.points(*gallery.chosen(nobody))
    if points is None:
        for scores in scores_by_fold(head, gallery, probes):
            yield Answers.of(scores, probes.labels)
        return
    normal = _both(points, gallery, probes, block_bytes)
    if gallery.unaltered.all():
        cloaked = normal
    else:
        points = head.points(*gallery.chosen(~nobody))
        assert points is not None, "a head has points for every gallery or for none"
        cloaked = _both(points, gallery, probes, block_bytes)
    for fold in range(gallery.folds):
        found = [
            _with_cloaked(before, after, fold, own_cloaked=protected)
            for before, after, protected in zip(normal, cloaked, (False, True), strict=True)
        ]
        is_protected = gallery.fold[probes.labels] == fold
        own, rival, rivals = (np.where(is_protected, b, a) for a, b in zip(*found, strict=True))
        yield Answers.against(own, probes.labels, rival, rivals)


def _both(points: Points, gallery: Gallery, probes: Probes, block_bytes: int) -> tuple[Best, Best]:
    """Return what natural and what protected probes find; identities that are protected together are a group."""
    search = NearestPoints(points, gallery.fold, block_bytes)
    natural = search.best(probes.natural, probes.labels)
    return natural, natural if probes.unaltered else search.best(probes.protected, probes.labels)


def _with_cloaked(
    natural: Best, cloaked: Best, fold: int, *, own_cloaked: bool
) -> tuple[Scores, Scores, Labels]:
    """Return own score, best rival's, and whose it is, where one group is cloaked.

    Args:
        natural: found with nobody cloaked.
        cloaked: found with everybody cloaked.
        fold: the group.
        own_cloaked: whether the probe's own identity is in it.
    """
    rival, rivals = natural.rival.copy(), natural.rivals.copy()
    rival[:, fold], rivals[:, fold] = cloaked.rival[:, fold], cloaked.rivals[:, fold]
    best = rival.max(axis=1)
    first = np.where(rival == best[:, None], rivals, np.iinfo(np.intp).max).min(axis=1)
    return cloaked.own if own_cloaked else natural.own, best, first


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
