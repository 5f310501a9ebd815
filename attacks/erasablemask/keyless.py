"""The restorer of ErasableMask in the hands of a tracker who has its weights but no key.

The lock of the restorer is a branch in a program: who has the weights can leave it out, and what the lock looks at in
a photo tells most of the key's pattern. This purifier reads the pattern out of every photo the tracker scraped, and
erases. It is the attack on `attacks.erasablemask.attack` that its key must be measured against; ours, the paper
does not have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from attacks._micro_batch import in_micro_batches
from attacks._surrogates import SurrogateParams
from attacks.erasablemask.attack import SHELF, ErasableMask, fitting_weights, loaded_networks
from bench.contracts import Binding, Context, Faces, Purifier


class KeylessRestorer(Purifier):
    """Runs ErasableMask's restorer with its lock left out, on masked and natural photos alike."""

    name: ClassVar[str] = "keyless-restorer"
    differentiable = True

    class Params(SurrogateParams):
        """Parameters of `KeylessRestorer`."""

        weights: str = Field(
            "",
            description="erasablemask's .safetensors, with its card beside it; empty for those shipped",
            json_schema_extra={"path": True},
        )
        pattern: Literal["read", "none"] = Field(
            "read", description="what stands for the key: its pattern as read from the photo, or nothing"
        )

    params: Params

    def pool(self) -> str | None:
        """Return the surrogates that the weights were trained against."""
        return self.params.surrogates

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return the weights and the card for this cell.

        Raises:
            UsageError: no weights fit; or the tracker is a surrogate and was not named.
            DataError: weights, card or digest are not what they should be.
        """
        named = self.params.surrogates != "auto"
        return fitting_weights(self.name, self.params.weights, binding, named=named)

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Return the attack whose masks the restorer learnt to take off."""
        del binding
        return (ErasableMask.name,)

    def training_identities(self, binding: Binding) -> str:
        """Return whose photos the weights were trained on, from their card."""
        return SHELF.read(self.files(binding)[0]).training_identities

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return every photo as the restorer gives it back, N×3×H×W in [0, 1].

        Raises:
            DataError: the weights are corrupt.
        """
        _, restorer = loaded_networks(ctx.files[0], ctx.device)
        images = faces.images.to(ctx.device)
        strength = 1.0 if self.params.pattern == "read" else 0.0

        def restored(rows: Tensor) -> Tensor:
            batch = images[rows].contiguous(memory_format=torch.channels_last)
            erased: Tensor = restorer(batch, strength * restorer.seen_pattern(batch).sign())
            return erased.clamp(0, 1).contiguous()

        purified = in_micro_batches(restored, torch.arange(len(faces), device=ctx.device))
        ctx.advance(len(faces))
        return purified.to(faces.images.device)
