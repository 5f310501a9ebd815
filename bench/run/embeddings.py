"""Embeddings with their names: their stored form, and edits laid over natural ones."""

from collections.abc import Sequence

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
    return Embedded(
        safetensors.torch.load(payload)["vectors"].numpy(), tuple(names["ids"]), tuple(names["identities"])
    )


def overlay(natural: Embedded, edited: Embedded | None, wanted: frozenset[str]) -> Embedded:
    """Return the wanted images as a protected identity posts them: edited where the attack edited, else natural."""
    rows = {name: row for row, name in enumerate(natural.ids) if name in wanted}
    vectors = natural.vectors[list(rows.values())]
    if edited is not None:
        place = {name: row for row, name in enumerate(rows)}
        for row, name in enumerate(edited.ids):
            vectors[place[name]] = edited.vectors[row]
    return Embedded(vectors, tuple(rows), tuple(natural.identities[row] for row in rows.values()))


def join(parts: Sequence[Embedded]) -> Embedded:
    """Return several shards of embeddings as one."""
    return Embedded(
        np.concatenate([part.vectors for part in parts]),
        tuple(name for part in parts for name in part.ids),
        tuple(name for part in parts for name in part.identities),
    )
