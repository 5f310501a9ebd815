"""A tracker that fine-tunes end to end on a gallery in which others' photos are also cloaked by public attacks.

The programs of published attacks are public. The tracker scrapes everyone's photos, takes identities whose photos it
knows to be natural, cloaks these itself, and trains network and softmax on all of it: the photos of an identity that
cloaks stay as they were scraped, and the network learns from the others that a cloak changes nobody's identity
(Radiya-Dixit et al., ICLR 2022: adaptive end-to-end training). The training itself is that of the
protocol's head; here is only what it gets to see. What is known and what is ours: docs/methods/e2e.md.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from pydantic import Field

from bench.contracts import Attack, Binding, Defense, MethodParams, PublicCloaks
from bench.errors import UsageError
from bench.plugins.factory import canonical
from defenses._public_attacks import public_attacks


class EndToEnd(Defense):
    """Adds public cloaks of other gallery identities to what a head that trains the whole network learns from."""

    name: ClassVar[str] = "e2e"
    paper: ClassVar[str] = (
        "Radiya-Dixit et al., Data Poisoning Won't Save You From Facial Recognition, ICLR 2022 (arXiv 2106.14851)"
    )
    changes_images: ClassVar[bool] = False

    class Params(MethodParams):
        """Parameters of `EndToEnd`."""

        attacks: tuple[str, ...] = Field(
            ("pgd:eps=15",),
            min_length=1,
            description="attacks by which the tracker cloaks others' photos, through the surrogates that they name, "
            "joined by ' & '",
            json_schema_extra={"method": "attacks"},
        )
        share: float = Field(
            0.5,
            gt=0,
            le=1,
            description="of the gallery identities that are not protected, at most, whose photos it cloaks; published: "
            "at most half",
            json_schema_extra={"unit": "share"},
        )

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self._attacks = public_attacks(self.params.attacks, self.name)
        name, count = Counter(map(canonical, self._attacks)).most_common(1)[0]
        if count > 1:
            raise UsageError(f"e2e has the attack '{name}' {count} times; leave the others out.")

    def parts(self) -> tuple[Attack, ...]:
        """Return the attacks whose cloaks it trains on."""
        return self._attacks

    @property
    def public_cloaks(self) -> PublicCloaks:
        """The attacks' cloaks of at most `share` of the others."""
        return PublicCloaks(self._attacks, self.params.share)

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Return the attacks whose cloaks it trains on."""
        del binding
        return tuple(sorted(map(canonical, self._attacks)))
