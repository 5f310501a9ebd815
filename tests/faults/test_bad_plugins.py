"""A plugin that misbehaves fails its own cells, by name; all other cells are as without it."""

import json
import math
import os
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench.errors import MethodError
from bench.plugins.process import settings
from bench.run.limits import Limits, limited

PLUGIN = f"{Path(__file__).with_name('bad_attack.py')}:Misbehaves"

FAILS = {
    "raises": "RuntimeError: boom",
    "exits": "attack 'misbehaves' called sys.exit(0), which would have ended the run",
    "exits_with_words": "called sys.exit('bye')",
    "recurses": "RecursionError",
    "no_such_file": "PermissionError",
    "broken_pipe": "BrokenPipeError",
    "other_shape": "attack 'misbehaves' on",
    "not_a_number": "returned values in [nan",
    "too_bright": "returned values in [",
    "bytes_of_grey": "torch.uint8",
    "doubles": "torch.float64",
    "arrays": "ndarray",
    "a_list": "returned list, not a mapping",
    "somebody_elses": "edited 'someone/0001', which it was not given",
    "hangs": "took longer than 5 s. Allow more with --time-limit SECONDS",
    "hangs_and_catches": "took longer than 5 s",
    "takes_all_memory": "allocate",
    "says_much": "zzzz",
}
"""What it does → what its cells say."""

LEAVES = (
    "default_dtype", "gradients", "threads", "nondeterministic", "anomalies", "denormals", "numpy_errors", "seeds",
    "working_directory", "environment", "no_logging", "strict_warnings", "changes_the_photos", "prints",
)  # fmt: skip
"""What it does and goes on."""


@pytest.fixture(scope="module")
def matrix():
    return (
        "--dataset", "tiny", "--attack", "pgd:eps=32,steps=2", "--defense", "jpeg:quality=20", "--backbone", "tiny-a",
        "--head", "nn", "--threads", "1", "--quiet",
    )  # fmt: skip


@pytest.fixture
def run(cli, matrix, tmp_path):
    """Return a function that runs the matrix with the attack; gives the exit code, table and messages."""

    def made(how="", *more):
        attack = ("--attack", f"{PLUGIN}:how={how}") if how else ()
        folder = tmp_path / (how or "without")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of the settings warn of themselves
            code, _, err = cli(
                "run",
                *matrix[:2],
                *attack,
                *matrix[2:],
                "--store",
                tmp_path / f"store-{how}",
                "--out",
                folder,
                *more,
            )
        table = pd.read_csv(folder / "leaderboard.csv", keep_default_na=False, dtype=str)
        return code, table, err, folder

    return made


def others(table):
    """Return the rows of the other attacks, without what only says who else was there."""
    chosen = table[~table["attack"].str.contains("misbehaves|bad_attack")]
    return chosen[
        ["attack", "defense", "head", "status", "asr", "normal_accuracy", "cloak_psnr"]
    ].reset_index(drop=True)


_ALONE = []
"""The table without the attack, once it was made."""


@pytest.fixture
def alone(run):
    if not _ALONE:
        _ALONE.append(others(run()[1]))
    return _ALONE[0]


QUICK = {
    "raises",
    "exits",
    "hangs",
    "takes_all_memory",
    "default_dtype",
    "gradients",
}
"""Those that the quick tests try; the others are in ``.ci/full``."""


def tiered(names):
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in names]


@pytest.mark.parametrize("how", tiered(FAILS))
def test_what_fails_fails_its_own_cells_with_its_reason(run, alone, how):
    before = settings()
    # Long enough for what the other cells take on a busy machine.
    limit = "5" if how.startswith("hangs") else "600"
    code, table, _, folder = run(how, "--time-limit", limit, "--memory-limit", "0.5")
    assert code == 1
    own = table[table["attack"].str.contains("bad_attack|misbehaves")]
    assert set(own["status"]) == {"failed"}
    for reason in own["reason"]:
        assert FAILS[how] in reason
        assert len(reason) < 2_100
        assert reason.isprintable()
    pd.testing.assert_frame_equal(others(table), alone)

    assert settings() == before
    json.loads((folder / "cells.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("how", tiered(LEAVES))
def test_what_is_left_behind_touches_no_other_cell(run, alone, how):
    before, where = settings(), Path.cwd()
    filters = list(warnings.filters)
    _, table, _, _ = run(how)
    pd.testing.assert_frame_equal(others(table), alone)
    assert settings() == before
    assert (Path.cwd(), "PATH" in os.environ) == (where, True)
    warnings.filters[:] = filters


# -- limits --------------------------------------------------------------------------------------------------------


def test_limits_where_nothing_is_said_follow_what_is_declared():
    assert Limits().seconds_for(1) == 3600
    assert Limits().seconds_for(1000) == 10_000
    assert Limits(seconds=5).seconds_for(1000) == 5
    assert Limits(seconds=0).seconds_for(1000) == 0
    assert Limits(gigabytes=2).bytes_for() == 2_000_000_000
    assert Limits(gigabytes=0).bytes_for() == 0
    assert Limits(seconds=math.inf, gigabytes=math.inf).seconds_for(1) == 0
    assert Limits(gigabytes=math.inf).bytes_for() == 0
    assert Limits().bytes_for() > 100_000_000


def test_what_is_in_time_and_in_memory_is_left_alone():
    with limited(30, 1_000_000_000, "it"):
        assert torch.ones(1 << 20).sum() == 1 << 20


def test_memory_beyond_the_limit_is_refused_and_what_follows_has_it_again():
    with pytest.raises((MemoryError, RuntimeError)), limited(0, 50_000_000, "it"):
        torch.ones(256 << 20)
    assert len(torch.ones(100 << 20)) == 100 << 20


def test_what_catches_the_alarm_hears_it_again():
    def deaf():
        try:
            time.sleep(60)
        except MethodError:
            time.sleep(60)

    start = time.monotonic()
    with pytest.raises(MethodError, match="it took longer than 0 s"), limited(0.05, 0, "it"):
        deaf()
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_no_stream_shows_reaches_table_log_and_terminal_escaped(command, matrix, tmp_path, encoding):
    attack = f"{PLUGIN}:how=says_what_no_stream_shows"
    done = command(
        "run",
        *matrix,
        "--attack",
        attack,
        "--store",
        tmp_path / "s",
        "--out",
        tmp_path / "r",
        PYTHONIOENCODING=encoding,
    )
    assert done.returncode == 1, done.stderr
    table = pd.read_csv(tmp_path / "r/leaderboard.csv", keep_default_na=False)
    reasons = table.loc[table["status"] == "failed", "reason"]
    assert len(reasons) == 2
    assert all(
        reason.isprintable() and r"bad \udcff surrogate \x1b[31m=cmd()" in reason for reason in reasons
    )
    for text in (done.stdout, (tmp_path / "r/cells.json").read_text(encoding="utf-8")):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "surrogate" in (tmp_path / "r/run.log").read_text(encoding="utf-8")


def test_a_keyboard_interrupt_of_a_plugins_own_is_its_failure(command, matrix, tmp_path):
    done = command(
        "run",
        *matrix,
        "--attack",
        f"{PLUGIN}:how=interrupts",
        "--store",
        tmp_path / "s",
        "--out",
        tmp_path / "r",
    )
    assert done.returncode == 1, done.stderr
    table = pd.read_csv(tmp_path / "r/leaderboard.csv", keep_default_na=False)
    reasons = table.loc[table["status"] == "failed", "reason"]
    assert len(reasons) == 2
    assert reasons.str.contains("attack 'misbehaves' raised KeyboardInterrupt").all()
