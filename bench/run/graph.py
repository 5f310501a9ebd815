"""The work of a run as a graph of artefacts, computed on demand and kept in the store."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.contracts import CONTRACT
from bench.errors import BenchError, MethodError
from bench.files import StoreError
from bench.run.digest import digest
from bench.run.store import Store

log = logging.getLogger("bench")

STAGES = ("faces", "fit", "cloak", "aim", "erase", "purify", "measure", "diagnose", "embed", "decide")
"""In the order the data flows."""


@dataclass(frozen=True, eq=False)
class Node:
    """One artefact: what decides it, what it is made from, and how.

    Attributes:
        stage: one of `STAGES`.
        label: what an identity reads in progress bars and logs; nodes of one label are shards of one thing.
        facts: everything that decides the artefact besides its inputs.
        inputs: the artefacts it is made from.
        images: images it covers, for progress and timings.
        size: bytes it will take, about.
        work: (input payloads, advance) → payload.
    """

    stage: str
    label: str
    key_fields: Mapping[str, Any]
    inputs: "tuple[Node, ...]"
    images: int
    size: int
    work: Callable[[Sequence[bytes], Callable[[int], None]], bytes] = field(repr=False)

    @cached_property
    def key(self) -> dict[str, Any]:
        """The full key, stored beside the artefact."""
        return {
            "stage": self.stage,
            **CONTRACT,
            **self.key_fields,
            "inputs": [node.address for node in self.inputs],
        }

    @property
    def group(self) -> tuple[str, str]:
        """Stage and method, as one line of a plan; all cells' decisions are one."""
        return self.stage, "cells" if self.stage == "decide" else self.label

    @cached_property
    def address(self) -> str:
        """The digest that addresses the artefact."""
        return digest(self.key)


class NodeError(MethodError):
    """An artefact could not be made; carries the reason to every cell that needs it."""


@dataclass
class Tally:
    """What an execution did, by `Node.group`: artefacts computed and reused, images and seconds."""

    computed: dict[tuple[str, str], int] = field(default_factory=dict)
    images: dict[tuple[str, str], int] = field(default_factory=dict)
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, node: Node, seconds: float) -> None:
        """Count one computed node."""
        group = node.group
        self.computed[group] = self.computed.get(group, 0) + 1
        self.images[group] = self.images.get(group, 0) + node.images
        self.seconds[group] = self.seconds.get(group, 0.0) + seconds


class Executor:
    """Computes nodes, each at most once, and remembers what failed and why.

    Args:
        store: where artefacts live.
        advance: called with (node, images finished).
    """

    def __init__(self, store: Store, advance: Callable[[Node, int], None] = lambda _node, _n: None) -> None:
        self.store = store
        self.advance = advance
        self.tally = Tally()
        self._failed: dict[str, str] = {}

    def missing(self, targets: Iterable[Node]) -> list[Node]:
        """Return the nodes that must be computed for `targets`, each once, inputs first, by stage."""
        found: dict[str, Node] = {}
        waiting = list(targets)
        seen: set[str] = set()
        while waiting:
            node = waiting.pop()
            if node.address in seen:
                continue
            seen.add(node.address)
            if (node.stage, node.address) not in self.store:
                found[node.address] = node
                waiting += node.inputs
        order = list(reversed(found.values()))
        return sorted(order, key=lambda node: (STAGES.index(node.stage), node.label))

    def fetch(self, node: Node) -> bytes:
        """Return a node's payload, computing it (and its inputs) where the store lacks it.

        Raises:
            NodeError: it, or something it is made from, failed; the message is the reason.
            StoreError: the store cannot be written.
        """
        if node.address in self._failed:
            raise NodeError(self._failed[node.address])
        payload = self.store.read(node.stage, node.address)
        return self._compute(node) if payload is None else payload

    def _compute(self, node: Node) -> bytes:
        try:
            inputs = [self.fetch(source) for source in node.inputs]
            start = time.perf_counter()
            payload = node.work(inputs, lambda n: self.advance(node, n))
            seconds = time.perf_counter() - start
        except StoreError:
            raise
        except NodeError as error:
            self._failed[node.address] = str(error)
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
            self._failed[node.address] = f"{node.stage} {node.label}: {reason}"
            log.error("%s", self._failed[node.address], exc_info=not isinstance(error, BenchError))
            raise NodeError(self._failed[node.address]) from error
        self.store.write(node.stage, node.address, payload, key=node.key, seconds=seconds, images=node.images)
        self.tally.add(node, seconds)
        return payload
