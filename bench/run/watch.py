"""What a process tells of the artefact it has in work, so that another can end it, and go on without that artefact.

An alarm cannot end code that hangs in C, and nothing within a process survives `os._exit`. So a command computes in a
worker (`bench.cli.worker`), which writes a line to a pipe as it begins and as it ends each artefact. The process that
started it knows what was in work when it ended, or for too long, and starts another worker that leaves it out.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bench.run.limits import took_too_long

PATIENCE = 5.0
"""Seconds that a worker has to end by itself, beyond the limit of an artefact or after a signal: that is gentler."""


@dataclass(frozen=True)
class Message:
    """One line to whoever watches.

    Attributes:
        address: of the artefact that is begun; "" when none is in work.
        what: its stage and methods.
        seconds: within which it must be made; 0 for no limit.
        over: the command has ended in order; what follows is the interpreter's end.
    """

    address: str = ""
    what: str = ""
    seconds: float = 0
    over: bool = False

    def line(self) -> bytes:
        """Return it as it is written."""
        return json.dumps(self.__dict__).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> "Message":
        """Return what a line says."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Watch:
    """A process as others see it.

    Attributes:
        failed: address → why no worker is to compute that artefact again.
        pipe: where lines are written; None where nobody watches.
    """

    failed: Mapping[str, str] = field(default_factory=dict)
    pipe: int | None = None

    def say(self, message: Message) -> None:
        """Tell whoever watches; does nothing where nobody does."""
        if self.pipe is not None:
            with suppress(OSError):  # nobody watches any more
                os.write(self.pipe, message.line())

    @contextmanager
    def at_work(self, address: str, what: str, seconds: float) -> Iterator[None]:
        """Say that an artefact is in work, and that it is so no longer."""
        self.say(Message(address, what, seconds))
        try:
            yield
        finally:
            self.say(Message())


_of_process = Watch()


def this() -> Watch:
    """Return how this process is watched."""
    return _of_process


def set_this(watch: Watch) -> None:
    """Say how this process is watched from now on."""
    global _of_process  # noqa: PLW0603  # one process, one watch
    _of_process = watch


def is_overdue(message: Message, seconds: float) -> bool:
    """Whether a worker that said something, and nothing for so many seconds since, is to be ended."""
    limit = message.seconds
    return bool(limit) and seconds > limit + max(PATIENCE, limit / 10)


@dataclass(frozen=True)
class Death:
    """How a worker ended that had not done all it should.

    Attributes:
        last: what it said last.
        code: its exit code; −N where signal N ended it.
        too_long: whoever follows it ended it, as an artefact took too long.
    """

    last: Message
    code: int
    too_long: bool = False

    @property
    def by_signal(self) -> bool:
        """Whether something ended it, not itself."""
        return self.code < 0

    def is_chance(self, died_at: set[str]) -> bool:
        """Whether the same may be tried again: what was ended from outside, but not twice at one place."""
        return self.by_signal and not self.too_long and self.last.address not in died_at

    def reason(self) -> str:
        """Return why the artefact that was in work cannot be made."""
        if self.too_long:
            return took_too_long(self.last.what, self.last.seconds)
        if not self.last.address:
            return f"the process that computes {self._how()}, with no artefact in work"
        return f"{self.last.what}: the process that computed it {self._how()}"

    def _how(self) -> str:
        if not self.by_signal:
            return f"left with exit code {self.code}"
        name = signal.Signals(-self.code).name
        memory = " (the system's, where memory runs out, or somebody's)" if name == "SIGKILL" else ""
        return f"was ended by {name}{memory}"
