"""The chunks of a PNG file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

COLOUR_CHUNKS = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"})
"""Chunks that say, besides the profile, what colours a PNG's values mean."""

KEPT_CHUNKS = COLOUR_CHUNKS | {b"iCCP", b"tRNS", b"pHYs", b"bKGD", b"sBIT", b"hIST", b"sPLT"}
"""Chunks beside the pixels' own that hold neither a place nor a picture."""


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and bytes of each chunk of a PNG, to its end."""
    position = 8
    while position + 12 <= len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4], "big")
        kind = png[position + 4 : position + 8]
        yield kind, png[position:end]
        if kind == b"IEND":
            return
        position = end


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG (PNG specification, chapter 5)."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
