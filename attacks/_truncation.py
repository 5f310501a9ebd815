"""Truncation to 8 bits, as programs do that cast pixels to whole numbers without rounding them first."""

from __future__ import annotations

import math

from torch import Tensor

from bench.quality.metrics import GREY_LEVELS

_ROUNDING = 1e-3
"""Grey levels; float32 rounds sums of a pixel and its change by a tenth of that at most."""


def truncated(images: Tensor) -> Tensor:
    """Return `images` clipped to [0, 1] and cut down to whole grey levels; rounding leaves them as they are.

    Whole grey levels stay what they are. A perturbation of −d levels becomes one of −⌈d⌉, one of +d levels ⌊d⌋, so
    cloaks are half a level darker in the mean than rounded ones.

    Args:
        images: N×3×H×W float32 in [0, 1].
    """
    return images.clamp(0, 1).mul(GREY_LEVELS).floor().div(GREY_LEVELS)


def truncated_reach(levels: float) -> int:
    """Return the largest change, in grey levels, that a bound of `levels` has after truncation.

    A bound of whole levels, or one just below, may be missed by float32's rounding, which truncation turns into a
    whole level more.
    """
    return math.floor(levels + _ROUNDING) + 1
