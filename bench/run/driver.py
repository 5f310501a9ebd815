"""Has an engine compute what a run lacks: hands out units whose inputs are there, and takes in what became of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from queue import Empty, SimpleQueue

from bench.errors import BenchError
from bench.files import StoreError
from bench.printable import printable
from bench.run.engine import Engine, Job, Report, Submit, Unit
from bench.run.graph import Executor, Node
from bench.run.planning import Prepared
from bench.run.timings import seconds_by
from bench.run.units import cut, urgency, what

log = logging.getLogger("bench")

_TICK = 0.5
"""Seconds between two looks at how far it is."""


def job_of(prepared: Prepared) -> Job:
    """Return what workers must know of a planned run."""
    options = prepared.options
    return Job(
        spec=prepared.run.requested,
        device=str(prepared.machine.device),
        threads=prepared.machine.threads,
        batch_size=options.batch_size,
        precision=options.precision,
        store=prepared.store.folder.absolute(),
        lpips_trunk=options.lpips_trunk and options.lpips_trunk.absolute(),
        seconds=_or_none_at_all(options.limits.seconds),
        gigabytes=_or_none_at_all(options.limits.gigabytes),
        made_with=prepared.made_with,
    )


def _or_none_at_all(limit: float | None) -> float | None:
    """Return a limit as text can have it, which knows no infinity: 0 is no limit either."""
    return limit if limit is None or math.isfinite(limit) else 0


class Driver:
    """Follows one run through an engine.

    Args:
        prepared: the run.
        engine: computes its artefacts.
        executor: that of this process, which remembers what failed, and shows and counts what is computed.
    """

    def __init__(self, prepared: Prepared, engine: Engine, executor: Executor) -> None:
        self.prepared = prepared
        self.engine = engine
        self.executor = executor
        seconds = seconds_by(prepared.store, prepared.machine.threads)
        self._units = cut(prepared.missing, seconds, engine.unit_seconds)
        self._urgency = urgency(self._units)
        self._waiting = {unit.number: unit for unit in self._units}
        self._running: dict[Future[Report], Unit] = {}
        self._nodes = {node.address: node for node in prepared.missing}
        self._shown = dict.fromkeys(self._nodes, 0)
        self._finished: SimpleQueue[tuple[str, int]] = SimpleQueue()

    def compute(self) -> None:
        """Compute what is missing; what fails is remembered by the executor, as in one process.

        Raises:
            EngineError: the engine cannot be used here.
            StoreError: the store cannot be written.
        """
        if not self._units:
            return
        job = job_of(self.prepared)
        log.info("%d units of work for %s", len(self._units), self.engine)
        begun = self.engine.begin(job, lambda *told: self._finished.put(told))
        with self.prepared.store.at_work(), begun as submit:
            while self._waiting or self._running:
                self._hand_out(submit)
                done, _ = wait(self._running, timeout=_TICK, return_when=FIRST_COMPLETED)
                self._show()
                for future in done:
                    self._take(self._running.pop(future), future)

    def _hand_out(self, submit: Submit) -> None:
        """Hand out what can be computed now, the most urgent first, and drop what cannot be any more."""
        places = len(self._units) if self.engine.at_once is None else self.engine.at_once
        chosen: list[Unit] = []
        for unit in self._ready():
            if len(chosen) == places - len(self._running):
                break
            del self._waiting[unit.number]
            nodes = [node for node in self._nodes_of(unit) if not self._is_lost(node)]
            if nodes:
                chosen.append(self._begun(unit, nodes))
        if not chosen:
            return
        try:
            futures = submit(chosen)
        except Exception as error:  # as of a unit: what an engine is built on may fail in any way
            futures = [_lost_at_once(error) for _ in chosen]
        for unit, future in zip(chosen, futures, strict=True):
            log.info("unit %d begun: %s", unit.number, unit.what)
            self._running[future] = unit

    def _ready(self) -> Sequence[Unit]:
        unfinished = self._waiting.keys() | {unit.number for unit in self._running.values()}
        ready = [unit for unit in self._waiting.values() if not unit.after & unfinished]
        return sorted(ready, key=lambda unit: (-self._urgency[unit.number], unit.number))

    def _nodes_of(self, unit: Unit) -> list[Node]:
        return [self._nodes[address] for address in unit.addresses]

    def _begun(self, unit: Unit, nodes: Sequence[Node]) -> Unit:
        """Return a unit with those of its nodes that can be computed."""
        for node in nodes:
            self.executor.advance(node, 0)
        if len(nodes) == len(unit.addresses):
            return unit
        return unit.model_copy(
            update={"what": what(nodes), "addresses": tuple(node.address for node in nodes)}
        )

    def _is_lost(self, node: Node) -> bool:
        """Whether a node failed, or something it is made from; remembers the reason as its own."""
        failed = self.executor.failed
        if node.address not in failed:
            reason = next((failed[each.address] for each in node.inputs if each.address in failed), None)
            if reason is None:
                return False
            failed[node.address] = reason
        return True

    def _take(self, unit: Unit, future: Future[Report]) -> None:
        """Take in what became of a unit."""
        try:
            report = future.result()
        except Exception as error:  # an engine, or what it is built on, may fail in any way
            reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
            report = self._lost(unit, printable(f"{unit.what}: {reason}"))
        if report.stopped:
            raise StoreError(report.stopped)
        for address, seconds in report.seconds.items():
            if node := self._nodes.get(address):
                self.executor.tally.add(node, seconds)
        for address, reason in report.failed.items():
            log.error("%s", reason)
            self.executor.failed.setdefault(address, reason)
        untold = self._lost(unit, printable(f"{unit.what}: no worker says what became of it"))
        for address, reason in untold.failed.items():
            if address not in report.seconds:
                self.executor.failed.setdefault(address, reason)
        for node in self._nodes_of(unit):
            self._move(node.address, node.work - self._shown[node.address])

    def _lost(self, unit: Unit, reason: str) -> Report:
        """Return the report of a unit that gave none: what is not in the store failed."""
        there = self.prepared.store
        return Report(
            failed={
                node.address: reason
                for node in self._nodes_of(unit)
                if (node.stage, node.address) not in there
            }
        )

    def _show(self) -> None:
        for address, count in self._told():
            self._move(address, count)

    def _told(self) -> Iterator[tuple[str, int]]:
        while True:
            try:
                yield self._finished.get_nowait()
            except Empty:
                return

    def _move(self, address: str, count: int) -> None:
        """Show that so many more images of an artefact are finished, never more than it has."""
        node = self._nodes.get(address)
        if node is not None and (new := min(count, node.work - self._shown[address])) > 0:
            self._shown[address] += new
            self.executor.advance(node, new)


def _lost_at_once(error: Exception) -> Future[Report]:
    lost: Future[Report] = Future()
    lost.set_exception(error)
    return lost
