"""What a hardening must keep to: it trains repeatably and leaves the tracker it was given as it was."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

import torch
from torch import Tensor

from bench.authoring.checks.backbone import wrong_vectors
from bench.authoring.checks.declarations import TRAINED, TRAINED_ON, wrong_training, wrong_type
from bench.authoring.checks.given import FILES, FIND_FILES, SEED, context, sample_faces, training_faces
from bench.authoring.checks.observation import (
    DRAW,
    GLOBALS,
    INPUT,
    OWN_COPY,
    Learning,
    Observation,
    difference,
    disturbed,
    observe,
)
from bench.authoring.checks.suite import Check, attempt
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Backbone, Context, Hardening

HARDENS = "hardens without an error"


class _Training:
    """A hardening at work on a fake tracker, each step done once."""

    def __init__(self, defense: Hardening) -> None:
        self.defense = defense
        self.training = Learning("train", self._train)

    @cached_property
    def ctx(self) -> Context:
        return context(self.defense)

    @cached_property
    def tracker(self) -> FakeBackbone:
        tracker = FakeBackbone(FakeBackbone.Params(seed=SEED))
        tracker.load(torch.device("cpu"))
        return tracker

    @cached_property
    def before(self) -> Tensor:
        return self.tracker.embed_batch(sample_faces().images)

    @cached_property
    def hardened(self) -> Backbone:
        return self.defense.harden(self.tracker, self.training.state)

    def _train(self) -> Observation:
        _ = self.before
        return observe(partial(self.defense.train, self.tracker), training_faces(), self.ctx)

    def disturbed(self) -> str:
        return disturbed(self.training.first[0].disturbed, self.training.second[0].disturbed)

    def spoilt(self) -> str:
        now = self.tracker.embed_batch(sample_faces().images)
        return "" if torch.equal(self.before, now) else "it changed"

    def unrepeated(self) -> str:
        images = sample_faces().images
        # Before hardening again, which may spoil the tracker of both.
        first = self.hardened.embed_batch(images)
        again = self.defense.harden(self.tracker, self.training.state)
        return difference({"embedding": first}, {"embedding": again.embed_batch(images)})


def checks(defense: Hardening) -> Iterator[Check]:
    """Yield the checks of a hardening."""
    work = _Training(defense)
    learnt = work.training.learns
    yield Check(TRAINED, lambda: wrong_training(defense), fix=TRAINED_ON)
    yield Check(FILES, attempt(lambda: work.ctx), fix=FIND_FILES)
    yield from work.training.checks()
    yield Check(
        INPUT,
        lambda: "it wrote into it" if work.training.first[0].input_changed else "",
        learnt,
        fix=OWN_COPY,
    )
    yield Check(GLOBALS, work.disturbed, learnt, fix=DRAW)
    yield Check(
        HARDENS,
        attempt(lambda: work.hardened),
        learnt,
        fix="def harden(self, tracker, state): … return a Backbone made of the two",
    )
    yield Check(
        "returns a backbone",
        lambda: wrong_type("the result", work.hardened, Backbone),
        HARDENS,
        fix="return an instance of bench.contracts.Backbone from harden(self, tracker, state)",
    )
    yield Check(
        "the backbone embeds as its card says",
        lambda: wrong_vectors(work.hardened, work.hardened.embed),
        HARDENS,
        fix="return float32 N×D from its embed(), D being its card's embedding_dim",
    )
    yield Check(
        "hardens the same again",
        work.unrepeated,
        HARDENS,
        fix="let harden() depend on tracker and state alone",
    )
    yield Check(
        "leaves the tracker's backbone as it was",
        work.spoilt,
        HARDENS,
        fix="change a copy: copy.deepcopy(tracker), in train() and in harden()",
    )
