"""Paints a frame of random colour around each photo."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import Attack, Context, Faces, MethodParams, ThreatModel

from .border import inside


class Frame(Attack):
    """A frame of one random colour a photo."""

    name: ClassVar[str] = "sample-frame"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted", constraint="a border of a few pixels")

    class Params(MethodParams):
        """Parameters of the frame."""

        width: int = Field(6, ge=1, le=40, description="of the border", json_schema_extra={"unit": "pixels"})

    params: Params

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return every photo with its frame."""
        mask = inside(faces.images, self.params.width).to(faces.images)
        edits = {}
        for name, image in zip(faces.ids, faces.images, strict=True):
            colour = torch.rand(3, 1, 1, generator=ctx.generator(self.name, name)).to(image)
            edits[name] = image * mask + colour * (1 - mask)
        ctx.advance(len(faces))
        return edits
