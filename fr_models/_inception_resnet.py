"""Inception-ResNet-v1 (Szegedy et al., AAAI 2017, Fig. 10–14) in facenet's variant, 512-D, for 160×160 faces.

Names of layers are those of timesler/facenet-pytorch (models/inception_resnet_v1.py), so that its state_dicts fit.
Facenet's variant differs from the paper: residuals are scaled by 0.17, 0.10 and 0.20, and one more unit without
activation ends the body.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

EMBEDDING_DIM = 512
SIDE = 160

_EPSILON = 1e-3

Kernel = int | tuple[int, int]


@dataclass(frozen=True)
class _Layer:
    """A convolution of a branch: channels out, kernel, stride, padding."""

    outputs: int
    kernel: Kernel = 1
    stride: int = 1
    padding: Kernel = 0


Branch = tuple[_Layer, ...]


class _Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, layer: _Layer) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(layer.outputs, eps=_EPSILON)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))  # type: ignore[no-any-return]

    def fold(self) -> None:
        """Move the batch norm into the convolution."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


class _Branches(nn.Module):
    """Branches over one input, put one after the other along the channels."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...], *, pool: bool = False) -> None:
        super().__init__()
        self.count = len(branches) + pool
        for place, branch in enumerate(branches):
            self.add_module(f"branch{place}", _chain(inputs, branch))
        if pool:
            self.add_module(f"branch{len(branches)}", nn.MaxPool2d(3, stride=2))

    def joined(self, x: Tensor) -> Tensor:
        """Return the branches' outputs as one map."""
        return torch.cat([self.get_submodule(f"branch{place}")(x) for place in range(self.count)], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(x)


def _chain(inputs: int, branch: Branch) -> nn.Module:
    layers = []
    for layer in branch:
        layers.append(_Convolution(inputs, layer))
        inputs = layer.outputs
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


class _Residual(_Branches):
    """x + scale · convolution of the branches, then ReLU where it is not the last."""

    def __init__(
        self, channels: int, branches: tuple[Branch, ...], scale: float, *, last: bool = False
    ) -> None:
        super().__init__(channels, branches)
        self.conv2d = nn.Conv2d(sum(branch[-1].outputs for branch in branches), channels, 1)
        self.scale = scale
        self.end: nn.Module = nn.Identity() if last else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.conv2d(self.joined(x)) * self.scale + x)  # type: ignore[no-any-return]


_C, _SAME = _Layer, 1
_BLOCK_35 = ((_C(32),), (_C(32), _C(32, 3, 1, _SAME)), (_C(32), _C(32, 3, 1, _SAME), _C(32, 3, 1, _SAME)))
_BLOCK_17 = ((_C(128),), (_C(128), _C(128, (1, 7), 1, (0, 3)), _C(128, (7, 1), 1, (3, 0))))
_BLOCK_8 = ((_C(192),), (_C(192), _C(192, (1, 3), 1, (0, 1)), _C(192, (3, 1), 1, (1, 0))))
_REDUCTION_A = ((_C(384, 3, 2),), (_C(192), _C(192, 3, 1, _SAME), _C(256, 3, 2)))
_REDUCTION_B = (
    (_C(256), _C(384, 3, 2)),
    (_C(256), _C(256, 3, 2)),
    (_C(256), _C(256, 3, 1, _SAME), _C(256, 3, 2)),
)


_BODY = (
    *("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "conv2d_4b"),
    *("repeat_1", "mixed_6a", "repeat_2", "mixed_7a", "repeat_3", "block8", "avgpool_1a"),
)


class InceptionResNet(nn.Module):
    """Inception-ResNet-v1 as facenet builds it; its dropout is left out and the embedding is not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _Convolution(3, _C(32, 3, 2))
        self.conv2d_2a = _Convolution(32, _C(32, 3))
        self.conv2d_2b = _Convolution(32, _C(64, 3, 1, _SAME))
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = _Convolution(64, _C(80))
        self.conv2d_4a = _Convolution(80, _C(192, 3))
        self.conv2d_4b = _Convolution(192, _C(256, 3, 2))
        self.repeat_1 = nn.Sequential(*(_Residual(256, _BLOCK_35, 0.17) for _ in range(5)))
        self.mixed_6a = _Branches(256, _REDUCTION_A, pool=True)
        self.repeat_2 = nn.Sequential(*(_Residual(896, _BLOCK_17, 0.10) for _ in range(10)))
        self.mixed_7a = _Branches(896, _REDUCTION_B, pool=True)
        self.repeat_3 = nn.Sequential(*(_Residual(1792, _BLOCK_8, 0.20) for _ in range(5)))
        self.block8 = _Residual(1792, _BLOCK_8, 1.0, last=True)
        self.avgpool_1a = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(1792, EMBEDDING_DIM, bias=False)
        self.last_bn: nn.Module = nn.BatchNorm1d(EMBEDDING_DIM, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Return N×512 embeddings of N×3×160×160 standardised pixels."""
        for name in _BODY:
            x = self.get_submodule(name)(x)
        return self.last_bn(self.last_linear(x.flatten(1)))  # type: ignore[no-any-return]

    def fold(self) -> InceptionResNet:
        """Move every batch norm into the layer before it, in place; needs evaluation mode."""
        if self.training:
            raise ValueError("fold() needs a network in evaluation mode: call eval() first")
        for module in self.modules():
            if isinstance(module, _Convolution):
                module.fold()
        if isinstance(self.last_bn, nn.BatchNorm1d):
            self.last_linear = fuse_linear_bn_eval(self.last_linear, self.last_bn)
            self.last_bn = nn.Identity()
        return self.requires_grad_(False)
