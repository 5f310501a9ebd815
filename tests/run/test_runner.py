"""Running a matrix from Python."""

import json
import logging
import os
import time

import pandas as pd
import pytest

from bench import api
from bench.errors import DataError, UsageError
from bench.files import StoreError
from bench.leaderboard.as_csv import to_csv
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.table import build
from bench.run.planning import Options, prepare
from bench.run.runner import execute
from bench.run.spec import make_spec


def test_python_gives_the_same_bytes_as_the_command(tiny, finished, tmp_path):
    leaderboard = api.run(
        attacks=["tiny-noise", "pgd:steps=2,eps=32"],
        defenses="jpeg:quality=20",
        backbones="tiny-a",
        heads=["nn", "linear"],
        dataset="tiny",
        options=api.Options(threads=1, batch_size=5, store=tmp_path / "store", out=tmp_path / "run"),
    )
    assert isinstance(leaderboard, pd.DataFrame)
    # What is read first stands first from Python; the values are the command's.
    assert tuple(leaderboard.columns[: len(api.FIRST)]) == api.FIRST
    assert to_csv(leaderboard[list(COLUMNS)]).encode() == finished.csv.read_bytes()


def test_each_seed_has_its_rows(evaluate):
    leaderboard = build(evaluate(attacks=("tiny-noise",), seeds=(3, 5)).folder)
    assert leaderboard.groupby(["attack", "defense"])["seed"].apply(list).to_dict() == {
        ("none", "none"): [3, 5],
        ("tiny-noise", "none"): [3, 5],
    }
    # Without randomness of a method nothing depends on its seed.
    one, other = (
        leaderboard[(leaderboard["attack"] == "none") & (leaderboard["seed"] == seed)] for seed in (3, 5)
    )
    assert to_csv(one.drop(columns="seed")) == to_csv(other.drop(columns="seed"))


def test_heads_share_everything_but_the_decision(evaluate, tmp_path):
    prepared = evaluate(attacks=("tiny-noise",), heads=("nn",), store=tmp_path / "store")
    requested = make_spec(
        {"dataset": "tiny", "attacks": ("tiny-noise",), "heads": ("nn", "centroid"), "backbones": ("tiny-a",)}
    )
    more = prepare(requested, Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))
    assert [node.stage for node in more.missing] == ["decide", "decide"]
    assert (len(more.run.cells), more.cached_cells()) == (4, 2)
    assert {node.label.rpartition(" ")[2] for node in more.missing} == {"centroid"}
    assert prepared.missing  # as it was prepared, before it ran


def test_estimates_come_from_what_was_timed_on_the_store(evaluate, tmp_path):
    store = tmp_path / "store"
    evaluate(attacks=("tiny-noise",), store=store)
    history = [json.loads(line) for line in (store / "timings.jsonl").read_text().splitlines()]
    pace = {(row["stage"], row["label"]): row["seconds"] / row["images"] for row in history}
    with (store / "timings.jsonl").open("a") as file:
        file.write('{"stage": "cut sho')  # killed while it wrote
    requested = make_spec({"dataset": "tiny:photos=7", "attacks": ("tiny-noise",), "backbones": ("tiny-a",)})
    groups = prepare(requested, Options(threads=1, store=store, out=tmp_path / "run")).groups()
    assert {group.stage for group in groups} == {"faces", "cloak", "measure", "diagnose", "embed", "decide"}
    for group in groups:
        assert group.timed
        assert group.seconds == pytest.approx(pace[group.stage, group.label] * group.images)
        assert group.size > 0


def test_what_is_known_before_work_stops_before_work(tiny, tmp_path):
    wrong = [
        ({"identities": 7}, "--identities 7 is more than the 6 evaluated identities"),
        ({"attacks": ("fawks",)}, "Did you mean 'fawkes'"),
        ({"heads": ("n",)}, "unknown head"),
        ({"protocol": "tracker:min_probes=6"}, "too few photos"),
        ({"attacks": ("pgd:surrogates=tiny-z",)}, "unknown backbone 'tiny-z'"),
        ({"dataset": "tiny:training_identities=0", "attacks": ("tiny-learning",)}, "no training identities"),
    ]
    for fields, message in wrong:
        requested = make_spec({"dataset": "tiny", "backbones": ("tiny-a",), **fields})
        with pytest.raises(UsageError, match=message):
            prepare(requested, Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_missing_weights_stop_before_work(tiny, tmp_path):
    requested = make_spec({"dataset": "tiny", "backbones": ("mobileface-v2",)})
    with pytest.raises(DataError, match=r"mobileface.*is not in the data folder"):
        prepare(requested, Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))
    requested = make_spec(
        {"dataset": "tiny", "backbones": ("tiny-a",), "attacks": ("pgd:surrogates=mobileface-v3",)}
    )
    with pytest.raises(DataError, match=r"mobileface.*is not in the data folder"):
        prepare(requested, Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_the_log_returns_to_what_it_was(evaluate, tmp_path):
    log = logging.getLogger("bench")
    before = (log.level, list(log.handlers))
    evaluate(store=tmp_path / "store")
    assert (log.level, list(log.handlers)) == before


def test_a_store_that_fills_up_stops_the_run_and_keeps_what_was_done(tiny, monkeypatch, tmp_path):
    from bench.run.store import Store

    requested = make_spec({"dataset": "tiny", "attacks": ("tiny-noise",), "backbones": ("tiny-a",)})
    options = Options(threads=1, store=tmp_path / "store", out=tmp_path / "run")
    write = Store.write

    def until_embeddings(self, stage, address, payload, **facts):
        if stage == "embed":
            raise StoreError("cannot write: No space left on device")
        return write(self, stage, address, payload, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", until_embeddings)
        with pytest.raises(StoreError, match="No space left"):
            execute(prepare(requested, options))
    left = prepare(requested, options)
    assert {node.stage for node in left.missing} == {"embed", "decide"}
    assert [result.status for result in execute(left)] == ["ok", "ok"]


def test_temporary_files_of_a_killed_run_are_removed_and_those_of_others_stay(evaluate, tmp_path):
    made = evaluate(store=tmp_path / "store")
    stale, fresh = made.folder.path / "decisions/.0123.tmp", made.folder.path / ".4567.tmp"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (1, 1))
    os.utime(fresh, (time.time() + 60,) * 2)
    execute(made)
    assert not stale.exists()
    assert fresh.exists()
