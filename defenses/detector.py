"""A detector of cloaks before a purifier: the tracker purifies the photos that a small network takes for cloaked.

What a purifier takes off a photo, r(x) = x − P(x), is fine texture where the photo is natural and the cloak besides
where it is cloaked. A network f of fifteen thousand weights learns to tell the two apart on photos of training
identities, natural and cloaked by attacks that anyone can run, by the binary cross-entropy

    L = −log σ(f(r(x)))  of cloaked photos,    −log(1 − σ(f(r(x))))  of natural ones,

and a photo is purified where f(r(x)) is above a threshold. That is set on natural photos of training identities which
the network did not learn from, so that a natural photo exceeds it with a probability of at most `fpr` (split conformal
prediction: Papadopoulos et al., "Inductive Confidence Machines for Regression", ECML 2002; Vovk, Gammerman and Shafer,
*Algorithmic Learning in a Random World*, 2005). What is known and what is ours: docs/methods/detector.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.contracts import MICRO_BATCH, Binding, Context, Detector, Faces, Method, MethodParams
from bench.errors import UsageError
from bench.plugins import factory
from bench.plugins.composition import fit_part, purify_part
from bench.plugins.screening import PURIFIER
from bench.quality.metrics import GREY_LEVELS
from defenses._hardened import Descent, in_proportion
from defenses._public_attacks import as_posted, cloaked, public_attacks

WIDTH = 16
"""Channels of the first convolution, twice as many after it: 15,137 weights, 61 kB."""

_NETWORK_SECONDS = 0.002
"""Of one core for a photo."""

_NETWORK, _THRESHOLD = "network.", "threshold"
"""Names of what is learnt; what the purifier learns is under names of `bench.plugins.composition.fit_part`."""


class ResidualClassifier(nn.Module):
    """Says of residuals how much they look like those of cloaks: three convolutions of stride 2, mean, linear.

    Args:
        generator: draws the weights where training starts (He et al., ICCV 2015, eq. 10); None leaves zeros, to be
            loaded over.
    """

    spread: Tensor

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(3, WIDTH, 5),
            nn.ReLU(),
            _convolution(WIDTH, 2 * WIDTH, 3),
            nn.ReLU(),
            _convolution(2 * WIDTH, 2 * WIDTH, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * WIDTH, 1, device="meta").to_empty(device="cpu"),
        )
        self.register_buffer("spread", torch.ones(()))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                _start(layer, generator)

    def forward(self, residuals: Tensor) -> Tensor:
        """Return N logits of N×3×H×W residuals in grey levels, which are divided by their standard deviation first."""
        logits: Tensor = self.layers(residuals / self.spread)
        return logits.squeeze(1)


def _convolution(channels: int, made: int, size: int) -> nn.Module:
    """Return a convolution of stride 2 without weights: torch would draw them from its global generator."""
    bare = nn.Conv2d(channels, made, size, stride=2, padding=size // 2, device="meta")
    return bare.to_empty(device="cpu")


def _start(layer: nn.Conv2d | nn.Linear, generator: torch.Generator | None) -> None:
    assert layer.bias is not None, "made with one"
    nn.init.zeros_(layer.bias)
    if generator is None:
        nn.init.zeros_(layer.weight)
    else:
        inputs = layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs), generator=generator)


@dataclass(frozen=True)
class Residuals:
    """What is learnt from: what the purifier takes off each photo, N×3×H×W int16 grey levels.

    Attributes:
        natural: of natural photos.
        cloaks: of cloaks, one tensor an attack.
    """

    natural: Tensor
    cloaks: tuple[Tensor, ...]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return N×3×H×W residuals and their N labels, 1 for cloaks.

        Half of them are cloaks, of any attack alike, then of any of its photos; each is mirrored or not.
        """
        half = count // 2
        picked = [self._one(self.cloaks, generator) for _ in range(half)]
        picked += [self._one((self.natural,), generator) for _ in range(count - half)]
        labels = torch.tensor([1.0] * half + [0.0] * (count - half))
        return torch.stack(picked).float(), labels.to(self.natural.device)

    @staticmethod
    def _one(sets: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        which, row, mirror = torch.rand(3, generator=generator).tolist()
        chosen = sets[int(which * len(sets))]
        residual = chosen[int(row * len(chosen))]
        return residual.flip(-1) if mirror < 0.5 else residual


class CloakDetector(Detector):
    """Purifies the photos that a small network, trained on public cloaks, takes for cloaked."""

    name: ClassVar[str] = "detector"
    requires_fit = True

    class Params(MethodParams):
        """Parameters of `CloakDetector`."""

        purifier: str = Field(
            "jpeg",
            description="what flagged photos are purified by, and whose residual tells which they are",
            json_schema_extra={"method": "defense"},
        )
        attacks: tuple[str, ...] = Field(
            ("pgd:eps=15",),
            min_length=1,
            description="attacks whose cloaks it learns from, through the surrogates that they name, joined by ' & '",
            json_schema_extra={"method": "attacks"},
        )
        fpr: float = Field(
            0.01,
            gt=0,
            lt=1,
            description="probability, at most, with which a natural photo is flagged",
            json_schema_extra={"unit": "share"},
        )
        photos: int = Field(
            1000,
            ge=2,
            le=100_000,
            description="photos of training identities, at most: those of every other identity are learnt from, the "
            "others set the threshold",
            json_schema_extra={"unit": "photos"},
        )
        cloaks: int = Field(
            200,
            ge=1,
            le=100_000,
            description="photos learnt from that each attack cloaks, at most",
            json_schema_extra={"unit": "photos"},
        )
        steps: int = Field(
            600, ge=1, le=1_000_000, description="steps of AdamW", json_schema_extra={"unit": "steps"}
        )
        batch: int = Field(
            32,
            ge=2,
            le=1024,
            description="photos a step, half of them cloaks",
            json_schema_extra={"unit": "photos"},
        )
        learning_rate: float = Field(
            2e-3, gt=0, le=1, description="AdamW's at the first step; falls to 0 as a cosine"
        )

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        (self._purifier,) = factory.purifiers(
            (self.params.purifier,), f"detector:{PURIFIER}=[{self.params.purifier}]"
        )
        if not self._purifier.changes_images:
            raise UsageError(
                f"detector: '{self.params.purifier}' changes no photo, so that nothing tells cloaks from others. Name "
                "a purifier that does, such as jpeg."
            )
        self._attacks = public_attacks(self.params.attacks, self.name)
        self.deterministic = self._purifier.deterministic

    def parts(self) -> tuple[Method, ...]:
        """Return the purifier, then the attacks."""
        return (self._purifier, *self._attacks)

    @property
    def core_seconds(self) -> float:
        """Those of the purifier and the network; attacks run while it learns only."""
        return self._purifier.core_seconds + _NETWORK_SECONDS

    @property
    def passes(self) -> int:
        """Those of the purifier."""
        return self._purifier.passes

    @property
    def training_photos(self) -> int:
        """The photos asked for, or as many as the purifier learns from."""
        own = self._purifier.training_photos if self._purifier.requires_fit else 0
        return max(self.params.photos, own)

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Return the attacks it learns from, and those that its purifier saw."""
        own = {factory.canonical(attack) for attack in self._attacks}
        return tuple(sorted({*own, *self._purifier.trained_on(binding.parts[0])}))

    def training_identities(self, binding: Binding) -> str:
        """Return the dataset's training identities."""
        return f"{binding.dataset}/training"

    def fit(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return the network, the threshold, and what the purifier learns, as named tensors.

        Raises:
            UsageError: too few photos for the threshold or for both halves; the attacks, or the purifier, change none
                of them.
            MethodError: the training diverges.
        """
        state = dict(fit_part(self._purifier, faces, ctx, 0))
        learnt, held_out = (faces.subset(rows) for rows in halves(faces.identities))
        rank = self._rank(len(held_out))
        own = replace(ctx, state=state)
        cloaking = len(faces) // 2  # counted as half of the work
        residuals = Residuals(
            self._residuals(learnt, own), self._residuals_of_cloaks(learnt, own, ctx, cloaking)
        )
        network = self._trained(residuals, ctx, len(faces) - cloaking)
        scores = logits(network, self._residuals(held_out, own))
        threshold = scores.sort(descending=True).values[rank]
        weights = {
            f"{_NETWORK}{name}": value.detach().clone() for name, value in network.state_dict().items()
        }
        return {**state, **weights, _THRESHOLD: threshold.clone()}

    def _rank(self, photos: int) -> int:
        """Return `allowed` of the photos that were held out.

        Raises:
            UsageError: too few.
        """
        found = allowed(photos, self.params.fpr)
        if found < 0:
            least = math.ceil(1 / self.params.fpr - 1)
            raise UsageError(
                f"detector: {photos} natural photos were held out to set the threshold, and fpr={self.params.fpr:g} "
                f"needs {least}. Raise photos, now {self.params.photos}, or fpr; or use a dataset with more training "
                "identities."
            )
        return found

    def _residuals_of_cloaks(
        self, learnt: Faces, own: Context, ctx: Context, images: int
    ) -> tuple[Tensor, ...]:
        """Return the residuals of the photos that each attack changed.

        Raises:
            UsageError: an attack changed none.
        """
        chosen = learnt.subset(range(min(self.params.cloaks, len(learnt))))
        before = as_posted(chosen.images)
        advance = in_proportion(ctx.advance, len(self._attacks) * len(chosen), images)
        found = []
        for attack, cloaks in zip(
            self._attacks, cloaked(self._attacks, chosen, ctx.parts[1:], advance), strict=True
        ):
            changed = (cloaks != before).flatten(1).any(1).nonzero().flatten().tolist()
            if not changed:
                raise UsageError(
                    f"detector: '{factory.canonical(attack)}' changed none of {len(chosen)} photos: there is no cloak "
                    "to learn from. Name another attack."
                )
            faces = chosen.with_images(cloaks.float() / GREY_LEVELS).subset(changed)
            found.append(self._residuals(faces, own))
        return tuple(found)

    def _residuals(self, faces: Faces, ctx: Context) -> Tensor:
        """Return what the purifier takes off photos, N×3×H×W int16 grey levels."""
        rows = range(0, len(faces), MICRO_BATCH)
        parts = (faces.subset(range(i, min(i + MICRO_BATCH, len(faces)))) for i in rows)
        return torch.cat([residual(part.images, self._purified(part, ctx)) for part in parts])

    def _purified(self, faces: Faces, ctx: Context) -> Tensor:
        """Return what the purifier makes of photos, as a tracker would keep it: rounded to 8 bits, in [0, 1]."""
        with torch.no_grad():
            images = purify_part(self._purifier, faces, ctx, 0)
        return as_posted(images).float() / GREY_LEVELS

    def _trained(self, residuals: Residuals, ctx: Context, images: int) -> ResidualClassifier:
        """Return a network that tells the two apart."""
        network = ResidualClassifier(ctx.generator(self.name, "weights")).to(ctx.device)
        network.spread.copy_(_spread(residuals, self.params.purifier))

        def loss_of(step: int) -> Tensor:
            drawn, labels = residuals.draw(self.params.batch, ctx.generator(self.name, str(step)))
            return F.binary_cross_entropy_with_logits(network(drawn), labels)

        Descent(self.name, self.params.steps, self.params.learning_rate, images).run(
            {"network": network}, loss_of, ctx
        )
        return network.eval()

    def scores(self, faces: Faces, ctx: Context) -> Tensor:
        """Return N logits: the larger, the more a photo looks cloaked."""
        return self._scores(faces, self._purified(faces, ctx), ctx)

    def _scores(self, faces: Faces, purified: Tensor, ctx: Context) -> Tensor:
        network = ResidualClassifier().to(ctx.device)
        weights = {
            name.removeprefix(_NETWORK): value for name, value in ctx.state.items() if _NETWORK in name
        }
        network.load_state_dict(weights)
        return logits(network.eval(), residual(faces.images, purified))

    def flagged(self, faces: Faces, ctx: Context) -> Tensor:
        """Return N booleans: whether the score is above the threshold."""
        flags = self.scores(faces, ctx) > ctx.state[_THRESHOLD]
        ctx.advance(len(faces))
        return flags

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the purifier's image of each flagged photo, and every other photo as it is."""
        purified = self._purified(faces, ctx)
        flags = self._scores(faces, purified, ctx) > ctx.state[_THRESHOLD]
        ctx.advance(len(faces))
        return torch.where(flags[:, None, None, None], purified, faces.images)


def halves(identities: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the photos of every other identity, in the order in which they come, and those of the rest."""
    order = {name: place for place, name in enumerate(dict.fromkeys(identities))}
    rows: tuple[list[int], list[int]] = ([], [])
    for row, name in enumerate(identities):
        rows[order[name] % 2].append(row)
    return rows


def allowed(photos: int, fpr: float) -> int:
    """Return how many of some natural photos may lie above a threshold, the next largest of their scores.

    With k of n above it, another photo of their kind lies above it with a probability of (k + 1)/(n + 1) at most (all
    n + 1 orders are alike), so k is the greatest whole number with (k + 1)/(n + 1) ≤ `fpr`; −1 where there is none.

    >>> allowed(99, 0.01), allowed(98, 0.01), allowed(500, 0.01)
    (0, -1, 4)
    """
    return math.floor(fpr * (photos + 1) + 1e-9) - 1  # 0.01 · 100 is a little less than 1 in some products


def residual(images: Tensor, purified: Tensor) -> Tensor:
    """Return what was taken off images, both in [0, 1]: int16 grey levels."""
    return as_posted(images).to(torch.int16) - as_posted(purified).to(torch.int16)


def logits(network: ResidualClassifier, residuals: Tensor) -> Tensor:
    """Return N logits of N×3×H×W residuals, computed in batches of one fixed shape."""
    found = []
    with torch.no_grad():
        for start in range(0, len(residuals), MICRO_BATCH):
            batch = residuals[start : start + MICRO_BATCH].float()
            padded = torch.cat([batch, batch[-1:].expand(MICRO_BATCH - len(batch), -1, -1, -1)])
            found.append(network(padded)[: len(batch)])
    return torch.cat(found)


def _spread(residuals: Residuals, purifier: str) -> Tensor:
    """Return the standard deviation of all residuals, grey levels.

    Raises:
        UsageError: it is 0.
    """
    spread = torch.cat([residuals.natural, *residuals.cloaks]).float().std()
    if not bool(spread > 0):
        raise UsageError(
            f"detector: '{purifier}' left every training photo as it was, so that nothing tells cloaks from others. "
            "Name a purifier that changes photos."
        )
    return spread
