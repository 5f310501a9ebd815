"""Several processes on this machine, each with its share of the cores or a GPU of its own: ``processes:N``.

Workers are Python processes of their own (`bench.engines.process_worker`) that read units, line by line, and write what
they do. One that dies or hangs loses the artefact it had in work, as in a run without workers; another takes its place.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from bench.errors import UsageError
from bench.run.device import usable_cores
from bench.run.engine import Engine, EngineError, Job, Progress, Report, Submit, Unit
from bench.run.store import WORKERS
from bench.run.watch import Death, Message, is_overdue

log = logging.getLogger("bench")

_TICK = 0.2
_SHOWN_LINES = 3


class Processes(Engine):
    """N workers on this machine.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self.count = self.at_once = count

    def __str__(self) -> str:
        return f"processes:{self.count}"

    @classmethod
    def of(cls, argument: str) -> Self:
        """Return so many workers; one a core where nobody says how many. See `Engine.of`."""
        if not argument:
            return cls(_cores())
        if not (argument.isdecimal() and int(argument) > 0):
            raise UsageError(
                f"'processes:{argument}' is no number of processes. Write how many, e.g. processes:2."
            )
        return cls(int(argument))

    def threads(self, cores: int) -> int:
        """Return a worker's share of the cores. See `Engine.threads`."""
        return max(1, cores // self.count)

    @contextmanager
    def begin(self, job: Job, progress: Progress) -> Iterator[Submit]:
        """Give places to workers, which start with their first unit. See `Engine.begin`."""
        if job.threads > 1 and job.threads * self.count > usable_cores():
            log.warning(
                "%d processes of %d threads on %d cores: they slow each other down, tenfold and more. Leave --threads "
                "out, or say --threads 1.",
                self.count,
                job.threads,
                usable_cores(),
            )
        folder = job.store / WORKERS / f"{platform.node()}-{os.getpid()}"
        job = job.model_copy(update={"workers": job.workers * self.count})
        pool = _Pool(job, progress, folder, _own_environments(job.device, self.count))
        try:
            yield pool.submit
        finally:
            pool.end()
            _tidy(folder)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_environments(device: str, count: int) -> list[Mapping[str, str]]:
    """Return what each worker finds in its environment: where there are several GPUs, one for each, in turn."""
    if device != "cuda":
        return [{} for _ in range(count)]
    import torch

    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = seen.split(",") if seen else [str(number) for number in range(torch.cuda.device_count())]
    if not gpus:
        return [{} for _ in range(count)]  # each worker says that there is none
    return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(count)]


def _tidy(folder: Path) -> None:
    """Remove logs that say nothing, and the folder where none says anything."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if not path.stat().st_size:
                path.unlink()
        folder.rmdir()
        folder.parent.rmdir()


class _Pool:
    """Places for workers; units go to whichever is free.

    Args:
        job: for each worker.
        progress: told what is finished.
        folder: of the workers' logs.
        environments: one a place.
    """

    def __init__(
        self, job: Job, progress: Progress, folder: Path, environments: Sequence[Mapping[str, str]]
    ) -> None:
        self._tasks: SimpleQueue[tuple[Unit, Future[Report]] | None] = SimpleQueue()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._useless = ""
        self._serving = len(environments)
        self._places = [
            _Place(job, progress, folder / f"worker-{number}.log", environment)
            for number, environment in enumerate(environments, 1)
        ]
        self._threads = [threading.Thread(target=self._serve, args=(place,)) for place in self._places]
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()

    def submit(self, units: Sequence[Unit]) -> list[Future[Report]]:
        """Hand units out; see `bench.run.engine.Submit`."""
        futures: list[Future[Report]] = [Future() for _ in units]
        for task in zip(units, futures, strict=True):
            self._tasks.put(task)
        return futures

    def end(self) -> None:
        """End all workers, and what they started."""
        self._ended.set()
        for place in self._places:
            place.stop()
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, place: _Place) -> None:
        """Do units with the worker of one place until none follows."""
        while (task := self._tasks.get()) is not None:
            unit, future = task
            try:
                if self._useless:
                    raise EngineError(self._useless)
                future.set_result(place.do(unit, self._ended))
            except _NeverBeganError as error:
                if self._retires(str(error)):
                    self._tasks.put(task)
                    break
                future.set_exception(error)
            except Exception as error:  # whoever waits is to hear of it
                future.set_exception(error)
        place.stop()

    def _retires(self, reason: str) -> bool:
        """Whether a place whose worker cannot begin is given up, as others work; where none does, none will."""
        with self._lock:
            if self._serving == 1 or not any(place.has_worked for place in self._places):
                self._useless = reason
                return False
            self._serving -= 1
            log.warning("going on with %d workers: %s", self._serving, reason)
            return True

    def _watch(self) -> None:
        """End workers that take too long, and what those left that have ended, which would hold their pipe open."""
        while not self._ended.wait(_TICK):
            for place in self._places:
                place.end_if_due()


class _NeverBeganError(EngineError):
    """A worker ended before it had done anything."""


class _Place:
    """A place for one worker at a time.

    Args:
        job: what each worker is told first.
        progress: told what is finished.
        log_file: where it prints to.
        environment: what it finds in its environment besides this process's own.
    """

    def __init__(self, job: Job, progress: Progress, log_file: Path, environment: Mapping[str, str]) -> None:
        self.job = job
        self.progress = progress
        self.log_file = log_file
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._last, self._since = Message(), time.monotonic()
        self._too_long = self._is_closed = False
        self.has_worked = False

    def do(self, unit: Unit, ended: threading.Event) -> Report:
        """Have a unit done, by another worker without the artefact at which one died.

        Raises:
            EngineError: workers end with no artefact in work, or this process is ending them.
            UsageError: a worker plans other artefacts.
        """
        failed, died_at = dict(unit.failed), set[str]()
        while not ended.is_set():
            answer = self._ask(unit.model_copy(update={"failed": failed}))
            if isinstance(answer, Report):
                self.has_worked = True
                return answer
            if ended.is_set():
                break
            again, address = answer.is_chance(died_at), answer.last.address
            died_at.add(address)
            if not (again or address):
                kind = EngineError if self.has_worked else _NeverBeganError
                raise kind(f"{answer.reason()}.{self._tail()}")
            if not again:
                failed[address] = answer.reason()
            how = "with it once more" if again else "without it"
            log.warning("%s; going on %s", answer.reason().rstrip("."), how)
        raise EngineError("the run is being ended.")

    def _ask(self, unit: Unit) -> Report | Death:
        """Hand a worker a unit and follow it to its report, or to its end.

        Raises:
            UsageError: it says that it cannot do this unit, as it plans others.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # it has ended, as is found below
            process.stdin.write(unit.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        for line in process.stdout:
            said = json.loads(line)
            if "report" in said:
                return Report.model_validate(said["report"])
            if "error" in said:
                raise UsageError(said["error"])
            if "finished" in said:
                self.progress(*said["finished"])
            else:
                self._last, self._since = Message(**said), time.monotonic()
        death = Death(self._last, process.wait(), self._too_long)
        with self._lock:
            _kill(process)  # what it had started
        return death

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the worker, a new one where there is none.

        Raises:
            EngineError: the run is being ended.
        """
        with self._lock:
            if self._is_closed:
                raise EngineError("the run is being ended.")
            if self._process is None or self._process.poll() is not None:
                self._last, self._since, self._too_long = Message(), time.monotonic(), False
                self._process = self._start()
            return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("ab") as printed:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "bench.engines.process_worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=printed,
                    env={**os.environ, **self.environment},
                    start_new_session=True,  # Ctrl-C is this process's; what a worker starts ends with it
                )
        except OSError as error:
            raise EngineError(f"no worker can be started: {error}.") from error
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(self.job.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        return process

    def _tail(self) -> str:
        """Return the last lines of what it printed, for a message."""
        try:
            lines = self.log_file.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        said = " / ".join(line.strip() for line in [each for each in lines if each.strip()][-_SHOWN_LINES:])
        return f" It printed: {said} (all of it in {self.log_file})." if said else ""

    def end_if_due(self) -> None:
        """End the worker where an artefact takes it too long, and what it started where it has ended itself."""
        with self._lock:
            if self._process is None:
                return
            if self._process.poll() is not None:
                _kill(self._process)
            elif is_overdue(self._last, time.monotonic() - self._since):
                self._too_long = True
                _kill(self._process)

    def stop(self) -> None:
        """End the worker, and what it started, for good."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                _kill(self._process)
                self._process.wait()


def _kill(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
