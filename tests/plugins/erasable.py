"""A sample erasable attack: a pattern that only its key can take off again."""

import hashlib
from typing import ClassVar

import torch
from pydantic import Field

from bench.contracts import Attack, MethodParams, ThreatModel
from bench.randomness import torch_generator

BLOCK = 8
"""Side in pixels of the pattern's squares: backbones hardly see finer noise."""


class KeyedPattern(Attack):
    """Adds squares of plus or minus some grey levels, drawn from key and photo; erasing subtracts them.

    What the addition clips at black and white is lost; everything else comes back.
    """

    name = "keyed-pattern"
    erasable: ClassVar[bool] = True

    class Params(MethodParams):
        """How strong the pattern is."""

        amplitude: int = Field(
            48, ge=1, le=255, description="change of every value", json_schema_extra={"unit": "grey levels"}
        )

    params: Params

    @property
    def threat(self):
        """Nobody is aimed at and no surrogate used."""
        amplitude = self.params.amplitude
        return ThreatModel(goal="untargeted", constraint=f"L∞ ≤ {amplitude}", max_linf=amplitude)

    def pattern(self, key, image_id, shape):
        """Return the pattern of a photo under a key, 3×H×W."""
        stream = hashlib.sha256(key).hexdigest()
        squares = (shape[0], -(-shape[1] // BLOCK), -(-shape[2] // BLOCK))
        draw = torch.randint(2, squares, generator=torch_generator(0, "pattern", stream, image_id))
        signs = draw.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, : shape[1], : shape[2]]
        return (2.0 * signs - 1) * self.params.amplitude / 255

    def cloak(self, faces, ctx):
        """Add each photo's pattern under the run's key."""
        edits = {}
        for image, image_id in zip(faces.images, faces.ids, strict=True):
            pattern = self.pattern(ctx.key, image_id, image.shape).to(image.device)
            edits[image_id] = (image + pattern).clamp(0, 1)
            ctx.advance(1)
        return edits

    def erase(self, faces, key, ctx):
        """Subtract each photo's pattern under `key`; without a key there is nothing to subtract."""
        if not key:
            return faces.images
        patterns = [self.pattern(key, name, faces.images.shape[1:]) for name in faces.ids]
        return (faces.images - torch.stack(patterns).to(faces.images.device)).clamp(0, 1)
