"""A shard of crops as a tracker cuts them out of the whole photos that were posted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Dataset, Posting
from bench.faces.pixels import Pixels, decode_pixels, encode_pixels
from bench.faces.posting import pasted, scraped
from bench.run import calls
from bench.run.bound import Plugin
from bench.run.code_hashes import code_digest
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads

_PASTING, _DETECTING = 0.02, 0.2
"""Seconds of a core for a photo of 250×250, about."""


@dataclass(frozen=True, eq=False)
class Posted(Node):
    """Whole photos, posted and scraped: those in which no face is found are left out.

    Attributes:
        dataset: where the photos come from.
        photos: a shard of natural crops.
        posting: what becomes of each photo.
        cloaks: crops that an attack changed, which are pasted back; None: photos are posted as they are.
        chosen: with cloaks: image ids of the photos posted; one that the attack left alone is posted as it is.
    """

    stage: ClassVar[str] = "post"
    dataset: Plugin[Dataset]
    photos: Node
    posting: Posting
    cloaks: Node | None = None
    chosen: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.photos,) if self.cloaks is None else (self.photos, self.cloaks)

    @property
    def images(self) -> int:
        return self.photos.images if self.cloaks is None else len(self.chosen)

    @property
    def core_seconds(self) -> float:
        return self.work * (_PASTING + self.posting.detected * _DETECTING)

    def key_fields(self) -> Mapping[str, Any]:
        # Dataset, class, code and fingerprint are in the key of `photos`.
        return {
            "photos_code": code_digest("bench.datasets.whole_photos"),
            "posting": self.posting.model_dump(mode="json"),
            "chosen": self.chosen,
        }

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored: of the photos in which a face is found."""
        del machine
        photos = decode_pixels(payloads[self.photos.address])
        if self.cloaks is None:
            return encode_pixels(self._scraped(photos, {}, advance))
        cloaks = decode_pixels(payloads[self.cloaks.address])
        edits = dict(zip(cloaks.ids, cloaks.images, strict=True))
        return encode_pixels(self._scraped(photos.only(frozenset(self.chosen)), edits, advance))

    def _scraped(self, photos: Pixels, edits: Mapping[str, Tensor], advance: Advance) -> Pixels:
        found: dict[str, Tensor] = {}
        for name in photos.ids:
            whole = calls.whole_photo(self.dataset.method, name)
            if name in edits:
                whole = replace(whole, pixels=pasted(whole, _as_photo(edits[name])))
            crop = scraped(whole, self.posting)
            if crop is not None:
                found[name] = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
            advance(1)
        kept = photos.only(frozenset(found))
        return replace(kept, images=torch.stack([found[name] for name in kept.ids]) if found else kept.images)


def _as_photo(image: Tensor) -> NDArray[np.uint8]:
    """Return H×W×3 of a 3×H×W image."""
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).contiguous().numpy()
    return pixels


def described(posting: Posting) -> str:
    """Return what becomes of photos, for progress bars and logs."""
    steps = [f"resized to {posting.scale:g}"] if posting.scale < 1 else []
    steps += [] if posting.quality is None else [f"JPEG {posting.quality}"]
    return ", ".join(["whole photos", *steps, "detected" if posting.detected else "aligned"])
