"""What Slurm does not take is submitted again, after longer each time; no Slurm is needed for it."""

import time
from contextlib import contextmanager

import pytest

from bench.engines import slurm
from bench.run.engine import EngineError, Job, Report, Unit
from bench.run.provenance import MadeWith
from bench.run.spec import make_spec


class Controller:
    """Takes jobs from the so-manieth time on."""

    def __init__(self, takes_at):
        self.takes_at, self.asked = takes_at, []

    @contextmanager
    def batch(self):
        self.asked.append(time.monotonic())
        yield

    def submit(self, task):
        if len(self.asked) < self.takes_at:
            raise RuntimeError("sbatch: error: Unable to contact slurm controller (connect failure)")
        report = Report(seconds={"a" * 64: 1.0})
        (task.folder / f"report-{task.number}.json").write_text(report.model_dump_json())
        return self

    job_id = "17_0"

    @property
    def paths(self):
        return self

    stderr = "17_0_log.err"


@pytest.fixture
def handed(monkeypatch, tmp_path):
    """Return a function that hands one unit to a controller and gives its future's report."""
    monkeypatch.setattr(slurm, "PAUSE", 0.5)
    monkeypatch.setattr(slurm, "_in_queue", lambda: None)
    monkeypatch.setattr(slurm, "_begin", lambda _command: None)
    job = Job(
        spec=make_spec({}), device="cpu", threads=1, batch_size=64, store=tmp_path,
        made_with=MadeWith(environment={}, stages={}, methods=(), photos=""),
    )  # fmt: skip

    def hand(controller):
        monkeypatch.setattr(slurm, "_executor", lambda *_: controller)
        with slurm.Slurm().begin(job, lambda _address, _n: None) as submit:
            (future,) = submit([Unit(number=3, what="one", addresses=("a" * 64,))])
            return future.result(timeout=60)

    return hand


def test_a_controller_that_comes_back_is_waited_for(handed):
    controller = Controller(takes_at=slurm.TRIES)
    assert handed(controller).seconds == {"a" * 64: 1.0}
    first, second, third = controller.asked
    assert second - first >= slurm.PAUSE
    assert third - second >= 4 * slurm.PAUSE


def test_one_that_does_not_fails_the_unit_with_its_words(handed):
    controller = Controller(takes_at=99)
    said = r"Slurm took no job: sbatch: error: Unable to contact slurm controller \(connect failure\)\."
    with pytest.raises(EngineError, match=said):
        handed(controller)
    assert len(controller.asked) == slurm.TRIES
