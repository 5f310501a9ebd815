"""Reading a binary file from its start to its end, never past it.

For the readers of other programs' files in this room. A size that a file declares is compared with what is left of it
before anything is allocated, so that a header that lies costs nothing.
"""

from __future__ import annotations

import math
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.errors import DataError

LARGEST = 1 << 31
"""Bytes of the largest file that is read; the largest networks here have a tenth of that."""


def read_whole(path: Path, largest: int = LARGEST) -> bytes:
    """Return what is in a file.

    Raises:
        DataError: there is no such file, or it has more than `largest` bytes.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path} is not a file.")
        if found.st_size > largest:
            raise DataError(f"{path} has {found.st_size:,} bytes, more than the {largest:,} that are read.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


class Cursor:
    """A place in a file that was read whole.

    Args:
        path: the file, for messages.
        what: what it should be, for messages: ``parameter file of MXNet``.
        content: of the file.
    """

    def __init__(self, path: Path, what: str, content: bytes) -> None:
        self.path = path
        self.what = what
        self._content = content
        self._place = 0

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return len(self._content) - self._place

    def broken(self, reason: str) -> DataError:
        """Return the error that says what is wrong with the file."""
        return DataError(f"{self.path} is no {self.what}, or is broken: {reason}.")

    def bytes(self, count: int) -> bytes:
        """Return the next bytes.

        Raises:
            DataError: the file ends before.
        """
        if not 0 <= count <= self.left:
            raise self.broken(f"{count:,} bytes are declared at byte {self._place:,}, {self.left:,} are left")
        self._place += count
        return self._content[self._place - count : self._place]

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """Return the next values by a layout of `struct`.

        Raises:
            DataError: the file ends before.
        """
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def count(self, declared: int, smallest: int, what: str) -> int:
        """Return a declared number of items, each of `smallest` bytes or more.

        Raises:
            DataError: as many cannot be in what is left of the file.
        """
        if not 0 <= declared <= self.left // smallest:
            raise self.broken(f"it declares {declared:,} {what}, {self.left:,} bytes are left")
        return declared

    def array(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the next array, a copy, in the machine's byte order.

        Args:
            shape: as declared.
            dtype: of the file, with its byte order.

        Raises:
            DataError: a side is negative, the file ends before, or no array can have this shape.
        """
        kind = np.dtype(dtype)
        if any(side < 0 for side in shape):
            raise self.broken(f"an array has the shape {tuple(shape)}")
        content = self.bytes(math.prod(shape) * kind.itemsize)
        return self.shaped(np.frombuffer(content, kind), shape).astype(kind.newbyteorder("="))

    def shaped(self, values: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
        """Return values in a declared shape, whose product is their number.

        Raises:
            DataError: no array can have it: too many sides, or an empty one beside absurd ones.
        """
        try:
            return values.reshape(shape)
        except (ValueError, OverflowError) as error:
            raise self.broken(f"an array has the shape {tuple(shape)}") from error

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            DataError: something is.
        """
        if self.left:
            raise self.broken(f"{self.left:,} bytes are left after its end")
