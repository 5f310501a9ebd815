"""FoggySight: other people's photos become decoys for who is to be protected, whose own photos stay as they are.

Evtimov, Sturmfels, Kohno, "FoggySight: A Scheme for Facial Lookup Privacy" (PETS 2021, arXiv 2012.08588): users who
act as protectors of others upload decoy photos made by adversarial machine learning, so that a lookup of the protected
identity returns them. What is the paper's and what is ours: docs/methods/foggysight.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from attacks._surrogates import SurrogateParams
from attacks._targets import require_targets
from attacks.pgd import PGD
from bench.contracts import Attack, Context, Faces, ThreatModel


class FoggySight(Attack):
    """Moves photos of volunteers towards the face of the identity that they protect."""

    name: ClassVar[str] = "foggysight"
    paper: ClassVar[str] = "Evtimov, Sturmfels, Kohno, PETS 2021 (arXiv 2012.08588)"
    edits_others: ClassVar[bool] = True

    class Params(SurrogateParams):
        """Parameters of FoggySight."""

        eps: float = Field(
            16, gt=0, le=255, description="L∞ bound", json_schema_extra={"unit": "grey levels"}
        )
        steps: int = Field(
            20, ge=1, le=10_000, description="signed steps of eps/8", json_schema_extra={"unit": "steps"}
        )
        aim: Literal["centre", "photo"] = Field(
            "centre",
            description="what a decoy is moved to: the mean embedding of the protected identity's gallery photos, or "
            "one of these photos, drawn for each decoy",
        )

    params: Params

    @property
    def threat(self) -> ThreatModel:
        """Targeted at who is protected; the bound counts posted photos, and rounding may add half a grey level."""
        return self._descent.threat

    @property
    def passes(self) -> int:
        """The steps."""
        return self.params.steps

    def pool(self) -> str | None:
        """Return the surrogates requested."""
        return self.params.surrogates

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return a decoy of every face.

        Args:
            faces: photos of volunteers.
            ctx: with the surrogates in `backbones`, and in `targets` gallery photos of the one protected identity.

        Raises:
            UsageError: `ctx` has no differentiable surrogate, or nobody to protect.
        """
        targets = require_targets(self.name, "an attack on one's own photos, e.g. pgd", ctx)
        if self.params.aim == "photo":  # as if each photo were an identity of its own, of which PGD draws one
            targets = replace(targets, identities=targets.ids)
        return self._descent.cloak(faces, replace(ctx, targets=targets))

    def assign_targets(self, faces: Faces, ctx: Context) -> Mapping[str, str]:
        """Return whom each decoy protects.

        Raises:
            UsageError: there is nobody to protect.
        """
        return self._descent.assign_targets(faces, ctx)

    @property
    def _descent(self) -> PGD:
        own = self.params
        return PGD(
            PGD.Params(
                goal="targeted", surrogates=own.surrogates, eps=own.eps, step=own.eps / 8, steps=own.steps
            )
        )
