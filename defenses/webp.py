"""WebP compression as a purifier, by Pillow's encoder (libwebp)."""

import io
from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from torch import Tensor

from bench.contracts import Context, Faces, MethodParams, Purifier
from defenses._eight_bit import Pixels, change_each


def compress(pixels: Pixels, quality: int) -> Pixels:
    """Encode one image as lossy WebP and decode it again.

    Args:
        pixels: H×W×3 uint8 RGB.
        quality: libwebp's quality, 0 to 100.

    Returns:
        H×W×3 uint8 RGB.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=quality)
    buffer.seek(0)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"))


class WebP(Purifier):
    """Encodes each image as lossy WebP (VP8, chroma at half resolution) and decodes it."""

    name: ClassVar[str] = "webp"

    class Params(MethodParams):
        """Parameters of `WebP`."""

        quality: int = Field(
            80,
            ge=0,
            le=100,
            description="quality of the encoder (libwebp's scale)",
            json_schema_extra={"unit": "libwebp quality"},
        )

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the decoded images, N×3×H×W in [0, 1].

        The input is rounded to 8 bits first, as the encoder takes nothing else.
        """
        return change_each(faces, ctx, lambda pixels: compress(pixels, self.params.quality))
