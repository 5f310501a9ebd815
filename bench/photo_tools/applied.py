"""A method applied to somebody's own photos, outside any run: which backbones, targets and weights it works with.

They are those of a run on some dataset whose tracker nobody knows: the pool's first group of backbones, or the first
of its groups' complements that the method has weights for, and the dataset's training people as targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from bench.assets.catalogue import catalogue
from bench.assets.doctor import EMBEDDED
from bench.contracts import (
    Attack,
    BackbonePool,
    Binding,
    Context,
    Defense,
    PersonMask,
    Purifier,
    with_parts,
)
from bench.data.files import data_folder, sha256_of
from bench.errors import UsageError
from bench.faces.pixels import decode_pixels
from bench.photo_tools.keys import Secret
from bench.plugins import factory, registry
from bench.quality.lpips import Unavailable
from bench.run.code_hashes import code_digest
from bench.run.device import Machine, use_device
from bench.run.graph import Executor
from bench.run.pipeline import Pipeline
from bench.run.resolve import Resolved, resolve
from bench.run.spec import make_spec
from bench.run.store import Store, default_folder

MethodT = TypeVar("MethodT", bound=Attack | Purifier)

_NOBODY = ""
"""Name of a tracker that nobody knows."""


@dataclass(frozen=True)
class MethodRequest:
    """Which method is requested, and what it works with.

    Attributes:
        method: its text; of defences several joined by ``+``.
        backbones: surrogates, or extractors; empty: those its pool gives against an unknown tracker.
        dataset: whose pool, training people and domain count; empty: LFW where it is there, else synthetic.
        seed: of the method's randomness.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: threads torch computes with; None for all cores.
        store: where targets' faces, and what the method learnt, are kept; None for the default.
    """

    method: str
    backbones: tuple[str, ...] = ()
    dataset: str = ""
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    store: Path | None = None


class Applied(ABC, Generic[MethodT]):
    """A method with everything it works with.

    Args:
        requested: which, and with what.

    Raises:
        UsageError: an unknown method, one that changes no photo, no fitting weights, or backbones it does not take.
        DataError: data are missing.
    """

    kind: ClassVar[Literal["attacks", "defenses"]]
    by_person = False
    """Whether all photos of a person are changed together."""

    def __init__(self, requested: MethodRequest) -> None:
        self.text = factory.normal(self.kind, requested.method)
        self.dataset_text = requested.dataset or default_dataset()
        self.seed = requested.seed
        self._requested = requested
        spec = {self.kind: (self.text,), "dataset": self.dataset_text, "seeds": (requested.seed,)}
        run = resolve(make_spec(spec))
        self.name, self.method = self._chosen(run)
        self.run: Resolved = with_weights(run, self.method, requested.backbones)
        self.binding: Binding = self.run.binding(self.method, _NOBODY)
        self.backbones = self.binding.backbones
        self.weights = tuple(sha256_of(path) for path in files_of(self.method, self.binding))

    @abstractmethod
    def _chosen(self, run: Resolved) -> tuple[str, MethodT]:
        """Return the method's canonical name and the method.

        Raises:
            UsageError: it is none that changes photos.
        """

    @property
    @abstractmethod
    def code(self) -> str:
        """The digest of its code."""

    @property
    def note(self) -> str:
        """The dataset's caution, where backbones, weights or other people's faces make it count; or ""."""
        imitates = isinstance(self.method, Attack) and self.method.threat.needs_targets
        counts = self.backbones or self.weights or self.method.requires_fit or imitates
        return self.run.dataset.note if counts else ""

    @cached_property
    def _pipeline(self) -> Pipeline:
        device, threads = use_device(self._requested.device, self._requested.threads)
        return Pipeline(self.run, Machine(device, threads, 1, Unavailable("not measured here")))

    @cached_property
    def _executor(self) -> Executor:
        return Executor(Store(self._requested.store or default_folder()), self._pipeline.machine)

    def _context(self, **given: Any) -> Context:
        """Return the method's context, with what it learnt; computed where it is not stored."""
        bound = self._pipeline.method(self.kind, self.name, _NOBODY, self.seed)
        learnt = {node.address: self._executor.fetch(node) for node in bound.learnt}
        return bound.context(self._pipeline.machine, learnt, **given)


class AppliedAttack(Applied[Attack]):
    """An attack with everything it works with."""

    kind = "attacks"

    def __init__(self, requested: MethodRequest) -> None:
        super().__init__(requested)
        self.by_person = self.method.scope == "identity"
        named = requested.backbones
        if named and set(named) != set(self.backbones):
            takes = f"uses {', '.join(self.backbones)}" if self.backbones else "uses no surrogates"
            raise UsageError(
                f"{self.name} {takes}, not {', '.join(named)}: leave out --backbone, or the attack's own parameter."
            )

    def _chosen(self, run: Resolved) -> tuple[str, Attack]:
        name = run.spec.attacks[0]
        return name, run.attacks[name]

    def check_surrogates_are_there(self) -> None:
        """Look for the weights of every surrogate; `Attack.erase` may do without them.

        Raises:
            DataError: some are missing.
        """
        self.surrogate_weights()

    def surrogate_weights(self) -> tuple[str, ...]:
        """Return the digest of each file of the surrogates' weights.

        Raises:
            DataError: some are missing.
        """
        dataset, domain = self.run.spec.dataset, self.run.dataset.domain
        return tuple(
            sha256_of(path)
            for name in self.backbones
            for path in factory.backbone(name).files(Binding(dataset, domain, (), name))
        )

    @property
    def code(self) -> str:
        """The digest of its code."""
        stage = "apply_masks" if isinstance(self.method, PersonMask) else "cloak"
        return code_digest(type(self.method), f"bench.run.stages.{stage}")

    def context(self, key: bytes | None) -> Context:
        """Return the context for `Attack.cloak`, or for `Attack.erase`.

        Args:
            key: the secret to cloak with, empty where the attack has none; None to erase.

        Raises:
            UsageError: the dataset has no people to imitate or learn from, or the device is not there.
            DataError: photos of theirs are missing.
            NodeError: what the attack learns could not be made.
        """
        targets = None
        if key is not None and self.method.threat.needs_targets:
            faces = self._executor.fetch(self._pipeline.training_faces("targets"))
            targets = decode_pixels(faces).faces(self._pipeline.machine.device)
        return self._context(targets=targets, key=Secret(key or b""))


class AppliedDefense(Applied[Purifier]):
    """A purifier with everything it works with."""

    kind = "defenses"

    def _chosen(self, run: Resolved) -> tuple[str, Purifier]:
        name = run.spec.defenses[0]
        defense = run.defenses[name]
        if not isinstance(defense, Purifier):
            raise UsageError(f"defence '{name}' {_no_purifier(defense)}; see `bench list defenses`.")
        if not defense.changes_images:
            raise UsageError(f"defence '{name}' changes no photo, so that nothing would be purified.")
        return name, defense

    @property
    def code(self) -> str:
        """The digest of its code, and of that of its parts."""
        return code_digest(type(self.method), *map(type, self.method.parts()), "bench.run.stages.purify")

    def context(self) -> Context:
        """Return the context for `Purifier.purify`.

        Raises:
            UsageError: the dataset has no people to learn from, or the device is not there.
            DataError: photos of theirs are missing.
            NodeError: what the defence learns could not be made.
        """
        return self._context()


def _no_purifier(defense: Defense) -> str:
    """Return why a defence does not make one photo of one, and what to give instead."""
    purifiers = [factory.canonical(each) for each in defense.purifiers if each.changes_images]
    if not purifiers:
        return "changes the tracker, not photos. Give a purifier"
    what = "makes several photos of one" if len(defense.purifiers) > 1 else "changes the tracker too"
    return f"{what}. Give one of its purifiers: {', '.join(purifiers)}"


def with_weights(run: Resolved, method: Attack | Defense, named: tuple[str, ...] = ()) -> Resolved:
    """Return the run with the helpers named, or the first of its pool that the method has its files for.

    First those against an unknown tracker, then those against each group's trackers: weights are trained for these.

    Args:
        run: with the dataset's pool.
        method: an attack or defence of the run.
        named: helpers by name; () to choose.

    Raises:
        UsageError: there are none.
    """
    if named:
        return replace(run, pool=BackbonePool(name="given", groups=(tuple(named),)))
    refusal: UsageError | None = None
    trackers = (_NOBODY, *(group[0] for group in run.pool.groups))
    for names in dict.fromkeys(map(run.pool.helpers, trackers)):
        candidate = replace(run, pool=BackbonePool(name=run.pool.name, groups=(names,)))
        try:
            files_of(method, candidate.binding(method, _NOBODY))
        except UsageError as error:
            refusal = refusal or error
        else:
            return candidate
    raise refusal or UsageError(f"the pool {run.pool.name} has no backbones. Name some with --backbone.")


def files_of(method: Attack | Defense, binding: Binding) -> tuple[Path, ...]:
    """Return the files that decide what a method, and all that it is made of, computes.

    Raises:
        UsageError: no weights fit the binding.
    """
    return tuple(path for part, own in with_parts(method, binding) for path in part.files(own))


def default_dataset() -> str:
    """Return the first dataset of the catalogue whose photos are in the data folder, else the embedded default."""
    there = (entry.name for entry in catalogue("dataset") if (data_folder() / entry.files[0].path).is_file())
    return next(there, EMBEDDED)


def erasable_attacks() -> tuple[str, ...]:
    """Return the names of the registered attacks whose cloaks can be erased."""
    return tuple(name for name in registry.ATTACKS.entries() if registry.ATTACKS.load(name).erasable)
