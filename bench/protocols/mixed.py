"""Mixed galleries: what a cloak is worth where the tracker has some clean photos of the same person too.

Nobody's old photos are recalled, and friends post others. Galleries of which all, a part, or all but one photo are
cloaked are decided side by side, on the same cloaks. `docs/protocols/mixed.md` states it in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pydantic import Field, field_validator

from bench.contracts import ConditionFacts, Decided, Embedded, Split, Trial, View
from bench.errors import unknown
from bench.protocols._answers import decisions_by_fold
from bench.protocols._rotation import Gallery, Probes, Rotation, RotationParams, round_half_up
from bench.protocols.heads import make_head


class MixedProtocol(Rotation):
    """Protocol ``tracker`` with galleries that are cloaked in whole and in part."""

    name = "mixed"
    paper = "Evtimov et al., FoggySight (PETS 2021) and Radiya-Dixit et al. (ICLR 2022) on photos that are out already"
    heads = ("nn", "centroid", "linear")
    question = "100 % cloaked"
    several_views = True

    class Params(RotationParams):
        """How much of a protected identity's gallery is cloaked."""

        shares: tuple[float, ...] = Field(
            (1.0, 0.5),
            description="shares of a protected identity's gallery that are cloaked, at least one photo each; joined "
            "by '|'",
            json_schema_extra={"unit": "share"},
        )
        clean: tuple[int, ...] = Field(
            (1,),
            description="clean photos of a protected identity that the gallery has besides cloaks; joined by '|', or "
            "empty for none",
            json_schema_extra={"unit": "photos"},
        )
        cloaked_share: float = Field(
            1.0,
            ge=1,
            le=1,
            description="always 1: all photos get a cloak, and shares says how many are shown",
        )

        @field_validator("shares")
        @classmethod
        def _are_shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
            if not shares or len(set(shares)) < len(shares) or not all(0 < share <= 1 for share in shares):
                raise ValueError("needs one share or more, each above 0 and at most 1 and named once")
            return shares

        @field_validator("clean")
        @classmethod
        def _are_counts(cls, clean: tuple[int, ...]) -> tuple[int, ...]:
            if len(set(clean)) < len(clean) or not all(count > 0 for count in clean):
                raise ValueError("needs counts of photos, each at least 1 and named once")
            return clean

    params: Params

    @property
    def views(self) -> Mapping[str, View]:
        """The gallery, natural and cloaked, goes through the defence; probes do not."""
        return {
            "gallery": View(photos="gallery"),
            "cloaked gallery": View(photos="gallery", state="cloaked"),
            "probes": View(photos="probes", defended=False),
        }

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the decision for every probe in every rotation, under each mixture; answers are those of ``tracker``.

        Raises:
            UsageError: the head is not known.
            MethodError: a probe is missing, embeddings are not finite, or the head does not converge.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        head, rows = make_head(trial.head), []
        mixtures = dict(self.mixtures(trial.split))
        identities = tuple(sorted(trial.split.gallery))
        probes = Probes.of(views["probes"], views["probes"], trial.split, identities)
        for condition, cloaked in mixtures.items():
            split = replace(trial.split, cloaked=cloaked)
            gallery = Gallery.of(views["gallery"], views["cloaked gallery"], split)
            rows += [found.assign(condition=condition) for found in decisions_by_fold(head, gallery, probes)]
        return Decided(pd.concat(rows, ignore_index=True), {name: ConditionFacts() for name in mixtures})

    def mixtures(self, split: Split) -> Iterator[tuple[str, Mapping[str, tuple[str, ...]]]]:
        """Yield the name of each condition with the photos that are cloaked under it: identity id → image ids.

        The first ones of the gallery's drawn order, so that what a smaller share cloaks a larger one cloaks too.
        """
        for share in self.params.shares:
            yield (
                f"{100 * share:g} % cloaked",
                {name: own[: max(1, round_half_up(share * len(own)))] for name, own in split.gallery.items()},
            )
        for count in self.params.clean:
            yield (
                f"all but {count} cloaked",
                {name: own[: max(0, len(own) - count)] for name, own in split.gallery.items()},
            )
