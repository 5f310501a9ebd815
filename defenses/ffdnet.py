"""FFDNet, a denoiser that is told the level of noise, as a purifier."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.contracts import Binding, Context, Faces, MethodParams, Purifier
from defenses._denoiser_weights import DenoiserWeights, in_micro_batches

WEIGHTS = DenoiserWeights(
    name="ffdnet",
    file="weights/denoiser/ffdnet-color.safetensors",
    sha256="abf660cfd02ac45e099216891081c03ed8a0989ba5e864d642f05a062b4d41ee",
    channels=(13, *[96] * 11, 12),
)
"""The authors' colour model (12 layers, σ 0 to 75)."""


def denoise(network: Callable[[Tensor], Tensor], images: Tensor, sigma: float) -> Tensor:
    """Return the denoised N×3×H×W images, not clamped (paper, Sec. III-A and Fig. 1).

    The network works at half the size: each 2×2 block becomes 12 channels, the level of noise is a 13th, and
    what comes out is put back together. Odd sides are replicated by one pixel for the while.

    Args:
        network: N×13×H/2×W/2 → N×12×H/2×W/2.
        images: N×3×H×W in [0, 1].
        sigma: level of noise, grey levels.
    """
    height, width = images.shape[-2:]
    even = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
    blocks = F.pixel_unshuffle(even, 2)
    level = blocks.new_full((len(blocks), 1, *blocks.shape[-2:]), sigma / 255)
    inputs = torch.cat([blocks, level], 1).contiguous(memory_format=torch.channels_last)
    return F.pixel_shuffle(network(inputs), 2)[..., :height, :width]


class FFDNet(Purifier):
    """Denoises each image with the published model, told to expect a level of noise."""

    name: ClassVar[str] = "ffdnet"
    paper: ClassVar[str] = (
        "Zhang, Zuo, Zhang: FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising, "
        "IEEE TIP 27(9), 2018"
    )
    differentiable = True

    class Params(MethodParams):
        """Parameters of `FFDNet`."""

        sigma: float = Field(
            15.0,
            gt=0,
            le=75,
            description="standard deviation of the noise it is told to expect; more removes more",
            json_schema_extra={"unit": "grey levels"},
        )

    params: Params

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return the weights.

        Raises:
            DataError: they are missing or have another digest; the message says how to get them.
        """
        del binding
        return (WEIGHTS.locate(),)

    def training_identities(self, binding: Binding) -> str:
        """Return ``unknown``: general photographs whose list nobody has checked for identities."""
        del binding
        return "unknown"

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the denoised images, N×3×H×W in [0, 1].

        Raises:
            DataError: the weights cannot be read.
        """
        network = WEIGHTS.load(ctx.files[0], ctx.device)

        def of_batch(batch: Tensor) -> Tensor:
            return denoise(network, batch, self.params.sigma)

        purified = in_micro_batches(of_batch, faces.images.to(ctx.device)).to(faces.images.device)
        ctx.advance(len(faces))
        return purified
