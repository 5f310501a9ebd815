"""A photo → its file, with profile, EXIF and resolution."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.errors import DataError
from bench.faces.whole_photo import PhotoFile, Samples
from bench.photo_tools.photo_files.kinds import Kind
from bench.photo_tools.photo_files.png import chunk, chunks

JPEG_QUALITY = 95
"""With full colour resolution (4:4:4): what the cloak loses by it is measured in docs/tools.md."""


def encode(photo: PhotoFile, kind: Kind) -> bytes:
    """Return the photo as a file, with profile, EXIF and resolution; pixels lie as they lay, orientation is said.

    JPEG is of quality `JPEG_QUALITY` with full colour resolution; PNG and WebP keep every value.

    Raises:
        DataError: JPEG or WebP cannot hold it (transparency, 16 bits, size).
    """
    if kind == "JPEG" and photo.has_alpha:
        raise DataError("it has transparency, which JPEG cannot hold. Write it with --format png.")
    if kind != "PNG" and photo.levels > 255:
        raise DataError(f"it has 16 bits a channel, which {kind} cannot hold. Write it with --format png.")
    if photo.levels > 255:
        return _with_chunks(_sixteen_bit_png(photo), photo)
    from PIL import Image as Pillow

    sink = io.BytesIO()
    options: dict[str, Any] = {"exif": photo.exif} if photo.exif else {}
    options |= {"icc_profile": photo.icc} if photo.icc else {}
    options |= {"dpi": photo.dpi} if photo.dpi and kind != "WEBP" else {}
    own: Mapping[Kind, dict[str, Any]] = {
        "JPEG": {"quality": JPEG_QUALITY, "subsampling": 0, "optimize": photo.pixels.size < 30_000_000},
        "PNG": {},
        "WEBP": {"lossless": True, "exact": True, "quality": 60},
    }
    pixels = photo.pixels[..., 0] if photo.pixels.shape[2] == 1 else photo.pixels
    try:
        Pillow.fromarray(pixels).save(sink, format=kind, **own[kind], **options)
    except (OSError, ValueError) as error:
        raise DataError(f"it cannot be written as {kind} ({error}). Write it with --format png.") from error
    return _behind_header(sink.getvalue(), photo.colour) if kind == "PNG" else sink.getvalue()


def notes_as(photo: PhotoFile, kind: Kind) -> tuple[str, ...]:
    """Return what will not be as it was in a photo that is written as JPEG, PNG or WebP, one sentence each."""
    lost = sorted(chunk.decode() for chunk, _ in chunks(b"\0" * 8 + photo.colour) if chunk != b"sRGB")
    if kind == "PNG" or not lost:
        return photo.notes
    return (*photo.notes, f"what {', '.join(lost)} say of its colours is not kept in {kind}")


def _sixteen_bit_png(photo: PhotoFile) -> bytes:
    import cv2

    pixels = photo.pixels
    if pixels.shape[2] == 2:  # OpenCV writes no grey with alpha
        return _grey_alpha_png(pixels)
    if pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    done, content = cv2.imencode(".png", np.ascontiguousarray(pixels))
    if not done:
        raise DataError("it cannot be written as a 16-bit PNG. Save the original as 8-bit RGB.")
    return content.tobytes()


def _grey_alpha_png(pixels: Samples) -> bytes:
    """Return H×W×2 uint16 as a PNG, each row as its difference from the one above (filter 2)."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, 4 * width)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.column_stack([np.full((height, 1), 2, np.uint8), rows - above])
    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


def _with_chunks(png: bytes, photo: PhotoFile) -> bytes:
    """Return a PNG file with profile, resolution and EXIF behind its header (PNG specification, chapter 11)."""
    chunks = b""
    if photo.icc:
        chunks += chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(photo.icc))
    if photo.dpi:
        across, down = (round(value / 0.0254) for value in photo.dpi)
        chunks += chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if photo.exif:
        chunks += chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0"))
    return _behind_header(png, photo.colour + chunks)


def _behind_header(png: bytes, chunks: bytes) -> bytes:
    header_end = 8 + 12 + 13
    return png[:header_end] + chunks + png[header_end:]
