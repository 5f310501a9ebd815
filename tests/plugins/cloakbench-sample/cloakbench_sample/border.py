"""The border of an image, shared by the attack that paints it and the defence that takes it away."""

import torch
from torch import Tensor


def inside(images: Tensor, width: int) -> Tensor:
    """Return 1 inside and 0 on a border of `width` pixels, H×W of N×3×H×W images."""
    mask = torch.zeros(images.shape[-2:])
    mask[width:-width, width:-width] = 1
    return mask
