import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from bench.contracts import CONTRACT
from bench.errors import MethodError, UsageError
from bench.files import StoreError
from bench.quality.lpips import Unavailable
from bench.run import graph
from bench.run.code_hashes import code_digest
from bench.run.device import Machine
from bench.run.digest import environment
from bench.run.graph import STAGES, Executor, Node, NodeError, missing
from bench.run.store import Store
from bench.run.store_care import survey

MACHINE = Machine(torch.device("cpu"), 1, 64, Unavailable("not needed"))
HERE = environment("cpu", 1)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def executor(store):
    return Executor(store, MACHINE)


@dataclass(frozen=True, eq=False)
class Fake(Node):
    """Counts how often it is computed; its payload is its name and its inputs' payloads."""

    stage: str
    name: str
    sources: tuple[Node, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    runs: list[None] = field(default_factory=list)

    images = 2
    size = 10

    @property
    def inputs(self):
        return self.sources

    @property
    def count(self):
        return len(self.runs)

    def key_fields(self):
        return {"name": self.name, **self.fields}

    def run(self, payloads, machine, advance):
        assert machine is MACHINE
        self.runs.append(None)
        if self.error is not None:
            raise self.error
        advance(2)
        return b"(" + b" ".join([self.name.encode(), *(payloads[one.address] for one in self.inputs)]) + b")"


@dataclass(frozen=True, eq=False)
class Streaming(Fake):
    """Looks at its inputs one after another; keeps what it was given, to be looked at again."""

    streams = True
    given: list[Mapping[str, bytes]] = field(default_factory=list)

    def run(self, payloads, machine, advance):
        self.given.append(payloads)
        return super().run(payloads, machine, advance)


def streaming(*inputs):
    return Streaming(label="s", environment=HERE, stage="decide", name="s", sources=inputs)


def node(name, *inputs, stage="cloak", error=None, label="", **key_fields):
    return Fake(
        label=label or name,
        environment=HERE,
        stage=stage,
        name=name,
        sources=inputs,
        fields=key_fields,
        error=error,
    )


def diamond(**errors):
    a = node("a", stage="faces", error=errors.get("a"))
    b = node("b", a, error=errors.get("b"))
    c = node("c", a, error=errors.get("c"))
    return a, b, c, node("d", b, c, stage="embed", error=errors.get("d"))


def test_each_node_is_computed_once_and_inputs_come_in_order(executor):
    a, b, c, d = diamond()
    assert executor.fetch(d) == b"(d (b (a)) (c (a)))"
    assert executor.fetch(d) == b"(d (b (a)) (c (a)))"
    assert [one.count for one in (a, b, c, d)] == [1, 1, 1, 1]


def test_another_execution_computes_nothing_again(store):
    Executor(store, MACHINE).fetch(diamond()[3])
    again = diamond()
    second = Executor(store, MACHINE)
    assert missing(store, [again[3]]) == []
    assert second.fetch(again[3]) == b"(d (b (a)) (c (a)))"
    assert [one.count for one in again] == [0, 0, 0, 0]
    assert second.tally.computed == {}


def test_an_address_depends_on_stage_facts_and_inputs_and_not_on_the_label():
    plain = node("x", seed=0)
    assert plain.address == node("x", seed=0).address
    assert node("x", seed=0, label="another label").address == plain.address
    elsewhere = replace(plain, environment={"device": "cuda"})
    others = [
        node("x", seed=1),
        node("x", stage="purify", seed=0),
        node("x", plain, seed=0),
        node("x", node("y"), seed=0),
        elsewhere,
    ]
    assert len({plain.address, *(one.address for one in others)}) == 6


def test_the_key_is_stored_beside_the_artefact(store, executor):
    a, b, _, _ = diamond()
    executor.fetch(b)
    record = store.record("cloak", b.address)
    assert record.key == {
        "stage": "cloak",
        **CONTRACT,
        "code": code_digest(Fake),
        "environment": HERE,
        "name": "b",
        "inputs": [a.address],
    }
    assert record.images == 2


def test_missing_lists_each_node_once_by_stage(store, executor):
    a, b, c, d = diamond()
    order = missing(store, [d, c, d])
    assert [one.label for one in order] == ["a", "b", "c", "d"]
    assert [STAGES.index(one.stage) for one in order] == sorted(STAGES.index(one.stage) for one in order)
    executor.fetch(b)
    assert [one.label for one in missing(store, [d])] == ["c", "d"]
    assert (a.count, b.count, c.count) == (1, 1, 0)


def test_what_a_stored_artefact_was_made_from_is_not_asked_for(store, executor):
    a, b, _, _ = diamond()
    executor.fetch(b)
    for path in store.paths("faces", a.address):
        path.unlink()
    assert missing(store, [b]) == []
    assert executor.fetch(b) == b"(b (a))"
    assert a.count == 1


def test_a_corrupt_artefact_is_computed_again(store, executor, caplog):
    a, b, _, d = diamond()
    executor.fetch(d)
    store.paths("cloak", b.address)[0].write_bytes(b"rubbish")
    assert executor.fetch(b) == b"(b (a))"
    assert (a.count, b.count) == (1, 2)
    assert "corrupt" in caplog.text


def test_a_failure_gives_its_reason_to_everything_made_from_it_and_to_nothing_else(executor):
    a, b, c, d = diamond(b=MethodError("attack 'b' returned nonsense"))
    e = node("e", d, stage="decide")
    for dependent in (b, d, e, e):
        with pytest.raises(NodeError) as caught:
            executor.fetch(dependent)
        assert str(caught.value) == "cloak b: attack 'b' returned nonsense"
    assert executor.fetch(c) == b"(c (a))"
    assert [one.count for one in (a, b, c, d, e)] == [1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("error", "reason", "traceback"),
    [
        (ZeroDivisionError("by zero"), "cloak x: ZeroDivisionError: by zero", True),
        (UsageError("say another"), "cloak x: say another", False),
        (MemoryError(), "cloak x: MemoryError:", True),
        (SystemExit(0), "cloak x: SystemExit: 0", True),
    ],
)
def test_an_unexpected_error_keeps_its_type_and_its_traceback(executor, caplog, error, reason, traceback):
    with caplog.at_level(logging.ERROR, "bench"), pytest.raises(NodeError) as caught:
        executor.fetch(node("x", error=error))
    assert str(caught.value) == reason
    assert caught.value.__cause__ is error
    assert bool(caplog.records[0].exc_info) is traceback


def test_a_failure_is_not_stored(store):
    with pytest.raises(NodeError):
        Executor(store, MACHINE).fetch(node("x", error=MethodError("not now")))
    assert Executor(store, MACHINE).fetch(node("x")) == b"(x)"


@dataclass(frozen=True, eq=False)
class Long(Fake):
    """Keeps what it has done in its checkpoint; ends with an error the first time."""

    resumes = True

    def run(self, payloads, machine, advance):
        if machine.checkpoint.is_file():
            return machine.checkpoint.read_bytes() + b" and the rest"
        machine.checkpoint.write_bytes(b"half")
        raise MethodError("it takes too long")


def long():
    return Long(label="long", environment=HERE, stage="fit", name="long")


def test_what_keeps_itself_goes_on_when_it_is_made_again_and_leaves_nothing(store):
    with pytest.raises(NodeError, match="it takes too long"):
        Executor(store, MACHINE).fetch(long())
    kept = store.checkpoint("fit", long().address)
    assert kept.read_bytes() == b"half"
    assert Executor(store, MACHINE).fetch(long()) == b"half and the rest"
    assert not kept.exists()


def test_a_checkpoint_that_nobody_goes_on_from_is_swept_as_a_temporary_file(store):
    with pytest.raises(NodeError):
        Executor(store, MACHINE).fetch(long())
    assert [(item.stage, item.state) for item in survey(store)] == [("fit", "temporary")]
    assert store.sweep() == 0
    assert store.sweep(older_than_s=-1) == 1
    assert not store.checkpoint("fit", long().address).exists()


def test_a_checkpoint_whose_folder_cannot_be_made_is_the_stores_error(tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match="Choose another place with --store"):
        Executor(Store(tmp_path / "store"), MACHINE).fetch(long())


def test_an_interrupt_passes_through_and_keeps_what_was_finished(store):
    a, b, _, d = diamond(c=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        Executor(store, MACHINE).fetch(d)
    assert (a.count, b.count, d.count) == (1, 1, 0)
    again = diamond()
    assert Executor(store, MACHINE).fetch(again[3]) == b"(d (b (a)) (c (a)))"
    assert [one.count for one in again] == [0, 0, 1, 1]


def test_a_store_that_cannot_be_written_ends_the_run_and_fails_no_node(store, executor, monkeypatch):
    a, b, _, _ = diamond()

    def full(*_arguments, **_named):
        raise StoreError("the disk is full")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(StoreError, match="the disk is full"):
        executor.fetch(b)
    monkeypatch.undo()
    assert executor.fetch(b) == b"(b (a))"
    assert a.count == 2


def test_progress_and_tally_say_what_was_done(store):
    steps = []
    executor = Executor(store, MACHINE, lambda one, count: steps.append((one.label, count)))
    executor.fetch(diamond()[3])
    # Each begins with none.
    assert steps == [(name, count) for name in "abcd" for count in (0, 2)]
    assert executor.tally.computed == {
        ("faces", "a"): 1,
        ("cloak", "b"): 1,
        ("cloak", "c"): 1,
        ("embed", "d"): 1,
    }
    assert executor.tally.images[("embed", "d")] == 2
    assert all(seconds >= 0 for seconds in executor.tally.seconds.values())


def test_a_node_planned_for_another_machine_is_not_computed(store, executor):
    other = replace(node("x"), environment={**HERE, "threads": 7})
    with pytest.raises(NodeError, match="threads 7 planned, 1 here"):
        executor.fetch(other)
    assert (other.stage, other.address) not in store


def test_a_result_whose_code_was_edited_meanwhile_is_not_stored(store, executor, monkeypatch):
    def edited(_key):
        raise UsageError("cloak.py changed since it was imported")

    monkeypatch.setattr(graph, "check_unchanged", edited)
    with pytest.raises(NodeError, match=r"cloak\.py changed"):
        executor.fetch(node("x"))
    assert ("cloak", node("x").address) not in store


def test_a_node_that_streams_reads_what_was_computed_before(store, executor):
    sources = [node("a"), node("b")]
    one = streaming(*sources)
    executor.fetch(sources[0])
    assert executor.fetch(one) == b"(s (a) (b))"
    assert [each.count for each in sources] == [1, 1]
    (given,) = one.given
    assert dict(given) == {each.address: store.read(each.stage, each.address) for each in sources}
    assert given[sources[0].address] is not given[sources[0].address]  # read again, not held
    with pytest.raises(KeyError):
        given["of nobody"]


def test_a_damaged_input_of_a_node_that_streams_is_computed_again(store, executor):
    source = node("a")
    executor.fetch(source)
    store.paths(source.stage, source.address)[0].write_bytes(b"damaged")
    assert executor.fetch(streaming(source)) == b"(s (a))"
    assert source.count == 2


def test_an_input_that_is_removed_while_it_is_used_is_said(store, executor):
    source = node("a")
    one = streaming(source)
    executor.fetch(one)
    store.paths(source.stage, source.address)[1].unlink()
    with pytest.raises(
        NodeError, match=r"cloak \w{12} was removed or changed in .*store.*Run the same command"
    ):
        one.given[0][source.address]


def test_what_a_failed_input_says_is_said_of_a_node_that_streams(executor):
    failing = node("a", error=ValueError("too dark"))
    with pytest.raises(NodeError, match="too dark"):
        executor.fetch(streaming(failing))
