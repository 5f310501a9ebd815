"""Rendered faces: the dataset that needs no download.

Identities are drawn at random from the renderer's traits, photos from its conditions, each from a generator
keyed by its own id; so any photo can be made alone, in any order, with the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import CROP_SIZE, Dataset, Identity, MethodParams
from bench.datasets._face_renderer import Head, render, sculpt
from bench.datasets._face_traits import draw_conditions, draw_traits
from bench.errors import UsageError
from bench.randomness import numpy_generator

RENDERER_VERSION = 1
"""Part of the fingerprint, in place of the renderer's code. Raise it when a photo gets other pixels."""

_PREFIXES: dict[Literal["evaluation", "training"], str] = {
    "evaluation": "synthetic-eval",
    "training": "synthetic-train",
}


@lru_cache(maxsize=64)
def _head(world: int, identity: str) -> Head:
    return sculpt(draw_traits(numpy_generator(world, "synthetic identity", identity)))


class Synthetic(Dataset):
    """Procedural 112×112 faces: identity traits × pose, light, expression and camera.

    Identity ids are ``synthetic-eval-0003`` and ``synthetic-train-0123``; image ids ``<identity>/<nn>``.
    """

    name = "synthetic"
    domain: ClassVar[str] = "synthetic"
    default_pool: ClassVar[str] = "synthetic"
    note: ClassVar[str] = (
        "synthetic is a smoke-sized stand-in of rendered faces: "
        "no conclusion about real faces can be drawn from it"
    )

    class Params(MethodParams):
        """How many identities and photos, and which world they live in."""

        identities: int = Field(
            24,
            ge=2,
            le=10_000,
            description="identities to evaluate",
            json_schema_extra={"unit": "identities"},
        )
        photos: int = Field(
            3, ge=1, le=1000, description="photos of each of them", json_schema_extra={"unit": "images"}
        )
        training_identities: int = Field(
            600,
            ge=0,
            le=10_000,
            description="other identities, for training and calibration",
            json_schema_extra={"unit": "identities"},
        )
        training_photos: int = Field(
            16, ge=1, le=1000, description="photos of each of those", json_schema_extra={"unit": "images"}
        )
        world: int = Field(
            0, ge=0, description="another world has other identities", json_schema_extra={"unit": ""}
        )

    params: Params

    def identities(self) -> tuple[Identity, ...]:
        """Return the evaluated identities, then the training identities, by id."""
        return tuple(
            Identity(identity, tuple(f"{identity}/{number:02d}" for number in range(photos)), role)
            for role, count, photos in self._roles()
            for identity in (f"{_PREFIXES[role]}-{index:04d}" for index in range(count))
        )

    def fingerprint(self) -> str:
        """Return the digest of the world, the counts, `RENDERER_VERSION` and OpenCV's version."""
        digest = hashlib.sha256(json.dumps(self.params.model_dump(), sort_keys=True).encode())
        digest.update(importlib.metadata.version("opencv-python-headless").encode())
        digest.update(str(RENDERER_VERSION).encode())
        return digest.hexdigest()

    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8; a photo depends on the world and its id alone.

        Raises:
            UsageError: an id is not one of this dataset's.
        """
        pixels = np.empty((len(ids), 3, CROP_SIZE, CROP_SIZE), np.uint8)
        for place, image in enumerate(ids):
            identity = self._identity_of(image)
            shot = draw_conditions(numpy_generator(self.params.world, "synthetic photo", image))
            pixels[place] = render(_head(self.params.world, identity), shot)
        return torch.from_numpy(pixels)

    def _roles(self) -> tuple[tuple[Literal["evaluation", "training"], int, int], ...]:
        params = self.params
        return (
            ("evaluation", params.identities, params.photos),
            ("training", params.training_identities, params.training_photos),
        )

    def _identity_of(self, image: str) -> str:
        """Return the identity of an image id, checked against the counts."""
        identity, _, photo = image.partition("/")
        for role, count, photos in self._roles():
            prefix = f"{_PREFIXES[role]}-"
            number = identity.removeprefix(prefix)
            if (
                identity.startswith(prefix)
                and number.isdecimal()
                and photo.isdecimal()
                and int(number) < count
                and int(photo) < photos
                and image == f"{prefix}{int(number):04d}/{int(photo):02d}"
            ):
                return identity
        roles = ", ".join(
            f"{_PREFIXES[role]}-0000/00 to {_PREFIXES[role]}-{count - 1:04d}/{photos - 1:02d}"
            for role, count, photos in self._roles()
            if count
        )
        raise UsageError(f"'{image}' is not an image of dataset synthetic. Valid: {roles}.")
