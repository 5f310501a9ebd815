"""MXNet's RecordIO as insightface packs faces: ``train.rec`` with ``train.idx``; no mxnet is needed.

The format is that of dmlc/dmlc-core (include/dmlc/recordio.h) and apache/mxnet (python/mxnet/recordio.py): a record is
the magic number, a word of 3 bits of flag and 29 bits of length, the data, and padding to four bytes; a record in which
the magic number occurs is cut there into parts. The data begin with flag,
label, id and id2 (``IfQQ``), then `flag` more labels as float32, then the photo. Here: reading. Not here: faces.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bench.errors import DataError

MAGIC = 0x3ED7230A

_HEAD = struct.Struct("<II")
_LABELS = struct.Struct("<IfQQ")
_LENGTH_BITS = 29
_WHOLE, _FIRST, _LAST = 0, 1, 3
_MOST_LABELS = 1 << 20
_AGAIN = "Fetch it again."


@dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
        flag: number of labels after the first; 0 where `labels` is the one of the head.
        labels: as many as the record has.
        content: the bytes of the photo; empty in records that only say which photos are whose.
    """

    flag: int
    labels: tuple[float, ...]
    content: bytes


class RecordFile:
    """A ``.rec`` file read by number.

    Args:
        rec: the file; its ``.idx`` lies beside it.
    """

    def __init__(self, rec: Path) -> None:
        self.rec = rec
        self.idx = rec.with_suffix(".idx")

    @cached_property
    def offsets(self) -> Mapping[int, int]:
        """Number of a record → where it begins.

        Raises:
            DataError: the index is missing or a line is broken; names it.
        """
        found: dict[int, int] = {}
        try:
            with self.idx.open(encoding="ascii") as lines:
                for number, line in enumerate(lines, start=1):
                    words = line.split()
                    if len(words) != 2 or not all(word.isdecimal() for word in words):
                        raise DataError(
                            f"{self.idx}, line {number}: '{line.strip()[:40]}' is not a number and an offset. {_AGAIN}"
                        )
                    if int(words[0]) in found:
                        raise DataError(
                            f"{self.idx}, line {number}: record {words[0]} is listed twice. {_AGAIN}"
                        )
                    found[int(words[0])] = int(words[1])
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.idx} cannot be read ({error}). It must lie beside {self.rec.name}."
            ) from error
        return found

    def read(self, number: int) -> Record:
        """Return a record.

        Raises:
            DataError: there is none of that number, or the file is broken there.
        """
        offset = self.offsets.get(number)
        if offset is None:
            raise DataError(f"{self.idx} has no record {number}. {_AGAIN}")
        try:
            # Opened anew each time: cheap beside decoding, and safe in forks and threads.
            with self.rec.open("rb") as file:
                file.seek(offset)
                data = self._data(file, number)
        except OSError as error:
            raise DataError(f"{self.rec} cannot be read: {error}. {_AGAIN}") from error
        return self._parsed(data, number)

    def _data(self, file: BinaryIO, number: int) -> bytes:
        """Return the data of the record that begins here, put together from its parts."""
        parts: list[bytes] = []
        while True:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                raise self._broken(number, "the file ends")
            magic, word = _HEAD.unpack(head)
            flag, length = word >> _LENGTH_BITS, word & ((1 << _LENGTH_BITS) - 1)
            if magic != MAGIC or (flag in (_WHOLE, _FIRST)) == bool(parts):
                raise self._broken(number, "no record begins there")
            part = file.read(length)
            if len(part) < length:
                raise self._broken(number, "the file ends")
            parts.append(part)
            if flag in (_WHOLE, _LAST):
                # Where it was cut, the magic number stood.
                return struct.pack("<I", MAGIC).join(parts)
            file.seek(-length % 4, 1)

    def _parsed(self, data: bytes, number: int) -> Record:
        if len(data) < _LABELS.size:
            raise self._broken(number, "it is too short")
        flag, label, _id, _id2 = _LABELS.unpack_from(data)
        if flag == 0:
            return Record(0, (label,), data[_LABELS.size :])
        end = _LABELS.size + 4 * flag
        if flag > _MOST_LABELS or len(data) < end:
            raise self._broken(number, f"it says that it has {flag} labels")
        labels = np.frombuffer(data, dtype="<f4", count=flag, offset=_LABELS.size)
        return Record(flag, tuple(float(value) for value in labels), data[end:])

    def _broken(self, number: int, what: str) -> DataError:
        return DataError(f"{self.rec}, record {number}: {what}. {_AGAIN}")
