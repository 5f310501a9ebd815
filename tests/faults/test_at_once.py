"""Several runs at once on one store: the same result, and nothing computed twice."""

import pytest
import torch

from bench.quality.lpips import Unavailable
from bench.run.device import Machine
from bench.run.digest import digest
from bench.run.graph import Executor, Node
from bench.run.store import Store

MATRIX = (
    "--dataset", "tiny:identities=12,photos=4", "--attack", "tiny-noise", "--attack", "pgd:eps=32,steps=2",
    "--defense", "jpeg:quality=20", "--backbone", "tiny-a", "--head", "nn", "--threads", "1", "--quiet",
)  # fmt: skip


def computed(run):
    """Return how many images a run computed, by stage and method, as its log has it."""
    lines = (run / "run.log").read_text().splitlines()
    found = [line.partition(" INFO computed ")[2] for line in lines if " INFO computed " in line]
    return {text.partition(": ")[0]: int(text.partition(": ")[2].split()[0]) for text in found}


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_runs_at_once_share_the_work_and_agree(command, tmp_path, count):
    alone = command("run", *MATRIX, "--store", tmp_path / "other", "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    runs = [tmp_path / f"run{number}" for number in range(count)]
    processes = [
        command("run", *MATRIX, "--store", tmp_path / "store", "--out", run, wait=False, TINY_DELAY="0.02")
        for run in runs
    ]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    table = (tmp_path / "alone/leaderboard.csv").read_bytes()
    assert {(run / "leaderboard.csv").read_bytes() for run in runs} == {table}
    whole, shares = computed(tmp_path / "alone"), [computed(run) for run in runs]
    for what, images in whole.items():
        assert sum(share.get(what, 0) for share in shares) == images, what
    artefacts = [path.relative_to(tmp_path / "store") for path in (tmp_path / "store").glob("*/*/*.json")]
    assert sorted(artefacts) == sorted(
        path.relative_to(tmp_path / "other") for path in (tmp_path / "other").glob("*/*/*.json")
    )
    assert list((tmp_path / "store/.locks").iterdir()) == []


def test_what_another_run_finished_meanwhile_is_not_made_again(tmp_path):
    """It may have ended between the look into the store and the lock."""
    store = Store(tmp_path)
    late = Late(store)
    executor = Executor(store, Machine(torch.device("cpu"), 1, 1, Unavailable("not needed")))
    assert executor.fetch(late) == b"theirs"


class Late(Node):
    """A node that somebody else stores while its inputs are fetched."""

    stage = "cloak"

    def __init__(self, store):
        super().__init__("late", {})
        self.store = store

    @property
    def inputs(self):
        self.store.write(self.stage, self.address, b"theirs", key=self.key, seconds=0, images=1)
        return ()

    def key_fields(self):
        return {"what": "late"}

    @property
    def address(self):
        return digest(self.key)

    @property
    def key(self):
        return {"stage": self.stage, "what": "late"}

    def run(self, payloads, machine, advance):
        raise AssertionError("it was there")


@pytest.mark.slow
def test_a_lock_that_a_killed_run_left_stops_nobody(command, tmp_path):
    done = command("run", *MATRIX, "--store", tmp_path / "store", "--out", tmp_path / "first")
    assert done.returncode == 0, done.stderr
    records = list((tmp_path / "store").glob("*/*/*.json"))
    for record in records:
        (tmp_path / "store/.locks" / f"{record.stem}.lock").write_bytes(b"")
        record.unlink()
    done = command("run", *MATRIX, "--store", tmp_path / "store", "--out", tmp_path / "second")
    assert done.returncode == 0, done.stderr
    assert all(record.exists() for record in records)
