"""What a substitution must keep to: it names backbones it has, and fuses the embeddings of each photo by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.authoring.checks.backbone import wrong_vectors
from bench.authoring.checks.given import SEED, sample_faces, substituted
from bench.authoring.checks.observation import difference
from bench.authoring.checks.suite import Check, attempt
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Backbone, Substitution
from bench.plugins.binding import embedders

NAMES = "names the backbones it embeds with"
EMBEDS = "its backbones embed as one"


class _Work:
    """A substitution on a fake tracker, each step done once."""

    def __init__(self, defense: Substitution) -> None:
        self.defense = defense

    @cached_property
    def tracker(self) -> FakeBackbone:
        tracker = FakeBackbone(FakeBackbone.Params(seed=SEED))
        tracker.load(torch.device("cpu"))
        return tracker

    @cached_property
    def result(self) -> Backbone:
        return substituted(self.defense, self.tracker)

    def strange(self) -> str:
        """Say which backbone is neither the tracker's nor a part, or what else is wrong with the names."""
        found: Any = self.defense.embeds_with(self.tracker)
        if not isinstance(found, tuple) or not all(isinstance(each, Backbone) for each in found):
            return f"embeds_with gave {found!r}, not a tuple of backbones"
        embedders(self.defense, self.tracker)  # refuses none, and one twice
        known = {id(self.tracker), *map(id, self.defense.parts())}
        strange = [each.card.name for each in found if id(each) not in known]
        return f"'{strange[0]}' is neither the tracker's nor one of its parts" if strange else ""

    def mixing(self) -> str:
        """Say by how much a photo's embedding depends on the others."""
        images = sample_faces().images
        together = self.result.embed_batch(images)
        alone = torch.cat([self.result.embed_batch(image[None]) for image in images])
        return "" if torch.allclose(together, alone, rtol=1e-3, atol=1e-4) else _apart(together, alone)

    def unrepeated(self) -> str:
        images = sample_faces().images
        first, again = (self.result.embed_batch(images) for _ in range(2))
        return difference({"embedding": first}, {"embedding": again})


def _apart(one: Tensor, other: Tensor) -> str:
    return f"they differ by up to {float((one - other).abs().max()):.3g}"


def checks(defense: Substitution) -> Iterator[Check]:
    """Yield the checks of a substitution."""
    work = _Work(defense)
    yield Check(
        NAMES,
        work.strange,
        fix="make the backbones once, in __init__; return them from parts(self), and from embeds_with(self, tracker) "
        "with the tracker's own where it takes part, none of them twice",
    )
    yield Check(
        "refuses a tracker by a text",
        lambda: "" if isinstance(defense.refuse(work.tracker), str) else "refuse() returned no text",
        fix="def refuse(self, tracker): return the reason, or ''",
    )
    yield Check(
        "declares that it trains nothing",
        lambda: "trains is True" if defense.trains else "",
        fix="leave trains as it is, or subclass Hardening",
    )
    yield Check(
        EMBEDS,
        attempt(lambda: work.result.embed_batch(sample_faces().images)),
        NAMES,
        fix="def fuse(self, embeddings): … return N×D float32 of N×D_k of each backbone",
    )
    yield Check(
        "an embedding for each photo",
        lambda: wrong_vectors(work.result, work.result.embed_batch),
        EMBEDS,
        fix="return float32 N×D from fuse()",
    )
    yield Check(
        "a photo's embedding does not depend on the others",
        work.mixing,
        EMBEDS,
        fix="let fuse() look at each row by itself",
    )
    yield Check(
        "fuses the same again",
        work.unrepeated,
        EMBEDS,
        fix="let fuse() depend on the embeddings alone",
    )
