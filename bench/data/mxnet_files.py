"""Networks as MXNet saves them: a graph as JSON (``-symbol.json``) and named arrays (``.params``).

The parameter file, little-endian: magic 0x112 and a reserved word (8 bytes each); how many arrays (8), the arrays;
how many names (8), each with its length (8). An array starts with 4 bytes that tell its version:

- 0xF993FACA (V3, NumPy's shapes) and 0xF993FAC9 (V2): kind of storage (4 bytes), then as V1;
- 0xF993FAC8 (V1): number of sides (4), sides (8 each);
- anything else is the number of sides itself (before 2017), sides of 4 bytes.

Then the device's kind and number (4 each), the type of the values (4) and the values. An array of no sides has
nothing more, but in V3, where it is one number and -1 sides say that there is nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.cursor import Cursor, read_whole
from bench.errors import DataError

_LIST = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
_MOST_SIDES = 8
_LARGEST_SYMBOL = 1 << 24


@dataclass(frozen=True)
class Symbol:
    """One node of a graph.

    Attributes:
        operator: what it does; ``null`` for an input or a parameter.
        name: its name.
        inputs: places of the nodes whose first output it reads, all before its own.
        attributes: its settings, as texts: ``{"kernel": "(3, 3)"}``.
    """

    operator: str
    name: str
    inputs: tuple[int, ...]
    attributes: Mapping[str, str]


def read_symbols(path: Path) -> tuple[Symbol, ...]:
    """Return a graph's nodes in the order they run; the last is its only output.

    Raises:
        DataError: the file is missing, too large, no such JSON, has an edge that leads forward or to a second output,
            or has several outputs.
    """
    document = _json_of(path)
    try:
        symbols = tuple(_symbol(node) for node in document["nodes"])
        heads = [_edge(head) for head in document["heads"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is no graph of MXNet: {type(error).__name__} in its nodes or heads."
        ) from error
    for place, symbol in enumerate(symbols):
        if not all(0 <= source < place for source in symbol.inputs):
            raise DataError(f"{path} is no graph of MXNet: node '{symbol.name}' reads what comes after it.")
    if heads != [len(symbols) - 1]:
        raise DataError(f"{path} must have one output, its last node; it has {heads[:4]}.")
    return symbols


def _json_of(path: Path) -> Any:
    try:
        return json.loads(read_whole(path, _LARGEST_SYMBOL))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON, so no graph of MXNet.") from error


def _symbol(node: Any) -> Symbol:
    # Called `param` before 2016 and `attr` before 2018.
    settings = node.get("attrs", node.get("attr", node.get("param", {})))
    return Symbol(
        operator=_text(node["op"]),
        name=_text(node["name"]),
        inputs=tuple(_edge(entry) for entry in node["inputs"]),
        attributes={_text(key): _text(value) for key, value in settings.items()},
    )


def _edge(entry: Any) -> int:
    """Return the place of the node whose first output is read. A third number counts writes of auxiliary arrays."""
    source, output, *_ = entry
    if type(source) is not int or output != 0:
        raise ValueError
    return source


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a parameter file by name, without ``arg:`` and ``aux:`` before it.

    Raises:
        DataError: the file is missing, cut off, of another format, declares more than it holds, names an array twice
            or holds a sparse one.
    """
    cursor = Cursor(path, "parameter file of MXNet", read_whole(path))
    magic, _reserved, declared = cursor.unpack("<QQQ")
    if magic != _LIST:
        raise cursor.broken(f"it starts with {magic:#x}, not {_LIST:#x}")
    arrays = [_array(cursor) for _ in range(cursor.count(declared, 4, "arrays"))]
    (named,) = cursor.unpack("<Q")
    if named != declared:
        raise cursor.broken(f"it has {declared:,} arrays and {named:,} names")
    names = [_name(cursor) for _ in range(cursor.count(named, 8, "names"))]
    cursor.finish()
    if len({*names}) < len(names):
        raise cursor.broken("two of its arrays have one name")
    return {name: array for name, array in zip(names, arrays, strict=True) if array is not None}


def _name(cursor: Cursor) -> str:
    (length,) = cursor.unpack("<Q")
    try:
        return cursor.bytes(length).decode().removeprefix("arg:").removeprefix("aux:")
    except UnicodeDecodeError as error:
        raise cursor.broken("a name is no text") from error


def _array(cursor: Cursor) -> npt.NDArray[Any] | None:
    """Return the next array, None where it is declared to be none."""
    (version,) = cursor.unpack("<I")
    sides, word = version, "I"
    if version in (_V1, _V2, _V3):
        if version != _V1 and cursor.unpack("<i") != (0,):
            raise cursor.broken("an array is sparse")
        (sides,) = cursor.unpack("<i")
        word = "q"
    if sides == (-1 if version == _V3 else 0):
        return None
    if not 0 <= sides <= _MOST_SIDES:
        raise cursor.broken(f"an array has {sides:,} sides")
    shape = cursor.unpack(f"<{sides}{word}")
    _device, _number, kind = cursor.unpack("<iii")
    if not 0 <= kind < len(_DTYPES):
        raise cursor.broken(f"an array is of type {kind}")
    return cursor.array(shape, np.dtype(_DTYPES[kind]))
