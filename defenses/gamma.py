"""A change of gamma as a purifier: what screenshots and displays do to tones."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bench.contracts import Context, Faces, MethodParams, Purifier

_DARKEST = 1 / 512
"""Half the darkest grey level: a power below 1 has no finite slope at 0, so there the slope is this value's."""


class Gamma(Purifier):
    """Raises every value to a power: above 1 darker midtones, below 1 lighter ones; black and white stay."""

    name: ClassVar[str] = "gamma"
    differentiable = True

    class Params(MethodParams):
        """Parameters of `Gamma`."""

        value: float = Field(
            1.2,
            ge=0.2,
            le=5,
            description="exponent; 1 leaves images as they are",
            json_schema_extra={"unit": ""},
        )

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the images with new tones, N×3×H×W in [0, 1]; black stays black."""
        images = faces.images
        purified = images * images.clamp(min=_DARKEST).pow(self.params.value - 1)
        ctx.advance(len(faces))
        return purified.clamp(0, 1)
