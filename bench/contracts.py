"""The contracts between the harness and its plugins.

What lives here: the types that cross the border (images with their ids, the context, cards) and one
abstract class per kind of plugin. What must not: anything about a particular method.

Images between parts are float32 tensors N×3×H×W, RGB, in [0, 1]. The harness rounds what leaves an attack
or a purifier to 8 bits; methods never do.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from bench.errors import UsageError
from bench.randomness import torch_generator

if TYPE_CHECKING:  # torch takes seconds and half a gigabyte, and who reads a finished run needs none of it
    import torch
    from torch import Tensor

CROP_SIZE = 112
"""Side in pixels of the aligned crop every part works on (ArcFace template)."""

MICRO_BATCH = 8
"""Images per forward pass inside a method, always padded to this many: kernels round differently for
different batch shapes, and sign steps amplify that, so the shape must not depend on ``--batch-size``."""

TRAINING_PHOTOS = 512
"""Photos of training identities that a method learns from at most, where it says nothing else."""

CONTRACT_VERSION = 1
"""Part of every key, in place of the code of this module and of `bench.run.pipeline`, `calls` and `graph`. Raise it
when a stored byte can differ though no method's or stage's code does: the contracts do something else, or stages are
put together in another way."""

CONTRACT = {"contract": CONTRACT_VERSION, "crop_size": CROP_SIZE, "micro_batch": MICRO_BATCH}
"""What every key holds of this module."""


class Frozen(BaseModel):
    """A pydantic model that cannot change and refuses fields it does not know."""

    # Built when it is first made: a command defines a hundred models and uses a few.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


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
        identities: identity id of each (an opaque id, never an identity's name).
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
        """Return the faces at `indices`, in that order.

        >>> import torch
        >>> faces = Faces(torch.zeros(3, 3, 112, 112), ("a/0", "a/1", "b/0"), ("a", "a", "b"))
        >>> faces.subset([2, 0]).ids
        ('b/0', 'a/0')
        """
        chosen = list(indices)
        return Faces(
            self.images[chosen],
            tuple(self.ids[i] for i in chosen),
            tuple(self.identities[i] for i in chosen),
        )

    def with_images(self, images: Tensor) -> Faces:
        """Return the same names over other pixels."""
        return Faces(images, self.ids, self.identities)


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@dataclass(frozen=True)
class Context:
    """Randomness, devices, helper models and progress: all that reaches a method from outside.

    Attributes:
        seed: the run's seed.
        device: where to compute.
        backbones: the surrogates (attack) or feature extractors (defence) the harness resolved from the
            method's pool; the tracker's backbone is among them only where the row says white-box.
        targets: faces of other identities, for attacks that imitate someone; never evaluated identities.
        state: what `fit` returned, empty where the method does not learn.
        files: the files `Method.files` named, in the same order.
        key: the secret of an erasable attack; the same for `Attack.cloak` and an authorised `Attack.erase`.
        advance: called with the number of images finished, for the progress bar.
        checkpoint: a file in which a long `train` or `fit` may keep itself: what it wrote there is there again when the
            same training is started anew after it was killed, and is removed once it is done. Not there at first; its
            folder is. None: nothing is kept.
        parts: the contexts of `Method.parts`, in the same order, each with its own backbones, files and seed: an
            attack that tries a defence must not know what the tracker's will draw.
        hardened: in the context of a `Hardening` that an attack is made of: the attack's surrogates (`backbones` of
            the attack's own context, same order), each hardened by that part as a tracker hardens its own backbone:
            trained, loaded, differentiable where the hardening's result is. Nothing calls `train` or `harden` of
            such a part again. () in every other context.
    """

    seed: int = 0
    device: torch.device = field(default_factory=_cpu)
    backbones: Sequence[Backbone] = ()
    targets: Faces | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    key: bytes = b""
    advance: Callable[[int], None] = lambda _n: None
    checkpoint: Path | None = None
    parts: tuple[Context, ...] = ()
    hardened: Sequence[Backbone] = ()

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
        parts: the bindings of `Method.parts`, in the same order.
    """

    dataset: str
    domain: str
    backbones: tuple[str, ...]
    tracker: str
    parts: tuple[Binding, ...] = ()


Convert = Callable[[tuple[Path, ...], Path], None]
"""Makes a file of the data folder (second argument, which does not exist yet) out of the publishers' files (first, in
the order of `Recipe.sources`). Deterministic: the same sources give the same bytes anywhere. Raises DataError where a
source is not what it should be."""


class Source(Frozen):
    """A file as its publisher hands it out."""

    name: str = Field(description="the publisher's name of it; a mirror holds it under this name")
    url: str = Field("", description="where anyone gets it; empty: only inside `package`")
    sha256: str = Field(
        "",
        pattern=r"^([0-9a-f]{8,64})?$",
        description="expected digest, or its first digits where no more is stated; empty: none is stated",
    )
    bytes: int = Field(0, ge=0, description="size; 0: not stated")
    package: str = Field(
        "", description="PACKAGE:PATH where an installed Python package carries the same file"
    )


class Recipe(Frozen):
    """One way to a file of the data folder."""

    sources: tuple[Source, ...] = Field(min_length=1)
    convert: Convert | None = Field(None, exclude=True, description="None: the only source is the file")


class AssetFile(Frozen):
    """One file that belongs in the data folder."""

    path: str = Field(description="inside the data folder")
    sha256: str = Field(pattern=r"^([0-9a-f]{64})?$", description="expected digest; empty: not pinned")
    bytes: int = Field(0, ge=0, description="size; 0: not stated")
    equivalents: tuple[str, ...] = Field(
        (),
        description="digests of other files that serve as well: the same network, written by another program",
    )
    recipes: tuple[Recipe, ...] = Field(
        (), description="ways to get it, the first that can be had; none known"
    )


class AssetEntry(Frozen):
    """A data set or a set of weights that is not shipped: ``bench fetch NAME`` gets it."""

    name: str
    kind: Literal["dataset", "weights"]
    what: str
    licence: str = Field(description="as stated by the source")
    source: str = Field("", description="where it comes from")
    files: tuple[AssetFile, ...]
    terms: str = Field(
        "", description="what its publisher asks to be agreed to before it is fetched; empty: nothing"
    )
    how: str = Field(description="how to get what has no public source of its own")
    collection: str = Field(
        "", description="of a dataset: how its publishers came by the photos, as they state"
    )
    biases: str = Field("", description="of a dataset: who is in it too often and who is missing, likewise")


class HealthCheck(Frozen):
    """The outcome of one look at an installation."""

    name: str = Field(description="what was looked at")
    state: Literal["ok", "missing", "broken"] = Field(
        description="ok; missing: can be added; broken: is there and does not work"
    )
    detail: str = Field(description="what was found")
    fix: str = Field("", description="how to get or repair it; empty where it is ok")
    needed: bool = Field(False, description="whether the embedded default cannot run without it")

    @classmethod
    def of_extra(cls, name: str, module: str, extra: str, serves: str) -> HealthCheck:
        """Return whether an optional package is installed.

        Args:
            name: what it is.
            module: what is imported of it.
            extra: of this project, that brings it.
            serves: what cannot be done without it.
        """
        here = importlib.util.find_spec(module) is not None
        return HealthCheck(
            name=name,
            state="ok" if here else "missing",
            detail=f"for {serves}",
            fix="" if here else f"pip install 'cloakbench[{extra}]'",
        )


class Method(ABC):  # noqa: B024 -- what is abstract is up to each kind
    """What attacks, defences, backbones, datasets and protocols share.

    Attributes:
        name: the registered name; a plugin has one.
        paper: citation, or "" for a plain baseline.
        Params: the pydantic model of the parameters.
        shorthand: the parameter a bare text stands for, as in ``folder:PHOTOS``; "" for none.
        required: parameters without which it cannot be made, though each has a default that says "none given".
        renamed: a parameter's former name → its name; the former one is accepted with a warning.
        joins: what stands between the names of its parts where these together are its name; "" where it has a
            name of its own.
        baseline: whether it is quick, needs no files and is known to everyone: examples compare others with it.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    shorthand: ClassVar[str] = ""
    required: ClassVar[tuple[str, ...]] = ()
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})
    joins: ClassVar[str] = ""
    baseline: ClassVar[bool] = False
    Params: ClassVar[type[MethodParams]] = MethodParams

    def __init__(self, params: MethodParams | None = None) -> None:
        self.params = self.Params() if params is None else params

    @property
    def given_name(self) -> str:
        """The name that tables carry in place of the canonical one, for a method that is a user's own file; or ""."""
        return ""

    @property
    def core_seconds(self) -> float:
        """About how many seconds of one core an image takes, the passes through helper backbones apart.

        Declared by the method and never measured, so that a plan is the same on every machine: a dear attack's photos
        are dealt into parts by it, and it stands in an estimate until this machine has timed the method. The factor
        of two that processors differ by does not matter. Like any code of a method it is in its keys. A class attribute
        will do where it is constant. By default the sum over the method's parts, or a hundredth.
        """
        return sum(part.core_seconds for part in self.parts()) or 0.01

    @property
    def passes(self) -> int:
        """How often an image goes forward and back through every helper backbone; by default as its dearest part."""
        return max((part.passes for part in self.parts()), default=0)

    @property
    def training_photos(self) -> int:
        """How many photos of training identities `fit` or `train` gets at most; by default as its greediest part."""
        return max((part.training_photos for part in self.parts()), default=TRAINING_PHOTOS)

    def pool(self) -> str | None:
        """Say which helper backbones the method wants.

        Returns:
            None for none of its own, ``auto`` for the dataset's pool without the tracker's group, else the name
            of a pool, or names joined by ``|``. A method of parts that says None has the helpers of its parts; an
            attack of those parts that are attacks.
        """
        return None

    def parts(self) -> tuple[Method, ...]:
        """Return the methods it is made of, the same objects at each call; () for most.

        Code, parameters, files and helpers of the parts decide the output too. What a method says of itself
        (`files`, `Defense.training_identities`) is without its parts, which are asked as well. Where an attack names a
        hardening, its surrogates are hardened by it before it makes a cloak (`Context.hardened`).
        """
        return ()

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name the files (weights) that decide the output in this cell; their digests enter the key.

        Raises:
            UsageError: no weights fit the binding; the message says how to get some.
        """
        del binding
        return ()

    def assets(self) -> tuple[AssetEntry, ...]:
        """Name what belongs in the data folder and is not shipped: ``bench fetch NAME`` gets it."""
        return ()

    def health_checks(self, binding: Binding) -> tuple[HealthCheck, ...]:
        """Look at what the method needs of the installation, for ``bench doctor``.

        Args:
            binding: of a cell of the embedded default.
        """
        del binding
        return ()


def with_parts(method: Method, binding: Binding) -> Iterator[tuple[Method, Binding]]:
    """Yield a method and all that it is made of, each with its binding, the whole before its parts."""
    yield method, binding
    for part, bound in zip(method.parts(), binding.parts, strict=True):
        yield from with_parts(part, bound)


class ThreatModel(Frozen):
    """Who knows what (DESIGN 6)."""

    goal: Literal["none", "untargeted", "targeted"] = Field(
        description="what the cloak wants the tracker to see"
    )
    surrogates: int = Field(0, ge=0, description="least number of surrogate backbones needed")
    needs_targets: bool = Field(False, description="needs a pool of other identities' faces")
    adapts_to: tuple[str, ...] = Field(
        (), description="canonical defences the attack knows and works against"
    )
    constraint: str = Field("", description="the visibility budget, in words and numbers")
    max_linf: float | None = Field(
        None, gt=0, le=255, description="budget the harness checks: largest change of a pixel, grey levels"
    )
    max_dssim: float | None = Field(
        None, gt=0, le=1, description="budget the harness checks: largest DSSIM after rounding to 8 bits"
    )

    @property
    def knows_defense(self) -> bool:
        """Whether it adapts to any defence."""
        return bool(self.adapts_to)


class Attack(Method):
    """Makes cloaks.

    >>> class Darker(Attack):
    ...     name = "darker"
    ...     threat = ThreatModel(goal="untargeted", constraint="a tenth darker")
    ...
    ...     def cloak(self, faces, ctx):
    ...         ctx.advance(len(faces))
    ...         return {name: 0.9 * image for name, image in zip(faces.ids, faces.images)}
    >>> import torch
    >>> faces = Faces(torch.ones(1, 3, 112, 112), ("a/0",), ("a",))
    >>> Darker().cloak(faces, Context())["a/0"].mean()
    tensor(0.9000)

    Attributes:
        changes_images: False where no photo is ever edited, so that nothing is computed or stored.
        requires_fit: whether `fit` must run before `cloak`.
        erasable: whether the authorised inverse exists.
        edits_others: True where it leaves the photos of who is protected as they are, and makes decoys of other
            identities' photos instead: `cloak` is given these, and in `Context.targets` the gallery photos of the one
            protected identity that they are to look like.
    """

    changes_images: ClassVar[bool] = True
    requires_fit: ClassVar[bool] = False
    erasable: ClassVar[bool] = False
    edits_others: ClassVar[bool] = False

    @property
    @abstractmethod
    def threat(self) -> ThreatModel:
        """The threat model under the parameters given; a class attribute will do where it is constant."""

    @property
    def made_elsewhere(self) -> MadeElsewhere | None:
        """What is declared of cloaks that somebody else made; None where the attack makes them here."""
        return None

    @property
    def scope(self) -> Literal["image", "identity"]:
        """What one cloak depends on: its own photo, or the identity's other gallery photos too.

        The harness never hands over part of a scope.
        """
        return "image"

    @property
    def cloaks_later_photos(self) -> bool:
        """Whether it can cloak a photo that is posted after the identity's others, as a query is."""
        return self.scope == "image"

    def fit(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Learn from training faces (a universal perturbation, a generator); returns named tensors.

        Args:
            faces: training identities only, never probes.
            ctx: with `backbones`, without `state`.
        """
        raise TypeError(f"{type(self).__name__} declares requires_fit = {self.requires_fit} and has no fit()")

    def training_identities(self, binding: Binding) -> str:
        """Say on whose photos its weights were trained: ``none``, ``<dataset>/training`` or ``unknown``.

        Unknown where it has files and does not say; what it learns in the run (`fit`) is not meant.
        """
        return "unknown" if self.files(binding) else "none"

    @abstractmethod
    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return edits to the gallery: image id → 3×H×W float32 in [0, 1].

        Args:
            faces: gallery photos of protected identities; whole scopes only.
            ctx: with the surrogates in `backbones`.
        """

    def assign_targets(self, faces: Faces, ctx: Context) -> Mapping[str, str]:
        """Return image id → identity id in `ctx.targets` whom the photo's cloak imitates.

        Needed of targeted attacks, for measures of impersonation; the same answer as `cloak` acts on.

        Args:
            faces: as for `cloak`.
            ctx: as for `cloak`.
        """
        raise TypeError(
            f"{type(self).__name__} declares goal = {self.threat.goal!r} and has no assign_targets()"
        )

    def erase(self, faces: Faces, key: bytes, ctx: Context) -> Tensor:
        """Return cloaked photos with their cloaks taken off: N×3×H×W float32 in [0, 1].

        Must work with the key that `cloak` found in `ctx.key` and fail with another, or with b"".

        Args:
            faces: cloaks as posted, rounded to 8 bits.
            key: what the caller takes for the secret; `ctx.key` is empty.
            ctx: with the surrogates in `backbones`.
        """
        raise TypeError(f"{type(self).__name__} declares erasable = {self.erasable} and has no erase()")


class PersonMask(Attack):
    """Learns one mask from photos of an identity and lays it on any photo of theirs, also on photos it has not seen.

    The harness learns the mask from the identity's gallery photos that its split calls cloaked, and lays it on these; a
    protocol that asks for cloaked probes gets these under the same mask.
    """

    @property
    def scope(self) -> Literal["image", "identity"]:
        """The identity."""
        return "identity"

    @property
    def cloaks_later_photos(self) -> bool:
        """True: the mask is there."""
        return True

    @abstractmethod
    def learn(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Learn the mask of an identity; returns named tensors.

        Args:
            faces: photos of one identity, at least one.
            ctx: with the surrogates in `backbones`.
        """

    @abstractmethod
    def apply(self, faces: Faces, mask: Mapping[str, Tensor], ctx: Context) -> Tensor:
        """Return photos under a mask: N×3×H×W float32 in [0, 1], each as it would be alone.

        Args:
            faces: photos of the identity, learnt from or not.
            mask: as `learn` returned it, on `ctx.device`.
            ctx: as for `learn`; no surrogate is needed.
        """

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return every photo given under its identity's mask, learnt from all that are given of that identity."""
        edits: dict[str, Tensor] = {}
        for identity in dict.fromkeys(faces.identities):
            own = faces.subset([row for row, name in enumerate(faces.identities) if name == identity])
            masked = self.apply(own, self.learn(own, ctx), ctx)
            edits.update(zip(own.ids, masked, strict=True))
        return edits

    def take_off(self, faces: Faces, mask: Mapping[str, Tensor], ctx: Context) -> Tensor:
        """Return photos with a mask taken off: N×3×H×W float32 in [0, 1]; where `erasable`, the mask is the key.

        Args:
            faces: cloaks as posted, rounded to 8 bits.
            mask: of the identity, or of another one, which must not do.
            ctx: as for `apply`.
        """
        raise TypeError(f"{type(self).__name__} declares erasable = {self.erasable} and has no take_off()")


@dataclass(frozen=True)
class MadeElsewhere:
    """What is declared of cloaks that somebody else made.

    Attributes:
        surrogates: networks that took part, by the harness' names where it has them; of others the declaration is taken
            that none is the tracker.
        dataset_fingerprint: of the dataset whose crops were cloaked (`Dataset.fingerprint`).
        targets: image id → identity id that its cloak imitates; {} where they imitate nobody in particular.
    """

    surrogates: tuple[str, ...]
    dataset_fingerprint: str
    targets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PublicCloaks:
    """Cloaks that a tracker makes itself of gallery photos, and trains on beside the photos.

    The harness makes them (`bench.run.pipeline`), of the photos as they are, never of an identity that is protected.

    Attributes:
        attacks: that anyone can run; among `Method.parts`, the same objects at each call.
        share: of the gallery identities that are not protected, at most, whose photos are cloaked so; in (0, 1].
    """

    attacks: tuple[Attack, ...]
    share: float


class Defense(Method):
    """What a tracker does to get the faces back. Subclass `Purifier` or `Hardening`.

    A class states the attributes; a defence made of others states them of itself when it is made. One that is neither a
    purifier nor a hardening declares what it is made of: `purifiers`, `hardening`, `public_cloaks`.

    Attributes:
        requires_fit: whether `fit` must run first.
        changes_images: False where images go through untouched, so that no copy of them is stored.
        deterministic: False where it draws random numbers.
        differentiable: whether gradients pass through it.
    """

    changes_images: ClassVar[bool] = True
    requires_fit: bool = False
    deterministic: bool = True
    differentiable: bool = False

    @property
    def purifiers(self) -> tuple[Purifier, ...]:
        """The purifiers whose image of each gallery photo the tracker keeps, the same objects at each call.

        One as a rule; () where photos are kept as they are; several where the tracker keeps several views of a photo,
        each an image of the same identity. Each is run as it is as a defence of its own: on the photos as they were
        scraped, with the cell's seed, so that both share what it makes.
        """
        return ()

    @property
    def hardening(self) -> Hardening | None:
        """What changes the tracker's backbone, the same object at each call; None where nothing does.

        It is trained as it is as a defence of its own, on photos that no purifier has touched.
        """
        return None

    @property
    def public_cloaks(self) -> PublicCloaks | None:
        """The cloaks of other identities that the tracker trains on too; None where it makes none.

        Only heads that train the network learn from them what a cloak does (`Protocol.end_to_end_heads`); a run of
        another head is refused.
        """
        return None

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Name the attacks the defence saw in training, canonical; () where it was not trained.

        By default those that its parts saw, where these are defences.
        """
        bound = zip(self.parts(), binding.parts, strict=True)
        seen = (part.trained_on(own) for part, own in bound if isinstance(part, Defense))
        return tuple(sorted({name for names in seen for name in names}))

    def training_identities(self, binding: Binding) -> str:
        """Say on whose photos it was trained: ``none``, ``<dataset>/training`` or ``unknown``."""
        del binding
        return "none"

    def fit(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Learn from training identities; returns named tensors (see `Attack.fit`)."""
        raise TypeError(f"{type(self).__name__} declares requires_fit = {self.requires_fit} and has no fit()")


class Purifier(Defense):
    """Maps images to images before the tracker trains."""

    @property
    def purifiers(self) -> tuple[Purifier, ...]:
        """Itself."""
        return (self,)

    @abstractmethod
    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return N×3×H×W float32 in [0, 1], one image for each given.

        It gets cloaked and natural training photos alike, without knowing which is which.
        """


class Detector(Purifier):
    """Gives the photos that it takes for cloaks to another purifier, and leaves the others as they are.

    The parameter `purifier`, marked ``json_schema_extra={"method": "defense"}``, names that purifier; a detector
    without one given is put before any (`bench.plugins.screening`).
    """

    @abstractmethod
    def flagged(self, faces: Faces, ctx: Context) -> Tensor:
        """Return N booleans: True for each photo that it takes for a cloak, and that `purify` purifies.

        Args:
            faces: photos as they were scraped, cloaked and natural alike.
            ctx: as for `purify`.
        """


class Hardening(Defense):
    """Changes the tracker itself: trains once (`train`, kept as an artefact), then answers as a backbone.

    Attributes:
        trains: False where there is nothing to train: a `Substitution`.
    """

    changes_images: ClassVar[bool] = False
    trains: ClassVar[bool] = True

    @property
    def hardening(self) -> Hardening | None:
        """Itself."""
        return self

    def training_passes(self, photos: int) -> float:
        """Say how many photos `train` sends forward through the tracker, about; a pass back counts as one and a half.

        Declared as `core_seconds` is, for the estimate and the time limit of a training. By default a hundred epochs.

        Args:
            photos: that `train` is given.
        """
        return 100 * photos

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


class Substitution(Hardening):
    """Has the tracker embed with other backbones, in the place of its own or together with it. Nothing is trained.

    The backbones it names are its `parts`. The harness loads them and embeds photos with each as where that backbone is
    a tracker without a defence, so that both share the embeddings; no seed counts.
    """

    trains: ClassVar[bool] = False

    @abstractmethod
    def embeds_with(self, tracker: Backbone) -> tuple[Backbone, ...]:
        """Return the backbones that photos are embedded with: the tracker's own, parts, or both, none of them twice.

        Args:
            tracker: what the cell's tracker has, or, for an attack that knows this defence, one of its surrogates; not
                loaded.
        """

    def refuse(self, tracker: Backbone) -> str:
        """Say why this is no defence of a tracker with that backbone, or return "". Checked at plan time."""
        del tracker
        return ""

    def fuse(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Return one embedding for each photo, N×D, differentiable with respect to those of several backbones.

        Args:
            embeddings: N×D_k of each backbone of `embeds_with`, in that order. One alone is never fused.
        """
        raise TypeError(f"{type(self).__name__} embeds with {len(embeddings)} backbones and has no fuse()")

    def train(self, tracker: Backbone, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Raise TypeError: there is nothing to train."""
        raise TypeError(f"{type(self).__name__} declares trains = {self.trains}")

    def harden(self, tracker: Backbone, state: Mapping[str, Tensor]) -> Backbone:
        """Raise TypeError: the harness makes the backbone (`bench.run.substitution`)."""
        raise TypeError(f"{type(self).__name__} declares trains = {self.trains}")


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
    far_low: float | None = Field(
        None, ge=0, le=1, description="lower end of the 95 % interval of the FAR, bootstrap over identities"
    )
    far_high: float | None = Field(None, ge=0, le=1, description="upper end")
    source: str = Field(description="command or file that calibrated it")


class BackboneCard(Frozen):
    """What is known about one set of FR weights."""

    name: str
    file: str = Field("", description="path of the weights inside the data folder or the package")
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="of the weights; empty: not pinned")
    equivalents: tuple[str, ...] = Field(
        (), description="digests of other files of the same network, whose embeddings are within 1e-5"
    )
    released: str = Field(
        "",
        pattern=r"^(\d{4}(-\d{2}(-\d{2})?)?)?$",
        description="when the weights were published: YYYY[-MM[-DD]]",
    )
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
        differentiable: whether gradients pass through `embed`; a backbone that finds out when it is loaded says so of
            itself then.
        black_box: why they do not, as a clause; "" where they do or no more is to be said.
        how: how to get the weights, in a sentence or two; "" where no more is known than the card's source.
        recipes: ways to get the file of the card, the first that can be had; () where none is known.
        terms: what the publisher of the weights asks to be agreed to before they are fetched, "" for nothing.
        accuracy_fuses_mirrored: whether the card's accuracy is of a photo's embedding and its mirror image's, added.
        accuracy_unlike: why the card's accuracy is not to be compared with one measured here, "" where it is.
    """

    card: BackboneCard
    differentiable: bool = True
    black_box: str = ""
    how: ClassVar[str] = ""
    recipes: ClassVar[tuple[Recipe, ...]] = ()
    terms: ClassVar[str] = ""
    accuracy_fuses_mirrored: ClassVar[bool] = False
    accuracy_unlike: ClassVar[str] = ""

    @property
    def core_seconds(self) -> float:
        """See `Method.core_seconds`: of one embedding, forward only; by default a mobile network's."""
        return 0.02

    def assets(self) -> tuple[AssetEntry, ...]:
        """Return the entry of the card's file; none where its path is a bare name: it ships with its package."""
        card = self.card
        if len(PurePosixPath(card.file).parts) < 2:
            return ()
        how = self.how or (
            ""
            if self.recipes
            else f"The file was made from {card.source or 'a source the card does not state'}; it has no public "
            "source of its own. Take it from a copy somebody has: --from URL_OR_FOLDER."
        )
        return (
            AssetEntry(
                name=card.name,
                kind="weights",
                what=f"{card.embedding_dim}-dimensional backbone, trained on: {card.training_data}",
                licence=card.licence,
                source=card.source,
                files=(
                    AssetFile(
                        path=card.file,
                        sha256=card.sha256,
                        equivalents=card.equivalents,
                        recipes=self.recipes,
                    ),
                ),
                terms=self.terms,
                how=how,
            ),
        )

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Read the weights onto `device`; checks their digest. Called once, before the first embed.

        Raises:
            DataError: the weights are missing or not those of the card; the message says the fix.
        """

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return N×D float32 embeddings (not normalised), differentiable with respect to `images`."""

    def embed_batch(self, images: Tensor) -> Tensor:
        """Return embeddings without gradient, by the fastest path; same values to rounding."""
        import torch

        with torch.inference_mode():
            return self.embed(images)

    def trainable(self, device: torch.device) -> torch.nn.Module:
        """Return a copy of the network with its preprocessing, in training mode, whose parameters can be trained.

        It maps N×3×112×112 images in [0, 1] to N×D embeddings; training it leaves this backbone as it is.

        Raises:
            UsageError: the backbone is a black box; the message names heads that do without.
        """
        del device
        raise UsageError(
            f"backbone '{self.card.name}' cannot be trained: {type(self).__name__} has no trainable network. "
            "Use a head that keeps the backbone as it is."
        )


class BackbonePool(Frozen):
    """Backbones that serve as surrogates and extractors for each other, in groups that never mix.

    For a tracker in one group the helpers are those of the other groups: no method ever sees a relative of
    the backbone it is measured on. A tracker outside the pool gets the first group. In a pool of siblings
    (`within`) it is the other way round: the helpers are the others of the tracker's own group.

    A pool grows by `trackers`, so that what was measured with its groups keeps its helpers.
    """

    name: str
    groups: tuple[tuple[str, ...], ...]
    trackers: tuple[str, ...] = Field(
        (), description="members of no group: measured against the first one, and never helpers themselves"
    )
    within: bool = Field(False, description="helpers are of the tracker's own group, without the tracker")

    def helpers(self, tracker: str) -> tuple[str, ...]:
        """Return the names of the helpers for `tracker`, sorted; () for one outside a pool of siblings.

        >>> BackbonePool(name="two", groups=(("a", "b"), ("c",))).helpers("a")
        ('c',)
        >>> BackbonePool(name="two", groups=(("a", "b"), ("c",)), within=True).helpers("a")
        ('b',)
        >>> BackbonePool(name="two", groups=(("a", "b"), ("c",)), trackers=("d",)).helpers("d")
        ('a', 'b')
        """
        if self.within:
            return tuple(sorted({n for group in self.groups if tracker in group for n in group} - {tracker}))
        if any(tracker in group for group in self.groups):
            return tuple(sorted(n for group in self.groups if tracker not in group for n in group))
        return tuple(sorted(self.groups[0]))


class ChannelGrid(Frozen):
    """What may happen to photos between posting and scraping, as a protocol tries it: registered beside the pools."""

    chains: tuple[str, ...] = Field(
        min_length=1,
        description="purifiers chained by '+', with ';' between a purifier's parameters; none: nothing happens",
    )


@dataclass(frozen=True)
class Identity:
    """One identity of a dataset.

    Attributes:
        id: opaque id, e.g. ``lfw-00123``; tables carry it instead of a name.
        photos: image ids, in the dataset's own order.
        role: whether the identity is evaluated or serves training and calibration.
    """

    id: str
    photos: tuple[str, ...]
    role: Literal["evaluation", "training"]


class DevelopmentRule(Frozen):
    """Which training identities are evaluated in place of others under ``--split development`` (`bench.run.roles`).

    They are at most as many as are evaluated otherwise, each with at most as many photos as one of those has.
    """

    least_photos: int = Field(
        6, ge=2, description="photos they have; fewer where an evaluated identity has fewer"
    )
    share: float = Field(
        2 / 3,
        gt=0,
        lt=1,
        description="how many, of the training identities with so many photos; the others stay",
    )


class Dataset(Method):
    """Faces of identities.

    Attributes:
        domain: kind of faces (``real``, ``synthetic``).
        default_pool: name of the pool that ``auto`` stands for.
        note: a caution printed with every table, or "".
        impostors_only: whether nobody in it is evaluated: photos for training and calibration, each of an identity of
            its own.
        development: who is evaluated when choices are made.
        version: raised by one when other photos, identities or crops come of the same parameters: rates of before and
            after are of two tasks (`bench.run.task`).
    """

    version: ClassVar[int] = 1
    domain: ClassVar[str] = "real"
    default_pool: ClassVar[str] = "real"
    note: ClassVar[str] = ""
    impostors_only: ClassVar[bool] = False
    development: ClassVar[DevelopmentRule] = DevelopmentRule()

    @abstractmethod
    def identities(self) -> tuple[Identity, ...]:
        """Return every identity, sorted by id. Reads no pixels."""

    def check(self) -> None:
        """Verify that every photo can be read, before any work; datasets of fixed content need not.

        Raises:
            DataError: names the first bad file and the fix.
        """

    def identities_in(self, corpus: str) -> frozenset[str] | None:
        """Return the ids of the identities whose photos are in what backbones' cards call `corpus`.

        Returns:
            None where nothing says so.

        Raises:
            DataError: the dataset's files are not here.
        """
        del corpus
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest of everything that decides the crops (photos, landmarks, parameters)."""

    @abstractmethod
    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8 aligned crops of the images named.

        Raises:
            DataError: a photo cannot be read or has no face; the message names the file.
        """

    def whole_photo(self, image: str) -> WholePhoto:
        """Return the photo that a crop was cut out of; by default there is none.

        Args:
            image: id of one of its images.

        Raises:
            UsageError: the dataset has crops alone.
            DataError: as `crops`.
        """
        raise UsageError(f"dataset {self.name} has aligned crops and no whole photos, '{image}' neither.")


@dataclass(frozen=True)
class WholePhoto:
    """A photo, and where in it the face lies whose crop a dataset gives.

    Attributes:
        pixels: H×W×3 uint8 RGB, upright.
        points: 5×2 float64 (x, y) in pixels, in the order of `bench.faces.alignment.TEMPLATE`; what
            `bench.faces.alignment.align` makes of both is the crop, to the byte.
    """

    pixels: Any
    points: Any


class Posting(Frozen):
    """What becomes of a whole photo from where it is posted to the crop that a tracker makes of it."""

    scale: float = Field(1.0, gt=0, le=1, description="its sides are made this share of what they were")
    quality: int | None = Field(
        None, ge=1, le=100, description="libjpeg's quality it is then compressed with; None: it is not"
    )
    detected: bool = Field(
        False,
        description="whether the tracker looks for the face, and lacks the photo where it finds none; else it aligns "
        "by the landmarks that the crop was made with",
    )


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
    """Which photos the tracker trains on, which it must recognise, and when each identity is protected.

    Attributes:
        gallery: identity id → image ids the tracker trains on.
        probes: identity id → image ids it must recognise.
        fold: identity id → the rotation in which this identity is protected (0 … folds − 1).
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


PhotoSet = Literal["gallery", "probes", "impostors", "targets"]


class View(Frozen):
    """A set of photos a protocol wants embedded in every cell, and what happened to them on the way.

    A photo is cloaked, posted through a channel, scraped, defended, embedded, in this order.
    """

    photos: PhotoSet = Field(
        description="gallery or probes of the split; impostors: `Protocol.impostors`, identities that are not "
        "evaluated; targets: the identities a targeted attack imitates"
    )
    state: Literal["natural", "cloaked", "erased"] = Field(
        "natural",
        description="cloaked: the photos of `Split.cloaked`, or every probe, as posted; of impostors all, with the "
        "decoys of an attack that edits others' photos; erased: the same after the attack's `erase`",
    )
    key: Literal["right", "wrong", "none"] = Field("right", description="key an erased view was erased with")
    channel: str = Field(
        "", description="what happens between posting and scraping: purifiers joined by '+'; empty: nothing"
    )
    defended: bool = Field(True, description="whether it goes through the defence")
    posting: Posting | None = Field(
        None,
        description="the whole photo is posted, cloaks pasted back into it, and what is scraped is a crop of that; "
        "photos without a face that is found are missing. None: the aligned crop itself is posted",
    )

    @model_validator(mode="after")
    def _one_way_to_post(self) -> View:
        if self.posting is not None and (self.channel or self.state == "erased"):
            raise ValueError("a view of whole photos has no channel of crops and is not erased")
        return self

    @model_serializer(mode="wrap")
    def _without_posting(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave a field out that most views do not use: it is in keys that were made before it was there."""
        found: dict[str, Any] = fields(self)
        return found if self.posting is not None else {k: v for k, v in found.items() if k != "posting"}


@dataclass(frozen=True)
class Trial:
    """What a protocol may know of one cell besides its views.

    Attributes:
        split: as `Protocol.split` returned it.
        head: one of `Protocol.heads`.
        impostors: as `Protocol.impostors` returned it.
        target_assignment: image id → identity id imitated by its cloak (`Attack.assign_targets`); empty
            unless the attack is targeted and a view asks for ``targets``.
        seed: the cell's seed.
        faces: view's name → its photos as the tracker sees them; only for heads in `Protocol.end_to_end_heads`.
        tracker: loads and returns the tracker's backbone, hardened where the defence does that; likewise.
        device: where to compute.
    """

    split: Split
    head: str
    impostors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    target_assignment: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    faces: Mapping[str, Faces] = field(default_factory=dict)
    tracker: Callable[[], Backbone] | None = None
    device: torch.device = field(default_factory=_cpu)


class ConditionFacts(Frozen):
    """What a reader must know of one condition besides its decisions."""

    threshold: float | None = Field(None, description="accept when the score is at least this")
    rate_name: str = Field("", description="what the threshold was set for, e.g. FAR or FPIR")
    rate_wanted: float | None = Field(None, ge=0, le=1, description="that rate as requested")
    rate: float | None = Field(None, ge=0, le=1, description="that rate as measured where it was set")
    rate_low: float | None = Field(
        None, ge=0, le=1, description="lower end of its 95 % interval, bootstrap over identities"
    )
    rate_high: float | None = Field(None, ge=0, le=1, description="upper end")
    pairs: int | None = Field(None, ge=0, description="comparisons it was calibrated on")
    identities: int | None = Field(
        None, ge=0, description="identities it was calibrated on, none of them evaluated"
    )
    gallery_cloaked: float | None = Field(
        None,
        ge=0,
        le=1,
        description="where a tracker's gallery grows: share of the photos under a protected identity's name in the end "
        "that are cloaks",
    )
    gallery_cloaked_low: float | None = Field(None, ge=0, le=1, description="lower end of its 95 % interval")
    gallery_cloaked_high: float | None = Field(None, ge=0, le=1, description="upper end")
    gallery_missed: float | None = Field(
        None,
        ge=0,
        le=1,
        description="where faces are looked for in whole photos: share of a protected identity's gallery photos in "
        "which none is found",
    )
    gallery_missed_low: float | None = Field(None, ge=0, le=1, description="lower end of its 95 % interval")
    gallery_missed_high: float | None = Field(None, ge=0, le=1, description="upper end")
    probes_missed: float | None = Field(
        None, ge=0, le=1, description="the same of an identity's probes, which then are not recognised"
    )
    probes_missed_low: float | None = Field(None, ge=0, le=1, description="lower end of its 95 % interval")
    probes_missed_high: float | None = Field(None, ge=0, le=1, description="upper end")
    reason: str = Field("", description="why there is no threshold or no decision")


@dataclass(frozen=True)
class Decided:
    """The answers of one cell.

    Attributes:
        rows: pandas DataFrame with the columns of `bench.run.decisions.SCHEMA`.
        conditions: condition → facts; every condition of `rows`, and those that gave none with the reason.
    """

    rows: Any
    conditions: Mapping[str, ConditionFacts] = field(default_factory=lambda: {"": ConditionFacts()})


class Protocol(Method):
    """Takes galleries, probes and a tracker; returns decisions.

    A protocol with one question leaves the column ``condition`` empty; one that asks several (a rank, a
    threshold, a degradation) names each there, and every condition becomes a row of the leaderboard.

    Attributes:
        heads: names of the tracker's heads it offers.
        end_to_end_heads: those among them that need the photos and the tracker, not embeddings.
        question: the condition that a report's key results are about, or how it begins before a comma (at whatever
            threshold it is asked); "" for the first one that is ranked.
        version: raised by one when the same parameters deal other photos or decide otherwise: rates of before and after
            are of two tasks (`bench.run.task`).
        several_views: whether a view that goes through the defence may hold several rows of one photo's id, for a
            defence of several `Defense.purifiers`; a run of one and a protocol that does not say so is refused.
    """

    heads: ClassVar[tuple[str, ...]]
    end_to_end_heads: ClassVar[tuple[str, ...]] = ()
    question: ClassVar[str] = ""
    version: ClassVar[int] = 1
    several_views: ClassVar[bool] = False

    @property
    @abstractmethod
    def views(self) -> Mapping[str, View]:
        """Name what the protocol wants embedded."""

    @property
    def restored(self) -> Mapping[str, str]:
        """Condition → view whose photos are compared with the originals (``restored_psnr`` …); none as a rule."""
        return {}

    def refuse(self, attack: Attack, defense: Defense) -> str:
        """Say why the protocol cannot measure this combination, or return "". Checked at plan time."""
        del attack, defense
        return ""

    def deployed(self, defense: Defense) -> Defense:
        """Return what the tracker has in place of a cell's defence; by default the very defence.

        The cell keeps the defence's name; what its row says of training and helpers is of what is returned.

        Args:
            defense: one that `refuse` let pass.
        """
        return defense

    @abstractmethod
    def split(self, identities: Sequence[Identity], split_seed: int) -> Split:
        """Deal evaluated identities into gallery, probes and folds.

        Raises:
            UsageError: an identity has too few photos; names the identity, the number and the fix.
        """

    def impostors(self, identities: Sequence[Identity], split_seed: int) -> Mapping[str, tuple[str, ...]]:
        """Deal photos of training identities: distractors, impostors; identity id → image ids.

        Args:
            identities: those of role ``training``.
            split_seed: the same for all cells of a dataset.

        Raises:
            UsageError: too few identities; the message says how many there are.
        """
        del identities, split_seed
        return {}

    def given_targets(
        self, split: Split, impostors: Mapping[str, tuple[str, ...]], pool: Sequence[str], split_seed: int
    ) -> Mapping[str, str]:
        """Say whom cloaks imitate where that is not for the attack to draw: identity id → identity id; {} as a rule.

        An attack that needs targets gets photos of that one identity. An evaluated identity imitates one of role
        ``training`` with two photos or more; an impostor, whose photos an attack that edits others' photos makes
        decoys of, imitates an evaluated one.

        Args:
            split: as `split` returned it.
            impostors: as `impostors` returned it.
            pool: the identities of role ``training`` with two photos or more, those with most photos first.
            split_seed: the same for all cells of a dataset.

        Raises:
            UsageError: it cannot be done with these; names the fix.
        """
        del split, impostors, pool, split_seed
        return {}

    def training_passes(self, photos: int) -> float:
        """Say how many photos one training of an end-to-end head sends forward through the tracker, about.

        Declared as `Hardening.training_passes` is, for the estimate and the time limit of a cell; a pass back counts as
        one and a half. By default a hundred epochs.

        Args:
            photos: of the gallery, as the head gets them.
        """
        return 100 * photos

    @abstractmethod
    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the answers of one cell.

        Args:
            views: view's name → embeddings by the tracker's backbone, in any order. A defence may have
                dropped gallery photos; of `several_views` each is a row, all of them under the photo's id.
            trial: all else that is known of the cell.
        """


@dataclass(frozen=True)
class TrainingIdentities:
    """Whom a training learns from.

    Attributes:
        name: what a card says of them, e.g. ``lfw/training``.
        identities: all of role ``training``.
    """

    name: str
    identities: tuple[Identity, ...]


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
        cloaks: folder where training cloaks are kept for other trainings; None: with the checkpoint.
        learnt_from: whom to learn from and measure on; None: all the dataset's identities of role ``training``.
    """

    dataset: Dataset
    out: Path
    attacks: tuple[Attack, ...] = ()
    backbones: tuple[Backbone, ...] = ()
    seed: int = 0
    device: torch.device = field(default_factory=_cpu)
    report: Callable[[str, int, int], None] = lambda _what, _done, _total: None
    cloaks: Path | None = None
    learnt_from: TrainingIdentities | None = None


class Trainer(Method):
    """Makes weights the project ships, or a user's own (`bench train`)."""

    needs_attacks: ClassVar[bool] = False
    needs_backbones: ClassVar[bool] = False

    @abstractmethod
    def train(self, request: TrainRequest) -> Mapping[str, Any]:
        """Train, write weights and card, return the card. Resumes from its checkpoint where there is one."""
