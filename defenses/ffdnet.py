"""FFDNet, a denoiser that is given the level of noise, as a purifier."""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.contracts import MethodParams, Recipe, Source
from bench.data.converters import Converter
from defenses._denoiser import Denoiser, DenoiserWeights

COMMIT = "e787f46df2f374ff3591186706229cb9a0591fea"

WEIGHTS = DenoiserWeights(
    name="ffdnet",
    what="colour denoiser that is told the level of noise, 12 layers (Zhang et al., IEEE TIP 2018)",
    file="weights/denoiser/ffdnet-color.safetensors",
    bytes=3_410_384,
    sha256="abf660cfd02ac45e099216891081c03ed8a0989ba5e864d642f05a062b4d41ee",
    source=f"cszn/FFDNet @ {COMMIT}",
    recipe=Recipe(
        sources=(
            Source(
                name="FFDNet_color.mat",
                url=f"https://raw.githubusercontent.com/cszn/FFDNet/{COMMIT}/models/FFDNet_color.mat",
                sha256="a4b5a9da21294ab9ba6ed5c6cc459c46dff20c025eb7d3ab82e8e0bb00541793",
                bytes=3_373_400,
            ),
        ),
        convert=Converter("defenses._convert_denoiser:convert_ffdnet"),
    ),
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


class FFDNet(Denoiser):
    """Denoises each image with the published model for a given level of noise."""

    name: ClassVar[str] = "ffdnet"
    paper: ClassVar[str] = (
        "Zhang, Zuo, Zhang: FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising, "
        "IEEE TIP 27(9), 2018"
    )
    core_seconds: ClassVar[float] = 0.06
    weights: ClassVar[DenoiserWeights] = WEIGHTS

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

    def denoise(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return `denoise` of one micro-batch with the parameter `sigma`."""
        return denoise(network, images, self.params.sigma)
