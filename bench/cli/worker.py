"""A command that computes works in a process that can be ended: a plugin that hangs or leaves loses its own cells only.

The process is a copy of this one, made before anything heavy is imported; it costs milliseconds. This one waits, hands
signals on, and where the worker ended with an artefact in work, starts another that leaves that artefact out.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

import click

from bench.cli.ending import SIGNALS
from bench.errors import Ended
from bench.run.watch import PATIENCE, Death, Message, Watch, is_overdue, set_this, this

P = ParamSpec("P")
T = TypeVar("T")

VARIABLE = "CLOAKBENCH_ONE_PROCESS"
"""Set to 1 to compute in the command's own process, e.g. for a debugger or a profiler."""

_TICK = 0.2
_SHORT_TICK = 0.01
_LINE = 65_536

# sys/prctl.h
_SET_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36


def in_worker(command: Callable[P, T]) -> Callable[P, T]:
    """Have a command compute in a worker, where the system can make one."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _can_divide():
            return command(*args, **kwargs)
        failed: dict[str, str] = {}
        died_at: set[str] = set()
        _tell_system(_SET_CHILD_SUBREAPER, 1)
        while True:
            # Held until whoever is to heed them does.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            pid, pipe = _divide(failed)
            if pid == 0:
                try:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                    return command(*args, **kwargs)
                finally:
                    this().say(Message(over=True))
            end = _Worker(pid, pipe).wait(before)
            if end.in_order:
                sys.exit(end.code)
            _end_orphans()
            _tidy_terminal()
            if end.heard:
                raise Ended(end.heard[0])
            _judge(end.death(), failed, died_at)

    return guarded


def _judge(death: Death, failed: dict[str, str], died_at: set[str]) -> None:
    """Note what the next worker leaves out, and say so.

    Raises:
        ClickException: no artefact was in work, so that another worker would end the same way.
    """
    address = death.last.address
    again = death.is_chance(died_at)
    died_at.add(address)
    if not (again or address):
        raise click.ClickException(
            f"{death.reason()}. What was computed is kept. With {VARIABLE}=1 a debugger or Python's -X faulthandler "
            "tells where it ends."
        )
    if not again:
        failed[address] = death.reason()
    how = "with it once more" if again else "without it"
    click.echo(f"{death.reason().rstrip('.')}; going on {how}.", err=True)


def _can_divide() -> bool:
    """Whether this process can be copied: not where threads or torch are there already, which copies would break."""
    if not hasattr(os, "fork") or os.environ.get(VARIABLE, "0") not in ("", "0"):
        return False
    return threading.active_count() == 1 and "torch" not in sys.modules


def _divide(failed: dict[str, str]) -> tuple[int, int]:
    """Copy this process; returns (0, -1) in the worker, else its number and the pipe to read."""
    reader, writer = os.pipe()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    os.close(reader)
    _tell_system(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    set_this(Watch(failed, writer))
    return 0, -1


def _tell_system(option: int, value: int) -> None:
    """Set a property of this process (Linux): that it ends with its parent, or that orphans become its children."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value)


def _end_orphans() -> None:
    """End what a worker that ended had started, and left to this process (Linux)."""
    number = os.getpid()
    try:
        listed = Path(f"/proc/{number}/task/{number}/children").read_text(encoding="ascii")
    except OSError:
        return
    for child in map(int, listed.split()):
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@dataclass
class _Worker:
    """A worker, followed to its end.

    Attributes:
        pid: its number.
        pipe: what it says.
        last: what it said last.
        heard: signals that were handed on to it.
        too_long: it was ended as an artefact took too long.
        status: the system's, as `os.waitpid` gives it.
    """

    pid: int
    pipe: int
    last: Message = field(default_factory=Message)
    heard: list[int] = field(default_factory=list)
    too_long: bool = False
    status: int = 0
    _worked: float = 0.0
    _asked: float = 0.0
    _unread: bytes = b""
    _is_open: bool = True

    @property
    def in_order(self) -> bool:
        """It ended by itself, having done all it does."""
        return self.last.over and not self.by_signal

    @property
    def by_signal(self) -> bool:
        return os.WIFSIGNALED(self.status)

    @property
    def code(self) -> int:
        return os.waitstatus_to_exitcode(self.status)

    def death(self) -> Death:
        """Return how it ended."""
        return Death(self.last, self.code, self.too_long)

    def wait(self, mask: set[int | signal.Signals]) -> "_Worker":
        """Follow it to its end, and end it where an artefact takes too long or a signal is not heeded.

        Args:
            mask: of the signals that are held, once they are handed on.
        """
        with self._handing_on():
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            while not self._has_ended():
                before = time.monotonic()
                self._listen(_TICK)
                # A pause of this process, e.g. by Ctrl-Z, is not the worker's time.
                passed = min(time.monotonic() - before, 2 * _TICK)
                self._worked += passed
                self._asked += passed if self.heard else 0
                self._end_if_due()
            while self._is_open and self._listen(0):
                pass
        os.close(self.pipe)
        return self

    def _has_ended(self) -> bool:
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if ended:
            self.status = status
        return bool(ended)

    def _listen(self, seconds: float) -> bool:
        """Wait so long for what it says; returns whether it said anything, or that it says no more."""
        if not self._is_open:
            time.sleep(_SHORT_TICK)
            return False
        ready, _, _ = select.select([self.pipe], [], [], seconds)
        if not ready:
            return False
        new = os.read(self.pipe, _LINE)
        self._is_open = bool(new)
        *lines, self._unread = (self._unread + new).split(b"\n")
        if lines:
            self.last, self._worked = Message.read(lines[-1]), 0.0
        return True

    def _end_if_due(self) -> None:
        too_long = is_overdue(self.last, self._worked)
        if too_long or self._asked > PATIENCE or len(self.heard) > 1:
            self.too_long = too_long
            os.kill(self.pid, signal.SIGKILL)

    @contextmanager
    def _handing_on(self) -> Iterator[None]:
        """Hand signals on to the worker, which heeds them; a terminal's Ctrl-C it hears twice, and heeds once."""

        def hand_on(number: int, _frame: FrameType | None) -> None:
            self.heard.append(number)
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

        heeded = [each for each in SIGNALS if callable(signal.getsignal(each))]
        before = {number: signal.signal(number, hand_on) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _tidy_terminal() -> None:
    """Show the cursor again, which a progress bar hid."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")
        sys.stderr.flush()
