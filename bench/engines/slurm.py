"""Slurm, by submitit: units become arrays of jobs; store and project on a folder that all nodes share: ``slurm``.

What a job is told and what it reports are files beside the artefacts, never pickled state: a job that Slurm puts back
into its queue reads them again, and finds in the store what it had done. Whether a job still exists is asked of
`squeue`, as not every cluster keeps accounts.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Self

from pydantic import Field, ValidationError

from bench.contracts import Frozen
from bench.engines.processes import Processes
from bench.errors import BenchError, UsageError
from bench.files import write_atomically
from bench.run.engine import Engine, EngineError, Job, Progress, Report, Submit, Unit
from bench.run.store import JOBS

if TYPE_CHECKING:
    import submitit

log = logging.getLogger("bench")

ARRAY_SIZE = 1000
"""Jobs of one array at most; Slurm's own limit (MaxArraySize) is 1001 where nothing else is set."""

TRIES = 3
"""How often a unit is submitted whose job ends without a report."""

PAUSE = 3.0
"""Seconds before a unit is submitted again that Slurm did not take; four times as many each further time, as a
controller that is started anew takes its time."""


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
        folder = (
            job.store / JOBS / secrets.token_hex(6)
        )  # what an earlier command left in the queue has another
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
    except BenchError as error:
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
    """A unit that is to be submitted, in the queue or in work.

    Attributes:
        unit: what is to be computed.
        future: of its report.
        job_id: as Slurm has it, e.g. ``17_3``; "" while it is to be submitted.
        tries: how often that was tried.
        due: when it may be submitted, by `time.monotonic`.
        gone: when it was first missing in the queue, likewise; None while it is there.
    """

    unit: Unit
    future: Future[Report]
    job_id: str = ""
    tries: int = 0
    due: float = 0.0
    gone: float | None = None


class _Queue:
    """The jobs of one run, which one thread submits and follows.

    Args:
        folder: shared with the nodes; of this run alone.
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
        self._new: SimpleQueue[_Pending] = SimpleQueue()
        self._pending: dict[int, _Pending] = {}
        self._ended = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def submit(self, units: Sequence[Unit]) -> list[Future[Report]]:
        """Hand units out, which become arrays; see `bench.run.engine.Submit`."""
        for unit in units:
            text = unit.model_dump_json(indent=1)
            write_atomically(self.folder / f"unit-{unit.number}.json", text.encode(), "--store")
        handed = [_Pending(unit, Future()) for unit in units]
        for each in handed:
            self._new.put(each)
        return [each.future for each in handed]

    def end(self) -> None:
        """Take back what is still in the queue or in work; within seconds, as who interrupts waits no longer."""
        self._ended.set()
        for _ in range(2):  # a second time, as an array may have been on its way
            ids = {each.job_id.partition("_")[0] for each in list(self._pending.values()) if each.job_id}
            if ids:
                log.info("taking the jobs %s back", ", ".join(sorted(ids)))
                _begin(["scancel", *sorted(ids)])
            self._follower.join(timeout=2)
            if not self._follower.is_alive():
                return

    def _follow(self) -> None:
        """Submit what is new or was lost, and take in reports, until the run ends."""
        pause = 0.5
        while not self._ended.wait(pause):
            before = len(self._pending)
            try:
                self._submit_new()
                for each in list(self._pending.values()):
                    self._take_report(each)
                self._find_lost()
            except Exception as error:  # whoever waits is to hear of it
                for each in list(self._pending.values()):
                    self._finish(each, EngineError(f"{type(error).__name__}: {error}"))
            pause = 0.5 if len(self._pending) != before else min(pause * 1.5, 5)

    def _submit_new(self) -> None:
        with suppress(Empty):
            while True:
                each = self._new.get_nowait()
                self._pending[each.unit.number] = each
        now = time.monotonic()
        waiting = [each for each in self._pending.values() if not each.job_id and each.due <= now]
        for start in range(0, len(waiting), ARRAY_SIZE):
            self._submit(waiting[start : start + ARRAY_SIZE])

    def _submit(self, batch: Sequence[_Pending]) -> None:
        """Submit units as one array; those that Slurm takes at no time fail with its words."""
        for each in batch:
            each.tries += 1
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Task(self.folder, each.unit.number)) for each in batch]
        except Exception as error:  # sbatch's own words, by submitit's several exceptions
            self._refused(batch, f"Slurm took no job: {_said(error)}")
            return
        for each, job in zip(batch, jobs, strict=True):
            each.job_id, each.gone = str(job.job_id), None
            log.info("unit %d is job %s: %s", each.unit.number, job.job_id, job.paths.stderr)

    def _refused(self, batch: Sequence[_Pending], reason: str) -> None:
        """Have units that Slurm did not take wait, or fail."""
        log.warning("%s", reason)
        for each in batch:
            each.due = time.monotonic() + PAUSE * 4 ** (each.tries - 1)
            if each.tries >= TRIES:
                self._finish(each, EngineError(reason))

    def _take_report(self, one: _Pending) -> None:
        path = self.folder / f"report-{one.unit.number}.json"
        try:
            self._finish(one, Report.model_validate_json(path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            self._finish(one, EngineError(f"cannot read {path}: {error}."))

    def _finish(self, one: _Pending, outcome: Report | Exception) -> None:
        self._pending.pop(one.unit.number, None)
        if isinstance(outcome, Report):
            one.future.set_result(outcome)
        else:
            one.future.set_exception(outcome)

    def _find_lost(self) -> None:
        """Have units submitted anew whose jobs are in the queue no more and have not reported."""
        there = _in_queue()
        if there is None:
            return
        now = time.monotonic()
        for each in [one for one in self._pending.values() if one.job_id]:
            each.gone = None if each.job_id in there else each.gone or now
            if each.gone is None or now - each.gone < self.settings.patience:
                continue
            if each.tries >= TRIES:
                self._finish(each, EngineError(self._why_lost(each)))
            else:
                log.warning("job %s ended without a report; submitting its unit again", each.job_id)
                each.job_id = ""

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
    python = f"{shlex.quote(sys.executable)} -P"  # modules of the folder it is started in are not ours
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=TRIES, python=python)
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


def _begin(command: Sequence[str]) -> None:
    """Start a command of Slurm that ends by itself, whatever becomes of this process."""
    with suppress(OSError):
        started = subprocess.Popen(  # noqa: S603  # ids of Slurm
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        with suppress(subprocess.TimeoutExpired):
            started.wait(timeout=1)


def _said(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[-1].rstrip(".") + "."
