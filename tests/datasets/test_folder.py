"""The reader of users' own folders, on random pictures; the detector is replaced by one that knows them."""

import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from bench.datasets.folder import Folder
from bench.errors import DataError, UsageError
from bench.faces import detection
from bench.faces.alignment import TEMPLATE, Landmarks, align

POINTS = TEMPLATE * 0.7 + [10, 20]


class FixedDetector:
    """Finds the same face in every photo, none where the top left pixel is black; counts its calls."""

    def __init__(self):
        self.calls = 0

    def detect(self, pixels, choose="largest"):
        assert choose == "largest"
        self.calls += 1
        return Landmarks(POINTS, 0.9) if pixels[0, 0].any() else None


@pytest.fixture(autouse=True)
def fixed_detector(monkeypatch):
    fixed = FixedDetector()
    monkeypatch.setattr(detection, "detector", lambda: fixed)
    return fixed


def picture(seed: int, size: tuple[int, int] = (120, 110)) -> np.ndarray:
    small = np.random.default_rng(seed).integers(1, 256, (6, 6, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)).copy()
    pixels[0, 0] = 255
    return pixels


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    for identity, name in enumerate(["walter", "Anna", "mia"]):
        for number, ending in enumerate(["jpg", "PNG", "webp", "jpeg"]):
            save(tmp_path / "people" / name / f"shot{number}.{ending}", picture(10 * identity + number))
    (tmp_path / "people/.DS_Store").write_bytes(b"x")
    (tmp_path / "people/mia/Thumbs.db").write_bytes(b"x")
    (tmp_path / "people/readme.txt").write_text("mine")
    return tmp_path / "people"


def folder(root, **params) -> Folder:
    return Folder(Folder.Params(path=str(root), **params))


def write_landmarks(path, rows):
    header = "path," + ",".join(f"x{i},y{i}" for i in range(1, 6))
    numbers = ",".join(str(v) for v in POINTS.ravel())
    path.write_text("\n".join([header, *(f"{row},{numbers}" for row in rows)]) + "\n")


def test_ids_are_opaque_and_sorted(root):
    dataset = folder(root)
    identities = dataset.identities()
    assert [p.id for p in identities] == ["folder-0000", "folder-0001", "folder-0002"]
    assert {p.role for p in identities} == {"evaluation"}
    assert identities[1].photos == tuple(f"folder-0001/{n:04d}" for n in range(4))
    assert dict(dataset.names()) == {"folder-0000": "Anna", "folder-0001": "mia", "folder-0002": "walter"}
    assert dataset.file_names()["folder-0001/0001"] == root / "mia/shot1.PNG"
    assert "mia" not in repr(identities)
    assert dataset.skipped == ()


def test_crops_are_aligned_by_the_detector_in_the_order_asked(root):
    crops = folder(root).crops(["folder-0002/0001", "folder-0000/0001"])
    assert crops.shape == (2, 3, 112, 112)
    for crop, seed in zip(crops, (1, 11), strict=True):
        np.testing.assert_array_equal(crop.permute(1, 2, 0).numpy(), align(picture(seed), POINTS))


def test_given_landmarks_replace_the_detector(root, fixed_detector):
    rows = [
        f"{p}/shot{i}.{e}"
        for p in ("walter", "Anna", "mia")
        for i, e in enumerate(("jpg", "PNG", "webp", "jpeg"))
    ]
    write_landmarks(root / "points.csv", rows)
    dataset = folder(root, landmarks=str(root / "points.csv"))
    dataset.check()
    assert (dataset.crops(["folder-0000/0003"]) == folder(root).crops(["folder-0000/0003"])).all()
    assert fixed_detector.calls == 1
    write_landmarks(root / "points.csv", [r for r in rows if r != "mia/shot2.webp"])
    again = folder(root, landmarks=str(root / "points.csv"))
    with pytest.raises(DataError, match=r"shot2\.webp has no row 'mia/shot2\.webp'.*points\.csv"):
        again.check()
    with pytest.raises(DataError, match=r"shot2\.webp has no row"):
        folder(root, landmarks=str(root / "points.csv")).identities()


def test_aligned_crops_are_taken_as_they_are(tmp_path, fixed_detector):
    for number in range(3):
        save(tmp_path / f"a/{number}.png", picture(number, (112, 112)))
    dataset = folder(tmp_path, aligned=True)
    np.testing.assert_array_equal(
        dataset.crops(["folder-0000/0002"])[0].permute(1, 2, 0), picture(2, (112, 112))
    )
    assert fixed_detector.calls == 0
    save(tmp_path / "a/3.png", picture(3))
    with pytest.raises(
        DataError, match="folder-0000/0003 of the folder is 120×110, an aligned crop is 112×112"
    ):
        folder(tmp_path, aligned=True).crops(["folder-0000/0003"])


def test_aligned_and_landmarks_exclude_each_other():
    with pytest.raises(ValidationError, match="give one of the two"):
        Folder.Params(path="x", aligned=True, landmarks="points.csv")


def test_too_few_photos_name_the_person_the_number_and_the_mend(root):
    for name in ("shot0.jpg", "shot1.PNG", "shot2.webp"):
        (root / "mia" / name).unlink()
    with pytest.raises(UsageError, match=r"mia has 1 photo, fewer than min_photos=3.*skip_small=true"):
        folder(root).identities()
    left = folder(root, skip_small=True)
    assert [p.id for p in left.identities()] == ["folder-0000", "folder-0002"]
    assert [(s.file, s.reason) for s in left.skipped] == [(root / "mia", "1 photo, fewer than 3")]
    with pytest.raises(UsageError, match=r"nobody in .* has 5 photos"):
        folder(root, skip_small=True, min_photos=5).identities()


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ([], r"is empty\. Put a subfolder"),
        (["one.jpg", "two.jpg"], "has no subfolders"),
        (["a/1.jpg", "loose.png"], r"loose\.png lies outside the subfolders"),
        (["a/1.jpg", "a/notes.txt"], r"notes\.txt is not a photo \(\.bmp, \.jpeg, \.jpg, \.png, \.webp\)"),
        (["a/deep/1.jpg"], r"deep is a folder inside an identity's folder"),
    ],
)
def test_a_wrong_layout_is_one_sentence_that_names_the_file(tmp_path, layout, message):
    root = tmp_path / "people"
    root.mkdir()
    for name in layout:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"never read")
    with pytest.raises(DataError, match=message):
        folder(root).identities()


def test_a_missing_folder_and_a_missing_path_say_so(tmp_path):
    with pytest.raises(DataError, match="gone is not a folder"):
        folder(tmp_path / "gone").identities()
    with pytest.raises(UsageError, match="folder:path=DIR"):
        Folder().identities()


def test_identities_read_no_pixels_and_check_reads_all(root):
    cut = root / "mia/shot0.jpg"
    cut.write_bytes(cut.read_bytes()[:900])
    dataset = folder(root)
    assert len(dataset.identities()) == 3
    with pytest.raises(DataError, match=r"shot0\.jpg cannot be decoded"):
        dataset.check()
    with pytest.raises(DataError, match="photo folder-0001/0000 of the folder cannot be decoded"):
        dataset.crops(["folder-0001/0000"])


def test_a_photo_without_a_face_is_named(root):
    save(root / "mia/shot1.PNG", np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(DataError, match=r"shot1\.PNG shows no face"):
        folder(root).check()
    with pytest.raises(DataError, match="photo folder-0001/0001 of the folder shows no face"):
        folder(root).crops(["folder-0001/0001"])


def test_the_same_photo_twice_is_found(root):
    (root / "walter/zz.jpg").write_bytes((root / "mia/shot0.jpg").read_bytes())
    with pytest.raises(DataError, match=r"zz\.jpg is the same photo as .*shot0\.jpg"):
        folder(root).check()


def test_skip_leaves_bad_photos_out_and_says_why(root, fixed_detector):
    (root / "Anna/notes.txt").write_text("x")
    (root / "Anna/zz.jpg").write_bytes((root / "Anna/shot0.jpg").read_bytes())
    (root / "mia/shot0.jpg").write_bytes(b"broken")
    save(root / "walter/shot1.PNG", np.zeros((50, 50, 3), np.uint8))
    dataset = folder(root, on_bad="skip")
    assert [len(p.photos) for p in dataset.identities()] == [4, 3, 3]
    reasons = {s.file.relative_to(root).as_posix(): s.reason for s in dataset.skipped}
    assert set(reasons) == {"Anna/notes.txt", "Anna/zz.jpg", "mia/shot0.jpg", "walter/shot1.PNG"}
    assert "not a photo" in reasons["Anna/notes.txt"]
    assert "same photo" in reasons["Anna/zz.jpg"]
    assert "not an image" in reasons["mia/shot0.jpg"]
    assert "no face" in reasons["walter/shot1.PNG"]
    # The ids of the others are those they have when nothing is left out.
    assert dataset.identities()[1].photos[0] == "folder-0001/0001"
    searched = fixed_detector.calls
    dataset.check()
    assert dataset.crops(dataset.identities()[0].photos).shape[0] == 4
    assert fixed_detector.calls == searched


def test_fingerprint_follows_content_and_how_faces_are_found(root):
    first = folder(root).fingerprint()
    assert folder(root).fingerprint() == first
    assert folder(root, min_photos=2).fingerprint() == first
    assert folder(root, aligned=True).fingerprint() != first
    write_landmarks(root / "points.csv", [path.relative_to(root).as_posix() for path in root.glob("*/*")])
    assert folder(root, landmarks=str(root / "points.csv")).fingerprint() != first
    save(root / "mia/shot1.PNG", picture(99))
    assert folder(root).fingerprint() != first


def test_orientation_is_respected(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    for number in range(3):
        save(tmp_path / f"a/{number}.png", picture(number))
    file = io.BytesIO()
    Image.fromarray(np.rot90(picture(7), 2)).save(file, "PNG", exif=exif)
    (tmp_path / "a/1.png").write_bytes(file.getvalue())
    crop = folder(tmp_path).crops(["folder-0000/0001"])[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(crop, align(picture(7), POINTS))


def test_an_unknown_id_is_refused(root):
    with pytest.raises(UsageError, match="folder-0009/0000"):
        folder(root).crops(["folder-0009/0000"])


def test_crops_without_aligned_are_told_of_once(tmp_path, caplog):
    for number in range(3):
        save(tmp_path / f"a/{number}.png", picture(number, (112, 112)))
        save(tmp_path / f"b/{number}.png", picture(9 + number, (112, 112)))
    with caplog.at_level("WARNING", "bench"):
        for _ in range(2):
            Folder(Folder.Params(path=str(tmp_path))).identities()
        assert [record.message for record in caplog.records] == [
            f"every photo of {tmp_path} is 112×112. If these are crops on ArcFace's template, add aligned=true: as it "
            "is, faces are looked for in them and cut out again."
        ]
        caplog.clear()
        Folder(Folder.Params(path=str(tmp_path), aligned=True)).identities()
        save(tmp_path / "b/3.png", picture(20, (113, 112)))
        Folder(Folder.Params(path=str(tmp_path))).identities()
        assert caplog.records == []
