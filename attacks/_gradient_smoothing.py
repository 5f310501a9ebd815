"""Smoothed gradients: a step that is alike in neighbouring pixels does not hang on one backbone's fine grain.

Dong et al., "Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks" (CVPR 2019):
the gradient of a loss over all small shifts of a photo is about the gradient at the photo, convolved with the shifts'
weights. Their Gaussian ends at 3σ, as this one does: σ 1 is the 7×7 kernel used on faces (published code of Yang et
al., arXiv 2007.04118), σ 7/3 their own 15×15 one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_kernel(sigma: float) -> Tensor:
    """Return 2·⌈3σ⌉ + 1 weights of a Gaussian of `sigma` pixels, their sum 1."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return (weights / weights.sum()).float()


def smoothed(gradient: Tensor, kernel: Tensor) -> Tensor:
    """Return N×C×H×W `gradient` convolved with `kernel` down and across, zero beyond the edges.

    Args:
        gradient: one for each photo.
        kernel: an odd number of weights, `gaussian_kernel`.
    """
    channels, radius = gradient.shape[1], len(kernel) // 2
    weights = kernel.to(gradient)
    down = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    columns = F.conv2d(gradient, down, padding=(radius, 0), groups=channels)
    return F.conv2d(columns, across, padding=(0, radius), groups=channels)
