"""ONNX operators on numbers: element by element, products, sums over axes, normalisations, activations.

What lives here: `ARITHMETIC`, from operator name to a builder. What must not: windows over height and width
(`_onnx_maps`), what moves values without computing (`_onnx_shapes`).

Integers behave as ONNX says, not as torch does: they are shapes and positions, and a quotient stays an integer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fr_models._onnx_node import Builder, Node, Operation, UnreadableNodeError, plain, whole


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


def _per_channel(slope: Tensor, shape: torch.Size) -> Tensor | None:
    """Return `slope` as a vector of one or C values if it varies over channels (axis 1) only."""
    if slope.numel() == 1:
        return slope.reshape(1)
    axis = slope.ndim - (len(shape) - 1)
    if 0 <= axis < slope.ndim and slope.shape[axis] == slope.numel():
        return slope.reshape(-1)
    # C slopes without trailing axes, as MXNet exports them: they fit no other axis.
    alone = slope.ndim == 1 and len(shape) > 2 and len(slope) == shape[1] != shape[-1]
    return slope if alone else None


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Return x where positive, slope·x elsewhere; the slope broadcasts as in NumPy.

    Args:
        x: N×C×… values.
        slope: slopes; a gradient flows to them where they ask for one.
    """
    channels = _per_channel(slope, x.shape)
    if channels is not None and x.ndim > 1:
        return _ChannelPReLU.apply(x, channels)  # type: ignore[no-any-return]
    positive = F.relu(x)
    return positive + slope * (x - positive)


# -- element by element ------------------------------------------------------------------------------------


def _div(a: Tensor, b: Tensor) -> Tensor:
    if whole(a) and whole(b):
        return torch.div(a, b, rounding_mode="trunc")
    return torch.div(a, b)


def _mod(node: Node) -> Operation:
    return torch.fmod if node.attributes.get("fmod", 0) else torch.remainder


def _pow(node: Node) -> Operation:
    exponent = node.constants.get(node.inputs[1])
    if exponent is not None and exponent.numel() == 1 and exponent.ndim == 0:
        number = exponent.item()
        # torch has quick ways for squares and roots where the exponent is no tensor.
        return lambda x, _: torch.pow(x, number).to(x.dtype)
    return lambda x, y: torch.pow(x, y).to(x.dtype)


def _clip(node: Node) -> Operation:
    if node.opset < 11:
        low, high = float(node.attributes.get("min", -math.inf)), float(node.attributes.get("max", math.inf))
    else:
        bounds = node.constant(1), node.constant(2)
        if any(bound is not None and not bound.is_floating_point() for bound in bounds):
            least, most = (None if bound is None else int(bound.item()) for bound in bounds)
            return lambda x, *_: torch.clamp(x, least, most)
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


def _elu(node: Node) -> Operation:
    alpha = float(node.attributes.get("alpha", 1.0))
    return lambda x: F.elu(x, alpha)


def _hard_sigmoid(node: Node) -> Operation:
    alpha, beta = float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))
    return lambda x: F.hardtanh(alpha * x + beta, 0.0, 1.0)


def _gelu(node: Node) -> Operation:
    how = node.text("approximate", "none")
    return lambda x: F.gelu(x, approximate=how)


# ONNX's numbers of types; every floating type is computed in that of the images here.
_FLOATING = (1, 10, 11, 16)
_TYPES = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool}


def _cast(node: Node) -> Operation:
    number = int(node.attributes["to"])
    if number in _FLOATING:
        return lambda x: x if x.is_floating_point() else x.float()
    if number not in _TYPES:
        raise UnreadableNodeError(f"it casts to ONNX type {number}")
    kind = _TYPES[number]
    return lambda x: x.to(kind)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Builder:
    """Return the builder of an operator that takes any number of values, two by two."""
    return lambda _node: lambda *values: reduce(function, values)


# -- products, sums, normalisations ------------------------------------------------------------------------


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


def _einsum(node: Node) -> Operation:
    equation = node.text("equation", "").replace(" ", "")
    if not equation:
        raise UnreadableNodeError("it has no equation")
    return lambda *values: torch.einsum(equation, *values)


def _reduce(compute: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Builder:
    def build(node: Node) -> Operation:
        axes = node.integers("axes", 1)
        keep = bool(node.attributes.get("keepdims", 1))
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            return lambda x, *_: x
        return lambda x, *_: compute(x, axes or tuple(range(x.ndim)), keep)

    return build


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _cumulative_sum(node: Node) -> Operation:
    exclusive, backwards = node.attributes.get("exclusive", 0), node.attributes.get("reverse", 0)

    def add_up(x: Tensor, axis: Tensor) -> Tensor:
        along = int(axis.item())
        x = x.flip(along) if backwards else x
        total = x.cumsum(along, dtype=x.dtype)
        total = total - x if exclusive else total
        return total.flip(along) if backwards else total

    return add_up


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Builder:
    def build(node: Node) -> Operation:
        if node.opset >= 13:
            axis = int(node.attributes.get("axis", -1))
            return lambda x: function(x, axis)
        first = int(node.attributes.get("axis", 1))
        # Until opset 12 all axes from this one on are one.
        return lambda x: function(x.flatten(first), -1).reshape(x.shape)

    return build


def _batch_normalization(node: Node) -> Operation:
    if node.attributes.get("training_mode", 0) or not normalises_channels(node):
        raise UnreadableNodeError(
            "only batch normalisation for inference, per channel, can be read; export it with spatial=1"
        )
    epsilon = float(node.attributes.get("epsilon", 1e-5))

    def affine(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = gamma * torch.rsqrt(variance + epsilon)
        return torch.addcmul((beta - mean * scale).view(shape), x, scale.view(shape))

    return affine


def normalises_channels(node: Node) -> bool:
    """Say whether a batch normalisation has one mean a channel.

    Parameters of one axis say so even where ``spatial`` is 0, as in files of MXNet: they fit no pixels.
    """
    parameters = [node.constants.get(name) for name in node.inputs[1:5]]
    return bool(node.attributes.get("spatial", 1)) or all(p is not None and p.ndim == 1 for p in parameters)


def _layer_normalization(node: Node) -> Operation:
    axis = int(node.attributes.get("axis", -1))
    epsilon = float(node.attributes.get("epsilon", 1e-5))

    def normalise(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = x.shape[axis:]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            return F.layer_norm(x, shape, scale, bias, epsilon)
        normed = F.layer_norm(x, shape, None, None, epsilon) * scale
        return normed if bias is None else normed + bias

    return normalise


def _instance_normalization(node: Node) -> Operation:
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _group_normalization(node: Node) -> Operation:
    groups = int(node.attributes["num_groups"])
    epsilon = float(node.attributes.get("epsilon", 1e-5))

    def normalise(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        repeats = x.shape[1] // len(scale)  # until opset 20 there is one factor a group
        return F.group_norm(
            x, groups, scale.repeat_interleave(repeats), bias.repeat_interleave(repeats), epsilon
        )

    return normalise


def _lp_normalization(node: Node) -> Operation:
    axis, order = int(node.attributes.get("axis", -1)), int(node.attributes.get("p", 2))
    return lambda x: F.normalize(x, p=order, dim=axis)


ARITHMETIC: Mapping[str, Builder] = {
    "Abs": plain(torch.abs),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Ceil": plain(torch.ceil),
    "Clip": _clip,
    "Cos": plain(torch.cos),
    "CumSum": _cumulative_sum,
    "Div": plain(_div),
    "Einsum": _einsum,
    "Elu": _elu,
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "GroupNormalization": _group_normalization,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": plain(F.hardswish),
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "LpNormalization": _lp_normalization,
    "MatMul": plain(torch.matmul),
    "Max": _folded(torch.maximum),
    "Min": _folded(torch.minimum),
    "Mish": plain(F.mish),
    "Mod": _mod,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": plain(prelu),
    "Pow": _pow,
    "Reciprocal": plain(torch.reciprocal),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(dim=axes, keepdim=keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(dim=axes, keepdim=keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(dim=axes, keepdim=keep)),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(dim=axes, keepdim=keep, dtype=x.dtype)),
    "Relu": plain(F.relu),
    "Round": plain(torch.round),
    "Sigmoid": plain(torch.sigmoid),
    "Sin": plain(torch.sin),
    "Softmax": _softmax(F.softmax),
    "Softplus": plain(F.softplus),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": plain(torch.tanh),
}
"""Operators that compute numbers from numbers."""
