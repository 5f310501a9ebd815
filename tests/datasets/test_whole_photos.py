"""Which datasets have whole photos, and that these give the crops."""

import numpy as np
import pytest
import torch

from bench.authoring import checks
from bench.contracts import WholePhoto
from bench.datasets import whole_photos
from bench.datasets.folder import Folder
from bench.datasets.synthetic import Synthetic
from bench.errors import DataError, MethodError, UsageError
from bench.faces import detection
from bench.faces.alignment import TEMPLATE, align
from bench.run import calls
from tests.datasets.test_folder import FixedDetector, folder, picture, save
from tests.datasets.test_lfw import lfw, photos, write_archive, write_landmarks


def assert_gives_crops(dataset, images):
    for image, crop in zip(images, dataset.crops(images), strict=True):
        photo = calls.whole_photo(dataset, image)
        aligned = torch.from_numpy(align(photo.pixels, photo.points)).permute(2, 0, 1)
        assert torch.equal(aligned, crop)


def test_lfw(tmp_path):
    members = photos()
    write_archive(tmp_path / "lfw.tar", members)
    write_landmarks(tmp_path / "points.csv", members)
    dataset = lfw(tmp_path / "lfw.tar")
    whole_photos.check(dataset)
    assert calls.whole_photo(dataset, "lfw-00000/0001").pixels.shape == (250, 250, 3)
    assert_gives_crops(dataset, ["lfw-00000/0001", "lfw-00001/0007"])
    with pytest.raises(UsageError, match="unknown image 'lfw-9/1'"):
        calls.whole_photo(dataset, "lfw-9/1")


def test_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(detection, "detector", FixedDetector)
    for number in range(3):
        for name in ("anna", "mia"):
            save(tmp_path / name / f"{number}.png", picture(10 * number + len(name)))
    dataset = folder(tmp_path)
    whole_photos.check(dataset)
    assert_gives_crops(dataset, ["folder-0000/0001", "folder-0001/0002"])
    with pytest.raises(UsageError, match="unknown image 'folder-0007/0000'"):
        calls.whole_photo(dataset, "folder-0007/0000")
    (tmp_path / "mia/0.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match="photo folder-0001/0000 of the folder") as caught:
        calls.whole_photo(dataset, "folder-0001/0000")
    assert "mia" not in str(caught.value)
    with pytest.raises(UsageError, match="are aligned crops already"):
        whole_photos.check(folder(tmp_path, aligned=True))


def test_crops_alone_are_refused_with_what_has_more():
    with pytest.raises(UsageError, match="synthetic has aligned crops and no whole photos") as caught:
        whole_photos.check(Synthetic())
    assert {"folder", "lfw", "celeba"} <= set(str(caught.value).replace(",", " ").split())
    with pytest.raises(UsageError, match="'a/0' neither"):
        calls.whole_photo(Synthetic(), "a/0")


class Own(Synthetic):
    """Somebody else's dataset: what it gives is set by the tests."""

    given = None

    def whole_photo(self, image):
        return self.given


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (np.zeros((9, 9, 3), np.uint8), "returned ndarray, not a WholePhoto"),
        (WholePhoto(np.zeros((9, 9, 3)), TEMPLATE), r"float64 \(9, 9, 3\)"),
        (WholePhoto(np.zeros((9, 9, 4), np.uint8), TEMPLATE), r"uint8 \(9, 9, 4\)"),
        (WholePhoto(np.zeros((9, 9, 3), np.uint8), TEMPLATE * np.nan), "5×2 finite numbers"),
        (WholePhoto(np.zeros((9, 9, 3), np.uint8), TEMPLATE[:4]), "5×2 finite numbers"),
    ],
)
def test_what_a_dataset_gives_is_checked(given, reason):
    own = Own()
    own.given = given
    whole_photos.check(own)
    with pytest.raises(MethodError, match=reason):
        calls.whole_photo(own, "x")


def test_a_subclass_that_gives_its_own_photos_is_asked():
    class OwnFolder(Folder):
        def whole_photo(self, image):
            return WholePhoto(np.zeros((9, 9, 3), np.uint8), TEMPLATE)

    assert calls.whole_photo(OwnFolder(Folder.Params(path="nowhere")), "x").pixels.shape == (9, 9, 3)


def test_photos_whose_points_are_not_those_of_the_crops_fail_the_check():
    class Shifted(Synthetic):
        def whole_photo(self, image):
            crop = self.crops([image])[0].permute(1, 2, 0).numpy()
            return WholePhoto(np.ascontiguousarray(crop), TEMPLATE + 1)

    findings = {finding.check: finding for finding in checks.run_checks(Shifted())}
    assert not findings["a whole photo aligned by its points is the crop"].passed
