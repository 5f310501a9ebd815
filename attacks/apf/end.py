"""APF's end side, module 1: a gradient for each photo, made on the user's device with a small probe model.

Signed ascent away from another photo of the same identity, under input diversity (Xie et al., "Improving
Transferability of Adversarial Examples with Input Diversity", CVPR 2019). Here: which other photo, the
diversity, the ascent. Not here: anything of the cloud's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks._micro_batch import State, optimise
from attacks._surrogates import unit_embeddings
from attacks.apf.cloud import Gradient
from bench.contracts import Backbone, Context, Faces
from bench.quality.metrics import GREY_LEVELS

NOISE = 5.0
"""Grey levels of uniform noise, either way."""

SHRINK = (1, 2)
"""Pixels that a resized photo may be smaller; 110 or 111 of 112."""

TURN = 15.0
"""Degrees a photo is turned at most, either way."""

START = 1.0
"""Grey levels of the random start, either way."""


@dataclass(frozen=True)
class Ascent:
    """Module 1's settings: ε and step in grey levels, the number of steps, the probability of diversity."""

    eps: int
    step: float
    steps: int
    diversity: float


def other_photos(faces: Faces) -> Tensor:
    """Return, for each face, another photo of the same identity: N×3×H×W.

    The next in order of image ids, after the last the first. Somebody's only photo has its own mirror image.
    """
    of_identity: dict[str, list[int]] = {}
    for row in sorted(range(len(faces)), key=lambda row: faces.ids[row]):
        of_identity.setdefault(faces.identities[row], []).append(row)
    others = torch.empty_like(faces.images)
    for rows in of_identity.values():
        for row, following in zip(rows, [*rows[1:], rows[0]], strict=True):
            others[row] = faces.images[following] if following != row else faces.images[row].flip(-1)
    return others


@dataclass(frozen=True)
class Diversity:
    """One draw of the input diversity for a micro-batch.

    Attributes:
        applied: N, 1 where the photo is changed and 0 where not.
        affine: N×2×3, from output to input positions in [−1, 1].
        noise: N×3×H×W.
    """

    applied: Tensor
    affine: Tensor
    noise: Tensor

    @classmethod
    def drawn(cls, generators: Sequence[torch.Generator], shape: torch.Size, probability: float) -> Diversity:
        """Draw noise, size, place and angle for each image from its own generator.

        Args:
            generators: one an image.
            shape: 3×H×W of an image, H = W.
            probability: of a photo being changed at all; one coin for all three changes.
        """
        rows = [_draw(generator, shape, probability) for generator in generators]
        applied, affine, noise = (torch.stack(column) for column in zip(*rows, strict=True))
        return cls(applied, affine, noise)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images changed: noise added, resized and padded with black, turned; differentiable."""
        noise, affine, applied = (x.to(images) for x in (self.noise, self.affine, self.applied))
        grid = F.affine_grid(affine, list(images.shape), align_corners=False)
        changed = F.grid_sample(images + noise, grid, align_corners=False)  # zeros outside: the padding
        share = applied[:, None, None, None]
        return images + share * (changed - images)


def _draw(generator: torch.Generator, shape: torch.Size, probability: float) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one image's coin, affine map and noise.

    The map takes a pixel of the output back through the turn about the centre, then the padding (offsets
    left and top), then the resizing from size s to the full side S: q·S/s + (S − 2·offset)/s − 1.
    """
    coin, size, left, top, angle = torch.rand(5, generator=generator).tolist()
    side = shape[-1]
    missing = SHRINK[0] + int(size * (SHRINK[1] - SHRINK[0] + 1))
    small = side - missing
    turn = math.radians((2 * angle - 1) * TURN)
    scale = side / small
    move = [(side - 2 * int(place * (missing + 1))) / small - 1 for place in (left, top)]
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    affine = torch.tensor([[cos, sin, move[0]], [-sin, cos, move[1]]])
    noise = (2 * torch.rand(shape, generator=generator) - 1) * NOISE / GREY_LEVELS
    return torch.tensor(float(coin < probability)), affine, noise


def image_gradients(faces: Faces, others: Tensor, probe: Backbone, ctx: Context, ascent: Ascent) -> Gradient:
    """Return what module 1 adds to each face.

    Args:
        faces: N faces.
        others: N×3×H×W photos to move away from, see `other_photos`.
        probe: the small model on the user's device.
        ctx: randomness, device and progress.
        ascent: the settings.
    """
    task = _GradientAscent(faces, others, probe, ctx, ascent)
    adversarial = torch.stack([image.cpu() for image in optimise(task, len(faces), ctx.advance)])
    return Gradient.between(adversarial, faces.images.cpu(), ascent.eps)


class _GradientAscent:
    """x ← clip_ε(x + step · sign ∇ ‖e(T(x)) − e(other)‖²), T the input diversity, e of unit length."""

    def __init__(self, faces: Faces, others: Tensor, probe: Backbone, ctx: Context, ascent: Ascent) -> None:
        self.faces, self.others, self.probe, self.ctx, self.ascent = faces, others, probe, ctx, ascent
        self.eps, self.step = ascent.eps / GREY_LEVELS, ascent.step / GREY_LEVELS

    def start(self, images: Sequence[int]) -> State:
        rows = list(images)
        clean = self._on_device(self.faces.images[rows])
        noise = [
            torch.rand(clean.shape[1:], generator=self.ctx.generator("apf start", self.faces.ids[i]))
            for i in images
        ]
        offset = torch.stack(noise).to(clean).mul(2).sub(1).mul(START / GREY_LEVELS)
        with torch.no_grad():
            (anchor,) = unit_embeddings([self.probe], self._on_device(self.others[rows]))
        return {
            "image": clean,
            "cloak": (clean + offset).clamp(0, 1),
            "anchor": anchor,
            "row": torch.tensor(rows, device=clean.device),
            "step": torch.zeros(len(clean), dtype=torch.long, device=clean.device),
        }

    def _on_device(self, images: Tensor) -> Tensor:
        return images.to(self.ctx.device, memory_format=torch.channels_last)

    def update(self, state: State) -> Tensor:
        cloak = state["cloak"].detach().requires_grad_()
        (embeddings,) = unit_embeddings([self.probe], self._diversity(state)(cloak))
        loss = (embeddings - state["anchor"]).square().sum()
        (gradient,) = torch.autograd.grad(loss, cloak)
        offset = cloak.detach() - state["image"] + self.step * gradient.sign()
        state["cloak"] = (state["image"] + offset.clamp(-self.eps, self.eps)).clamp(0, 1)
        state["step"] += 1
        return state["step"] >= self.ascent.steps

    def _diversity(self, state: State) -> Diversity:
        """Draw for each image and step, whatever else is in the micro-batch."""
        places = zip(state["row"].tolist(), state["step"].tolist(), strict=True)
        generators = [
            self.ctx.generator("apf diversity", f"{self.faces.ids[row]}\x1f{step}") for row, step in places
        ]
        return Diversity.drawn(generators, state["image"].shape[1:], self.ascent.diversity)

    def finish(self, state: State) -> Tensor:
        return state["cloak"]
