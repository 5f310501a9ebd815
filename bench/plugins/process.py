"""What holds for the whole process, and how it stays the harness' own while a plugin is imported, built or called."""

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import cv2
import numpy as np
import PIL.ImageFile
import torch
from torch import Tensor
from torch.backends import cuda, cudnn, mkldnn

from bench.errors import Ended, MethodError

log = logging.getLogger("bench")

_AUTOCAST = ("cpu", "cuda")
_OF_LIBRARIES = ("KMP_", "LD_", "TORCHINDUCTOR_")
"""Beginnings of the environment variables that OpenCV, scikit-learn and torch set when they are imported."""


def _told(ask: Callable[[], Any]) -> Any:
    """Return what torch tells of a precision; it refuses where it was set in two ways that contradict."""
    try:
        return ask()
    except RuntimeError:
        return "contradictory"


def _products() -> tuple[Any, Any]:
    return _told(torch.get_float32_matmul_precision), _told(lambda: cuda.matmul.allow_tf32)


def _set_products(value: tuple[str, bool]) -> None:
    torch.set_float32_matmul_precision(value[0])
    if cuda.matmul.allow_tf32 != value[1]:
        cuda.matmul.allow_tf32 = value[1]


def _cudnn() -> tuple[bool, bool, Any]:
    return cudnn.benchmark, cudnn.deterministic, _told(lambda: cudnn.allow_tf32)


def _set_cudnn(value: tuple[bool, bool, bool]) -> None:
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = value


def _set_mkldnn(value: bool) -> None:
    mkldnn.enabled = value  # type: ignore[assignment]  # a property that torch annotates as its own class


def _deterministic() -> tuple[bool, bool]:
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), only_warns


def _autocast() -> list[tuple[bool, torch.dtype]]:
    return [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _AUTOCAST]


def _set_autocast(value: list[tuple[bool, torch.dtype]]) -> None:
    for kind, (enabled, dtype) in zip(_AUTOCAST, value, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


_SUBNORMAL = 5e-324


def _flushes_denormals() -> bool:
    return _SUBNORMAL * 1.0 == 0  # torch sets it and does not tell


def _set_default_device(device: torch.device) -> None:
    # Naming the CPU would be slower than naming none.
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_truncated(value: bool) -> None:
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = value


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_LIBRARIES)}


def _set_environment(value: Mapping[str, str]) -> None:
    for name in _environment().keys() - value.keys():
        del os.environ[name]
    os.environ.update(value)


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  # Path.cwd would be made anew for nothing
    except OSError:
        return "/"  # it was removed meanwhile


_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, _set_default_device),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic algorithms": (
        _deterministic,
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    "torch's anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch's precision of products": (_products, _set_products),
    "torch's cuDNN": (_cudnn, _set_cudnn),
    "torch's oneDNN": (lambda: mkldnn.enabled, _set_mkldnn),
    "torch's autocast": (_autocast, _set_autocast),
    "torch's flushing of denormal numbers": (_flushes_denormals, torch.set_flush_denormal),
    "numpy's error handling": (np.geterr, lambda value: np.seterr(**value)),
    "OpenCV's number of threads": (cv2.getNumThreads, cv2.setNumThreads),
    "OpenCV's optimised code": (cv2.useOptimized, cv2.setUseOptimized),
    "Pillow's truncated images": (lambda: PIL.ImageFile.LOAD_TRUNCATED_IMAGES, _set_truncated),
    "the environment": (_environment, _set_environment),
    "the working directory": (_working_directory, os.chdir),
    "logging": (lambda: logging.root.manager.disable, logging.disable),
}
"""What holds for the whole process → how it is read and set."""


def settings() -> dict[str, Any]:
    """Return what holds for the whole process, by name."""
    return {what: get() for what, (get, _) in _SETTINGS.items()}


def _cuda_started() -> bool:
    # Asking CUDA before anybody used it would start it.
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch leaves it unannotated


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if _cuda_started() else []


_GENERATORS: tuple[tuple[Callable[[], Any], Callable[[Any], object], Any], ...] = (
    (torch.get_rng_state, torch.set_rng_state, torch.Generator().manual_seed(0).get_state()),
    (np.random.get_state, np.random.set_state, np.random.RandomState(0).get_state()),
    (random.getstate, random.setstate, random.Random(0).getstate()),  # noqa: S311
)
"""Global generators of random numbers: how their states are read and set, and where a plugin finds them."""


def _seed() -> None:
    """Put global generators where every call of every process finds them: results depend on no call before."""
    for _, restore, start in _GENERATORS:
        restore(start)
    cv2.setRNGSeed(0)  # nobody can ask for its state
    if _cuda_started():
        torch.cuda.manual_seed_all(0)


@contextmanager
def calling(plugin: str) -> Iterator[None]:
    """Call a plugin: afterwards settings and generators of the whole process are as they were.

    Args:
        plugin: its kind and name, for messages.

    Raises:
        MethodError: the plugin left the process with `sys.exit`, or raised KeyboardInterrupt by itself.
    """
    before = settings()
    states = [get() for get, _, _ in _GENERATORS]
    on_cuda = _cuda_states()
    _seed()
    try:
        yield
    except SystemExit as leave:
        raise MethodError(
            f"{plugin} called sys.exit({leave.code!r}), which would have ended the run. Raise an error instead."
        ) from leave
    except KeyboardInterrupt as stop:
        # The command line raises `Ended` for signals; where it is not there, Ctrl-C cannot be told apart.
        if isinstance(stop, Ended) or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            raise
        raise MethodError(
            f"{plugin} raised KeyboardInterrupt, which would have ended the run. Raise an error instead."
        ) from stop
    finally:
        for what, (get, restore) in _SETTINGS.items():
            if get() != before[what]:
                restore(before[what])
                _report(plugin, what)
        for (_, restore, _), state in zip(_GENERATORS, states, strict=True):
            restore(state)
        if on_cuda:
            torch.cuda.set_rng_state_all(on_cuda)


@cache
def _report(plugin: str, what: str) -> None:
    """Say once what a plugin changes."""
    log.warning("%s changed %s for the whole process; it was set back", plugin, what)
