"""What several tests of faults start."""

import subprocess
import sys

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
