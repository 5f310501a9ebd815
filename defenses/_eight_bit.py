"""Purifiers that work on 8-bit images one at a time, as Pillow does."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.contracts import Context, Faces

Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
"""H×W×3 RGB."""


def change_each(faces: Faces, ctx: Context, change: Callable[[Pixels], Pixels]) -> Tensor:
    """Return every image as `change` gives it back, N×3×H×W float32 in [0, 1].

    Args:
        faces: images in [0, 1]; rounded to 8 bits first, as `change` takes nothing else.
        ctx: its `advance` is called after each.
        change: maps the pixels of one image to as many others.
    """
    changed = []
    for image in faces.images:
        pixels = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        changed.append(torch.tensor(change(pixels)).permute(2, 0, 1))
        ctx.advance(1)
    if not changed:
        return faces.images
    return torch.stack(changed).to(faces.images.device, torch.float32) / 255
