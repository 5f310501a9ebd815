"""Random resizing and padding as a purifier."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.contracts import CROP_SIZE, Context, Faces, MethodParams, Purifier

STREAM = "defense randompad"
"""Stage of the generators that size and place are drawn from."""


def draw_placement(min_side: int, generator: torch.Generator) -> tuple[int, int, int]:
    """Return side, top and left of the small copy inside `CROP_SIZE`, all that fit equally likely.

    The side is uniform in [min_side, `CROP_SIZE`]; top and left, given it, in [0, `CROP_SIZE` − side].
    """

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    side = whole(min_side, CROP_SIZE)
    return side, whole(0, CROP_SIZE - side), whole(0, CROP_SIZE - side)


def place(image: Tensor, side: int, top: int, left: int, value: float) -> Tensor:
    """Return a 3×H×W image shrunk to side × side (bilinear) at (top, left) of a 3×112×112 canvas of `value`."""
    small = F.interpolate(image[None], size=(side, side), mode="bilinear", align_corners=False)[0]
    right, bottom = CROP_SIZE - side - left, CROP_SIZE - side - top
    return F.pad(small, (left, right, top, bottom), value=value)


class RandomPad(Purifier):
    """Shrinks each image to a random size and puts it at a random place of a plain canvas.

    The paper enlarges instead, which a backbone of fixed input size does not allow. Size and place depend on
    the run's seed and the photo's id alone: its natural and its cloaked version get the same.
    """

    name: ClassVar[str] = "randompad"
    paper: ClassVar[str] = (
        "Xie, Wang, Zhang, Ren, Yuille: Mitigating Adversarial Effects Through Randomization, ICLR 2018"
    )
    deterministic = False
    differentiable = True

    class Params(MethodParams):
        """Parameters of `RandomPad`."""

        min_side: int = Field(
            96,
            ge=56,
            le=CROP_SIZE,
            description=f"least height and width of the copy; {CROP_SIZE} leaves images as they are",
            json_schema_extra={"unit": "pixels"},
        )
        pad: float = Field(
            128,
            ge=0,
            le=255,
            description="value around the copy; the default is next to nothing for a backbone, which subtracts 127.5",
            json_schema_extra={"unit": "grey levels"},
        )

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the placed copies, N×3×112×112 in [0, 1]."""
        purified = []
        for image, image_id in zip(faces.images, faces.ids, strict=True):
            generator = ctx.generator(STREAM, image_id)
            side, top, left = draw_placement(self.params.min_side, generator)
            # Interpolation is a weighted mean, but its weights add up to 1 only to rounding.
            purified.append(place(image, side, top, left, self.params.pad / 255).clamp(0, 1))
            ctx.advance(1)
        return torch.stack(purified) if purified else faces.images
