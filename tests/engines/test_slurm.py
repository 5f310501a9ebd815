"""``--engine slurm`` on a real Slurm on this machine's loopback: same bytes, whatever is killed."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCAL = ROOT.parent / "shared" / "slurm" / "slurm-local"
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


@pytest.fixture
def is_the_same(alone, digests):
    """Return a function that shows that a run has the bytes of the one in its own process."""

    def shown(root):
        assert (root / "run" / "leaderboard.csv").read_bytes() == (
            alone / "run" / "leaderboard.csv"
        ).read_bytes()
        assert digests(root / "store") == digests(alone / "store")

    return shown


def where(root, engine=ENGINE):
    return ("--engine", engine, "--store", root / "store", "--out", root / "run")


def queue(cluster):
    """Return the ids of jobs that wait or run."""
    asked = ["squeue", "--noheader", "--array", "--format=%i %T"]
    answer = subprocess.run(asked, env=os.environ | cluster, capture_output=True, text=True, check=True)
    return [line.split() for line in answer.stdout.splitlines()]


def test_a_matrix_on_slurm_gives_the_same_bytes(cluster, command, short, is_the_same, tmp_path):
    done = command("run", *short, *where(tmp_path), **cluster)
    assert done.returncode == 0, done.stderr
    is_the_same(tmp_path)
    log = (tmp_path / "run" / "run.log").read_text()
    assert "1 units of work for slurm" in log  # nothing here is worth a job of its own
    assert "_log.err" in log
    assert queue(cluster) == []
    again = command("run", *short, *where(tmp_path), **cluster)
    assert again.returncode == 0, again.stderr


@slow
def test_an_artefact_a_job_gives_the_same_bytes(cluster, command, short, is_the_same, tmp_path):
    process = command("run", *short, *where(tmp_path, f"{ENGINE},unit=0,at_once=2"), wait=False, **cluster)
    _, err = process.communicate(timeout=1200)  # 22 jobs that each start two processes
    assert process.returncode == 0, err
    is_the_same(tmp_path)


@slow
@pytest.mark.parametrize("how", ["cancelled", "requeued", "killed"])
def test_a_job_that_is_taken_away_is_done_again(
    cluster, command, short, is_the_same, running, wait_until, tmp_path, how
):
    process = command("run", *short, *where(tmp_path), wait=False, TINY_DELAY="0.2", **cluster)
    wait_until(lambda: list((tmp_path / "store").glob("faces/*/*.json")), process)
    # The job of the test before may not be gone yet.
    wait_until(lambda: [state for _, state in queue(cluster)] == ["RUNNING"], process)
    ((job, _),) = queue(cluster)
    if how == "killed":
        for number, words in running().items():
            if "submitit.core._submit" in words and str(tmp_path) in " ".join(words):
                os.kill(number, signal.SIGKILL)
    else:
        words = ["scancel", job] if how == "cancelled" else ["scontrol", "requeue", job]
        subprocess.run(words, env=os.environ | cluster, check=True)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    is_the_same(tmp_path)


@slow
def test_an_interrupt_takes_jobs_back_and_the_same_command_goes_on(
    cluster, command, short, is_the_same, wait_until, tmp_path
):
    process = command("run", *short, *where(tmp_path), wait=False, TINY_DELAY="0.2", **cluster)
    wait_until(lambda: list((tmp_path / "store").glob("faces/*/*.json")), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "What was computed is kept" in err
    wait_until(lambda: not queue(cluster))
    done = command("run", *short, *where(tmp_path), **cluster)
    assert done.returncode == 0, done.stderr
    is_the_same(tmp_path)


@slow
def test_a_driver_that_is_killed_leaves_jobs_whose_work_counts(
    cluster, command, short, is_the_same, wait_until, tmp_path
):
    process = command("run", *short, *where(tmp_path), wait=False, TINY_DELAY="0.05", **cluster)
    wait_until(lambda: list((tmp_path / "store").glob("faces/*/*.json")), process)
    process.kill()
    process.communicate()
    done = command("run", *short, *where(tmp_path), **cluster)
    assert done.returncode == 0, done.stderr
    is_the_same(tmp_path)


@slow
def test_a_partition_that_is_not_there_is_said_in_slurms_words(cluster, command, short, tmp_path):
    done = command("run", *short, *where(tmp_path), "--slurm-partition", "nowhere", **cluster)
    assert done.returncode == 1
    assert "Slurm took no job:" in done.stderr
    assert "nvalid partition" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_slurm_it_says_so(command, short, tmp_path):
    done = command("run", *short, *where(tmp_path), PATH="/nowhere")
    assert done.returncode == 1
    assert "Slurm's sbatch is not here." in done.stderr
