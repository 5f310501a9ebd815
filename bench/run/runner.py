"""Runs a planned matrix: computes what is missing, writes the run's folder, and notes what it took."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from bench.files import sweep
from bench.run import following, timings
from bench.run.driver import Driver
from bench.run.folder import CellResult
from bench.run.graph import Executor, Node, Tally
from bench.run.outputs import Outputs
from bench.run.planning import Prepared

log = logging.getLogger("bench")


def execute(prepared: Prepared, advance: Callable[[Node, int], None] | None = None) -> list[CellResult]:
    """Compute what is missing and write the run's folder; returns what became of each cell.

    Whatever is computed before an interruption is kept: the same command goes on from there.

    Args:
        prepared: the run.
        advance: called with (node, images finished), first with none as a node begins; None: as the run's
            `Options.progress` says.

    Raises:
        StoreError: the store or the run's folder cannot be written.
        EngineError: the engine of the run's options cannot be used here.
    """
    began = time.time()
    prepared.begin()
    tally = Tally()
    with (
        _log_to(prepared.folder.path / "run.log"),
        _timed(prepared, tally),
        _progress(prepared) if advance is None else nullcontext(advance) as moved,
    ):
        executor = Executor(prepared.store, prepared.machine, moved, tally)
        if prepared.options.engine is None:
            executor.compute(prepared.missing)
        else:
            Driver(prepared, prepared.options.engine, executor).compute()
        results = Outputs(prepared, executor.fetch).write_cells(prepared.folder)
    prepared.folder.write_manifest()
    sweep(prepared.folder.path, began)
    return results


@contextmanager
def _progress(prepared: Prepared) -> Iterator[Callable[[Node, int], None]]:
    """Give the function that shows how far a run is, as its options say."""
    wanted = prepared.options.progress
    if callable(wanted):
        yield following.calling(prepared, wanted)
    elif wanted:
        with following.of_run(prepared) as advance:
            yield advance
    else:
        yield lambda _node, _n: None


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


@contextmanager
def _timed(prepared: Prepared, tally: Tally) -> Iterator[None]:
    """Log what is to be done and what was done, and write ``timings.csv``, also when interrupted."""
    start = time.perf_counter()
    for line in prepared.lines():
        log.info("%s", line)
    try:
        yield
    finally:
        timings.remember(prepared.store, tally)
        log.info("run time %.1f s", time.perf_counter() - start)
        timed = timings.as_csv(prepared.store, prepared.artefacts)
        prepared.folder.write_bytes("timings.csv", timed.encode())
