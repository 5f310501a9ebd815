"""The identities whom targeted attacks imitate: who they are, and which of their photos an attack may see.

Always identities of role ``training``, never evaluated ones. Half of a target's photos are shown to attacks; the
others measure whether an imitation holds on photos that no attack has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.contracts import Identity
from bench.randomness import numpy_generator

TARGET_IDENTITIES = 50
TARGET_PHOTOS = 4
"""Size of the pool; as many photos of an identity again are held out."""


def target_identities(identities: Sequence[Identity], split_seed: int) -> tuple[Identity, ...]:
    """Return the identities that can be imitated, those with most photos first.

    An identity with several photos is a steadier target, and leaves some that the attack has not seen.

    Args:
        identities: of a dataset; only those of role ``training`` count.
        split_seed: the same for all cells of a dataset; a method trained for some targets must name it.
    """
    pool = [identity for identity in identities if identity.role == "training"]
    order = [pool[i] for i in numpy_generator(split_seed, "targets").permutation(len(pool))]
    several = [identity for identity in order if len(identity.photos) > 1]
    ranked = sorted(several or order, key=lambda identity: -min(len(identity.photos), 2 * TARGET_PHOTOS))
    return tuple(ranked[:TARGET_IDENTITIES])


def shown_photos(target: Identity) -> tuple[str, ...]:
    """Return the photos of a target an attack sees: half of them, at most `TARGET_PHOTOS`."""
    return target.photos[: min(TARGET_PHOTOS, (len(target.photos) + 1) // 2)]


def held_out_photos(target: Identity) -> tuple[str, ...]:
    """Return as many of the others, which measure whether an imitation holds."""
    seen = len(shown_photos(target))
    return target.photos[seen : seen + TARGET_PHOTOS]
