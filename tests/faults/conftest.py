"""What several tests of faults start."""

import subprocess
import sys
import time

import pytest

SECONDS = 300
BYTES = 4 << 30


@pytest.fixture
def bounded():
    """Return a function that runs Python code with files as its arguments; it ends where it takes too much."""

    def run(code, paths, *options):
        return subprocess.run(
            [sys.executable, *options, "-c", code, *map(str, paths)],
            capture_output=True, text=True, timeout=SECONDS, check=False, preexec_fn=_within,
        )  # fmt: skip

    return run


def _within():
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))


@pytest.fixture(scope="session")
def begun():
    """Return a function that waits until a run has put its first artefact into its store."""

    def wait(store, process):
        until = time.monotonic() + 120
        while not list(store.glob("*/*/*.json")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)

    return wait
