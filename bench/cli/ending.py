"""How a command line ends: the exit code, and the sentence for every error that a user can meet."""

import atexit
import errno
import os
import signal
import sys
import time
from types import FrameType

import click

from bench.cli.options import meant

FAILED = 1
INTERRUPTED = 130
ENDED = 128
NO_READER = 141
"""Exit codes besides those of `bench.errors`; all but the first as a shell has them (128 + signal)."""

_NO_PLACE = frozenset(
    (
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
        *(errno.EPERM, errno.EIO, errno.EFBIG, errno.EBADF),
    )
)
"""What the system may answer that is the matter of the user, not of the program."""


SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What ends a command in order, of what the system has."""

_ONCE = 1.0
"""Seconds within which a signal that comes again is the same: a terminal tells every process of a command, and the one
that waits for the others hands it on."""

_heard: dict[int, float] = {}
"""Signal → when it was last heeded."""


def heed_signals() -> None:
    """Have Ctrl-C, SIGTERM (a job scheduler's) and SIGHUP (a closing terminal's) end the command in order.

    All raise `bench.errors.Ended`, so that a KeyboardInterrupt of a plugin's own is told apart.
    """
    for number in SIGNALS:
        # What was told to be ignored (nohup), or is heeded by somebody else, stays so.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)


def let_go() -> None:
    """Leave signals to the system again once the command has ended: what Python tidies up then must not be heard of."""
    for number in SIGNALS:
        if signal.getsignal(number) is _end:
            of_python = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, of_python)
    # Last registered, first called: before what other packages do at the end.
    atexit.unregister(_forget_interrupts)
    atexit.register(_forget_interrupts)


def _forget_interrupts() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(number: int, _frame: FrameType | None) -> None:
    from bench.errors import Ended

    now = time.monotonic()
    if now - _heard.get(number, -_ONCE) < _ONCE:
        return
    _heard[number] = now
    raise Ended(number)


def judge(error: BaseException) -> tuple[str, int]:
    """Return what is reported of an error that ended a command, and the exit code.

    Raises:
        OSError: it is not the user's matter, so that the traceback should be seen.
    """
    from bench.errors import BenchError, Ended

    if isinstance(error, click.Abort) and error.__cause__ is not None:  # click's own for what a signal raised
        error = error.__cause__
    if isinstance(error, BenchError):
        return f"Error: {error}", error.exit_code
    if isinstance(error, click.ClickException):
        return _sentence(error), error.exit_code
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return "", NO_READER
    if not isinstance(error, OSError):
        how, code = (
            (f"Ended by {error.signal.name}", ENDED + error.signal)
            if isinstance(error, Ended) and error.signal != signal.SIGINT
            else ("Interrupted", INTERRUPTED)
        )
        return f"{how}. What was computed is kept; the same command goes on from there.", code
    if error.errno not in _NO_PLACE:
        raise error
    if error.filename is not None:
        return f"Error: cannot use '{error.filename}': {error.strerror}.", FAILED
    _drop_output()
    return f"Error: cannot write the output: {error.strerror}.", FAILED


def _sentence(error: click.ClickException) -> str:
    """Return click's message as one line, with where to read on; the help of a command called bare as it is."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    text = " ".join(error.format_message().split())
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        hint = meant(error.option_name, error.ctx.command)
        text = error.message.rstrip(".") + (f". Did you mean '{hint}'?" if hint else ".")
    text = text.replace(" (Did you", " Did you").replace("?)", "?")  # click writes two in brackets
    text = text if text.endswith((".", "?")) else f"{text}."
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return f"Error: {text} See `{ctx.command_path} --help`." if ctx else f"Error: {text}"


def _drop_output() -> None:
    """Send what is still to be written nowhere: Python would try it again when it ends, and complain."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
