"""The identification protocol: which of many people this is, if any of them (1:N).

Closed set: the true identity among the k best answers, in a gallery with distractors. Open set: the best
answer counts only where its score reaches a threshold, set so that few strangers get an answer at all.
`docs/protocols/identification.md` states it in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from bench.contracts import ConditionFacts, Decided, Embedded, Identity, Trial, View
from bench.errors import UsageError, unknown
from bench.heads import Head, Labels, Scores, Vectors, make_head
from bench.impostors import thresholds_at
from bench.protocols._rotation import (
    Gallery,
    Probes,
    Rotation,
    RotationParams,
    decision_rows,
    scores_by_fold,
)
from bench.randomness import numpy_generator, stream_seed
from bench.statistics import rate_interval

LEAST_ACCEPTED = 5
"""Strangers that may get an answer at a threshold, at least, before it is believed."""


class IdentificationProtocol(Rotation):
    """Rotation over identities, in a gallery with strangers, asked for the k best and with a threshold."""

    name = "identification"
    paper = (
        "Phillips et al., FRGC (CVPR 2005) for rank-k; ISO/IEC 19795-1 and NIST FRVT 1:N for FPIR and FNIR"
    )
    heads = ("nn", "centroid")

    class Params(RotationParams):
        """Ranks, and the strangers in and before the gallery."""

        ranks: tuple[int, ...] = Field(
            (1, 5, 10),
            description="a probe is recognised when the true identity is among so many best answers; joined by '|'",
            json_schema_extra={"unit": "identities"},
        )
        distractors: int = Field(
            1000,
            ge=0,
            description="people in the gallery who are not evaluated, one photo each",
            json_schema_extra={"unit": "identities"},
        )
        fpir: float | None = Field(
            0.01,
            gt=0,
            lt=1,
            description="open set: share of strangers' photos that may get an answer; none: closed set only",
            json_schema_extra={"unit": "share"},
        )
        strangers: int = Field(
            2000,
            ge=2,
            description="people outside the gallery, one photo each: half set the open set's threshold, half test it",
            json_schema_extra={"unit": "identities"},
        )

        @field_validator("ranks")
        @classmethod
        def _are_ranks(cls, ranks: tuple[int, ...]) -> tuple[int, ...]:
            if not ranks or len(set(ranks)) < len(ranks) or min(ranks) < 1:
                raise ValueError("needs one rank or more, each at least 1 and named once")
            return ranks

        @property
        def background(self) -> int:
            """How many people are needed who are not evaluated."""
            return self.distractors + (0 if self.fpir is None else self.strangers)

    params: Params

    @property
    def views(self) -> Mapping[str, View]:
        """The gallery goes through the defence, probes do not; so do distractors, and strangers do not."""
        views = {
            "gallery": View(photos="gallery"),
            "cloaked gallery": View(photos="gallery", state="cloaked"),
            "probes": View(photos="probes", defended=False),
        }
        if self.params.distractors:
            views["enrolled strangers"] = View(photos="background")
        if self.params.fpir is not None:
            views["presented strangers"] = View(photos="background", defended=False)
        return views

    def background(self, identities: Sequence[Identity], split_seed: int) -> Mapping[str, tuple[str, ...]]:
        """Draw distractors and strangers, with the first photo of each.

        Raises:
            UsageError: too few people.
        """
        people = sorted((p for p in identities if p.role == "training"), key=lambda p: p.id)
        needed = self.params.background
        if len(people) < needed:
            raise UsageError(
                f"protocol '{self.name}' needs {needed} people who are not evaluated ({self._needs()}), the dataset "
                f"has {len(people)}. Lower distractors or strangers, e.g. {self._fitting(len(people))}."
            )
        order = numpy_generator(split_seed, "background").permutation(len(people))
        return {people[i].id: people[i].photos[:1] for i in sorted(order[:needed])}

    def _needs(self) -> str:
        params = self.params
        distractors = f"distractors={params.distractors}"
        return distractors if params.fpir is None else f"{distractors}, strangers={params.strangers}"

    def _fitting(self, people: int) -> str:
        """Return a call that so many people are enough for, its open set included."""
        half = people // 2
        if self.params.fpir is None or half // 2 <= LEAST_ACCEPTED:
            return f"{self.name}:distractors={people},fpir=none"
        # The least FPIR, in whole per cent, at which half of the strangers can set a threshold.
        fpir = max(self.params.fpir, math.ceil(100 * LEAST_ACCEPTED / (half // 2)) / 100)
        return f"{self.name}:distractors={people - half},strangers={half},fpir={fpir:g}"

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the decision for every probe in every rotation, at every rank and at the threshold.

        Of equal scores the first identity by id is the better answer, evaluated people before distractors.

        Raises:
            UsageError: the head is not known.
            MethodError: a probe is missing, or embeddings are not finite.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        roles = deal_roles(trial.background, self.params.distractors)
        search = Search.of(make_head(trial.head), views, trial, roles.distractors)
        answers = tuple(search.answers())
        facts: dict[str, ConditionFacts] = {}
        frames = []
        for rank in self.params.ranks:
            name = f"rank {rank}"
            facts[name] = ConditionFacts(reason=search.always_reached(rank))
            if not facts[name].reason:
                frames += [answer.within(rank).assign(condition=name) for answer in answers]
        if self.params.fpir is not None:
            name = f"open set, FPIR {100 * self.params.fpir:g} %"
            facts[name] = open_set(search, views["presented strangers"], roles, self.params.fpir)
            threshold = facts[name].threshold
            if threshold is not None:
                frames += [answer.from_score(threshold).assign(condition=name) for answer in answers]
        # Where there is nothing to answer, the columns stay.
        rows = pd.concat(frames or [answers[0].best.iloc[:0].assign(condition="")], ignore_index=True)
        return Decided(rows, facts)


# -- who of the background does what -------------------------------------------------------------------------


@dataclass(frozen=True)
class Roles:
    """The people who are not evaluated, each in one role, sorted by id.

    Attributes:
        distractors: in the gallery.
        setting: outside; their scores set the threshold.
        testing: outside; their scores test it.
    """

    distractors: tuple[str, ...]
    setting: tuple[str, ...]
    testing: tuple[str, ...]


def deal_roles(background: Mapping[str, Any], distractors: int) -> Roles:
    """Deal people into roles, by their ids alone."""
    order = sorted(background, key=lambda person: stream_seed(0, "role", person))
    strangers = order[distractors:]
    half = len(strangers) // 2
    parts = (order[:distractors], strangers[:half], strangers[half:])
    return Roles(*(tuple(sorted(part)) for part in parts))


# -- searching the gallery -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """A gallery of evaluated people and distractors, ready to be asked.

    Attributes:
        head: gives each class's score by that class's photos alone.
        gallery: the evaluated people.
        distractors: N×D embeddings, one a distractor.
        everyone: `gallery` with the distractors' ids behind, for naming answers.
        probes: the evaluated people's probes.
    """

    head: Head
    gallery: Gallery
    distractors: Vectors
    everyone: Gallery
    probes: Probes

    @classmethod
    def of(
        cls, head: Head, views: Mapping[str, Embedded], trial: Trial, distractors: Sequence[str]
    ) -> Search:
        """Return the search of one cell; a distractor whose photo a defence dropped is not in the gallery."""
        gallery = Gallery.of(views["gallery"], views["cloaked gallery"], trial.split)
        nobody: tuple[tuple[str, ...], Vectors] = ((), gallery.vectors[:0])
        people, vectors = one_photo_each(views["enrolled strangers"], distractors) if distractors else nobody
        return cls(
            head=head,
            gallery=gallery,
            distractors=vectors,
            everyone=replace(gallery, identities=(*gallery.identities, *people)),
            probes=Probes.of(views["probes"], views["probes"], trial.split, gallery.identities),
        )

    def scores(self, probes: Probes) -> Iterator[Scores]:
        """Yield, for each rotation, the scores of everyone in the gallery: M×(K + N), distractors last."""
        labels: Labels = np.arange(len(self.distractors))
        others = self.head.fit(self.distractors, labels, len(labels))(probes.natural)
        for scores in scores_by_fold(self.head, self.gallery, probes):
            yield np.hstack([scores, others])

    def answers(self) -> Iterator[Answers]:
        """Yield the answers to the probes in each rotation."""
        for fold, scores in enumerate(self.scores(self.probes)):
            best = decision_rows(fold, self.everyone, self.probes, scores)
            yield Answers(best, scores, self.probes.labels)

    def always_reached(self, rank: int) -> str:
        """Say why a rank tells nothing of this gallery, or return ""."""
        people = len(self.everyone.identities)
        return f"everyone is among the {rank} best of {people} people" if rank >= people else ""

    def best_scores(self, presented: Embedded, people: Sequence[str]) -> Scores:
        """Return the score of the best answer to each of `people` in each rotation, len(people) × folds."""
        found, vectors = one_photo_each(presented, people)
        asked = Probes(found, np.zeros(len(found), dtype=np.intp), vectors, vectors)
        return np.stack([scores.max(axis=1) for scores in self.scores(asked)], axis=1)


def one_photo_each(view: Embedded, people: Sequence[str]) -> tuple[tuple[str, ...], Vectors]:
    """Return those of `people` whose photo is in the view, and their embeddings, in the order of `people`."""
    rows = {person: row for row, person in enumerate(view.identities)}
    found = tuple(person for person in people if person in rows)
    return found, np.asarray(view.vectors)[[rows[person] for person in found]]


# -- answers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
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
    """Return the threshold that half of the strangers set, and the FPIR of the other half with its interval.

    Args:
        search: the gallery.
        presented: the strangers' photos.
        roles: who sets and who tests.
        fpir: share of (stranger, rotation) that may get an answer.
    """
    facts = ConditionFacts(rate_name="FPIR", rate_wanted=fpir)
    if fpir * len(roles.setting) < LEAST_ACCEPTED:
        needed = math.ceil(LEAST_ACCEPTED / fpir)
        reason = f"a threshold for an FPIR of {fpir} needs {needed} strangers to set it, it has {len(roles.setting)}"
        return facts.model_copy(update={"reason": reason})
    setting, testing = (search.best_scores(presented, people) for people in (roles.setting, roles.testing))
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
