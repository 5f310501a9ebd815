"""Fakes that stand in for real parts in checks and tests: tiny, seeded, and named as fakes.

No figure made with one of them says anything about faces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.contracts import Backbone, BackboneCard, MethodParams
from bench.randomness import torch_generator

DIMENSION = 32
"""Length of a fake embedding."""

_SHAPES = ((8, 3, 3, 3), (16, 8, 3, 3), (DIMENSION, 16, 3, 3))


class FakeBackbone(Backbone):
    """Three random convolutions: differentiable, deterministic, and blind to who is on the photo."""

    name: ClassVar[str] = "fake"

    class Params(MethodParams):
        """Which of the fakes it is."""

        seed: int = Field(0, ge=0, description="seed of its random weights", json_schema_extra={"unit": ""})

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self.card = BackboneCard(
            name=f"fake-{self.params.seed}",
            licence="Apache-2.0",
            source="drawn at random",
            training_data="none",
            domain="synthetic",
            embedding_dim=DIMENSION,
            note="a fake for checks and tests: it recognises nobody",
        )
        self.weights: tuple[Tensor, ...] = ()

    def load(self, device: torch.device) -> None:
        """Draw the weights onto `device`; each layer keeps the variance of what it gets."""
        generator = torch_generator(self.params.seed, "fake backbone")
        drawn = [torch.randn(shape, generator=generator) for shape in _SHAPES]
        self.weights = tuple((w / w[0].numel() ** 0.5).to(device) for w in drawn)

    def embed(self, images: Tensor) -> Tensor:
        """Return N×32 embeddings of N×3×112×112 images in [0, 1].

        Raises:
            RuntimeError: it is used before `load`.
        """
        if not self.weights:
            raise RuntimeError(f"backbone '{self.card.name}' is used before load()")
        return _convolved(images, self.weights)

    def trainable(self, device: torch.device) -> nn.Module:
        """Return a copy whose weights can be trained."""
        return _FakeNetwork(self.weights).to(device)


class _FakeNetwork(nn.Module):
    """A fake backbone's layers as a module."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weight.clone() for weight in weights)

    def forward(self, images: Tensor) -> Tensor:
        """Return N×32 embeddings of N×3×112×112 images in [0, 1]."""
        return _convolved(images, self.weights)


def _convolved(images: Tensor, weights: Iterable[Tensor]) -> Tensor:
    values = F.avg_pool2d(images, 4) * 4 - 2
    for weight in weights:
        values = torch.tanh(F.conv2d(values, weight, stride=2))
    return values.mean((2, 3))
