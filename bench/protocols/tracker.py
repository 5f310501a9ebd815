"""The tracker protocol: someone trains on scraped photos and looks for the identities elsewhere (poisoning)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from bench.contracts import Attack, Decided, Defense, Embedded, Trial, View
from bench.errors import unknown
from bench.plugins.screening import first_detector, screened, values_of, why_not
from bench.protocols._answers import decisions_by_fold
from bench.protocols._rotation import Gallery, Probes, Rotation, RotationParams
from bench.protocols.finetuning import FineTuned, Recipe, as_photos
from bench.protocols.heads import Head, make_head

ProbeUse = Literal["clean", "cloaked", "purified"]


class TrackerProtocol(Rotation):
    """Rotation over identities; everyone is protected in one fold and normal in the others."""

    name = "tracker"
    paper = (
        "Evtimov et al., FoggySight (PETS 2021) and Shan et al., Fawkes (USENIX Security 2020) state variants"
    )
    heads = ("nn", "centroid", "linear", "finetune")
    end_to_end_heads = ("finetune",)
    several_views = True

    class Params(RotationParams):
        """How photos are dealt and what becomes of probes."""

        probes: ProbeUse = Field(
            "clean", description="probes as they are, cloaked while their identity is protected, or purified"
        )
        defended: Literal["all", "cloaked", "detected"] = Field(
            "all",
            description="gallery photos the defence acts on: all; only the cloaked, as if the tracker were told which "
            "they are; or those that a detector takes for cloaked",
        )
        detector: str = Field(
            "",
            description="the detector of defended=detected, without its purifier, which is the cell's defence; empty: "
            "the first one registered, with its defaults",
            json_schema_extra={"method": "defense"},
        )
        finetune_epochs: int = Field(
            3,
            ge=1,
            le=1000,
            description="passes of the head 'finetune' over the gallery",
            json_schema_extra={"unit": "epochs"},
        )
        finetune_learning_rate: float = Field(
            1e-4, gt=0, le=1, description="AdamW's learning rate of the head 'finetune'"
        )
        finetune_batch: int = Field(
            32,
            ge=2,
            le=4096,
            description="photos a step of the head 'finetune'",
            json_schema_extra={"unit": "photos"},
        )

        @model_validator(mode="after")
        def _detector_is_used(self) -> TrackerProtocol.Params:
            if self.detector and self.defended != "detected":
                raise ValueError(f"detector={self.detector} acts with defended=detected only")
            return self

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        if self.params.detector:
            values_of(self.params.detector)  # refused before any cell is planned

    def refuse(self, attack: Attack, defense: Defense) -> str:
        """Refuse defences that no detector can stand before, where one has to."""
        del attack
        return why_not(defense) if self.params.defended == "detected" else ""

    def deployed(self, defense: Defense) -> Defense:
        """Return the defence behind the detector, where photos are defended by what it flags."""
        if self.params.defended != "detected":
            return defense
        return screened(defense, self.params.detector or first_detector())

    @property
    def views(self) -> Mapping[str, View]:
        """Gallery and probes, natural and as they are while their identity is protected."""
        probes = View(photos="probes", defended=self.params.probes == "purified")
        views = {
            "gallery": View(photos="gallery", defended=self.params.defended != "cloaked"),
            "cloaked gallery": View(photos="gallery", state="cloaked"),
            "probes": probes,
        }
        if self.params.probes == "cloaked":
            views["cloaked probes"] = probes.model_copy(update={"state": "cloaked"})
        return views

    def training_passes(self, photos: int) -> float:
        """Each photo once for the start, then forward and back in each epoch of the head 'finetune'."""
        return photos * (1 + 2.5 * self.params.finetune_epochs)

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the decision for every probe in every rotation.

        The answer is the identity of the highest score, of equals the first by id. Photos of the split that
        are missing from a gallery view were dropped by a defence: the tracker trains without them, and an
        identity with none left is never recognised.

        Raises:
            UsageError: the head is not known, or the tracker's backbone cannot be trained and the head would.
            MethodError: a probe is missing, embeddings are not finite, or the head does not converge.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        head = self._head(trial)
        if trial.head in self.end_to_end_heads:
            # Rotation only indexes and compares rows, so photos can stand where embeddings do.
            views = {k: Embedded(as_photos(f.images), f.ids, f.identities) for k, f in trial.faces.items()}
        gallery = Gallery.of(views["gallery"], views["cloaked gallery"], trial.split)
        probes = Probes.of(
            views["probes"], views.get("cloaked probes", views["probes"]), trial.split, gallery.identities
        )
        return Decided(pd.concat(list(decisions_by_fold(head, gallery, probes)), ignore_index=True))

    def _head(self, trial: Trial) -> Head:
        if trial.head not in self.end_to_end_heads:
            return make_head(trial.head)
        if trial.tracker is None:
            raise ValueError(f"head '{trial.head}' got no tracker to train")
        tracker, params = trial.tracker(), self.params
        recipe = Recipe(params.finetune_epochs, params.finetune_learning_rate, params.finetune_batch)
        return FineTuned(lambda: tracker.trainable(trial.device), recipe, trial.seed, trial.device)
