"""EdgeFace's checkpoint with dynamically quantised linear layers → float32 arrays by name.

What lives here: reading ``torch.save``'s archive without torch and without running anything of it. What must not: what
the network does with its weights. torch's own quantised tensors are to be removed from it, so they are not used.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

Array = NDArray[np.float32]

PACKED = "._packed_params._packed_params"
"""What torch calls the (weight, bias) of a quantised linear layer, after the layer's own name."""

_STORAGES: Mapping[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "LongStorage": np.dtype("<i8"),
    "QInt8Storage": np.dtype("i1"),
}
_INDEX_LIMIT = 1 << 20
"""Bytes; the published file's list of tensors has 40 kB."""

_BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    KeyError,
    IndexError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class _Marker:
    """Stands for a type or constant of torch that the file names; can do nothing."""

    name: str


def read_checkpoint(path: Path) -> dict[str, Array]:
    """Return the tensors of a checkpoint as float32, by torch's names.

    A quantised layer's ``NAME._packed_params._packed_params`` becomes ``NAME.weight`` and ``NAME.bias``, the weight
    dequantised: (q − zero point) · scale. The scale and zero point of its output, which dynamic quantisation does not
    use, are left out.

    Args:
        path: what ``torch.save`` wrote of a state dict.

    Raises:
        DataError: the file is missing, cut off, of another layout, or names anything but tensors: nothing of a
            file is ever imported or run.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file. Fetch it again.")
    try:
        with zipfile.ZipFile(path) as archive:
            content = _Unpickler(archive, path).load()
    except _BROKEN as error:
        raise DataError(
            f"{path} is no readable checkpoint of EdgeFace ({type(error).__name__}: {error}). Fetch it again."
        ) from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds no tensors by name. Fetch it again.")
    return _unpacked(content)


def _unpacked(content: Mapping[str, object]) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for name, value in content.items():
        if name.endswith(PACKED) and isinstance(value, tuple) and len(value) == 2:
            layer = name.removesuffix(PACKED)
            tensors[f"{layer}.weight"], tensors[f"{layer}.bias"] = value
        elif isinstance(value, np.ndarray) and value.dtype == np.float32 and not _of_output(name, content):
            tensors[name] = value
    return tensors


def _of_output(name: str, content: Mapping[str, object]) -> bool:
    layer, _, last = name.rpartition(".")
    return last == "scale" and f"{layer}{PACKED}" in content


class _Unpickler(pickle.Unpickler):
    """Reads a state dict; every name in it stands for what is written here, any other is refused."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self._path = path
        self._read: dict[str, NDArray[Any]] = {}
        indices = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(indices) != 1:
            raise DataError(f"{path} is no checkpoint of PyTorch. Fetch it again.")
        self._root = indices[0].removesuffix("data.pkl")
        super().__init__(archive.open(self._member(indices[0], _INDEX_LIMIT)))

    def _member(self, name: str, limit: int) -> zipfile.ZipInfo:
        """Return a member that is stored as it is and no larger than it may be."""
        member = self._archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > limit:
            raise DataError(f"{self._path}: '{name}' is compressed or too large. Fetch it again.")
        return member

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name of the file.

        Raises:
            DataError: it is none that a state dict of tensors needs.
        """
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "per_tensor_affine"): _Marker("per_tensor_affine"),
            ("torch", "qint8"): _Marker("qint8"),
            ("torch._utils", "_rebuild_parameter"): lambda value, *_: value,
            ("torch._utils", "_rebuild_qtensor"): _dequantised,
            ("torch._utils", "_rebuild_tensor_v2"): _strided,
            **{("torch", storage): _Marker(storage) for storage in _STORAGES},
        }
        if (module, name) not in known:
            raise DataError(
                f"{self._path} names {module}.{name}, which is no part of EdgeFace's checkpoint: not read, as a "
                "pickle can run any code."
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """Return the numbers of a storage: ``("storage", type, key, device, count)``."""
        _, kind, key, _, count = pid
        if key not in self._read:
            dtype = _STORAGES[kind.name]
            member = self._member(f"{self._root}data/{key}", count * dtype.itemsize)
            self._read[key] = np.frombuffer(self._archive.read(member), dtype)
        if len(self._read[key]) != count:
            raise ValueError(f"storage {key} has {len(self._read[key])} numbers, expected {count}")
        return self._read[key]


def _strided(
    storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> NDArray[Any]:
    """Return a contiguous copy of a view of a storage; a view beyond its end is refused."""
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
    if min((offset, *size, *stride), default=0) < 0 or (0 not in size and reach > len(storage)):
        raise ValueError(f"a tensor of {size} lies outside its storage of {len(storage)} numbers")
    if np.prod(size, dtype=object) > len(storage):
        raise ValueError(f"a tensor of {size} repeats numbers of its storage")
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()


def _dequantised(
    storage: NDArray[Any],
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    quantiser: tuple[_Marker, float, int],
    *_: object,
) -> Array:
    """Return (q − zero point) · scale in float32, as torch dequantises."""
    kind, scale, zero = quantiser
    if kind != _Marker("per_tensor_affine"):
        raise ValueError(f"weights quantised as {kind!r}; only per_tensor_affine is known")
    steps = _strided(storage, offset, size, stride).astype(np.int32) - np.int32(zero)
    return steps.astype(np.float32) * np.float32(scale)
