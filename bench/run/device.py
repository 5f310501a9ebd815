"""The machine a run computes on: device, threads, batch size, memory."""

import ctypes
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.contracts import Backbone
from bench.errors import MethodError, UsageError
from bench.quality.lpips import Lpips, Unavailable, load_lpips
from bench.run.limits import DEFAULT, Limits
from bench.run.precision import Precision


@dataclass(frozen=True)
class Machine:
    """How a run is executed; nothing here changes what is requested, `batch_size` not even a byte.

    Attributes:
        device: torch device.
        threads: threads torch computes with.
        batch_size: images handed to a method per call.
        lpips: the LPIPS measure, or why there is none.
        limits: of time and memory, within which each node must be made.
        precision: what trackers embed in; part of the key of embeddings alone.
        checkpoint: where the artefact that is being made may keep itself over kills (`Context.checkpoint`).
        loaded: name → backbone that was loaded onto the device.
        as_loaded: name → its version then (`version_of`).
    """

    device: torch.device
    threads: int
    batch_size: int
    lpips: Lpips | Unavailable
    limits: Limits = DEFAULT
    precision: Precision = "float32"
    checkpoint: Path | None = None
    loaded: dict[str, Backbone] = field(default_factory=dict, repr=False, compare=False)
    as_loaded: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    def keep(self, name: str, backbone: Backbone) -> None:
        """Keep a loaded backbone under a name for all that use it."""
        self.loaded[name] = backbone
        self.as_loaded[name] = version_of(backbone)

    def check_backbones(self, user: str) -> None:
        """Check that nobody changed a backbone that others use as well; one that was changed is kept no more.

        Args:
            user: who used them last, for the message.

        Raises:
            MethodError: somebody did.
        """
        moved = [name for name, each in self.loaded.items() if version_of(each) != self.as_loaded.get(name)]
        for name in moved:
            del self.loaded[name]
        if moved:
            raise MethodError(
                f"{user} changed the loaded backbone '{moved[0]}' in place, which others use too. Change a copy: "
                "copy.deepcopy, or Backbone.trainable."
            )


def to_device(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; from pinned memory where that is a GPU, so that the transfer is not waited for."""
    if device.type != "cuda" or images.device.type != "cpu":
        return images.to(device)
    return images.pin_memory().to(device, non_blocking=True)


def version_of(backbone: Backbone) -> tuple[Any, ...]:
    """Return what differs once a loaded backbone was changed in place: cheap counters, no values."""
    networks = [value for value in vars(backbone).values() if isinstance(value, torch.nn.Module)]
    tensors = (each for network in networks for each in (*network.parameters(), *network.buffers()))
    # Tensors of inference mode count no versions; nobody can train them either.
    versions = ((id(each), 0 if each.is_inference() else each._version) for each in tensors)
    modes = (module.training for network in networks for module in network.modules())
    return (*map(id, networks), *versions, *modes)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: page faults are else about a quarter of a gradient's time on a CPU.

    A tensor above 128 KiB is by default mapped anew and unmapped each time. Does nothing elsewhere.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)


def _compute_the_same_each_time() -> None:
    """Have CUDA compute in full float32 and by the same algorithms in every run."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def use_device(device: str, threads: int | None) -> tuple[torch.device, int]:
    """Return the device and the number of threads, and set torch's threads.

    Args:
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: None for every core this process may use.

    Raises:
        UsageError: the device is unknown or not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device '{device}'. Valid: auto, cpu, cuda, cuda:N.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise UsageError(f"device '{device}' is not supported. Valid: auto, cpu, cuda, cuda:N.")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen.type == "cuda" and (chosen.index or 0) >= there:
        raise UsageError(
            f"device '{device}' was requested, but torch sees {there} CUDA devices. Use --device cpu."
        )
    if chosen.type == "cuda":
        _compute_the_same_each_time()
    count = threads or usable_cores()
    torch.set_num_threads(count)
    keep_freed_memory()
    return chosen, count


def make_machine(
    device: str,
    threads: int | None,
    batch_size: int,
    lpips_trunk: Path | None,
    limits: Limits | None = None,
    precision: Precision = "float32",
) -> Machine:
    """Return the machine of a run and set torch's threads (see `use_device`).

    Args:
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: None for every core this process may use.
        batch_size: images handed to a method per call.
        lpips_trunk: file with AlexNet's weights, or None to look for it (`bench.quality.lpips.load_lpips`).
        limits: of time and memory; None for those that hold where nothing is said.
        precision: what trackers embed in.
    """
    chosen, count = use_device(device, threads)
    return Machine(chosen, count, batch_size, load_lpips(lpips_trunk), limits or DEFAULT, precision)
