"""Plugins as a plan binds them: with the helper backbones, weights and seed they have in a cell.

All are plain data that can be pickled: a plugin travels as its text and is built anew where it arrives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Generic, TypeVar, cast

import safetensors.torch

from bench.contracts import Attack, Backbone, Binding, Context, Faces, Hardening, Method
from bench.data.files import sha256_of
from bench.plugins import factory
from bench.randomness import stream_seed
from bench.run import calls
from bench.run.code_hashes import code_digest
from bench.run.device import Machine
from bench.run.graph import Advance, FieldsOnly, Node, Payloads

M_co = TypeVar("M_co", bound=Method, covariant=True)

DESCRIPTIVE = frozenset(
    {
        "licence",
        "source",
        "training_data",
        "domain",
        "family",
        "lfw_accuracy",
        "note",
        "thresholds",
        "equivalents",
        "released",
    }
)
"""Fields of a card that say where weights come from; they decide marks in a row, not a byte of an embedding."""


@dataclass(frozen=True)
class Plugin(Generic[M_co]):
    """A plugin with the text it was built from.

    Attributes:
        kind: of plugin, in the plural.
        text: what `bench.plugins.factory.create` makes it from.
        method: the instance; another process makes its own.
    """

    kind: str
    text: str
    method: M_co = field(compare=False, repr=False)

    @classmethod
    def of(cls, kind: str, text: str) -> Plugin[Any]:
        """Return the plugin that a text describes."""
        return cls(kind, text, cast("M_co", factory.create(kind, text)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Plugin.of, (self.kind, self.text)

    @property
    def name(self) -> str:
        """Its canonical name."""
        return factory.canonical(self.method)


@dataclass(frozen=True)
class BoundBackbone(FieldsOnly):
    """A backbone whose weights were found.

    Attributes:
        name: as the plan calls it.
        plugin: the backbone.
        binding: the dataset's name and domain.
    """

    name: str
    plugin: Plugin[Backbone]
    binding: Binding

    @cached_property
    def key_fields(self) -> Mapping[str, Any]:
        """What decides its embeddings: card, code and weights."""
        backbone = self.plugin.method
        return {
            "name": self.name,
            "class": type(backbone).__qualname__,
            "card": backbone.card.model_dump(mode="json", exclude=set(DESCRIPTIVE)),
            "code": code_digest(type(backbone), *factory.modules_of(backbone)),
            "weights": [backbone.card.sha256, *map(sha256_of, backbone.files(self.binding))],
        }

    @property
    def core_seconds(self) -> float:
        """About how long one core takes for an image, as the backbone declares."""
        return self.plugin.method.core_seconds

    def on(self, machine: Machine) -> Backbone:
        """Return it loaded onto the machine's device, once."""
        if self.name not in machine.loaded:
            machine.keep(self.name, self.fresh(machine))
        return machine.loaded[self.name]

    def fresh(self, machine: Machine) -> Backbone:
        """Return it loaded for one user alone, who may change it."""
        backbone: Backbone = Plugin.of(self.plugin.kind, self.plugin.text).method
        calls.load(backbone, machine.device)
        return backbone


class Helpers(Sequence[Backbone]):
    """Helper backbones that are loaded when first looked at: a purifier with weights never looks."""

    def __init__(self, backbones: Sequence[BoundBackbone], machine: Machine) -> None:
        self._backbones = tuple(backbones)
        self._machine = machine

    def __len__(self) -> int:
        return len(self._backbones)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Helpers(self._backbones[index], self._machine)
        return self._backbones[index].on(self._machine)


@dataclass(frozen=True, eq=False)
class BoundMethod(FieldsOnly, Generic[M_co]):
    """An attack or a defence as it works in a cell.

    Attributes:
        plugin: the method.
        binding: dataset, tracker and names of helper backbones.
        backbones: name → helper backbone, of the method and of its parts.
        seed: of its randomness.
        fitted: what it learnt; None where it learns nothing.
    """

    plugin: Plugin[M_co]
    binding: Binding
    backbones: Mapping[str, BoundBackbone]
    seed: int
    fitted: Node | None = None

    @property
    def method(self) -> M_co:
        """The method itself."""
        return self.plugin.method

    @property
    def learnt(self) -> tuple[Node, ...]:
        """What it learnt, as an input of a stage."""
        return () if self.fitted is None else (self.fitted,)

    @property
    def label(self) -> str:
        """Its canonical name, with its helpers in brackets."""
        helpers = "|".join(self.binding.backbones)
        return f"{self.plugin.name} ({helpers})" if helpers else self.plugin.name

    @property
    def core_seconds(self) -> float:
        """About how long one core takes for an image, by what the method and its helpers declare."""
        helpers = sum(self.backbones[name].core_seconds for name in self.binding.backbones)
        backward = 1.5  # of a pass back, in passes forward
        return self.method.core_seconds + self.method.passes * (1 + backward) * helpers

    def key_fields(self, *, draws: bool = True) -> Mapping[str, Any]:
        """Return what decides what it computes: parameters, code, weights, helpers, parts, seed.

        Args:
            draws: whether it draws random numbers, so that the seed counts.
        """
        return {**self._key_fields, "seed": self.seed if draws else None}

    @cached_property
    def _key_fields(self) -> Mapping[str, Any]:
        return self._fields_of(self.method, self.binding)

    def _fields_of(self, method: Method, binding: Binding) -> dict[str, Any]:
        found = {
            "method": factory.canonical(method),
            "class": type(method).__qualname__,
            "params": method.params.model_dump(mode="json"),
            "code": code_digest(type(method), *factory.modules_of(method)),
            "files": [sha256_of(path) for path in method.files(binding)],
            "helpers": [self.backbones[name].key_fields for name in binding.backbones],
        }
        if binding.parts:
            bound = zip(method.parts(), binding.parts, strict=True)
            found["parts"] = [self._fields_of(part, own) for part, own in bound]
        return found

    def context(
        self,
        machine: Machine,
        payloads: Payloads,
        advance: Advance = lambda _images: None,
        *,
        targets: Faces | None = None,
        key: bytes | None = None,
        draws: bool = True,
    ) -> Context:
        """Return the context it works in.

        Args:
            machine: where to compute.
            payloads: `learnt` among them.
            advance: called with the number of images finished; by default the harness counts them itself.
            targets: whom an attack may imitate.
            key: the secret it gets if it is erasable; None for the run's.
            draws: as in `key_fields`; without, it gets the same seed in every run.
        """
        own = secret(self.seed, "key") if key is None else key
        learnt = safetensors.torch.load(payloads[self.fitted.address]) if self.fitted else {}
        return Context(
            **self._reach(self.method, self.binding, self.seed if draws else 0, machine, targets, own),
            state={name: value.to(machine.device) for name, value in learnt.items()},
            advance=advance,
        )

    def _reach(
        self, method: Method, binding: Binding, seed: int, machine: Machine, targets: Faces | None, key: bytes
    ) -> dict[str, Any]:
        """Return the fields of a context, those of parts with it."""
        # A part has a stream of its own: two parts that draw must not draw the same, nor may an attack that tries
        # a random defence know what the tracker's will draw.
        parts = (
            self._reach(part, own, stream_seed(seed, "part", str(index)), machine, targets, key)
            for index, (part, own) in enumerate(zip(method.parts(), binding.parts, strict=True))
        )
        return {
            "seed": seed,
            "device": machine.device,
            "backbones": Helpers([self.backbones[name] for name in binding.backbones], machine),
            "targets": targets,
            "files": method.files(binding),
            "key": key if isinstance(method, Attack) and method.erasable else b"",
            "parts": tuple(Context(**part) for part in parts),
        }


@dataclass(frozen=True)
class Tracker:
    """A tracker's backbone, hardened where the defence does that."""

    backbone: BoundBackbone
    hardening: BoundMethod[Hardening] | None = None

    @property
    def learnt(self) -> tuple[Node, ...]:
        """What the hardening learnt, as an input of a stage."""
        return self.hardening.learnt if self.hardening else ()

    @property
    def label(self) -> str:
        """Its name as an identity reads it."""
        name = self.backbone.name
        return f"{name} hardened by {self.hardening.plugin.name}" if self.hardening else name

    def key_fields(self) -> Mapping[str, Any]:
        """Return what decides its embeddings."""
        hardening = self.hardening.key_fields() if self.hardening else None
        return {"backbone": self.backbone.key_fields, "hardening": hardening}

    def on(self, machine: Machine, payloads: Payloads) -> Backbone:
        """Return it loaded; `learnt` is among the payloads."""
        backbone = self.backbone.on(machine)
        if self.hardening is None:
            return backbone
        (fitted,) = self.hardening.learnt
        state = safetensors.torch.load(payloads[fitted.address])
        return calls.harden(self.hardening.method, backbone, state)


def helper_names(binding: Binding) -> Iterator[str]:
    """Yield the names of the helper backbones of a method and of its parts."""
    yield from binding.backbones
    for part in binding.parts:
        yield from helper_names(part)


def secret(seed: int, stream: str) -> bytes:
    """Return the 32-byte secret of an erasable attack in a run, or another one for another stream."""
    return sha256(f"{seed}/{stream}".encode()).digest()
