"""TIP-IM: at each step the candidate that comes nearest to one of several other identities, whichever it is.

Yang et al., "Towards Face Encryption by Generating Adversarial Identity Masks" (ICCV 2021, arXiv 2003.06814),
Algorithm 1. With f the unit embedding, f₀ that of the clean photo and t_1 … t_m those of m targets, each of N steps
takes for each target

    g ← μ·g + ∇/mean|∇|,  ∇ of ‖f(x') − t‖² − ‖f(x') − f₀‖²,      x' ← clip(x' − (1.5 ε/N) · √D · g/‖g‖₂, ±ε)

and keeps the candidate with the largest log(1 + max_j exp(‖f(x') − f₀‖ − ‖f(x') − t_j‖)). The natural loss (MMD) has
weight 0 in the released code and is not built; what else differs is in docs/methods/tipim.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks._input_diversity import diversified, draw_diversity
from attacks._micro_batch import State, optimise
from attacks._surrogates import SurrogateParams, clean_embeddings, require_surrogates, unit_embeddings
from attacks._targets import first_identities, require_targets, target_centre
from bench.contracts import Attack, Backbone, Context, Faces, ThreatModel
from bench.quality.metrics import GREY_LEVELS


class TIPIM(Attack):
    """Steps towards whichever of several identities is nearest, away from one's own."""

    name: ClassVar[str] = "tipim"
    paper: ClassVar[str] = "Yang et al., ICCV 2021 (arXiv 2003.06814)"

    class Params(SurrogateParams):
        """Parameters of TIP-IM, as released."""

        eps: float = Field(
            12, gt=0, le=255, description="L∞ bound", json_schema_extra={"unit": "grey levels"}
        )
        steps: int = Field(100, ge=1, le=10_000, description="steps", json_schema_extra={"unit": "steps"})
        targets: int = Field(
            10,
            ge=1,
            le=1000,
            description="identities of the pool that may be imitated, those with most photos first",
            json_schema_extra={"unit": "identities"},
        )
        momentum: float = Field(1, ge=0, le=10, description="decay of the accumulated gradient")
        diversity: float = Field(
            0.7, ge=0, le=1, description="probability that a surrogate sees the photo shrunk and shifted"
        )

    params: Params

    @property
    def threat(self) -> ThreatModel:
        """Untargeted: whom a cloak comes to look like is not chosen before; rounding may add half a grey level."""
        eps = self.params.eps
        return ThreatModel(
            goal="untargeted",
            surrogates=1,
            needs_targets=True,
            constraint="L∞ at most eps grey levels",
            max_linf=min(255.0, max(eps, math.floor(eps + 0.5))),
        )

    @property
    def passes(self) -> int:
        """At each step and target a pass back and one forward."""
        return self.params.steps * self.params.targets

    def pool(self) -> str | None:
        """Return the surrogates requested."""
        return self.params.surrogates

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return one cloak for every face.

        Raises:
            UsageError: `ctx` has no differentiable surrogate, or nobody to imitate.
        """
        backbones = require_surrogates(self.name, ctx)
        targets = require_targets(self.name, "pgd, which needs none", ctx)
        centres = _centres(backbones, targets, self.params.targets, ctx)
        cloaks = optimise(_Greedy(self.params, faces, ctx, backbones, centres), len(faces), ctx.advance)
        return {i: c.to(faces.images.device) for i, c in zip(faces.ids, cloaks, strict=True)}


def _centres(
    backbones: Sequence[Backbone], targets: Faces, count: int, ctx: Context
) -> tuple[tuple[Tensor, ...], ...]:
    """Return for each target the embedding that is imitated, for each surrogate: D_k."""
    there = targets.with_images(targets.images.to(ctx.device))
    return tuple(target_centre(backbones, there, name) for name in first_identities(targets, count))


def gain(
    embeddings: Sequence[Tensor], clean: Sequence[Tensor], targets: Sequence[Sequence[Tensor]]
) -> Tensor:
    """Return log(1 + max_j exp(‖f' − f₀‖ − ‖f' − t_j‖)) of each image, distances averaged over surrogates: N.

    Args:
        embeddings: f' of each surrogate, N×D_k, of unit length.
        clean: f₀, likewise.
        targets: t_j of each surrogate, D_k.
    """
    away = torch.stack([(own - first).norm(dim=1) for own, first in zip(embeddings, clean, strict=True)])
    near = torch.stack(
        [
            torch.stack([(own - t).norm(dim=1) for own, t in zip(embeddings, one, strict=True)]).mean(0)
            for one in targets
        ]
    )
    return torch.log1p((away.mean(0) - near).amax(0).exp())


class _Greedy:
    """TIP-IM as an image-wise optimisation."""

    def __init__(
        self,
        params: TIPIM.Params,
        faces: Faces,
        ctx: Context,
        backbones: Sequence[Backbone],
        centres: Sequence[Sequence[Tensor]],
    ) -> None:
        self.params, self.faces, self.ctx = params, faces, ctx
        self.backbones, self.centres = backbones, centres
        self.eps = params.eps / GREY_LEVELS

    def start(self, images: Sequence[int]) -> State:
        clean = self.faces.images[list(images)].to(self.ctx.device, memory_format=torch.channels_last)
        return {
            "image": clean,
            "cloak": clean.clone(),
            "velocity": torch.zeros_like(clean),
            "step": torch.zeros(len(clean), dtype=torch.long),
            "index": torch.tensor(images),
            **clean_embeddings(self.backbones, clean),
        }

    def update(self, state: State) -> Tensor:
        best = torch.full((len(state["image"]),), -math.inf, device=state["image"].device)
        kept = {name: state[name] for name in ("cloak", "velocity")}
        for gradient in self._gradients(state):
            velocity = self.params.momentum * state["velocity"] + gradient / _mean(gradient.abs())
            cloak = self._candidate(state, velocity)
            with torch.no_grad():
                score = gain(unit_embeddings(self.backbones, cloak), self._clean(state), self.centres)
            better = score > best
            best = torch.where(better, score, best)
            for name, value in (("cloak", cloak), ("velocity", velocity)):
                kept[name] = torch.where(better[:, None, None, None], value, kept[name])
        state.update(kept)
        state["step"] += 1
        return state["step"] >= self.params.steps

    def _gradients(self, state: State) -> list[Tensor]:
        """Return the gradient of each target's objective, one pass forward for all of them: N×3×H×W each."""
        cloak = state["cloak"].detach().requires_grad_()
        embeddings = unit_embeddings(self.backbones, self._seen(cloak, state))
        clean = self._clean(state)
        found = []
        for one in self.centres:
            terms = [
                (own - target).square().sum() - (own - first).square().sum()
                for own, target, first in zip(embeddings, one, clean, strict=True)
            ]
            (gradient,) = torch.autograd.grad(torch.stack(terms).mean(), cloak, retain_graph=True)
            found.append(gradient)
        return found

    def _candidate(self, state: State, velocity: Tensor) -> Tensor:
        """Return the cloaks after a step of root mean square 1.5 ε/N down the accumulated gradient."""
        length = velocity.square().mean((1, 2, 3), keepdim=True).sqrt()
        step = 1.5 * self.eps / self.params.steps * velocity / length.clamp_min(_TINY)
        offset = (state["cloak"].detach() - step - state["image"]).clamp(-self.eps, self.eps)
        return (state["image"] + offset).clamp(0, 1)

    def _seen(self, cloak: Tensor, state: State) -> Tensor:
        if not self.params.diversity:
            return cloak
        rows = zip(state["index"].tolist(), state["step"].tolist(), strict=True)
        drawn = [self.ctx.generator(f"tipim/{step}", self.faces.ids[index]) for index, step in rows]
        return diversified(cloak, draw_diversity(drawn, self.params.diversity))

    def _clean(self, state: State) -> list[Tensor]:
        return [state[f"clean{k}"] for k in range(len(self.backbones))]

    def finish(self, state: State) -> Tensor:
        return state["cloak"]


_TINY = torch.finfo(torch.float32).tiny


def _mean(values: Tensor) -> Tensor:
    """Return the mean of each image of N×3×H×W, N×1×1×1, never 0."""
    return values.mean((1, 2, 3), keepdim=True).clamp_min(_TINY)
