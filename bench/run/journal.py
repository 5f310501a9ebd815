"""What a run notes of itself beside its results: ``run.log`` and ``timings.csv``."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.run import timings
from bench.run.graph import Tally
from bench.run.planning import Prepared

log = logging.getLogger("bench")


@contextmanager
def kept(prepared: Prepared, tally: Tally) -> Iterator[None]:
    """Log what is to be done and what was done, and write what it took, also when it is interrupted."""
    start = time.perf_counter()
    with _log_to(prepared.folder.path / "run.log"):
        for line in prepared.lines():
            log.info("%s", line)
        try:
            yield
        finally:
            timings.remember(prepared.store, tally)
            log.info("run time %.1f s", time.perf_counter() - start)
            timed = timings.as_csv(prepared.store, prepared.artefacts)
            prepared.folder.write_bytes("timings.csv", timed.encode())


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
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
