"""A photo saved again, in gallery and probes: `bench run` itself says so, and only so."""

import json

import numpy as np
import pytest
from PIL import Image

from bench.analysis.warning_rules import of_photos
from bench.leaderboard.about import about
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.quality.near_duplicates import SamePhotos
from bench.run import photo_sets
from bench.run.folder import RunFolder
from bench.run.planning import Options, prepare
from bench.run.runner import execute
from bench.run.spec import make_spec

PHOTOS = 6


@pytest.fixture(scope="module")
def album(tiny, tmp_path_factory):
    """Drawn faces as a folder of JPEG files, one folder a person."""
    del tiny
    faces, root = factory.dataset("tiny:identities=4"), tmp_path_factory.mktemp("album")
    for number, identity in enumerate(faces.identities()[:4]):
        (root / f"person-{number}").mkdir()
        for at, crop in enumerate(faces.crops(identity.photos[:PHOTOS])):
            pixels = crop.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(root / f"person-{number}" / f"{at}.jpg", quality=90)
    return root


def specification(album):
    return make_spec(
        {"dataset": f"folder:path={album},aligned=true", "backbones": ("tiny-a",), "heads": ("nn",)}
    )


def file_of(album, image):
    """Return the file of an image id: people and photos are counted in the order of their names."""
    person, photo = (int(part.rpartition("-")[2]) for part in image.split("/"))
    return sorted(sorted(album.iterdir())[person].iterdir())[photo - min_photo(album)]


def min_photo(album):
    dataset = factory.dataset(f"folder:path={album},aligned=true")
    return min(int(photo.rpartition("/")[2]) for one in dataset.identities() for photo in one.photos)


def executed(album, tmp_path, name):
    prepared = prepare(specification(album), Options("cpu", 1, store=tmp_path / "store", out=tmp_path / name))
    assert {cell.status for cell in execute(prepared)} == {"ok"}
    return prepared


def said(prepared):
    return {str(warning) for warnings in build(prepared.folder)["warnings"] for warning in warnings}


def resave(album, prepared):
    """Save a gallery photo again as PNG in the place of a probe of the same person; returns both ids."""
    split = prepared.run.split
    person = min(split.probes)
    kept, lost = split.gallery[person][0], split.probes[person][0]
    source, place = file_of(album, kept), file_of(album, lost)
    with Image.open(source) as photo:
        pixels = np.asarray(photo).astype(np.int16)
    place.unlink()
    Image.fromarray((pixels + 1).clip(0, 255).astype(np.uint8)).save(place.with_suffix(".png"))
    return lost, kept


def test_a_gallery_photo_saved_again_among_the_probes_is_said_by_the_run(album, tmp_path):
    before = executed(album, tmp_path, "before")
    assert not [one for one in said(before) if "same-photo" in one]
    pair = resave(album, before)
    after = executed(album, tmp_path, "after")
    assert after.run.split == before.run.split
    count = sum(map(len, after.run.split.probes.values()))
    (found,) = (one for one in said(after) if one.startswith("same-photo"))
    assert found == (
        f"same-photo: 1 of {count} probes are near-duplicates of a gallery photo, and recognised without knowing the "
        "face (`bench audit` names them)"
    )
    (cell,) = after.folder.cells()
    assert cell.photo_diagnosis in after.folder.manifest()
    written = SamePhotos.model_validate_json(after.folder.content(cell.photo_diagnosis))
    assert [found[:2] for found in written.pairs] == [pair]
    (fact,) = (
        one for one in about(after.folder, build(after.folder))["warnings"] if one["code"] == "same-photo"
    )
    assert fact["rows"] == ["none x none x tiny-a"]
    _same_again(after, tmp_path)


def _same_again(prepared, tmp_path):
    """The photos are compared once: a second run reads what is stored, and writes the same bytes."""
    there = {path.name: path.read_bytes() for path in (prepared.folder.path / "diagnoses").iterdir()}
    again = prepare(
        prepared.run.requested, Options("cpu", 1, store=tmp_path / "store", out=tmp_path / "again")
    )
    assert not [node for node in again.missing if node.stage == "diagnose"]
    execute(again)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again/diagnoses").iterdir()} == there


def test_a_run_of_drawn_faces_is_not_warned_of(evaluate):
    folder = evaluate(attacks=("tiny-noise",), defenses=("jpeg:quality=20",), heads=("nn",)).folder
    cells = folder.cells()
    (name,) = {cell.photo_diagnosis for cell in cells}  # all cells share it
    found = json.loads((folder.path / name).read_text())
    assert (found["pairs"], found["reason"]) == ([], "")
    assert found["probes"] == sum(map(len, folder.split().probes.values()))


def test_a_run_of_the_embedded_default_is_not_warned_of(tiny, tmp_path):
    prepared = prepare(
        make_spec({"dataset": "synthetic"}), Options("cpu", 1, store=tmp_path / "store", out=tmp_path / "out")
    )
    (node,) = prepared.pipeline.photo_probes()
    payloads = {one.address: fingerprints_of(one, prepared.machine) for one in node.inputs}
    found = SamePhotos.model_validate_json(node.run(payloads, prepared.machine, lambda _n: None))
    assert found.probes > 40
    assert of_photos(found, prepared.run.dataset.note) == []


def fingerprints_of(node, machine):
    (photos,) = node.inputs
    crops = photos.run({}, machine, lambda _n: None)
    return node.run({photos.address: crops}, machine, lambda _n: None)


def test_no_node_holds_the_crops_of_more_than_one_shard(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_sets, "SHARD_IMAGES", 8)
    prepared = prepare(
        make_spec({"dataset": "tiny"}), Options("cpu", 1, store=tmp_path / "store", out=tmp_path / "out")
    )
    (node,) = prepared.pipeline.photo_probes()
    shards = [one.inputs for one in node.inputs]
    assert shards == [(crops,) for role in ("gallery", "probes") for crops in prepared.pipeline.natural(role)]
    assert len(shards) > 3
    for one in node.inputs:
        crops = one.inputs[0].run({}, prepared.machine, lambda _n: None)
        assert 10 * len(fingerprints_of(one, prepared.machine)) < len(crops)


def test_a_photo_is_found_whatever_the_shards(album, tmp_path, monkeypatch):
    pair = resave(album, executed(album, tmp_path, "again-before"))
    monkeypatch.setattr(photo_sets, "SHARD_IMAGES", 2)
    parted = executed(album, tmp_path, "parted")
    assert len(parted.pipeline.photo_probes()[0].inputs) > 4
    (cell,) = parted.folder.cells()
    found = SamePhotos.model_validate_json(parted.folder.content(cell.photo_diagnosis))
    assert pair in [one[:2] for one in found.pairs]


def test_a_folder_of_a_version_that_did_not_look_is_read_as_before(evaluate, copy_of):
    folder = copy_of(evaluate(attacks=("tiny-noise",), defenses=("none",), heads=("nn",)).folder)
    before = build(folder)
    cells = json.loads((folder.path / "cells.json").read_text())
    for name in {cell.pop("photo_diagnosis") for cell in cells}:
        (folder.path / name).unlink()
    folder.write_json("cells.json", cells)
    folder.write_manifest()
    assert build(RunFolder(folder.path)).equals(before)


PAIR = ("a", "b", 1, 0.99)


@pytest.mark.parametrize(
    ("photos", "note", "code"),
    [
        (SamePhotos(probes=100, pairs=(PAIR,)), "", "same-photo"),
        (SamePhotos(probes=101, pairs=(PAIR,)), "", None),
        (SamePhotos(probes=100, pairs=(PAIR, ("a", "c", 1, 0.99))), "holds 1 near-duplicate photos", None),
        (
            SamePhotos(probes=100, pairs=(PAIR, ("c", "b", 1, 0.99))),
            "holds 1 near-duplicate photos",
            "same-photo",
        ),
        (SamePhotos(reason="it broke; badly"), "", "not-diagnosed"),
        (SamePhotos(), "", None),
    ],
)
def test_the_rule(photos, note, code):
    found = of_photos(photos, note)
    assert [warning.code for warning in found] == ([code] if code else [])
    assert not any(";" in warning.sentence for warning in found)
