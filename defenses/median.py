"""Median filter as a purifier (feature squeezing's spatial smoothing, Xu et al., NDSS 2018)."""

from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from bench.contracts import Context, Faces, MethodParams, Purifier


class Median(Purifier):
    """Replaces each pixel of each channel by the median of its neighbourhood, edges replicated."""

    name: ClassVar[str] = "median"
    paper: ClassVar[str] = (
        "Xu, Evans, Qi: Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks, NDSS 2018"
    )

    class Params(MethodParams):
        """Parameters of `Median`."""

        size: int = Field(
            3,
            ge=1,
            le=15,
            description="side of the square neighbourhood; odd",
            json_schema_extra={"unit": "pixels"},
        )

        @field_validator("size")
        @classmethod
        def _odd(cls, size: int) -> int:
            if size % 2 == 0:
                raise ValueError(
                    f"{size} is even; a neighbourhood has a middle pixel: {size - 1} or {size + 1}"
                )
            return size

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the filtered images, N×3×H×W in [0, 1].

        The input is rounded to 8 bits first: it is what gets posted, and OpenCV's wide filters need it.
        """
        import cv2

        filtered = []
        for image in faces.images:
            pixels = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().contiguous().numpy()
            filtered.append(torch.from_numpy(cv2.medianBlur(pixels, self.params.size)).permute(2, 0, 1))
            ctx.advance(1)
        if not filtered:
            return faces.images
        return torch.stack(filtered).to(faces.images.device, torch.float32) / 255
