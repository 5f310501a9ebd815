"""JPEG compression as a purifier (Dziugaite et al., arXiv 1608.00853), by Pillow's encoder."""

import io
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from bench.contracts import Context, Faces, MethodParams, Purifier

_SUBSAMPLING = {"yuv444": "4:4:4", "yuv422": "4:2:2", "yuv420": "4:2:0"}
"""Parameter value → Pillow's name of it; ours has no colon, which separates a method from its parameters."""


def compress(pixels: np.ndarray, quality: int, subsampling: str) -> np.ndarray:
    """Encode one image as JPEG and decode it again.

    Args:
        pixels: H×W×3 uint8 RGB.
        quality: libjpeg's quality, 1 to 100.
        subsampling: Pillow's name of the chroma subsampling, e.g. ``4:2:0``.

    Returns:
        H×W×3 uint8 RGB.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    buffer.seek(0)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"))


class JPEG(Purifier):
    """Encodes each image as JPEG and decodes it; the quantisation removes fine detail, cloaks with it."""

    name: ClassVar[str] = "jpeg"
    baseline: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Dziugaite, Ghahramani, Roy: A study of the effect of JPG compression on adversarial images, "
        "arXiv 1608.00853 (2016)"
    )

    class Params(MethodParams):
        """Parameters of `JPEG`."""

        quality: int = Field(
            75,
            ge=1,
            le=100,
            description="quality of the encoder (libjpeg's scale)",
            json_schema_extra={"unit": "libjpeg quality"},
        )
        subsampling: Literal["yuv444", "yuv422", "yuv420"] = Field(
            "yuv420",
            description="chroma subsampling: none, halved across, halved both ways",
            json_schema_extra={"unit": "J:a:b"},
        )

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the decoded images, N×3×H×W in [0, 1].

        The input is rounded to 8 bits first, as the encoder takes nothing else.
        """
        purified = []
        for image in faces.images:
            pixels = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
            decoded = compress(pixels, self.params.quality, _SUBSAMPLING[self.params.subsampling])
            purified.append(torch.tensor(decoded).permute(2, 0, 1))
            ctx.advance(1)
        if not purified:
            return faces.images
        return torch.stack(purified).to(faces.images.device, torch.float32) / 255
