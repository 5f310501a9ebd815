"""Plugins that cost next to nothing, so that a run of 100,000 photos measures the harness and not a network.

    --dataset benchmarks/stream_of_faces.py:StreamOfFaces:identities=10000,photos=12
    --backbone benchmarks/stream_of_faces.py:CellMeans --attack benchmarks/stream_of_faces.py:DrawnCells

The faces are checked patterns drawn anew from their ids, never held; nothing that is measured with them says anything
about faces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.contracts import (
    CROP_SIZE,
    Attack,
    Backbone,
    BackboneCard,
    Context,
    Dataset,
    Faces,
    Identity,
    MethodParams,
    ThreatModel,
)
from bench.errors import UsageError

CELLS = 8
"""Cells of a pattern, a side."""

_PREFIX = "drawn-"


@lru_cache(maxsize=256)
def pattern(name: str) -> NDArray[np.uint8]:
    """Return the 3×8×8 pattern of an id: bytes of its digest, the same everywhere."""
    drawn = np.frombuffer(hashlib.shake_128(name.encode()).digest(3 * CELLS**2), np.uint8)
    return drawn.reshape(3, CELLS, CELLS)


class StreamOfFaces(Dataset):
    """As many photos as asked for, drawn when they are looked at: half the identity's pattern, half the photo's own."""

    name = "stream-of-faces"
    domain: ClassVar[str] = "synthetic"
    default_pool: ClassVar[str] = "synthetic"
    note: ClassVar[str] = "stream-of-faces shows patterns, not faces: it measures the harness alone"

    class Params(MethodParams):
        """How many photos."""

        identities: int = Field(
            100, ge=2, description="identities, all evaluated", json_schema_extra={"unit": "identities"}
        )
        photos: int = Field(
            12, ge=1, le=1000, description="photos of each", json_schema_extra={"unit": "images"}
        )

    params: Params

    @property
    def core_seconds(self) -> float:
        """A photo takes microseconds."""
        return 1e-4

    def identities(self) -> tuple[Identity, ...]:
        """Return identities ``drawn-000000`` and on, each with photos ``<identity>/000`` and on."""
        photos = [f"{number:03d}" for number in range(self.params.photos)]
        names = (f"{_PREFIX}{number:06d}" for number in range(self.params.identities))
        return tuple(
            Identity(name, tuple(f"{name}/{photo}" for photo in photos), "evaluation") for name in names
        )

    def fingerprint(self) -> str:
        """Return the digest of the counts: the photos are decided by their ids."""
        return hashlib.sha256(self.params.model_dump_json().encode()).hexdigest()

    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8.

        Raises:
            UsageError: an id is not one of this dataset's.
        """
        side = CROP_SIZE // CELLS
        pixels = np.empty((len(ids), 3, CELLS, side, CELLS, side), np.uint8)
        for place, image in enumerate(ids):
            identity = image.partition("/")[0]
            if not identity.startswith(_PREFIX):
                raise UsageError(
                    f"'{image}' is not an image of {self.name}; valid: {_PREFIX}000000/000 and on."
                )
            cells = pattern(identity) // 2 + pattern(image) // 2
            pixels[place] = cells[:, :, None, :, None]
        return torch.from_numpy(pixels.reshape(len(ids), 3, CROP_SIZE, CROP_SIZE))


class DrawnCells(Attack):
    """Adds a pattern of few grey levels that is drawn from the photo's id: a cloak that is no work."""

    name = "drawn-cells"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted", constraint="16 grey levels", max_linf=16)

    @property
    def core_seconds(self) -> float:
        """A cloak takes microseconds."""
        return 1e-4

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return every photo with its own pattern over it, of −16 to 15 grey levels."""
        drawn = np.stack([pattern(f"cloak {name}") for name in faces.ids]).astype(np.float32)
        added = (torch.from_numpy(drawn).to(faces.images.device) // 8 - 16) / 255
        images = (faces.images + F.interpolate(added, size=CROP_SIZE, mode="nearest")).clamp(0, 1)
        ctx.advance(len(faces.ids))
        return dict(zip(faces.ids, images, strict=True))


class CellMeans(Backbone):
    """The means of a photo's cells, in a fixed random basis of 128 dimensions."""

    name = "cell-means"
    card = BackboneCard(
        name="cell-means",
        licence="Apache-2.0",
        source="drawn at random",
        training_data="none",
        domain="synthetic",
        embedding_dim=128,
        note="it sees patterns, not faces",
    )

    def __init__(self, params: MethodParams | None = None) -> None:
        super().__init__(params)
        self.basis = torch.zeros(0)

    @property
    def core_seconds(self) -> float:
        """A photo takes a tenth of a millisecond."""
        return 1e-4

    def load(self, device: torch.device) -> None:
        """Draw the basis."""
        drawn = torch.randn((3 * CELLS**2, 128), generator=torch.Generator().manual_seed(0))
        self.basis = (drawn / drawn.shape[0] ** 0.5).to(device)

    def embed(self, images: Tensor) -> Tensor:
        """Return N×128 embeddings of N×3×112×112 images in [0, 1]."""
        cells = F.avg_pool2d(images, CROP_SIZE // CELLS).flatten(1)
        return (cells - 0.5) @ self.basis
