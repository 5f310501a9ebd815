"""Landmark-guided cutout: surrogates see a face with small black patches, so that a cloak does not hang on one detail.

Yang et al., "RobFR: Benchmarking Adversarial Robustness on Face Recognition" (arXiv 2007.04118), by its published code:
at each step four 3×3 patches, centred on landmarks drawn from the 51 within the face's outline. Crops here are
aligned, so that five points are known without a detector; a patch lies near one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.contracts import CROP_SIZE
from bench.faces.alignment import TEMPLATE

REACH = 8
"""How far from its point a patch's centre may lie, down and across, in pixels of a crop: about half an eye's width."""

RADIUS = 1
"""Pixels of a patch on each side of its centre."""


def draw_cutout(generators: Sequence[torch.Generator], patches: int) -> Tensor:
    """Return N×`patches`×3 numbers in [0, 1) from one generator an image: which landmark, where across, where down."""
    return torch.stack([torch.rand(patches, 3, generator=generator) for generator in generators])


def cut_out(images: Tensor, drawn: Tensor) -> Tensor:
    """Return N×3×H×W images with black patches, differentiable.

    Args:
        images: aligned crops; the landmarks' places scale with their size.
        drawn: N×P×3 of `draw_cutout`.
    """
    height, width = images.shape[-2:]
    scale = torch.tensor([width / CROP_SIZE, height / CROP_SIZE])
    landmarks = torch.tensor(TEMPLATE, dtype=torch.float32)
    points = landmarks[(len(landmarks) * drawn[..., 0]).long()] + REACH * (2 * drawn[..., 1:] - 1)
    across, down = (points * scale).round().unbind(-1)
    columns = (torch.arange(width) - across.unsqueeze(-1)).abs() <= RADIUS
    rows = (torch.arange(height) - down.unsqueeze(-1)).abs() <= RADIUS
    inside = (rows.unsqueeze(-1) & columns.unsqueeze(-2)).any(1, keepdim=True)
    return images * (~inside).to(images)
