"""What a worker does with a unit, in whichever process, on whichever machine: plan the run, compute, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from bench.errors import UsageError
from bench.files import StoreError
from bench.run.engine import Job, Progress, Report, Unit
from bench.run.graph import Executor, Node, Tally
from bench.run.limits import Limits
from bench.run.planning import Options, Prepared, prepare
from bench.run.provenance import MadeWith


def work(job: Job, unit: Unit, progress: Progress = lambda _address, _n: None) -> Report:
    """Compute a unit in this process; what is in the store already is left.

    Args:
        job: of the run, which this process plans when it first hears of it.
        unit: what to compute.
        progress: told what is finished.

    Raises:
        UsageError: this process plans other artefacts than the one that made the unit; says what differs.
    """
    planned = _planned(job)
    tally = _Seconds()
    executor = Executor(
        planned.prepared.store,
        planned.prepared.machine,
        lambda node, count: progress(node.address, count),
        tally,
    )
    executor.failed.update(unit.failed)
    known = set(executor.failed)
    stopped = ""
    try:
        executor.compute([planned.node(address) for address in unit.addresses])
    except StoreError as error:
        stopped = str(error)
    failed = {address: why for address, why in executor.failed.items() if address not in known}
    return Report(seconds=tally.by_address, failed={**unit.failed, **failed}, stopped=stopped)


@dataclass
class _Seconds(Tally):
    """Counts by address as well."""

    by_address: dict[str, float] = field(default_factory=dict)

    def add(self, node: Node, seconds: float) -> None:
        super().add(node, seconds)
        self.by_address[node.address] = seconds


@dataclass(frozen=True)
class _Planned:
    """A run as this process plans it, and its nodes by address.

    Attributes:
        prepared: the run.
        nodes: by address.
        there: what it was made with where it was planned first.
    """

    prepared: Prepared
    nodes: Mapping[str, Node]
    there: MadeWith

    def node(self, address: str) -> Node:
        if address in self.nodes:
            return self.nodes[address]
        differing = "; ".join(self.there.differences(self.prepared.made_with))
        how = (
            f"Where it was planned and here: {differing}."
            if differing
            else "This machine plans other artefacts."
        )
        raise UsageError(
            f"no artefact of this run has the address {address[:12]} here. {how} Use the same code, packages, device, "
            "threads and weights as where the run was planned."
        )


@lru_cache(maxsize=4)
def _planned(job: Job) -> _Planned:
    options = Options(
        device=job.device,
        threads=job.threads,
        batch_size=job.batch_size,
        precision=job.precision,
        store=job.store,
        lpips_trunk=job.lpips_trunk,
        limits=Limits(job.seconds, job.gigabytes, job.workers),
    )
    prepared = prepare(job.spec, options)
    return _Planned(prepared, {node.address: node for node in prepared.artefacts}, job.made_with)
