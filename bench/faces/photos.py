"""Photo file → H×W×3 uint8 RGB, upright. Every odd file becomes one `DataError`."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import DataError
from bench.faces.alignment import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 200_000_000
"""Larger photos are refused: they would need more than 600 MB each."""


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

    with _opened(source, name) as image:
        return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))


def verify_photo(source: Path | bytes, name: str = "") -> None:
    """Check that a photo decodes to its end, at an eighth of its size where the format allows.

    Raises:
        DataError: as `read_photo`.
    """
    with _opened(source, name) as image:
        # A JPEG decoder must still read every coefficient, so that truncation shows.
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def photo_size(source: Path | bytes, name: str = "") -> tuple[int, int]:
    """Return width and height in pixels as a photo's header states them; its pixels are not read.

    Raises:
        DataError: as `read_photo`.
    """
    with _opened(source, name) as image:
        return image.size


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    called = name or (str(source) if isinstance(source, Path) else "the photo")
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes (checked below), odd palettes and broken EXIF, none of which the user
            # can act on once the photo decodes.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{called} is {image.width}×{image.height} pixels, the most is {MAX_PIXELS:,}. "
                        "Scale it down."
                    )
                yield image
    except FileNotFoundError as error:
        raise DataError(f"{called} is missing. Put it back or remove its entry.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{called} is not an image. Remove it or replace it by a photo.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{called} cannot be decoded ({error}). Replace or remove it.") from error


def _to_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits in one channel; convert("RGB") would clip them
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper).convert("RGB")
    return image.convert("RGB")
