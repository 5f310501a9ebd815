"""DnCNN, a blind denoiser, as a purifier: a cloak is taken for noise and subtracted."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bench.contracts import Binding, Context, Faces, MethodParams, Purifier
from defenses._denoiser_weights import DenoiserWeights, in_micro_batches

WEIGHTS = DenoiserWeights(
    name="dncnn",
    file="weights/denoiser/dncnn-color-blind.safetensors",
    sha256="78264fdac757b6fe21ae735f06be33f7d7d64ab4371b63c4914e1b00d1e47de7",
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


class DnCNN(Purifier):
    """Denoises each image with the published blind model; no level of noise has to be named."""

    name: ClassVar[str] = "dncnn"
    paper: ClassVar[str] = (
        "Zhang, Zuo, Chen, Meng, Zhang: Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image "
        "Denoising, IEEE TIP 26(7), 2017"
    )
    differentiable = True

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
            return denoise(network, batch, self.params.strength)

        purified = in_micro_batches(of_batch, faces.images.to(ctx.device)).to(faces.images.device)
        ctx.advance(len(faces))
        return purified
