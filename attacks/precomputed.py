"""Cloaks that somebody else made, from a folder: methods whose weights or programs cannot be had here.

What the harness knows of them is what their card declares: surrogates, budget, training identities. A row of theirs is
marked ``external``. `docs/methods/precomputed.md` says how such a folder comes about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import (
    CROP_SIZE,
    Attack,
    Binding,
    Context,
    Faces,
    MadeElsewhere,
    MethodParams,
    ThreatModel,
)
from bench.data.cloak_cards import CARD, CloakCard, cloak_path, read_card
from bench.errors import DataError, UsageError
from bench.faces.photos import read_photo


class Precomputed(Attack):
    """Hands out the cloaks of a folder, each checked against its card."""

    name: ClassVar[str] = "precomputed"
    shorthand: ClassVar[str] = "path"
    required: ClassVar[tuple[str, ...]] = ("path",)
    core_seconds: ClassVar[float] = 0.003

    class Params(MethodParams):
        """Where the cloaks are."""

        path: str = Field(
            "",
            description="the folder, with the card of `bench import cloaks`",
            json_schema_extra={"path": True},
        )

    params: Params

    @property
    def folder(self) -> Path:
        """The folder.

        Raises:
            UsageError: none is named.
        """
        if not self.params.path:
            raise UsageError("precomputed needs the folder of cloaks: --attack precomputed:DIR.")
        return Path(self.params.path).expanduser()

    @cached_property
    def card(self) -> CloakCard:
        """What is declared of the cloaks.

        Raises:
            DataError: the folder has no card, or none that can be read.
        """
        return read_card(self.folder)

    @property
    def threat(self) -> ThreatModel:
        """Targeted where the card says whom each cloak imitates, with the budget that is declared."""
        if not self.params.path:
            return ThreatModel(goal="untargeted", constraint="as the folder's card declares")
        card = self.card
        return ThreatModel(
            goal="targeted" if card.targets else "untargeted",
            needs_targets=bool(card.targets),
            constraint=card.constraint or "none declared",
            max_linf=card.max_linf,
        )

    @property
    def made_elsewhere(self) -> MadeElsewhere:
        """What the card declares."""
        if not self.params.path:
            return MadeElsewhere((), "")
        return MadeElsewhere(self.card.surrogates, self.card.dataset_fingerprint, self.card.targets)

    def training_identities(self, binding: Binding) -> str:
        """Return what the card declares."""
        del binding
        return self.card.training_identities

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return the card, which holds the digest of every cloak.

        Raises:
            UsageError: the cloaks are of another dataset.
            DataError: the folder has no card, or none that can be read.
        """
        if binding.dataset and binding.dataset != self.card.dataset:
            raise UsageError(
                f"the cloaks in '{self.folder}' are of dataset '{self.card.dataset}', and this is '{binding.dataset}'. "
                f"Run it with --dataset {self.card.dataset}, or make cloaks of the crops that "
                f"`bench export crops --dataset {binding.dataset}` writes."
            )
        return (self.folder / CARD,)

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return the cloak of every face.

        Raises:
            UsageError: a photo has no cloak in the folder.
            DataError: a cloak is missing, another file than the card says, or no image of a crop's size.
        """
        missing = [image for image in faces.ids if image not in self.card.cloaks]
        if missing:
            raise UsageError(
                f"{len(missing)} of {len(faces)} photos have no cloak in '{self.folder}', first '{missing[0]}'. Make "
                "cloaks of all photos that `bench export crops` writes for this run, and import them again."
            )
        found = {}
        for image in faces.ids:
            found[image] = self._read(image).to(faces.images.device)
            ctx.advance(1)
        return found

    def assign_targets(self, faces: Faces, ctx: Context) -> Mapping[str, str]:
        """Return whom each cloak imitates, as the card says.

        Raises:
            UsageError: the run would have somebody imitated whom the cloaks do not.
        """
        there = set(ctx.targets.identities) if ctx.targets is not None else set()
        for image in faces.ids:
            target = self.card.targets.get(image, "nobody")
            if target not in there:
                wanted = f"'{min(there)}'" if len(there) == 1 else f"one of {len(there)} others"
                raise UsageError(
                    f"the cloak of '{image}' in '{self.folder}' imitates '{target}', and this run has it imitate "
                    f"{wanted}. Run with the protocol and split seed that the crops were exported with."
                )
        return {image: self.card.targets[image] for image in faces.ids}

    def _read(self, image: str) -> Tensor:
        entry = self.card.cloaks[image]
        path = cloak_path(self.folder, entry)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"the cloak {path} cannot be read ({error.strerror}). Put it back.") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != entry.sha256:
            raise DataError(
                f"{path} has SHA-256 {digest}, and its card says {entry.sha256}. Put back what was imported, or import "
                "the folder again."
            )
        pixels = torch.tensor(read_photo(content, str(path))).permute(2, 0, 1)
        if pixels.shape[1:] != (CROP_SIZE, CROP_SIZE):
            raise DataError(
                f"{path} is {pixels.shape[2]}×{pixels.shape[1]} pixels, a crop is {CROP_SIZE}×{CROP_SIZE}."
            )
        return pixels.float() / 255
