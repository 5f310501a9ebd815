"""Input diversity: a surrogate sees a photo shrunk and shifted at random, so that a cloak does not hang on one grid.

Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity" (CVPR 2019), eq. 4 and
section 3.3, with the photo's own size as the largest one: the paper enlarges the canvas, face backbones have one
size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SIDE = 0.875
"""The smallest side drawn, as a share of the photo's."""


def draw_diversity(generators: Sequence[torch.Generator], probability: float) -> Tensor:
    """Return N×3 numbers in [0, 1) from one generator an image: shrink, shift down, shift right.

    With probability 1 − `probability` an image's are all 0: it is left as it is.
    """
    drawn = torch.stack([torch.rand(4, generator=generator) for generator in generators])
    return drawn[:, 1:] * (drawn[:, :1] < probability)


def diversified(images: Tensor, drawn: Tensor) -> Tensor:
    """Return N×3×H×W images shrunk, shifted within the frame and padded with black, differentiable.

    Args:
        images: N×3×H×W.
        drawn: N×3 of `draw_diversity`: 0 keeps the size, 1 would be `LEAST_SIDE`; then where the shrunk photo lies
            between the frame's edges.
    """
    shrink, down, right = drawn.to(images).unbind(1)
    side = 1 - (1 - LEAST_SIDE) * shrink
    room = 1 - side
    zero = torch.zeros_like(side)
    # A grid of where each output pixel comes from, in [−1, 1]: the inverse of shrinking by `side` and shifting.
    rows = torch.stack([1 / side, zero, -(2 * right - 1) * room / side], dim=1)
    columns = torch.stack([zero, 1 / side, -(2 * down - 1) * room / side], dim=1)
    grid = F.affine_grid(torch.stack([rows, columns], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
