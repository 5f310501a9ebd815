"""Refining a mask on the photo it is for: a few steps from where the generator left off. Ours.

A generator answers at once and for every photo alike; the surrogates can still say what this photo lacks. The
steps are taken on the mask at half the photo's side, so that it stays smooth and within its bounds, and the restorer
is trained on refined masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attacks._input_diversity import diversified
from attacks.erasablemask.meta_auxiliary import Aim, meta_auxiliary, plain_ensemble
from attacks.erasablemask.networks import Shape, change_of, within_bounds
from bench.contracts import Backbone
from bench.quality.metrics import GREY_LEVELS

DIVERSITY = 0.7
"""Probability that a surrogate sees a photo shrunk and shifted."""

STRIDE = 1.0
"""Root mean square of one step of the mask, grey levels."""

MOMENTUM = 0.5
"""Decay of the accumulated gradient."""

DODGE = 0.35
"""Weight of getting away from the own face against getting to the target's: see `likeness`."""

INNER_STRIDE = 2.0
"""Root mean square of the meta-auxiliary attack's inner step, grey levels."""


@dataclass(frozen=True)
class Surrogates:
    """Whom a mask is to fool, and how their gradients are put together.

    Attributes:
        backbones: differentiable, the primary one first.
        ensemble: take the plain mean of the gradients, in place of the meta-auxiliary one.
    """

    backbones: Sequence[Backbone]
    ensemble: bool = False

    def gradient(
        self,
        masked: Tensor,
        target_assignment: Sequence[Aim],
        dodge: float,
        drawn: Sequence[Tensor],
        trained: Sequence[bool],
        inner_stride: float = INNER_STRIDE,
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient with respect to masked photos, N×3×H×W, and N losses.

        Args:
            masked: N×3×H×W in [0, 1].
            target_assignment: one for each backbone.
            dodge: see `likeness`.
            drawn: input diversity of each backbone (`draw_diversity`).
            trained: which backbones are meta-train in this step.
            inner_stride: of the inner step, grey levels.
        """
        views = [partial(diversified, drawn=numbers) for numbers in drawn]
        if self.ensemble:
            return plain_ensemble(self.backbones, views, masked, target_assignment, dodge)
        stride = inner_stride / GREY_LEVELS
        return meta_auxiliary(
            self.backbones, views, masked, target_assignment, dodge, trained=trained, stride=stride
        )


@dataclass(frozen=True)
class Draws:
    """The random numbers of one refining step.

    Attributes:
        diversity: for each backbone N×3 (`draw_diversity`).
        trained: which backbones are meta-train.
    """

    diversity: Sequence[Tensor]
    trained: Sequence[bool]


def refined(
    half: Tensor,
    photos: Tensor,
    patterns: Tensor,
    surrogates: Surrogates,
    target_assignment: Sequence[Aim],
    shape: Shape,
    draws: Sequence[Draws],
) -> Tensor:
    """Return masks at half the side after one step for each of `draws`, within their bounds, without gradient.

    Args:
        half: N×3×H/2×W/2 masks to start from.
        photos: N×3×H×W in [0, 1].
        patterns: N×3×28×28 of the keys: a mask is refined as it will be posted.
        surrogates: whom to fool.
        target_assignment: one for each of them, the primary one's first.
        shape: bounds.
        draws: one a step.
    """
    half = half.detach()
    velocity = torch.zeros_like(half)
    for draw in draws:
        with torch.enable_grad():
            leaf = half.detach().requires_grad_()
            masked = (photos + change_of(leaf, patterns, shape)).clamp(0, 1)
            gradient, _ = surrogates.gradient(
                masked.detach(), target_assignment, DODGE, draw.diversity, draw.trained
            )
            (back,) = torch.autograd.grad(masked, leaf, gradient)
        velocity = MOMENTUM * velocity + _normed(back, power=1)
        half = within_bounds(half - STRIDE / GREY_LEVELS * _normed(velocity, power=2), shape)
    return half


def _normed(values: Tensor, power: int) -> Tensor:
    """Return each mask's values over their mean absolute value (1) or root mean square (2)."""
    size = values.abs().pow(power).mean((1, 2, 3), keepdim=True).pow(1 / power)
    return values / size.clamp_min(1e-12)


def drawn_meta_train(count: int, draw: torch.Generator) -> list[bool]:
    """Return which of `count` surrogates are meta-train: at least one, and not all where there are two or more."""
    if count == 1:
        return [True]
    size = 1 + int(torch.randint(count - 1, (1,), generator=draw))
    chosen = torch.randperm(count, generator=draw)[:size].tolist()
    return [k in chosen for k in range(count)]
