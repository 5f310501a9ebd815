"""Limits of time and memory within which a node must be made: what goes on for ever, or takes all, is ended by name.

The time limit is an alarm in the main thread: it ends Python code, and waits for what runs in C, which only another
process can end (`bench.run.watch`). The memory limit is
the system's on a process's data (Linux; not with CUDA, which reserves address space): an allocation beyond it fails,
where else the system would kill the run.
"""

from __future__ import annotations

import math
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
        workers: processes that share what is left.
    """

    seconds: float | None = None
    gigabytes: float | None = None
    workers: int = 1

    def seconds_for(self, declared: float) -> float:
        """Return the seconds for a node whose methods declare as many; 0 for no limit."""
        if self.seconds is None:
            return max(LEAST_SECONDS, TIMES * declared)
        return self.seconds if math.isfinite(self.seconds) else 0

    def bytes_for(self) -> int:
        """Return the bytes a node may take beyond what the process has; 0 for no limit."""
        if self.gigabytes is None:
            return _available() // self.workers
        return round(self.gigabytes * _GIGABYTE) if math.isfinite(self.gigabytes) else 0


DEFAULT = Limits()
"""What holds where nothing is said."""


def took_too_long(what: str, seconds: float) -> str:
    """Return the sentence on what took longer than its seconds."""
    return (
        f"{what} took longer than {seconds:,.0f} s. Allow more with --time-limit SECONDS, or 0 for any time."
    )


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

    over = False

    def too_long(_number: int, _frame: FrameType | None) -> None:
        if not over:
            raise MethodError(took_too_long(what, seconds))

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        try:
            yield
        finally:
            over = True
    finally:  # an alarm between the two is heard, and ends here all the same
        over = True
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
    return _field(Path("/proc/self/status"), "VmData:") * 1024


def _available() -> int:
    """Return the bytes that the machine, or the container, has left, a gigabyte at least; 0 where nobody tells."""
    left = [_field(Path("/proc/meminfo"), "MemAvailable:") * 1024, _left_of_container()]
    known = [each for each in left if each]
    return max(min(known), _GIGABYTE) if known else 0


def _left_of_container() -> int:
    """Return the bytes a container has left, what it only keeps of files counted as free; 0 where there is no limit."""
    folder = Path("/sys/fs/cgroup")
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if not (limit and used):
        return 0
    kept = sum(_field(folder / "memory.stat", name) for name in ("inactive_file ", "active_file "))
    return max(limit - used + kept, 1)


def _field(path: Path, name: str) -> int:
    """Return the number behind a name at a line's beginning; 0 where there is none."""
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
