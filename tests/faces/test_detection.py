import sys

import numpy as np
import pytest
from PIL import Image

from bench.data.files import data_folder
from bench.errors import DataError, UsageError
from bench.faces import detection
from bench.faces.alignment import Landmarks
from bench.faces.detection import FaceDetector


class FixedMtcnn:
    """Returns given boxes, and landmarks that tell which box they belong to."""

    def __init__(self, boxes, error=None):
        self.boxes, self.error, self.seen = boxes, error, []

    def detect(self, pixels, landmarks):
        assert landmarks
        self.seen.append(pixels.shape)
        if self.error:
            raise self.error
        if self.boxes is None:
            return None, [None], None
        points = np.stack([np.full((5, 2), i, dtype=np.float32) for i in range(len(self.boxes))])
        return np.array(self.boxes, np.float32), np.linspace(0.9, 0.8, len(self.boxes)), points


def detector_with(monkeypatch, *args) -> FaceDetector:
    monkeypatch.setattr(detection, "_load_mtcnn", lambda _device: FixedMtcnn(*args))
    return FaceDetector()


GREY = np.full((100, 200, 3), 128, np.uint8)
BOXES = [[80, 30, 120, 70], [0, 0, 90, 90]]


def test_the_largest_or_the_central_face_is_chosen(monkeypatch):
    found = detector_with(monkeypatch, BOXES)
    largest, central = found.detect(GREY), found.detect(GREY, choose="central")
    assert isinstance(largest, Landmarks)
    assert (largest.points == 1).all()
    assert largest.score == pytest.approx(0.8)
    assert (central.points == 0).all()
    assert central.points.shape == (5, 2)


def test_pillow_and_arrays_are_both_read(monkeypatch):
    found = detector_with(monkeypatch, BOXES)
    image = Image.fromarray(GREY).convert("L")
    np.testing.assert_array_equal(found.detect(image).points, found.detect(GREY).points)


def test_a_large_photo_is_searched_small_and_points_come_back_in_its_pixels(monkeypatch):
    found = detector_with(monkeypatch, BOXES)
    large = np.zeros((1000, 4000, 3), np.uint8)
    points = found.detect(large).points
    assert found._mtcnn.seen == [(250, 1000, 3)]
    np.testing.assert_array_equal(points, np.full((5, 2), 4 * 1 + 1.5))


def test_no_face_is_none(monkeypatch):
    assert detector_with(monkeypatch, None).detect(GREY) is None
    assert detector_with(monkeypatch, BOXES).detect(GREY[:19]) is None


def test_a_stumbling_detector_is_an_error_about_the_photo(monkeypatch):
    with pytest.raises(DataError, match=r"detector failed.*empty list.*landmarks"):
        detector_with(monkeypatch, None, RuntimeError("empty list")).detect(GREY)


@pytest.mark.parametrize(
    "wrong", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8)]
)
def test_other_arrays_are_refused(monkeypatch, wrong):
    with pytest.raises(ValueError, match="expected H×W×3 uint8"):
        detector_with(monkeypatch, BOXES).detect(wrong)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(UsageError, match=r"pip install 'cloakbench\[detector\]'.*landmarks=FILE"):
        FaceDetector()


def test_nothing_is_found_where_there_is_no_face():
    pytest.importorskip("facenet_pytorch", reason="extra 'detector' is not installed")
    found = detection.detector()
    assert found is detection.detector()
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    assert found.detect(noise) is None
    assert found.detect(GREY) is None


@pytest.mark.real_data
@pytest.mark.skipif(not (data_folder() / "lfw").exists(), reason="CLOAKBENCH_DATA has no lfw")
def test_landmarks_agree_with_the_published_ones():
    pytest.importorskip("facenet_pytorch", reason="extra 'detector' is not installed")
    from bench.datasets.lfw import LFW

    dataset = LFW()
    ids = [identity.photos[0] for identity in dataset.identities()[::280]]
    assert len(ids) == 21
    distances, cosines = [], []
    detected = LFW(LFW.Params(landmarks="detect"))
    for image_id in ids:
        found = detection.detector().detect(dataset.photo(image_id), choose="central")
        theirs = dataset._landmarks[dataset.file_name(image_id)].points
        distances.append(np.linalg.norm(found.points - theirs, axis=1))
    for ours, given in zip(detected.crops(ids[:5]), dataset.crops(ids[:5]), strict=True):
        cosines.append(np.corrcoef(ours.flatten(), given.flatten())[0, 1])
    assert np.median(distances) < 2
    assert np.quantile(distances, 0.95) < 4
    assert min(cosines) > 0.9
