"""A run that is told to end says so, keeps what it computed, and goes on to the same bytes."""

import random
import signal
import subprocess
import time
from contextlib import suppress

import pytest

MATRIX = (
    "--dataset", "tiny:identities=12,photos=4", "--attack", "tiny-noise", "--attack", "pgd:eps=32,steps=2",
    "--defense", "jpeg:quality=20", "--backbone", "tiny-a", "--head", "nn", "--threads", "1", "--quiet",
)  # fmt: skip

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Ended by SIGTERM", signal.SIGHUP: "Ended by SIGHUP"}


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """An undisturbed run, and how long it took."""
    root = tmp_path_factory.mktemp("whole")
    start = time.monotonic()
    done = command("run", *MATRIX, "--store", root / "store", "--out", root / "run")
    assert done.returncode == 0, done.stderr
    return root / "run", time.monotonic() - start


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGHUP)),
    ],
)
def test_a_run_that_is_told_to_end_ends_in_order(begun, command, whole, tmp_path, number):
    store, run = tmp_path / "store", tmp_path / "run"
    process = command("run", *MATRIX, "--store", store, "--out", run, wait=False, TINY_DELAY="0.05")
    begun(store, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == CODES[number], err
    assert err.splitlines()[-1] == (
        f"{WORDS[number]}. What was computed is kept; the same command goes on from there."
    )
    assert "Traceback" not in err
    assert not (run / "cells.json").exists()
    assert not list(store.rglob("*.tmp"))
    done = command("run", *MATRIX, "--store", store, "--out", run)
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "leaderboard.csv").read_bytes() == (whole[0] / "leaderboard.csv").read_bytes()


@pytest.mark.slow
def test_a_signal_that_was_to_be_ignored_is(begun, command, whole, tmp_path):
    """As nohup and a shell's background jobs start programs."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        store, run = tmp_path / "store", tmp_path / "run"
        process = command("run", *MATRIX, "--store", store, "--out", run, wait=False, TINY_DELAY="0.02")
    finally:
        signal.signal(signal.SIGHUP, old)
    begun(store, process)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (run / "leaderboard.csv").read_bytes() == (whole[0] / "leaderboard.csv").read_bytes()


@pytest.mark.parametrize(
    ("number", "seed"),
    [
        (signal.SIGKILL, 0),
        *(pytest.param(signal.SIGKILL, seed, marks=pytest.mark.slow) for seed in range(1, 11)),
        *(pytest.param(signal.SIGINT, seed, marks=pytest.mark.slow) for seed in range(4)),
        *(pytest.param(signal.SIGTERM, seed, marks=pytest.mark.slow) for seed in range(4)),
    ],
)
def test_killed_anywhere_again_and_again_it_goes_on_to_the_same_bytes(command, whole, tmp_path, number, seed):
    """Up to ten times at a moment that a seed draws; then to the end."""
    finished, took = whole
    draw = random.Random(seed)
    store, run = tmp_path / "store", tmp_path / "run"
    for _ in range(10 if seed else 3):
        process = command("run", *MATRIX, "--store", store, "--out", run, wait=False)
        with suppress(subprocess.TimeoutExpired):  # still at work, as wanted
            process.wait(timeout=draw.uniform(0.3, 1.2) * took)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
    done = command("run", *MATRIX, "--store", store, "--out", run)
    assert done.returncode == 0, done.stderr
    assert (run / "leaderboard.csv").read_bytes() == (finished / "leaderboard.csv").read_bytes()
    assert {path.name for path in (run / "decisions").iterdir()} == {
        path.name for path in (finished / "decisions").iterdir()
    }
