"""PGD on embeddings: signed ascent of the distance from the clean embedding within an L∞ ball.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR 2018), eq. 5, with the
classification loss replaced by a distance of embeddings. Images stay in [0, 1]; ε and the step are given in
grey levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks._micro_batch import State, optimise
from attacks._surrogates import SurrogateParams, clean_embeddings, require_surrogates, unit_embeddings
from bench.contracts import Attack, Backbone, Context, Faces, ThreatModel
from bench.image_quality import GREY_LEVELS


def ascent_loss(backbones: Sequence[Backbone], images: Tensor, state: State) -> Tensor:
    """Return the sum over images and mean over surrogates of ‖e(x') − e(x)‖², e of unit length.

    It equals 2(1 − cos), so the sign of its gradient is that of the cosine distance; unit length lets every
    surrogate weigh the same, whatever the scale of its embeddings, which is what transfers to other
    backbones. Its gradient is zero at x itself, hence the random start.
    """
    embeddings = unit_embeddings(backbones, images)
    distances = [(e - state[f"clean{k}"]).square().sum() for k, e in enumerate(embeddings)]
    return torch.stack(distances).mean()


class PGD(Attack):
    """Projected gradient ascent away from the clean embeddings."""

    name: ClassVar[str] = "pgd"
    paper: ClassVar[str] = "Madry et al., ICLR 2018 (arXiv 1706.06083)"
    threat: ClassVar[ThreatModel] = ThreatModel(
        goal="untargeted", surrogates=1, constraint="L∞ at most eps grey levels"
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

    params: Params

    def pool(self) -> str | None:
        """Return the surrogates asked for."""
        return self.params.surrogates

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return one cloak for every face.

        Raises:
            UsageError: `ctx` has no differentiable surrogate.
        """
        task = _Ascent(self.params, faces, ctx, require_surrogates(self.name, ctx))
        cloaks = optimise(task, len(faces), ctx.advance)
        return {i: c.to(faces.images.device) for i, c in zip(faces.ids, cloaks, strict=True)}


class _Ascent:
    """PGD as an image-wise optimisation."""

    def __init__(self, params: PGD.Params, faces: Faces, ctx: Context, backbones: Sequence[Backbone]) -> None:
        self.faces, self.ctx, self.backbones = faces, ctx, backbones
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
        return {
            "image": clean,
            "cloak": (clean + offset).clamp(0, 1),
            "step": torch.zeros(len(clean), dtype=torch.long, device=clean.device),
            **clean_embeddings(self.backbones, clean),
        }

    def update(self, state: State) -> Tensor:
        cloak = state["cloak"].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(ascent_loss(self.backbones, cloak, state), cloak)
        offset = cloak.detach() - state["image"] + self.step * gradient.sign()
        state["cloak"] = (state["image"] + offset.clamp(-self.eps, self.eps)).clamp(0, 1)
        state["step"] += 1
        return state["step"] >= self.steps

    def finish(self, state: State) -> Tensor:
        return state["cloak"]
