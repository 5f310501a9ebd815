"""Photo file → H×W×3 uint8 RGB, upright. Every odd file becomes one `DataError`."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import DataError
from bench.faces.alignment import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

_IRREGULAR = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
"""What a path may be that is no file, and how it is called."""

# What Pillow and the decoders behind it raise at damaged files; RuntimeError is AVIF's, the others PNG's and TIFF's.
_UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    RuntimeError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
)

_ORIENTATION = 274
"""EXIF's tag of how a photo is to be turned."""

_LYING = (5, 6, 7, 8)
"""Its values that turn a photo by a quarter."""

MAX_PIXELS = 200_000_000
"""Larger photos are refused: they would need more than 600 MB each."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF")
"""Formats that Pillow may open (MPO counts as JPEG); others are rare among photos, and EPS would start a program."""


def read_photo(source: Path | bytes, name: str = "") -> Pixels:
    """Return the photo as H×W×3 uint8 RGB, turned upright by its EXIF orientation.

    Grey becomes three equal channels, 16 bits become 8 (the high byte), transparency lies on white, CMYK is
    converted without a colour profile.

    Args:
        source: a file, or the bytes of one.
        name: what to call it in an error; the path by default.

    Raises:
        DataError: it is missing, truncated, no image or too large; the message names it.
    """
    from PIL import ImageOps

    with opened(source, name) as image:
        return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))


def verify_photo(source: Path | bytes, name: str = "") -> None:
    """Check that a photo decodes to its end, at an eighth of its size where the format allows.

    Raises:
        DataError: as `read_photo`.
    """
    with opened(source, name) as image:
        # A JPEG decoder must still read every coefficient, so that truncation shows.
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def photo_size(source: Path | bytes, name: str = "") -> tuple[int, int]:
    """Return width and height in pixels of the photo as it is shown; its pixels are not read.

    Raises:
        DataError: as `read_photo`.
    """
    with opened(source, name) as image:
        # A PNG without EXIF in its header would be decoded to its end in search of some.
        told = image.format != "PNG" or "exif" in image.info
        lies = told and image.getexif().get(_ORIENTATION) in _LYING
        return (image.height, image.width) if lies else image.size


@contextmanager
def opened(source: Path | bytes, name: str = "") -> Iterator[Image]:
    """Open a photo of one of `FORMATS`; what fails while it is read is a `DataError` too.

    Raises:
        DataError: as `read_photo`.
    """
    from PIL import Image, UnidentifiedImageError

    called = name or (str(source) if isinstance(source, Path) else "the photo")
    if isinstance(source, Path):
        refuse_irregular(source, called)
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes (checked below), odd palettes and broken EXIF, none of which the user
            # can act on once the photo decodes.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            stream = source if isinstance(source, Path) else io.BytesIO(source)
            with Image.open(stream, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{called} is {image.width}×{image.height} pixels, the most is {MAX_PIXELS:,}. "
                        "Scale it down."
                    )
                yield image
    except FileNotFoundError as error:
        raise DataError(f"{called} is missing. Put it back or remove its entry.") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{called} is not an image of a format that is read ({', '.join(FORMATS)}). Remove it or replace it by a "
            "photo."
        ) from error
    except (*_UNDECODABLE, Image.DecompressionBombError) as error:
        raise DataError(f"{called} cannot be decoded ({error}). Replace or remove it.") from error


def refuse_irregular(path: Path, called: str = "") -> None:
    """Refuse what is no file: opening a pipe or a terminal would wait for ever.

    Raises:
        DataError: it is missing, or a folder, pipe, socket or device.
    """
    called = called or str(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{called} is missing. Put it back or remove its entry.") from error
    except OSError as error:
        raise DataError(f"{called} cannot be read ({error.strerror}). Replace or remove it.") from error
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _IRREGULAR.items() if test(mode)), "no regular file")
        raise DataError(f"{called} is {kind}, not a photo. Remove it.")


def _to_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits in one channel; convert("RGB") would clip them
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper).convert("RGB")
    return image.convert("RGB")
