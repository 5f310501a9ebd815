"""A tracker that hardens its own backbone against cloaks it has never seen, without labels.

The embedding network f_θ is trained to answer as the frozen original f₀ does on the natural photo, also when the photo
is perturbed:

    L(x) = 1 − cos(f_θ(x + δ), f₀(x)) + 1 − cos(f_θ(x), f₀(x)),    δ = argmax over ‖δ‖∞ ≤ ε of the first term

That is adversarial training (Madry et al., ICLR 2018, eq. 2.1) with the original's embedding in the place of a label,
as in FARE (Schlarmann et al., "Robust CLIP", ICML 2024), which has the squared distance and no second term. Half of the
batches meet smooth perturbations, of low spatial frequency, as cloaks that transfer have them. What is known and what
is ours: docs/methods/robust-extractor.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.contracts import Backbone, Binding, Context, Faces, Hardening, MethodParams
from bench.quality.metrics import GREY_LEVELS
from defenses import _hardened
from defenses._hardened import Descent, trained_copy, weights_of
from defenses.gaussian import gaussian_kernel

REACH = 1.5
"""What the inner steps add up to, in bounds ε: two of three quarters each, three of a half."""

_LEAST_SIGMA = 0.3
"""Pixels; a narrower Gaussian is none on a grid of pixels."""


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Return N×3×H×W behind a Gaussian of `sigma` pixels, edges replicated; differentiable, values not clipped."""
    weights = torch.tensor(gaussian_kernel(sigma), dtype=images.dtype, device=images.device)
    radius, channels = len(weights) // 2, images.shape[1]
    kernel = weights.expand(channels, 1, -1)
    padded = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel[..., None], groups=channels)
    return F.conv2d(rows, kernel[:, :, None], groups=channels)


def distances(network: nn.Module, images: Tensor, anchors: Tensor) -> Tensor:
    """Return 1 − cos of each image's embedding to its anchor.

    Args:
        network: images to embeddings.
        images: N×3×H×W in [0, 1].
        anchors: N×D, the frozen original's embeddings of the natural photos.
    """
    return 1 - F.cosine_similarity(network(images), anchors)


@dataclass(frozen=True)
class Draw:
    """What one step draws.

    Attributes:
        rows: photos of the batch.
        eps: bound in L∞, of [0, 1].
        sigma: of the Gaussian behind which perturbations act, in pixels; 0 for none.
        start: N×3×H×W in [−1, 1]; times eps it is where the ascent starts.
    """

    rows: Tensor
    eps: float
    sigma: float
    start: Tensor


def perturbed(network: nn.Module, natural: Tensor, anchors: Tensor, draw: Draw, steps: int) -> Tensor:
    """Return photos with the perturbation that moves their embeddings away from the anchors, N×3×H×W in [0, 1].

    Signed steps of `REACH` · ε / steps within the ball (Madry et al., eq. 5). What is added is the perturbation behind
    the Gaussian, which stays within the ball too and hands its gradient back behind the same Gaussian.

    Args:
        network: as it stands.
        natural: N×3×H×W in [0, 1].
        anchors: N×D.
        draw: bound, smoothness and start.
        steps: of the ascent.
    """

    def shown(delta: Tensor) -> Tensor:
        return (natural + (blurred(delta, draw.sigma) if draw.sigma else delta)).clamp(0, 1)

    delta = draw.eps * draw.start
    for _ in range(steps):
        delta = delta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(distances(network, shown(delta), anchors).sum(), delta)
        delta = (delta.detach() + REACH * draw.eps / steps * gradient.sign()).clamp(-draw.eps, draw.eps)
    return shown(delta.detach())


class RobustExtractor(Hardening):
    """Trains the tracker's backbone to embed perturbed photos as the original embeds natural ones."""

    name: ClassVar[str] = "robust-extractor"
    paper: ClassVar[str] = (
        "after Madry et al., ICLR 2018 (arXiv 1706.06083), and Schlarmann et al., ICML 2024 (arXiv 2402.12336)"
    )

    class Params(MethodParams):
        """Parameters of `RobustExtractor`."""

        steps: int = Field(
            700, ge=1, le=1_000_000, description="steps of AdamW", json_schema_extra={"unit": "steps"}
        )
        photos: int = Field(
            3000,
            ge=2,
            le=100_000,
            description="photos of training identities it learns from, at most",
            json_schema_extra={"unit": "photos"},
        )
        batch: int = Field(
            16, ge=1, le=1024, description="photos a step", json_schema_extra={"unit": "photos"}
        )
        learning_rate: float = Field(
            3e-4, gt=0, le=1, description="AdamW's at the first step; falls to 0 as a cosine"
        )
        inner: int = Field(
            2,
            ge=1,
            le=100,
            description="steps of the ascent that makes each perturbation",
            json_schema_extra={"unit": "steps"},
        )
        eps_min: float = Field(
            8,
            gt=0,
            le=255,
            description="least L∞ bound, drawn for each step",
            json_schema_extra={"unit": "grey levels"},
        )
        eps_max: float = Field(
            16,
            gt=0,
            le=255,
            description="greatest L∞ bound",
            json_schema_extra={"unit": "grey levels"},
        )
        smooth: float = Field(0.5, ge=0, le=1, description="share of steps with smooth perturbations")
        sigma: float = Field(
            3.5,
            gt=_LEAST_SIGMA,
            le=20,
            description="greatest standard deviation of the Gaussian that smooths them, drawn for each step",
            json_schema_extra={"unit": "pixels"},
        )

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.eps_min > self.eps_max:
                raise ValueError(f"eps_min={self.eps_min:g} is above eps_max={self.eps_max:g}")
            return self

    params: Params

    @property
    def training_photos(self) -> int:
        """The photos asked for, no more than the steps can look at."""
        return min(self.params.photos, self.params.steps * self.params.batch)

    def training_passes(self, photos: int) -> float:
        """Each photo of a step: the anchor, the ascent forward and back, the loss of two photos forward and back."""
        del photos
        both = 1 + 1.5
        return self.params.steps * self.params.batch * (1 + both * self.params.inner + 2 * both)

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Return the attack it makes against itself in training: PGD on the tracker's own backbone."""
        p = self.params
        return (f"pgd:eps={p.eps_max:g},steps={p.inner},surrogates={binding.tracker}",)

    def training_identities(self, binding: Binding) -> str:
        """Return the dataset's training identities."""
        return f"{binding.dataset}/training"

    def train(self, tracker: Backbone, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return the weights of the trained copy of the tracker's network.

        Raises:
            UsageError: the backbone is a black box.
            MethodError: the training diverges.
        """
        network = trained_copy(tracker, ctx.device)
        original = deepcopy(network).requires_grad_(False)

        def loss_of(step: int) -> Tensor:
            draw = self._draw(step, faces.images, ctx)
            natural = faces.images[draw.rows]
            with torch.no_grad():
                anchors = original(natural)
            attacked = perturbed(network, natural, anchors, draw, self.params.inner)
            return (distances(network, attacked, anchors) + distances(network, natural, anchors)).mean()

        descent = Descent(self.name, self.params.steps, self.params.learning_rate, len(faces))
        descent.run({"network": network}, loss_of, ctx)
        return weights_of(network)

    def _draw(self, step: int, images: Tensor, ctx: Context) -> Draw:
        """Return what a step draws; of (seed, step) alone."""
        p = self.params
        generator = ctx.generator(self.name, str(step))
        level, smooth, width = torch.rand(3, generator=generator).tolist()
        rows = torch.randperm(len(images), generator=generator)[: p.batch]
        start = torch.rand((len(rows), *images.shape[1:]), generator=generator) * 2 - 1
        return Draw(
            rows=rows.to(images.device),
            eps=(p.eps_min + level * (p.eps_max - p.eps_min)) / GREY_LEVELS,
            sigma=_LEAST_SIGMA + width * (p.sigma - _LEAST_SIGMA) if smooth < p.smooth else 0.0,
            start=start.to(images.device),
        )

    def harden(self, tracker: Backbone, state: Mapping[str, Tensor]) -> Backbone:
        """Return the tracker's backbone with the trained weights."""
        return _hardened.harden(tracker, state)
