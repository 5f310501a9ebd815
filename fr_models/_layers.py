"""Layers the project's own architectures share: convolution with batch norm, PReLU, and their folding.

Here: layers and `fold`, which turns a trained network into a faster one with the same values. Not here:
architectures.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


class _PReLUFunction(torch.autograd.Function):
    """PReLU whose backward is vectorised; torch's own is two to three times slower on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, slope = ctx.saved_tensors
        a = slope.view(1, -1, 1, 1)
        passed = torch.ops.aten.threshold_backward(gradient, x, 0)
        slope_gradient = None
        if ctx.needs_input_grad[1]:
            slope_gradient = ((gradient - passed) * x).sum((0, 2, 3))
        return torch.addcmul(gradient * a, passed, 1 - a), slope_gradient


class PReLU(nn.Module):
    """x where positive, a·x elsewhere, with one learnt slope a channel (He et al., ICCV 2015, Eq. 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Return N×C×H×W from N×C×H×W."""
        return _PReLUFunction.apply(x, self.slope)  # type: ignore[no-any-return]


class Convolution(nn.Module):
    """Convolution without bias, batch norm, and PReLU unless `linear`; padding keeps the size at stride 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            kernel // 2 if padding is None else padding,
            groups=groups,
            bias=False,
        )
        self.normalisation: nn.Module = nn.BatchNorm2d(outputs)
        self.activation: nn.Module = nn.Identity() if linear else PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return N×C'×H'×W' from N×C×H×W."""
        return self.activation(self.normalisation(self.convolution(x)))  # type: ignore[no-any-return]

    def fold(self) -> None:
        """Move the batch norm into the convolution."""
        if isinstance(self.normalisation, nn.BatchNorm2d):
            self.convolution = fuse_conv_bn_eval(self.convolution, self.normalisation)
            self.normalisation = nn.Identity()


class Normalisation(nn.Module):
    """Batch norm before a convolution, where zero padding forbids folding it: one multiply-add instead."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalisation: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return N×C×H×W from N×C×H×W."""
        return self.normalisation(x)  # type: ignore[no-any-return]

    def fold(self) -> None:
        """Replace batch norm by its factor and offset."""
        if isinstance(self.normalisation, nn.BatchNorm2d):
            self.normalisation = _Affine(*_affine(self.normalisation))


class _Affine(nn.Module):
    """factor·x + offset, each one a channel."""

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.view(1, -1, 1, 1))
        self.register_buffer("offset", offset.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.offset, x, self.factor)


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the factor and offset (C each) that a batch norm applies when it evaluates."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    factor = norm.weight.detach() * torch.rsqrt(variance + norm.eps)
    return factor, norm.bias.detach() - mean * factor


class Projection(nn.Module):
    """BN–FC–BN from a map to the embedding (ArcFace, Sec. 3.1; its dropout is left out)."""

    def __init__(self, channels: int, side: int, outputs: int) -> None:
        super().__init__()
        self.side = side
        self.before: nn.Module = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels * side * side, outputs)
        self.after: nn.Module = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return N×D from N×C×side×side."""
        return self.after(self.linear(self.before(x).flatten(1)))  # type: ignore[no-any-return]

    def fold(self) -> None:
        """Move both batch norms into the linear layer."""
        if not isinstance(self.before, nn.BatchNorm2d):
            return
        factor, offset = (value.repeat_interleave(self.side**2) for value in _affine(self.before))
        weight = self.linear.weight.detach()
        self.linear.bias = nn.Parameter(self.linear.bias.detach() + weight @ offset)
        self.linear.weight = nn.Parameter(weight * factor)
        assert isinstance(self.after, nn.BatchNorm1d)
        self.linear = fuse_linear_bn_eval(self.linear, self.after)
        self.before, self.after = nn.Identity(), nn.Identity()


def fold(network: nn.Module) -> nn.Module:
    """Fold every batch norm of a network in evaluation mode, in place; the same values to rounding."""
    if network.training:
        raise ValueError("fold() needs a network in evaluation mode: call eval() first")
    for module in network.modules():
        if isinstance(module, (Convolution, Normalisation, Projection)):
            module.fold()
    return network.requires_grad_(False)


_LEAST_CHANNELS = 16
"""torch 2.15 crashes in the backward of a strided 1×1 convolution with 8 channels in channels_last."""


def scaled(channels: int, width: float) -> int:
    """Return channels × width, rounded to a multiple of 8 that is at least 16."""
    return max(_LEAST_CHANNELS, round(channels * width / 8) * 8)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw convolutions and linear layers from N(0, 2/fan-out) (He et al., ICCV 2015, Sec. 2.2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.out_channels * module.kernel_size[0] * module.kernel_size[1] // module.groups
            module.weight.data.normal_(0, (2 / fan) ** 0.5, generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.data.normal_(0, 0.01, generator=generator)
            module.bias.data.zero_()
