"""The identification protocol: which of many identities this is, if any of them (1:N).

Closed set: the true identity among the k best answers, in a gallery with distractors. Open set: the best
answer counts only where its score reaches a threshold, set so that few impostors get an answer at all.
`docs/protocols/identification.md` states it in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from bench.contracts import ConditionFacts, Decided, Embedded, Identity, Split, Trial, View
from bench.errors import UsageError, unknown
from bench.protocols._answers import Answers, decision_rows
from bench.protocols._rotation import Gallery, Probes, Rotation, RotationParams, scores_by_fold
from bench.protocols.heads import Head, Labels, Scores, Vectors, make_head
from bench.protocols.thresholds import thresholds_at
from bench.randomness import numpy_generator, stream_seed
from bench.stats.intervals import rate_interval

LEAST_ACCEPTED = 5
"""Impostors that may get an answer at a threshold, at least, before it is believed."""


class IdentificationProtocol(Rotation):
    """Rotation over identities, in a gallery with impostors, requested the k best and with a threshold."""

    name = "identification"
    paper = (
        "Phillips et al., FRGC (CVPR 2005) for rank-k; ISO/IEC 19795-1 and NIST FRVT 1:N for FPIR and FNIR"
    )
    heads = ("nn", "centroid")
    question = "rank 1"
    several_views = True
    renamed: ClassVar[Mapping[str, str]] = {"strangers": "impostors"}

    class Params(RotationParams):
        """Ranks, distractors in the gallery, and impostors outside it."""

        ranks: tuple[int, ...] = Field(
            (1, 5, 10),
            description="a probe is recognised when the true identity is among so many best answers; joined by '|'",
            json_schema_extra={"unit": "identities"},
        )
        distractors: int = Field(
            1000,
            ge=0,
            description="identities in the gallery who are not evaluated, one photo each",
            json_schema_extra={"unit": "identities"},
        )
        fpir: float | None = Field(
            0.01,
            gt=0,
            lt=1,
            description="open set: share of impostors' photos that may get an answer; none: closed set only",
            json_schema_extra={"unit": "share"},
        )
        impostors: int = Field(
            2000,
            ge=2,
            description="identities outside the gallery, one photo each: half set the open set's "
            "threshold, half test it",
            json_schema_extra={"unit": "identities"},
        )

        @field_validator("ranks")
        @classmethod
        def _are_ranks(cls, ranks: tuple[int, ...]) -> tuple[int, ...]:
            if not ranks or len(set(ranks)) < len(ranks) or min(ranks) < 1:
                raise ValueError("needs one rank or more, each at least 1 and named once")
            return ranks

        @property
        def needed_identities(self) -> int:
            """How many identities are needed that are not evaluated."""
            return self.distractors + (0 if self.fpir is None else self.impostors)

    params: Params

    @property
    def views(self) -> Mapping[str, View]:
        """The gallery goes through the defence, probes do not; so do distractors, and impostors do not."""
        views = {
            "gallery": View(photos="gallery"),
            "cloaked gallery": View(photos="gallery", state="cloaked"),
            "probes": View(photos="probes", defended=False),
        }
        if self.params.distractors:
            views["enrolled impostors"] = View(photos="impostors")
            views["decoys"] = View(photos="impostors", state="cloaked")
        if self.params.fpir is not None:
            views["presented impostors"] = View(photos="impostors", defended=False)
        return views

    def impostors(self, identities: Sequence[Identity], split_seed: int) -> Mapping[str, tuple[str, ...]]:
        """Draw distractors and impostors, with the first photo of each.

        Raises:
            UsageError: too few identities.
        """
        ordered = sorted((p for p in identities if p.role == "training"), key=lambda p: p.id)
        needed = self.params.needed_identities
        if len(ordered) < needed:
            raise UsageError(
                f"protocol '{self.name}' needs {needed} identities that are not evaluated "
                f"({self._needs()}), the dataset "
                f"has {len(ordered)}. Lower distractors or impostors, e.g. {self._fitting(len(ordered))}."
            )
        order = numpy_generator(split_seed, "background").permutation(len(ordered))
        return {ordered[i].id: ordered[i].photos[:1] for i in sorted(order[:needed])}

    def given_targets(
        self, split: Split, impostors: Mapping[str, tuple[str, ...]], pool: Sequence[str], split_seed: int
    ) -> Mapping[str, str]:
        """Return distractor → the evaluated identity that a decoy of its photo protects, as evenly as it goes."""
        del pool, split_seed
        return decoys_of(split, deal_roles(impostors, self.params.distractors).distractors)

    def _needs(self) -> str:
        params = self.params
        distractors = f"distractors={params.distractors}"
        return distractors if params.fpir is None else f"{distractors}, impostors={params.impostors}"

    def _fitting(self, identities: int) -> str:
        """Return a call that so many identities are enough for, its open set included."""
        half = identities // 2
        if self.params.fpir is None or half // 2 <= LEAST_ACCEPTED:
            return f"{self.name}:distractors={identities},fpir=none"
        # The least FPIR, in whole per cent, at which half of the impostors can set a threshold.
        fpir = max(self.params.fpir, math.ceil(100 * LEAST_ACCEPTED / (half // 2)) / 100)
        return f"{self.name}:distractors={identities - half},impostors={half},fpir={fpir:g}"

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the decision for every probe in every rotation, at every rank and at the threshold.

        Of equal scores the first identity by id is the better answer, evaluated identities before distractors.

        Raises:
            UsageError: the head is not known.
            MethodError: a probe is missing, or embeddings are not finite.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        roles = deal_roles(trial.impostors, self.params.distractors)
        search = Search.of(make_head(trial.head), views, trial, roles.distractors)
        results = tuple(search.results())
        facts: dict[str, ConditionFacts] = {}
        frames = []
        for rank in self.params.ranks:
            name = f"rank {rank}"
            facts[name] = ConditionFacts(reason=search.always_reached(rank))
            if not facts[name].reason:
                frames += [answer.within(rank).assign(condition=name) for answer in results]
        if self.params.fpir is not None:
            name = f"open set, FPIR {100 * self.params.fpir:g} %"
            facts[name] = open_set(search, views["presented impostors"], roles, self.params.fpir)
            threshold = facts[name].threshold
            if threshold is not None:
                frames += [answer.from_score(threshold).assign(condition=name) for answer in results]
        # Where there is nothing to answer, the columns stay.
        rows = pd.concat(frames or [results[0].best.iloc[:0].assign(condition="")], ignore_index=True)
        return Decided(rows, facts)


# -- who of the background does what -------------------------------------------------------------------------


@dataclass(frozen=True)
class Roles:
    """The identities that are not evaluated, each in one role, sorted by id.

    Attributes:
        distractors: in the gallery.
        setting: outside; their scores set the threshold.
        testing: outside; their scores test it.
    """

    distractors: tuple[str, ...]
    setting: tuple[str, ...]
    testing: tuple[str, ...]


def deal_roles(impostors: Mapping[str, Any], distractors: int) -> Roles:
    """Deal identities into roles, by their ids alone."""
    order = sorted(impostors, key=lambda identity: stream_seed(0, "role", identity))
    others = order[distractors:]
    half = len(others) // 2
    parts = (order[:distractors], others[:half], others[half:])
    return Roles(*(tuple(sorted(part)) for part in parts))


def decoys_of(split: Split, distractors: Sequence[str]) -> Mapping[str, str]:
    """Return distractor → evaluated identity that it protects by a decoy, where an attack makes any.

    Args:
        split: of the run.
        distractors: identities that are in the gallery and not evaluated.
    """
    protected = sorted(split.gallery)
    # In blocks: decoys of one identity lie together in a shard, and are made together.
    return {
        name: protected[place * len(protected) // len(distractors)] for place, name in enumerate(distractors)
    }


# -- searching the gallery -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distractors:
    """Identities in the gallery who are not evaluated, each with a photo, natural or a decoy.

    Attributes:
        identities: ids, N; a defence may have dropped the natural photo or the decoy of one.
        natural: embeddings, and the place in `identities` of each.
        decoys: the same of the photos as they are while somebody is protected by them.
        fold: the rotation in which each one's decoy takes the place of its photo, N.
    """

    identities: tuple[str, ...]
    natural: tuple[Vectors, Labels]
    decoys: tuple[Vectors, Labels]
    fold: NDArray[np.intp]

    @classmethod
    def of(cls, views: Mapping[str, Embedded], split: Split, distractors: Sequence[str]) -> Distractors:
        """Return those of `distractors` of whom a photo or a decoy is in the views."""
        nobody = Embedded(np.zeros((0, 0), dtype=np.float32), (), ())
        natural = views.get("enrolled impostors", nobody)
        decoys = views.get("decoys", natural)
        there = {*natural.identities, *decoys.identities}
        identities = tuple(name for name in distractors if name in there)
        protects = decoys_of(split, distractors)
        fold = np.array([split.fold[protects[name]] for name in identities], dtype=np.intp)
        enrolled = _enrolled(natural, identities)
        return cls(
            identities, enrolled, enrolled if decoys is natural else _enrolled(decoys, identities), fold
        )

    def scores(self, head: Head, probes: Vectors) -> tuple[Scores, Scores]:
        """Return the scores of each distractor's photo and of its decoy, M×N each; -inf where there is none."""
        natural = self._scores(head, probes, *self.natural)
        return natural, natural if self.decoys is self.natural else self._scores(head, probes, *self.decoys)

    def _scores(self, head: Head, probes: Vectors, vectors: Vectors, whose: Labels) -> Scores:
        if not len(vectors):
            return np.full((len(probes), len(self.identities)), -np.inf, dtype=np.float32)
        return head.fit(vectors, whose, len(self.identities))(probes)


@dataclass(frozen=True)
class Search:
    """A gallery of evaluated identities and distractors, ready to be asked.

    Attributes:
        head: gives each class's score by that class's photos alone.
        gallery: the evaluated identities.
        distractors: the others.
        everyone: `gallery` with the distractors' ids behind, for naming answers.
        probes: the evaluated identities' probes.
    """

    head: Head
    gallery: Gallery
    distractors: Distractors
    everyone: Gallery
    probes: Probes

    @classmethod
    def of(
        cls, head: Head, views: Mapping[str, Embedded], trial: Trial, distractors: Sequence[str]
    ) -> Search:
        """Return the search of one cell; a distractor whose photo a defence dropped is not in the gallery."""
        gallery = Gallery.of(views["gallery"], views["cloaked gallery"], trial.split)
        others = Distractors.of(views, trial.split, distractors)
        return cls(
            head=head,
            gallery=gallery,
            distractors=others,
            everyone=replace(gallery, identities=(*gallery.identities, *others.identities)),
            probes=Probes.of(views["probes"], views["probes"], trial.split, gallery.identities),
        )

    def scores(self, probes: Probes) -> Iterator[Scores]:
        """Yield, for each rotation, the scores of everyone in the gallery: M×(K + N), distractors last."""
        natural, decoys = self.distractors.scores(self.head, probes.natural)
        for fold, scores in enumerate(scores_by_fold(self.head, self.gallery, probes)):
            yield np.hstack([scores, np.where(self.distractors.fold == fold, decoys, natural)])

    def results(self) -> Iterator[Results]:
        """Yield the answers to the probes in each rotation."""
        for fold, scores in enumerate(self.scores(self.probes)):
            best = decision_rows(fold, self.everyone, self.probes, Answers.of(scores, self.probes.labels))
            yield Results(best, scores, self.probes.labels)

    def always_reached(self, rank: int) -> str:
        """Say why a rank tells nothing of this gallery, or return ""."""
        identities = len(self.everyone.identities)
        return f"everyone is among the {rank} best of {identities} identities" if rank >= identities else ""

    def best_scores(self, presented: Embedded, identities: Sequence[str]) -> Scores:
        """Return the score of the best answer to each of `identities` in each rotation, len(identities) × folds."""
        found, vectors = one_photo_each(presented, identities)
        requested = Probes(found, np.zeros(len(found), dtype=np.intp), vectors, vectors)
        return np.stack([scores.max(axis=1) for scores in self.scores(requested)], axis=1)


def _enrolled(view: Embedded, identities: Sequence[str]) -> tuple[Vectors, Labels]:
    """Return the embeddings of `identities` in the view, and the place in `identities` of each, in this order."""
    place = {identity: number for number, identity in enumerate(identities)}
    rows = [row for row, identity in enumerate(view.identities) if identity in place]
    whose: Labels = np.array([place[view.identities[row]] for row in rows], dtype=np.intp)
    order = np.argsort(whose, kind="stable")
    return np.asarray(view.vectors)[np.array(rows, dtype=np.intp)[order]], whose[order]


def one_photo_each(view: Embedded, identities: Sequence[str]) -> tuple[tuple[str, ...], Vectors]:
    """Return those of `identities` whose photo is in the view, and their embeddings, in the order of `identities`."""
    rows = {identity: row for row, identity in enumerate(view.identities)}
    found = tuple(identity for identity in identities if identity in rows)
    return found, np.asarray(view.vectors)[[rows[identity] for identity in found]]


# -- answers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """One rotation's answers.

    Attributes:
        best: decisions that name the best answer, a data frame.
        scores: M×(K + N), in the order of `best`.
        labels: column of each probe's identity, M.
    """

    best: Any
    scores: Scores
    labels: Labels

    def within(self, rank: int) -> Any:
        """Return decisions that name the true identity where it is among the `rank` best, else the best answer."""
        found = ranks_of(self.scores, self.labels) <= rank
        own = self.scores[np.arange(len(self.scores)), self.labels]
        return self.best.assign(
            predicted=np.where(found, self.best["identity"], self.best["predicted"]),
            correct=found,
            score=np.where(found, own, self.best["score"].to_numpy()),
        )

    def from_score(self, threshold: float) -> Any:
        """Return decisions that name the best answer only where its score is at least `threshold`."""
        answered = self.best["score"].to_numpy() >= np.float64(threshold)
        return self.best.assign(
            predicted=np.where(answered, self.best["predicted"], None),
            correct=self.best["correct"].to_numpy() & answered,
        )


def ranks_of(scores: Scores, labels: Labels) -> NDArray[np.intp]:
    """Return the rank of each probe's true identity, 1 for the best answer; of equals the first column is better.

    An identity without a photo in the gallery (score −inf) has no rank: it gets one no k reaches.

    Args:
        scores: M×K.
        labels: column of each probe's identity.
    """
    own = scores[np.arange(len(scores)), labels][:, None]
    better = (scores > own).sum(axis=1)
    before = ((scores == own) & (np.arange(scores.shape[1]) < labels[:, None])).sum(axis=1)
    unreachable = np.iinfo(np.intp).max
    return np.asarray(np.where(np.isfinite(own[:, 0]), 1 + better + before, unreachable), dtype=np.intp)


def open_set(search: Search, presented: Embedded, roles: Roles, fpir: float) -> ConditionFacts:
    """Return the threshold that half of the impostors set, and the FPIR of the other half with its interval.

    Args:
        search: the gallery.
        presented: the impostors' photos.
        roles: who sets and who tests.
        fpir: share of (impostor, rotation) pairs that may get an answer.
    """
    facts = ConditionFacts(rate_name="FPIR", rate_wanted=fpir)
    if fpir * len(roles.setting) < LEAST_ACCEPTED:
        needed = math.ceil(LEAST_ACCEPTED / fpir)
        reason = f"a threshold for an FPIR of {fpir} needs {needed} impostors to set it, it has {len(roles.setting)}"
        return facts.model_copy(update={"reason": reason})
    setting, testing = (
        search.best_scores(presented, identities) for identities in (roles.setting, roles.testing)
    )
    if not np.isfinite(setting).all():
        return facts.model_copy(update={"reason": "the defence left no photo in the gallery"})
    (threshold,) = thresholds_at(setting, [fpir])
    rates = (testing >= threshold).mean(axis=1)
    measured = rate_interval(rates, len(rates))
    return facts.model_copy(
        update={
            "threshold": float(threshold),
            "rate": measured.value,
            "rate_low": measured.low,
            "rate_high": measured.high,
            "pairs": len(setting),
            "identities": len(setting),
        }
    )
