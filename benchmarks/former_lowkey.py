"""LowKey as it was in version 1 of the method, and what lies between that and version 2, as an attack of its own.

    python -m benchmarks.transfer lowkey:perceptual=dssim ./benchmarks/former_lowkey.py:FormerLowKey

Version 1 maximised the mean over surrogates and {raw, blurred} of mean_d (F(x') − F(x))² / ‖F(x)‖ minus
5 · s · DSSIM, with F(x) = e(x) + e(mirrored x) of full length, s the mean of ‖F(x)‖/D over features, and the clean
photo blurred too in the blurred branch. `features=unit` and `anchor=raw` change one of the two to what was published;
both together are version 2.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attacks._micro_batch import State, optimise
from attacks._surrogates import require_surrogates
from attacks.lowkey import DIMENSIONS, LowKey, _Ascent, blurred
from bench.contracts import Backbone, Context, Faces
from bench.quality.metrics import SsimReference


class FormerLowKey(LowKey):
    """LowKey with features of full length, or with the clean photo blurred in the blurred branch."""

    name: ClassVar[str] = "former-lowkey"

    class Params(LowKey.Params):
        """LowKey's, and what was otherwise; the perceptual distance is DSSIM."""

        perceptual: Literal["dssim"] = Field("dssim", description="perceptual distance")
        weight: float = Field(5.0, ge=0, le=1000, description="weight of DSSIM in version 1")
        features: Literal["full", "unit"] = Field("full", description="length of the features")
        anchor: Literal["blurred", "raw"] = Field("blurred", description="clean photo of the blurred branch")

    params: Params

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return one cloak for every face."""
        task = _Former(self.params, faces, ctx, require_surrogates(self.name, ctx), None)
        return dict(zip(faces.ids, optimise(task, len(faces), ctx.advance), strict=True))


def flip_summed(backbones: Sequence[Backbone], images: Tensor) -> list[Tensor]:
    """Return e(x) + e(mirrored x) for each backbone."""
    return [backbone.embed(images) + backbone.embed(images.flip(3)) for backbone in backbones]


class _Former(_Ascent):
    params: FormerLowKey.Params

    def start(self, images: Sequence[int]) -> State:
        state = super().start(images)
        with torch.no_grad():
            raw = self._features(state["image"])
            soft = raw if self.params.anchor == "raw" else self._features(blurred(state["image"]))
        return {**state, **{f"anchor{k}": feature for k, feature in enumerate([*raw, *soft])}}

    def _features(self, images: Tensor) -> list[Tensor]:
        found = flip_summed(self.backbones, images)
        return found if self.params.features == "full" else [F.normalize(f, dim=1) for f in found]

    def _objective(self, cloak: Tensor, state: State) -> Tensor:
        features = [*self._features(cloak), *self._features(blurred(cloak))]
        anchors = [state[f"anchor{k}"] for k in range(len(features))]
        squares = [(f - a).square().sum(1) for f, a in zip(features, anchors, strict=True)]
        dissimilarity = SsimReference(state["image"], state["mean"], state["square"]).dssim(cloak)
        if self.params.features == "unit":
            return torch.stack(squares).mean(0) / DIMENSIONS - self.params.weight * dissimilarity
        gains = [s / a.shape[1] / a.norm(dim=1) for s, a in zip(squares, anchors, strict=True)]
        scale = torch.stack([a.norm(dim=1) / a.shape[1] for a in anchors]).mean(0)
        return torch.stack(gains).mean(0) - self.params.weight * scale * dissimilarity
