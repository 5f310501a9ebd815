"""Freed memory, given back to the system.

The C library and Arrow keep what was freed for whoever asks next: after hours of images they hold a hundred megabytes
in pieces that are of no use to the few large arrays of deciding, whose memory then comes on top.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Give back what this process freed, where the C library can (glibc), and what Arrow did where it is in use."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (
        OSError,
        AttributeError,
        TypeError,
    ):  # Windows has no library of no name, other systems no such function
        return None
    return found
