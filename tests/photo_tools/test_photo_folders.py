"""A person's own folder: every file is a photo with a name of its own to write, or is named."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.errors import DataError, UsageError
from bench.photo_tools import photo_files
from bench.photo_tools.photo_folders import Photo, find_photos, needs_detector, png, read_crop, to_tensor

NAMES = st.sampled_from(
    [f"{folder}{stem}{suffix}" for folder in ("", "anna/", "Ben/") for stem in ("a", "A", "a.png", "b.c")
     for suffix in (".jpg", ".png", ".PNG", ".webp")]
)  # fmt: skip


def touched(root, names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@given(names=st.sets(NAMES, min_size=1))
def test_no_two_photos_are_written_to_one_file_on_any_file_system(tmp_path_factory, names):
    root = touched(tmp_path_factory.mktemp("folder"), names)
    photos, refused = find_photos(root)
    assert refused == ()
    assert {photo.name for photo in photos} == names
    outputs = [photo.output.lower() for photo in photos]
    assert len(set(outputs)) == len(outputs)
    assert all(photo.output.endswith(".png") and photo.id + ".png" == photo.output for photo in photos)
    by_person = {}
    for photo in photos:
        by_person.setdefault(photo.person, set()).add(str(Path(photo.name).parent))
    assert all(len(folders) == 1 for folders in by_person.values())
    assert len(by_person) == len({str(Path(name).parent) for name in names})


def test_a_person_is_an_opaque_id_that_stays(tmp_path):
    touched(tmp_path, ["anna/1.png", "ben/1.png"])
    before = {photo.name: photo.person for photo in find_photos(tmp_path)[0]}
    assert not any("anna" in person or "ben" in person for person in before.values())
    touched(tmp_path, ["aaron/1.png"])
    after = {photo.name: photo.person for photo in find_photos(tmp_path)[0]}
    assert {name: after[name] for name in before} == before


def test_what_is_no_photo_is_named_and_litter_is_not(tmp_path):
    touched(
        tmp_path, ["a.png", ".DS_Store", "Thumbs.db", "x/.b.png", "x/movie.mp4", "x/y/c.png", "cloaks.json"]
    )
    photos, refused = find_photos(tmp_path, ignore=("cloaks.json",))
    assert [photo.name for photo in photos] == ["a.png"]
    assert [one.name for one in refused] == ["x/movie.mp4", "x/y"]
    assert "cloaks.json" in [one.name for one in find_photos(tmp_path)[1]]
    assert [photo.name for photo in find_photos(tmp_path / "a.png")[0]] == ["a.png"]
    with pytest.raises(UsageError, match=r"gone is not a folder, nor a file"):
        find_photos(tmp_path / "gone")


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40))
def test_png_keeps_every_value(seed, height, width):
    image = torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (3, height, width)).astype(np.uint8)
    )
    assert torch.equal(to_tensor(photo_files.read(png(image)).seen()), image)
    assert png(image) == png(image)


def test_crops_are_taken_as_they_are_and_only_other_sizes_need_the_detector(tmp_path):
    Image.fromarray(np.full((112, 112, 3), 7, np.uint8)).save(tmp_path / "crop.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    photos, _ = find_photos(tmp_path)
    assert not needs_detector(photos)
    broken, crop = photos
    found = read_crop(crop)
    assert found.is_crop
    assert (found.crops[0] == 7).all()
    with pytest.raises(DataError, match=r"^it (cannot be decoded|is not an image)"):
        read_crop(broken)
    Image.fromarray(np.zeros((112, 113, 3), np.uint8)).save(tmp_path / "wide.png")
    assert needs_detector(find_photos(tmp_path)[0])


def test_a_folder_that_may_be_listed_and_not_entered_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    touched(tmp_path, ["a.png", "locked/b.png"])
    stat = os.stat

    def denied(path, *arguments, **options):
        if "locked/" in os.fspath(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", denied)
    photos, refused = find_photos(tmp_path)
    assert [photo.name for photo in photos] == ["a.png"]
    assert [one.name for one in refused] == ["locked/b.png"]
    assert "it cannot be looked at (Permission denied)" in refused[0].reason


@given(name=NAMES, count=st.integers(2, 5))
def test_no_photo_can_be_called_as_a_further_face_of_another(name, count):
    photo = Photo(Path(name), name, name, "person")
    ids = photo.face_ids(count)
    assert len(set(ids)) == count
    assert all("//" in one for one in ids[1:])
    assert all(Path(one).as_posix() != one for one in ids[1:])
