"""LowKey: signed steps away from the clean features of an ensemble, held back by a perceptual distance only.

Cherepanova et al., "LowKey: Leveraging Adversarial Attacks to Protect Social Media Users from Facial
Recognition" (ICLR 2021), Eq. 2, as in the authors' code. f(x) is e(x) + e(mirrored x), brought to unit length; every
surrogate counts twice, for the photo raw and blurred by a Gaussian G, and both are compared with the raw clean photo:

    maximise  mean over surrogates and v in {x', G(x')} of  Σ_d (f(v) − f(x))² / (512 · ‖f(x)‖)  −  c · P(x', x)

‖f(x)‖ is 1; 512 is the length of the authors' embeddings and stays 512 for surrogates of another length, so that one c
serves all. P is LPIPS over AlexNet as published; the variant's P is DSSIM. There is no bound: the number of steps and
their length decide. What differs from the authors' code is listed in docs/methods/lowkey.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attacks._micro_batch import State, optimise
from attacks._surrogates import SurrogateParams, require_surrogates
from attacks._truncation import truncated, truncated_reach
from bench.contracts import Attack, Backbone, Binding, Context, Faces, ThreatModel
from bench.errors import UsageError
from bench.quality.lpips import VARIABLE, Lpips, Unavailable, load_lpips, lpips_files
from bench.quality.metrics import GREY_LEVELS, SsimReference

BLUR_WINDOW = 7
BLUR_SIGMA = 3.0
DIMENSIONS = 512
"""What the squared distance is divided by, whatever the surrogate's own length of embedding."""


def blurred(images: Tensor) -> Tensor:
    """Return N×C×H×W images under a 7×7 Gaussian of σ 3, the border mirrored; differentiable."""
    count = images.shape[0] * images.shape[1]
    half = BLUR_WINDOW // 2
    offsets = torch.arange(-half, half + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-offsets.square() / (2 * BLUR_SIGMA**2))
    weights = (weights / weights.sum()).expand(count, 1, 1, BLUR_WINDOW)
    planes = F.pad(images, (half, half, half, half), mode="reflect").flatten(0, 1).unsqueeze(0)
    rows = F.conv2d(planes.contiguous(memory_format=torch.channels_last), weights, groups=count)
    return F.conv2d(rows, weights.transpose(2, 3), groups=count).view(images.shape)


def unit_features(backbones: Sequence[Backbone], images: Tensor) -> tuple[Tensor, ...]:
    """Return e(x) + e(mirrored x) at unit length for each backbone, N×D_k each, of N×3×H×W images."""
    mirrored = images.flip(3)
    # All backbones see the same tensor: surrogates that share a defence compute it once.
    upright = [backbone.embed(images) for backbone in backbones]
    return tuple(
        F.normalize(own + backbone.embed(mirrored), dim=1)
        for own, backbone in zip(upright, backbones, strict=True)
    )


def feature_gain(backbones: Sequence[Backbone], images: Tensor, clean: Sequence[Tensor]) -> Tensor:
    """Return the mean over backbones and {raw, blurred} of Σ_d (f(images) − f_clean)² / 512: N values, at most 4/512.

    Args:
        backbones: K surrogates.
        images: N×3×H×W.
        clean: `unit_features` of the raw clean photos, N×D_k for each surrogate.
    """
    gains = [
        (feature - origin).square().sum(1)
        for view in (images, blurred(images))
        for feature, origin in zip(unit_features(backbones, view), clean, strict=True)
    ]
    return torch.stack(gains).mean(0) / DIMENSIONS


class LowKey(Attack):
    """Moves features away over raw and blurred photos, weighed against a perceptual distance."""

    name: ClassVar[str] = "lowkey"
    paper: ClassVar[str] = "Cherepanova et al., ICLR 2021 (arXiv 2101.07922)"

    class Params(SurrogateParams):
        """Parameters of LowKey."""

        perceptual: Literal["lpips", "dssim"] = Field(
            "lpips", description="perceptual distance; dssim is a variant that needs no AlexNet weights"
        )
        weight: float = Field(
            0.05, ge=0, le=1000, description="c, weight of the perceptual distance, as published"
        )
        steps: int = Field(
            50, ge=1, le=10_000, description="signed steps", json_schema_extra={"unit": "steps"}
        )
        step: float = Field(
            0.0025, gt=0, le=1, description="length of a step", json_schema_extra={"unit": "of [0, 1]"}
        )
        noise: float = Field(
            0.005,
            ge=0,
            le=1,
            description="largest change of the random start",
            json_schema_extra={"unit": "of [0, 1]"},
        )
        truncate: bool = Field(
            False, description="truncate pixels to 8 bits, as the authors' program does, instead of rounding"
        )

    params: Params

    @property
    def threat(self) -> ThreatModel:
        """Untargeted; there is no bound but what the steps can reach, in whole grey levels."""
        levels = (self.params.noise + self.params.steps * self.params.step) * GREY_LEVELS
        reach = truncated_reach(levels) if self.params.truncate else math.floor(levels + 0.5)
        return ThreatModel(
            goal="untargeted",
            surrogates=1,
            constraint=f"none: {self.params.perceptual.upper()} as a penalty; the steps reach {reach} grey levels",
            max_linf=min(255, max(1, reach)),
        )

    @property
    def core_seconds(self) -> float:
        """The perceptual distance with its gradient, at each step."""
        return (0.02 if self.params.perceptual == "lpips" else 0.0025) * self.params.steps

    @property
    def passes(self) -> int:
        """At each step raw and blurred, upright and mirrored."""
        return 4 * self.params.steps

    def pool(self) -> str | None:
        """Return the surrogates requested."""
        return self.params.surrogates

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name LPIPS' trunk and heads where they are used.

        Raises:
            UsageError: they cannot be had; the message names the variant that does without.
            DataError: the trunk's file that was named is missing.
        """
        del binding
        if self.params.perceptual != "lpips":
            return ()
        files = lpips_files()
        if isinstance(files, Unavailable):
            raise _refusal(files)
        return files

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return one cloak for every face.

        Raises:
            UsageError: `ctx` has no differentiable surrogate, or LPIPS cannot be had.
            DataError: LPIPS' files are not what they should be.
        """
        backbones = require_surrogates(self.name, ctx)
        task = _Ascent(self.params, faces, ctx, backbones, self._lpips(ctx))
        cloaks = optimise(task, len(faces), ctx.advance)
        return {i: c.to(faces.images.device) for i, c in zip(faces.ids, cloaks, strict=True)}

    def _lpips(self, ctx: Context) -> Lpips | None:
        if self.params.perceptual != "lpips":
            return None
        trunk, *_ = ctx.files or self.files(Binding("", "", (), ""))
        lpips = load_lpips(trunk)
        if isinstance(lpips, Unavailable):
            raise _refusal(lpips)
        return lpips.to(ctx.device)


def _refusal(lpips: Unavailable) -> UsageError:
    return UsageError(
        f"attack 'lowkey' weighs cloaks by LPIPS. {lpips.reason} An attack looks for the trunk where {VARIABLE} says, "
        "then in the data folder, then in torch.hub's cache; --lpips-trunk is for the image measures only. Or use "
        "lowkey:perceptual=dssim, a variant with another penalty."
    )


class _Ascent:
    """LowKey as an image-wise optimisation; without `lpips` it uses DSSIM."""

    def __init__(
        self,
        params: LowKey.Params,
        faces: Faces,
        ctx: Context,
        backbones: Sequence[Backbone],
        lpips: Lpips | None,
    ) -> None:
        self.params, self.faces, self.ctx = params, faces, ctx
        self.backbones, self.lpips = backbones, lpips

    def start(self, images: Sequence[int]) -> State:
        clean = self.faces.images[list(images)].to(self.ctx.device)
        draws = [
            torch.rand(clean.shape[1:], generator=self.ctx.generator("lowkey", self.faces.ids[i]))
            for i in images
        ]
        offset = torch.stack(draws).to(clean).mul(2).sub(1).mul(self.params.noise)
        reference = SsimReference.of(clean)
        with torch.no_grad():
            features = unit_features(self.backbones, clean)
        return {
            "image": clean,
            "mean": reference.mean,
            "square": reference.square,
            "cloak": clean + offset,
            "step": torch.zeros(len(clean), dtype=torch.long),
            **{f"clean{k}": feature for k, feature in enumerate(features)},
        }

    def update(self, state: State) -> Tensor:
        cloak = state["cloak"].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self._objective(cloak, state).sum(), cloak)
        state["cloak"] = cloak.detach() + self.params.step * gradient.sign()
        state["step"] += 1
        return state["step"] >= self.params.steps

    def _objective(self, cloak: Tensor, state: State) -> Tensor:
        """Return what is maximised, one value an image."""
        clean = [state[f"clean{k}"] for k in range(len(self.backbones))]
        gain = feature_gain(self.backbones, cloak, clean)
        if self.lpips is not None:
            return gain - self.params.weight * self.lpips.penalty(cloak, state["image"])
        reference = SsimReference(state["image"], state["mean"], state["square"])
        return gain - self.params.weight * reference.dssim(cloak)

    def finish(self, state: State) -> Tensor:
        return truncated(state["cloak"]) if self.params.truncate else state["cloak"].clamp(0, 1)
