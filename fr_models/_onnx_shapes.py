"""ONNX operators that move values without computing: reshape, cut, join, pick, count.

What lives here: `SHAPES`, from operator name to a builder, and `NUMBERS`. What must not: operators that compute numbers
from numbers (`_onnx_arithmetic`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import zip_longest

import torch
from torch import Tensor

from fr_models._onnx_node import Builder, Node, Operation, UnreadableNodeError, numbers, plain

NUMBERS: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "Trilu": (1,),
}
"""Operator → positions of inputs that are read as Python numbers: they may stay on the CPU."""


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


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    wanted = torch.Size(numbers(shape))
    return x.expand(torch.broadcast_shapes(x.shape, wanted))  # type: ignore[no-untyped-call]


def _concat(node: Node) -> Operation:
    axis = int(node.attributes["axis"])
    return lambda *parts: torch.cat(parts, axis)


def _split(node: Node) -> Operation:
    axis = int(node.attributes.get("axis", 0))
    stated = node.attributes.get("split")
    count = int(node.attributes.get("num_outputs", len(node.outputs)))
    if count != len(node.outputs):
        raise UnreadableNodeError(f"it has {len(node.outputs)} outputs and num_outputs is {count}")

    def split(x: Tensor, given: Tensor | None = None) -> tuple[Tensor, ...]:
        sizes = numbers(given) if given is not None else stated
        if sizes is not None:
            return torch.split_with_sizes(x, list(sizes), axis)
        part = math.ceil(x.shape[axis] / count)
        return torch.split_with_sizes(x, [part] * (count - 1) + [x.shape[axis] - part * (count - 1)], axis)

    return split


def _slice(node: Node) -> Operation:
    keys = ("starts", "ends", "axes") if node.opset < 10 else ()
    stated = [node.attributes.get(key) for key in keys]

    def cut(x: Tensor, *given: Tensor | None) -> Tensor:
        named = stated or [None if value is None else numbers(value) for value in given]
        starts, ends, axes, steps = (value for value, _ in zip_longest(named, range(4)))
        for place, (start, end) in enumerate(zip(starts or (), ends or (), strict=True)):
            axis = axes[place] if axes is not None else place
            x = _cut(x, axis, slice(start, end, steps[place] if steps is not None else 1))
        return x

    return cut


def _cut(x: Tensor, axis: int, part: slice) -> Tensor:
    # Python's rules for ends beyond the axis are ONNX's.
    start, end, step = part.indices(x.shape[axis])
    if step > 0:
        return x[(slice(None),) * (axis % x.ndim) + (slice(start, max(start, end), step),)]
    places = torch.tensor(range(start, end, step), dtype=torch.int64, device=x.device)
    return x.index_select(axis, places)


def _gather(node: Node) -> Operation:
    axis = int(node.attributes.get("axis", 0))

    def gather(x: Tensor, indices: Tensor) -> Tensor:
        wanted = (indices.to(x.device) % x.shape[axis]).flatten()
        place = axis % x.ndim
        shape = (*x.shape[:place], *indices.shape, *x.shape[place + 1 :])
        return x.index_select(place, wanted).reshape(shape)

    return gather


def _gather_elements(node: Node) -> Operation:
    axis = int(node.attributes.get("axis", 0))
    return lambda x, indices: torch.gather(x, axis, indices % x.shape[axis])


def _gather_nd(node: Node) -> Operation:
    shared = int(node.attributes.get("batch_dims", 0))

    def gather(x: Tensor, indices: Tensor) -> Tensor:
        lead = x.shape[:shared]
        # The leading axes are walked through together with the indices.
        walked = [
            torch.arange(n, device=x.device).view(*[1] * place, n, *[1] * (indices.ndim - 1 - place - 1))
            for place, n in enumerate(lead)
        ]
        return x[(*walked, *indices.unbind(-1))]

    return gather


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(numbers(repeats))


def _shape(node: Node) -> Operation:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _constant_of_shape(node: Node) -> Operation:
    from onnx import numpy_helper

    stated = node.attributes.get("value")
    value = torch.zeros(1) if stated is None else torch.from_numpy(numpy_helper.to_array(stated).copy())
    if value.numel() != 1:
        raise UnreadableNodeError(f"its value has {value.numel()} elements, not one")
    value = value.float() if value.is_floating_point() else value
    return lambda shape: torch.full(numbers(shape), value.item(), dtype=value.dtype)


def _triangle(node: Node) -> Operation:
    upper = bool(node.attributes.get("upper", 1))

    def keep(x: Tensor, diagonal: Tensor | None = None) -> Tensor:
        k = 0 if diagonal is None else int(diagonal.item())
        return x.triu(k) if upper else x.tril(k)

    return keep


SHAPES: Mapping[str, Builder] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": plain(_expand),
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Range": plain(_range),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": plain(_tile),
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
    "Where": plain(torch.where),
}
"""Operators that move values."""
