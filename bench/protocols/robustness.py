"""Robustness: what is left of a cloak after what happens to photos online."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from bench.contracts import (
    Attack,
    ConditionFacts,
    Decided,
    Defense,
    Embedded,
    Purifier,
    Trial,
    View,
)
from bench.errors import UsageError, unknown
from bench.plugins import factory, registry
from bench.protocols._answers import decisions_by_fold
from bench.protocols._rotation import Gallery, Probes, Rotation, RotationParams
from bench.protocols.heads import make_head

NOTHING = "none"
"""The chain that changes nothing, as it is written in the parameter."""

NO_CHANNEL = "no channel"
"""Its condition."""

GRID = "online"
"""The registered `bench.contracts.ChannelGrid` whose chains are the default."""


def default_chains() -> tuple[str, ...]:
    """Return the chains of `GRID`."""
    return registry.CHANNELS.load(GRID).chains


class RobustnessProtocol(Rotation):
    """Protocol ``tracker`` with a gallery that went through a channel before it was scraped, one after another."""

    name = "robustness"
    heads = ("nn", "centroid")
    question = "no channel"
    several_views = True

    class Params(RotationParams):
        """How photos are dealt and what happens to them."""

        channels: tuple[str, ...] = Field(
            default_factory=default_chains,
            min_length=1,
            description="what happens to posted photos, one condition each: purifiers chained by '+', chains "
            "joined by '|', ';' in place of ',' between a purifier's parameters; none: nothing happens",
        )

        @field_validator("channels")
        @classmethod
        def _canonical(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(canonical_chain(chain) for chain in channels))

    params: Params

    @property
    def views(self) -> Mapping[str, View]:
        """The gallery after each channel, natural and cloaked, and clean probes."""
        views = {"probes": View(photos="probes", defended=False)}
        for chain in self.params.channels:
            channel = "" if chain == NOTHING else chain.replace(";", ",")
            views[f"gallery, {chain}"] = View(photos="gallery", channel=channel)
            views[f"cloaked gallery, {chain}"] = View(photos="gallery", state="cloaked", channel=channel)
        return views

    def refuse(self, attack: Attack, defense: Defense) -> str:
        """Refuse a random defence that is part of a channel: both would draw the same numbers for a photo."""
        del attack
        drawing = {type(purifier) for purifier in defense.purifiers if not purifier.deterministic}
        for chain in self.params.channels if drawing else ():
            if any(type(part) in drawing for part in _purifiers(chain)):
                return (
                    f"the defence and the channel '{chain}' would draw the same random numbers for a photo and "
                    "add up in step. Leave the channel out, or use another defence."
                )
        return ""

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the decision for every probe in every rotation after each channel; see protocol ``tracker``.

        Raises:
            UsageError: the head is not known.
            MethodError: a probe is missing, or embeddings are not finite.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        head, rows, conditions = make_head(trial.head), [], {}
        for chain in self.params.channels:
            gallery = Gallery.of(views[f"gallery, {chain}"], views[f"cloaked gallery, {chain}"], trial.split)
            probes = Probes.of(views["probes"], views["probes"], trial.split, gallery.identities)
            condition = NO_CHANNEL if chain == NOTHING else chain
            conditions[condition] = ConditionFacts()
            rows += [found.assign(condition=condition) for found in decisions_by_fold(head, gallery, probes)]
        return Decided(pd.concat(rows, ignore_index=True), conditions)


def canonical_chain(chain: str) -> str:
    """Return a chain of purifiers in the one form that tables carry: ``resize:side=96+jpeg:quality=71``.

    Parameters are sorted and defaults dropped, as in every method's name, with ';' between parameters. A
    step that changes nothing is left out; ``none`` where no step is left.

    Raises:
        UsageError: an unknown method or parameter, one that is not a purifier, is trained or given by a
            file, or a random one twice.
    """
    steps = [step for step in _purifiers(chain) if step.changes_images]
    kinds = [type(step) for step in steps if not step.deterministic]
    if len(kinds) > len(set(kinds)):
        raise UsageError(
            f"the channel '{chain}' has a random purifier twice, which would draw the same numbers both times. "
            "Use it once."
        )
    return "+".join(_written(step) for step in steps) or NOTHING


def _purifiers(chain: str) -> list[Purifier]:
    steps = []
    for text in chain.split("+"):
        step = factory.defense(text.strip().replace(";", ","))
        if not isinstance(step, Purifier):
            raise UsageError(
                f"'{text}' in the channel '{chain}' is not a purifier; see `bench list defenses`."
            )
        if step.requires_fit or step.pool() is not None:
            raise UsageError(
                f"'{text}' in the channel '{chain}' is trained, which no service does to a photo. Give it as "
                "a defence."
            )
        steps.append(step)
    return steps


def _written(step: Purifier) -> str:
    text = factory.canonical(step)
    known = step.name in registry.DEFENSES.entries()
    if not known or factory.defense(text).params != step.params:
        raise UsageError(
            f"'{text}' cannot be part of a channel: its name alone does not describe it. Use registered "
            "purifiers without paths among their parameters."
        )
    return text.replace(",", ";")
