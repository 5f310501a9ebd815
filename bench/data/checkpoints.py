"""Weights as other projects publish them: ``.pth``, ``.pt``, ``.ckpt`` and ``.safetensors`` → named tensors.

Nothing of a file is ever run: PyTorch's pickles are read with ``weights_only=True``. A checkpoint that names
classes of other packages (PyTorch Lightning writes some) is refused; `convert` keeps its tensors.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import DataError, UsageError

SAFE = ".safetensors"
"""Ending of files that hold tensors and nothing else."""

_NESTED = (
    "state_dict",
    "net_state_dict",
)  # where training scripts put the weights, beside their epoch and optimiser
_BROKEN = (RuntimeError, EOFError, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError)
_NAMED = re.compile(r"GLOBAL ([\w.]+\w)")  # in torch's refusal
_FILLED = re.compile(r"Can only (SETITEM|append|extend).*but got <class 'inert\.([^']+)'>", re.DOTALL)
_AGAIN = "Fetch it again from its publisher."


class _Inert:
    """Stands in the place of a class that a checkpoint names; holds and does nothing."""

    def __init__(self, *_arguments: object, **_named: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


class _InertMapping:
    """Stands in the place of a class that is a dict; torch lets plain dicts and OrderedDicts be filled, no others."""

    def __new__(cls, *_arguments: object, **_named: object) -> Any:
        """Return an empty mapping."""
        return OrderedDict()


class _InertList:
    """Stands in the place of a class that is a list."""

    def __new__(cls, *_arguments: object, **_named: object) -> Any:
        """Return an empty list."""
        return []


def _stand_in(published: str, base: type) -> type:
    """Return a class of its own for a name, as torch tells them apart by the object; errors show the name."""
    return type(published.rpartition(".")[2], (base,), {"__module__": "inert", "__qualname__": published})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, on the CPU, as stored.

    Where the file holds a mapping ``state_dict`` or ``net_state_dict`` beside other things, that is what is read.

    Args:
        path: ``.safetensors``, or whatever ``torch.save`` wrote.

    Raises:
        DataError: the file is missing, cut off, no checkpoint, holds no tensors, or names classes that would
            have to be imported; the message says how to convert it.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file. Give the path of a checkpoint.")
    if path.suffix.lower() == ".onnx":
        raise DataError(
            f"{path} is an ONNX file; this network is read from a checkpoint of PyTorch or {SAFE}. Use the file as "
            f"--backbone {path.name}, with its preprocessing."
        )
    if path.suffix == SAFE:
        return _read_safetensors(path)
    return _tensors_of(_load(path), path)


def convert(source: Path, target: Path) -> tuple[str, ...]:
    """Write the tensors of a PyTorch checkpoint as ``.safetensors``; what else it holds is left out.

    Classes that the file names are replaced by one that does nothing, so that no code of the file or of
    another package runs.

    Args:
        source: the checkpoint.
        target: the ``.safetensors`` file to write; must not exist.

    Returns:
        the names of the classes that were left out.

    Raises:
        UsageError: the target exists or ends otherwise.
        DataError: the source cannot be read even so, or the target cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if target.suffix != SAFE:
        raise UsageError(f"{target} must end in {SAFE}.")
    if target.exists():
        raise UsageError(f"{target} exists. Remove it or give another name.")
    if not source.is_file():
        raise DataError(f"{source} is not a file. Give the path of a checkpoint.")
    content, foreign = _load_inert(source)
    tensors = _tensors_of(content, source)
    # Tensors that share memory are stored one by one.
    apart = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    part = target.with_name(f".{target.name}.part")
    try:
        save_file(apart, part)
        part.replace(target)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{target} cannot be written: {error}.") from error
    return foreign


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is no readable {SAFE} file ({error}). {_AGAIN}") from error


def _loaded(path: Path) -> Any:
    with warnings.catch_warnings():
        # That it checks sparse tensors: there should be none, and nobody can act on it.
        warnings.filterwarnings("ignore", message="Validating sparse tensor")
        # That it reads other pickles than its own less surely: it refuses what it does not read.
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)


def _load(path: Path) -> Any:
    try:
        return _loaded(path)
    except pickle.UnpicklingError as error:
        foreign = _foreign_classes(path, error)
        if not foreign:
            raise DataError(f"{path} is no checkpoint of PyTorch, or is broken. {_AGAIN}") from error
        raise DataError(
            f"{path} names classes that would have to be imported ({_listed(foreign)}), which is not done: a "
            f"pickle can run any code. Keep its tensors only: bench models convert {path.name} "
            f"{path.stem}{SAFE}, then give that file."
        ) from error
    except _BROKEN as error:
        raise DataError(
            f"{path} cannot be read as a checkpoint of PyTorch ({type(error).__name__}). {_AGAIN}"
        ) from error


def _load_inert(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return what a checkpoint holds, with stand-ins for the classes it names, and the names of these."""
    bases: dict[str, type] = dict.fromkeys(_foreign_classes(path), _Inert)
    while True:
        stand_ins: list[Any] = [(_stand_in(name, base), name) for name, base in bases.items()]
        with torch.serialization.safe_globals(stand_ins):
            try:
                return _loaded(path), tuple(bases)
            except pickle.UnpicklingError as error:
                filled = _FILLED.search(str(error))
                # Only when one is filled does it show that its class is a dict or a list.
                if filled and bases.get(filled[2]) is _Inert:
                    bases[filled[2]] = _InertMapping if filled[1] == "SETITEM" else _InertList
                    continue
                more = [name for name in _foreign_classes(path, error) if name not in bases]
                if not more:
                    raise DataError(f"{path} cannot be read even without its classes. {_AGAIN}") from error
                bases |= dict.fromkeys(more, _Inert)
            except _BROKEN as error:
                if bases:
                    raise DataError(
                        f"{path} cannot be read even without its classes ({type(error).__name__}). {_AGAIN}"
                    ) from error
                return _load(path), ()  # says what is wrong


def _foreign_classes(path: Path, error: Exception | None = None) -> tuple[str, ...]:
    """Return the classes and functions a checkpoint names besides those of tensors.

    Files older than PyTorch 1.6 cannot be asked; of these the refusal tells one.
    """
    try:
        return tuple(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    except (*_BROKEN, pickle.UnpicklingError):
        named = _NAMED.findall(str(error))[:1]
        # The refusal leaves the module of what is built in unsaid.
        return tuple(name if "." in name else f"builtins.{name}" for name in named)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next((content[key] for key in _NESTED if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path} holds a {type(content).__name__}, not tensors by name. Save the network's state_dict()."
        )
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise DataError(f"{path} holds no tensors. Save the network's state_dict().")
    odd = [n for n, v in tensors.items() if v.layout != torch.strided or v.is_quantized or v.is_meta]
    if odd:
        raise DataError(
            f"{path}: '{odd[0]}' is sparse, quantised or without values. Save it as a plain tensor."
        )
    return tensors
