"""The driver and the seam: units handed to an engine, and what becomes of a run whose engine loses them."""

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


@pytest.fixture
def inline(planned, digests):
    prepared = planned(name="inline")
    assert {result.status for result in execute(prepared)} == {"ok"}
    return digests(prepared.store.folder)


@pytest.mark.parametrize(("unit_seconds", "at_once"), [(0, None), (0, 1), (2, 2), (1e6, None)])
def test_units_of_any_size_give_the_same_bytes_as_one_process(
    planned, inline, digests, unit_seconds, at_once
):
    engine = Here(unit_seconds=unit_seconds, at_once=at_once)
    prepared = planned(engine)
    total = len(prepared.missing)
    steps = []
    results = execute(prepared, lambda node, count: steps.append((node.address, count)))
    assert {result.status for result in results} == {"ok"}
    assert digests(prepared.store.folder) == inline
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


@pytest.fixture
def handed(planned):
    """A run with one of its artefacts as a unit, and its job."""
    prepared = planned()
    node = next(each for each in prepared.missing if each.stage == "cloak")
    return prepared, Unit(number=0, what="one", addresses=(node.address,)), job_of(prepared)


def test_a_worker_computes_what_it_is_told_in_text(handed):
    _, unit, job = handed
    told = type(unit).model_validate_json(unit.model_dump_json())
    report = work(type(job).model_validate_json(job.model_dump_json()), told)
    assert {*unit.addresses} <= report.seconds.keys(), "and what it is made from"
    assert work(job, unit).seconds == {}


def test_a_unit_is_little_text_and_what_waits_for_what_does_not_travel(planned):
    engine = Here()
    execute(planned(engine))
    units = [unit for units in engine.handed for unit in units]
    assert any(unit.after for unit in units)
    for unit in units:
        text = unit.model_dump_json()
        assert len(text) < 300
        assert not Unit.model_validate_json(text).after


def test_a_job_is_planned_once(handed, monkeypatch):
    prepared, unit, job = handed
    plans = []
    monkeypatch.setattr("bench.run.work.prepare", lambda *given: plans.append(given) or prepared)
    for _ in range(3):
        work(type(job).model_validate_json(job.model_dump_json()), unit)
    assert len(plans) == 1


def test_a_worker_with_another_environment_says_what_differs(handed):
    _, unit, job = handed
    with pytest.raises(UsageError, match=r"environment\.threads: 1 then, 2 now"):
        work(job.model_copy(update={"threads": 2}), unit)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda made: {
                "methods": [
                    one.model_copy(update={"source": "0" * 64}) if one.kind == "attacks" else one
                    for one in made.methods
                ]
            },
            "planned and here: the code of 'tiny-noise' is another; the code of 'tiny-learning' is another.",
        ),
        (
            lambda made: {"stages": {**made.stages, "cloak": "0" * 64}},
            "the code of stage 'cloak' is another.",
        ),
        (lambda made: {"photos": "0" * 64}, "the photos are others."),
        (
            lambda made: {
                "environment": {
                    **made.environment,
                    "packages": {**made.environment["packages"], "torch": "1.0"},
                }
            },
            "environment.packages.torch: 1.0 then, ",
        ),
        (lambda _made: {}, "This machine plans other artefacts."),
    ],
)
def test_in_what_a_worker_differs_is_named(handed, change, said):
    _, unit, job = handed
    there = job.made_with.model_copy(update=change(job.made_with))
    elsewhere = job.model_copy(update={"made_with": there})
    with pytest.raises(UsageError) as raised:
        work(elsewhere, unit.model_copy(update={"addresses": ("f" * 64,)}))
    assert said in str(raised.value)
    assert str(raised.value).startswith("no artefact of this run has the address ffffffffffff here. ")


def test_an_engine_names_the_threads_where_nobody_does(planned):
    class Two(Here):
        def threads(self, cores):
            return 2

    assert planned(Two(), threads=None).machine.threads == 2
    assert planned(Two(), threads=1).machine.threads == 1
