"""PGD on embeddings: signed steps within an L∞ ball, away from the clean embedding or towards someone's.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR 2018), eq. 5, with the
classification loss replaced by a distance of embeddings; with momentum it is MI-FGSM (Dong et al., "Boosting
Adversarial Attacks with Momentum", CVPR 2018, eqs. 6 and 7), with `diversity` DI-FGSM (Xie et al., CVPR 2019,
eq. 4), with `smooth` TI-FGSM (Dong et al., CVPR 2019), with `lgc` landmark-guided cutout (Yang et al., arXiv
2007.04118), with `dfanet` DFANet (Zhong, Deng, TIFS 2021); any of them together. Images stay in [0, 1]; ε and the
step are given in grey levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attacks._feature_dropout import dropped_embeddings
from attacks._gradient_smoothing import gaussian_kernel, smoothed
from attacks._input_diversity import LEAST_SIDE, diversified, draw_diversity
from attacks._landmark_cutout import cut_out, draw_cutout
from attacks._micro_batch import State, optimise
from attacks._surrogates import SurrogateParams, clean_embeddings, require_surrogates, unit_embeddings
from attacks._targets import drawn_target, first_identities, require_targets, target_centres
from bench.contracts import Attack, Backbone, Context, Faces, ThreatModel
from bench.quality.metrics import GREY_LEVELS


def distance_loss(embeddings: Sequence[Tensor], state: State) -> Tensor:
    """Return the sum over images and mean over surrogates of ‖e(x') − a‖², e and the anchor a of unit length.

    The anchor, ``clean0``, ``clean1`` … in `state`, is e(x) of the clean photo or the target's embedding. It
    equals 2(1 − cos), so the sign of its gradient is that of the cosine distance; unit length lets every
    surrogate weigh the same, whatever the scale of its embeddings, which is what transfers to other
    backbones. Its gradient is zero at the anchor itself, hence the random start.

    Args:
        embeddings: e(x') of each surrogate, N×D_k, of unit length.
        state: the anchors.
    """
    distances = [(e - state[f"clean{k}"]).square().sum() for k, e in enumerate(embeddings)]
    return torch.stack(distances).mean()


def accumulated(velocity: Tensor, gradient: Tensor, momentum: float) -> Tensor:
    """Return g = μ·g + ∇/mean|∇| (Dong et al., eq. 6), the mean over each image of N×3×H×W.

    The paper divides by the L1 norm, its published code by the mean: the signs are the same. A vanishing
    gradient adds nothing.
    """
    scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
    return torch.addcdiv(momentum * velocity, gradient, scale)


class PGD(Attack):
    """Projected gradient steps away from the clean embeddings, or towards another identity's."""

    name: ClassVar[str] = "pgd"
    baseline: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Madry et al., ICLR 2018 (arXiv 1706.06083); Dong et al., CVPR 2018 (momentum); Xie et al., CVPR 2019 "
        "(diversity); Dong et al., CVPR 2019 (smooth); Yang et al., arXiv 2007.04118 (lgc); "
        "Zhong, Deng, TIFS 2021 (dfanet)"
    )

    class Params(SurrogateParams):
        """Parameters of PGD."""

        eps: float = Field(8, gt=0, le=255, description="L∞ bound", json_schema_extra={"unit": "grey levels"})
        step: float | None = Field(
            None,
            gt=0,
            le=255,
            description="length of a signed step; eps/4 when absent",
            json_schema_extra={"unit": "grey levels"},
        )
        steps: int = Field(
            10, ge=1, le=10_000, description="ascent steps", json_schema_extra={"unit": "steps"}
        )
        goal: Literal["untargeted", "targeted"] = Field(
            "untargeted", description="away from the photo's own embedding, or towards another identity's"
        )
        momentum: float = Field(
            0,
            ge=0,
            le=10,
            description="decay of the accumulated gradient (MI-FGSM); 0 is off, Dong et al. use 1",
        )
        diversity: float = Field(
            0,
            ge=0,
            le=1,
            description="probability that a surrogate sees the photo shrunk and shifted (DI-FGSM); Xie et al.: .7",
        )
        resize: float = Field(
            LEAST_SIDE,
            gt=0,
            lt=1,
            description="smallest side that diversity shrinks to; Yang et al.: .9",
            json_schema_extra={"unit": "share of the side"},
        )
        smooth: float = Field(
            0,
            ge=0,
            le=16,
            description="σ of the Gaussian over each gradient (TI-FGSM); 0 is off, Yang et al.: 1, which is 7×7",
            json_schema_extra={"unit": "pixels"},
        )
        lgc: int = Field(
            0,
            ge=0,
            le=51,
            description="black 3×3 patches near landmarks in each step (LGC); 0 is off, Yang et al.: 4",
            json_schema_extra={"unit": "patches"},
        )
        dfanet: float = Field(
            0,
            ge=0,
            lt=1,
            description="share of every convolution's output that is dropped inside surrogates (DFANet); 0 is off",
        )
        targets: int = Field(
            0,
            ge=0,
            description="identities of the pool who are imitated, those with most photos first; 0 for all",
            json_schema_extra={"unit": "identities"},
        )

    params: Params

    @property
    def threat(self) -> ThreatModel:
        """The goal requested; the bound counts posted cloaks, and rounding may add up to half a grey level."""
        eps = self.params.eps
        return ThreatModel(
            goal=self.params.goal,
            surrogates=1,
            needs_targets=self.params.goal == "targeted",
            constraint="L∞ at most eps grey levels",
            max_linf=min(255.0, max(eps, math.floor(eps + 0.5))),
        )

    @property
    def passes(self) -> int:
        """The steps."""
        return self.params.steps

    def pool(self) -> str | None:
        """Return the surrogates requested."""
        return self.params.surrogates

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return one cloak for every face.

        Raises:
            UsageError: `ctx` has no differentiable surrogate, or nobody to imitate.
        """
        backbones = require_surrogates(self.name, ctx)
        task = _Ascent(self.params, faces, ctx, backbones, self._targets(faces, ctx, backbones))
        cloaks = optimise(task, len(faces), ctx.advance)
        return {i: c.to(faces.images.device) for i, c in zip(faces.ids, cloaks, strict=True)}

    def assign_targets(self, faces: Faces, ctx: Context) -> Mapping[str, str]:
        """Return whom each photo's cloak imitates: someone of the targets, drawn for each identity.

        Raises:
            UsageError: there is nobody to imitate.
        """
        if self.params.goal != "targeted":
            return super().assign_targets(faces, ctx)
        targets = require_targets("pgd:goal=targeted", "pgd:goal=untargeted", ctx)
        among = first_identities(targets, self.params.targets) if self.params.targets else None
        of_identity = {
            name: drawn_target(targets, ctx, name, among) for name in sorted(set(faces.identities))
        }
        return {image: of_identity[name] for image, name in zip(faces.ids, faces.identities, strict=True)}

    def _targets(
        self, faces: Faces, ctx: Context, backbones: Sequence[Backbone]
    ) -> Mapping[str, tuple[Tensor, ...]]:
        """Return image id → target embedding for each surrogate; empty where untargeted."""
        if self.params.goal != "targeted":
            return {}
        target_assignment = self.assign_targets(faces, ctx)
        assert ctx.targets is not None, "assign_targets() refuses a context without targets"
        return target_centres(backbones, ctx.targets, target_assignment, ctx.device)


class _Ascent:
    """PGD as an image-wise optimisation."""

    def __init__(
        self,
        params: PGD.Params,
        faces: Faces,
        ctx: Context,
        backbones: Sequence[Backbone],
        targets: Mapping[str, tuple[Tensor, ...]],
    ) -> None:
        self.faces, self.ctx, self.backbones, self.targets = faces, ctx, backbones, targets
        self.params, self.sign, self.momentum = params, -1 if targets else 1, params.momentum
        self.kernel = gaussian_kernel(params.smooth).to(ctx.device) if params.smooth else None
        self.eps = params.eps / GREY_LEVELS
        self.step = self.eps / 4 if params.step is None else params.step / GREY_LEVELS
        self.steps = params.steps

    def start(self, images: Sequence[int]) -> State:
        clean = self.faces.images[list(images)].to(self.ctx.device, memory_format=torch.channels_last)
        noise = [
            torch.rand(clean.shape[1:], generator=self.ctx.generator("pgd", self.faces.ids[i]))
            for i in images
        ]
        offset = torch.stack(noise).to(clean).mul(2 * self.eps).sub(self.eps)
        state = {
            "image": clean,
            "cloak": (clean + offset).clamp_(0, 1),
            # On the host, as all that says when to stop: a GPU is never waited for within the loop.
            "step": torch.zeros(len(clean), dtype=torch.long),
            "index": torch.tensor(images),
            **self._anchors(images, clean),
        }
        return state | {"velocity": torch.zeros_like(clean)} if self.momentum else state

    def _anchors(self, images: Sequence[int], clean: Tensor) -> dict[str, Tensor]:
        if not self.targets:
            return clean_embeddings(self.backbones, clean)
        aimed = [self.targets[self.faces.ids[i]] for i in images]
        return {f"clean{k}": torch.stack(rows) for k, rows in enumerate(zip(*aimed, strict=True))}

    def update(self, state: State) -> Tensor:
        cloak = state["cloak"].detach().requires_grad_()
        loss = distance_loss(self._embeddings(self._seen(cloak, state), state), state)
        (gradient,) = torch.autograd.grad(loss, cloak)
        if self.kernel is not None:
            gradient = smoothed(gradient, self.kernel)
        if self.momentum:
            gradient = state["velocity"] = accumulated(state["velocity"], gradient, self.momentum)
        offset = (cloak.detach() - state["image"]).add_(gradient.sign(), alpha=self.sign * self.step)
        state["cloak"] = offset.clamp_(-self.eps, self.eps).add_(state["image"]).clamp_(0, 1)
        state["step"] += 1
        return state["step"] >= self.steps

    def _seen(self, cloak: Tensor, state: State) -> Tensor:
        """Return what the surrogates see in this step: N×3×H×W cloaks with patches cut out, then shrunk and shifted."""
        if self.params.lgc:
            cloak = cut_out(cloak, draw_cutout(self._generators("lgc", state), self.params.lgc))
        if self.params.diversity:
            drawn = draw_diversity(self._generators("diversity", state), self.params.diversity)
            # A draw of 1 is LEAST_SIDE, and the side is linear in it.
            drawn[:, 0] *= (1 - self.params.resize) / (1 - LEAST_SIDE)
            cloak = diversified(cloak, drawn)
        return cloak

    def _embeddings(self, seen: Tensor, state: State) -> Sequence[Tensor]:
        """Return this step's unit embeddings of N×3×H×W images under each surrogate: N×D_k."""
        share = self.params.dfanet
        if not share:
            return unit_embeddings(self.backbones, seen)
        streams = [self._generators(f"dfanet/{backbone.card.name}", state) for backbone in self.backbones]
        drawn = zip(self.backbones, streams, strict=True)
        return [F.normalize(dropped_embeddings(b, seen, share, own), dim=1) for b, own in drawn]

    def _generators(self, use: str, state: State) -> list[torch.Generator]:
        """Return a generator for each photo, by its own name and step."""
        rows = zip(state["index"].tolist(), state["step"].tolist(), strict=True)
        return [self.ctx.generator(f"pgd/{use}/{step}", self.faces.ids[index]) for index, step in rows]

    def finish(self, state: State) -> Tensor:
        return state["cloak"]
