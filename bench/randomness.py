"""Random numbers that depend on what is asked, never on when or in which order it is asked.

Every generator is seeded by (run seed, stage, image or identity id), so a cloak does not change with
sharding, order, batch size or the number of workers (DESIGN 4, Randomness).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, *parts: str) -> int:
    """Return a 63-bit seed for the stream named by `parts` under `seed`.

    >>> stream_seed(0, "cloak", "lfw-00123/2")
    6937532573957453286
    """
    text = "\x1f".join((str(seed), *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *parts: str) -> torch.Generator:
    """Return a CPU generator for one stream; draw on the CPU, then move, so that devices agree."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, *parts))


def numpy_generator(seed: int, *parts: str) -> np.random.Generator:
    """Return a NumPy generator for one stream."""
    return np.random.default_rng(stream_seed(seed, *parts))
