"""Limits of time and memory within which a node must be made: what goes on for ever, or takes all, is ended by name.

The time limit is an alarm in the main thread: it ends Python code, and waits for what runs in C. The memory limit is
the system's on a process's data (Linux; not with CUDA, which reserves address space): an allocation beyond it fails,
where else the system would kill the run.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bench.errors import MethodError

TIMES = 10
"""How many times what methods declare a node may take where nothing is said."""

LEAST_SECONDS = 3600.0
"""What a node may take at least where nothing is said: what is declared is rough, and machines are slow."""

_AGAIN = 1.0
"""Seconds until a plugin that caught the alarm hears it again."""

_GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class Limits:
    """What one node may take.

    Attributes:
        seconds: None for `TIMES` what its methods declare and `LEAST_SECONDS` at least; 0 for no limit.
        gigabytes: of memory beyond what the process has; None for what the machine has left; 0 for no limit.
    """

    seconds: float | None = None
    gigabytes: float | None = None

    def seconds_for(self, declared: float) -> float:
        """Return the seconds for a node whose methods declare as many; 0 for no limit."""
        return max(LEAST_SECONDS, TIMES * declared) if self.seconds is None else self.seconds

    def bytes_for(self) -> int:
        """Return the bytes a node may take beyond what the process has; 0 for no limit."""
        return _available() if self.gigabytes is None else round(self.gigabytes * _GIGABYTE)


DEFAULT = Limits()
"""What holds where nothing is said."""


@contextmanager
def limited(seconds: float, memory: int, what: str) -> Iterator[None]:
    """Let the code inside take so much time and memory.

    Args:
        seconds: 0 for no limit; none either outside the main thread, where no alarm is heard.
        memory: bytes beyond what the process has now; 0 for no limit.
        what: what it is, for the message.

    Raises:
        MethodError: it took longer.
    """
    with _memory(memory), _time(seconds, what):
        yield


@contextmanager
def _time(seconds: float, what: str) -> Iterator[None]:
    here = threading.current_thread() is threading.main_thread()
    if not (seconds and here and hasattr(signal, "setitimer")):
        yield
        return

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise MethodError(
            f"{what} took longer than {seconds:,.0f} s. Allow more with --time-limit SECONDS, or 0 for any time."
        )

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory(allowed: int) -> Iterator[None]:
    used = _used()
    if not (allowed and used):
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = used + allowed
    if before[0] != resource.RLIM_INFINITY:
        most = min(most, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _used() -> int:
    """Return the bytes of data of this process; 0 where the system does not tell."""
    return _kilobytes(Path("/proc/self/status"), "VmData:") * 1024


def _available() -> int:
    """Return the bytes that the machine, or the container, has left; 0 where the system does not tell."""
    machine = _kilobytes(Path("/proc/meminfo"), "MemAvailable:") * 1024
    container = _number(Path("/sys/fs/cgroup/memory.max")) - _number(Path("/sys/fs/cgroup/memory.current"))
    return min(machine, container) if container > 0 else machine


def _kilobytes(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
