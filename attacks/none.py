"""No cloak: the photos as they are. Its ASR is the baseline error every table prints beside the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from bench.contracts import Attack, Context, Faces, ThreatModel


class NoAttack(Attack):
    """Leaves the gallery as it is."""

    name: ClassVar[str] = "none"
    changes_images: ClassVar[bool] = False
    threat: ClassVar[ThreatModel] = ThreatModel(goal="none", constraint="no change")

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return no edits."""
        ctx.advance(len(faces))
        return {}
