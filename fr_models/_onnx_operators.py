"""The ONNX operators face-recognition networks are made of, each as one torch function.

What lives here: `OPERATORS`, from operator name to a builder. A builder gets the node and returns a function
of all the node's inputs (None where an optional one is absent). What must not: graphs, files, weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class UnreadableNodeError(ValueError):
    """A node asks for something its operator here does not do; the reader adds where."""


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        operator: e.g. ``Conv``; with its domain where that is not ONNX's own.
        name: as in the file, else the name of its first output.
        inputs: names of the values it reads; "" where an optional one is absent.
        outputs: names of the values it makes.
        attributes: by name, as Python values.
        constants: those of its inputs that are known before the network runs.
        opset: of the graph.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[str, Tensor]
    opset: int

    def constant(self, position: int) -> Tensor | None:
        """Return the input at `position`, or None where it is absent.

        Raises:
            UnreadableNodeError: it is only known when the network runs.
        """
        if not self.has(position):
            return None
        name = self.inputs[position]
        if name not in self.constants:
            raise UnreadableNodeError(f"its input '{name}' is not a constant")
        return self.constants[name]

    def has(self, position: int) -> bool:
        """Say whether the optional input at `position` is there."""
        return position < len(self.inputs) and bool(self.inputs[position])

    def integers(self, attribute: str, position: int) -> tuple[int, ...] | None:
        """Return a list of integers that older opsets give as attribute, newer ones as an input."""
        if attribute in self.attributes:
            return tuple(int(v) for v in self.attributes[attribute])
        given = self.constant(position)
        return None if given is None else tuple(int(v) for v in given.flatten().tolist())

    def text(self, attribute: str, default: str) -> str:
        """Return a text attribute."""
        value = self.attributes.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else str(value)


Operation = Callable[..., Tensor]
Builder = Callable[[Node], Operation]


class _ChannelPReLU(torch.autograd.Function):
    """PReLU with one slope a channel; its input gradient in three vectorised passes.

    torch's own backward is about twice as slow in channels_last, and computes the slope's gradient where
    nobody wants it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, slope = ctx.saved_tensors
        a = slope.view(1, -1, *[1] * (x.ndim - 2))
        passed = torch.ops.aten.threshold_backward(gradient, x, 0)
        of_slope = None
        if ctx.needs_input_grad[1]:
            of_slope = ((gradient - passed) * x).transpose(0, 1).reshape(len(slope), -1).sum(1)
        return torch.addcmul(gradient * a, passed, 1 - a), of_slope


def _per_channel(slope: Tensor, rank: int) -> Tensor | None:
    """Return `slope` as a vector of one or C values if it varies over channels (axis 1) only."""
    if slope.numel() == 1:
        return slope.reshape(1)
    axis = slope.ndim - (rank - 1)
    if 0 <= axis < slope.ndim and slope.shape[axis] == slope.numel():
        return slope.reshape(-1)
    return None


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Return x where positive, slope·x elsewhere; the slope broadcasts as in NumPy.

    Args:
        x: N×C×… values.
        slope: slopes; a gradient flows to them where they ask for one.
    """
    channels = _per_channel(slope, x.ndim)
    if channels is not None and x.ndim > 1:
        return _ChannelPReLU.apply(x, channels)  # type: ignore[no-any-return]
    positive = F.relu(x)
    return positive + slope * (x - positive)


def _clip(node: Node) -> Operation:
    if node.opset < 11:
        low, high = float(node.attributes.get("min", -math.inf)), float(node.attributes.get("max", math.inf))
    else:
        bounds = node.constant(1), node.constant(2)
        low = -math.inf if bounds[0] is None else bounds[0].item()
        high = math.inf if bounds[1] is None else bounds[1].item()
    if low == -math.inf and high == math.inf:
        return lambda x, *_: x
    if low == 0 and high == math.inf:
        return lambda x, *_: F.relu(x)
    if math.isfinite(low) and math.isfinite(high) and low < high:
        # hardtanh is clamp with a vectorised backward; they differ in the gradient at the bounds alone.
        return lambda x, *_: F.hardtanh(x, low, high)
    return lambda x, *_: torch.clamp(x, low, high)


def _leaky_relu(node: Node) -> Operation:
    slope = float(node.attributes.get("alpha", 0.01))
    return lambda x: F.leaky_relu(x, slope)


@dataclass(frozen=True)
class _Window:
    """Kernel, stride, dilation and padding of a convolution or pooling over height and width."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    same: str

    @property
    def symmetric(self) -> bool:
        """Whether the padding is fixed and alike on both sides, as torch's own operators want it."""
        return not self.same and self.before == self.after

    def padding(self, x: Tensor) -> tuple[int, int, int, int]:
        """Return left, right, top, bottom padding for `x`, as `torch.nn.functional.pad` wants it."""
        if not self.same:
            return self.before[1], self.after[1], self.before[0], self.after[0]
        pads: list[int] = []
        for axis in (1, 0):
            size, stride = x.shape[2 + axis], self.stride[axis]
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
            small, large = total // 2, total - total // 2
            pads += [small, large] if self.same == "SAME_UPPER" else [large, small]
        return pads[0], pads[1], pads[2], pads[3]


def _pair(values: Sequence[int], what: str) -> tuple[int, int]:
    if len(values) != 2:
        raise UnreadableNodeError(f"its {what} has {len(values)} axes; only height × width can be read")
    return int(values[0]), int(values[1])


def _window(node: Node, kernel: Sequence[int]) -> _Window:
    auto = node.text("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise UnreadableNodeError(f"its auto_pad is '{auto}'")
    pads = node.attributes.get("pads", (0, 0, 0, 0)) if auto == "NOTSET" else (0, 0, 0, 0)
    return _Window(
        kernel=_pair(kernel, "kernel"),
        stride=_pair(node.attributes.get("strides", (1, 1)), "strides"),
        dilation=_pair(node.attributes.get("dilations", (1, 1)), "dilations"),
        before=_pair(pads[: len(pads) // 2], "padding"),
        after=_pair(pads[len(pads) // 2 :], "padding"),
        same=auto if auto.startswith("SAME") else "",
    )


def _conv(node: Node) -> Operation:
    weight = node.constant(1)
    if weight is None or weight.ndim != 4:
        raise UnreadableNodeError("only two-dimensional convolutions can be read")
    window = _window(node, tuple(weight.shape[2:]))
    groups = int(node.attributes.get("group", 1))
    stride, dilation = window.stride, window.dilation
    if window.symmetric:
        padding = window.before
        # On one CPU thread torch hands 1×1 convolutions of small batches to a slow kernel that leaves
        # channels_last, unless they are dilated; a kernel of one pixel is the same with any dilation.
        on_cpu = (2, 2) if window.kernel == (1, 1) else dilation

        def convolve(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
            return F.conv2d(x, w, b, stride, padding, on_cpu if x.is_cpu else dilation, groups)

        return convolve

    def padded(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.conv2d(F.pad(x, window.padding(x)), w, b, stride, 0, dilation, groups)

    return padded


def _max_pool(node: Node) -> Operation:
    window = _window(node, node.attributes["kernel_shape"])
    ceil = bool(node.attributes.get("ceil_mode", 0))
    kernel, stride, dilation = window.kernel, window.stride, window.dilation
    # torch refuses a padding beyond half the kernel.
    if window.symmetric and all(2 * p <= k for p, k in zip(window.before, kernel, strict=True)):
        padding = window.before
        return lambda x: F.max_pool2d(x, kernel, stride, padding, dilation, ceil)

    def padded(x: Tensor) -> Tensor:
        bordered = F.pad(x, window.padding(x), value=-math.inf)
        return F.max_pool2d(bordered, kernel, stride, 0, dilation, ceil)

    return padded


def _average_pool(node: Node) -> Operation:
    window = _window(node, node.attributes["kernel_shape"])
    if window.dilation != (1, 1):
        raise UnreadableNodeError(f"its dilations are {window.dilation}")
    ceil = bool(node.attributes.get("ceil_mode", 0))
    with_pad = bool(node.attributes.get("count_include_pad", 0))
    kernel, stride = window.kernel, window.stride
    if window.symmetric and all(2 * p <= k for p, k in zip(window.before, kernel, strict=True)):
        padding = window.before
        return lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil, with_pad)

    def padded(x: Tensor) -> Tensor:
        pads = window.padding(x)
        mean = F.avg_pool2d(F.pad(x, pads), kernel, stride, 0, ceil)
        if with_pad:
            return mean
        inside = F.pad(torch.ones_like(x[:1, :1]), pads)
        return mean / F.avg_pool2d(inside, kernel, stride, 0, ceil)

    return padded


def _batch_normalization(node: Node) -> Operation:
    if node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1):
        raise UnreadableNodeError("only batch normalisation for inference, per channel, can be read")
    epsilon = float(node.attributes.get("epsilon", 1e-5))

    def affine(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = gamma * torch.rsqrt(variance + epsilon)
        return torch.addcmul((beta - mean * scale).view(shape), x, scale.view(shape))

    return affine


def _gemm(node: Node) -> Operation:
    alpha, beta = float(node.attributes.get("alpha", 1)), float(node.attributes.get("beta", 1))
    left, right = bool(node.attributes.get("transA", 0)), bool(node.attributes.get("transB", 0))
    bias = node.constants.get(node.inputs[2]) if node.has(2) else None
    vector = not node.has(2) or (bias is not None and bias.ndim == 1)
    if right and not left and alpha == beta == 1 and vector:
        return lambda a, b, c=None: F.linear(a, b, c)

    def general(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.T if left else a) @ (b.T if right else b)
        product = product if alpha == 1 else alpha * product
        return product if c is None else product + (c if beta == 1 else beta * c)

    return general


def _flatten(node: Node) -> Operation:
    axis = int(node.attributes.get("axis", 1))
    if axis == 1:
        return lambda x: x.flatten(1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), -1)


def _reshape(node: Node) -> Operation:
    keeps_zero = bool(node.attributes.get("allowzero", 0))

    def reshape(x: Tensor, shape: Tensor) -> Tensor:
        sizes = [int(s) for s in shape.tolist()]
        if not keeps_zero:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return reshape


def _transpose(node: Node) -> Operation:
    order = node.attributes.get("perm")
    return lambda x: x.permute(tuple(order) if order else tuple(reversed(range(x.ndim))))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(node: Node) -> Operation:
    mode = node.text("mode", "constant")
    if mode not in _PAD_MODES:
        raise UnreadableNodeError(f"its mode is '{mode}'")
    pads = node.integers("pads", 1) or ()
    axes = node.integers("axes", 3)
    filler = node.constant(2)
    value = float(node.attributes.get("value", 0)) if filler is None else float(filler.item())
    half = len(pads) // 2

    def pad(x: Tensor, *_: Tensor | None) -> Tensor:
        around = [(0, 0)] * x.ndim
        for position, axis in enumerate(axes if axes is not None else range(half)):
            around[axis] = (pads[position], pads[half + position])
        if mode == "constant":
            return F.pad(x, [p for pair in reversed(around) for p in pair], value=value)
        if any(pair != (0, 0) for pair in around[:-2]):
            raise UnreadableNodeError(f"with mode '{mode}' only the last two axes can be padded")
        return F.pad(x, [*around[-1], *around[-2]], mode=_PAD_MODES[mode])

    return pad


def _concat(node: Node) -> Operation:
    axis = int(node.attributes["axis"])
    return lambda *parts: torch.cat(parts, axis)


def _reduce(compute: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Builder:
    def build(node: Node) -> Operation:
        axes = node.integers("axes", 1)
        keep = bool(node.attributes.get("keepdims", 1))
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            return lambda x, *_: x
        return lambda x, *_: compute(x, axes or tuple(range(x.ndim)), keep)

    return build


def _squeeze(node: Node) -> Operation:
    axes = node.integers("axes", 1)
    return lambda x, *_: x.squeeze() if axes is None else x.squeeze(axes)


def _unsqueeze(node: Node) -> Operation:
    axes = node.integers("axes", 1) or ()

    def unsqueeze(x: Tensor, *_: Tensor) -> Tensor:
        rank = x.ndim + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _shape(node: Node) -> Operation:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def _gather(node: Node) -> Operation:
    axis = int(node.attributes.get("axis", 0))

    def gather(x: Tensor, indices: Tensor) -> Tensor:
        wanted = (indices.to(x.device) % x.shape[axis]).flatten()
        place = axis % x.ndim
        shape = (*x.shape[:place], *indices.shape, *x.shape[place + 1 :])
        return x.index_select(place, wanted).reshape(shape)

    return gather


# ONNX's numbers of types; every floating type is computed in float32 here.
_TYPES = {
    1: torch.float32,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float32,
    11: torch.float32,
}


def _cast(node: Node) -> Operation:
    number = int(node.attributes["to"])
    if number not in _TYPES:
        raise UnreadableNodeError(f"it casts to ONNX type {number}")
    kind = _TYPES[number]
    return lambda x: x.to(kind)


def _expand(_node: Node) -> Operation:
    return lambda x, shape: x * torch.ones([int(s) for s in shape.tolist()], dtype=x.dtype, device=x.device)


def _plain(function: Operation) -> Builder:
    return lambda _node: function


OPERATORS: Mapping[str, Builder] = {
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)),
    "LeakyRelu": _leaky_relu,
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _plain(torch.mul),
    "PRelu": _plain(prelu),
    "Pad": _pad,
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(dim=axes, keepdim=keep)),
    "Relu": _plain(F.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operators that compute something. Constant, Dropout and Identity vanish when the graph is read."""
