"""8-bit images with their names, as they are posted and stored."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import safetensors.torch
import torch
from torch import Tensor

from bench.contracts import Faces


@dataclass(frozen=True)
class Pixels:
    """8-bit images with their names, as stored.

    Attributes:
        images: N×3×H×W uint8.
        ids: image ids.
        identities: identity ids.
    """

    images: Tensor
    ids: tuple[str, ...]
    identities: tuple[str, ...]

    def faces(self, device: torch.device) -> Faces:
        """Return the images as float32 in [0, 1] on `device`."""
        return Faces(self.images.to(device).float() / 255, self.ids, self.identities)

    def only(self, wanted: frozenset[str]) -> "Pixels":
        """Return the images whose id is wanted, in the same order."""
        rows = [row for row, name in enumerate(self.ids) if name in wanted]
        return Pixels(
            self.images[rows], tuple(self.ids[r] for r in rows), tuple(self.identities[r] for r in rows)
        )


def encode_pixels(pixels: Pixels) -> bytes:
    """Return the stored form of images."""
    return safetensors.torch.save(
        {"images": pixels.images.contiguous()}, metadata=encode_names(pixels.ids, pixels.identities)
    )


def decode_pixels(payload: bytes) -> Pixels:
    """Return images from their stored form."""
    names = decode_names(payload)
    return Pixels(
        safetensors.torch.load(payload)["images"],
        tuple(names["ids"]),
        tuple(names["identities"]),
    )


def encode_names(ids: Sequence[str], identities: Sequence[str]) -> dict[str, str]:
    """Return the metadata of a safetensors file that holds the names of its rows."""
    # One entry: safetensors writes several in an order that changes from call to call.
    return {"names": json.dumps({"ids": ids, "identities": identities})}


def decode_names(payload: bytes) -> dict[str, list[str]]:
    """Return what `encode_names` wrote: ``ids`` and ``identities``."""
    length = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + length])
    names: dict[str, list[str]] = json.loads(header["__metadata__"]["names"])
    return names


def to_bytes_range(images: Tensor) -> Tensor:
    """Round images in [0, 1] to 8 bits, as they would be posted."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def overlay_pixels(natural: Pixels, edited: Pixels | None, wanted: frozenset[str]) -> Pixels:
    """Return the wanted images as `overlay` does, as pixels."""
    chosen = natural.only(wanted)
    if edited is None:
        return chosen
    images = chosen.images.clone()
    place = {name: row for row, name in enumerate(chosen.ids)}
    for row, name in enumerate(edited.ids):
        images[place[name]] = edited.images[row]
    return replace(chosen, images=images)


def join_pixels(parts: Sequence[Pixels]) -> Pixels:
    """Return several shards of images as one."""
    return Pixels(
        torch.cat([part.images for part in parts]),
        tuple(name for part in parts for name in part.ids),
        tuple(name for part in parts for name in part.identities),
    )
