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
from dataclasses import dataclass
from functools import wraps
from types import FrameType
from typing import ParamSpec, TypeVar

import click

from bench.cli.ending import SIGNALS
from bench.run.watch import Message, Watch, set_this, this

P = ParamSpec("P")
T = TypeVar("T")

VARIABLE = "CLOAKBENCH_ONE_PROCESS"
"""Set to compute in the command's own process, e.g. for a debugger or a profiler."""

PATIENCE = 5.0
"""Seconds an artefact may take beyond its limit: the worker's own alarm ends it more gently, if it can."""

_TICK = 0.2
_LINE = 65_536


def in_worker(command: Callable[P, T]) -> Callable[P, T]:
    """Have a command compute in a worker, where the system can make one."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _can_divide():
            return command(*args, **kwargs)
        failed: dict[str, str] = {}
        died_at: set[str] = set()
        while True:
            pid, pipe = _divide(failed)
            if pid == 0:
                try:
                    return command(*args, **kwargs)
                finally:
                    this().say(Message(over=True))
            end = _wait_for(pid, pipe)
            if end.in_order:
                sys.exit(end.code)
            _tidy_terminal()
            _judge(end, failed, died_at)

    return guarded


def _judge(end: "_End", failed: dict[str, str], died_at: set[str]) -> None:
    """Note what the next worker leaves out, and say so.

    Raises:
        ClickException: no artefact was in work, so that another worker would end the same way.
    """
    address = end.last.address
    if not address:
        raise click.ClickException(f"the process that computes {end.how()}, with no artefact in work.")
    # What was ended from outside may have been so by chance; what was twice at one place was not.
    again = end.by_signal and not end.too_long and address not in died_at
    died_at.add(address)
    if not again:
        failed[address] = end.reason()
    click.echo(f"{end.reason()}; going on {'with it once more' if again else 'without it'}.", err=True)


def _can_divide() -> bool:
    """Whether this process can be copied: not where threads or torch are there already, which copies would break."""
    if not hasattr(os, "fork") or os.environ.get(VARIABLE):
        return False
    return threading.active_count() == 1 and "torch" not in sys.modules


def _divide(failed: dict[str, str]) -> tuple[int, int]:
    """Copy this process; returns (0, -1) in the worker, else its number and the pipe to read."""
    reader, writer = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    os.close(reader)
    _end_with(parent)
    set_this(Watch(failed, writer))
    return 0, -1


def _end_with(parent: int) -> None:
    """Have the system end this process when its parent is killed (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    set_death_signal = 1  # sys/prctl.h: PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class _End:
    """How a worker ended.

    Attributes:
        last: what it said last.
        status: the system's, as `os.waitpid` gives it.
        too_long: it was ended for that.
    """

    last: Message
    status: int
    too_long: bool

    @property
    def in_order(self) -> bool:
        """It ended by itself, having done all it does."""
        return self.last.over and os.WIFEXITED(self.status)

    @property
    def by_signal(self) -> bool:
        return os.WIFSIGNALED(self.status)

    @property
    def code(self) -> int:
        return os.waitstatus_to_exitcode(self.status)

    def how(self) -> str:
        """Return in words how it ended."""
        if not self.by_signal:
            return f"left with exit code {self.code}"
        name = signal.Signals(os.WTERMSIG(self.status)).name
        memory = " (the system's, where memory runs out, or somebody's)" if name == "SIGKILL" else ""
        return f"was ended by {name}{memory}"

    def reason(self) -> str:
        """Return why the artefact that was in work cannot be made."""
        from bench.run.limits import took_too_long

        if self.too_long:
            return took_too_long(self.last.what, self.last.seconds)
        return f"{self.last.what}: the process that computed it {self.how()}"


def _wait_for(pid: int, pipe: int) -> _End:
    """Follow a worker to its end, and end it where an artefact takes too long."""
    last, waited, too_long, unread = Message(), 0.0, False, b""
    with _handing_on(pid):
        while True:
            before = time.monotonic()
            ready, _, _ = select.select([pipe], [], [], _TICK)
            # A pause of this process, e.g. by Ctrl-Z, is not the worker's time.
            waited += min(time.monotonic() - before, 2 * _TICK)
            if ready:
                new = os.read(pipe, _LINE)
                *lines, unread = (unread + new).split(b"\n")
                if lines:
                    last, waited = Message.read(lines[-1]), 0.0
                if not new:
                    break
            elif os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break  # its own children may keep the pipe open
            if last.seconds and waited > last.seconds + max(PATIENCE, last.seconds / 10):
                too_long = True
                os.kill(pid, signal.SIGKILL)
        os.close(pipe)
        return _End(last, os.waitpid(pid, 0)[1], too_long)


@contextmanager
def _handing_on(pid: int) -> Iterator[None]:
    """Hand signals on to the worker, which heeds them; a terminal's Ctrl-C it hears twice, and heeds once."""

    def hand_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    heeded = [each for each in SIGNALS if callable(signal.getsignal(each))]
    before = {number: signal.signal(number, hand_on) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tidy_terminal() -> None:
    """Show the cursor again, which a progress bar hid."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")
        sys.stderr.flush()
