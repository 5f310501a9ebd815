"""A photo file without the place where it was taken, its pixels untouched: for photos that are copied as they are."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import DataError
from bench.faces.whole_photo import PhotoFile
from bench.photo_tools.photo_files.exif import GPS_IFD, kept_exif, without_location
from bench.photo_tools.photo_files.kinds import is_heif, opened_photo
from bench.photo_tools.photo_files.png import KEPT_CHUNKS, chunk, chunks

if TYPE_CHECKING:
    from PIL.Image import Image


def copy_without_location(payload: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a photo's file without the place where it was taken, its pixels as they are, and what else is gone.

    What is kept of EXIF is what `read` keeps; XMP, IPTC and comments, which may say the place too, are not, nor what
    lies behind the photo in its file.

    Args:
        payload: the file's content, of a photo that `read` reads.

    Raises:
        DataError: it may say the place, and is of a kind that would have to be saved again without it.
    """
    if is_heif(payload):
        form, tells = "HEIC", b"Exif" in payload or b"application/rdf+xml" in payload
        exif = b""
    else:
        with opened_photo(payload) as image:
            image.load()  # some formats say at their end what there is
            form, tells = str(image.format), _may_tell_the_place(image)
            _, exif, _ = kept_exif(image)
    exif = without_location(PhotoFile(np.zeros((1, 1, 1), np.uint8), exif=exif)).exif
    strip = {"JPEG": _stripped_jpeg, "MPO": _stripped_jpeg, "PNG": _stripped_png, "WEBP": _stripped_webp}.get(
        form
    )
    if strip is None:
        if tells:
            raise DataError(
                f"it shows no face and may say where it was taken, which is not taken out of {form} files. Save it as "
                "JPEG or PNG"
            )
        return payload, ()
    stripped = strip(payload, exif)
    if stripped == payload:
        return payload, ()
    return stripped, ("thumbnail, maker's notes, XMP, IPTC and comments are not kept",)


def _may_tell_the_place(image: Image) -> bool:
    exif = image.getexif()
    told = {"xmp", "XML:com.adobe.xmp", "comment", "photoshop"} & image.info.keys()
    return bool(told or dict(exif.get_ifd(GPS_IFD)) or {700, 33723, 34377} & set(exif))


_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""A JPEG marker among coded pixels."""


def _stripped_jpeg(payload: bytes, exif: bytes) -> bytes:
    """Return a JPEG with its pixels, colour profile and this EXIF alone (ITU T.81, annex B)."""
    kept, position = [payload[:2]], 2
    placed = not exif
    while found := _MARKER.search(payload, position):
        kind = payload[found.start() + 1]
        if kind == 0xD9:  # the photo ends
            kept.append(payload[position : found.end()])
            break
        end = found.end() + int.from_bytes(payload[found.end() : found.end() + 2], "big")
        content = payload[found.end() + 2 : end]
        coded = (
            payload[position : found.start()].rstrip(b"\xff")
            if kind != 0xDA
            else payload[position : found.start()]
        )
        kept.append(coded)
        if not placed and kind != 0xE0:
            kept.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
            placed = True
        is_told = 0xE1 <= kind <= 0xEF or kind == 0xFE
        if not is_told or kind == 0xEE or (kind == 0xE2 and content.startswith(b"ICC_PROFILE\0")):
            kept.append(payload[found.start() : end])
        position = end
    return b"".join(kept)


def _stripped_png(payload: bytes, exif: bytes) -> bytes:
    """Return a PNG with its pixels, colours and this EXIF alone."""
    kept = [payload[:8]]
    for kind, whole in chunks(payload):
        if kind[:1].isupper() or kind in KEPT_CHUNKS:  # capital: critical
            kept.append(whole)
        if kind == b"IHDR" and exif:
            kept.append(chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    return b"".join(kept)


def _stripped_webp(payload: bytes, exif: bytes) -> bytes:
    """Return a WebP with its pixels, colour profile and this EXIF alone (RFC 9649)."""
    kept, position = b"", 12
    while position + 8 <= len(payload):
        kind = payload[position : position + 4]
        end = position + 8 + int.from_bytes(payload[position + 4 : position + 8], "little")
        whole = payload[position : end + end % 2]
        if kind == b"VP8X":
            told, has_exif = 0x0C, 0x08
            whole = whole[:8] + bytes([whole[8] & ~told | (has_exif if exif else 0)]) + whole[9:]
            tail = exif
        if kind in {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP"}:
            kept += whole
        position = end + end % 2
    if kept[:4] == b"VP8X" and tail:
        kept += b"EXIF" + struct.pack("<I", len(tail)) + tail + b"\0" * (len(tail) % 2)
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + kept
