"""Cloaking and erasing from Python: what is planned is what is done, and progress adds up."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.errors import UsageError
from bench.photo_tools import cloaking, erasing
from bench.photo_tools.applied import AppliedAttack, MethodRequest
from bench.photo_tools.changing import Counted, PhotosRequest
from bench.photo_tools.erasing import EraseRequest
from bench.photo_tools.records import CloakRecord

PATTERN = f"{Path(__file__).parents[1] / 'plugins' / 'erasable.py'}:KeyedPattern"


@given(said=st.lists(st.integers(0, 9)), total=st.integers(0, 20))
def test_progress_adds_up_to_what_there_is_whatever_a_method_says(said, total):
    seen = []
    counted = Counted(seen.append, total)
    for count in said:
        counted(count)
        assert sum(seen) == min(sum(said[: len(seen)]), total)
    counted.complete()
    assert sum(seen) == total


def requested(attack, **fields):
    return MethodRequest(attack, dataset="tiny", threads=1, **fields)


@pytest.fixture
def photos(tiny, tmp_path, monkeypatch):
    del tiny
    monkeypatch.setenv("CLOAKBENCH_STORE", str(tmp_path / "store"))
    rng = np.random.default_rng(1)
    for number in range(11):
        path = tmp_path / "photos" / f"{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(60, 196, (112, 112, 3)).astype(np.uint8)).save(path)
    return tmp_path / "photos"


def test_what_is_planned_is_done_and_counted(photos, tmp_path):
    planned = cloaking.plan(
        PhotosRequest(photos, tmp_path / "out", requested(PATTERN), key=tmp_path / "my.key")
    )
    assert (len(planned.pending), planned.done, planned.makes_key) == (11, (), True)
    assert not (tmp_path / "my.key").exists()
    counts = []
    done = cloaking.cloak(planned, counts.append)
    assert done.changed == planned.pending
    assert (done.refused, sum(counts)) == ((), 11)
    assert CloakRecord.read(tmp_path / "out" / "cloaks.json").key_fingerprint == done.fingerprint
    again = cloaking.plan(
        PhotosRequest(photos, tmp_path / "out", requested(PATTERN), key=tmp_path / "my.key")
    )
    assert (again.pending, len(again.done), again.makes_key) == ((), 11, False)
    counts.clear()
    planned = erasing.plan(
        EraseRequest(
            tmp_path / "out", tmp_path / "back", MethodRequest(PATTERN, threads=1), tmp_path / "my.key"
        )
    )
    assert len(erasing.erase(planned, counts.append).restored) == sum(counts) == 11


def test_what_is_protected_does_not_depend_on_what_else_is_in_the_folder(photos, tmp_path):
    attack = requested("tiny-noise", seed=5)
    cloaking.cloak(cloaking.plan(PhotosRequest(photos, tmp_path / "all", attack)))
    for path in photos.rglob("*.png"):
        if path.name != "07.png":
            path.unlink()
    cloaking.cloak(cloaking.plan(PhotosRequest(photos, tmp_path / "one", attack)))
    one, among_all = (tmp_path / name / "1" / "07.png" for name in ("one", "all"))
    assert one.read_bytes() == among_all.read_bytes()
    other = PhotosRequest(photos, tmp_path / "other", requested("tiny-noise", seed=6))
    cloaking.cloak(cloaking.plan(other))
    assert (tmp_path / "other/1/07.png").read_bytes() != one.read_bytes()


def test_no_part_of_an_attack_gets_a_key_it_has_no_use_for(tiny):
    del tiny
    assert AppliedAttack(requested("tiny-noise")).context(b"secret").key == b""
    applied = AppliedAttack(requested(PATTERN))
    assert applied.context(b"secret").key == b"secret"
    assert applied.context(None).key == b""


def test_a_dataset_without_training_people_is_refused_where_the_attack_imitates(photos, tmp_path):
    attack = MethodRequest("tiny-imitating", dataset="tiny:training_identities=0", threads=1)
    planned = cloaking.plan(PhotosRequest(photos, tmp_path / "out", attack))
    with pytest.raises(UsageError, match="has no training identities"):
        cloaking.cloak(planned)
    assert not (tmp_path / "out").exists()
