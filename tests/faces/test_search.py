"""All faces of a photo are found, also in a large one, and placed to the pixel."""

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from bench.faces import detection
from bench.faces import search as face_search
from bench.plugins import factory


@pytest.fixture(scope="module")
def drawn():
    """Return a photo of six drawn faces of 112 to 280 pixels."""
    pytest.importorskip("facenet_pytorch", reason="extra 'detector' is not installed")
    dataset = factory.dataset("synthetic")
    identities = [identity.photos[0] for identity in dataset.identities()[:6]]
    canvas = Image.new("RGB", (1024, 768), (120, 120, 120))
    for number, crop in enumerate(dataset.crops(identities).permute(0, 2, 3, 1).numpy()):
        side = 280 - 25 * number
        face = Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC)
        canvas.paste(face, ((number % 3) * 320 + 20, (number // 3) * 320 + 40))
    return canvas


def test_every_face_is_found_the_largest_first(drawn):
    found = face_search.find_faces(np.asarray(drawn))
    assert len(found) == 6
    sizes = [np.ptp(face.points[:, 0]) for face in found]
    assert sizes[0] > 1.3 * sizes[-1]
    assert all(face.score >= face_search.MIN_SCORE for face in found)


def test_a_large_photo_is_searched_small_and_placed_finely(drawn, monkeypatch):
    here = face_search.find_faces(np.asarray(drawn))
    monkeypatch.setattr(face_search, "MAX_SIDE", 512)
    large = np.asarray(drawn.resize((3072, 2304), Image.Resampling.LANCZOS))
    seen = []
    search = face_search._search
    monkeypatch.setattr(
        face_search, "_search", lambda pixels, k: seen.append(pixels.shape) or search(pixels, k)
    )
    found = face_search.find_faces(large)
    assert seen[0][:2] == (384, 512)
    assert len(found) == 6
    for face in found:
        nearest = min(np.linalg.norm(face.points - (3 * other.points + 1), axis=1).mean() for other in here)
        assert nearest < 15  # pixels of faces of 500 and more


def test_no_face_is_none():
    pytest.importorskip("facenet_pytorch", reason="extra 'detector' is not installed")
    assert face_search.find_faces(np.full((300, 200, 3), 128, np.uint8)) == ()
    assert face_search.find_faces(np.zeros((10, 400, 3), np.uint8)) == ()


def test_a_stumbling_detector_is_an_error_about_the_photo(monkeypatch):
    class Stumbling:
        class _mtcnn:  # noqa: N801
            @staticmethod
            def detect(pixels, landmarks):
                raise RuntimeError("empty list")

    monkeypatch.setattr(detection, "detector", Stumbling)
    with pytest.raises(DataError, match="detector failed on it"):
        face_search.find_faces(np.zeros((100, 100, 3), np.uint8))
