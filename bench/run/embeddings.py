"""Embeddings with their names: their stored form, and edits laid over natural ones."""

from collections.abc import Iterable

import numpy as np
import safetensors.torch
import torch

from bench.contracts import Embedded
from bench.faces.pixels import decode_names, encode_names


def encode_embedded(embedded: Embedded) -> bytes:
    """Return the stored form of embeddings."""
    return safetensors.torch.save(
        {"vectors": torch.from_numpy(embedded.vectors)},
        metadata=encode_names(embedded.ids, embedded.identities),
    )


def decode_embedded(payload: bytes) -> Embedded:
    """Return embeddings from their stored form."""
    names = decode_names(payload)
    one = {name: name for name in names["identities"]}  # an identity's photos share its text
    return Embedded(
        safetensors.torch.load(payload)["vectors"].numpy(),
        tuple(names["ids"]),
        tuple(one[name] for name in names["identities"]),
    )


def overlay(natural: Embedded, edits: Iterable[Embedded], wanted: frozenset[str]) -> Embedded:
    """Return the wanted images as a protected identity posts them: edited where the attack edited, else natural.

    Args:
        natural: all images.
        edits: shard by shard, of which one is held at a time.
        wanted: ids of images.
    """
    rows = [row for row, name in enumerate(natural.ids) if name in wanted]
    ids = tuple(natural.ids[row] for row in rows)
    vectors = natural.vectors[rows]
    place = {name: row for row, name in enumerate(ids)}
    for edited in edits:
        vectors[[place[name] for name in edited.ids]] = edited.vectors
    return Embedded(vectors, ids, tuple(natural.identities[row] for row in rows))


def join(parts: Iterable[Embedded], most: int) -> Embedded:
    """Return several shards of embeddings as one.

    Args:
        parts: one or more, of which one is held at a time.
        most: rows they have together, or more.
    """
    vectors = np.empty((0, 0), dtype=np.float32)
    ids: list[str] = []
    identities: list[str] = []
    for part in parts:
        if not ids:
            vectors = np.empty((most, *part.vectors.shape[1:]), dtype=part.vectors.dtype)
        vectors[len(ids) : len(ids) + len(part.ids)] = part.vectors
        ids += part.ids
        identities += part.identities
    return Embedded(vectors[: len(ids)], tuple(ids), tuple(identities))
