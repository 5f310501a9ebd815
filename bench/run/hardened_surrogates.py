"""An attack that has the recipe of a hardening: each of its surrogates hardened as a tracker hardens its own backbone.

The training of a surrogate is an artefact of the run (`bench.run.stages.fit.Fit`), the very one that is made where that
backbone is itself a tracker under that hardening with that seed.

A module of its own, so that no key of an attack that knows no hardening holds its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

from bench.contracts import Attack, Backbone, Context, Faces, Method
from bench.run.bound import BoundMethod, Plugin, Tracker
from bench.run.code_hashes import code_digest
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads

Place = tuple[int, ...]
"""Where a part stands: the index among the parts of the whole, among the parts of that part, and so on."""


@dataclass(frozen=True)
class PartPlugin(Plugin[Any]):
    """A part of a plugin, with the text that the whole was built from.

    Attributes:
        path: where it stands in the whole.
    """

    path: Place = ()

    @classmethod
    def inside(cls, whole: Plugin[Any], path: Place) -> PartPlugin:
        """Return a part of a plugin."""
        part: Method = reduce(lambda method, index: method.parts()[index], path, whole.method)
        own = whole.path if isinstance(whole, PartPlugin) else ()
        return cls(whole.kind, whole.text, part, (*own, *path))

    def __reduce__(self) -> tuple[Any, ...]:
        return _part, (self.kind, self.text, self.path)


def _part(kind: str, text: str, path: Place) -> PartPlugin:
    return PartPlugin.inside(Plugin.of(kind, text), path)


class HardenedSurrogates(Sequence[Backbone]):
    """Surrogates that are hardened when first looked at, and kept as long as their context is.

    Args:
        trackers: a surrogate each, as a tracker hardens it.
        machine: where to compute.
        payloads: what the hardenings learnt is among them.
    """

    def __init__(self, trackers: Sequence[Tracker], machine: Machine, payloads: Payloads) -> None:
        self._trackers = tuple(trackers)
        self._machine = machine
        self._payloads = payloads

    @cached_property
    def _loaded(self) -> tuple[Backbone, ...]:
        return tuple(tracker.on(self._machine, self._payloads) for tracker in self._trackers)

    def __len__(self) -> int:
        return len(self._trackers)

    def __getitem__(self, index: Any) -> Any:
        return self._loaded[index]


@dataclass(frozen=True, eq=False)
class RecipeAttack(BoundMethod[Attack]):
    """An attack as it works in a cell, with its surrogates hardened by each hardening that it knows.

    Attributes:
        hardened: (where the hardening stands among the attack's parts, its surrogates under it) for each.
    """

    hardened: tuple[tuple[Place, tuple[Tracker, ...]], ...] = field(default=())

    @property
    def learnt(self) -> tuple[Node, ...]:
        """What each hardening learnt on each surrogate, as inputs of a stage, in the order of `hardened`."""
        trainings = (node for _, trackers in self.hardened for each in trackers for node in each.learnt)
        return (*super().learnt, *trainings)

    @cached_property
    def _key_fields(self) -> dict[str, Any]:
        # The trainings themselves are inputs of the stage, by address and in order; what trains nothing is not.
        untrained = [one.key_fields() for _, trackers in self.hardened for one in trackers if not one.learnt]
        own = {**self._fields_of(self.method, self.binding), "hardened": code_digest(RecipeAttack)}
        return {**own, "substituted": untrained} if untrained else own

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
        """Return the context it works in, the hardened surrogates in those of its hardenings."""
        ctx = super().context(machine, payloads, advance, targets=targets, key=key, draws=draws)
        for path, trackers in self.hardened:
            ctx = _lent(ctx, path, HardenedSurrogates(trackers, machine, payloads))
        return ctx


def _lent(ctx: Context, path: Place, hardened: Sequence[Backbone]) -> Context:
    """Return a context in which the part at `path` has hardened surrogates."""
    if not path:
        return replace(ctx, hardened=hardened)
    index, *rest = path
    part = _lent(ctx.parts[index], tuple(rest), hardened)
    return replace(ctx, parts=(*ctx.parts[:index], part, *ctx.parts[index + 1 :]))
