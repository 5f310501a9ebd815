"""Takes borders away, and centres the embeddings of the tracker."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import Backbone, Context, Faces, Hardening, MethodParams, Purifier

from .border import inside


class Crop(Purifier):
    """Blackens the border of every photo."""

    name: ClassVar[str] = "sample-crop"
    differentiable = True

    class Params(MethodParams):
        """Parameters of the crop."""

        width: int = Field(6, ge=1, le=40, description="of the border", json_schema_extra={"unit": "pixels"})

    params: Params

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the photos without their borders."""
        ctx.advance(len(faces))
        return faces.images * inside(faces.images, self.params.width).to(faces.images)


class Centre(Hardening):
    """Takes the mean embedding of training faces off every embedding."""

    name: ClassVar[str] = "sample-centre"

    def train(self, tracker: Backbone, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return the mean embedding of the training faces."""
        parts = [tracker.embed_batch(faces.images[i : i + 32]) for i in range(0, len(faces), 32)]
        ctx.advance(len(faces))
        return {"mean": torch.cat(parts).mean(0)}

    def harden(self, tracker: Backbone, state: Mapping[str, Tensor]) -> Backbone:
        """Return the tracker's backbone with the mean taken off."""
        return _Centred(tracker, state["mean"])


class _Centred(Backbone):
    name: ClassVar[str] = "sample-centred"

    def __init__(self, tracker: Backbone, mean: Tensor) -> None:
        super().__init__()
        self.tracker, self.mean, self.card = tracker, mean, tracker.card

    def load(self, device: torch.device) -> None:
        self.tracker.load(device)

    def embed(self, images: Tensor) -> Tensor:
        return self.tracker.embed(images) - self.mean.to(images.device)
