"""What is kept of EXIF, which may hold the photo as it was; and photos without the place where they were taken."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import DataError
from bench.faces.photos import opened
from bench.faces.whole_photo import PhotoFile
from bench.photo_tools.photo_files.kinds import is_heif
from bench.photo_tools.photo_files.png import KEPT_CHUNKS, chunk, chunks

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
GPS_IFD = 0x8825

_KEPT_TAGS = frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, ORIENTATION})
"""Of EXIF's first directory: description, camera, software, date, artist, copyright, orientation.

All else there says how a TIFF lies in its file, or holds a thumbnail of the photo as it was.
"""

_KEPT_DETAILS = frozenset(
    number
    for first, last in (
        *((0x829A, 0x829A), (0x829D, 0x829D), (0x8822, 0x8822), (0x8827, 0x8827), (0x8830, 0x8832)),
        *((0x9000, 0x9000), (0x9003, 0x9004), (0x9010, 0x9012), (0x9101, 0x9102), (0x9201, 0x920A)),
        *((0x9290, 0x9292), (0xA000, 0xA003), (0xA20E, 0xA210), (0xA217, 0xA217), (0xA300, 0xA301)),
        *((0xA401, 0xA40A), (0xA40C, 0xA40C), (0xA420, 0xA420), (0xA430, 0xA435)),
    )
    for number in range(first, last + 1)
)
"""Of EXIF's second directory: exposure, dates, colour, camera, lens and owner.

Not maker's notes, comments and private tags, any of which may hold a smaller picture of the photo as it was.
"""

_KEPT_PLACE = frozenset(range(0x20))
"""Of the directory of the place: what EXIF 3.0 defines."""

_LONGEST_VALUE = 2_000
"""Bytes, or numbers, of a value that is kept of EXIF: a picture needs more."""

_JPEG_BEGIN = b"\xff\xd8\xff"

_MAX_EXIF = 65_000
"""Bytes of EXIF that fit into a JPEG."""


def kept_exif(image: Image) -> tuple[int, bytes, list[str]]:
    """Return the orientation, what is kept of EXIF, and what is not.

    A thumbnail would show the face as it was, maker's notes may hold one and point to where they lay in the file.
    """
    from PIL import Image as Pillow

    try:
        found = image.getexif()
        orientation = 1 if _only_xmp_turns(image) else int(found.get(ORIENTATION, 1))
    except (OSError, ValueError, TypeError, SyntaxError, struct.error):
        return 1, b"", ["its EXIF is damaged and is not kept"]
    orientation = orientation if 1 <= orientation <= 8 else 1
    kept = Pillow.Exif()
    for tag in _KEPT_TAGS:
        if tag in found and _is_harmless(found[tag]):
            kept[tag] = found[tag]
    if ORIENTATION in kept:
        kept[ORIENTATION] = orientation
    notes = _copy_directories(found, kept)
    return orientation, *_serialised(kept, orientation, notes)


def _copy_directories(found: Exif, kept: Exif) -> list[str]:
    try:
        details = _harmless(found.get_ifd(_EXIF_IFD), _KEPT_DETAILS)
        place = _harmless(found.get_ifd(GPS_IFD), _KEPT_PLACE)
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, struct.error):
        return ["a part of its EXIF is damaged and is not kept"]
    if details:
        kept[_EXIF_IFD] = details
    if place:
        kept[GPS_IFD] = place
    return []


def _harmless(directory: Mapping[int, Any], tags: frozenset[int]) -> dict[int, Any]:
    return {tag: value for tag, value in directory.items() if tag in tags and _is_harmless(value)}


def _is_harmless(value: object) -> bool:
    """Say whether a value of EXIF cannot be a picture."""
    if isinstance(value, str):
        value = value.encode("utf-8", "replace") if not value.isascii() else value.encode()
    if isinstance(value, bytes):
        return len(value) <= _LONGEST_VALUE and _JPEG_BEGIN not in value
    return not isinstance(value, tuple) or len(value) <= _LONGEST_VALUE // 8


def _only_xmp_turns(image: Image) -> bool:
    """Say whether the orientation that Pillow gives is XMP's, by which viewers turn no photo."""
    from PIL import Image as Pillow

    info = image.info
    if image.format == "TIFF" or not {"xmp", "XML:com.adobe.xmp"} & info.keys():
        return False
    if "Raw profile type exif" in info:
        return False
    own = Pillow.Exif()
    if info.get("exif"):
        own.load(info["exif"])
    return ORIENTATION not in own


def _serialised(kept: Exif, orientation: int, notes: list[str]) -> tuple[bytes, list[str]]:
    from PIL import Image as Pillow

    if not dict(kept):
        return b"", notes
    try:
        content = kept.tobytes()
    except (OSError, ValueError, TypeError, KeyError, OverflowError, struct.error, AttributeError):
        content = b""
    if content and len(content) <= _MAX_EXIF:
        return content, notes
    why = "is too long" if content else "cannot be written again"
    only = Pillow.Exif()
    only[ORIENTATION] = orientation
    return only.tobytes(), [*notes, f"its EXIF {why}; only the orientation is kept"]


def without_location(photo: PhotoFile) -> PhotoFile:
    """Return the photo without the place where it was taken."""
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    if photo.exif:
        exif.load(photo.exif)
    if not dict(exif.get_ifd(GPS_IFD)):
        return photo
    kept = Pillow.Exif()
    for tag, value in exif.items():
        if tag not in {_EXIF_IFD, GPS_IFD}:
            kept[tag] = value
    if details := dict(exif.get_ifd(_EXIF_IFD)):
        kept[_EXIF_IFD] = details
    return replace(photo, exif=kept.tobytes() if dict(kept) else b"")


# -- files that are copied as they are, but for the place ------------------------------------------------------


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
        with opened(payload) as image:
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
