"""A tracker that takes a newer backbone than the one cloaks were made against (Radiya-Dixit et al., ICLR 2022).

The oblivious tracker of the paper knows nothing of cloaks. It waits: a photo posted today cannot be cloaked again, and
gallery and probes are embedded by a network of tomorrow. What is known and what is ours: docs/methods/later.md.
"""

from __future__ import annotations

import logging
from typing import ClassVar

from pydantic import Field

from bench.contracts import Backbone, BackboneCard, Method, MethodParams, Substitution
from bench.plugins import factory
from bench.run.model_time import model_time

log = logging.getLogger("bench")


class Later(Substitution):
    """Embeds gallery and probes with a backbone that was published after the tracker's."""

    name: ClassVar[str] = "later"
    paper: ClassVar[str] = (
        "Radiya-Dixit et al., Data Poisoning Won't Save You From Facial Recognition, ICLR 2022 (arXiv 2106.14851)"
    )
    required: ClassVar[tuple[str, ...]] = ("backbone",)

    class Params(MethodParams):
        """Parameters of `Later`."""

        backbone: str = Field(
            "",
            description="the newer backbone",
            json_schema_extra={"method": "backbone"},
        )

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self._newer = tuple(factory.backbone(text) for text in (self.params.backbone,) if text)

    def parts(self) -> tuple[Method, ...]:
        """Return the newer backbone."""
        return self._newer

    def embeds_with(self, tracker: Backbone) -> tuple[Backbone, ...]:
        """Return the newer backbone, whatever the tracker's is."""
        del tracker
        return self._newer

    def refuse(self, tracker: Backbone) -> str:
        """Refuse a backbone that is the tracker's or no later than it; warn where the dates do not tell."""
        if not self._newer:
            return "it names no backbone. Name a newer one, e.g. later:backbone=edgeface-xxs (`bench models list`)."
        (backbone,) = self._newer
        newer, own = factory.canonical(backbone), factory.canonical(tracker)
        if newer == own or _same_weights(backbone.card, tracker.card):
            return f"{newer} is the tracker's own backbone. Name one that was published after it."
        dates = {newer: backbone.card.released, own: tracker.card.released}
        order, reason = model_time(newer, dates[newer], {own: dates[own]})
        if order == "not-later":
            return (
                f"{newer} was published {dates[newer]}, {own} {dates[own]}, so it is not the later one. Name a "
                "backbone that was published after the tracker's (`bench models list` has the dates)."
            )
        if not order:
            log.warning(
                "%s on tracker %s: whether it is later is unknown: %s", factory.canonical(self), own, reason
            )
        return ""


def _same_weights(one: BackboneCard, other: BackboneCard) -> bool:
    digests = [{card.sha256, *card.equivalents} - {""} for card in (one, other)]
    return not digests[0].isdisjoint(digests[1])
