"""A tracker that fine-tunes its backbone on cloaks that anyone can make (Radiya-Dixit et al., ICLR 2022).

The tracker has the programs of published attacks too. It cloaks photos of identities it knows and trains its whole
network, with a softmax over these identities, to name them cloaked or not:

    L = −log softmax(s · cos(f_θ(x'), w_y)),    x' the photo of identity y, natural or cloaked by one of the attacks

(the cosine layer is NormFace's, Wang et al., ACM MM 2017, eq. 5, and starts at the classes' mean embeddings, Qi et al.,
CVPR 2018, eq. 5). Whatever head the protocol has then works on its embeddings. What is known and what is ours:
docs/methods/adaptive-extractor.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.contracts import MICRO_BATCH, Attack, Backbone, Binding, Context, Faces, Hardening, MethodParams
from bench.errors import UsageError
from bench.plugins import factory
from bench.quality.metrics import GREY_LEVELS
from defenses import _hardened
from defenses._hardened import Descent, in_proportion, trained_copy, weights_of
from defenses._public_attacks import as_posted, cloaked, public_attacks

SCALE = 32.0
"""Factor s on the cosines before the softmax: cross-entropy over some thousand classes can then fall to near 0."""


class Prototypes(nn.Module):
    """A direction for each class; scores are scaled cosines.

    Args:
        directions: K×D, of any length; where training starts.
    """

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.directions = nn.Parameter(directions.clone())

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return N×K scores of N×D embeddings."""
        return SCALE * F.linear(F.normalize(embeddings), F.normalize(self.directions))


@dataclass(frozen=True)
class Photos:
    """What is trained on: each photo as it is and under each attack.

    Attributes:
        versions: V tensors N×3×H×W of whole grey levels, uint8; the first are the natural photos.
        rows: class → the photos of its identity.
    """

    versions: tuple[Tensor, ...]
    rows: tuple[tuple[int, ...], ...]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return N×3×H×W photos in [0, 1] and their N classes.

        Each is an identity, one of its photos, one version of it, mirrored or not, all equally likely.
        """
        classes = torch.randint(len(self.rows), (count,), generator=generator)
        which = torch.rand(count, generator=generator).tolist()
        versions = torch.randint(len(self.versions), (count,), generator=generator).tolist()
        mirrored = torch.randint(2, (count,), generator=generator).tolist()
        photos = []
        for index, part, version, mirror in zip(classes.tolist(), which, versions, mirrored, strict=True):
            rows = self.rows[index]
            photo = self.versions[version][rows[int(part * len(rows))]]
            photos.append(photo.flip(-1) if mirror else photo)
        images = torch.stack(photos)
        return images.float() / GREY_LEVELS, classes.to(images.device)


class AdaptiveExtractor(Hardening):
    """Fine-tunes the tracker's whole backbone on natural photos and on their cloaks by attacks that anyone can run."""

    name: ClassVar[str] = "adaptive-extractor"
    paper: ClassVar[str] = (
        "Radiya-Dixit et al., Data Poisoning Won't Save You From Facial Recognition, ICLR 2022 (arXiv 2106.14851)"
    )

    class Params(MethodParams):
        """Parameters of `AdaptiveExtractor`."""

        attacks: tuple[str, ...] = Field(
            ("pgd:eps=15",),
            min_length=1,
            description="attacks whose cloaks it trains on, through the surrogates that they name, joined by ' & '",
            json_schema_extra={"method": "attacks"},
        )
        steps: int = Field(
            2000,
            ge=1,
            le=1_000_000,
            description="steps of AdamW; published: 5,000",
            json_schema_extra={"unit": "steps"},
        )
        photos: int = Field(
            1000,
            ge=2,
            le=100_000,
            description="photos of training identities that are cloaked and learnt from, at most",
            json_schema_extra={"unit": "photos"},
        )
        batch: int = Field(
            32, ge=1, le=1024, description="photos a step", json_schema_extra={"unit": "photos"}
        )
        learning_rate: float = Field(
            1e-4, gt=0, le=1, description="AdamW's at the first step; falls to 0 as a cosine"
        )

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self._attacks = public_attacks(self.params.attacks, self.name)

    def parts(self) -> tuple[Attack, ...]:
        """Return the attacks it trains on."""
        return self._attacks

    @property
    def core_seconds(self) -> float:
        """Those of the attacks together, for each photo."""
        return sum(attack.core_seconds for attack in self._attacks)

    @property
    def passes(self) -> int:
        """Those of the attacks together."""
        return sum(attack.passes for attack in self._attacks)

    @property
    def training_photos(self) -> int:
        """The photos asked for."""
        return self.params.photos

    def training_passes(self, photos: int) -> float:
        """Each photo once for the start, each photo of a step forward and back."""
        return photos + (1 + 1.5) * self.params.steps * self.params.batch

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Return the attacks it trains on."""
        del binding
        return tuple(factory.canonical(attack) for attack in self._attacks)

    def training_identities(self, binding: Binding) -> str:
        """Return the dataset's training identities."""
        return f"{binding.dataset}/training"

    def train(self, tracker: Backbone, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return the weights of the trained copy of the tracker's network; those of the softmax are left behind.

        Raises:
            UsageError: the backbone is a black box; or there are photos of one identity only.
            MethodError: the training diverges.
        """
        network = trained_copy(tracker, ctx.device)
        cloaking = len(faces) // 2  # counted as half of the work
        photos = Photos(self._versions(faces, ctx, cloaking), _rows_by_class(faces))
        head = Prototypes(class_means(network, photos)).to(ctx.device)

        def loss_of(step: int) -> Tensor:
            images, classes = photos.draw(self.params.batch, ctx.generator(self.name, str(step)))
            return F.cross_entropy(head(network(images)), classes)

        descent = Descent(self.name, self.params.steps, self.params.learning_rate, len(faces) - cloaking)
        descent.run({"network": network, "head": head}, loss_of, ctx)
        return weights_of(network)

    def _versions(self, faces: Faces, ctx: Context, images: int) -> tuple[Tensor, ...]:
        """Return the photos as they are and under each attack, as posted; photos that it leaves alone are as they are.

        Args:
            faces: the photos.
            ctx: with a context for each attack in `parts`.
            images: that the work is counted as.
        """
        advance = in_proportion(ctx.advance, len(self._attacks) * len(faces), images)
        return as_posted(faces.images), *cloaked(self._attacks, faces, ctx.parts, advance)

    def harden(self, tracker: Backbone, state: Mapping[str, Tensor]) -> Backbone:
        """Return the tracker's backbone with the trained weights."""
        return _hardened.harden(tracker, state)


def class_means(network: nn.Module, photos: Photos) -> Tensor:
    """Return the mean of the unit embeddings of each class's natural photos: K×D."""
    natural = photos.versions[0]
    with torch.no_grad():
        batches = (
            natural[i : i + MICRO_BATCH].float() / GREY_LEVELS for i in range(0, len(natural), MICRO_BATCH)
        )
        embeddings = torch.cat([F.normalize(network(batch)) for batch in batches])
    return torch.stack([embeddings[list(rows)].mean(0) for rows in photos.rows])


def _rows_by_class(faces: Faces) -> tuple[tuple[int, ...], ...]:
    """Return the photos of each identity, the identities sorted.

    Raises:
        UsageError: there is one identity only.
    """
    identities = sorted(set(faces.identities))
    if len(identities) < 2:
        raise UsageError(
            f"adaptive-extractor got {len(faces)} photos of one training identity, and a softmax needs two. Raise "
            "photos, or use a dataset with more training identities."
        )
    found: dict[str, list[int]] = {name: [] for name in identities}
    for row, name in enumerate(faces.identities):
        found[name].append(row)
    return tuple(tuple(rows) for rows in found.values())
