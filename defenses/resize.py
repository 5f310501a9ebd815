"""Resizing to fewer pixels and back as a purifier, by Pillow's antialiased filters."""

from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field
from torch import Tensor

from bench.contracts import CROP_SIZE, Context, Faces, MethodParams, Purifier
from defenses._eight_bit import Pixels, change_each

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Parameter value → Pillow's filter; each widens its support when it shrinks an image (antialiasing)."""

Filter = Literal["bilinear", "bicubic", "lanczos"]


class Resize(Purifier):
    """Shrinks each image and enlarges it again, as a service that stores small copies; fine detail is lost."""

    name: ClassVar[str] = "resize"

    class Params(MethodParams):
        """Parameters of `Resize`."""

        side: int = Field(
            56,
            ge=8,
            le=CROP_SIZE,
            description="height and width of the small copy",
            json_schema_extra={"unit": "pixels"},
        )
        filter: Filter = Field("bicubic", description="interpolation, both ways")

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the enlarged copies, N×3×H×W in [0, 1].

        The input and the small copy are rounded to 8 bits, as the copy would be stored.
        """
        resample = FILTERS[self.params.filter]
        small = (self.params.side, self.params.side)

        def change(pixels: Pixels) -> Pixels:
            height, width = pixels.shape[:2]
            return np.asarray(
                Image.fromarray(pixels).resize(small, resample).resize((width, height), resample)
            )

        return change_each(faces, ctx, change)
