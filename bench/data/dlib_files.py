"""Networks as dlib saves them (``.dat``) and publishes them (``.dat.bz2``): the layers of a nested C++ type.

A file does not say what type it is of: which layer a tag names and what is added to what is known to the program that
reads it. What is read here is the layers in the order they run, each with its numbers and arrays.

- An integer: one byte, its low four bits the number of bytes that follow, its high bit the sign.
- A floating number: mantissa and exponent to the base 2, two integers.
- A text: its length as an integer, its bytes. A truth value: ``1`` or ``0``.
- A tensor: version 2, four sides as integers, float32 values, little-endian. An alias, which is a part of one,
  likewise without values and of version 1.

A network starts with the loss (version 1, name, numbers). Then come the versions of all layers, outermost
first: 1 for a tag or a skip, which have no more to say, 2 for a layer, 3 for the innermost, after which the
input follows. Then layer by layer, innermost first: name and content, three truth values, and the tensors of
training, which are empty in a finished network.
"""

from __future__ import annotations

import bz2
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.cursor import Cursor, read_whole
from bench.errors import DataError

Array = npt.NDArray[Any]

MARK = "mark"
"""Stands where a layer is tagged or skipped to: the two look alike in a file."""

_MARK, _LAYER, _INNERMOST = 1, 2, 3
_LONGEST_NAME = 64
_MOST_LAYERS = 4096
_PACKED = 8
"""Numbers that were trained hardly compress: what unpacks to more than this many times the file is refused."""


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        kind: dlib's name of it (``con_4``, ``affine_``, ``relu_`` …), or `MARK`.
        numbers: its settings, in the order of the file; `read_network` says which.
        arrays: ``weight`` and ``bias``, where it has them.
    """

    kind: str
    numbers: tuple[float, ...] = ()
    arrays: Mapping[str, Array] = field(default_factory=dict)


def read_network(path: Path) -> tuple[Layer, ...]:
    """Return a network's layers in the order they run, input first, loss last.

    Numbers of each kind: ``input_rgb_image_sized``: means of red, green and blue, height, width; ``con_4``:
    strides and paddings (vertical, horizontal), its arrays have the shapes (out, in, height, width) and (out,);
    ``affine_``: 1 for one factor and offset a channel, its arrays have the shape (channels,); ``max_pool_2``
    and ``avg_pool_2``: height, width, strides, paddings, where height and width 0 stand for the whole map;
    ``fc_2``: none, its arrays have the shapes (in, out) and (out,); ``relu_``, ``add_prev_``: none;
    ``loss_metric_2``: margin and threshold.

    Raises:
        DataError: the file is missing, cut off, of another format, declares more than it holds, or has a layer of
            another kind.
    """
    cursor = Cursor(path, "network of dlib", _unpacked(path))
    _version(cursor, 1, "the loss")
    loss = _named(cursor, _LOSSES)
    marks = _marks(cursor)
    layers = [_named(cursor, _INPUTS)]
    for place, marked in enumerate(marks):
        layers.append(Layer(MARK) if marked else _layer(cursor, innermost=place == 0))
    cursor.finish()
    return (*layers, loss)


def _unpacked(path: Path) -> bytes:
    content = read_whole(path)
    if not content.startswith(b"BZh"):
        return content
    unpacker = bz2.BZ2Decompressor()
    most = _PACKED * len(content)
    try:
        unpacked = unpacker.decompress(content, most)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is packed by bzip2 and broken: {error}.") from error
    if not unpacker.eof:
        raise DataError(f"{path} is packed by bzip2 and cut off, or unpacks to more than {most:,} bytes.")
    return unpacked


def _marks(cursor: Cursor) -> list[bool]:
    """Return of each layer, innermost first, whether it is a mark."""
    versions: list[int] = []
    while not versions or versions[-1] != _INNERMOST:
        versions.append(_integer(cursor))
        if versions[-1] not in (_MARK, _LAYER, _INNERMOST) or len(versions) > _MOST_LAYERS:
            raise cursor.broken(f"its layer {len(versions)} is of version {versions[-1]}")
    return [version == _MARK for version in reversed(versions)]


def _layer(cursor: Cursor, *, innermost: bool) -> Layer:
    layer = _named(cursor, _LAYERS)
    for _ in range(3):  # whether it is set up, its gradient stale, its output not to be read
        _truth(cursor)
    for _ in range(3):  # output's gradient, output, gradient of the weights or of the input
        _tensor(cursor)
    if innermost and _integer(cursor) < 1:
        raise cursor.broken("its innermost layer takes no image")
    return layer


Content = Callable[[Cursor], tuple[tuple[float, ...], Mapping[str, Array]]]


def _named(cursor: Cursor, known: Mapping[str, Content]) -> Layer:
    length = _integer(cursor)
    if not 0 < length <= _LONGEST_NAME:
        raise cursor.broken(f"the name of a layer has {length:,} letters")
    kind = cursor.bytes(length).decode("ascii", "replace")
    if kind not in known:
        raise cursor.broken(f"a layer is {kind!r}; read are {', '.join(known)}")
    return Layer(kind, *known[kind](cursor))


# -- what layers hold ------------------------------------------------------------------------------------------


def _no_content(_cursor: Cursor) -> tuple[tuple[float, ...], Mapping[str, Array]]:
    return (), {}


def _metric_loss(cursor: Cursor) -> tuple[tuple[float, ...], Mapping[str, Array]]:
    return (_floating(cursor), _floating(cursor)), {}


def _sized_input(cursor: Cursor) -> tuple[tuple[float, ...], Mapping[str, Array]]:
    means = [_floating(cursor) for _ in range(3)]
    return (*means, _integer(cursor), _integer(cursor)), {}


def _convolution(cursor: Cursor) -> tuple[tuple[float, ...], Mapping[str, Array]]:
    values = _tensor(cursor).ravel()
    filters, height, width, *steps = (_integer(cursor) for _ in range(7))
    weight, bias = _alias(cursor), _alias(cursor)
    _multipliers(cursor)
    if weight[::2] != (filters, height) or weight[3] != width or bias != (1, filters, 1, 1):
        raise cursor.broken(f"a convolution of {filters} filters holds {weight} and {bias}")
    return tuple(steps), _parts(cursor, values, weight=weight, bias=(filters,))


def _affine(cursor: Cursor) -> tuple[tuple[float, ...], Mapping[str, Array]]:
    values = _tensor(cursor).ravel()
    gamma, beta = _alias(cursor), _alias(cursor)
    mode = _integer(cursor)
    if gamma != beta or gamma != (1, math.prod(gamma), 1, 1):
        raise cursor.broken(f"an affine layer holds {gamma} and {beta}")
    return (mode == 0,), _parts(cursor, values, weight=gamma[1:2], bias=gamma[1:2])


def _pool(cursor: Cursor) -> tuple[tuple[float, ...], Mapping[str, Array]]:
    return tuple(_integer(cursor) for _ in range(6)), {}


def _matrix(cursor: Cursor) -> tuple[tuple[float, ...], Mapping[str, Array]]:
    outputs, inputs = _integer(cursor), _integer(cursor)
    values = _tensor(cursor).ravel()
    weight, bias = _alias(cursor), _alias(cursor)
    _integer(cursor)  # whether it has a bias, which its alias says too
    _multipliers(cursor)
    if weight != (inputs, outputs, 1, 1) or bias not in ((0, 0, 0, 0), (1, outputs, 1, 1)):
        raise cursor.broken(f"a matrix of {inputs} to {outputs} holds {weight} and {bias}")
    return (), _parts(cursor, values, weight=weight[:2], bias=bias[1:2])


_LOSSES: Mapping[str, Content] = {"loss_metric_2": _metric_loss}
_INPUTS: Mapping[str, Content] = {"input_rgb_image_sized": _sized_input}
_LAYERS: Mapping[str, Content] = {
    "con_4": _convolution,
    "affine_": _affine,
    "relu_": _no_content,
    "add_prev_": _no_content,
    "max_pool_2": _pool,
    "avg_pool_2": _pool,
    "fc_2": _matrix,
}


def _parts(cursor: Cursor, values: Array, **shapes: tuple[int, ...]) -> Mapping[str, Array]:
    """Return the arrays that lie one after the other in `values`."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    if min(sizes) < 0 or sum(sizes) != len(values):
        raise cursor.broken(f"a layer of {len(values):,} values has parts of {sizes}")
    pieces = np.split(values, np.cumsum(sizes)[:-1])
    named = zip(pieces, shapes.items(), strict=True)
    return {name: cursor.shaped(piece, shape) for piece, (name, shape) in named}


def _multipliers(cursor: Cursor) -> None:
    for _ in range(4):  # of learning rate and weight decay, for weights and biases
        _floating(cursor)


# -- what content is made of -----------------------------------------------------------------------------------


def _integer(cursor: Cursor) -> int:
    (head,) = cursor.bytes(1)
    size, negative = head & 0x0F, bool(head & 0x80)
    if head & 0x70 or not 1 <= size <= 8:
        raise cursor.broken(f"an integer starts with {head:#04x}")
    value = int.from_bytes(cursor.bytes(size), "little")
    return -value if negative else value


def _floating(cursor: Cursor) -> float:
    mantissa, exponent = _integer(cursor), _integer(cursor)
    # Infinities and the like are written with absurd exponents; a double's largest is 2 to the 1024, less a bit.
    if abs(exponent) > 1000 or abs(mantissa) >= 1 << 53 or mantissa.bit_length() + exponent > 1024:
        raise cursor.broken(f"a number is {mantissa} times two to the {exponent}")
    return math.ldexp(mantissa, exponent)


def _truth(cursor: Cursor) -> bool:
    value = cursor.bytes(1)
    if value not in (b"0", b"1"):
        raise cursor.broken(f"a truth value is {value!r}")
    return value == b"1"


def _version(cursor: Cursor, wanted: int, what: str) -> None:
    if (found := _integer(cursor)) != wanted:
        raise cursor.broken(f"{what} is of version {found}, not {wanted}")


def _tensor(cursor: Cursor) -> Array:
    _version(cursor, 2, "a tensor")
    return cursor.array([_integer(cursor) for _ in range(4)], "<f4")


def _alias(cursor: Cursor) -> tuple[int, ...]:
    _version(cursor, 1, "a part of a tensor")
    return tuple(_integer(cursor) for _ in range(4))
