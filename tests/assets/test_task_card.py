"""A task's list of photos and its card: what they hold, and that the card is of the list."""

import csv
import io
import json
from collections import Counter
from hashlib import sha256

import pytest

from bench.assets.task_card import CARD, COLUMNS, PHOTOS, task_card
from bench.contracts import Dataset
from bench.errors import UsageError
from bench.protocols.tracker import TrackerProtocol
from bench.run.resolve import resolve
from bench.run.spec import make_spec
from bench.run.task import task_of, without_version


def card_of(**fields):
    return task_card(resolve(make_spec({"dataset": "synthetic:identities=6,photos=4", **fields})))


def listed(card):
    return list(csv.DictReader(io.StringIO(card.photos)))


def test_the_list_is_the_split():
    run = resolve(make_spec({"dataset": "synthetic:identities=6,photos=4"}))
    rows = listed(task_card(run))
    assert Counter(row["role"] for row in rows) == {
        "gallery": sum(map(len, run.split.gallery.values())),
        "probe": sum(map(len, run.split.probes.values())),
    }
    for row in rows:
        dealt = run.split.gallery if row["role"] == "gallery" else run.split.probes
        assert row["image"] in dealt[row["identity"]]
        assert int(row["fold"]) == run.split.fold[row["identity"]]
        assert (row["cloaked"] == "yes") == (row["image"] in run.split.cloaked[row["identity"]])


def test_impostors_and_targets_are_listed():
    roles = Counter(row["role"] for row in listed(card_of(protocol="pairs:targets=2,impostors=30")))
    assert set(roles) == {"gallery", "probe", "impostor", "target"}
    assert 28 <= roles["impostor"] <= 30  # who is imitated sets no threshold


def test_the_card_is_of_the_list():
    made = card_of()
    (file,) = made.card["distribution"]
    assert file["sha256"] == sha256(made.photos.encode()).hexdigest()
    (records,) = made.card["recordSet"]
    assert [field["name"] for field in records["field"]] == list(COLUMNS)
    assert {field["source"]["extract"]["column"] for field in records["field"]} == set(COLUMNS)
    assert made.card["name"] == made.task == "synthetic-tracker-v1"
    assert made.card["version"] == "1.0.0"
    assert "no person" in made.card["rai:personalSensitiveInformation"]
    assert sum(name.startswith("rai:") for name in made.card) == 7


def test_it_is_written_whole_into_a_new_folder(cli, tmp_path):
    code, out, err = cli(
        "export", "task", "--dataset", "synthetic:identities=6,photos=4", "--out", tmp_path / "task"
    )
    assert (code, err) == (0, "")
    assert out.startswith("synthetic-tracker-v1: 24 photos are listed")
    made = card_of()
    assert (tmp_path / "task" / PHOTOS).read_text() == made.photos
    assert json.loads((tmp_path / "task" / CARD).read_text()) == made.card
    code, out, err = cli("export", "task", "--out", tmp_path / "task")
    assert (code, "is there and not empty" in err) == (2, True)
    with pytest.raises(UsageError, match="not empty"):
        made.write(tmp_path / "task")


def test_a_version_raised_on_either_side_is_another_task():
    class Photos(Dataset):
        name = "photos"

    class Newer(Photos):
        version = 2

    class Rules(TrackerProtocol):
        name = "rules"

    class NewRules(Rules):
        version = 3

    # Abstract or not, a class says what its task is.
    Photos.__abstractmethods__ = Newer.__abstractmethods__ = frozenset()
    names = [task_of(d(), p(), "evaluation") for d in (Photos, Newer) for p in (Rules, NewRules)]
    assert names == ["photos-rules-v1", "photos-rules-v3", "photos-rules-v1.2", "photos-rules-v3.2"]
    assert task_of(Photos(), Rules(), "development") == "photos-rules-development-v1"
    assert {without_version(name) for name in names} == {"photos-rules"}
    assert without_version("nothing") == "nothing"
