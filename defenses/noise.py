"""Additive Gaussian noise as a purifier."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import Context, Faces, MethodParams, Purifier

STREAM = "defense noise"
"""Stage of the generators the noise is drawn from; an attack's own noise must not be the same."""


class Noise(Purifier):
    """Adds independent Gaussian noise to every value of every image.

    The noise of a photo depends on the run's seed and the photo's id alone: its natural and its cloaked
    version get the same.
    """

    name: ClassVar[str] = "noise"
    deterministic = False
    differentiable = True

    class Params(MethodParams):
        """Parameters of `Noise`."""

        sigma: float = Field(
            8.0,
            ge=0,
            le=128,
            description="standard deviation of the noise; 0 leaves images as they are",
            json_schema_extra={"unit": "grey levels"},
        )

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the noisy images, N×3×H×W, clipped to [0, 1]."""
        purified = []
        for image, image_id in zip(faces.images, faces.ids, strict=True):
            noise = torch.randn(image.shape, generator=ctx.generator(STREAM, image_id))
            noisy = image + noise.to(image.device) * (self.params.sigma / 255)
            purified.append(noisy.clamp(0, 1))
            ctx.advance(1)
        return torch.stack(purified) if purified else faces.images
