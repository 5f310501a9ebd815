"""The work of a run as a graph of artefacts, computed on demand and kept in the store.

A node is data (`bench.run.stages` has one class for each stage): it can be pickled, sent to another process and
computed there to the same bytes.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar

from bench.contracts import CONTRACT, CROP_SIZE
from bench.errors import BenchError, MethodError, UsageError
from bench.files import StoreError
from bench.printable import printable
from bench.run.code_hashes import check_unchanged, code_digest
from bench.run.device import Machine
from bench.run.digest import digest, environment
from bench.run.limits import limited
from bench.run.memory import give_back
from bench.run.store import Store
from bench.run.watch import this

log = logging.getLogger("bench")

STAGES = (
    "faces", "fit", "mask", "cloak", "target_assignment", "erase", "post", "purify", "measure", "diagnose", "embed",
    "decide",
)  # fmt: skip
"""In the order the data flows."""

Payloads = Mapping[str, bytes]
"""Address → stored form of what a node is made from."""

Advance = Callable[[int], None]
"""Called with the number of images finished."""


class FieldsOnly:
    """Pickles the fields of a dataclass and nothing that was derived from them.

    What another process derives must be its own: an address found with its code and its files, not a copied one.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: self.__dict__[each.name] for each in fields(self)}  # type: ignore[arg-type]  # mixed into dataclasses


@dataclass(frozen=True, eq=False)
class Node(FieldsOnly, ABC):
    """One artefact: what decides it, what it is made from, and how.

    Attributes:
        stage: one of `STAGES`; the folder of the store.
        image_bytes: what one image takes in the store, about.
        streams: whether `run` looks at its inputs one after another, so that they need not all be held.
        resumes: whether it keeps itself in `Machine.checkpoint` while it is made.
        label: what an identity reads in progress bars and logs; nodes of one label are shards of one thing.
        environment: what of the machine decides bytes (`bench.run.digest.environment`).
    """

    stage: ClassVar[str]
    image_bytes: ClassVar[int] = 3 * CROP_SIZE**2
    streams: ClassVar[bool] = False
    resumes: ClassVar[bool] = False
    label: str
    environment: Mapping[str, Any] = field(repr=False)

    @property
    @abstractmethod
    def inputs(self) -> tuple[Node, ...]:
        """The artefacts it is made from."""

    @property
    def images(self) -> int:
        """The number of images it covers: by default its first input's."""
        return self.inputs[0].images

    @property
    def work(self) -> int:
        """The number of images it computes, for progress and timings: all it covers, unless others computed them."""
        return self.images

    @property
    def core_seconds(self) -> float:
        """About how long one core takes for it, from what its methods declare (`bench.contracts.Method`)."""
        return 0.005 * self.work

    @property
    def size(self) -> int:
        """Bytes it will take, about."""
        return self.images * self.image_bytes

    @abstractmethod
    def key_fields(self) -> Mapping[str, Any]:
        """Return what decides the artefact besides its inputs, the environment and the stage's own code."""

    @abstractmethod
    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Compute the artefact.

        Args:
            payloads: of `inputs`; where the node `streams`, each is read from the store whenever it is looked at.
            machine: where to compute.
            advance: called with the number of images finished.
        """

    @cached_property
    def key(self) -> dict[str, Any]:
        """The full key, stored beside the artefact."""
        return {
            "stage": self.stage,
            **CONTRACT,
            "code": code_digest(type(self)),
            "environment": self.environment,
            **self.key_fields(),
            "inputs": [node.address for node in self.inputs],
        }

    @cached_property
    def address(self) -> str:
        """The digest that addresses the artefact."""
        return digest(self.key)

    @property
    def group(self) -> tuple[str, str]:
        """Stage and method, as one line of a plan; all cells' decisions are one."""
        return self.stage, "cells" if self.stage == "decide" else self.label


class NodeError(MethodError):
    """An artefact could not be made; carries the reason to every cell that needs it."""


class StoredPayloads(Mapping[str, bytes]):
    """Payloads that are read when they are looked at and not held: however many, memory has one.

    Args:
        store: has all of them.
        nodes: whose they are.
    """

    def __init__(self, store: Store, nodes: Iterable[Node]) -> None:
        self._store = store
        self._stages = {node.address: node.stage for node in nodes}

    def __getitem__(self, address: str) -> bytes:
        payload = self._store.read(self._stages[address], address)
        if payload is None:
            raise NodeError(
                f"the artefact {self._stages[address]} {address[:12]} was removed or changed in {self._store.folder} "
                "while it was being used. Run the same command again."
            )
        return payload

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)


def every_node(targets: Iterable[Node]) -> list[Node]:
    """Return nodes and all they are made from, each once."""
    return _reached(targets, lambda _node: True)


def missing(store: Store, targets: Iterable[Node]) -> list[Node]:
    """Return the nodes that must be computed for `targets`, each once, inputs first, by stage."""
    found = _reached(targets, lambda node: (node.stage, node.address) not in store)[::-1]
    return sorted(found, key=lambda node: (STAGES.index(node.stage), node.label))


def _reached(targets: Iterable[Node], wanted: Callable[[Node], bool]) -> list[Node]:
    found: dict[str, Node] = {}
    seen: set[str] = set()
    waiting = list(targets)
    while waiting:
        node = waiting.pop()
        if node.address not in seen and wanted(node):
            found[node.address] = node
            waiting += node.inputs
        seen.add(node.address)
    return list(found.values())


@dataclass
class Tally:
    """What an execution computed, by `Node.group`: artefacts, images and seconds."""

    computed: dict[tuple[str, str], int] = field(default_factory=dict)
    images: dict[tuple[str, str], int] = field(default_factory=dict)
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, node: Node, seconds: float) -> None:
        """Count one computed node."""
        self.computed[node.group] = self.computed.get(node.group, 0) + 1
        self.images[node.group] = self.images.get(node.group, 0) + node.work
        self.seconds[node.group] = self.seconds.get(node.group, 0.0) + seconds


class Executor:
    """Computes nodes, each at most once, and remembers what failed and why.

    Args:
        store: where artefacts live.
        machine: where to compute.
        advance: called with (node, images finished), first with none as a node begins.
        tally: where to count what is computed.

    Attributes:
        failed: address → why it could not be made; who knows more adds to it.
    """

    def __init__(
        self,
        store: Store,
        machine: Machine,
        advance: Callable[[Node, int], None] = lambda _node, _n: None,
        tally: Tally | None = None,
    ) -> None:
        self.store = store
        self.machine = machine
        self.advance = advance
        self.tally = tally or Tally()
        self._watch = this()
        self.failed = dict(self._watch.failed)

    def compute(self, nodes: Iterable[Node]) -> None:
        """Compute nodes; what fails is remembered and becomes the reason of whatever is made from it.

        Raises:
            StoreError: the store cannot be written.
        """
        for node in nodes:
            if node.address not in self.failed and (node.stage, node.address) not in self.store:
                try:
                    self._compute(node)
                except NodeError:
                    continue

    def fetch(self, node: Node) -> bytes:
        """Return a node's payload, computing it (and its inputs) where the store lacks it.

        Raises:
            NodeError: it, or something it is made from, failed; the message is the reason.
            StoreError: the store cannot be written.
        """
        if node.address in self.failed:
            raise NodeError(self.failed[node.address])
        payload = self.store.read(node.stage, node.address)
        return self._compute(node) if payload is None else payload

    @cached_property
    def _here(self) -> Mapping[str, Any]:
        return environment(str(self.machine.device), self.machine.threads)

    def _check_environment(self, node: Node) -> None:
        """Check that a node was planned for this machine: one that was sent here may be for another."""
        wrong = [
            f"{name} {value} planned, {self._here.get(name)} here"
            for name, value in node.environment.items()
            if value != self._here.get(name)
        ]
        if wrong:
            raise UsageError(
                f"it was planned for another machine: {'; '.join(wrong)}. Plan the run anew here."
            )

    def _compute(self, node: Node) -> bytes:
        try:
            self._check_environment(node)
            inputs = self._inputs(node)
            with self.store.computing(node.stage, node.address):
                # Another run may have made it meanwhile.
                there = (node.stage, node.address) in self.store
                made = self.store.read(node.stage, node.address) if there else None
                return self._make(node, inputs) if made is None else made
        except StoreError:
            raise
        except NodeError as error:
            self.failed[node.address] = str(error)
            raise
        except (Exception, SystemExit) as error:
            reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
            self.failed[node.address] = printable(f"{node.stage} {node.label}: {reason}")
            log.error("%s", self.failed[node.address], exc_info=not isinstance(error, BenchError))
            raise NodeError(self.failed[node.address]) from error

    def _inputs(self, node: Node) -> Payloads:
        """Return the payloads of a node's inputs; what the store lacks is computed before, also where they stream."""
        if not node.streams:
            return {source.address: self.fetch(source) for source in node.inputs}
        for source in node.inputs:
            self.fetch(source)  # whole now; the next reader finds it there
        give_back()
        return StoredPayloads(self.store, node.inputs)

    def _make(self, node: Node, inputs: Payloads) -> bytes:
        """Run a node and store what it gives."""
        self.advance(node, 0)  # begun
        start = time.perf_counter()
        limits, what = self.machine.limits, printable(f"{node.stage} {node.label}")
        seconds, memory = limits.seconds_for(node.core_seconds), limits.bytes_for()
        if self.machine.device.type != "cpu":
            memory = 0  # CUDA reserves addresses that it never uses
        machine = self.machine
        if node.resumes:
            machine = replace(machine, checkpoint=self.store.checkpoint(node.stage, node.address))
        with self._watch.at_work(node.address, what, seconds):
            try:
                with limited(seconds, memory, what):
                    payload = node.run(inputs, machine, lambda n: self.advance(node, n))
            finally:
                self.machine.check_backbones(node.label)
                if node.streams:
                    give_back()
            took = time.perf_counter() - start
            check_unchanged(node.key)
            self.store.write(node.stage, node.address, payload, key=node.key, seconds=took, images=node.work)
        if machine.checkpoint is not None:
            machine.checkpoint.unlink(missing_ok=True)  # what it led to is there
        self.tally.add(node, took)
        return payload
