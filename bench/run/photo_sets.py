"""Which photos go through the stages, how they are dealt into shards, and whom targeted attacks imitate.

Targets are always identities of role ``training``, never evaluated ones. Half of a target's photos are shown to
attacks; the others measure whether an imitation holds on photos that no attack has seen.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from bench.contracts import MICRO_BATCH, TRAINING_PHOTOS, Identity, Split
from bench.errors import UsageError
from bench.randomness import numpy_generator

SHARD_IMAGES = 96
"""A shard takes whole identities as long as it has no more images than this: three batches of embedding, so that few of
their places are empty (4 and 5 % of LFW's gallery and probes, where 64 and more left 41 and 38 %)."""

_MOST_IN_PART = 32

PART_CORE_SECONDS = 25
"""What an attack works on a part of a shard, at most, in seconds of one core by what it declares: what a killed run
may lose. A micro-batch is never cut."""

TARGET_IDENTITIES = 50
TARGET_PHOTOS = 4
"""Size of the pool; as many photos of an identity again are held out."""

Purpose = Literal["training", "targets", "held-out targets"]
"""Photos of identities that are not evaluated: to learn from, to imitate, or to be measured against."""

Photos = list[tuple[str, str]]
"""Image id and identity id of each."""


def shards(photos: Mapping[str, tuple[str, ...]]) -> Iterator[Photos]:
    """Deal photos, identity id → image ids, into shards of whole identities."""
    shard: Photos = []
    for identity in sorted(photos):
        if shard and len(shard) + len(photos[identity]) > SHARD_IMAGES:
            yield shard
            shard = []
        shard += [(image, identity) for image in photos[identity]]
    if shard:
        yield shard


def parts(photos: Photos, core_seconds: float, scope: Literal["image", "identity"]) -> Iterator[Photos]:
    """Deal the photos of a shard into parts of at most `PART_CORE_SECONDS`, in their order.

    A part has 8, 16 or 32 images, so that no micro-batch has more empty places than in the whole shard and methods of
    about the same cost are dealt alike; or, where the scope is the identity, whole identities until it has as many.

    Args:
        photos: of one shard, those of an identity one after another.
        core_seconds: of one core for an image, as the attack declares.
        scope: `Attack.scope`.
    """
    size = MICRO_BATCH
    while size < _MOST_IN_PART and 2 * size * core_seconds <= PART_CORE_SECONDS:
        size *= 2
    if len(photos) * core_seconds <= PART_CORE_SECONDS:
        yield photos
        return
    part: Photos = []
    for image, identity in photos:
        if len(part) >= size and (scope == "image" or identity != part[-1][1]):
            yield part
            part = []
        part.append((image, identity))
    yield part


def publicly_cloaked(split: Split, share: float, split_seed: int) -> frozenset[str]:
    """Return the evaluated identities of whose gallery photos a tracker makes cloaks itself (`PublicCloaks`).

    The same ones in every rotation, less whoever is protected in it; so at most `share` of the others in each.

    Args:
        split: of the run.
        share: of the identities that are not protected, in (0, 1].
        split_seed: the same for all cells of a dataset.

    Raises:
        UsageError: the share of the others is less than one identity.
    """
    others = len(split.fold) - max(Counter(split.fold.values()).values())
    count = math.floor(share * others)
    if count < 1:
        raise UsageError(
            f"share={share:g} of the {others} identities that are not protected in some rotation is no identity whose "
            "photos a tracker could cloak. Evaluate more identities, protect fewer at a time (folds), or raise share."
        )
    draw = {name: numpy_generator(split_seed, "publicly cloaked", name).random() for name in split.fold}
    return frozenset(sorted(draw, key=lambda name: (draw[name], name))[:count])


def training_photos(
    identities: Sequence[Identity], purpose: Purpose, split_seed: int, most: int = TRAINING_PHOTOS
) -> Photos:
    """Return photos of training identities.

    Held-out photos are of the identities an attack may imitate; no attack sees them.

    Args:
        identities: those of role ``training``.
        purpose: what the photos are for.
        split_seed: the same for all cells of a dataset.
        most: photos to learn from.
    """
    if purpose == "training":
        order = numpy_generator(split_seed, "training").permutation(len(identities))
        drawn = [identities[i] for i in order]
        return [(image, who.id) for who in drawn for image in who.photos][:most]
    photos_of = shown_photos if purpose == "targets" else held_out_photos
    targets = target_identities(identities, split_seed)
    return [(image, who.id) for who in targets for image in photos_of(who)]


def target_identities(
    identities: Sequence[Identity], split_seed: int, most: int | None = TARGET_IDENTITIES
) -> tuple[Identity, ...]:
    """Return the identities that can be imitated, those with most photos first.

    An identity with several photos is a steadier target, and leaves some that the attack has not seen.

    Args:
        identities: of a dataset; only those of role ``training`` count.
        split_seed: the same for all cells of a dataset; a method trained for some targets must name it.
        most: so many at most; None for all.
    """
    pool = [identity for identity in identities if identity.role == "training"]
    order = [pool[i] for i in numpy_generator(split_seed, "targets").permutation(len(pool))]
    several = [identity for identity in order if len(identity.photos) > 1]
    ranked = sorted(several or order, key=lambda identity: -min(len(identity.photos), 2 * TARGET_PHOTOS))
    return tuple(ranked[:most])


def shown_photos(target: Identity) -> tuple[str, ...]:
    """Return the photos of a target an attack sees: half of them, at most `TARGET_PHOTOS`."""
    return target.photos[: min(TARGET_PHOTOS, (len(target.photos) + 1) // 2)]


def held_out_photos(target: Identity) -> tuple[str, ...]:
    """Return as many of the others, which measure whether an imitation holds."""
    seen = len(shown_photos(target))
    return target.photos[seen : seen + TARGET_PHOTOS]
