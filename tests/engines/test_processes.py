"""``--engine processes:N``: the same bytes by any number of workers; a dead one loses what it had in work, at most."""

import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.engines.names import named
from bench.engines.processes import Processes
from bench.errors import UsageError

PLUGIN = f"{Path(__file__).parents[1] / 'faults' / 'bad_attack.py'}:Misbehaves"
linux = pytest.mark.skipif(sys.platform != "linux", reason="the processes of others are read from /proc")


def table(root):
    return (root / "run" / "leaderboard.csv").read_bytes()


@pytest.mark.parametrize("count", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8))])
def test_any_number_of_workers_gives_the_same_bytes(command, short, alone, digests, tmp_path, count):
    where = ("--store", tmp_path / "store", "--out", tmp_path / "run")
    done = command("run", *short, "--engine", f"processes:{count}", *where)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "store") == digests(alone / "store")
    assert table(tmp_path) == table(alone)
    assert not (tmp_path / "store" / ".workers").exists()
    log = (tmp_path / "run" / "run.log").read_text()
    assert f"units of work for processes:{count}" in log
    assert log.count("computed cloak tiny-noise") == 1


@pytest.mark.parametrize(
    ("how", "said"),
    [
        pytest.param(
            "leaves", "the process that computed it left with exit code 0", marks=pytest.mark.slow
        ),  # tests/faults/test_worker.py has a quick one
        pytest.param("dies", "the process that computed it was ended by SIGSEGV", marks=pytest.mark.slow),
        pytest.param("hangs_in_c", "took longer than 10 s", marks=pytest.mark.slow),
        pytest.param(
            "starts_others", "the process that computed it left with exit code 1", marks=pytest.mark.slow
        ),
    ],
)
def test_a_plugin_that_ends_its_worker_loses_its_own_cells_only(
    command, short, alone, rows, running, tmp_path, how, said
):
    attack = ("--attack", f"{PLUGIN}:how={how}", "--time-limit", "10", "--engine", "processes:2")
    done = command("run", *short, *attack, "--store", tmp_path / "store", "--out", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    own, others = rows(tmp_path / "run")
    assert set(own["status"]) == {"failed"}
    assert own["reason"].str.contains(said, regex=False).all()
    pd.testing.assert_frame_equal(others, rows(alone / "run")[1])
    assert not [words for words in running().values() if "987654" in words]


@pytest.fixture
def workers_of(running):
    """Return a function to the numbers of the workers whose store this is: their log is in it."""

    def found(store):
        numbers = [n for n, words in running().items() if "bench.engines.process_worker" in words]
        return [number for number in numbers if _prints_into(number, store)]

    return found


def _prints_into(number, store):
    try:
        return str(Path(f"/proc/{number}/fd/2").readlink()).startswith(str(store))
    except OSError:
        return False


@pytest.fixture
def in_work(command, short, workers_of, wait_until, tmp_path):
    """Start a run whose cloaks take a while; gives it with two workers, one cloak being computed."""
    store = tmp_path / "store"
    where = ("--engine", "processes:2", "--store", store, "--out", tmp_path / "run")
    process = command("run", *short, *where, wait=False, TINY_DELAY="0.2")
    wait_until(lambda: list(store.glob("faces/*/*.json")) and len(workers_of(store)) == 2, process)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def go_on(command, short, alone, digests, tmp_path):
    """Return a function that gives the same command again and shows that it ends as one undisturbed."""

    def run():
        before = digests(tmp_path / "store")
        where = ("--engine", "processes:2", "--store", tmp_path / "store", "--out", tmp_path / "run")
        done = command("run", *short, *where)
        assert done.returncode == 0, done.stderr
        assert table(tmp_path) == table(alone)
        after = digests(tmp_path / "store")
        assert before.items() <= after.items()
        assert after == digests(alone / "store")

    return run


@linux
def test_a_killed_worker_costs_nothing_but_time(in_work, workers_of, alone, digests, tmp_path):
    os.kill(workers_of(tmp_path / "store")[0], signal.SIGKILL)
    _, err = in_work.communicate(timeout=120)
    assert in_work.returncode == 0, err
    assert table(tmp_path) == table(alone)
    assert digests(tmp_path / "store") == digests(alone / "store")


@linux
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_workers_too_and_the_same_command_goes_on(
    in_work, workers_of, go_on, tmp_path, number, code
):
    workers = workers_of(tmp_path / "store")
    in_work.send_signal(number)
    _, err = in_work.communicate(timeout=60)
    assert in_work.returncode == code, err
    assert "What was computed is kept" in err
    assert "Traceback" not in err
    assert not [each for each in workers if Path(f"/proc/{each}").exists()]
    go_on()


@pytest.mark.slow
@linux
def test_workers_end_with_a_driver_that_is_killed(in_work, workers_of, wait_until, go_on, tmp_path):
    workers = workers_of(tmp_path / "store")
    in_work.kill()
    in_work.communicate()
    wait_until(lambda: not [each for each in workers if Path(f"/proc/{each}").exists()], seconds=20)
    go_on()


def test_more_threads_than_cores_are_warned_of(monkeypatch, caplog, tmp_path):
    from types import SimpleNamespace

    from bench.engines import processes

    monkeypatch.setattr(processes, "_Pool", lambda *_: SimpleNamespace(submit=None, end=lambda: None))
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    for threads, count, warned in ((2, 2, True), (1, 8, False), (1, 2, False), (2, 1, False)):
        caplog.clear()
        job = SimpleNamespace(store=tmp_path, threads=threads, device="cpu", workers=1)
        job.model_copy = lambda update, job=job: job
        with Processes(count).begin(job, None):
            assert ("slow each other down" in caplog.text) == warned


# -- names ---------------------------------------------------------------------------------------------------


def test_engines_by_name():
    assert named("inline") is None
    engine = named("processes:3")
    assert isinstance(engine, Processes)
    assert (engine.at_once, engine.threads(8), engine.threads(2), str(engine)) == (3, 2, 1, "processes:3")
    assert named("processes").at_once == os.cpu_count()
    assert named("slurm:partition=main,time=5").settings.partition == "main"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("processes:none", "'processes:none' is no number of processes. Write how many, e.g. processes:2."),
        ("processes:0", "is no number of processes"),
        ("process:2", "Did you mean 'processes'"),
        ("inline:2", "unknown engine 'inline'"),
        ("slurm:partitions=main", "Valid: partition, time, gpus, memory"),
        ("slurm:time=soon", "slurm's time cannot be 'soon'"),
        (f"{PLUGIN}", "does not subclass bench.run.engine.Engine"),
        ("./nowhere.py:Mine", "is not a file"),
    ],
)
def test_what_is_no_engine_is_refused(text, said):
    with pytest.raises(UsageError) as raised:
        named(text)
    assert said in str(raised.value)


def test_options_of_slurm_are_for_slurm(here):
    done = here("plan", "--slurm-time", "5", "--engine", "processes:2")
    assert done.returncode == 2
    assert "--slurm-… options are for --engine slurm, not for 'processes:2'" in done.stderr
