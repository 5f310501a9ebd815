"""Where artefacts are computed: the seam between a run and whatever runs work in other processes, here or elsewhere.

An engine is somebody else's: a pool of processes, Slurm, Ray. It is handed units, which are addresses and text, and
calls `bench.run.work.work` for each in some process that sees the same store. Artefacts travel through the store, never
through the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from pydantic import Field

from bench.contracts import Frozen
from bench.errors import BenchError
from bench.run.precision import Precision
from bench.run.provenance import MadeWith
from bench.run.spec import RunSpec

Progress = Callable[[str, int], None]
"""Called with an address and the number of its images just finished; from any thread, or never."""


class EngineError(BenchError):
    """Work could not be handed out, or nobody does it."""


class Job(Frozen):
    """What a worker must know of a run besides addresses.

    Attributes:
        spec: the matrix.
        device: ``cpu`` or ``cuda[:N]``, as planned.
        threads: that compute each artefact.
        batch_size: images handed to a method per call.
        precision: what trackers embed in.
        store: the folder of artefacts, which every worker sees.
        lpips_trunk: AlexNet's weights for LPIPS; None to look where a run looks.
        seconds, gigabytes: see `Limits`.
        workers: that share this machine's memory.
        made_with: what decides artefacts where they were planned, so that a worker that plans others can say why.
    """

    spec: RunSpec
    device: str
    threads: int
    batch_size: int
    precision: Precision = "float32"
    store: Path
    lpips_trunk: Path | None = None
    seconds: float | None = None
    gigabytes: float | None = None
    workers: int = 1
    made_with: MadeWith

    def __hash__(self) -> int:
        """Return it by what is quickly hashed: a worker finds its plan by the job of every unit."""
        return hash((self.store, self.device, self.threads, self.batch_size))


class Unit(Frozen):
    """Artefacts that one worker computes, one after another in this order.

    Attributes:
        number: of the unit in its run: 0, 1, …; those it comes after have smaller ones.
        what: for people.
        addresses: of the artefacts, each behind what it is made from.
        seconds: about how long they take.
        after: numbers of the units with what it is made from; for whoever hands out, it does not travel.
        failed: address → why that artefact is not to be computed.
    """

    number: int
    what: str
    addresses: tuple[str, ...]
    seconds: float = 0
    after: frozenset[int] = Field(frozenset(), exclude=True)
    failed: Mapping[str, str] = Field(default_factory=dict)


class Report(Frozen):
    """What became of a unit.

    Attributes:
        seconds: address → seconds, of the artefacts that were computed.
        failed: address → reason, of those that could not be.
        stopped: why the whole run must stop, e.g. a full disk; "" as a rule.
    """

    seconds: Mapping[str, float] = Field(default_factory=dict)
    failed: Mapping[str, str] = Field(default_factory=dict)
    stopped: str = ""


Submit = Callable[[Sequence[Unit]], Sequence["Future[Report]"]]
"""Hands units out; gives one future for each, which raises `EngineError` where the unit was lost."""


class Engine(ABC):
    """Runs units somewhere.

    Attributes:
        unit_seconds: units are filled up to about as many; 0: each artefact is a unit.
        at_once: how many units are handed out before the first ends; None for all that can be computed.
    """

    unit_seconds: float = 0
    at_once: int | None = None

    def __str__(self) -> str:
        """Return its name for logs."""
        return type(self).__name__

    @classmethod
    @abstractmethod
    def of(cls, argument: str) -> Self:
        """Return the engine that a command line names ``NAME:ARGUMENT``.

        Args:
            argument: "" where there is none.

        Raises:
            UsageError: it is no argument of this engine.
        """

    def threads(self, cores: int) -> int:
        """Return the threads that compute each artefact where nobody says it: they are part of every artefact's key.

        Args:
            cores: that this process may use.
        """
        return cores

    @abstractmethod
    def begin(self, job: Job, progress: Progress) -> AbstractContextManager[Submit]:
        """Make ready for a run; on leaving, end or take back what is still in work.

        Args:
            job: handed to every worker.
            progress: told what workers finish, where that is known before they report.

        Raises:
            EngineError: it cannot be used here; says why.
        """
