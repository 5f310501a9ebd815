"""What a purifier is trained for: features of the natural photo, also under an attack that knows the purifier."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contracts import Backbone


def feature_distance(
    images: Tensor, natural_features: Sequence[Tensor], extractors: Sequence[Backbone]
) -> Tensor:
    """Return per image the mean over the extractors of 1 − cos to the natural photo's features.

    Args:
        images: N×3×H×W in [0, 1].
        natural_features: one N×D tensor for each extractor.
        extractors: the feature extractors, in the same order.
    """
    distances = [
        1 - F.cosine_similarity(extractor.embed(images), features)
        for extractor, features in zip(extractors, natural_features, strict=True)
    ]
    return torch.stack(distances).mean(0)


def adaptive_examples(
    purified: Callable[[Tensor], Tensor],
    natural: Tensor,
    natural_features: Sequence[Tensor],
    extractors: Sequence[Backbone],
    *,
    eps: Tensor,
    steps: int,
    joint: bool,
    start: Tensor,
) -> Tensor:
    """Return photos cloaked by signed steps through the purifier as it stands (PGD, Madry et al. 2018, Eq. 1).

    Args:
        purified: the purifier, differentiable.
        natural: N×3×H×W in [0, 1].
        natural_features: one N×D tensor for each extractor, of the natural photos.
        extractors: the feature extractors, in the same order.
        eps: N bounds in L∞, of [0, 1].
        steps: number of steps, each 2.5·eps / steps long.
        joint: move the features of the photo as posted too, not of the purified one alone.
        start: N×3×H×W in [−1, 1]; times eps it is where the ascent starts.
    """
    bound = eps.view(-1, 1, 1, 1)
    offset = start * bound
    for _ in range(steps):
        cloak = (natural + offset).clamp(0, 1).detach().requires_grad_()
        gain = feature_distance(purified(cloak).clamp(0, 1), natural_features, extractors).sum()
        if joint:
            gain = gain + feature_distance(cloak, natural_features, extractors).sum()
        (gradient,) = torch.autograd.grad(gain, cloak)
        offset = (offset + 2.5 / steps * bound * gradient.sign()).clamp(-bound, bound)
    return (natural + offset).clamp(0, 1).detach()
