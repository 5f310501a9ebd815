"""The posted photo: a cloak pasted back into the whole photo, resized, compressed, found by a detector, aligned anew.

Protocol ``tracker`` measures the aligned crop as the attack made it. What a tracker scrapes is a photo, and each step
from the one to the other costs a cloak something. `docs/protocols/posted.md` states it in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from bench.contracts import ConditionFacts, Decided, Embedded, Posting, Split, Trial, View
from bench.errors import MethodError, unknown
from bench.protocols._answers import decisions_by_fold
from bench.protocols._rotation import Gallery, Probes, Rotation, RotationParams
from bench.protocols.heads import Head, make_head
from bench.stats.intervals import rate_interval

Channel = Literal["none", "resize", "jpeg", "resize+jpeg"]

CROP = "crop"
"""The condition of the crop itself, as protocol ``tracker`` has it."""


@dataclass(frozen=True)
class _Step:
    """One condition: its name, and what becomes of the photos; None: the crops are posted."""

    name: str
    posting: Posting | None

    @property
    def as_taken(self) -> bool:
        """Whether a natural photo's crop is what it was: nothing is done but to paste back, and it has nothing."""
        return self.posting in (None, Posting())

    def view(self, view: str) -> str:
        """Return the name of one of its views."""
        if view != "cloaked gallery" and self.as_taken:
            return view
        return view if self.posting is None else f"{view}, {self.name}"


class PostedProtocol(Rotation):
    """Protocol ``tracker`` with whole photos, one step after another, down to the face that a detector finds."""

    name = "posted"
    heads = ("nn", "centroid", "linear")
    question = "resize + jpeg, detected"
    several_views = True

    class Params(RotationParams):
        """How photos are dealt, and what becomes of them between posting and scraping."""

        channels: tuple[Channel, ...] = Field(
            ("none", "resize", "jpeg", "resize+jpeg"),
            min_length=1,
            description="what is done to posted photos, one after another: none, resize, jpeg, resize+jpeg, joined by "
            "'|'",
        )
        scale: float = Field(
            0.5,
            gt=0,
            lt=1,
            description="what resizing makes of a photo's sides",
            json_schema_extra={"unit": "share"},
        )
        quality: int = Field(
            75,
            ge=1,
            le=100,
            description="quality of the JPEG encoder (libjpeg's scale), colours halved both ways",
            json_schema_extra={"unit": "libjpeg quality"},
        )
        detect: bool = Field(
            True,
            description="whether each channel is a second condition, in which a detector looks for the face in what "
            "was posted",
        )

        @field_validator("channels")
        @classmethod
        def _once(cls, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
            return tuple(dict.fromkeys(channels))

    params: Params

    def _posting(self, channel: Channel, *, detected: bool) -> Posting:
        steps = channel.split("+")
        return Posting(
            scale=self.params.scale if "resize" in steps else 1,
            quality=self.params.quality if "jpeg" in steps else None,
            detected=detected,
        )

    @property
    def _steps(self) -> tuple[_Step, ...]:
        """Return the conditions in their order: the crop, then every channel aligned, then every channel detected."""
        found = [_Step(CROP, None)]
        for detected in (False, True) if self.params.detect else (False,):
            for channel in self.params.channels:
                parts = [] if channel == "none" else [channel.replace("+", " + ")]
                parts += ["detected"] if detected else []
                name = ", ".join(parts) or "pasted"
                found.append(_Step(name, self._posting(channel, detected=detected)))
        return tuple(found)

    @property
    def views(self) -> Mapping[str, View]:
        """Gallery, natural and cloaked, and clean probes, as crops and after each step."""
        found = {}
        for step in self._steps:
            posting = None if step.as_taken else step.posting
            found[step.view("gallery")] = View(photos="gallery", posting=posting)
            found[step.view("probes")] = View(photos="probes", defended=False, posting=posting)
            found[step.view("cloaked gallery")] = View(
                photos="gallery", state="cloaked", posting=step.posting
            )
        return found

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the decision for every probe in every rotation after each step; see protocol ``tracker``.

        A gallery photo without a face that is found is no part of the gallery; a probe without one is not recognised.

        Raises:
            UsageError: the head is not known.
            MethodError: a probe is missing where nothing was looked for, embeddings are not finite, or the head does
                not converge.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        head, rows, conditions = make_head(trial.head), [], {}
        for step in self._steps:
            seen = _Seen(*(views[step.view(name)] for name in ("gallery", "cloaked gallery", "probes")))
            detected = step.posting is not None and step.posting.detected
            rows.append(_decisions(head, seen, trial.split, may_miss=detected).assign(condition=step.name))
            facts = _missed(seen, trial.split) if detected else {}
            conditions[step.name] = ConditionFacts.model_validate(facts)
        return Decided(pd.concat(rows, ignore_index=True), conditions)


@dataclass(frozen=True)
class _Seen:
    """What a tracker sees in one condition."""

    gallery: Embedded
    cloaked: Embedded
    probes: Embedded


def _decisions(head: Head, seen: _Seen, split: Split, *, may_miss: bool) -> Any:
    """Return the decisions of every rotation; a probe whose face was missed is one that is not recognised."""
    import pandas as pd

    gallery = Gallery.of(seen.gallery, seen.cloaked, split)
    there = frozenset(seen.probes.ids)
    missed = [
        (name, image) for name in gallery.identities for image in split.probes[name] if image not in there
    ]
    if missed and not may_miss:
        raise MethodError(f"{len(missed)} probes have no embedding, first '{missed[0][1]}'.")
    found = {
        name: tuple(image for image in images if image in there) for name, images in split.probes.items()
    }
    probes = Probes.of(seen.probes, seen.probes, replace(split, probes=found), gallery.identities)
    frames = list(decisions_by_fold(head, gallery, probes)) if probes.images else []
    frames += [_unrecognised(fold, missed, split) for fold in range(gallery.folds)] if missed else []
    return pd.concat(frames, ignore_index=True)


def _unrecognised(fold: int, probes: Sequence[tuple[str, str]], split: Split) -> Any:
    """Return one rotation's rows of probes, identity and image, in which no face was found."""
    import pandas as pd

    nothing = np.full(len(probes), np.nan, dtype=np.float32)
    return pd.DataFrame(
        {
            "fold": np.full(len(probes), fold, dtype=np.int16),
            "identity": np.array([name for name, _ in probes], dtype=object),
            "image": np.array([image for _, image in probes], dtype=object),
            "protected": np.array([split.fold[name] == fold for name, _ in probes]),
            "predicted": np.full(len(probes), None, dtype=object),
            "correct": np.zeros(len(probes), dtype=bool),
            "score": nothing,
            "margin": nothing,
        }
    )


def _missed(seen: _Seen, split: Split) -> dict[str, float | None]:
    """Return the share of a protected identity's gallery photos without a face, and of probes: mean and interval."""
    natural, cloaked = frozenset(seen.gallery.ids), frozenset(seen.cloaked.ids)
    posted = {
        name: [image in (cloaked if image in split.cloaked[name] else natural) for image in images]
        for name, images in split.gallery.items()
    }
    probes = frozenset(seen.probes.ids)
    asked = {name: [image in probes for image in images] for name, images in split.probes.items()}
    return _share("gallery_missed", posted) | _share("probes_missed", asked)


def _share(name: str, found: Mapping[str, Sequence[bool]]) -> dict[str, float | None]:
    """Return the mean over identities of the share of photos that were not found, with its interval."""
    shares = np.array([1 - np.mean(each) for each in found.values() if each])
    interval = rate_interval(shares, sum(len(each) for each in found.values()))
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
