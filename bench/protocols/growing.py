"""The growing protocol: a tracker that starts with one clean photo an identity and keeps every photo it recognises.

Cloaks are made against a tracker whose gallery stays as it is. One that is used files the photos it recognises: what
lies near a photo that was filed is recognised next, also where it lies far from the clean photo.
`docs/protocols/growing.md` states it in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts import Attack, Decided, Defense, Embedded, Identity, Trial, View
from bench.errors import unknown
from bench.protocols._answers import Answers, decision_rows
from bench.protocols._rotation import Gallery, Probes, Rotation, RotationParams
from bench.protocols.heads import Labels, Scores, Vectors, unit
from bench.protocols.thresholds import cosines
from bench.protocols.verification import draw_impostors, operating_points, threshold_facts
from bench.stats.intervals import rate_interval

BLOCK = 4096
"""Photos that queries are compared with at a time, at most."""


class GrowingProtocol(Rotation):
    """Rotation over identities; the protected ones post cloaks, and whatever is recognised joins the gallery."""

    name = "growing"
    paper = (
        "Fan et al., DivTrackee versus DynTracker (arXiv 2501.06533, 2025), for the gallery that grows; photos, "
        "threshold and rotation are ours"
    )
    heads = ("nn",)
    question = "grown"

    class Params(RotationParams):
        """How photos are dealt, and at what score a query is recognised."""

        max_gallery: int = Field(
            1,
            ge=1,
            description="clean photos an identity that the tracker starts with, at most",
            json_schema_extra={"unit": "photos"},
        )
        cloaked_share: float = Field(
            1.0,
            ge=1,
            le=1,
            description="always 1: a protected identity cloaks every query, and no photo of the start",
        )
        far: float = Field(
            0.001,
            gt=0,
            lt=1,
            description="false-accept rate of the threshold from which a query is recognised",
            json_schema_extra={"unit": "share"},
        )
        impostors: int = Field(
            1000,
            ge=2,
            description="impostors the threshold is set on, one photo each; all there are where there are fewer",
            json_schema_extra={"unit": "identities"},
        )
        queries_defended: bool = Field(
            True,
            description="whether queries go through the defence too: they are photos that may join the gallery",
        )

    params: Params

    @property
    def views(self) -> Mapping[str, View]:
        """The photos of the start, queries in both states, and impostors in both places."""
        defended = self.params.queries_defended
        return {
            "gallery": View(photos="gallery"),
            "probes": View(photos="probes", defended=defended),
            "cloaked probes": View(photos="probes", state="cloaked", defended=defended),
            "enrolled impostors": View(photos="impostors"),
            "presented impostors": View(photos="impostors", defended=defended),
        }

    def refuse(self, attack: Attack, defense: Defense) -> str:
        """Refuse attacks that look at all photos of an identity: queries are posted one by one."""
        del defense
        if attack.changes_images and not attack.cloaks_later_photos:
            return (
                "the attack makes a cloak from all gallery photos of an identity, and here cloaked photos are posted "
                "one by one. Use an attack of scope image, or protocol tracker."
            )
        return ""

    def impostors(self, identities: Sequence[Identity], split_seed: int) -> Mapping[str, tuple[str, ...]]:
        """Draw impostors, with the first photo of each.

        Raises:
            UsageError: fewer than two identities.
        """
        return draw_impostors(self.name, identities, split_seed, self.params.impostors)

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return what becomes of every query in every rotation: with the photos of the start alone, and in the end.

        A query is recognised where its best cosine is at least the threshold, as the identity that this photo is filed
        under, of equals the first by id. The queries that are recognised in a round join the gallery together, and the
        rest are asked again, until nobody is recognised any more.

        Raises:
            UsageError: the head is not known.
            MethodError: a query is missing, or embeddings are not finite.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        rate = self.params.far
        sides = views["enrolled impostors"], views["presented impostors"]
        facts = threshold_facts(rate, operating_points(*sides, (rate,))[rate])
        names = tuple(f"{when}, FAR {100 * rate:g} %" for when in ("start", "grown"))
        gallery = Gallery.of(views["gallery"], views["gallery"], trial.split)
        queries = Probes.of(views["probes"], views["cloaked probes"], trial.split, gallery.identities)
        if facts.threshold is None:
            none_of_them = decision_rows(0, gallery, queries, _nothing(queries)).iloc[:0].assign(condition="")
            return Decided(none_of_them, dict.fromkeys(names, facts))
        start = Filed.of(gallery)
        rounds = [_rotation(fold, start, gallery, queries, facts.threshold) for fold in range(gallery.folds)]
        frames = [
            pd.concat([both[k] for both in rounds], ignore_index=True).assign(condition=name)
            for k, name in enumerate(names)
        ]
        grown = facts if queries.unaltered else facts.model_copy(update=_cloaked(frames[1], start, gallery))
        return Decided(pd.concat(frames, ignore_index=True), dict(zip(names, (facts, grown), strict=True)))


@dataclass(frozen=True)
class Filed:
    """Photos that a tracker has, each under an identity.

    Attributes:
        vectors: N×D embeddings of unit length.
        labels: N, the identity each is filed under, ascending.
    """

    vectors: Vectors
    labels: Labels

    @classmethod
    def of(cls, gallery: Gallery) -> Filed:
        """Return the photos of a gallery as they are while nobody is protected."""
        vectors, labels = gallery.chosen(np.zeros(len(gallery.identities), dtype=bool))
        return cls(unit(vectors), labels)

    @classmethod
    def sorted(cls, vectors: Vectors, labels: Labels) -> Filed:
        """Return photos in the order of the identities they are filed under."""
        order = np.argsort(labels, kind="stable")
        return cls(vectors[order], labels[order])


def grow(start: Filed, queries: Vectors, labels: Labels, threshold: float) -> tuple[Answers, Answers]:
    """Return the answers to queries with the photos of the start alone, and at the fixed point.

    Label and score are those of the photo that is nearest; below the threshold that is no answer yet. What was
    recognised keeps the answer it had when it joined.

    Args:
        start: the photos the tracker begins with.
        queries: M×D embeddings of unit length.
        labels: M, whose photo each query is.
        threshold: a query is recognised from this cosine on.
    """
    nearest = _Nearest.without_photos(len(queries))
    waiting = np.arange(len(queries))
    nearest.meet(start, queries, labels, waiting)
    first = found = nearest.answers(labels)
    while len(recognised := waiting[found.score[waiting] >= np.float64(threshold)]):
        waiting = np.setdiff1d(waiting, recognised, assume_unique=True)
        nearest.meet(Filed.sorted(queries[recognised], found.answer[recognised]), queries, labels, waiting)
        found = _replaced(found, nearest.answers(labels), waiting)
    return first, found


@dataclass
class _Nearest:
    """Of each query, the best cosine with a photo under its own name and under another, and which name that is."""

    own: Scores
    rival: Scores
    rivals: Labels

    @classmethod
    def without_photos(cls, queries: int) -> _Nearest:
        nothing = np.full(queries, -np.inf, dtype=np.float32)
        return cls(nothing, nothing.copy(), np.zeros(queries, dtype=np.intp))

    def meet(self, filed: Filed, queries: Vectors, labels: Labels, waiting: NDArray[np.intp]) -> None:
        """Compare the queries that wait with more photos."""
        for first in range(0, len(filed.labels) if len(waiting) else 0, BLOCK):
            part = slice(first, first + BLOCK)
            scores, whose = cosines(queries[waiting], filed.vectors[part]), filed.labels[part]
            is_own = whose == labels[waiting][:, None]
            self.own[waiting] = np.maximum(self.own[waiting], np.where(is_own, scores, -np.inf).max(axis=1))
            others = np.where(is_own, np.float32(-np.inf), scores)
            place = others.argmax(axis=1)  # of equals the first, which is the first by label
            best, name = others[np.arange(len(others)), place], whose[place]
            before, its = self.rival[waiting], self.rivals[waiting]
            better = (best > before) | ((best == before) & (name < its))
            self.rival[waiting], self.rivals[waiting] = (
                np.where(better, best, before),
                np.where(better, name, its),
            )

    def answers(self, labels: Labels) -> Answers:
        return Answers.against(self.own, labels, self.rival, self.rivals)


def _replaced(kept: Answers, now: Answers, rows: NDArray[np.intp]) -> Answers:
    """Return answers with those of some rows as they are now."""
    found = Answers(kept.answer.copy(), kept.score.copy(), kept.margin.copy())
    found.answer[rows], found.score[rows], found.margin[rows] = (
        now.answer[rows],
        now.score[rows],
        now.margin[rows],
    )
    return found


def _nothing(queries: Probes) -> Answers:
    return _Nearest.without_photos(len(queries.images)).answers(queries.labels)


def _rotation(
    fold: int, start: Filed, gallery: Gallery, queries: Probes, threshold: float
) -> tuple[Any, Any]:
    """Return one rotation's decisions with the photos of the start alone, and at the fixed point."""
    is_cloaked = (gallery.fold[queries.labels] == fold)[:, None]
    asked = unit(np.where(is_cloaked, queries.protected, queries.natural))
    first, last = grow(start, asked, queries.labels, threshold)
    return _from(threshold, fold, gallery, queries, first), _from(threshold, fold, gallery, queries, last)


def _from(threshold: float, fold: int, gallery: Gallery, queries: Probes, answers: Answers) -> Any:
    """Return decisions that name an answer only where its score is at least the threshold."""
    rows = decision_rows(fold, gallery, queries, answers)
    answered = rows["score"].to_numpy() >= np.float64(threshold)
    return rows.assign(
        predicted=np.where(answered, rows["predicted"], None), correct=rows["correct"].to_numpy() & answered
    )


def _cloaked(rows: Any, start: Filed, gallery: Gallery) -> dict[str, float | None]:
    """Return what share of the photos under a protected identity's name in the end are cloaks: mean and interval."""
    at_first = np.bincount(start.labels, minlength=len(gallery.identities))
    place = {name: label for label, name in enumerate(gallery.identities)}
    filed = rows[rows["predicted"].notna()]
    label = filed["predicted"].map(place).to_numpy(dtype=np.intp)
    of_its_fold = filed["fold"].to_numpy() == gallery.fold[label]
    joined = np.bincount(label[of_its_fold], minlength=len(at_first))
    is_cloak = of_its_fold & filed["protected"].to_numpy()
    cloaks = np.bincount(label[is_cloak], minlength=len(at_first))
    there = at_first + joined > 0
    shares = cloaks[there] / (at_first + joined)[there]
    found = rate_interval(shares, int((at_first + joined)[there].sum()))
    return {
        "gallery_cloaked": found.value,
        "gallery_cloaked_low": found.low,
        "gallery_cloaked_high": found.high,
    }
