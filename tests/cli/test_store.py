"""`bench store`: what is damaged is found, mended and computed again; what runs need is kept, and can be given away."""

import json
import os
import shutil
import time

import pytest

from bench.run.store import Store
from bench.run.store_care import survey

DAY = 86_400


@pytest.fixture
def store(finished, tmp_path):
    return shutil.copytree(finished.store, tmp_path / "store")


def payloads(store, stage="*"):
    return sorted(store.glob(f"{stage}/*/*.bin"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(one, other):
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


DAMAGES = {
    "a bit of a payload": ("damaged", lambda store: flip(payloads(store, "cloak")[0])),
    "a payload cut short": ("damaged", lambda store: os.truncate(payloads(store, "embed")[0], 10)),
    "an empty payload": ("damaged", lambda store: payloads(store, "decide")[0].write_bytes(b"")),
    "a bit of a record": ("damaged", lambda store: flip(payloads(store, "faces")[0].with_suffix(".json"))),
    "an empty record": ("damaged", lambda store: payloads(store)[0].with_suffix(".json").write_bytes(b"")),
    "two payloads changed places": ("damaged", lambda store: swap(*payloads(store, "embed")[:2])),
    "no payload": ("incomplete", lambda store: payloads(store, "measure")[0].unlink()),
    "no record": ("incomplete", lambda store: payloads(store, "measure")[0].with_suffix(".json").unlink()),
}
"""What can happen to a store → the state it is found in, and how to bring it about."""


def change_places(store):
    one, other = payloads(store, "embed")[:2]
    swap(one, other)
    swap(one.with_suffix(".json"), other.with_suffix(".json"))


DAMAGES["two artefacts changed places"] = ("misplaced", change_places)


def test_a_whole_store_is_whole(cli, store):
    code, out, _ = cli("store", "check", "--store", store)
    assert code == 0, out
    number = len(payloads(store))
    assert f"{number} whole: as it was written" in out
    assert "repair" not in out


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_mended_and_computed_again(cli, store, matrix, finished, tmp_path, what):
    state, bring_about = DAMAGES[what]
    bring_about(store)
    before = {path: path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}
    code, out, _ = cli("store", "check", "--store", store, "--json")
    found = json.loads(out)
    assert code == (0 if state == "incomplete" else 1)
    states = {item["state"] for item in found["not_whole"]}
    assert len(states) == 1
    assert states <= {state, "misplaced"}, "a changed record may name another key"
    assert {path: path.read_bytes() for path in before} == before, "looking changes nothing"
    code, out, _ = cli("store", "repair", "--store", store)
    assert code == 0
    assert f"{states.pop()}: " in out
    assert {item.state for item in survey(Store(store))} == {"whole"}
    code, _, err = cli("run", *matrix, "--store", store, "--out", tmp_path / "run", "--quiet")
    assert code == 0, err
    assert (tmp_path / "run/leaderboard.csv").read_bytes() == finished.csv.read_bytes()


@pytest.mark.parametrize("what", [what for what, (state, _) in DAMAGES.items() if state != "incomplete"])
def test_a_run_notices_damage_by_itself_and_says_so(cli, store, matrix, finished, tmp_path, what):
    DAMAGES[what][1](store)
    for path in payloads(store, "decide"):  # so that the run reads what decisions are made from
        if path.stat().st_size:
            path.with_suffix(".json").unlink()
    code, _, err = cli("run", *matrix, "--store", store, "--out", tmp_path / "run")
    assert code == 0, err
    assert (tmp_path / "run/leaderboard.csv").read_bytes() == finished.csv.read_bytes()


def test_what_a_run_may_be_writing_is_left(cli, store):
    young, old = (
        payloads(store)[0].with_name(f".{name}.tmp") for name in ("0123456789abcdef", "fedcba9876543210")
    )
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * DAY,) * 2)
    code, out, _ = cli("store", "repair", "--store", store)
    assert (code, young.exists(), old.exists()) == (0, True, False)
    assert "temporary: " in out


def test_clearing_keeps_what_a_run_needs(cli, store, finished, matrix, tmp_path):
    more = [*matrix, "--defense", "median"]
    assert cli("run", *more, "--store", store, "--out", tmp_path / "more", "--quiet")[0] == 0
    everything = len(payloads(store))
    code, out, _ = cli("store", "gc", "--keep", finished.run, "--store", store, "--dry-run", "--json")
    chosen = json.loads(out)["removed"]
    assert code == 0
    assert len(payloads(store)) == everything
    assert len(chosen) == everything - len(payloads(finished.store)) > 0
    code, out, _ = cli("store", "gc", "--keep", finished.run, "--store", store)
    assert code == 0
    assert f"{len(chosen)} artefacts" in out.splitlines()[-1]
    assert {path.relative_to(store) for path in payloads(store)} == {
        path.relative_to(finished.store) for path in payloads(finished.store)
    }


def test_what_is_not_the_stores_is_never_touched(cli, tmp_path):
    """A folder of photos may have the name of a stage."""
    photos = [tmp_path / "data/faces" / name for name in ("alice/1.jpg", "ab/2.json", "ab/notes.bin")]
    for photo in photos:
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(b"mine")
    for words in (("repair",), ("gc", "--older-than", 0.000001)):
        assert cli("store", *words, "--store", tmp_path / "data")[0] == 0
    assert [photo.read_bytes() for photo in photos] == [b"mine"] * 3


def test_a_store_that_a_run_uses_is_left_alone(cli, store):
    address = payloads(store, "cloak")[0].stem
    with Store(store).computing("cloak", address):
        for words in (("repair",), ("gc", "--older-than", 1)):
            code, _, err = cli("store", *words, "--store", store)
            assert (code, f"a run is computing in {store}" in err) == (2, True)
    assert cli("store", "repair", "--store", store)[0] == 0


def test_nothing_is_cleared_where_it_cannot_be_told_what_a_run_needs(cli, store, finished):
    """As after an update of torch: what the run was made from would be called otherwise here."""
    before = payloads(store)
    for path in payloads(store, "decide"):
        path.with_suffix(".json").unlink()
    code, _, err = cli("store", "gc", "--keep", finished.run, "--store", store)
    assert code == 2
    assert "it cannot be told which ones to keep. Nothing was removed" in err
    assert payloads(store) == before


def test_clearing_by_age(cli, store):
    old = payloads(store, "cloak")[0]
    for path in (old, old.with_suffix(".json")):
        os.utime(path, (time.time() - 40 * DAY,) * 2)
    code, out, _ = cli("store", "gc", "--older-than", 30, "--store", store, "--json")
    assert code == 0
    assert [item["address"] for item in json.loads(out)["removed"]] == [old.stem]
    assert not old.exists()


def age(folder, days):
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - days * DAY,) * 2)


def test_clearing_takes_what_jobs_and_workers_of_runs_long_gone_left(cli, store):
    names = (".slurm/0123", ".slurm/young", ".workers/node-17", "data/.slurm/mine")
    for name in names:
        (store / name / "jobs").mkdir(parents=True)
        (store / name / "jobs/1_log.err").write_text("said")
        age(store / name, 3)
    os.utime(store / ".slurm/young/jobs/1_log.err")
    words = ("store", "gc", "--older-than", 2, "--store", store)
    code, out, _ = cli(*words, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["folders"] == [".slurm/0123", ".workers/node-17"]
    assert all((store / name).is_dir() for name in names)
    assert cli("store", "gc", "--older-than", 4, "--store", store)[0] == 0
    assert all((store / name).is_dir() for name in names)
    code, out, _ = cli(*words)
    assert code == 0
    assert "what jobs and workers left: 2 folders\n" in out
    assert [(store / name).is_dir() for name in names] == [False, True, False, True]
    assert not (store / ".workers").exists()


def test_clearing_leaves_a_store_alone_for_which_others_compute(cli, store):
    """As while all jobs of a cluster wait in its queue: nobody holds an artefact then."""
    (store / ".slurm/0123").mkdir(parents=True)
    age(store / ".slurm/0123", 3)
    words = ("store", "gc", "--older-than", 0.001, "--store", store)
    with Store(store).at_work():
        code, _, err = cli(*words)
        assert (code, f"a run is computing in {store}" in err) == (2, True)
    assert (store / ".slurm/0123").is_dir()
    assert cli(*words)[0] == 0
    assert not (store / ".slurm/0123").exists()
    assert not list((store / ".locks").iterdir())


def test_clearing_everything_by_accident_is_refused(cli, store):
    code, _, err = cli("store", "gc", "--store", store)
    assert code == 2
    assert "would remove everything. Say what stays: --keep RUN or --older-than DAYS." in err


def test_a_store_can_be_given_away_with_its_run(cli, store, finished, tmp_path):
    code, out, err = cli("store", "export", finished.run, tmp_path / "given", "--store", store)
    assert code == 0, err
    assert out.endswith(f"artefacts in {tmp_path / 'given'}\n")
    code, out, err = cli("verify", finished.run, "--store", tmp_path / "given", "--cells", 0)
    assert code == 0, out + err
    assert {item.state for item in survey(Store(tmp_path / "given"))} == {"whole"}


def test_what_is_not_there_is_said_and_the_rest_is_copied(cli, store, finished, tmp_path):
    gone = payloads(store, "cloak")[0]
    gone.with_suffix(".json").unlink()
    code, _, err = cli("store", "export", finished.run, tmp_path / "given", "--store", store)
    assert code == 2
    assert f"artefacts are not in {store}, e.g. cloak {gone.stem[:12]}" in err
    assert len(payloads(tmp_path / "given")) == len(payloads(store)) - 1


@pytest.mark.parametrize("command", ["check", "repair"])
def test_no_store_is_said_in_one_sentence(cli, tmp_path, command):
    code, _, err = cli("store", command, "--store", tmp_path / "nowhere")
    assert code == 2
    assert err == f"Error: there is no store at {tmp_path / 'nowhere'}. Give its folder with --store.\n"
