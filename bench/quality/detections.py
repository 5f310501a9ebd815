"""Which photos a detector took for cloaked: what its true- and false-positive rates are counted from."""

from __future__ import annotations

from pydantic import Field

from bench.contracts import Frozen


class DetectedShard(Frozen):
    """What a detector takes some images for; one entry an image."""

    images: tuple[str, ...] = Field(description="image ids")
    identities: tuple[str, ...] = Field(description="identity ids")
    flagged: tuple[bool, ...] = Field(description="whether it takes the image for cloaked")


class Detections(Frozen):
    """What a defence's detector takes the gallery's photos for."""

    cloaked: tuple[DetectedShard, ...] = Field(description="cloaks of an attack; none for attack ``none``")
    natural: tuple[DetectedShard, ...] = Field(description="the photos as they were before any cloak")
    reason: str = Field("", description="why there are none")
