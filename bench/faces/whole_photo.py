"""A whole photo in memory: its pixels as they lie in the file, and all else that goes back into the file.

Here: turning upright, and what a viewer sees. Not here: decoding and encoding files (`bench.photo_tools.photo_files`).
`bench.faces.photos` reads photos for datasets, which need colours and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.faces.alignment import Pixels

Samples = NDArray[Any]
"""H×W×C uint8 or uint16; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""


@dataclass(frozen=True, eq=False)
class PhotoFile:
    """A decoded photo with what goes back into its file.

    Attributes:
        pixels: as they lie in the file, not turned.
        orientation: EXIF's, 1 … 8; 1 is upright.
        format: what was read, as Pillow calls it, or ``HEIF``.
        sha256: of the file.
        icc: colour profile; empty: sRGB, or not said.
        exif: without thumbnail and maker's notes; empty: none.
        dpi: pixels an inch, across and down; None: not said.
        colour: a PNG's chunks that say what its values mean, besides the profile.
        notes: what will not be as it was, one sentence each.
    """

    pixels: Samples
    orientation: int = 1
    format: str = "PNG"
    sha256: str = ""
    icc: bytes = b""
    exif: bytes = b""
    dpi: tuple[float, float] | None = None
    colour: bytes = b""
    notes: tuple[str, ...] = ()

    @property
    def levels(self) -> int:
        """The value of white: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    @property
    def has_alpha(self) -> bool:
        """Whether it says how transparent each pixel is."""
        return self.pixels.shape[2] in {2, 4}

    def upright(self) -> Samples:
        """Return a view of `pixels` as people see the photo: what is written into it is written into the photo."""
        return turned(self.pixels, self.orientation)

    def seen(self) -> Pixels:
        """Return H×W×3 uint8 RGB as `faces.photos.read_photo` gives it: upright, on white, the high byte of 16 bits.

        Only EXIF turns it, as in viewers; `read_photo` heeds XMP too where EXIF does not say.
        """
        return as_rgb(self.upright())

    def with_pixels(self, pixels: Samples) -> PhotoFile:
        """Return the same file over other pixels, of the same shape and depth."""
        return replace(self, pixels=pixels)


def turned(pixels: Samples, orientation: int) -> Samples:
    """Return a view of an image as EXIF's orientation wants it shown."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return pixels


def as_rgb(pixels: Samples) -> Pixels:
    """Return H×W×3 uint8 of an image or a part of one: grey in three channels, alpha on white, high bytes."""
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    alpha = pixels[..., -1:] if pixels.shape[2] in {2, 4} else None
    colours = pixels if alpha is None else pixels[..., :-1]
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    if alpha is not None and alpha.size and int(alpha.min()) < 255:
        share = alpha.astype(np.uint16)
        colours = ((colours * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(colours)
