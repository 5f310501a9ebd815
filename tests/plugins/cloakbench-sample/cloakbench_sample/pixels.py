"""Embeds a photo as its own small thumbnail."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contracts import Backbone, BackboneCard

SIDE = 7
"""Of the thumbnail, in pixels."""


class Pixels(Backbone):
    """A 7×7 thumbnail, one value a channel and pixel."""

    name: ClassVar[str] = "sample-pixels"
    card = BackboneCard(
        name="sample-pixels",
        licence="Apache-2.0",
        training_data="none",
        domain="synthetic",
        embedding_dim=3 * SIDE * SIDE,
    )

    def load(self, device: torch.device) -> None:
        """There are no weights."""

    def embed(self, images: Tensor) -> Tensor:
        """Return N×147 pixel values less the mean of each image."""
        pixels = F.adaptive_avg_pool2d(images, SIDE).flatten(1)
        return pixels - pixels.mean(1, keepdim=True)
