"""Every error a user can meet.

Three kinds, by who can fix them: `UsageError` (what was requested cannot be done: exit code 2, raised
before work starts wherever it can be known), `DataError` (a file or folder is not what it should be: exit
code 2), `MethodError` (a plugin broke its contract or failed while it worked: the cell becomes a row with
this reason). A message names the value, the valid ones and the fix.
"""

import difflib
import signal
from collections.abc import Iterable


class BenchError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_code = 1


class UsageError(BenchError):
    """What was requested cannot be done; known before work starts."""

    exit_code = 2


class DataError(BenchError):
    """A file, folder or set of weights is missing, corrupt or not what it should be."""

    exit_code = 2


class MethodError(BenchError):
    """A plugin failed or broke its contract; its cell becomes a failed row."""


class Ended(KeyboardInterrupt):
    """A signal asks the command to end; what was computed is kept.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


def unknown(kind: str, value: str, valid: Iterable[str], fix: str = "") -> UsageError:
    """Return the error for a name that is not known, with the nearest valid one.

    Args:
        kind: what the value names, e.g. ``attack``.
        value: the name as given.
        valid: the names that would have been accepted.
        fix: one more sentence on how to go on.
    """
    names = sorted(set(valid))
    near = difflib.get_close_matches(value, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    tail = f" {fix}" if fix else ""
    return UsageError(f"unknown {kind} '{value}'.{hint} Valid: {', '.join(names) or 'none'}.{tail}")
