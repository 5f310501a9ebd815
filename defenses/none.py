"""No defence: the tracker trains on the photos as they were posted."""

from typing import ClassVar

from torch import Tensor

from bench.contracts import Context, Faces, Purifier


class NoDefense(Purifier):
    """Returns every image as it came; the reference each defence is compared with."""

    name: ClassVar[str] = "none"
    changes_images: ClassVar[bool] = False
    differentiable = True

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return ``faces.images`` (N×3×H×W in [0, 1]) unchanged."""
        ctx.advance(len(faces))
        return faces.images
