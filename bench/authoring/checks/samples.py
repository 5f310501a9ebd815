"""What attacks and defences are shown: a few rendered faces, and fake backbones."""

from __future__ import annotations

from functools import cache

import torch

from bench.authoring.fakes import FakeBackbone
from bench.contracts import Faces


@cache
def _faces(role: str, photos: tuple[int, ...]) -> Faces:
    """Return rendered faces: `photos[k]` of the k-th identity of a role."""
    from bench.datasets.synthetic import Synthetic

    dataset = Synthetic()
    identities = [identity for identity in dataset.identities() if identity.role == role]
    named = [
        (image, identity.id)
        for identity, count in zip(identities, photos, strict=False)
        for image in identity.photos[:count]
    ]
    images = dataset.crops([image for image, _ in named]).float() / 255
    return Faces(images, tuple(image for image, _ in named), tuple(identity for _, identity in named))


def sample_faces() -> Faces:
    """Return 5 rendered faces of 3 identities, one of them with a single photo."""
    return _faces("evaluation", (2, 2, 1))


def training_faces() -> Faces:
    """Return 8 rendered faces of 4 other identities."""
    return _faces("training", (2, 2, 2, 2))


def fake_backbones(count: int = 2) -> tuple[FakeBackbone, ...]:
    """Return loaded fake backbones."""
    made = tuple(FakeBackbone(FakeBackbone.Params(seed=seed)) for seed in range(count))
    for backbone in made:
        backbone.load(torch.device("cpu"))
    return made
