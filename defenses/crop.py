"""Cropping to the centre as a purifier, by Pillow."""

from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import Field
from torch import Tensor

from bench.contracts import Context, Faces, MethodParams, Purifier
from defenses._eight_bit import Pixels, change_each
from defenses.resize import FILTERS, Filter


def kept_pixels(length: int, share: float) -> tuple[int, int]:
    """Return the first kept row or column and the one after the last, about `share` of `length`, centred.

    As many are cut off at either end, so that the middle stays the middle; at least two are kept.
    """
    cut = min(round((1 - share) * length / 2), (length - 2) // 2)
    return cut, length - cut


class Crop(Purifier):
    """Keeps the centre of each image and enlarges it to the full size.

    The face comes out larger than a backbone's alignment wants it: a tracker that aligned anew would undo
    that part, this one does not. So it shows what misalignment does to a cloak and to recognition together.
    """

    name: ClassVar[str] = "crop"

    class Params(MethodParams):
        """Parameters of `Crop`."""

        share: float = Field(
            0.9,
            ge=0.25,
            le=1,
            description="share of height and of width that is kept",
            json_schema_extra={"unit": "share"},
        )
        filter: Filter = Field("bicubic", description="interpolation when the rest is enlarged")

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the enlarged centres, N×3×H×W in [0, 1]. The input is rounded to 8 bits."""

        def change(pixels: Pixels) -> Pixels:
            height, width = pixels.shape[:2]
            top, bottom = kept_pixels(height, self.params.share)
            left, right = kept_pixels(width, self.params.share)
            centre = Image.fromarray(pixels[top:bottom, left:right])
            return np.asarray(centre.resize((width, height), FILTERS[self.params.filter]))

        return change_each(faces, ctx, change)
