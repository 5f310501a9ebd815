"""Networks as MatConvNet saves them: ``net.layers`` of a ``.mat`` file.

Read are files of MATLAB 7.3, which are HDF5. There a cell is an array of references and a structure a group; sides are
in the opposite order, so a kernel, height × width × in × out in MATLAB, is out × in × width × height.

HDF5's library believes what a file declares: a few changed bytes make it take all the memory there is. So nothing gets
to it but a file whose digest is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bench.data.files import sha256_of
from bench.errors import DataError

Array = npt.NDArray[Any]

_EMPTY = "MATLAB_empty"


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


def read_layers(path: Path, sha256: str) -> tuple[Layer, ...]:
    """Return the layers of a network of MatConvNet, in order.

    Args:
        path: the file.
        sha256: its digest; a file of another one is not opened.

    Raises:
        DataError: the file is missing, has another digest, is of another format or holds no such network.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file.")
    if (found := sha256_of(path)) != sha256:
        raise DataError(f"{path} has SHA-256 {found}, expected {sha256}; another file is not read.")
    try:
        with h5py.File(path, "r") as file:
            return tuple(_layer(file, group) for group in _cell(file, file["net"]["layers"]))
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        # h5py's errors are of all these kinds, and a group stands where an array should, or the reverse.
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} is no network of MatConvNet in MATLAB's format 7.3: {reason}.") from error


def _layer(file: h5py.File, group: h5py.Group) -> Layer:
    kind = "".join(map(chr, np.asarray(group["type"][()]).ravel()))
    arrays = _cell(file, group["weights"]) if "weights" in group else []
    return Layer(kind, dict(_numbers(group)), tuple(map(_weight, arrays)))


def _numbers(group: h5py.Group) -> Iterable[tuple[str, tuple[float, ...]]]:
    for name, value in group.items():
        if isinstance(value, h5py.Dataset) and value.dtype.kind == "f":
            yield name, tuple(map(float, np.asarray(value[()]).ravel()))


def _cell(file: h5py.File, dataset: h5py.Dataset) -> list[Any]:
    if _EMPTY in dataset.attrs:
        return []
    return [file[reference] for reference in np.asarray(dataset[()]).ravel()]


def _weight(dataset: h5py.Dataset) -> Array:
    values = np.asarray(dataset[()])
    if values.dtype.kind != "f":
        raise ValueError(f"weights are of type {values.dtype}")
    # A vector is a row; a kernel's two last sides change places.
    return values.ravel() if values.ndim <= 2 else values.swapaxes(-1, -2)
