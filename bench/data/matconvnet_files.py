"""Networks as MatConvNet saves them: ``net.layers`` of a ``.mat`` file.

Read are files of MATLAB 7.3, which are HDF5. There a cell is an array of
references and a structure a group; sides are in the opposite order, so a kernel, height × width × in × out in
MATLAB, is out × in × width × height.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bench.errors import DataError

Array = npt.NDArray[Any]

_EMPTY = "MATLAB_empty"
_MOST_LAYERS = 1024
_LONGEST_KIND = 64
_MOST_NUMBERS = 16
_PACKED = 8
"""Numbers that were trained hardly compress: what is said to unpack to more than this many times the file is
refused."""


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        kind: MatConvNet's name of it: ``conv``, ``relu`` …
        numbers: its settings that are numbers: ``{"stride": (1.0,), "pad": (1.0,)}``.
        arrays: its weights: of ``conv`` (out, in, height, width) and (out,); () where it has none.
    """

    kind: str
    numbers: Mapping[str, tuple[float, ...]]
    arrays: tuple[Array, ...]


def read_layers(path: Path) -> tuple[Layer, ...]:
    """Return the layers of a network of MatConvNet, in order.

    Raises:
        DataError: the file is missing, of another format, broken, holds no such network, or more than it has bytes for.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file.")
    try:
        with h5py.File(path, "r") as file:
            return _Reader(file, _PACKED * path.stat().st_size).layers()
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        # h5py's errors are of all these kinds, and a group stands where an array should, or the reverse.
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} is no network of MatConvNet in MATLAB's format 7.3: {reason}.") from error


class _Reader:
    """Reads one file, and no more than it can hold."""

    def __init__(self, file: h5py.File, budget: int) -> None:
        self._file = file
        self._budget = budget

    def layers(self) -> tuple[Layer, ...]:
        return tuple(self._layer(each) for each in self._cell(self._file["net"]["layers"], _MOST_LAYERS))

    def _layer(self, group: h5py.Group) -> Layer:
        codes = self._values(group["type"], _LONGEST_KIND).astype(np.int64).ravel()
        arrays = self._cell(group["weights"], _MOST_NUMBERS) if "weights" in group else ()
        return Layer("".join(map(chr, codes)), dict(self._numbers(group)), tuple(map(self._weight, arrays)))

    def _numbers(self, group: h5py.Group) -> Iterable[tuple[str, tuple[float, ...]]]:
        for name, value in group.items():
            if isinstance(value, h5py.Dataset) and value.dtype.kind == "f" and value.size <= _MOST_NUMBERS:
                yield name, tuple(map(float, self._values(value, _MOST_NUMBERS).ravel()))

    def _weight(self, dataset: h5py.Dataset) -> Array:
        values = self._values(dataset, self._budget)
        if values.dtype.kind != "f":
            raise ValueError(f"weights are of type {values.dtype}")
        # A row is a vector; MATLAB drops sides of one at the end, here the front.
        return values.ravel() if values.ndim <= 2 else values.swapaxes(-1, -2)

    def _cell(self, dataset: h5py.Dataset, most: int) -> list[Any]:
        if _EMPTY in dataset.attrs:
            return []
        references = self._values(dataset, most).ravel()
        if references.dtype.kind != "O":
            raise ValueError(f"'{dataset.name}' is no cell")
        return [self._file[reference] for reference in references]

    def _values(self, dataset: h5py.Dataset, most: int) -> Array:
        """Return the values of a dataset that declares `most` or fewer, and no more bytes than are left to read."""
        blocks = [dataset.size, int(np.prod(dataset.chunks or (0,), dtype=object))]
        size = max(blocks) * dataset.dtype.itemsize
        if dataset.size > most or size > self._budget or dataset.dtype.kind not in "fuiO":
            raise ValueError(f"'{dataset.name}' declares {dataset.size:,} values of type {dataset.dtype}")
        self._budget -= size
        return np.asarray(dataset[()])
