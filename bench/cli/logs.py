"""The harness's log on stderr."""

import logging
from typing import Any


class _Stderr(logging.StreamHandler[Any]):
    """The harness's log on stderr; a class of its own so that it is added once."""


def _without_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def log_to_stderr(verbosity: int) -> None:
    """Print warnings of the harness.

    Args:
        verbosity: 0: warnings only; 1: all that is logged; 2: tracebacks too, which `run.log` has in any case.
    """
    logger = logging.getLogger("bench")
    for old in [handler for handler in logger.handlers if isinstance(handler, _Stderr)]:
        logger.removeHandler(old)
    handler = _Stderr()
    logger.setLevel(logging.INFO if verbosity else logging.NOTSET)
    handler.setLevel(logging.INFO if verbosity else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    if verbosity < 2:
        handler.addFilter(_without_traceback)
    logger.addHandler(handler)
