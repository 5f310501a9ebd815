"""Full-reference image quality: how visible a cloak is and what a purifier costs (DESIGN 6).

What lives here: pure functions of two batches N×3×H×W in [0, 1], one value per image. What must not:
networks (LPIPS is in `bench.quality.lpips`), files and tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GREY_LEVELS = 255.0
"""Grey levels per unit of pixel value."""

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1 = 0.01
SSIM_K2 = 0.03


def to_8_bits(images: Tensor) -> Tensor:
    """Return `images` clipped to [0, 1] and rounded to whole grey levels: what is posted."""
    return images.clamp(0, 1).mul(GREY_LEVELS).round().div(GREY_LEVELS)


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image.

    Args:
        images: N×3×H×W in [0, 1].
        reference: likewise.

    Returns:
        N values in dB; infinite where the two are equal.

    Raises:
        ValueError: the shapes differ.
    """
    _check_pair(images, reference)
    mse = (images.double() - reference.double()).square().flatten(1).mean(1)
    return -10 * mse.log10()


def linf(images: Tensor, reference: Tensor) -> Tensor:
    """Return the largest absolute difference of each image, in grey levels.

    Raises:
        ValueError: the shapes differ.
    """
    _check_pair(images, reference)
    return GREY_LEVELS * (images - reference).abs().flatten(1).amax(1)


def changed(images: Tensor, reference: Tensor) -> Tensor:
    """Return N booleans: whether any 8-bit pixel differs.

    Raises:
        ValueError: the shapes differ.
    """
    _check_pair(images, reference)
    return (to_8_bits(images) != to_8_bits(reference)).flatten(1).any(1)


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Return the structural similarity of each image (Wang et al., TIP 2004, eq. 13), differentiable.

    Gaussian window 11×11, σ 1.5, only windows that lie inside the image, K1 .01, K2 .03, data range 1,
    population covariance, mean over windows and the three channels: the definition of ``tf.image.ssim``,
    by which Fawkes states its budgets.

    Args:
        images: N×3×H×W in [0, 1], H and W at least 11.
        reference: likewise.

    Returns:
        N values in [−1, 1].

    Raises:
        ValueError: the shapes differ or an image is smaller than the window.
    """
    return SsimReference.of(reference).ssim(images)


def dssim(images: Tensor, reference: Tensor) -> Tensor:
    """Return the structural dissimilarity (1 − SSIM)/2 of each image, in [0, 1]; see `ssim`."""
    return (1 - ssim(images, reference)) / 2


@dataclass(frozen=True)
class SsimReference:
    """The original's share of SSIM, computed once for the many steps of an optimisation.

    Attributes:
        images: N×3×H×W in [0, 1]; best `interleaved`.
        mean: windowed mean, N×3×(H−10)×(W−10).
        square: windowed mean of squares, likewise.
    """

    images: Tensor
    mean: Tensor
    square: Tensor

    @classmethod
    def of(cls, images: Tensor) -> SsimReference:
        """Return the reference for `images`.

        Raises:
            ValueError: `images` are not N×C×H×W with sides of at least 11.
        """
        if images.ndim != 4 or min(images.shape[-2:]) < SSIM_WINDOW:
            raise ValueError(
                f"SSIM needs images N×C×H×W with sides of at least {SSIM_WINDOW}, got {tuple(images.shape)}"
            )
        images = interleaved(images)
        return cls(images, _window_mean(images), _window_mean(images.square()))

    def ssim(self, images: Tensor) -> Tensor:
        """Return the SSIM of each of `images` to the reference; see `bench.quality.metrics.ssim`."""
        _check_pair(images, self.images)
        images = interleaved(images)
        mean = _window_mean(images)
        square = _window_mean(images.square())
        product = _window_mean(images * self.images)
        c1, c2 = SSIM_K1**2, SSIM_K2**2
        means = 2 * mean * self.mean
        powers = mean.square() + self.mean.square()
        numerator = (means + c1) * (2 * product - means + c2)
        denominator = (powers + c1) * (square + self.square - powers + c2)
        return (numerator / denominator).mean((1, 2, 3))

    def dssim(self, images: Tensor) -> Tensor:
        """Return (1 − SSIM)/2 of each of `images` to the reference."""
        return (1 - self.ssim(images)) / 2


def interleaved(images: Tensor) -> Tensor:
    """Return the same N×C×H×W values laid out with the N·C planes innermost in memory.

    Depth-wise convolutions run ten to fifty times faster over 3·N interleaved planes than over N images of
    three channels. Nothing is copied where the layout is right already; element-wise results keep it.
    """
    planes = images.flatten(0, 1).unsqueeze(0).contiguous(memory_format=torch.channels_last)
    return planes.view(images.shape)


def _window_mean(images: Tensor) -> Tensor:
    """Return the Gaussian-weighted mean of every window inside the image: N×C×(H−10)×(W−10)."""
    count = images.shape[0] * images.shape[1]
    offsets = torch.arange(SSIM_WINDOW, device=images.device, dtype=images.dtype) - SSIM_WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    weights = (weights / weights.sum()).expand(count, 1, 1, SSIM_WINDOW)
    planes = images.flatten(0, 1).unsqueeze(0)
    rows = F.conv2d(planes, weights, groups=count)
    both = F.conv2d(rows, weights.transpose(2, 3), groups=count)
    return both.view(*images.shape[:2], *both.shape[2:])


def _check_pair(images: Tensor, reference: Tensor) -> None:
    if images.shape != reference.shape:
        raise ValueError(f"image shapes differ: {tuple(images.shape)} and {tuple(reference.shape)}")
