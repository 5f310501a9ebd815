"""Read files of decisions out of an archive that a stranger made: never more than a stated number of bytes.

What lives here: which entries are meant and how they are read. What must not: what the files must be
(`bench.leaderboard.from_decisions`).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

from bench.errors import DataError
from bench.printable import printable

_OVERHEAD = 10_000_000
"""Bytes of an archive that are no file's: names, and the list of all entries."""

_CHUNK = 1_000_000

_BOUNDED = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Ways to compress whose output Python's module gives in pieces of a stated size; of others it gives all at once."""

_BROKEN = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)


class _Piecewise(io.FileIO):
    """A file of which nobody reads much at once: a list of entries may say that it is as long as the file."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _OVERHEAD:
            raise zipfile.BadZipFile(f"its list of entries is larger than {_OVERHEAD:,} bytes")
        return super().read(_OVERHEAD if size is None or size < 0 else size) or b""


def read(path: Path, wanted: Collection[str], largest: int) -> dict[str, bytes]:
    """Return the wanted files of an archive that it holds, by name, alone or in a folder ``decisions``.

    Args:
        path: of the archive.
        wanted: file names, without folders.
        largest: bytes of all of them, and of the archive but for names.

    Raises:
        DataError: it is no archive, too large, has a file twice or compressed in a way that cannot be bounded.
    """
    try:
        if path.stat().st_size > largest + _OVERHEAD:
            raise too_large(path, largest)
        with _Piecewise(path) as file, zipfile.ZipFile(file) as whole:
            meant = _meant(path, whole.infolist(), wanted)
            return _contents(path, whole, meant, largest)
    except _BROKEN as error:
        raise DataError(f"'{path}' is no archive of decisions ({printable(str(error), 200)}).") from None


def too_large(path: Path, largest: int) -> DataError:
    """Return the error that decisions are too large to be read."""
    return DataError(f"'{path}' holds more than {largest:,} bytes; decisions that are read here take less.")


def _meant(
    path: Path, entries: Iterable[zipfile.ZipInfo], wanted: Collection[str]
) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.removeprefix("decisions/")
        if name not in wanted:
            continue
        if name in found:
            raise DataError(f"'{path}' has {name} twice; pack the folder decisions/ again, alone.")
        if entry.compress_type not in _BOUNDED:
            raise DataError(
                f"'{path}' has {name} compressed in a way whose size cannot be bounded. Pack it again, stored or "
                "deflated, as `zip -r` does."
            )
        found[name] = entry
    return found


def _contents(
    path: Path, whole: zipfile.ZipFile, meant: dict[str, zipfile.ZipInfo], largest: int
) -> dict[str, bytes]:
    found, left = {}, largest
    for name, entry in meant.items():
        pieces = []
        with whole.open(entry) as file:
            while piece := file.read(_CHUNK):
                left -= len(piece)
                if left < 0:
                    raise too_large(path, largest)
                pieces.append(piece)
        found[name] = b"".join(pieces)
    return found
