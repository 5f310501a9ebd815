"""The meta-auxiliary attack of ErasableMask (arXiv 2412.17038), as far as its abstract tells, and a plain ensemble.

The abstract: surrogates are not equals; "a novel meta-auxiliary attack … boosts black-box transferability by
learning more general features in a stable and balancing optimization strategy". Ours is how: see
`meta_auxiliary`. Everything is a gradient with respect to the masked photo, which the caller sends on into
whatever made the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contracts import Backbone


@dataclass(frozen=True)
class Aim:
    """What one surrogate should see.

    Attributes:
        own: N×D unit embeddings of the photos, to get away from.
        target: N×D unit embeddings of the identities to imitate.
    """

    own: Tensor
    target: Tensor


def likeness(embeddings: Tensor, aim: Aim, dodge: float) -> Tensor:
    """Return N losses: dodge · cos to the identity's own photo − cos to the target, in [−1 − dodge, 1 + dodge].

    Args:
        embeddings: N×D, of any length.
        aim: unit embeddings.
        dodge: weight of getting away against getting there.
    """
    seen = F.normalize(embeddings, dim=1)
    return dodge * (seen * aim.own).sum(1) - (seen * aim.target).sum(1)


def _gradient(surrogate: Backbone, masked: Tensor, aim: Aim, dodge: float) -> tuple[Tensor, Tensor]:
    """Return the gradient of the summed losses with respect to `masked`, and the N losses."""
    image = masked.detach().requires_grad_()
    losses = likeness(surrogate.embed(image), aim, dodge)
    (gradient,) = torch.autograd.grad(losses.sum(), image)
    return gradient, losses.detach()


def plain_ensemble(
    surrogates: Sequence[Backbone],
    views: Sequence[Callable[[Tensor], Tensor]],
    masked: Tensor,
    target_assignment: Sequence[Aim],
    dodge: float,
) -> tuple[Tensor, Tensor]:
    """Return the mean gradient over the surrogates, and the N losses averaged over them.

    Args:
        surrogates: differentiable backbones.
        views: input diversity of each, differentiable.
        masked: N×3×H×W in [0, 1].
        target_assignment: one for each surrogate.
        dodge: see `likeness`.
    """
    seen = [
        _through(view, masked, surrogate, aim, dodge)
        for surrogate, view, aim in zip(surrogates, views, target_assignment, strict=True)
    ]
    return torch.stack([g for g, _ in seen]).mean(0), torch.stack([loss for _, loss in seen]).mean(0)


def meta_auxiliary(
    surrogates: Sequence[Backbone],
    views: Sequence[Callable[[Tensor], Tensor]],
    masked: Tensor,
    target_assignment: Sequence[Aim],
    dodge: float,
    *,
    trained: Sequence[bool],
    stride: float,
) -> tuple[Tensor, Tensor]:
    """Return the meta-auxiliary gradient, and the N losses averaged over the surrogates.

    The first surrogate is primary, the others are auxiliary. Some are meta-train: their gradients, of equal
    length, give an inner step, and the others (meta-test) are evaluated at where it leads (first order: the step is
    a constant). So what counts is a change that still works after another backbone has had its way. Every
    gradient is scaled to the mean length of all (balance), and an auxiliary one loses its part against the
    primary one (stability; Yu et al., "Gradient Surgery", NeurIPS 2020, eq. in section 2.3). Costs as much as
    `plain_ensemble`.

    Args:
        surrogates: differentiable backbones, the primary one first.
        views: input diversity of each, differentiable.
        masked: N×3×H×W in [0, 1].
        target_assignment: one for each surrogate.
        dodge: see `likeness`.
        trained: for each surrogate, whether it is meta-train in this step.
        stride: root mean square of the inner step, in [0, 1].
    """
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def ask(index: int, images: Tensor) -> None:
        found[index] = _through(views[index], images, surrogates[index], target_assignment[index], dodge)

    first = [k for k, flag in enumerate(trained) if flag]
    for k in first:
        ask(k, masked)
    inner = masked
    if first:
        step = torch.stack([_of_unit_rms(found[k][0]) for k in first]).mean(0)
        inner = (masked - stride * step).clamp(0, 1)
    for k in range(len(surrogates)):
        if k not in found:
            ask(k, inner)
    gradients = _balanced([found[k][0] for k in range(len(surrogates))])
    primary = gradients[0]
    united = primary + reduce(torch.add, [_without_conflict(g, primary) for g in gradients[1:]], 0 * primary)
    losses = torch.stack([found[k][1] for k in range(len(surrogates))]).mean(0)
    return united / len(surrogates), losses


def _through(
    view: Callable[[Tensor], Tensor], images: Tensor, surrogate: Backbone, aim: Aim, dodge: float
) -> tuple[Tensor, Tensor]:
    leaf = images.detach().requires_grad_()
    seen = view(leaf)
    gradient, losses = _gradient(surrogate, seen, aim, dodge)
    (back,) = torch.autograd.grad(seen, leaf, gradient)
    return back, losses


def _norm(gradient: Tensor) -> Tensor:
    return gradient.square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)


def _of_unit_rms(gradient: Tensor) -> Tensor:
    return gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)


def _balanced(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients, each image's scaled to the mean of their lengths."""
    lengths = [_norm(gradient) for gradient in gradients]
    mean = torch.stack(lengths).mean(0)
    return [gradient * (mean / length) for gradient, length in zip(gradients, lengths, strict=True)]


def _without_conflict(auxiliary: Tensor, primary: Tensor) -> Tensor:
    """Return the auxiliary gradient without what it has against the primary one, image by image."""
    product = (auxiliary * primary).sum((1, 2, 3), keepdim=True)
    against = product.clamp(max=0) / _norm(primary).square()
    return auxiliary - against * primary
