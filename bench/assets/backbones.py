"""Which registered backbones can be used on this machine, and how to get the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bench.contracts import Backbone, BackboneCard, Binding, Frozen
from bench.data.files import data_folder
from bench.errors import BenchError
from bench.plugins import factory, registry

State = Literal["here", "absent", "by hand", "broken"]
"""absent: ``bench fetch`` gets it; by hand: only its user can; broken: a file is there that is not the card's."""


class BackboneState(Frozen):
    """A backbone and whether it can be used."""

    card: BackboneCard
    state: State
    fix: str = ""
    terms: str = ""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return self.card.name


def states() -> tuple[BackboneState, ...]:
    """Return the state of every registered backbone but those that are a user's own file, sorted by name.

    Reads the files that are there, to check their digests.
    """
    known = (state_of(name) for name in registry.BACKBONES.entries())
    return tuple(state for state in known if state is not None)


def state_of(name: str) -> BackboneState | None:
    """Return the state of a registered backbone; None where it is nothing without a file of the user's."""
    if registry.BACKBONES.load(name).required:
        return None
    backbone = factory.backbone(name)
    card = backbone.card
    try:
        backbone.files(Binding("", card.domain, (), card.name))
    except BenchError as error:
        return BackboneState(
            card=card, state=_why_not(backbone), fix=str(error), terms=" ".join(_terms(backbone))
        )
    return BackboneState(card=card, state="here")


def _why_not(backbone: Backbone) -> State:
    files = [file for entry in backbone.assets() for file in entry.files]
    if any((data_folder() / file.path).is_file() for file in files):
        return "broken"
    return "absent" if files and all(file.recipes for file in files) else "by hand"


def _terms(backbone: Backbone) -> Sequence[str]:
    return [entry.terms for entry in backbone.assets() if entry.terms]
