"""A run's work cut into units: batches of artefacts that one worker computes, sized by what the plan says they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.run.graph import Node


@dataclass(frozen=True)
class Batch:
    """Artefacts that one worker computes one after another.

    Attributes:
        number: 0, 1, …; those it comes after have smaller ones.
        nodes: in an order in which each comes after what it is made from.
        seconds: about how long they take.
        after: numbers of the batches with what it is made from.
    """

    number: int
    nodes: tuple[Node, ...]
    seconds: float
    after: frozenset[int] = field(default=frozenset())

    @property
    def what(self) -> str:
        """Its first stage and methods, and how many artefacts follow."""
        first = f"{self.nodes[0].stage} {self.nodes[0].label}"
        return first if len(self.nodes) == 1 else f"{first} and {len(self.nodes) - 1} more"


def cut(nodes: Sequence[Node], seconds: Callable[[Node], float], most: float) -> list[Batch]:
    """Return artefacts as batches of about so many seconds, none waiting for one that waits for it.

    Artefacts are taken level by level: those made from nothing that is to be computed, then those made from these. A
    level is cut into batches; levels that together fit one batch are one, as a job of a cluster that computes for
    three seconds waits longer than it works.

    Args:
        nodes: to compute, each once.
        seconds: of a node, about.
        most: of a batch; a node that takes longer is a batch of its own. 0: every node is.
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
    batch_of = {node.address: number for number, group in enumerate(groups) for node in group}
    return [
        Batch(number, tuple(group), sum(map(seconds, group)), frozenset(_needed(group, batch_of)) - {number})
        for number, group in enumerate(groups)
    ]


def urgency(batches: Sequence[Batch]) -> Mapping[int, float]:
    """Return number → seconds of the longest chain of batches that begins with it: what is longest begins first."""
    longest = {batch.number: batch.seconds for batch in batches}
    for batch in reversed(batches):
        for before in batch.after:
            own = batches[before].seconds
            longest[before] = max(longest[before], own + longest[batch.number])
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
    """Yield lists of artefacts, those one after another that fit one batch together as one."""
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


def _needed(group: Iterable[Node], batch_of: Mapping[str, int]) -> Iterator[int]:
    for node in group:
        for each in node.inputs:
            if each.address in batch_of:
                yield batch_of[each.address]
