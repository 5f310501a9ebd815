"""Kinds of photo files: what is read, what is written, and under which ending."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from bench.errors import DataError
from bench.faces.photos import opened

Kind = Literal["JPEG", "PNG", "WEBP"]
"""What is written."""

Format = Literal["keep", "png", "jpeg"]
"""What is requested."""

SUFFIX_OF: Mapping[Kind, str] = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
    | {".heic", ".heif", ".avif"}
)
"""File name endings of photos, in any case."""

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def is_heif(payload: bytes) -> bool:
    """Say whether a file begins as HEIC and HEIF files do; AVIF is of the same family and is not meant."""
    return payload[4:8] == b"ftyp" and payload[8:12] in _HEIF_BRANDS


def kind_of(path: Path, wanted: Format) -> tuple[Kind, str]:
    """Say as what a photo would be written, and with which ending.

    ``keep`` keeps JPEG, PNG and WebP (as lossless WebP) with their own endings. HEIC and AVIF, which lose as JPEG
    does, become JPEG; all others PNG. The content counts, not the name. What cannot be opened is PNG.

    Args:
        path: the file; only its beginning is read.
        wanted: what is requested.
    """
    form = _form(path)
    own = path.suffix
    fits = kind_by_suffix(own)
    if wanted == "jpeg":
        return "JPEG", own if form in {"JPEG", "MPO"} and fits == "JPEG" else ".jpg"
    if wanted == "png" or form in {"", "BMP", "DIB", "GIF", "TIFF"}:
        return "PNG", ".png"
    kind: Kind = "PNG" if form == "PNG" else "WEBP" if form == "WEBP" else "JPEG"
    return kind, own if fits == kind else SUFFIX_OF[kind]


def kind_by_suffix(suffix: str) -> Kind | None:
    """Return what is written under a file name ending, in any case; None for an ending that is never written."""
    endings: Mapping[str, Kind] = {
        ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP",
    }  # fmt: skip
    return endings.get(suffix.lower())


def _form(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            if is_heif(file.read(12)):
                return "HEIF"
        with opened(path) as image:
            return str(image.format)
    except (OSError, DataError):
        return ""
