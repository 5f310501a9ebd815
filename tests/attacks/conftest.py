"""Tiny random backbones and faces: enough to test attacks without weights or photos."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bench.contracts import Backbone, BackboneCard, Context, Faces
from bench.quality.metrics import to_8_bits

SIZE = 40
"""Side of the test images: attacks do not depend on it, their tests' time does."""


class TinyBackbone(Backbone):
    """Two strided convolutions and a projection, drawn from a seed."""

    name = "tiny"

    def __init__(self, seed: int = 0, dim: int = 16) -> None:
        super().__init__()
        self.card = BackboneCard(name=f"tiny{seed}", licence="none", embedding_dim=dim)
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.randn(8, 3, 5, 5, generator=generator) / 4
        self.second = torch.randn(16, 8, 3, 3, generator=generator) / 6
        self.last = torch.randn(dim, 16 * 8 * 8, generator=generator) / 20
        self.batches: list[int] = []

    def load(self, device: torch.device) -> None:
        """Nothing to read."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        x = torch.tanh(F.conv2d(images - 0.5, self.first, stride=2))
        x = torch.tanh(F.conv2d(x, self.second, stride=2))
        return F.linear(x.flatten(1), self.last)


def make_faces(count: int, seed: int = 0, identities: int | None = None) -> Faces:
    """Smooth images with some detail, quantised to 8 bits, dealt to `identities` (default: one each)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    smooth = F.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    images = to_8_bits(smooth + 0.03 * torch.randn(smooth.shape, generator=generator))
    owners = [f"identity{seed}-{i % (identities or count)}" for i in range(count)]
    return Faces(images, tuple(f"photo{seed}-{i}" for i in range(count)), tuple(owners))


def stacked(edits: dict[str, torch.Tensor], faces: Faces) -> torch.Tensor:
    """The edits in the order of the faces."""
    return torch.stack([edits[i] for i in faces.ids])


@pytest.fixture
def surrogates() -> tuple[TinyBackbone, ...]:
    return TinyBackbone(1), TinyBackbone(2, dim=24)


@pytest.fixture
def ctx(surrogates: tuple[TinyBackbone, ...]) -> Context:
    return Context(seed=7, backbones=surrogates, targets=make_faces(9, seed=99, identities=4))


@pytest.fixture
def faces() -> Faces:
    return make_faces(5)


@pytest.fixture
def distances(surrogates: tuple[TinyBackbone, ...]):
    """Squared distance of unit embeddings for each surrogate and image."""

    def measure(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        pairs = [(F.normalize(b.embed(images)), F.normalize(b.embed(others))) for b in surrogates]
        return torch.stack([(e - o).square().sum(1) for e, o in pairs])

    return measure
