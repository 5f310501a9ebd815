"""A run's work cut into units, sized by what the plan says they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bench.printable import printable
from bench.run.engine import Unit
from bench.run.graph import Node


def cut(nodes: Sequence[Node], seconds: Callable[[Node], float], most: float) -> list[Unit]:
    """Return artefacts as units of about so many seconds, none waiting for one that waits for it.

    Artefacts are taken level by level: those made from nothing that is to be computed, then those made from these. A
    level is cut into units; levels that together fit one unit are one, as a job of a cluster that computes for
    three seconds waits longer than it works.

    Args:
        nodes: to compute, each once.
        seconds: of a node, about.
        most: of a unit; a node that takes longer is a unit of its own. 0: every node is.
    """
    depths = _depths(nodes)
    levels: list[list[Node]] = [[] for _ in range(1 + max(depths.values(), default=-1))]
    for node in nodes:
        levels[depths[node.address]].append(node)
    groups = [
        group
        for level in _packed(levels, seconds, most)
        for group in _packed([[node] for node in level], seconds, most)
    ]
    unit_of = {node.address: number for number, group in enumerate(groups) for node in group}
    return [
        Unit(
            number=number,
            what=what(group),
            addresses=tuple(node.address for node in group),
            seconds=sum(map(seconds, group)),
            after=frozenset(_needed(group, unit_of)) - {number},
        )
        for number, group in enumerate(groups)
    ]


def what(nodes: Sequence[Node]) -> str:
    """Return the first node's stage and methods, and how many follow, for people."""
    first = printable(f"{nodes[0].stage} {nodes[0].label}")
    return first if len(nodes) == 1 else f"{first} and {len(nodes) - 1} more"


def urgency(units: Sequence[Unit]) -> Mapping[int, float]:
    """Return number → seconds of the longest chain of units that begins with it: what is longest begins first."""
    longest = {unit.number: unit.seconds for unit in units}
    for unit in reversed(units):
        for before in unit.after:
            own = units[before].seconds
            longest[before] = max(longest[before], own + longest[unit.number])
    return longest


def _depths(nodes: Sequence[Node]) -> dict[str, int]:
    """Return address → the number of artefacts on the longest way to it that are to be computed as well."""
    wanted = {node.address for node in nodes}
    depths: dict[str, int] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting[-1]
        inputs = [each for each in node.inputs if each.address in wanted]
        unknown = [each for each in inputs if each.address not in depths]
        if unknown:
            waiting += unknown
            continue
        waiting.pop()
        depths[node.address] = 1 + max((depths[each.address] for each in inputs), default=-1)
    return depths


def _packed(
    parts: Iterable[list[Node]], seconds: Callable[[Node], float], most: float
) -> Iterator[list[Node]]:
    """Yield lists of artefacts, those one after another that fit one unit together as one."""
    packed: list[Node] = []
    total = 0.0
    for part in parts:
        own = sum(map(seconds, part))
        if packed and not (most and total + own <= most):
            yield packed
            packed, total = [], 0.0
        packed, total = packed + part, total + own
    if packed:
        yield packed


def _needed(group: Iterable[Node], unit_of: Mapping[str, int]) -> Iterator[int]:
    for node in group:
        for each in node.inputs:
            if each.address in unit_of:
                yield unit_of[each.address]
