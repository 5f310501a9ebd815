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
from typing import Any, Self

from pydantic import Field

from bench.contracts import Frozen
from bench.errors import BenchError
from bench.run.precision import Precision
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


class Unit(Frozen):
    """Artefacts to compute, in this order.

    Attributes:
        number: of the unit in its run.
        what: for people.
        addresses: of the artefacts.
        seconds: about how long they take.
        key: the first one's, so that a worker that plans another can say what differs.
        failed: address → why that artefact is not to be computed.
    """

    number: int
    what: str
    addresses: tuple[str, ...]
    seconds: float = 0
    key: Mapping[str, Any] = Field(default_factory=dict)
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
