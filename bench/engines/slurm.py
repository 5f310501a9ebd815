"""Slurm, by submitit: units become arrays of jobs; store and project on a folder that all nodes share: ``slurm``.

What a job is told and what it reports are files beside the artefacts, never pickled state: a job that Slurm puts back
into its queue reads them again, and finds in the store what it had done. Whether a job still exists is asked of
`squeue`, as not every cluster keeps accounts.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, ValidationError

from bench.contracts import Frozen
from bench.engines.processes import Processes
from bench.errors import UsageError
from bench.files import StoreError, write_atomically
from bench.run.digest import digest
from bench.run.engine import Engine, EngineError, Job, Progress, Report, Submit, Unit

if TYPE_CHECKING:
    import submitit

log = logging.getLogger("bench")

FOLDER = ".slurm"
"""Folder of a store with what jobs are told, what they report and what they print."""

ARRAY_SIZE = 1000
"""Jobs of one array at most; Slurm's own limit (MaxArraySize) is 1001 where nothing else is set."""

TRIES = 3
"""How often a unit is submitted whose job ends without a report."""


class SlurmSettings(Frozen):
    """What is asked of Slurm for each job, and how units are made."""

    partition: str | None = Field(None, description="partition; Slurm's default where not given")
    time: int = Field(60, ge=1, description="minutes after which Slurm ends a job")
    gpus: int = Field(0, ge=0, description="GPUs of a job")
    memory: float | None = Field(None, gt=0, description="GB of memory of a job")
    account: str | None = Field(None, description="account that is charged")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="features that nodes must have")
    unit: float = Field(10, ge=0, description="minutes of work in a job, about; 0: one artefact a job")
    at_once: int = Field(256, ge=1, description="jobs of an array that run at the same time at most")
    patience: float = Field(60, ge=0, description="seconds that a report may take to be seen here")


class Slurm(Engine):
    """Jobs of a Slurm cluster.

    Args:
        settings: of each job.
    """

    at_once = None

    def __init__(self, settings: SlurmSettings | None = None) -> None:
        self.settings = settings or SlurmSettings()
        self.unit_seconds = 60 * self.settings.unit

    def __str__(self) -> str:
        return "slurm"

    @classmethod
    def of(cls, argument: str) -> Self:
        """Return it with settings ``partition=main,time=120,gpus=1``; see `Engine.of`."""
        pairs = [part.partition("=") for part in argument.split(",") if part.strip()]
        values = {name.strip(): value.strip() for name, _, value in pairs}
        try:
            return cls(SlurmSettings.model_validate(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise UsageError(
                f"slurm's {name} cannot be {first['input']!r}: {first['msg'].lower()}. Valid: "
                f"{', '.join(SlurmSettings.model_fields)}, as in slurm:partition=main,time=120."
            ) from None

    def threads(self, cores: int) -> int:
        """Return 1: more jobs of one thread do more than fewer of several. See `Engine.threads`."""
        del cores
        return 1

    @contextmanager
    def begin(self, job: Job, progress: Progress) -> Iterator[Submit]:
        """Make the folder that jobs read and write; see `Engine.begin`."""
        del progress  # known when a unit reports
        folder = job.store / FOLDER / digest(job.model_dump(mode="json"))[:12]
        queue = _Queue(folder, job, self.settings)
        try:
            yield queue.submit
        finally:
            queue.end()


def run_unit(folder: Path, number: int) -> None:
    """Compute a unit on a node, in a worker that can be ended, and write its report."""
    job = Job.model_validate_json((folder / "job.json").read_bytes())
    unit = Unit.model_validate_json((folder / f"unit-{number}.json").read_bytes())
    try:
        with Processes(1).begin(job, lambda _address, _n: None) as submit:
            report = submit([unit])[0].result()
    except UsageError as error:
        report = Report(failed=dict.fromkeys(unit.addresses, f"{unit.what}: {error}"))
    text = report.model_dump_json()
    write_atomically(folder / f"report-{number}.json", text.encode(), "--store")


@dataclass(frozen=True)
class Task:
    """What a job is given: where to read what it is to do. submitit puts it back into the queue as it is.

    Attributes:
        folder: with ``job.json`` and the units.
        number: of the unit.
    """

    folder: Path
    number: int

    def __call__(self) -> None:
        """Compute the unit."""
        run_unit(self.folder, self.number)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return what is to go on when Slurm takes the node away: the same, as what was done is in the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass
class _Pending:
    """A unit that is in the queue or in work.

    Attributes:
        unit: what is to be computed.
        future: of its report.
        job_id: as Slurm has it, e.g. ``17_3``.
        tries: how often it was submitted.
        gone: when it was first missing in the queue, by `time.monotonic`; None while it is there.
    """

    unit: Unit
    future: Future[Report]
    job_id: str = ""
    tries: int = 0
    gone: float | None = None


class _Queue:
    """The jobs of one run.

    Args:
        folder: shared with the nodes.
        job: for every unit.
        settings: of each Slurm job.

    Raises:
        EngineError: submitit or Slurm is not here.
    """

    def __init__(self, folder: Path, job: Job, settings: SlurmSettings) -> None:
        self.folder = folder
        self.settings = settings
        self._executor = _executor(folder / "jobs", job, settings)
        write_atomically(folder / "job.json", job.model_dump_json(indent=1).encode(), "--store")
        self._pending: dict[int, _Pending] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._follower = threading.Thread(target=self._follow)
        self._follower.start()

    def submit(self, units: Sequence[Unit]) -> list[Future[Report]]:
        """Hand units out as arrays; see `bench.run.engine.Submit`."""
        handed = [_Pending(unit, Future()) for unit in units]
        for unit in units:
            (self.folder / f"report-{unit.number}.json").unlink(missing_ok=True)
            text = unit.model_dump_json(indent=1)
            write_atomically(self.folder / f"unit-{unit.number}.json", text.encode(), "--store")
        for start in range(0, len(handed), ARRAY_SIZE):
            self._submit(handed[start : start + ARRAY_SIZE])
        with self._lock:
            self._pending.update({each.unit.number: each for each in handed})
        return [each.future for each in handed]

    def _submit(self, batch: Sequence[_Pending]) -> None:
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Task(self.folder, each.unit.number)) for each in batch]
        except Exception as error:  # sbatch's own words, by submitit's several exceptions
            raise EngineError(f"Slurm took no job: {_said(error)}") from error
        for each, job in zip(batch, jobs, strict=True):
            each.job_id, each.gone = str(job.job_id), None
            each.tries += 1
            log.info("unit %d is job %s: %s", each.unit.number, job.job_id, job.paths.stderr)

    def end(self) -> None:
        """Take back what is still in the queue or in work."""
        self._ended.set()
        self._follower.join()
        ids = [each.job_id for each in self._pending.values()]
        if ids:
            log.info("taking %d jobs back", len(ids))
            subprocess.run(["scancel", *ids], check=False, capture_output=True)  # noqa: S603, S607  # ids of Slurm

    def _follow(self) -> None:
        """Take in reports, and submit again what Slurm has lost."""
        pause = 0.5
        while not self._ended.wait(pause):
            with self._lock:
                pending = list(self._pending.values())
            reported = [each for each in pending if self._take_report(each)]
            try:
                self._submit_lost([each for each in pending if each not in reported])
            except EngineError as error:
                for each in pending:
                    self._finish(each, error)
            pause = 0.5 if reported else min(pause * 1.5, 5)

    def _take_report(self, one: _Pending) -> bool:
        path = self.folder / f"report-{one.unit.number}.json"
        try:
            report = Report.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, ValidationError) as error:
            self._finish(one, StoreError(f"cannot read {path}: {error}."))
            return True
        self._finish(one, report)
        return True

    def _finish(self, one: _Pending, outcome: Report | Exception) -> None:
        with self._lock:
            self._pending.pop(one.unit.number, None)
        if one.future.done():
            return
        if isinstance(outcome, Report):
            one.future.set_result(outcome)
        else:
            one.future.set_exception(outcome)

    def _submit_lost(self, pending: Sequence[_Pending]) -> None:
        """Submit units anew whose jobs are in the queue no more and have not reported."""
        there = _in_queue()
        if there is None:
            return
        now = time.monotonic()
        lost = []
        for each in pending:
            each.gone = None if each.job_id in there else each.gone or now
            if each.gone is not None and now - each.gone >= self.settings.patience:
                lost.append(each)
        for each in [one for one in lost if one.tries >= TRIES]:
            self._finish(each, EngineError(self._why_lost(each)))
        again = [one for one in lost if one.tries < TRIES]
        if again:
            log.warning(
                "%d jobs ended without a report, e.g. %s; submitting again", len(again), again[0].job_id
            )
            self._submit(again)

    def _why_lost(self, one: _Pending) -> str:
        printed = sorted((self.folder / "jobs").glob(f"{one.job_id}_*_log.err"))
        where = f" It printed to {printed[-1]}." if printed else f" See {self.folder / 'jobs'}."
        return f"Slurm's job {one.job_id} ended without a report, as {TRIES - 1} before it.{where}"


def _executor(folder: Path, job: Job, settings: SlurmSettings) -> submitit.SlurmExecutor:
    if missing := [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]:
        raise EngineError(
            f"Slurm's {missing[0]} is not here. Start the run where jobs are submitted, or take --engine processes:N."
        )
    try:
        import submitit
    except ModuleNotFoundError:
        raise EngineError("submitit is not installed: pip install 'cloakbench[slurm]'.") from None
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=TRIES)
    asked = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "gpus_per_node": settings.gpus or None,
        "mem": f"{round(1024 * settings.memory)}M" if settings.memory else None,
    }
    executor.update_parameters(
        job_name="cloakbench",
        time=settings.time,
        cpus_per_task=job.threads,
        array_parallelism=settings.at_once,
        use_srun=False,
        additional_parameters={"requeue": True},
        **{name: value for name, value in asked.items() if value is not None},
    )
    return executor


def _in_queue() -> set[str] | None:
    """Return the ids of this user's jobs that wait or run; None where Slurm does not answer now."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)  # noqa: S603  # fixed
        return set(answer.stdout.split())
    return None


def _said(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[-1].rstrip(".") + "."
