"""dlib's face recognition network (``dlib_face_recognition_resnet_model_v1.dat``) → ONNX, its affine layers folded.

The file holds layers and no wiring (`bench.data.dlib_files`); that is in dlib's dnn_face_recognition_ex.cpp
(``anet_type``) and is written here again: residual blocks of two 3×3 convolutions; where a block halves the
map, its input is averaged over 2×2 and whichever of the two is smaller, in a side or in channels, is filled up
with zeros. Pixels of 0 to 255 go in: the network subtracts the means and divides by 256 itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.dlib_files import MARK, Layer, read_network
from bench.errors import DataError
from fr_models._onnx_writer import INPUT, OnnxWriter, folded

SIDE, DIMENSION = 150, 128

_STEM = ("input_rgb_image_sized", "con_4", "affine_", "relu_", "max_pool_2")
_TWICE = ("con_4", "affine_", "relu_", "con_4", "affine_")
_SAME = (MARK, *_TWICE, "add_prev_", "relu_")
_HALVED = (MARK, *_TWICE, MARK, MARK, "avg_pool_2", "add_prev_", "relu_")
_HEAD = ("avg_pool_2", "fc_2", "loss_metric_2")

BLOCKS = (
    _SAME,
    _SAME,
    _SAME,
    _HALVED,
    _SAME,
    _SAME,
    _SAME,
    _HALVED,
    _SAME,
    _SAME,
    _HALVED,
    _SAME,
    _SAME,
    _HALVED,
)
"""The residual blocks in order: of 32, 64, 128, 256 and 256 channels."""


def convert(sources: tuple[Path, ...], target: Path) -> None:
    """Write the network (`bench.contracts.Convert`).

    Raises:
        DataError: the source cannot be read, or holds another network.
    """
    (source,) = sources
    writer = OnnxWriter()
    output = _write(_Layers(read_network(source), source), writer)
    writer.save(target, output, height=SIDE, width=SIDE, dimension=DIMENSION)


@dataclass(frozen=True)
class _Map:
    """A value N×channels×side×side and its name."""

    name: str
    channels: int
    side: int


class _Layers:
    """The layers of a file, taken in order."""

    def __init__(self, layers: Sequence[Layer], path: Path) -> None:
        self._layers = list(layers)
        self.path = path

    def take(self, kinds: Sequence[str]) -> list[Layer]:
        """Return the next layers; they must be of these kinds."""
        taken, self._layers = self._layers[: len(kinds)], self._layers[len(kinds) :]
        if [layer.kind for layer in taken] != list(kinds):
            found = ", ".join(layer.kind for layer in taken) or "nothing"
            raise self.other(f"there is {found} in the place of {', '.join(kinds)}")
        return taken

    def finish(self) -> None:
        if self._layers:
            raise self.other(f"{len(self._layers)} layers are left")

    def other(self, reason: str) -> DataError:
        return DataError(f"{self.path} is another network than dlib's face recognition model: {reason}.")


def _write(layers: _Layers, writer: OnnxWriter) -> str:
    image, con, affine, _relu, pool = layers.take(_STEM)
    *means, height, width = image.numbers
    if (height, width) != (SIDE, SIDE) or [*pool.numbers] != [3, 3, 2, 2, 0, 0]:
        raise layers.other(f"its input is of {height:g} × {width:g}, its first pool {pool.numbers}")
    centred = writer.add("Sub", [INPUT, writer.constant(np.reshape(means, (1, 3, 1, 1)))])
    scaled = writer.add("Mul", [centred, writer.constant(1 / 256)])
    x = _convolved(_Map(scaled, 3, SIDE), con, affine, layers, writer)
    x = _pooled(_Map(writer.add("Relu", [x.name]), x.channels, x.side), "MaxPool", 3, writer)
    for block in BLOCKS:
        x = _block(x, layers, block, writer)
    pool, matrix, _loss = layers.take(_HEAD)
    layers.finish()
    weight, bias = matrix.arrays["weight"], matrix.arrays["bias"]
    if [*pool.numbers[:2]] != [0, 0] or weight.shape != (x.channels, DIMENSION) or bias.size:
        raise layers.other(f"it ends in a pool {pool.numbers} and a matrix {weight.shape}")
    flat = writer.flatten(writer.add("GlobalAveragePool", [x.name]))
    return writer.linear(flat, weight.T, None)


def _block(x: _Map, layers: _Layers, kinds: Sequence[str], writer: OnnxWriter) -> _Map:
    _mark, con, affine, _relu, second, second_affine, *rest = layers.take(kinds)
    deep = _convolved(x, con, affine, layers, writer)
    deep = _Map(writer.add("Relu", [deep.name]), deep.channels, deep.side)
    deep = _convolved(deep, second, second_affine, layers, writer)
    if kinds is _HALVED:
        if [*rest[2].numbers] != [2, 2, 2, 2, 0, 0]:
            raise layers.other(f"a block pools by {rest[2].numbers}")
        x = _pooled(x, "AveragePool", 2, writer)
    channels, side = max(x.channels, deep.channels), max(x.side, deep.side)
    parts = [_filled(each, channels, side, writer) for each in (deep, x)]
    return _Map(writer.add("Relu", [writer.add("Add", parts)]), channels, side)


def _convolved(x: _Map, con: Layer, affine: Layer, layers: _Layers, writer: OnnxWriter) -> _Map:
    weight, factor = con.arrays["weight"], affine.arrays["weight"]
    stride, stride_x, padding, padding_x = (int(number) for number in con.numbers)
    outputs, inputs, kernel, kernel_x = weight.shape
    square = (stride, padding, kernel) == (stride_x, padding_x, kernel_x) and stride > 0 and padding >= 0
    side = (x.side + 2 * padding - kernel) // stride + 1 if square else 0
    if inputs != x.channels or len(factor) != outputs or not affine.numbers[0] or side < 1:
        raise layers.other(
            f"a convolution of {weight.shape} reads {x.channels} channels of {x.side} × {x.side}"
        )
    weight, bias = folded(weight, con.arrays["bias"], factor, affine.arrays["bias"])
    name = writer.conv(x.name, weight, bias, stride=(stride, stride), padding=(padding, padding))
    return _Map(name, outputs, side)


def _pooled(x: _Map, operator: str, kernel: int, writer: OnnxWriter) -> _Map:
    name = writer.add(operator, [x.name], kernel_shape=(kernel, kernel), strides=(2, 2))
    return _Map(name, x.channels, (x.side - kernel) // 2 + 1)


def _filled(x: _Map, channels: int, side: int, writer: OnnxWriter) -> str:
    """Return the name of the value with zeros behind its channels, rows and columns, where there are to be more."""
    ends = (0, channels - x.channels, side - x.side, side - x.side)
    if not any(ends):
        return x.name
    return writer.add("Pad", [x.name, writer.constant((0, 0, 0, 0, *ends), np.int64)])
