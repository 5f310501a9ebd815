"""Full-reference image quality: how visible a cloak is and what a purifier costs (DESIGN 6).

What lives here: pure functions of two batches N×3×H×W in [0, 1], one value per image. What must not:
networks (LPIPS is in `bench.quality.lpips`), files and tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
        images: N×3×H×W in [0, 1].
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
        return cls(images, _window_mean(images), _window_mean(images.square()))

    def ssim(self, images: Tensor) -> Tensor:
        """Return the SSIM of each of `images` to the reference, differentiable; see `bench.quality.metrics.ssim`.

        Raises:
            ValueError: the shapes differ.
        """
        _check_pair(images, self.images)
        if self.images.requires_grad and torch.is_grad_enabled():
            own = _window_mean(images), _window_mean(images.square()), _window_mean(images * self.images)
            return _ssim_map(*own, self.mean, self.square).mean((1, 2, 3))
        return _Ssim.apply(images, self.images, self.mean, self.square)  # type: ignore[no-any-return]

    def dssim(self, images: Tensor) -> Tensor:
        """Return (1 − SSIM)/2 of each of `images` to the reference."""
        return (1 - self.ssim(images)) / 2


def _ssim_map(mean: Tensor, square: Tensor, product: Tensor, other: Tensor, other_square: Tensor) -> Tensor:
    """Return the SSIM of every window from the windowed means of x, x², xy, y and y²."""
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    means = 2 * mean * other
    powers = mean.square() + other.square()
    numerator = (means + c1) * (2 * product - means + c2)
    denominator = (powers + c1) * (square + other_square - powers + c2)
    return numerator / denominator


class _Ssim(torch.autograd.Function):
    """SSIM of images to a fixed reference; its gradient in a third of the passes that autograd would take.

    With a₁ = 2μν + c₁, a₂ = 2(W(xy) − μν) + c₂, b₁ = μ² + ν² + c₁, b₂ = W(x²) + W(y²) − μ² − ν² + c₂, W the windowed
    mean, μ = W(x) and ν = W(y): S = a₁a₂/(b₁b₂), and by the chain rule

        ∇S = Wᵀ(2ν(a₂ − a₁)/(b₁b₂) + 2μS(1/b₂ − 1/b₁)) − 2x · Wᵀ(S/b₂) + y · Wᵀ(2a₁/(b₁b₂)).
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, reference: Tensor, other: Tensor, other_square: Tensor) -> Tensor:
        c1, c2 = SSIM_K1**2, SSIM_K2**2
        mean = _windows(images)
        means = mean.mul(other).mul_(2)
        powers = mean.square().addcmul_(other, other)
        a2 = _windows(images * reference).mul_(2).sub_(means).add_(c2)
        b2 = _windows(images.square()).add_(other_square).sub_(powers).add_(c2)
        a1, b1 = means.add_(c1), powers.add_(c1)
        below = b1 * b2
        similar = (a1 * a2).div_(below)
        ctx.save_for_backward(images, reference, other, mean, a1, a2, b1, b2, below, similar)
        return similar.mean((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        images, reference, other, mean, a1, a2, b1, b2, below, similar = ctx.saved_tensors
        # On a GPU the question would wait for it.
        if upstream.is_cpu and not bool(upstream.any()):
            return torch.zeros_like(images), None, None, None
        by_square = similar / b2
        by_mean = torch.addcdiv(by_square, similar, b1, value=-1).mul_(mean)
        by_mean.addcdiv_((a2 - a1).mul_(other), below)
        by_product = a1 / below
        gradient = _spread_back(by_mean)
        gradient.addcmul_(reference, _spread_back(by_product))
        gradient.addcmul_(images, _spread_back(by_square), value=-1)
        scale = upstream.view(-1, 1, 1, 1) * (2 / similar.shape[1:].numel())
        return gradient.mul_(scale), None, None, None


@dataclass(frozen=True)
class _Band:
    """A part of a banded matrix: all that is not zero in some of its rows.

    Attributes:
        rows: the rows.
        columns: where they are not zero.
        weights: rows × columns.
    """

    rows: slice
    columns: slice
    weights: Tensor


_BLOCK = 34
"""Rows of a part: three parts a side of a 112×112 photo, a third of the products of the whole matrix."""


@lru_cache(maxsize=64)
def _bands(size: int, transposed: bool, device: torch.device, dtype: torch.dtype) -> tuple[_Band, ...]:
    """Return the matrix that takes `size` values to the weighted means of their windows, or its transpose, in parts."""
    # Never of inference mode: what is kept here serves gradients too.
    with torch.inference_mode(False), torch.no_grad():
        offsets = torch.arange(SSIM_WINDOW, device=device, dtype=dtype) - SSIM_WINDOW // 2
        weights = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
        weights = weights / weights.sum()
        reach = SSIM_WINDOW - 1
        matrix = torch.zeros(size - reach, size, device=device, dtype=dtype)
        for row in range(len(matrix)):
            matrix[row, row : row + SSIM_WINDOW] = weights
        parts = []
        for begin in range(0, size if transposed else size - reach, _BLOCK):
            if transposed:
                rows = slice(begin, min(begin + _BLOCK, size))
                columns = slice(max(begin - reach, 0), min(rows.stop, size - reach))
                part = matrix[columns, rows].T
            else:
                rows = slice(begin, min(begin + _BLOCK, size - reach))
                columns = slice(begin, rows.stop + reach)
                part = matrix[rows, columns]
            parts.append(_Band(rows, columns, part.contiguous()))
        return tuple(parts)


def _along_both(planes: Tensor, transposed: bool) -> Tensor:
    """Return P×H'×W' of P×H×W: each plane times the banded matrix of its height and of its width.

    Products of matrices take a quarter of the time of depth-wise convolutions with so wide a window.
    """
    change = (SSIM_WINDOW - 1) * (1 if transposed else -1)
    count, height, width = planes.shape
    columns_of = planes.new_empty(count, height + change, width)
    own_height = height + change if transposed else height
    for band in _bands(own_height, transposed, planes.device, planes.dtype):
        left = band.weights.expand(count, *band.weights.shape)
        torch.bmm(left, planes[:, band.columns], out=columns_of[:, band.rows])
    flat = columns_of.view(-1, width)
    found = planes.new_empty(len(flat), width + change)
    own_width = width + change if transposed else width
    for band in _bands(own_width, transposed, planes.device, planes.dtype):
        torch.mm(flat[:, band.columns], band.weights.T, out=found[:, band.rows])
    return found.view(count, height + change, width + change)


class _WindowMean(torch.autograd.Function):
    """The windowed mean, linear in the images: its gradient is the transposed product."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        del ctx
        return _windows(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        del ctx
        return _spread_back(upstream)


def _window_mean(images: Tensor) -> Tensor:
    """Return the Gaussian-weighted mean of every window inside the image, differentiable: N×C×(H−10)×(W−10)."""
    return _WindowMean.apply(images)  # type: ignore[no-any-return]


def _windows(images: Tensor) -> Tensor:
    """Return the same as `_window_mean`, without gradient."""
    found = _along_both(images.contiguous().flatten(0, 1), transposed=False)
    return found.view(*images.shape[:2], *found.shape[1:])


def _spread_back(maps: Tensor) -> Tensor:
    """Return the transpose of `_window_mean`: N×C×H×W of N×C×(H−10)×(W−10)."""
    found = _along_both(maps.contiguous().flatten(0, 1), transposed=True)
    return found.view(*maps.shape[:2], *found.shape[1:])


def _check_pair(images: Tensor, reference: Tensor) -> None:
    if images.shape != reference.shape:
        raise ValueError(f"image shapes differ: {tuple(images.shape)} and {tuple(reference.shape)}")
