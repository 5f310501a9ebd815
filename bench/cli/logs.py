"""The harness's log on stderr."""

import logging
from typing import Any

from bench.cli.options import verbosity


class _Stderr(logging.StreamHandler[Any]):
    """The harness's log on stderr; a class of its own so that it is added once."""


def _without_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def log_to_stderr() -> None:
    """Print warnings of the harness: with ``-v`` all it says; tracebacks with ``-vv`` only."""
    logger = logging.getLogger("bench")
    for old in [handler for handler in logger.handlers if isinstance(handler, _Stderr)]:
        logger.removeHandler(old)
    handler = _Stderr()
    loud = verbosity()
    logger.setLevel(logging.INFO if loud else logging.NOTSET)
    handler.setLevel(logging.INFO if loud else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    if loud < 2:
        handler.addFilter(_without_traceback)  # tracebacks go to run.log
    logger.addHandler(handler)
