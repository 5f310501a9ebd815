"""Near-duplicate photos: a 64-bit difference hash of the crop, and a second look at those it calls near.

dHash compares neighbouring cells of a small grey picture. Aligned faces are alike to begin with, so that hashes of
different identities come near each other by chance; a pair counts only if the small pictures themselves agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts import Dataset, Frozen

if TYPE_CHECKING:
    from torch import Tensor

HASH_SIDE = 8
"""Rows of the hash; 8 rows of 8 comparisons are 64 bits."""

PICTURE_SIDE = 28
"""Side of the grey picture of the second look: cells of 4×4 pixels, blind to JPEG and to a pixel's shift."""

MAX_HAMMING = 10
"""Bits of 64 in which near-duplicates may differ."""

MIN_CORRELATION = 0.97
"""Correlation of the grey pictures at which two photos are near-duplicates."""

_BATCH = 64

_PAIRS = 1 << 16
"""Pairs of hashes that are compared at a time: as many as stay in a processor's cache."""

_PROBES_AT_ONCE = 8192
"""Probes whose pictures are held, 3 kB each; the gallery is looked through once for so many."""

Hashes = NDArray[np.uint64]
Pictures = NDArray[np.float32]


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of photos to find near-duplicates.

    Attributes:
        ids: image id of each.
        hashes: N uint64, dHash.
        pictures: N×784 float32, each of mean 0 and length 1.
    """

    ids: tuple[str, ...]
    hashes: Hashes
    pictures: Pictures

    def subset(self, wanted: Sequence[str]) -> Fingerprints:
        """Return those of the photos named, in that order."""
        place = {name: row for row, name in enumerate(self.ids)}
        rows = [place[name] for name in wanted]
        return Fingerprints(tuple(wanted), self.hashes[rows], self.pictures[rows])


@dataclass(frozen=True)
class NearDuplicate:
    """Two photos that show the same picture.

    Attributes:
        first: image id.
        second: image id.
        hamming: bits in which their hashes differ.
        correlation: of their grey pictures.
    """

    first: str
    second: str
    hamming: int
    correlation: float


class SamePhotos(Frozen):
    """The probes that show the same picture as a gallery photo, as a run's folder has them."""

    probes: int = Field(0, description="probes that were looked at")
    pairs: tuple[tuple[str, str, int, float], ...] = Field(
        (), description="(probe, gallery photo, bits in which their hashes differ, correlation), image ids"
    )
    reason: str = Field("", description="why nothing was looked at")

    @property
    def found(self) -> int:
        """The number of probes that are in a pair."""
        return len({probe for probe, *_ in self.pairs})

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def to_bytes(fingerprints: Fingerprints) -> bytes:
    """Return the stored form of fingerprints; the same ones give the same bytes."""
    import safetensors.torch
    import torch

    from bench.faces.pixels import encode_names

    return safetensors.torch.save(
        {
            "hashes": torch.from_numpy(fingerprints.hashes.view(np.int64)),
            "pictures": torch.from_numpy(fingerprints.pictures),
        },
        metadata=encode_names(fingerprints.ids, ()),
    )


def from_bytes(payload: bytes) -> Fingerprints:
    """Return fingerprints from their stored form."""
    import safetensors.torch

    from bench.faces.pixels import decode_names

    there = safetensors.torch.load(payload)
    hashes = there["hashes"].numpy().view(np.uint64)
    return Fingerprints(tuple(decode_names(payload)["ids"]), hashes, there["pictures"].numpy())


def same_photos(
    probes: Iterable[Fingerprints],
    gallery: Callable[[], Iterable[Fingerprints]],
    at_once: int = _PROBES_AT_ONCE,
) -> SamePhotos:
    """Return the near-duplicates between probes and gallery, which have no photo in common.

    Args:
        probes: shard by shard.
        gallery: gives its shards, of which one is held at a time, anew at each call.
        at_once: probes that are held at a time, a shard more at most; decides memory alone.
    """
    count, pairs = 0, list[NearDuplicate]()
    for some in _blocks(probes, at_once):
        count += len(some.ids)
        pairs += (pair for shard in gallery() for pair in near_duplicates(some, shard))
    pairs.sort(key=lambda pair: (pair.first, pair.second))
    return SamePhotos(
        probes=count,
        pairs=tuple((p.first, p.second, p.hamming, round(p.correlation, 4)) for p in pairs),
    )


def _blocks(shards: Iterable[Fingerprints], at_least: int) -> Iterator[Fingerprints]:
    """Yield shards joined until they have so many photos."""
    some: list[Fingerprints] = []
    for shard in shards:
        some.append(shard)
        if sum(len(each.ids) for each in some) >= at_least:
            yield joined(some)
            some = []
    if some:
        yield joined(some)


def stated_in(note: str) -> int:
    """Return how many near-duplicates a dataset's note says it has: ``holds N near-duplicate photos``, else 0."""
    clauses = (clause.strip() for clause in re.split(r"[.;,:]", note))
    found = (re.fullmatch(r"holds (\d+) near-duplicate photos", clause) for clause in clauses)
    return max((int(match[1]) for match in found if match), default=0)


def fingerprint_photos(
    dataset: Dataset, ids: Sequence[str], advance: Callable[[int], None] = lambda _n: None
) -> Fingerprints:
    """Return the fingerprints of a dataset's photos.

    Args:
        dataset: where the crops come from.
        ids: image ids.
        advance: called with the number of photos finished.

    Raises:
        DataError: a photo cannot be read.
    """
    found = []
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        found.append(fingerprints(batch, dataset.crops(batch)))
        advance(len(batch))
    return joined(found)


def fingerprints(ids: Sequence[str], crops: Tensor) -> Fingerprints:
    """Return the fingerprints of crops.

    Args:
        ids: image id of each.
        crops: N×3×H×W uint8.
    """
    return Fingerprints(tuple(ids), difference_hash(crops), grey_pictures(crops))


def joined(parts: Sequence[Fingerprints]) -> Fingerprints:
    """Return the fingerprints of several sets of photos as one."""
    return Fingerprints(
        tuple(name for part in parts for name in part.ids),
        np.concatenate([np.zeros(0, np.uint64), *(part.hashes for part in parts)]),
        np.concatenate([np.zeros((0, PICTURE_SIDE**2), np.float32), *(part.pictures for part in parts)]),
    )


def difference_hash(crops: Tensor) -> Hashes:
    """Return the 64-bit dHash of each crop.

    A bit says whether a cell of the 8×9 grey picture is darker than its right neighbour; the first comparison is the
    highest bit.

    Args:
        crops: N×3×H×W uint8.
    """
    cells = _grey(crops, (HASH_SIDE, HASH_SIDE + 1))
    darker = (cells[:, :, :-1] < cells[:, :, 1:]).flatten(1).numpy()
    return np.packbits(darker, axis=1).view(">u8")[:, 0].astype(np.uint64)


def grey_pictures(crops: Tensor) -> Pictures:
    """Return the N×784 grey pictures of crops, each of mean 0 and length 1, so that a product is a correlation.

    Args:
        crops: N×3×H×W uint8.
    """
    import torch.nn.functional as F

    cells = _grey(crops, (PICTURE_SIDE, PICTURE_SIDE)).flatten(1)
    picture: Pictures = F.normalize(cells - cells.mean(1, keepdim=True), dim=1).numpy()
    return picture


def _grey(crops: Tensor, size: tuple[int, int]) -> Tensor:
    import torch
    import torch.nn.functional as F

    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return F.adaptive_avg_pool2d((crops.float() * weights).sum(1), size)


def near_duplicates(
    first: Fingerprints,
    second: Fingerprints,
    max_hamming: int = MAX_HAMMING,
    min_correlation: float = MIN_CORRELATION,
) -> list[NearDuplicate]:
    """Return the pairs of near-duplicates between two sets of photos; a photo is no duplicate of itself.

    Args:
        first: one set.
        second: the other; the same photo may be in both.
        max_hamming: bits in which the hashes may differ, 0 … 64.
        min_correlation: least correlation of the grey pictures.
    """
    found = {}
    for row, column, bits in _near_by_hash(first.hashes, second.hashes, max_hamming):
        correlation = float(first.pictures[row] @ second.pictures[column])
        names = first.ids[row], second.ids[column]
        if correlation >= min_correlation and names[0] != names[1] and names[::-1] not in found:
            found[names] = NearDuplicate(*names, bits, correlation)
    return sorted(found.values(), key=lambda pair: (pair.first, pair.second))


def _near_by_hash(first: Hashes, second: Hashes, most: int) -> Iterator[tuple[int, int, int]]:
    rows = max(1, _PAIRS // max(1, len(second)))
    for start in range(0, len(first), rows):
        bits = np.bitwise_count(first[start : start + rows, None] ^ second[None, :]).reshape(-1)
        for place in np.flatnonzero(bits <= most):  # three times as fast as in two dimensions
            row, column = divmod(int(place), len(second))
            yield start + row, column, int(bits[place])
