"""The four scenarios of gallery and query: each of them cloaked or clean, all in one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from bench.contracts import Attack, ConditionFacts, Decided, Defense, Embedded, Split, Trial, View
from bench.errors import unknown
from bench.protocols._answers import answers_by_fold, decision_rows
from bench.protocols._rotation import Gallery, Probes, Rotation, RotationParams
from bench.protocols.heads import Head, make_head

CONDITIONS = tuple(
    f"{gallery} gallery, {query} query" for query in ("clean", "cloaked") for gallery in ("clean", "cloaked")
)
"""What an identity posts while protected, and what the tracker is asked about."""


class ScenariosProtocol(Rotation):
    """Rotation over identities; while protected, an identity cloaks the gallery, the queries, both or nothing."""

    name = "scenarios"
    heads = ("nn", "centroid", "linear")
    question = "cloaked gallery, clean query"
    several_views = True

    class Params(RotationParams):
        """How photos are dealt and whether queries are defended."""

        probes_defended: bool = Field(
            False, description="whether queries go through the defence too, clean and cloaked alike"
        )

    params: Params

    @property
    def views(self) -> Mapping[str, View]:
        """Gallery and queries, natural and cloaked; the gallery goes through the defence."""
        defended = self.params.probes_defended
        return {
            "gallery": View(photos="gallery"),
            "cloaked gallery": View(photos="gallery", state="cloaked"),
            "probes": View(photos="probes", defended=defended),
            "cloaked probes": View(photos="probes", state="cloaked", defended=defended),
        }

    def refuse(self, attack: Attack, defense: Defense) -> str:
        """Refuse attacks that look at all photos of an identity: gallery and queries are posted apart."""
        del defense
        if attack.changes_images and not attack.cloaks_later_photos:
            return (
                "the attack makes a cloak from all gallery photos of an identity, and a query is posted without "
                "them. Use an attack of scope image, or protocol tracker with probes=clean."
            )
        return ""

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the decision for every probe in every rotation of the four scenarios.

        In rotation k the identities of fold k post what the condition says and all others post natural photos.
        The answer is that of protocol ``tracker``.

        Raises:
            UsageError: the head is not known.
            MethodError: a probe is missing, embeddings are not finite, or the head does not converge.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        head, natural = make_head(trial.head), views["gallery"]
        rows = []
        for state, edited in (("clean", natural), ("cloaked", views["cloaked gallery"])):
            gallery = Gallery.of(natural, edited, trial.split)
            rows += [
                found.assign(condition=f"{state} gallery, {query} query")
                for query, found in _by_query(head, gallery, views, trial.split)
            ]
        return Decided(pd.concat(rows, ignore_index=True), {name: ConditionFacts() for name in CONDITIONS})


def _by_query(
    head: Head, gallery: Gallery, views: Mapping[str, Embedded], split: Split
) -> Iterator[tuple[str, Any]]:
    """Yield the decisions with clean queries and with cloaked ones.

    A head is trained once a rotation for both: queries are scored as one list, clean ones first.
    """
    import pandas as pd

    clean, cloaked = (
        Probes.of(views["probes"], protected, split, gallery.identities)
        for protected in (views["probes"], views["cloaked probes"])
    )
    both = Probes(
        clean.images + cloaked.images,
        np.concatenate([clean.labels, cloaked.labels]),
        np.concatenate([clean.natural, cloaked.natural]),
        np.concatenate([clean.protected, cloaked.protected]),
    )
    answers = list(answers_by_fold(head, gallery, both))
    for name, probes, first in (("clean", clean, 0), ("cloaked", cloaked, len(clean.images))):
        part = slice(first, first + len(probes.images))
        frames = [
            decision_rows(fold, gallery, probes, found.part(part)) for fold, found in enumerate(answers)
        ]
        yield name, pd.concat(frames, ignore_index=True)
