"""``--engine slurm`` on a real Slurm on this machine's loopback: same bytes, whatever is killed."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCAL = ROOT.parent / "shared" / "slurm" / "slurm-local"
MATRIX = (
    "--dataset", "tiny", "--attack", "tiny-noise", "--defense", "jpeg:quality=20", "--backbone", "tiny-a",
    "--head", "nn", "--threads", "1", "--quiet",
)  # fmt: skip
ENGINE = "slurm:patience=3"

pytestmark = pytest.mark.skipif(
    not LOCAL.is_file() or os.geteuid() != 0, reason="needs root and a script that starts a Slurm on loopback"
)
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a Slurm of two cores; gives what a command finds it by."""
    # In continuous integration only where it is installed: to install it needs the network.
    from shutil import which

    if (
        not all(map(which, ("slurmctld", "slurmd", "sbatch", "munged")))
        and "CLOAKBENCH_INSTALL_SLURM" not in os.environ
    ):
        pytest.skip("Slurm is not installed; CLOAKBENCH_INSTALL_SLURM=1 installs it")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(
        ["bash", LOCAL, "start", folder, "2"], capture_output=True, text=True, timeout=300, check=False
    )
    assert started.returncode == 0, started.stderr
    yield {"SLURM_CONF": started.stdout.partition("SLURM_CONF=")[2].strip()}
    subprocess.run(["bash", LOCAL, "stop", folder], check=False, timeout=60)


def payloads(store):
    return {
        path.relative_to(store): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.glob("*/*/*.bin")
    }


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory):
    root = tmp_path_factory.mktemp("alone")
    done = command("run", *MATRIX, "--store", root / "store", "--out", root / "run")
    assert done.returncode == 0, done.stderr
    return root


def is_the_same(root, alone):
    assert (root / "run" / "leaderboard.csv").read_bytes() == (alone / "run" / "leaderboard.csv").read_bytes()
    assert payloads(root / "store") == payloads(alone / "store")


def where(root, engine=ENGINE):
    return ("--engine", engine, "--store", root / "store", "--out", root / "run")


def queue(cluster):
    """Return the ids of jobs that wait or run."""
    asked = ["squeue", "--noheader", "--array", "--format=%i %T"]
    answer = subprocess.run(asked, env=os.environ | cluster, capture_output=True, text=True, check=True)
    return [line.split() for line in answer.stdout.splitlines()]


def wait_until(true, process, seconds=180):
    until = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_matrix_on_slurm_gives_the_same_bytes(cluster, command, alone, tmp_path):
    done = command("run", *MATRIX, *where(tmp_path), **cluster)
    assert done.returncode == 0, done.stderr
    is_the_same(tmp_path, alone)
    log = (tmp_path / "run" / "run.log").read_text()
    assert "1 units of work for slurm" in log  # nothing here is worth a job of its own
    assert "_log.err" in log
    assert queue(cluster) == []
    again = command("run", *MATRIX, *where(tmp_path), **cluster)
    assert again.returncode == 0, again.stderr


@slow
def test_an_artefact_a_job_gives_the_same_bytes(cluster, command, alone, tmp_path):
    done = command("run", *MATRIX, *where(tmp_path, f"{ENGINE},unit=0,at_once=2"), **cluster)
    assert done.returncode == 0, done.stderr
    is_the_same(tmp_path, alone)


@slow
@pytest.mark.parametrize("how", ["cancelled", "requeued", "killed"])
def test_a_job_that_is_taken_away_is_done_again(cluster, command, alone, tmp_path, how):
    process = command("run", *MATRIX, *where(tmp_path), wait=False, TINY_DELAY="0.2", **cluster)
    wait_until(lambda: list((tmp_path / "store").glob("faces/*/*.json")), process)
    # The job of the test before may not be gone yet.
    wait_until(lambda: [state for _, state in queue(cluster)] == ["RUNNING"], process)
    ((job, _),) = queue(cluster)
    if how == "killed":
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            if b"submitit.core._submit" in path.read_bytes() and str(tmp_path).encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
    else:
        words = ["scancel", job] if how == "cancelled" else ["scontrol", "requeue", job]
        subprocess.run(words, env=os.environ | cluster, check=True)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    is_the_same(tmp_path, alone)


@slow
def test_an_interrupt_takes_jobs_back_and_the_same_command_goes_on(cluster, command, alone, tmp_path):
    process = command("run", *MATRIX, *where(tmp_path), wait=False, TINY_DELAY="0.2", **cluster)
    wait_until(lambda: list((tmp_path / "store").glob("faces/*/*.json")), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "What was computed is kept" in err
    until = time.monotonic() + 60
    while queue(cluster):
        assert time.monotonic() < until
        time.sleep(0.2)
    done = command("run", *MATRIX, *where(tmp_path), **cluster)
    assert done.returncode == 0, done.stderr
    is_the_same(tmp_path, alone)


@slow
def test_a_driver_that_is_killed_leaves_jobs_whose_work_counts(cluster, command, alone, tmp_path):
    process = command("run", *MATRIX, *where(tmp_path), wait=False, TINY_DELAY="0.05", **cluster)
    wait_until(lambda: list((tmp_path / "store").glob("faces/*/*.json")), process)
    process.kill()
    process.communicate()
    done = command("run", *MATRIX, *where(tmp_path), **cluster)
    assert done.returncode == 0, done.stderr
    is_the_same(tmp_path, alone)


@slow
def test_a_partition_that_is_not_there_is_said_in_slurms_words(cluster, command, tmp_path):
    done = command("run", *MATRIX, *where(tmp_path), "--slurm-partition", "nowhere", **cluster)
    assert done.returncode == 1
    assert "Slurm took no job:" in done.stderr
    assert "nvalid partition" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_slurm_it_says_so(command, tmp_path):
    done = command("run", *MATRIX, *where(tmp_path), PATH="/nowhere")
    assert done.returncode == 1
    assert "Slurm's sbatch is not here." in done.stderr
