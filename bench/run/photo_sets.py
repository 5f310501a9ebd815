"""Which photos go through the stages, and how they are dealt into shards."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from bench.contracts import Identity
from bench.randomness import numpy_generator
from bench.run.targets import held_out_photos, shown_photos, target_identities

SHARD_IMAGES = 64
"""A shard takes whole identities until it has this many images: what a killed run may lose."""

TRAINING_IMAGES = 512
"""Photos of training identities that `fit` and `train` see, at most."""

Purpose = Literal["training", "targets", "held-out targets"]
"""Photos of identities that are not evaluated: to learn from, to imitate, or to be measured against."""

Photos = list[tuple[str, str]]
"""Image id and identity id of each."""


def shards(photos: Mapping[str, tuple[str, ...]]) -> Iterator[Photos]:
    """Deal photos, identity id → image ids, into shards of whole identities."""
    shard: Photos = []
    for identity in sorted(photos):
        shard += [(image, identity) for image in photos[identity]]
        if len(shard) >= SHARD_IMAGES:
            yield shard
            shard = []
    if shard:
        yield shard


def training_photos(identities: Sequence[Identity], purpose: Purpose, split_seed: int) -> Photos:
    """Return photos of training identities.

    Held-out photos are of the identities an attack may imitate; no attack sees them.

    Args:
        identities: those of role ``training``.
        purpose: what the photos are for.
        split_seed: the same for all cells of a dataset.
    """
    if purpose == "training":
        order = numpy_generator(split_seed, "training").permutation(len(identities))
        drawn = [identities[i] for i in order]
        return [(image, who.id) for who in drawn for image in who.photos][:TRAINING_IMAGES]
    photos_of = shown_photos if purpose == "targets" else held_out_photos
    targets = target_identities(identities, split_seed)
    return [(image, who.id) for who in targets for image in photos_of(who)]
