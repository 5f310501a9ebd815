"""The erasure protocol: whether who holds the key gets the face back, and nobody else.

An identity posts cloaks that can be taken off again. Clean probes of the identity are compared, one to one, with
what was posted and with what becomes of it under the right key, a wrong one and none.
`docs/protocols/erasure.md` states it in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import Field

from bench.contracts import Attack, Decided, Defense, Embedded, Identity, Trial, View
from bench.errors import UsageError, unknown
from bench.protocols._rotation import Rotation, RotationParams
from bench.protocols.thresholds import OperatingPoint, shortage
from bench.protocols.verification import VerificationProtocol, dodging, operating_points, threshold_facts


class _Requested(NamedTuple):
    """The views one condition compares: the identity's photos, the same untouched, impostors' photos."""

    posted: str
    natural: str
    enrolled: str


POSTED = "cloaked"
"""Condition of the cloaks as they are posted, nothing taken off."""

CONDITIONS: Mapping[str, _Requested] = {
    POSTED: _Requested("cloaked gallery", "gallery", "enrolled impostors"),
    "right key": _Requested("erased, right key", "plain gallery", "presented impostors"),
    "wrong key": _Requested("erased, wrong key", "plain gallery", "presented impostors"),
    "no key": _Requested("erased, no key", "plain gallery", "presented impostors"),
}
"""Condition → views. What was erased does not go through the defence: it is not the tracker who erases."""


class ErasureProtocol(Rotation):
    """Comparisons of two photos, one of them cloaked and erased.

    Correct is: accepted as the identity. So ASR under ``right key`` is the failure of erasing; under ``wrong
    key`` and ``no key`` it is what an unauthorised eraser still misses; under ``cloaked`` it is what the cloak
    hides, in cells with a defence from a purifier that holds no key.
    """

    name = "erasure"
    heads = ("pair",)
    question = POSTED

    class Params(RotationParams):
        """When a comparison is accepted, and how many impostors set that threshold."""

        far: float = Field(
            0.001,
            gt=0,
            lt=1,
            description="false-accept rate the threshold is set for",
            json_schema_extra={"unit": "share"},
        )
        impostors: int = Field(
            1000,
            ge=2,
            description="impostors the threshold is set on, one photo each; all there are where there are fewer",
            json_schema_extra={"unit": "identities"},
        )
        folds: int = Field(
            1,
            ge=1,
            le=1,
            description="always 1: everyone is protected at once, as nobody is compared with anybody else",
            json_schema_extra={"unit": "rotations"},
        )

    params: Params

    @property
    def views(self) -> Mapping[str, View]:
        """Galleries cloaked, erased and untouched, clean probes, and impostors in both places."""
        plain = View(photos="gallery", defended=False)
        erased = plain.model_copy(update={"state": "erased"})
        return {
            "probes": View(photos="probes", defended=False),
            "gallery": View(photos="gallery"),
            "plain gallery": plain,
            "cloaked gallery": View(photos="gallery", state="cloaked"),
            "erased, right key": erased.model_copy(update={"key": "right"}),
            "erased, wrong key": erased.model_copy(update={"key": "wrong"}),
            "erased, no key": erased.model_copy(update={"key": "none"}),
            "enrolled impostors": View(photos="impostors"),
            "presented impostors": View(photos="impostors", defended=False),
        }

    @property
    def restored(self) -> Mapping[str, str]:
        """What was erased is compared with the originals."""
        return {name: requested.posted for name, requested in CONDITIONS.items() if name != POSTED}

    def refuse(self, attack: Attack, defense: Defense) -> str:
        """Refuse attacks that cannot be erased; ``none`` is the reference and passes."""
        del defense
        if attack.changes_images and not attack.erasable:
            return "its cloaks cannot be erased. Use an attack that `bench list` calls erasable."
        return ""

    def impostors(self, identities: Sequence[Identity], split_seed: int) -> Mapping[str, tuple[str, ...]]:
        """Draw the impostors of protocol ``verification``, with the first photo of each.

        Raises:
            UsageError: too few identities for the false-accept rate.
        """
        same = VerificationProtocol(VerificationProtocol.Params(impostors=self.params.impostors))
        impostors = same.impostors(identities, split_seed)
        if lack := shortage(self.params.far, len(impostors)):
            raise UsageError(
                f"protocol '{self.name}': {lack}. Use a dataset with more training identities, more impostors, "
                "or a larger far."
            )
        return impostors

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return, under each condition, whether each probe is accepted for each gallery photo of its identity.

        Each identity is measured as protected, with what the condition names, and as normal, with the natural
        photos. A photo that a defence dropped is not compared; an identity with none left is never accepted.

        Raises:
            UsageError: the head is not known.
            MethodError: a probe is missing, or embeddings are not finite.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        points = {
            enrolled: operating_points(views[enrolled], views["presented impostors"], (self.params.far,))
            for enrolled in sorted({requested.enrolled for requested in CONDITIONS.values()})
        }
        rows, facts = [], {}
        for condition, requested in CONDITIONS.items():
            point = points[requested.enrolled][self.params.far]
            facts[condition] = threshold_facts(self.params.far, point)
            if isinstance(point, OperatingPoint):
                compared = {
                    "gallery": views[requested.natural],
                    "cloaked gallery": views[requested.posted],
                    "probes": views["probes"],
                }
                rows.append(dodging(compared, trial).at(point.threshold).assign(condition=condition))
        return Decided(pd.concat(rows, ignore_index=True), facts)
