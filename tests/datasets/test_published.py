"""Readers of published datasets, on small folders of drawn faces in exactly the published layout."""

import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.authoring import checks
from bench.datasets._recordio import MAGIC, RecordFile
from bench.datasets.casia_webface import CasiaWebFace
from bench.datasets.celeba import CelebA
from bench.datasets.celeba_hq import CelebAHQ
from bench.datasets.facescrub import FaceScrub
from bench.datasets.ffhq import FFHQ, entries_of
from bench.datasets.synthetic import Synthetic
from bench.datasets.vggface2 import LandmarkList, VGGFace2
from bench.errors import DataError, UsageError
from bench.faces.alignment import TEMPLATE, Landmarks, align
from bench.run.resolve import resolve
from bench.run.spec import Cell, make_spec
from bench.run.threat import Threats

MIN_PHOTOS = 3


@pytest.fixture(scope="session")
def faces():
    """Return 24 drawn faces of 6 identities as 112×112×3 uint8, four each."""
    dataset = Synthetic(Synthetic.Params(photos=4))
    ids = [photo for person in dataset.identities()[:6] for photo in person.photos[:4]]
    return dataset.crops(ids).permute(0, 2, 3, 1).numpy()


def placed(face, size=(218, 178), scale=0.9, at=(30, 60)):
    """Return a photo with a drawn face in it, and the face's five points."""
    side = round(112 * scale)
    photo = np.full((*size, 3), 40, dtype=np.uint8)
    small = np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.BILINEAR))
    photo[at[1] : at[1] + side, at[0] : at[0] + side] = small
    return photo, (TEMPLATE + 0.5) * scale - 0.5 + np.array(at)


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def roles(dataset):
    return {person.id: person.role for person in dataset.identities()}


def assert_contract(dataset):
    findings = checks.run_checks(dataset)
    assert len(findings) > 12
    assert not [finding for finding in findings if not finding.passed]


@pytest.fixture
def fake_detector(monkeypatch):
    """Put a detector in place that finds the face where `placed` puts it, and counts."""
    from bench.faces import detection

    class Fake:
        calls = 0

        def detect(self, _pixels, choose):
            assert choose == "central"
            Fake.calls += 1
            return Landmarks((TEMPLATE + 0.5) * 0.9 - 0.5 + np.array((30, 60)))

    monkeypatch.setattr(detection, "detector", Fake)
    return Fake


# -- CelebA ------------------------------------------------------------------------------------------------

CELEBA = {7: (0, 4), 2880: (1, 4), 12: (2, 4), 500: (2, 2)}
"""Number of the identity → (part, photos); photos are dealt out in turn, as CelebA's are not grouped."""


def write_celeba(root, faces, *, folders=True):
    img, anno, ev = ("Img", "Anno", "Eval") if folders else ("", "", "")
    left = [number for number, (_, count) in CELEBA.items() for _ in range(count)]
    order = np.random.default_rng(0).permutation(len(left))
    identities, landmarks, parts = [], [], []
    for k, place in enumerate(order):
        name, number = f"{k + 1:06d}.jpg", left[place]
        photo, points = placed(faces[place])
        write(root / img / "img_align_celeba" / name, photo, quality=95)
        identities.append(f"{name} {number}")
        landmarks.append(f"{name}  " + "  ".join(f"{round(v):3d}" for v in points.ravel()))
        parts.append(f"{name} {CELEBA[number][0]}")
    names = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    header = [str(len(left)), " ".join(f"{n}_x {n}_y" for n in names)]
    for folder, file, lines in (
        (anno, "identity_CelebA.txt", identities),
        (anno, "list_landmarks_align_celeba.txt", header + landmarks),
        (ev, "list_eval_partition.txt", parts),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / file).write_text("\n".join(lines) + "\n")


def celeba(root, **params):
    return CelebA(CelebA.Params(**{"path": str(root), "min_photos": MIN_PHOTOS} | params))


@pytest.fixture
def celeba_root(tmp_path, faces):
    write_celeba(tmp_path / "celeba", faces)
    return tmp_path / "celeba"


def test_celeba_evaluates_people_of_its_validation_and_test_part(celeba_root):
    dataset = celeba(celeba_root)
    identities = dataset.names()
    assert identities == {f"celeba-{i:05d}": str(n) for i, n in enumerate(sorted(CELEBA))}
    assert roles(dataset) == {
        "celeba-00000": "training",  # of the publishers' training part
        "celeba-00001": "evaluation",
        "celeba-00002": "training",  # too few photos
        "celeba-00003": "evaluation",
    }
    assert [len(p.photos) for p in dataset.identities()] == [4, 4, 2, 4]
    assert [roles(celeba(celeba_root, min_photos=2))[f"celeba-{i:05d}"] for i in range(4)].count(
        "evaluation"
    ) == 3


def test_celeba_crops_are_aligned_by_the_published_points(celeba_root):
    dataset = celeba(celeba_root)
    listed = [
        line.split()
        for line in (celeba_root / "Anno/list_landmarks_align_celeba.txt").read_text().splitlines()
    ]
    points = {row[0]: np.array(row[1:], dtype=float).reshape(5, 2) for row in listed[2:]}
    owners = dict(
        line.split() for line in (celeba_root / "Anno/identity_CelebA.txt").read_text().splitlines()
    )
    mine = sorted(name for name, number in owners.items() if number == "2880")
    image = "celeba-00003/0002"
    assert dataset.file_name(image) == f"2880/{mine[2]}"
    expected = align(read(celeba_root / "Img/img_align_celeba" / mine[2]), points[mine[2]])
    assert np.array_equal(dataset.crops([image])[0].permute(1, 2, 0).numpy(), expected)
    dataset.check()


def test_celeba_lies_in_one_folder_too(tmp_path, celeba_root, faces):
    write_celeba(tmp_path / "flat", faces, folders=False)
    flat, deep = celeba(tmp_path / "flat"), celeba(celeba_root)
    assert flat.identities() == deep.identities()
    assert flat.fingerprint() == deep.fingerprint()


def test_celeba_keeps_the_contract(celeba_root):
    assert_contract(celeba(celeba_root))


@pytest.mark.parametrize(
    ("file", "line", "text", "message"),
    [
        ("Anno/identity_CelebA.txt", 2, "000002.jpg", r"identity_CelebA\.txt, line 3: 1 words, expected 2"),
        ("Anno/identity_CelebA.txt", 2, "000002.jpg x", r"line 3: 'x' is not a number"),
        (
            "Anno/identity_CelebA.txt",
            2,
            "900000.jpg 1",
            r"line 3: '900000\.jpg' is not in list_eval_partition",
        ),
        (
            "Eval/list_eval_partition.txt",
            0,
            "000001.jpg 3",
            r"partition\.txt, line 1: the part is '3', not 0, 1 or 2",
        ),
        (
            "Anno/list_landmarks_align_celeba.txt",
            4,
            "000003.jpg" + " 1" * 9,
            r"line 5: 10 words, expected 11",
        ),
        ("Anno/list_landmarks_align_celeba.txt", 4, "000003.jpg" + " x" * 10, r"line 5: .*'x'"),
        ("Anno/list_landmarks_align_celeba.txt", 4, "000003.jpg" + " nan" * 10, r"line 5: .*not finite"),
    ],
)
def test_celeba_names_a_broken_line(celeba_root, file, line, text, message):
    lines = (celeba_root / file).read_text().splitlines()
    lines[line] = text
    (celeba_root / file).write_text("\n".join(lines))
    dataset = celeba(celeba_root)
    with pytest.raises(DataError, match=message):
        dataset.crops([p for person in dataset.identities() for p in person.photos])


def test_celeba_names_what_is_missing(celeba_root):
    photo = next(iter(celeba(celeba_root).identities()[3].photos))
    name = celeba(celeba_root).file_name(photo).partition("/")[2]
    (celeba_root / "Img/img_align_celeba" / name).unlink()
    for use in (
        celeba(celeba_root).check,
        celeba(celeba_root).fingerprint,
        lambda: celeba(celeba_root).crops([photo]),
    ):
        with pytest.raises(DataError, match=r"photo celeba-00003/0000 .*(missing|No such file)"):
            use()
    (celeba_root / "Anno/identity_CelebA.txt").unlink()
    with pytest.raises(DataError, match=r"'identity_CelebA\.txt' is not in .*Anno.*bench fetch celeba"):
        celeba(celeba_root).identities()
    with pytest.raises(DataError, match=r"nowhere is not a folder.*celeba:path=FOLDER"):
        celeba(celeba_root / "nowhere").identities()


def test_a_photo_without_landmarks_is_named(celeba_root):
    file = celeba_root / "Anno/list_landmarks_align_celeba.txt"
    gone = celeba(celeba_root).file_name("celeba-00001/0001").partition("/")[2]
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith(gone)))
    with pytest.raises(
        DataError, match=r"photo celeba-00001/0001 .*no row in list_landmarks.*landmarks=detect"
    ):
        celeba(celeba_root).check()


def test_landmarks_can_be_detected_instead(celeba_root, fake_detector):
    dataset = celeba(celeba_root, landmarks="detect")
    dataset.check()
    assert fake_detector.calls == 8  # of the two identities evaluated
    crops = dataset.crops(["celeba-00001/0001", "celeba-00001/0000"])
    assert fake_detector.calls == 8
    published = celeba(celeba_root).crops(["celeba-00001/0001", "celeba-00001/0000"])
    assert (crops.float() - published.float()).abs().mean() < 6  # the list's points are whole pixels
    assert dataset.fingerprint() != celeba(celeba_root).fingerprint()


@pytest.mark.parametrize(
    "image", ["celeba-00001/9999", "celeba-00001/1", "celeba-00001/-001", "x", "celeba-99999/0000"]
)
def test_an_unknown_image_is_refused(celeba_root, image):
    with pytest.raises(UsageError, match=r"unknown image .* ids look like celeba-00012/0003"):
        celeba(celeba_root).crops([image])


def test_at_most_so_many_people_are_evaluated_and_adding_more_keeps_them(tmp_path, faces):
    for person in range(40):
        for photo in range(2):
            write(tmp_path / "f" / f"{person:07d}" / f"{photo}.png", faces[photo])

    def evaluated(count):
        params = CasiaWebFace.Params(
            path=str(tmp_path / "f"), min_photos=2, evaluated=count, landmarks="aligned"
        )
        return {i for i, role in roles(CasiaWebFace(params)).items() if role == "evaluation"}

    few, more, every = evaluated(5), evaluated(12), evaluated(100)
    assert (len(few), len(more), len(every)) == (5, 12, 40)
    assert few < more < every
    assert few != {f"casia-webface-{i:05d}" for i in range(5)}  # not simply the first


# -- what everyone shares: content, bad and repeated photos ---------------------------------------------------


def write_aligned(root, faces, identities=3, photos=4):
    """Write aligned crops as .bmp, all of one size; return the last identity's."""
    for person in range(identities):
        for photo in range(photos):
            write(root / f"{person:07d}" / f"{photo:03d}.bmp", faces[photos * person + photo])


def aligned(root, **params):
    return CasiaWebFace(
        CasiaWebFace.Params(**{"path": str(root), "min_photos": 3, "landmarks": "aligned"} | params)
    )


@pytest.mark.parametrize("evaluated", [3, 2])
def test_the_fingerprint_tells_photos_of_one_size_apart(tmp_path, faces, evaluated):
    write_aligned(tmp_path, faces)
    before = aligned(tmp_path, evaluated=evaluated)
    trained = [k for k, role in enumerate(roles(before).values()) if role == "training"]
    assert len(trained) == 3 - evaluated
    person = f"{trained[0] if trained else 0:07d}"
    one, other = tmp_path / person / "000.bmp", tmp_path / person / "001.bmp"
    first, second = one.read_bytes(), other.read_bytes()
    assert len(first) == len(second)
    kept = before.fingerprint()
    one.write_bytes(second)
    other.write_bytes(first)
    assert before.fingerprint() == kept  # once an object
    assert aligned(tmp_path, evaluated=evaluated).fingerprint() != kept
    one.write_bytes(first)
    other.write_bytes(second)
    assert aligned(tmp_path, evaluated=evaluated).fingerprint() == kept


def test_of_people_who_are_not_evaluated_a_sample_counts(tmp_path, faces, monkeypatch):
    monkeypatch.setattr("bench.datasets._published.SAMPLE_BYTES", 1000)
    write_aligned(tmp_path, faces)
    kept = aligned(tmp_path, evaluated=2)
    unchanged = kept.fingerprint()
    trained = next(k for k, role in enumerate(roles(kept).values()) if role == "training")

    def changed(person, place):
        file = tmp_path / f"{person:07d}" / "000.bmp"
        before = file.read_bytes()
        file.write_bytes(before[:place] + bytes([before[place] ^ 255]) + before[place + 1 :])
        found = aligned(tmp_path, evaluated=2).fingerprint() != unchanged
        file.write_bytes(before)
        return found

    middle, size = 37_686 // 2, 37_686
    assert (tmp_path / "0000000/000.bmp").stat().st_size == size
    assert changed(trained, middle)
    assert not changed(trained, size - 1)
    assert all(changed((trained + 1) % 3, place) for place in (middle, size - 1, 60))


def test_records_count_by_their_bytes(tmp_path, faces):
    write_records(tmp_path, insightface_records(faces))
    before = casia(tmp_path).fingerprint()
    packed = (tmp_path / "train.rec").read_bytes()
    place = packed.index(b"IDAT") + 40
    (tmp_path / "train.rec").write_bytes(packed[:place] + bytes([packed[place] ^ 1]) + packed[place + 1 :])
    assert casia(tmp_path).fingerprint() != before


@pytest.fixture
def spoilt(tmp_path, faces):
    """Identity 0: a broken photo; 1: the same twice; 2: one of identity 0's, and a photo too small."""
    write_aligned(tmp_path, faces, photos=5)
    (tmp_path / "0000000/001.bmp").write_bytes(b"no photo")
    (tmp_path / "0000001/004.bmp").write_bytes((tmp_path / "0000001/000.bmp").read_bytes())
    (tmp_path / "0000002/000.bmp").write_bytes((tmp_path / "0000000/003.bmp").read_bytes())
    write(tmp_path / "0000002/004.bmp", faces[0][:50])
    return tmp_path


def test_check_names_every_photo_that_cannot_be_used(spoilt):
    with pytest.raises(DataError, match=r"4 of 15 photos .*on_bad=skip leaves them out") as refusal:
        aligned(spoilt).check()
    text = str(refusal.value)
    assert text.count("\n") == 4
    assert "casia-webface-00000/0001 (file_name" in text
    assert "casia-webface-00001/0004 " in text
    assert "is the same photo as casia-webface-00001/0000" in text
    assert "is the same photo as casia-webface-00000/0003" in text
    assert "is 112×50, an aligned crop is 112×112" in text


def test_bad_photos_are_left_out_and_ids_stay(spoilt, caplog):
    dataset = aligned(spoilt, on_bad="skip")
    with caplog.at_level("WARNING", "bench"):
        listed = {p.id: [image.partition("/")[2] for image in p.photos] for p in dataset.identities()}
    places = {
        "casia-webface-00000": ["0000", "0002", "0003", "0004"],
        "casia-webface-00001": ["0000", "0001", "0002", "0003"],
        "casia-webface-00002": ["0000", "0001", "0002", "0003"],
    }
    # Which of two copies is the first is a matter of the drawn order.
    odd = {"casia-webface-00000/0003", "casia-webface-00002/0000"} & set(dataset.skipped)
    assert len(odd) == 1
    person, _, place = odd.pop().partition("/")
    places[person].remove(place)
    assert listed == places
    assert len(dataset.skipped) == 4
    assert "is not an image" in dataset.skipped["casia-webface-00000/0001"]
    assert "casia-webface: 4 photos left out; the first: " in caplog.text
    assert dataset.file_name("casia-webface-00000/0001") == "0000000/001.bmp"
    assert dataset.file_name("casia-webface-00000/0002") == "0000000/002.bmp"
    with pytest.raises(UsageError, match="unknown image"):
        dataset.crops(["casia-webface-00000/0001"])
    dataset.check()
    assert_contract(dataset)
    assert set(roles(dataset).values()) == {"evaluation"}
    assert (
        "training" in roles(aligned(spoilt, on_bad="skip", min_photos=4)).values()
    )  # three are left of four


def test_so_many_people_train(tmp_path, faces):
    write_aligned(tmp_path, faces, identities=6)
    dataset = aligned(tmp_path, evaluated=2, training=1)
    assert sorted(roles(dataset).values()) == ["evaluation", "evaluation", "training"]
    wide = roles(aligned(tmp_path, evaluated=2))
    assert roles(dataset).items() <= wide.items()
    assert dataset.names().keys() == roles(dataset).keys()


def test_a_folder_that_cannot_be_read_is_an_error_without_its_name(tmp_path, faces, monkeypatch):
    import os

    write_aligned(tmp_path, faces)
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("0000001"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"a folder in .* cannot be read \(Permission denied\)") as refusal:
        aligned(tmp_path).identities()
    assert "0000001" not in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "repeat", "message"),
    [
        (
            "Anno/identity_CelebA.txt",
            "000003.jpg 12",
            r"identity_CelebA\.txt, line 15: '000003\.jpg' is listed",
        ),
        ("Eval/list_eval_partition.txt", "000003.jpg 2", r"partition\.txt, line 15: '000003\.jpg' is listed"),
        (
            "Anno/list_landmarks_align_celeba.txt",
            "000003.jpg" + " 1" * 10,
            r"celeba\.txt has '000003\.jpg' twice",
        ),
    ],
)
def test_celeba_refuses_a_photo_that_is_listed_twice(celeba_root, file, repeat, message):
    with (celeba_root / file).open("a") as lines:
        lines.write(f"{repeat}\n")
    with pytest.raises(DataError, match=message):
        celeba(celeba_root).check()


@pytest.mark.parametrize(
    ("row", "name"), [("0 5 000001.jpg", r"0\.jpg"), ("99 5 000001.jpg", r"000001\.jpg")]
)
def test_celeba_hq_refuses_a_photo_that_is_listed_twice(hq, tmp_path, row, name):
    mapping = tmp_path / "hq/CelebA-HQ-to-CelebA-mapping.txt"
    mapping.write_text(f"{mapping.read_text()}{row}\n")
    with pytest.raises(DataError, match=rf"mapping\.txt, line 16: '{name}' is listed twice"):
        CelebAHQ(hq).identities()


def test_records_that_are_listed_twice_or_of_two_people_are_refused(tmp_path, faces):
    write_records(tmp_path / "a", insightface_records(faces, identities=((1, 5), (4, 8))))
    with pytest.raises(DataError, match=r"record 4 is a photo of identities 8 and 9"):
        casia(tmp_path / "a").identities()
    write_records(tmp_path / "b", insightface_records(faces))
    with (tmp_path / "b/train.idx").open("a") as lines:
        lines.write("3\t0\n")
    with pytest.raises(DataError, match=r"train\.idx, line 11: record 3 is listed twice"):
        casia(tmp_path / "b").identities()


def test_datasets_say_who_is_in_what_backbones_were_trained_on(vgg_root, tmp_path, faces):
    both = vggface2(vgg_root, part="both")
    assert both.identities_in("VGGFace2") == {"vggface2-00002"}
    assert (
        both.identities_in("VGGFace2") & {p.id for p in both.identities() if p.role == "evaluation"} == set()
    )
    assert vggface2(vgg_root).identities_in("VGGFace2") == frozenset()
    write_aligned(tmp_path / "casia", faces)
    dataset = aligned(tmp_path / "casia")
    assert dataset.identities_in("CASIA-WebFace") == set(roles(dataset))
    assert both.identities_in("CASIA-WebFace") is dataset.identities_in("VGGFace2") is None


@pytest.mark.parametrize(
    ("dataset", "backbone", "overlap", "detail"),
    [
        (
            "casia",
            "mobilefacenet-casia",
            "yes",
            "tracker: 3 of 3 evaluated identities are among 'CASIA-WebFace'",
        ),
        ("casia", "facenet-casia", "yes", "3 of 3 evaluated identities"),
        ("casia", "facenet-vggface2", "unknown", "'VGGFace2' names no dataset that can be looked at"),
        ("vggface2", "facenet-vggface2", "no", ""),
        ("vggface2", "adaface:depth=18,data=vggface2", "no", ""),
        ("vggface2", "mobilefacenet-casia", "unknown", "'CASIA-WebFace' names no dataset"),
    ],
)
def test_a_tracker_that_was_trained_on_the_people_is_known(
    tmp_path, vgg_root, faces, dataset, backbone, overlap, detail
):
    write_aligned(tmp_path / "casia", faces)
    text = {
        "casia": f"casia-webface:path={tmp_path / 'casia'},landmarks=aligned,min_photos=3",
        "vggface2": f"vggface2:path={vgg_root},part=both,min_photos=3",
    }[dataset]
    # Of another backbone the weights are here; only the card's words matter.
    run = resolve(
        make_spec({"dataset": text, "attacks": ["none"], "defenses": ["none"], "backbones": [backbone]})
    )
    identities = frozenset(p.id for p in run.dataset.identities() if p.role == "evaluation")
    found = Threats(run, identities).identity_overlap(Cell("none", "none", backbone, "nn", 0))
    assert found.overlap == overlap
    assert detail in found.detail


# -- CelebA-HQ -----------------------------------------------------------------------------------------------


@pytest.fixture
def hq(tmp_path, celeba_root, faces):
    owners = [line.split() for line in (celeba_root / "Anno/identity_CelebA.txt").read_text().splitlines()]
    lines = ["idx        orig_idx    orig_file"]
    for index, (name, _) in enumerate(reversed(owners)):
        photo, _ = placed(faces[index], size=(256, 256))
        write(tmp_path / "hq/CelebA-HQ-img" / f"{index}.jpg", photo, quality=95)
        lines.append(f"{index}          {int(name[:6]) - 1}       {name}")
    (tmp_path / "hq/CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n")
    return CelebAHQ.Params(path=str(tmp_path / "hq"), celeba=str(celeba_root), min_photos=MIN_PHOTOS)


def test_celeba_hq_has_the_people_of_celeba(hq, celeba_root, fake_detector):
    dataset = CelebAHQ(hq)
    assert list(dataset.names().values()) == [str(number) for number in sorted(CELEBA)]
    owners = [line.split() for line in (celeba_root / "Anno/identity_CelebA.txt").read_text().splitlines()]
    expected = [f"2880/{i}.jpg" for i, (_, number) in enumerate(reversed(owners)) if number == "2880"]
    assert [dataset.file_name(f"celeba-hq-00003/{k:04d}") for k in range(4)] == expected
    assert dataset.crops(["celeba-hq-00003/0001"]).shape == (1, 3, 112, 112)
    assert fake_detector.calls == 1
    assert_contract(dataset)


def test_celeba_hq_says_what_it_lacks(hq, tmp_path):
    (tmp_path / "empty").mkdir()
    lost = hq.model_copy(update={"celeba": str(tmp_path / "empty")})
    with pytest.raises(
        DataError, match=r"'identity_CelebA\.txt' is not in .*bench fetch celeba.*celeba=FOLDER"
    ):
        CelebAHQ(lost).identities()
    mapping = tmp_path / "hq/CelebA-HQ-to-CelebA-mapping.txt"
    mapping.write_text(mapping.read_text() + "30001 5 999999.jpg\n")
    with pytest.raises(
        DataError, match=r"mapping\.txt, line 16: '999999\.jpg' is not in CelebA's identity_CelebA"
    ):
        CelebAHQ(hq).identities()


# -- FFHQ ----------------------------------------------------------------------------------------------------


def dlib_points(five):
    """Return 68 points whose eyes, tip of the nose and corners of the mouth are the five."""
    points = np.zeros((68, 2))
    ring = np.array([[-9, 0], [-4, -5], [4, -5], [9, 0], [4, 5], [-4, 5]])
    points[36:42], points[42:48] = five[0] + ring, five[1] + ring
    points[30], points[48], points[54] = five[2], five[3], five[4]
    return points


@pytest.fixture
def ffhq_root(tmp_path, faces):
    metadata = {}
    for k in (0, 1, 2, 1000, 1001):
        photo, points = placed(faces[k % 24], size=(1024, 1024), scale=5.0, at=(200, 240))
        folder = f"{k - k % 1000:05d}"
        write(tmp_path / "ffhq/images1024x1024" / folder / f"{k:05d}.png", photo, compress_level=1)
        small = np.asarray(Image.fromarray(photo).reduce(8))
        write(tmp_path / "ffhq/thumbnails128x128" / folder / f"{k:05d}.png", small)
        metadata[str(k)] = {
            "category": "training",
            "metadata": {"photo_title": 'a } " { b', "author": "ü"},
            "image": {"pixel_size": [1024, 1024], "face_landmarks": dlib_points(points).tolist()},
        }
    (tmp_path / "ffhq/images1024x1024/LICENSE.txt").write_text("CC")
    (tmp_path / "ffhq/ffhq-dataset-v2.json").write_text(json.dumps(metadata, indent=1))
    return tmp_path / "ffhq"


def test_ffhq_has_strangers_only(ffhq_root):
    dataset = FFHQ(FFHQ.Params(path=str(ffhq_root)))
    identities = dataset.identities()
    assert [(p.role, len(p.photos)) for p in identities] == [("training", 1)] * 5
    assert dataset.file_name("ffhq-00003/0000") == "01000/01000.png"
    assert_contract(dataset)
    requested = make_spec({"dataset": f"ffhq:path={ffhq_root}", "attacks": ["none"], "defenses": ["none"]})
    with pytest.raises(UsageError, match="has 0 evaluated identities"):
        resolve(requested).split  # noqa: B018 - dealt when it is requested


def test_ffhq_is_aligned_by_points_of_its_metadata(ffhq_root, faces):
    large = FFHQ(FFHQ.Params(path=str(ffhq_root))).crops(["ffhq-00001/0000"])[0]
    assert np.abs(large.permute(1, 2, 0).numpy().astype(float) - faces[1]).mean() < 4
    small = FFHQ(FFHQ.Params(path=str(ffhq_root), size=128)).crops(["ffhq-00001/0000"])[0]
    assert (small.float() - large.float()).abs().mean() < 8
    assert (
        FFHQ(FFHQ.Params(path=str(ffhq_root))).fingerprint()
        != FFHQ(FFHQ.Params(path=str(ffhq_root), size=128)).fingerprint()
    )


def test_metadata_are_read_in_pieces(ffhq_root, monkeypatch):
    file = ffhq_root / "ffhq-dataset-v2.json"
    expected = list(json.loads(file.read_text()).items())
    assert list(entries_of(file)) == expected
    for chunk in (7, 64, 5000):
        monkeypatch.setattr("bench.datasets.ffhq._CHUNK", chunk)
        assert list(entries_of(file)) == expected
    file.write_text(json.dumps(dict(expected), separators=(",", ":")))
    assert list(entries_of(file)) == expected


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda text: text[: len(text) // 2], r"ends or breaks after entry \d"),
        (lambda _: "[1]", "is no JSON object of photos"),
        (lambda _: "", "is no JSON object of photos"),
        (lambda _: '{"x": {}}', r"after entry none \('x' is not a photo's number\)"),
        (lambda _: '{"0": {"image": {}}}', r"entry 0 has no image\.face_landmarks"),
        (lambda _: '{"0": {"image": {"face_landmarks": [[1, 2]]}}}', r"entry 0 are not 68 points"),
        (
            lambda _: '{"0": {"image": {"face_landmarks": [[1, 2], [3]]}}}',
            r"entry 0 has no image\.face_landmarks",
        ),
    ],
)
def test_broken_metadata_are_named(ffhq_root, broken, message):
    file = ffhq_root / "ffhq-dataset-v2.json"
    file.write_text(broken(file.read_text()))
    with pytest.raises(DataError, match=message):
        FFHQ(FFHQ.Params(path=str(ffhq_root))).crops(["ffhq-00000/0000"])


def test_a_photo_that_the_metadata_lack_is_named(ffhq_root):
    (ffhq_root / "ffhq-dataset-v2.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"photo ffhq-00000/0000 .*is not in ffhq-dataset-v2\.json.*landmarks=detect"
    ):
        FFHQ(FFHQ.Params(path=str(ffhq_root))).crops(["ffhq-00000/0000"])


# -- VGGFace2 ------------------------------------------------------------------------------------------------


@pytest.fixture
def vgg_root(tmp_path, faces):
    root = tmp_path / "vggface2"
    for part, identities in (("test", ("n000001", "n000009")), ("train", ("n000002",))):
        rows = ["NAME_ID," + ",".join(f"P{i}X,P{i}Y" for i in range(1, 6))]
        for p, name in enumerate(identities):
            for k in range(4):
                photo, points = placed(faces[4 * p + k])
                write(root / part / name / f"{k + 1:04d}_01.jpg", photo, quality=95)
                rows.append(f'"{name}/{k + 1:04d}_01",' + ",".join(f"{v:.5f}" for v in points.ravel()))
        (root / "bb_landmark").mkdir(exist_ok=True)
        (root / f"bb_landmark/loose_landmark_{part}.csv").write_text("\n".join(rows) + "\n")
    return root


def vggface2(root, **params):
    return VGGFace2(VGGFace2.Params(**{"path": str(root), "min_photos": MIN_PHOTOS} | params))


def test_vggface2_evaluates_its_test_part_and_trains_on_the_other(vgg_root, faces):
    assert roles(vggface2(vgg_root)) == {f"vggface2-{i:05d}": "evaluation" for i in range(2)}
    dataset = vggface2(vgg_root, part="both")
    assert dataset.names() == {
        "vggface2-00000": "test/n000001",
        "vggface2-00001": "test/n000009",
        "vggface2-00002": "train/n000002",
    }
    assert list(roles(dataset).values()) == ["evaluation", "evaluation", "training"]
    assert dataset.file_name("vggface2-00001/0002") == "test/n000009/0003_01.jpg"
    crop = dataset.crops(["vggface2-00001/0002"])[0].permute(1, 2, 0).numpy()
    assert np.abs(crop.astype(float) - faces[6]).mean() < 8
    assert_contract(vggface2(vgg_root))
    dataset.check()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda rows: ["NAME,X", *rows[1:]],
            r"test\.csv, line 1: the columns are NAME, X, expected NAME_ID, P1X",
        ),
        (
            lambda rows: [*rows[:2], '"n000001/0002_01",1,2', *rows[3:]],
            r"test\.csv, line 3: 3 columns, expected 11",
        ),
        (lambda rows: [*rows[:2], '"n000001/0002_01"' + ",a" * 10], r"test\.csv, line 3: .*'a'"),
        (lambda rows: rows[:3], r"photo vggface2-0000\d/000\d .*no row in loose_landmark_test\.csv"),
    ],
)
def test_vggface2_names_a_broken_row(vgg_root, edit, message):
    file = vgg_root / "bb_landmark/loose_landmark_test.csv"
    file.write_text("\n".join(edit(file.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=message):
        vggface2(vgg_root).check()


def test_vggface2_reads_the_landmarks_of_the_people_asked_for(vgg_root):
    file = vgg_root / "bb_landmark/loose_landmark_train.csv"
    name, *rows = (vgg_root / "bb_landmark/loose_landmark_test.csv").read_text().splitlines()
    # Mixed, without quotes, with Windows' ends of lines: identity 9's rows lie in two blocks.
    shuffled = [rows[4], *rows[:4], *rows[5:], "", "n000077/0001_01,broken"]
    file.write_bytes("\ufeff".encode() + "\r\n".join([name, *shuffled]).replace('"', "").encode())
    found, table = LandmarkList(file), LandmarkList(vgg_root / "bb_landmark/loose_landmark_test.csv")
    for person in ("n000009", "n000001"):
        for k in range(1, 5):
            assert np.array_equal(found.of(person, f"{k:04d}_01"), table.of(person, f"{k:04d}_01"))
    assert found.of("n000001", "0099_01") is None
    assert found.of("n000002", "0001_01") is None
    with pytest.raises(DataError, match=r"train\.csv, line 11: 2 columns, expected 11"):
        found.of("n000077", "0001_01")
    file.write_text("\n".join([name, rows[0], rows[0]]))
    with pytest.raises(DataError, match=r"train\.csv has 'n000001/0001_01' twice"):
        LandmarkList(file).of("n000001", "0001_01")


def test_vggface2_without_its_landmarks_says_how_to_go_on(vgg_root):
    (vgg_root / "bb_landmark/loose_landmark_train.csv").unlink()
    vggface2(vgg_root).check()
    with pytest.raises(DataError, match=r"'loose_landmark_train\.csv' is not in .*bb_landmark"):
        vggface2(vgg_root, part="both").fingerprint()


# -- FaceScrub -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["", "actors", "actors/faces"])
def test_facescrub_in_the_layouts_its_scripts_make(tmp_path, faces, layout, fake_detector):
    folders = {
        "": ("", ""),
        "actors": ("actors", "actresses"),
        "actors/faces": ("actors/faces", "actresses/faces"),
    }
    root = tmp_path / "facescrub"
    for name, group in zip(("Zoe Invented", "Ann_Other"), folders[layout], strict=True):
        for k in range(4):
            photo, _ = placed(faces[k + 4 * (group != "")])
            write(root / group / name / f"{name}_{k}_{10 * k}.jpeg", photo, quality=95)
    if layout:
        write(root / "actors/images/Zoe Invented/whole.jpg", faces[0])  # whole photos, beside the faces
        if layout == "actors":
            (root / "actors/images/Zoe Invented/whole.jpg").unlink()
            (root / "actors/images/Zoe Invented").rmdir()
            (root / "actors/images").rmdir()
    dataset = FaceScrub(FaceScrub.Params(path=str(root), min_photos=MIN_PHOTOS))
    assert roles(dataset) == {"facescrub-00000": "evaluation", "facescrub-00001": "evaluation"}
    assert [name.rpartition("/")[2] for name in dataset.names().values()] == ["Ann_Other", "Zoe Invented"]
    assert [len(person.photos) for person in dataset.identities()] == [4, 4]
    assert_contract(dataset)
    assert fake_detector.calls > 0


def test_facescrub_refuses_a_person_in_two_places_and_keeps_names_inside(tmp_path, faces):
    for group in ("actors", "actresses"):
        write(tmp_path / "f" / group / "Zoe Invented" / "1.png", faces[0])
    write(tmp_path / "f/actresses/Ann Other/1.png", faces[1])
    with pytest.raises(DataError, match=r"folder 2 .*actresses has the name of one in .*actors\.") as refusal:
        FaceScrub(FaceScrub.Params(path=str(tmp_path / "f"))).identities()
    assert "Zoe" not in str(refusal.value)
    root = tmp_path / "g"
    (root / "Zoe Invented").mkdir(parents=True)
    (root / "Zoe Invented/1.png").write_bytes(b"no photo")
    dataset = FaceScrub(FaceScrub.Params(path=str(root)))
    with pytest.raises(DataError, match=r"photo facescrub-00000/0000 .*is not an image") as refusal:
        dataset.crops(["facescrub-00000/0000"])
    assert "Zoe" not in str(refusal.value)


@pytest.mark.parametrize(("beside", "count"), [("", 1), ("actors", 2)])
def test_facescrub_does_not_lose_people_beside_its_groups(tmp_path, faces, beside, count):
    write(tmp_path / "f/actors/faces/Zoe Invented/1.png", faces[0])
    write(tmp_path / "f/lists/deep/x.png", faces[0])  # no folder of photos
    for name in ("Ann Other", "Bob Drawn")[:count]:
        write(tmp_path / "f" / beside / name / "1.png", faces[1])
    with pytest.raises(DataError, match=rf"{count} folders of photos lie in .* beside") as refusal:
        FaceScrub(FaceScrub.Params(path=str(tmp_path / "f"))).identities()
    assert "Ann" not in str(refusal.value)


# -- CASIA-WebFace ---------------------------------------------------------------------------------------------


def test_casia_folders_have_opaque_ids(tmp_path, faces, fake_detector):
    root = tmp_path / "CASIA-WebFace"
    for p, name in enumerate(("0000439", "0000045")):
        for k in range(3):
            write(root / name / f"{k + 1:03d}.jpg", placed(faces[4 * p + k], size=(250, 250))[0], quality=95)
    dataset = CasiaWebFace(CasiaWebFace.Params(path=str(root), min_photos=MIN_PHOTOS))
    assert dataset.names() == {"casia-webface-00000": "0000045", "casia-webface-00001": "0000439"}
    assert_contract(dataset)
    assert fake_detector.calls > 0
    crops = CasiaWebFace(CasiaWebFace.Params(path=str(root), landmarks="aligned"))
    with pytest.raises(
        DataError, match=r"photo casia-webface-00000/0000 .*is 250×250, an aligned crop is 112×112"
    ):
        crops.crops(["casia-webface-00000/0000"])


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def record(labels, content=b""):
    """Return the data of a record as mxnet.recordio.pack makes it."""
    if isinstance(labels, (int, float)):
        return struct.pack("<IfQQ", 0, labels, 7, 0) + content
    return struct.pack("<IfQQ", len(labels), 0, 7, 0) + struct.pack(f"<{len(labels)}f", *labels) + content


def framed(data):
    """Return a record as dmlc's writer does: cut wherever the magic number stands on a multiple of four."""
    magic, parts, start = struct.pack("<I", MAGIC), [], 0
    for i in range(0, len(data) // 4 * 4, 4):
        if data[i : i + 4] == magic:
            parts.append(data[start:i])
            start = i + 4
    parts.append(data[start:])
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    return b"".join(
        magic + struct.pack("<I", flag << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
        for flag, part in zip(flags, parts, strict=True)
    )


def write_records(root, records):
    root.mkdir(parents=True, exist_ok=True)
    offset, lines = 0, []
    with (root / "train.rec").open("wb") as file:
        for number, data in records.items():
            block = framed(data)
            file.write(block)
            lines.append(f"{number}\t{offset}")
            offset += len(block)
    (root / "train.idx").write_text("\n".join(lines) + "\n")


def insightface_records(faces, identities=((1, 4), (4, 8))):
    """Return the records of insightface's layout: 0 counts, then photos, then who has which."""
    last = identities[-1][1]
    records = {0: record((last, last + len(identities)))}
    for number, (begin, end) in enumerate(identities):
        for photo in range(begin, end):
            # One label or two, both are written by its tools.
            records[photo] = record(number if photo % 2 else (number, 0), png(faces[photo]))
        records[last + number] = record((begin, end))
    return dict(sorted(records.items()))


def casia(root, **params):
    return CasiaWebFace(CasiaWebFace.Params(**{"path": str(root), "min_photos": MIN_PHOTOS} | params))


def test_casia_records_give_the_packed_crops(tmp_path, faces):
    write_records(tmp_path / "rec", insightface_records(faces))
    dataset = casia(tmp_path / "rec")
    assert dataset.names() == {"casia-webface-00000": "0", "casia-webface-00001": "1"}
    assert [len(p.photos) for p in dataset.identities()] == [3, 4]
    crops = (
        dataset.crops(["casia-webface-00001/0003", "casia-webface-00000/0000"]).permute(0, 2, 3, 1).numpy()
    )
    assert np.array_equal(crops, faces[[7, 1]])
    assert_contract(dataset)
    dataset.check()


def test_records_without_a_count_are_grouped_by_their_labels(tmp_path, faces):
    write_records(tmp_path / "rec", {k: record(k % 2, png(faces[k])) for k in range(6)})
    dataset = casia(tmp_path / "rec")
    assert [dataset.file_name(f"casia-webface-00001/{k:04d}") for k in range(3)] == ["1/1", "1/3", "1/5"]
    assert np.array_equal(dataset.crops(["casia-webface-00001/0002"])[0].permute(1, 2, 0).numpy(), faces[5])


def test_a_record_with_the_magic_number_in_it_is_put_together(tmp_path):
    magic = struct.pack("<I", MAGIC)
    contents = {
        1: magic + b"abcd" + magic + magic + b"xy",
        2: b"",
        3: b"a" + magic + b"b",
        4: b"1234" + magic,
    }
    write_records(tmp_path / "rec", {n: record(n, content) for n, content in contents.items()})
    records = RecordFile(tmp_path / "rec/train.rec")
    assert {n: records.read(n).content for n in contents} == contents
    assert {n: records.read(n).labels for n in contents} == {n: (float(n),) for n in contents}


_PIECES = st.one_of(
    st.binary(max_size=9), st.just(struct.pack("<I", MAGIC)), st.just(struct.pack("<I", MAGIC)[:3])
)


@given(st.lists(st.lists(_PIECES, max_size=6).map(b"".join), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_whatever_is_packed_is_read_back(tmp_path_factory, contents):
    root = tmp_path_factory.mktemp("rec")
    write_records(root, {n: record((n, 0.5), content) for n, content in enumerate(contents)})
    records = RecordFile(root / "train.rec")
    assert [records.read(n).content for n in range(len(contents))] == contents
    assert [records.read(n).labels for n in range(len(contents))] == [(n, 0.5) for n in range(len(contents))]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rec, idx: idx.unlink(), r"train\.idx cannot be read .*must lie beside train\.rec"),
        (lambda rec, idx: idx.write_text("0\t0\n1 zwei\n"), r"train\.idx, line 2: '1 zwei' is not a number"),
        (lambda rec, idx: idx.write_text("0\t0\n"), r"has no record 8"),
        (
            lambda rec, idx: rec.write_bytes(rec.read_bytes()[:30]),
            r"record 0: the file ends|record 8: the file ends",
        ),
        (lambda rec, idx: rec.write_bytes(b"x" + rec.read_bytes()), r"record 0: no record begins there"),
        (lambda rec, idx: rec.write_bytes(framed(b"short")), r"record 0: it is too short"),
        (
            lambda rec, idx: rec.write_bytes(framed(struct.pack("<IfQQ", 9, 0, 0, 0))),
            r"record 0: it says that it has 9 labels",
        ),
        (
            lambda rec, idx: rec.write_bytes(framed(record((5, 2)))),
            r"record 0: its labels are \(5\.0, 2\.0\)",
        ),
    ],
)
def test_broken_records_are_named(tmp_path, faces, damage, message):
    write_records(tmp_path / "rec", insightface_records(faces))
    damage(tmp_path / "rec/train.rec", tmp_path / "rec/train.idx")
    with pytest.raises(DataError, match=message):
        casia(tmp_path / "rec").identities()


def test_a_record_that_is_listed_and_missing_is_named(tmp_path, faces):
    records = insightface_records(faces)
    del records[6]
    write_records(tmp_path / "rec", records)
    with pytest.raises(DataError, match=r"has no record 6, a photo of identity 9"):
        casia(tmp_path / "rec").identities()


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no photos in the layout of casia-webface"):
        casia(tmp_path).identities()
