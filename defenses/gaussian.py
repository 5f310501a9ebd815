"""Gaussian blur as a purifier."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.contracts import Context, Faces, MethodParams, Purifier

_TRUNCATE = 4.0
"""Half-width of the kernel in standard deviations; the density beyond is below 1e-4 of its peak."""


def gaussian_kernel(sigma: float) -> list[float]:
    """Return the 2r + 1 normalised weights of a sampled Gaussian, r = ⌊4σ + ½⌋."""
    radius = int(_TRUNCATE * sigma + 0.5)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    return [w / sum(weights) for w in weights]


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur N×C×H×W images with a Gaussian of `sigma` pixels, edges replicated.

    Written as a weighted sum of shifted images: elementwise arithmetic gives each image the same bytes
    whatever batch it comes in, which a convolution kernel does not promise.
    """
    if sigma == 0:
        return images
    weights = gaussian_kernel(sigma)
    radius = len(weights) // 2
    height, width = images.shape[-2:]
    padded = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    rows = torch.zeros_like(padded[..., :height, :])
    for i, weight in enumerate(weights):
        rows = rows + padded[..., i : i + height, :] * weight
    blurred = torch.zeros_like(images)
    for i, weight in enumerate(weights):
        blurred = blurred + rows[..., i : i + width] * weight
    return blurred.clamp(0, 1)


class Gaussian(Purifier):
    """Blurs each image; differentiable, so an adaptive attack can go through it."""

    name: ClassVar[str] = "gaussian"
    differentiable = True

    class Params(MethodParams):
        """Parameters of `Gaussian`."""

        sigma: float = Field(
            1.0,
            ge=0,
            le=10,
            description="standard deviation of the blur; 0 leaves images as they are",
            json_schema_extra={"unit": "pixels"},
        )

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the blurred images, N×3×H×W in [0, 1]."""
        blurred = gaussian_blur(faces.images, self.params.sigma)
        ctx.advance(len(faces))
        return blurred
