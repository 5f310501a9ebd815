"""What a backbone must keep to: a complete card, and embeddings that depend on the image alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from bench.authoring.checks.given import sample_faces
from bench.authoring.checks.observation import GLOBALS, INPUT, disturbed, largest, watched, wrong_gradient
from bench.authoring.checks.suite import Check, attempt
from bench.contracts import Backbone, BackboneCard

EMBED_TOLERANCE = 1e-3
"""Largest difference of `embed_batch` from `embed`, relative to the largest value."""

ROW_TOLERANCE = 1e-4
"""Largest difference of one image's embedding in another batch, relative to the largest value."""

LOADS = "loads its weights"
EMBEDS = "embeds without an error"

_EVAL = "network.eval() in load(): no batch norm or dropout in training mode, no mean over the batch"


class _Embedding:
    """A backbone at work on the sample faces, each step done once."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.given = sample_faces().images.clone()

    @cached_property
    def loaded(self) -> frozenset[str]:
        """The global state that loading changed."""
        return watched(lambda: self.backbone.load(torch.device("cpu")))[1]

    @cached_property
    def embedded(self) -> tuple[Tensor, frozenset[str]]:
        """The embeddings, and the global state that embedding changed."""
        vectors, changed = watched(lambda: self.backbone.embed(self.given))
        return vectors.detach(), changed

    @property
    def vectors(self) -> Tensor:
        return self.embedded[0]

    def merged(self) -> str:
        return "two of them are the same" if torch.equal(self.vectors[0], self.vectors[2]) else ""

    def overwritten(self) -> str:
        return "" if torch.equal(self.given, sample_faces().images) else "it wrote into the images"


def checks(backbone: Backbone) -> Iterator[Check]:
    """Yield the checks of a backbone."""
    work = _Embedding(backbone)
    images = sample_faces().images
    yield Check(
        "its card is complete",
        lambda: _wrong_card(backbone),
        fix='card = BackboneCard(name="…", licence="unknown", training_data="unknown", domain="real", …) in the class',
    )
    yield Check(
        LOADS,
        attempt(lambda: work.loaded),
        fix="def load(self, device): read the weights named by the card onto the device",
    )
    yield Check(
        EMBEDS,
        attempt(lambda: work.embedded),
        LOADS,
        fix="def embed(self, images): … take N×3×112×112 float32 in [0, 1] and do the preprocessing itself",
    )
    yield Check(
        "embeds to finite float32 N×D as its card says",
        lambda: wrong_vectors(backbone, backbone.embed),
        EMBEDS,
        fix="return one float32 row of the card's embedding_dim for each image",
    )
    yield Check(
        "embed_batch does too",
        lambda: wrong_vectors(backbone, backbone.embed_batch),
        EMBEDS,
        fix="return the same shape and dtype from embed_batch() as from embed(), or leave it to the base class",
    )
    yield Check(
        INPUT,
        work.overwritten,
        EMBEDS,
        fix="images = images * scale in place of images.mul_(scale) and the like",
    )
    yield Check(
        GLOBALS,
        lambda: disturbed(work.loaded, work.embedded[1]),
        EMBEDS,
        fix="set no global seed, dtype, grad mode or thread count",
    )
    yield Check(
        f"embed_batch agrees with embed to {EMBED_TOLERANCE:g}",
        lambda: _too_far(backbone.embed_batch(images), work.vectors, EMBED_TOLERANCE),
        EMBEDS,
        fix="the same preprocessing in embed() and embed_batch()",
    )
    yield Check(
        "an image's embedding does not depend on its place in the batch",
        lambda: _too_far(backbone.embed(images.flip(0)).detach().flip(0), work.vectors, ROW_TOLERANCE),
        EMBEDS,
        fix=_EVAL,
    )
    yield Check(
        "an image's embedding does not depend on the others",
        lambda: _too_far(backbone.embed(images[1:2]).detach(), work.vectors[1:2], ROW_TOLERANCE),
        EMBEDS,
        fix=_EVAL,
    )
    yield Check(
        "different faces have different embeddings",
        work.merged,
        EMBEDS,
        fix="check mean, scale and channel order of the preprocessing, and that the weights were read",
    )
    yield Check(
        "loading it again gives the same embeddings",
        lambda: _wrong_reload(backbone, work.vectors),
        EMBEDS,
        fix="read every weight in load(): none may keep the random value it was made with",
    )
    if backbone.differentiable:
        yield Check(
            "gradients reach the images, as declared",
            lambda: _wrong_backbone_gradient(backbone),
            EMBEDS,
            fix="differentiable = False in the class, or torch operations from images to result in embed(): no "
            ".detach(), no torch.no_grad()",
        )


def _wrong_card(backbone: Backbone) -> str:
    card = getattr(backbone, "card", None)
    if not isinstance(card, BackboneCard):
        return f"card is {card!r}, not a bench.contracts.BackboneCard"
    stated = card.model_dump(include={"name", "licence", "training_data", "domain"})
    empty = [key for key, value in stated.items() if not str(value).strip()]
    wrong = f"{', '.join(empty)} of its card: empty; write 'unknown' where the source does not say"
    return wrong if empty else ""


def wrong_vectors(backbone: Backbone, embed: Callable[[Tensor], Tensor]) -> str:
    """Say what keeps embeddings of the sample faces from being finite float32 N×D as the card says."""
    faces = sample_faces()
    vectors = embed(faces.images)
    expected = (len(faces), backbone.card.embedding_dim)
    if tuple(vectors.shape) != expected or vectors.dtype != torch.float32:
        return f"{vectors.dtype} {tuple(vectors.shape)} is not torch.float32 {expected}"
    return "" if bool(vectors.isfinite().all()) else "values are not finite"


def _too_far(found: Tensor, expected: Tensor, tolerance: float) -> str:
    relative = largest(found, expected) / max(float(expected.abs().max()), 1e-12)
    return "" if relative <= tolerance else f"relative difference {relative:.3g}, allowed {tolerance:g}"


def _wrong_reload(backbone: Backbone, vectors: Tensor) -> str:
    again = type(backbone)(backbone.params)
    again.load(torch.device("cpu"))
    return _too_far(again.embed(sample_faces().images).detach(), vectors, ROW_TOLERANCE)


def _wrong_backbone_gradient(backbone: Backbone) -> str:
    images = sample_faces().images[:2].clone().requires_grad_()
    return wrong_gradient(backbone.embed(images), images)
