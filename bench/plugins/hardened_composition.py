"""Defences of both kinds: purifiers, then a tracker that hardens itself (``jpeg + puface + robust-extractor``)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bench.contracts import Defense, Hardening, Method, MethodParams, Purifier


class HardenedComposition(Defense):
    """Purifies the photos and embeds them, and the probes, with a hardened backbone.

    Each half does what it does alone: the backbone is trained on natural training photos, not on purified ones.

    Args:
        params: the texts of all that it is made of.
        photos: what becomes of the photos.
        backbone: what becomes of the tracker's backbone.
    """

    name: ClassVar[str] = "hardened-composition"
    joins: ClassVar[str] = " + "

    class Params(MethodParams):
        """Parameters of `HardenedComposition`."""

        members: tuple[str, ...] = Field(
            (),
            description="purifiers in the order they are applied, then one hardening",
            json_schema_extra={"method": "defenses"},
        )

    params: Params

    def __init__(self, params: Params, photos: Defense, backbone: Hardening) -> None:
        super().__init__(params)
        self._photos, self._backbone = photos, backbone
        self.deterministic = photos.deterministic

    def parts(self) -> tuple[Method, ...]:
        """Return what becomes of the photos, and the hardening."""
        return self._photos, self._backbone

    @property
    def purifiers(self) -> tuple[Purifier, ...]:
        """Those of the first half."""
        return self._photos.purifiers

    @property
    def hardening(self) -> Hardening:
        """The second half."""
        return self._backbone
