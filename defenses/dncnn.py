"""DnCNN, a blind denoiser, as a purifier: a cloak is taken for noise and subtracted."""

from collections.abc import Callable
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from bench.contracts import MethodParams, Recipe, Source
from bench.data.converters import Converter
from defenses._denoiser import Denoiser, DenoiserWeights

COMMIT = "e93b27812d3ff523a3a79d19e5e50d233d7a8d0a"

WEIGHTS = DenoiserWeights(
    name="dncnn",
    what="blind colour denoiser, 20 layers (Zhang et al., IEEE TIP 2017)",
    file="weights/denoiser/dncnn-color-blind.safetensors",
    bytes=2_676_156,
    sha256="78264fdac757b6fe21ae735f06be33f7d7d64ab4371b63c4914e1b00d1e47de7",
    source=f"cszn/DnCNN @ {COMMIT}",
    recipe=Recipe(
        sources=(
            Source(
                name="GD_Color_Blind.mat",
                url=f"https://raw.githubusercontent.com/cszn/DnCNN/{COMMIT}/model/GD_Color_Blind.mat",
                sha256="57db5437a44037e7675a99042fe7b14d3dcdf1c333d3ec665855566e8a59795c",
                bytes=2_763_713,
            ),
        ),
        convert=Converter("defenses._convert_denoiser:convert_dncnn"),
    ),
    channels=(3, *[64] * 19, 3),
)
"""The authors' blind colour model (20 layers, σ 0 to 55), its batch norms merged by them."""


def denoise(predict_noise: Callable[[Tensor], Tensor], images: Tensor, strength: float) -> Tensor:
    """Return x − strength·R(x), N×3×H×W, not clamped (paper, Sec. III-A: x̂ = y − R(y)).

    Args:
        predict_noise: R, the residual network.
        images: N×3×H×W in [0, 1].
        strength: share of the predicted noise that is taken off.
    """
    return images - strength * predict_noise(images)


class DnCNN(Denoiser):
    """Denoises each image with the published blind model; no level of noise has to be named."""

    name: ClassVar[str] = "dncnn"
    paper: ClassVar[str] = (
        "Zhang, Zuo, Chen, Meng, Zhang: Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image "
        "Denoising, IEEE TIP 26(7), 2017"
    )
    core_seconds: ClassVar[float] = 0.2
    weights: ClassVar[DenoiserWeights] = WEIGHTS

    class Params(MethodParams):
        """Parameters of `DnCNN`."""

        strength: float = Field(
            1.0,
            ge=0,
            le=2,
            description="how much of the predicted noise is subtracted; 1 as published, 0 leaves images as they are",
            json_schema_extra={"unit": "share"},
        )

    params: Params

    def denoise(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return `denoise` of one micro-batch with the parameter `strength`."""
        return denoise(network, images, self.params.strength)
