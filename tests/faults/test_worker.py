"""A plugin that ends its process, or cannot be ended within it, loses its own cells; the command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

PLUGIN = f"{Path(__file__).with_name('bad_attack.py')}:Misbehaves"
SAYS = {
    "starts_others": "the process that computed it left with exit code 1",
    "leaves": "the process that computed it left with exit code 0",
    "dies": "the process that computed it was ended by SIGSEGV",
    "hangs_in_c": "took longer than 10 s. Allow more with --time-limit SECONDS, or 0 for any time.",
}
"""What it does → what its cells say."""


@pytest.mark.parametrize(
    "how",
    [
        "starts_others",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("leaves", "dies", "hangs_in_c")),
    ],
)
def test_it_fails_its_own_cells_with_its_reason(command, short, alone, rows, running, tmp_path, how):
    attack = ("--attack", f"{PLUGIN}:how={how}", "--time-limit", "10")
    done = command("run", *short, *attack, "--store", tmp_path / "store", "--out", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    own, others = rows(tmp_path / "run")
    assert set(own["status"]) == {"failed"}
    assert own["reason"].str.contains(SAYS[how], regex=False).all()
    pd.testing.assert_frame_equal(others, rows(alone / "run")[1])
    assert SAYS[how].split(".")[0] in done.stderr
    assert done.stderr.count("going on without it") == 1
    assert done.stderr.count("going on with it once more") == (how == "dies")
    assert "Traceback" not in done.stderr
    assert not [words for words in running().values() if "987654" in words]


@pytest.mark.skipif(sys.platform != "linux", reason="the processes of others are read from /proc")
@pytest.mark.parametrize(
    ("how", "number", "code"),
    [("deaf", signal.SIGTERM, 143), pytest.param("hangs_in_c", signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_worker_that_heeds_no_signal_ends_all_the_same_and_is_not_replaced(
    begun, command, short, wait_until, tmp_path, how, number, code
):
    attack = ("--attack", f"{PLUGIN}:how={how}")
    store, run = tmp_path / "store", tmp_path / "run"
    process = command("run", *short[:2], *attack, *short[2:], "--store", store, "--out", run, wait=False)
    begun(store, process)
    worker = worker_of(process)
    wait_until(lambda: [*store.glob(".locks/*.lock")] and [*store.glob("faces/*/*.json")])
    time.sleep(3)  # its cloaks are in work
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert err.splitlines()[-1].endswith("What was computed is kept; the same command goes on from there.")
    assert "going on" not in err
    assert not Path(f"/proc/{worker}").exists()


def worker_of(process):
    """Return the number of the process that computes."""
    until = time.monotonic() + 60
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := children.read_text(encoding="ascii").split()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return int(found[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the processes of others are read from /proc")
def test_a_worker_killed_from_outside_is_replaced_and_nothing_is_lost(
    begun, command, short, alone, rows, tmp_path
):
    store, run = tmp_path / "store", tmp_path / "run"
    process = command("run", *short, "--store", store, "--out", run, wait=False, TINY_DELAY="0.1")
    begun(store, process)
    os.kill(worker_of(process), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "was ended by SIGKILL" in err
    assert err.count("going on with it once more.") == 1
    pd.testing.assert_frame_equal(rows(run)[1], rows(alone / "run")[1])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker outlives the process that is killed")
def test_a_worker_ends_with_the_command_that_is_killed(begun, command, short, wait_until, tmp_path):
    store = tmp_path / "store"
    process = command(
        "run", *short, "--store", store, "--out", tmp_path / "run", wait=False, TINY_DELAY="0.5"
    )
    begun(store, process)
    worker = worker_of(process)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), seconds=10)


def test_a_plugin_that_leaves_while_it_is_imported_ends_the_command_with_a_message(command, tmp_path):
    plugin = tmp_path / "leaver.py"
    plugin.write_text("import os\nos._exit(0)\n", encoding="utf-8")
    done = command("run", "--attack", f"{plugin}:Any", "--store", tmp_path / "s", "--out", tmp_path / "r")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Error: the process that computes left with exit code 0, with no artefact in work. What was computed is kept."
    )


@pytest.mark.slow
def test_without_a_worker_the_same_bytes(command, short, alone, rows, tmp_path):
    done = command(
        "run", *short, "--store", tmp_path / "s", "--out", tmp_path / "r", CLOAKBENCH_ONE_PROCESS="1"
    )
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(rows(tmp_path / "r")[1], rows(alone / "run")[1])


def test_ctrl_c_told_to_both_is_heeded_once(tmp_path):
    """A terminal tells the worker and the process that waits, which hands it on."""
    code = (
        "import signal, os, time\n"
        "from bench.cli.ending import heed_signals\n"
        "heed_signals()\n"
        "try:\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(.1); print('tidied')\n"
        "except KeyboardInterrupt as end:\n"
        "    print(type(end).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.split() == ["tidied", "Ended"]
