"""The driver and the seam: units handed to an engine, and what becomes of a run whose engine loses them."""

import hashlib
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from bench.errors import UsageError
from bench.files import StoreError
from bench.run.driver import job_of
from bench.run.engine import Engine, EngineError, Report, Unit
from bench.run.planning import Options, prepare
from bench.run.runner import execute
from bench.run.spec import make_spec
from bench.run.work import work

MATRIX = {
    "dataset": "tiny:identities=4,photos=4,training_identities=20",
    "backbones": ("tiny-a",),
    "attacks": ("tiny-noise", "tiny-learning"),
    "defenses": ("jpeg:quality=20",),
}


class Here(Engine):
    """Does each unit in this process, at once; or what a test has it do."""

    def __init__(self, do=work, unit_seconds=0.0, at_once=None):
        self.do, self.unit_seconds, self.at_once = do, unit_seconds, at_once
        self.handed, self.ended = [], False

    @classmethod
    def of(cls, argument):
        return cls()

    @contextmanager
    def begin(self, job, progress):
        def submit(units):
            self.handed.append(list(units))
            return [self._future(job, unit) for unit in units]

        try:
            yield submit
        finally:
            self.ended = True

    def _future(self, job, unit):
        future = Future()
        try:
            future.set_result(self.do(job, unit))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def planned(tiny, tmp_path):
    def plan(engine=None, name="one", **how):
        options = {"threads": 1, "store": tmp_path / name / "store", "out": tmp_path / name / "run"}
        return prepare(make_spec(MATRIX), Options(engine=engine, **{**options, **how}))

    return plan


def payloads(prepared):
    store = prepared.store.folder
    return {
        path.relative_to(store): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.glob("*/*/*.bin")
    }


@pytest.fixture
def inline(planned):
    prepared = planned(name="inline")
    assert {result.status for result in execute(prepared)} == {"ok"}
    return payloads(prepared)


@pytest.mark.parametrize(("unit_seconds", "at_once"), [(0, None), (0, 1), (2, 2), (1e6, None)])
def test_units_of_any_size_give_the_same_bytes_as_one_process(planned, inline, unit_seconds, at_once):
    engine = Here(unit_seconds=unit_seconds, at_once=at_once)
    prepared = planned(engine)
    total = len(prepared.missing)
    steps = []
    results = execute(prepared, lambda node, count: steps.append((node.address, count)))
    assert {result.status for result in results} == {"ok"}
    assert payloads(prepared) == inline
    assert engine.ended
    units = [unit for units in engine.handed for unit in units]
    assert sorted(address for unit in units for address in unit.addresses) == sorted(
        {node.address for node in prepared.artefacts}
    )
    assert len(units) == (total if unit_seconds == 0 else len(units))
    assert at_once is None or max(map(len, engine.handed)) <= at_once
    moved = {
        node.address: sum(n for address, n in steps if address == node.address) for node in prepared.artefacts
    }
    assert moved == {node.address: node.work for node in prepared.artefacts}
    assert "seconds" in (prepared.store.folder / "timings.jsonl").read_text()
    assert planned(engine).missing == []


def test_a_finished_run_asks_no_engine(planned, inline):
    engine = Here()
    execute(planned(engine, name="inline"))
    assert engine.handed == []


def test_a_lost_unit_fails_the_cells_that_need_it_and_no_others(planned):
    def lose(job, unit):
        if unit.what.startswith("cloak tiny-learning"):
            raise EngineError("the node burnt down.")
        return work(job, unit)

    engine = Here(lose)
    results = execute(planned(engine))
    failed = {result.attack for result in results if result.status == "failed"}
    assert failed == {"tiny-learning"}
    assert all(r.reason.endswith("the node burnt down.") for r in results if r.status == "failed")
    begun = [unit.what for units in engine.handed for unit in units]
    assert not [what for what in begun if "tiny-learning" in what and what.startswith(("purify", "decide"))]
    again = planned(Here())
    assert {result.status for result in execute(again)} == {"ok"}


def test_what_a_worker_reports_as_failed_is_the_reason_of_its_cells(planned):
    def fail(job, unit):
        if unit.what.startswith("cloak tiny-noise"):
            return Report(failed=dict.fromkeys(unit.addresses, "cloak tiny-noise: as the test wants it"))
        return work(job, unit)

    results = execute(planned(Here(fail)))
    assert {r.reason for r in results if r.attack == "tiny-noise"} == {
        "cloak tiny-noise: as the test wants it"
    }
    assert {r.status for r in results if r.attack != "tiny-noise"} == {"ok"}


def test_a_full_store_ends_the_run(planned):
    with pytest.raises(StoreError, match="no space left"):
        execute(planned(Here(lambda _job, _unit: Report(stopped="cannot write: no space left"))))


def test_a_worker_with_another_environment_says_what_differs(planned):
    prepared = planned()
    node = prepared.missing[0]
    unit = Unit(number=0, what="one", addresses=(node.address,), key=node.key)
    job = job_of(prepared)
    with pytest.raises(UsageError, match=r"environment\.threads: 1 then, 2 now"):
        work(job.model_copy(update={"threads": 2}), unit)
    moved = type(unit).model_validate_json(unit.model_dump_json())
    assert work(type(job).model_validate_json(job.model_dump_json()), moved).seconds.keys() == {node.address}
    assert work(job, unit).seconds == {}


def test_an_engine_names_the_threads_where_nobody_does(planned):
    class Two(Here):
        def threads(self, cores):
            return 2

    assert planned(Two(), threads=None).machine.threads == 2
    assert planned(Two(), threads=1).machine.threads == 1
