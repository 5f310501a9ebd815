"""The contracts between the harness and its plugins.

What lives here: the types that cross the border (images with their ids, the context, cards) and one
abstract class per kind of plugin. What must not: anything about a particular method.

Images between parts are float32 tensors N×3×H×W, RGB, in [0, 1]. The harness rounds what leaves an attack
or a purifier to 8 bits; methods never do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bench.randomness import torch_generator

CROP_SIZE = 112
"""Side in pixels of the aligned crop every part works on (ArcFace template)."""

MICRO_BATCH = 8
"""Images per forward pass inside a method, always padded to this many: kernels round differently for
different batch shapes, and sign steps amplify that, so the shape must not depend on ``--batch-size``."""


class Frozen(BaseModel):
    """A pydantic model that cannot change and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodParams(Frozen):
    """Base of a method's parameters.

    Each field carries its type, default, range (``ge``/``le``), unit (``json_schema_extra={"unit": …}``)
    and description; the command line's help, the docs, the canonical name and the cache key derive from it.
    """


@dataclass(frozen=True)
class Faces:
    """A batch of aligned face crops with their names.

    Attributes:
        images: N×3×H×W float32 RGB in [0, 1].
        ids: image id of each, unique within a dataset.
        identities: identity id of each (an opaque id, never a person's name).
    """

    images: Tensor
    ids: tuple[str, ...]
    identities: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.ids) == len(self.identities):
            raise ValueError(
                f"{len(self.images)} images, {len(self.ids)} ids, {len(self.identities)} identities"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: Sequence[int]) -> Faces:
        """Return the faces at `indices`, in that order."""
        chosen = list(indices)
        return Faces(
            self.images[chosen],
            tuple(self.ids[i] for i in chosen),
            tuple(self.identities[i] for i in chosen),
        )

    def with_images(self, images: Tensor) -> Faces:
        """Return the same names over other pixels."""
        return Faces(images, self.ids, self.identities)


@dataclass(frozen=True)
class Context:
    """Randomness, devices, helper models and progress: all that reaches a method from outside.

    Attributes:
        seed: the run's seed.
        device: where to compute.
        backbones: the surrogates (attack) or feature extractors (defence) the harness resolved from the
            method's pool; the tracker's backbone is among them only where the row says white-box.
        targets: faces of other people, for attacks that imitate someone; never evaluated identities.
        state: what `fit` returned, empty where the method does not learn.
        files: the files `Method.files` named, in the same order.
        advance: called with the number of images finished, for the progress bar.
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    backbones: Sequence[Backbone] = ()
    targets: Faces | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    advance: Callable[[int], None] = lambda _n: None

    def generator(self, stage: str, item: str) -> torch.Generator:
        """Return the CPU generator of (seed, stage, image or identity id)."""
        return torch_generator(self.seed, stage, item)


@dataclass(frozen=True)
class Binding:
    """What the plan resolved for one method in one cell, before anything is loaded.

    Attributes:
        dataset: canonical name of the dataset.
        domain: the kind of faces, e.g. ``real`` or ``synthetic``; weights are made for one domain.
        backbones: names of the surrogates or extractors, sorted.
        tracker: name of the tracker's backbone.
    """

    dataset: str
    domain: str
    backbones: tuple[str, ...]
    tracker: str


class Method(ABC):
    """What attacks, defences, backbones, datasets and protocols share.

    Attributes:
        name: the registered name.
        paper: citation, or "" for a plain baseline.
        Params: the pydantic model of the parameters.
        shorthand: the parameter a bare text stands for, as in ``folder:PHOTOS``; "" for none.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    shorthand: ClassVar[str] = ""
    Params: ClassVar[type[MethodParams]] = MethodParams

    def __init__(self, params: MethodParams | None = None) -> None:
        self.params = self.Params() if params is None else params

    def pool(self) -> str | None:
        """Say which helper backbones the method wants.

        Returns:
            None for none, ``auto`` for the dataset's pool without the tracker's group, else names joined
            by ``|``.
        """
        return None

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name the files (weights) that decide the output in this cell; their digests enter the key.

        Raises:
            UsageError: no weights fit the binding; the message says how to get some.
        """
        del binding
        return ()


class ThreatModel(Frozen):
    """Who knows what (DESIGN 6)."""

    goal: Literal["none", "untargeted", "targeted"] = Field(
        description="what the cloak wants the tracker to see"
    )
    surrogates: int = Field(0, ge=0, description="least number of surrogate backbones needed")
    needs_targets: bool = Field(False, description="needs a pool of other people's faces")
    knows_defense: bool = Field(False, description="adapts to a defence it knows")
    constraint: str = Field("", description="the visibility budget, in words and numbers")


class Attack(Method):
    """Makes cloaks.

    Attributes:
        changes_images: False where no photo is ever edited, so that nothing is computed or stored.
        learns: whether `fit` must run before `cloak`.
        erasable: whether the authorised inverse exists.
    """

    changes_images: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    erasable: ClassVar[bool] = False

    @property
    @abstractmethod
    def threat(self) -> ThreatModel:
        """The threat model under the parameters given; a class attribute will do where it is constant."""

    @property
    def scope(self) -> Literal["image", "identity"]:
        """What one cloak depends on: its own photo, or the person's other gallery photos too.

        The harness never hands over part of a scope.
        """
        return "image"

    def fit(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Learn from training faces (a universal perturbation, a generator); returns named tensors.

        Args:
            faces: training identities only, never probes.
            ctx: with `backbones`, without `state`.
        """
        raise TypeError(f"{type(self).__name__} declares learns = {self.learns} and has no fit()")

    @abstractmethod
    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return edits to the gallery: image id → 3×H×W float32 in [0, 1].

        Args:
            faces: gallery photos of protected people; whole scopes only.
            ctx: with the surrogates in `backbones`.
        """


class Defense(Method):
    """What a tracker does to get the faces back. Subclass `Purifier` or `Hardening`.

    Attributes:
        learns: whether `fit` must run first.
        changes_images: False where images go through untouched, so that no copy of them is stored.
        deterministic: False where it draws random numbers.
        differentiable: whether gradients pass through it.
    """

    changes_images: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Name the attacks the defence saw in training, canonical; () where it was not trained."""
        del binding
        return ()

    def training_identities(self, binding: Binding) -> str:
        """Say on whose photos it was trained: ``none``, ``<dataset>/training`` or ``unknown``."""
        del binding
        return "none"

    def fit(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Learn from training identities; returns named tensors (see `Attack.fit`)."""
        raise TypeError(f"{type(self).__name__} declares learns = {self.learns} and has no fit()")


class Purifier(Defense):
    """Maps images to images before the tracker trains."""

    @abstractmethod
    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return N×3×H×W float32 in [0, 1], one image for each given.

        It gets cloaked and natural training photos alike and is not told which is which.
        """


class Hardening(Defense):
    """Changes the tracker itself: trains once (`train`, kept as an artefact), then answers as a backbone."""

    changes_images: ClassVar[bool] = False

    @abstractmethod
    def train(self, tracker: Backbone, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return what it learnt on training identities `faces`, as named tensors.

        Args:
            tracker: the tracker's backbone, loaded.
            faces: training identities only, never evaluated ones.
            ctx: with the extractors in `backbones`.
        """

    @abstractmethod
    def harden(self, tracker: Backbone, state: Mapping[str, Tensor]) -> Backbone:
        """Return the backbone the tracker uses instead; `state` is what `train` returned."""


class Preprocessing(Frozen):
    """How a backbone wants its pixels; travels with the weights, never with the caller.

    From a 112×112 aligned crop in [0, 1]: take `crop`, resize to height×width if it differs, order the
    channels, then (255·x − mean) · scale.
    """

    height: int = Field(CROP_SIZE, ge=16, le=1024, description="input height in pixels")
    width: int = Field(CROP_SIZE, ge=16, le=1024, description="input width in pixels")
    crop: tuple[int, int, int, int] | None = Field(
        None, description="top, left, height, width taken from the 112×112 crop; all of it when absent"
    )
    mean: float = Field(127.5, ge=0, le=255, description="subtracted, in grey levels")
    scale: float = Field(1 / 128, gt=0, description="multiplied after the mean is subtracted")
    channels: Literal["RGB", "BGR"] = Field("RGB", description="channel order of the network's input")


class Threshold(Frozen):
    """A decision threshold calibrated for a backbone."""

    far: float = Field(gt=0, lt=1, description="false-accept rate it was set for")
    cosine: float = Field(ge=-1, le=1, description="accept when the cosine is at least this")
    pairs: int = Field(gt=0, description="impostor pairs it was calibrated on")
    source: str = Field(description="command or file that calibrated it")


class BackboneCard(Frozen):
    """What is known about one set of FR weights."""

    name: str
    file: str = Field("", description="path of the weights inside the data folder or the package")
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="of the weights; empty: not pinned")
    licence: str = Field(description="as stated by the source")
    source: str = Field("", description="where the weights come from")
    training_data: str = Field("unknown", description="as stated by the source, else 'unknown'")
    domain: str = Field("real", description="kind of faces it was trained for")
    family: str = Field("", description="backbones of one family are marked related")
    embedding_dim: int = Field(gt=0)
    alignment: str = Field("arcface-112", description="template of the aligned crop")
    preprocessing: Preprocessing = Field(default_factory=Preprocessing)
    thresholds: tuple[Threshold, ...] = ()
    lfw_accuracy: float | None = Field(
        None, ge=0, le=1, description="10-fold, as the source of the weights states"
    )
    embed_with: Literal["torch", "onnxruntime"] = Field(
        "torch", description="the faster on a CPU, for embedding only"
    )
    note: str = ""


class Backbone(Method):
    """An FR model's embedding network: image → vector.

    Attributes:
        card: licence, data, preprocessing, dimension, thresholds.
    """

    card: BackboneCard
    differentiable: ClassVar[bool] = True

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Read the weights onto `device`; checks their digest. Called once, before the first embed.

        Raises:
            DataError: the weights are missing or not those of the card; the message says the mend.
        """

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return N×D float32 embeddings (not normalised), differentiable with respect to `images`."""

    def embed_batch(self, images: Tensor) -> Tensor:
        """Return embeddings without gradient, by the fastest path; same values to rounding."""
        with torch.inference_mode():
            return self.embed(images)


class BackbonePool(Frozen):
    """Backbones that serve as surrogates and extractors for each other, in groups that never mix.

    For a tracker in one group the helpers are those of the other groups: no method ever sees a relative of
    the backbone it is measured on. A tracker outside the pool gets the first group.
    """

    name: str
    groups: tuple[tuple[str, ...], ...]

    def helpers(self, tracker: str) -> tuple[str, ...]:
        """Return the names of the helpers for `tracker`, sorted."""
        if any(tracker in group for group in self.groups):
            return tuple(sorted(n for group in self.groups if tracker not in group for n in group))
        return tuple(sorted(self.groups[0]))


@dataclass(frozen=True)
class Identity:
    """One person of a dataset.

    Attributes:
        id: opaque id, e.g. ``lfw-00123``; tables carry it instead of a name.
        photos: image ids, in the dataset's own order.
        role: whether the person is evaluated or serves training and calibration.
    """

    id: str
    photos: tuple[str, ...]
    role: Literal["evaluation", "training"]


class Dataset(Method):
    """Faces of people.

    Attributes:
        domain: kind of faces (``real``, ``synthetic``).
        default_pool: name of the pool that ``auto`` stands for.
        note: a caution printed with every table, or "".
    """

    domain: ClassVar[str] = "real"
    default_pool: ClassVar[str] = "real"
    note: ClassVar[str] = ""

    @abstractmethod
    def identities(self) -> tuple[Identity, ...]:
        """Return every identity, sorted by id. Reads no pixels."""

    def check(self) -> None:
        """Verify that every photo can be read, before any work; datasets of fixed content need not.

        Raises:
            DataError: names the first bad file and the mend.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest of everything that decides the crops (photos, landmarks, parameters)."""

    @abstractmethod
    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8 aligned crops of the images named.

        Raises:
            DataError: a photo cannot be read or has no face; the message names the file.
        """


@dataclass(frozen=True)
class Embedded:
    """Embeddings with their names.

    Attributes:
        vectors: N×D float32.
        ids: image ids.
        identities: identity ids.
    """

    vectors: Any
    ids: tuple[str, ...]
    identities: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Which photos the tracker trains on, which it must recognise, and when each person is protected.

    Attributes:
        gallery: identity id → image ids the tracker trains on.
        probes: identity id → image ids it must recognise.
        fold: identity id → the rotation in which this person is protected (0 … folds − 1).
        cloaked: identity id → the gallery image ids that are cloaked in that rotation.
    """

    gallery: Mapping[str, tuple[str, ...]]
    probes: Mapping[str, tuple[str, ...]]
    fold: Mapping[str, int]
    cloaked: Mapping[str, tuple[str, ...]]

    @property
    def folds(self) -> int:
        """The number of rotations."""
        return 1 + max(self.fold.values())


@dataclass(frozen=True)
class Views:
    """All a protocol may see of one cell: embeddings after attack and defence, by the tracker's backbone.

    Attributes:
        gallery_natural: every gallery photo, natural, defended.
        gallery_cloaked: every photo of `Split.cloaked`, cloaked, defended.
        probes_natural: every probe as it is used for people who are not protected.
        probes_protected: every probe as it is used for a person while protected (the same unless the
            protocol says ``probes=cloaked``).
    """

    gallery_natural: Embedded
    gallery_cloaked: Embedded
    probes_natural: Embedded
    probes_protected: Embedded


class Protocol(Method):
    """Takes galleries, probes and a tracker; returns decisions.

    Attributes:
        heads: names of the tracker's heads it offers.
    """

    heads: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def probes(self) -> Literal["clean", "cloaked", "purified"]:
        """What happens to probes before they are embedded."""

    @abstractmethod
    def split(self, identities: Sequence[Identity], split_seed: int) -> Split:
        """Deal evaluated identities into gallery, probes and folds.

        Raises:
            UsageError: a person has too few photos; names the person, the number and the mend.
        """

    @abstractmethod
    def decide(self, views: Views, split: Split, head: str) -> Any:
        """Return one row a decision as a pandas DataFrame with the columns of `bench.decisions.SCHEMA`."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What `bench train KIND` hands to a trainer.

    Attributes:
        dataset: its *training* identities are used, never the evaluated ones.
        out: the ``.safetensors`` file to write; its card goes beside it as ``.json``; checkpoints too.
        attacks: attacks to train against, instantiated.
        backbones: surrogates and feature extractors, loaded.
        seed: seeds everything.
        device: where to compute; the CPU by default.
        report: called with (what, steps done, steps in all) for the progress bar.
    """

    dataset: Dataset
    out: Path
    attacks: tuple[Attack, ...] = ()
    backbones: tuple[Backbone, ...] = ()
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Callable[[str, int, int], None] = lambda _what, _done, _total: None


class Trainer(Method):
    """Makes weights the project ships, or a user's own (`bench train`)."""

    needs_attacks: ClassVar[bool] = False
    needs_backbones: ClassVar[bool] = False

    @abstractmethod
    def train(self, request: TrainRequest) -> Mapping[str, Any]:
        """Train, write weights and card, return the card. Resumes from its checkpoint where there is one."""
