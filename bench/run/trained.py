"""Which methods of a cell have trained parts, and whether a run's seed trains them anew.

A claim about a trained part needs several trainings (DESIGN 7). What lives here: where a method's weights come from.
What must not: how many trainings a claim has behind it (`bench.analysis.training_seeds`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from bench.contracts import Attack, Binding, Defense, Hardening, with_parts
from bench.run.spec import Cell

if TYPE_CHECKING:  # what reads a finished run needs no torch
    from bench.run.resolve import Resolved

Training = Literal["run", "weights"]
"""``run``: trained in the run, anew under each seed; ``weights``: read from files, one training for all seeds."""

Axis = Literal["attack", "defense"]


def trained_parts(run: Resolved, cell: Cell) -> dict[Axis, Training]:
    """Return attack and defense → where its trained parts come from; without those that have none.

    One part whose weights no seed of the run changes decides: a mean over seeds is then no mean over trainings.
    """
    found: dict[Axis, Training] = {}
    wholes: tuple[tuple[Axis, Attack | Defense], ...] = (
        ("attack", run.attacks[cell.attack]),
        ("defense", run.defenses[cell.defense]),
    )
    for axis, whole in wholes:
        ways = set(_ways(whole, run.binding(whole, cell.backbone)))
        if ways:
            found[axis] = "weights" if "weights" in ways else "run"
    return found


def _ways(whole: Attack | Defense, binding: Binding) -> Iterator[Training]:
    for part, bound in with_parts(whole, binding):
        if not isinstance(part, Attack | Defense):
            continue
        hardens = isinstance(part, Hardening) and part.trains
        if part.requires_fit or hardens or _trains_in_the_head(part):
            yield "run"
        elif part.training_identities(bound) != "none" or _saw_attacks(part, bound):
            yield "weights"


def _trains_in_the_head(part: Attack | Defense) -> bool:
    return isinstance(part, Defense) and part.public_cloaks is not None


def _saw_attacks(part: Attack | Defense, binding: Binding) -> bool:
    return isinstance(part, Defense) and bool(part.trained_on(binding))
