"""ONNX operators on N×C×height×width maps: convolutions, pooling, padding, resizing.

What lives here: `MAPS`, from operator name to a builder. What must not: operators that know no height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fr_models._onnx_node import Builder, Node, Operation, UnreadableNodeError, numbers, plain


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
    if len(pads) % 2 or (axes is not None and len(axes) != half):
        raise UnreadableNodeError(f"its {len(pads)} paddings are not two for each axis")

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


def _conv_transpose(node: Node) -> Operation:
    weight = node.constant(1)
    if weight is None or weight.ndim != 4:
        raise UnreadableNodeError("only two-dimensional convolutions can be read")
    window = _window(node, tuple(weight.shape[2:]))
    if window.same or "output_shape" in node.attributes:
        raise UnreadableNodeError("its padding follows from the output's size; export it with pads")
    extra = _pair(node.attributes.get("output_padding", (0, 0)), "output_padding")
    groups = int(node.attributes.get("group", 1))
    (top, left), (bottom, right) = window.before, window.after

    def convolve(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        whole = F.conv_transpose2d(x, w, b, window.stride, 0, extra, groups, window.dilation)
        return whole[..., top : whole.shape[2] - bottom, left : whole.shape[3] - right]

    return convolve


def _response_normalization(node: Node) -> Operation:
    size = int(node.attributes["size"])
    alpha, beta = float(node.attributes.get("alpha", 1e-4)), float(node.attributes.get("beta", 0.75))
    bias = float(node.attributes.get("bias", 1.0))
    before, after = (size - 1) // 2, size // 2

    def normalise(x: Tensor) -> Tensor:
        squares = F.pad(x.square(), (0, 0, 0, 0, before, after))
        neighbours = squares.unfold(1, size, 1).sum(-1)
        return x / (bias + alpha / size * neighbours) ** beta

    return normalise


# -- resizing ----------------------------------------------------------------------------------------------

_Kind = Literal["nearest", "linear", "cubic"]


@dataclass(frozen=True)
class _Resizing:
    """How an axis is resampled, by ONNX's formulas.

    Scales and places are computed in float32, as onnxruntime does: which pixel is the nearest hangs on the last
    bit wherever a place lies on a pixel or half-way between two.

    Attributes:
        kind: nearest, linear or cubic.
        transformation: where an output pixel lies among the input's.
        rounding: of a place to the nearest pixel; `_OLD_ROUNDING` before opset 11.
        cubic: the parameter a of the cubic kernel.
        inside: whether pixels beyond the border count nothing; they repeat the border's otherwise.
    """

    kind: _Kind
    transformation: str
    rounding: str
    cubic: float
    inside: bool

    def places(self, size: int, wanted: int, scale: float) -> Tensor:
        """Return the place of each output pixel among `size` input pixels, float32."""
        x = torch.arange(wanted, dtype=torch.float32)
        if self.transformation == "asymmetric":
            return x / scale
        if self.transformation == "align_corners":
            return x * (size - 1) / (wanted - 1) if wanted > 1 else x * 0
        if self.transformation == "pytorch_half_pixel" and wanted == 1:
            return x * 0
        return (x + 0.5) / scale - 0.5

    def nearest(self, size: int, wanted: int, scale: float) -> Tensor:
        """Return the index of the input pixel for each output pixel."""
        x = self.places(size, wanted, scale).double()  # so that adding a half does not round
        rounded = {
            "floor": torch.floor(x),
            "ceil": torch.ceil(x),
            "round_prefer_floor": torch.ceil(x - _HALF),
            "round_prefer_ceil": torch.floor(x + _HALF),
            _OLD_ROUNDING: torch.ceil(x) if scale < 1 else torch.floor(x),
        }[self.rounding]
        return rounded.long().clamp(0, size - 1)

    def matrix(self, size: int, wanted: int, scale: float) -> Tensor:
        """Return the `wanted`×`size` weights of the input's pixels, float64; each row sums to 1."""
        x = self.places(size, wanted, scale).double()
        first = torch.floor(x).long()
        rows = torch.arange(wanted)
        weights = torch.zeros(wanted, size, dtype=torch.float64)
        for step in (0, 1) if self.kind == "linear" else (-1, 0, 1, 2):
            pixel = first + step
            share = self._kernel((x - pixel).abs())
            if self.inside:
                share = torch.where((pixel >= 0) & (pixel < size), share, 0.0)
            weights.index_put_((rows, pixel.clamp(0, size - 1)), share, accumulate=True)
        return weights / weights.sum(1, keepdim=True)

    def _kernel(self, distance: Tensor) -> Tensor:
        if self.kind == "linear":
            return (1 - distance).clamp(min=0)
        a, d = self.cubic, distance
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


# onnxruntime 1.31 takes a place this near to half-way as half-way.
_HALF = 0.5 + 1e-6
_OLD_ROUNDING = "up where it shrinks, down where it grows"
_TRANSFORMATIONS = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _resize(node: Node) -> Operation:
    """Build a resampling: a choice of pixels, or along each axis a product with a matrix of weights."""
    old = node.opset < 11  # scales only, and asymmetric
    mode = node.text("mode", "nearest")
    resizing = _Resizing(
        kind=_chosen("mode", mode, ("nearest", "linear", "cubic")),  # type: ignore[arg-type]
        transformation="asymmetric"
        if old
        else _chosen(
            "coordinate_transformation_mode",
            node.text("coordinate_transformation_mode", "half_pixel"),
            _TRANSFORMATIONS,
        ),
        rounding=_OLD_ROUNDING
        if old
        else _chosen("nearest_mode", node.text("nearest_mode", "round_prefer_floor"), _ROUNDINGS),
        cubic=float(node.attributes.get("cubic_coeff_a", -0.75)),
        inside=bool(node.attributes.get("exclude_outside", 0)),
    )
    if node.attributes.get("antialias", 0):
        raise UnreadableNodeError("it smooths before it shrinks (antialias)")
    _chosen("keep_aspect_ratio_policy", node.text("keep_aspect_ratio_policy", "stretch"), ("stretch",))
    axes = node.attributes.get("axes")

    def resize(x: Tensor, *given: Tensor | None) -> Tensor:
        scales, sizes = _targets(given if not old else (None, *given))
        chosen = [axis % x.ndim for axis in (axes if axes is not None else range(x.ndim))]
        present = [x.shape[axis] for axis in chosen]
        wanted = sizes or [int(_single(n * scale)) for n, scale in zip(present, scales, strict=True)]
        if wanted == present:
            return x  # onnxruntime copies then, whatever the scales
        scales = scales or [_single(new / n) for n, new in zip(present, wanted, strict=True)]
        for axis, length, scale in zip(chosen, wanted, scales, strict=True):
            if scale != 1:
                x = _resampled(x, axis, length, scale, resizing)
        return x

    return resize


def _single(value: float) -> float:
    """Round to float32."""
    return float(np.float32(value))


def _chosen(what: str, value: str, valid: Sequence[str]) -> str:
    if value not in valid:
        raise UnreadableNodeError(f"its {what} is '{value}'; read are {', '.join(valid)}")
    return value


def _targets(given: Sequence[Tensor | None]) -> tuple[list[float], list[int]]:
    """Return scales or sizes of a Resize from its inputs after the image (roi, scales, sizes)."""
    scales = given[1] if len(given) > 1 else None
    sizes = given[2] if len(given) > 2 else None
    if sizes is not None and sizes.numel():
        return [], numbers(sizes)
    if scales is None:
        raise UnreadableNodeError("it has neither scales nor sizes")
    return scales.float().tolist(), []


def _resampled(x: Tensor, axis: int, wanted: int, scale: float, resizing: _Resizing) -> Tensor:
    size = x.shape[axis]
    if resizing.kind == "nearest":
        return x.index_select(axis, resizing.nearest(size, wanted, scale).to(x.device))
    weights = resizing.matrix(size, wanted, scale).to(x.device, x.dtype)
    return (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)


def _depth_to_space(node: Node) -> Operation:
    side = int(node.attributes["blocksize"])
    columns_first = node.text("mode", "DCR") == "DCR"

    def spread(x: Tensor) -> Tensor:
        if not columns_first:
            return F.pixel_shuffle(x, side)
        n, c, h, w = x.shape
        parts = x.reshape(n, side, side, c // side**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // side**2, h * side, w * side)

    return spread


def _space_to_depth(node: Node) -> Operation:
    side = int(node.attributes["blocksize"])

    def gather(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // side, side, w // side, side).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * side**2, h // side, w // side)

    return gather


def _over_pixels(compute: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Builder:
    return plain(lambda x: compute(x, tuple(range(2, x.ndim))))


MAPS: Mapping[str, Builder] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "GlobalAveragePool": _over_pixels(lambda x, axes: x.mean(dim=axes, keepdim=True)),
    "GlobalMaxPool": _over_pixels(lambda x, axes: x.amax(dim=axes, keepdim=True)),
    "LRN": _response_normalization,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
}
"""Operators on maps."""
