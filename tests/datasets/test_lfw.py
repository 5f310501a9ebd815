"""LFW's reader, on a small archive of random photos and on the real one."""

import io
import multiprocessing
import pickle
import tarfile
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from bench.analysis.warning_rules import of_photos
from bench.data.files import data_folder
from bench.datasets.lfw import LFW
from bench.errors import DataError, UsageError
from bench.faces.alignment import TEMPLATE, align, estimate_similarity
from bench.quality.near_duplicates import fingerprint_photos, same_photos
from bench.run.photo_sets import TARGET_IDENTITIES, target_identities
from bench.run.resolve import resolve
from bench.run.roles import roles
from bench.run.spec import make_spec

IDENTITIES = {"Zoe_Last": 3, "Ann_First": 12, "Bea_de_la_Middle": 10, "Ann_Firs": 1}
"""Invented names, deliberately not sorted, with how many photos each has."""

POINTS = TEMPLATE * 0.8 + [60, 70]

real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(not (data_folder() / "lfw").exists(), reason="CLOAKBENCH_DATA has no lfw"),
]


def jpeg(seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((250, 250), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


def photos() -> dict[str, bytes]:
    names = [
        f"lfw-deepfunneled/{identity}/{identity}_{n:04d}.jpg"
        for identity, k in IDENTITIES.items()
        for n in range(1, k + 1)
    ]
    return {name: jpeg(i) for i, name in enumerate(names)}


def write_archive(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_landmarks(path, names):
    numbers = ",".join(f"{v:.4f}" for v in POINTS.ravel())
    header = "path," + ",".join(f"x{i},y{i}" for i in range(1, 6)) + ",score,detected"
    path.write_text("\n".join([header, *(f"{name},{numbers},0.9,1" for name in names)]) + "\n")


@pytest.fixture(scope="module")
def members():
    return photos()


@pytest.fixture
def archive(tmp_path, members):
    write_archive(tmp_path / "lfw.tar", members | {"lfw-deepfunneled/README.txt": b"no photo"})
    write_landmarks(tmp_path / "points.csv", members)
    return tmp_path / "lfw.tar"


def lfw(archive, **params) -> LFW:
    return LFW(LFW.Params(**{"path": str(archive), "landmarks": str(archive.parent / "points.csv")} | params))


def test_people_are_numbered_in_name_order_and_dealt_by_number_of_photos(archive):
    identities = lfw(archive).identities()
    assert [(p.id, len(p.photos), p.role) for p in identities] == [
        ("lfw-00000", 1, "training"),
        ("lfw-00001", 12, "evaluation"),
        ("lfw-00002", 10, "evaluation"),
        ("lfw-00003", 3, "training"),
    ]
    assert identities[3].photos == ("lfw-00003/0001", "lfw-00003/0002", "lfw-00003/0003")
    assert [p.role for p in lfw(archive, min_photos=11).identities()].count("evaluation") == 1


def test_names_stay_inside(archive):
    dataset = lfw(archive)
    assert not any(name in repr(dataset.identities()) for name in IDENTITIES)


def test_pairs_reader_gets_ids_by_name(archive):
    dataset = lfw(archive)
    assert dataset.image_id("Ann_First", 12) == "lfw-00001/0012"
    assert dataset.file_name("lfw-00001/0012").endswith("Ann_First_0012.jpg")
    with pytest.raises(DataError, match="no photo 13 of 'Ann_First'"):
        dataset.image_id("Ann_First", 13)
    with pytest.raises(DataError, match="Nobody"):
        dataset.image_id("Nobody", 1)


def test_crops_are_the_aligned_photos_in_the_order_asked(archive, members):
    ids = ("lfw-00003/0002", "lfw-00000/0001")
    crops = lfw(archive).crops(ids)
    assert crops.shape == (2, 3, 112, 112)
    assert str(crops.dtype) == "torch.uint8"
    names = ("Zoe_Last/Zoe_Last_0002.jpg", "Ann_Firs/Ann_Firs_0001.jpg")
    for crop, name in zip(crops, names, strict=True):
        photo = np.asarray(Image.open(io.BytesIO(members[f"lfw-deepfunneled/{name}"])))
        np.testing.assert_array_equal(crop.permute(1, 2, 0).numpy(), align(photo, POINTS.round(4)))


@pytest.mark.parametrize("below", ["", "lfw-deepfunneled"])
def test_an_unpacked_folder_reads_the_same(archive, tmp_path, below):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    folder = lfw(tmp_path / "unpacked" / below, landmarks=str(tmp_path / "points.csv"))
    packed = lfw(archive)
    assert folder.identities() == packed.identities()
    ids = ["lfw-00002/0010", "lfw-00001/0001"]
    assert (folder.crops(ids) == packed.crops(ids)).all()
    folder.check()
    before = folder.fingerprint()
    (tmp_path / "unpacked/lfw-deepfunneled/Zoe_Last/Zoe_Last_0001.jpg").write_bytes(jpeg(99))
    assert lfw(tmp_path / "unpacked" / below, landmarks=str(tmp_path / "points.csv")).fingerprint() != before


def test_fingerprint_follows_photos_and_landmarks_only(archive, members):
    first = lfw(archive).fingerprint()
    assert lfw(archive).fingerprint() == first
    assert lfw(archive, min_photos=3).fingerprint() == first
    write_landmarks(archive.parent / "other.csv", list(members)[1:])
    assert lfw(archive, landmarks=str(archive.parent / "other.csv")).fingerprint() != first
    write_archive(archive, members | {next(iter(members)): jpeg(77)})
    assert lfw(archive).fingerprint() != first


def test_a_dataset_in_use_can_go_to_another_process(archive):
    dataset = lfw(archive)
    ids = ["lfw-00001/0005"]
    expected = dataset.crops(ids)
    assert (pickle.loads(pickle.dumps(dataset)).crops(ids) == expected).all()
    spawned = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with spawned:
        photo = spawned.submit(dataset.photo, ids[0]).result(timeout=60)
    np.testing.assert_array_equal(photo, dataset.photo(ids[0]))


def test_a_photo_without_landmarks_is_named_by_id_only(archive, members):
    missing = "lfw-deepfunneled/Zoe_Last/Zoe_Last_0003.jpg"
    write_landmarks(archive.parent / "points.csv", [n for n in members if n != missing])
    dataset = lfw(archive)
    for work in (dataset.check, lambda: dataset.crops(["lfw-00003/0003"])):
        with pytest.raises(
            DataError, match=r"lfw-00003/0003.*no row.*points\.csv.*lfw:landmarks=detect"
        ) as caught:
            work()
        assert "Zoe" not in str(caught.value)


def test_a_truncated_photo_is_named(archive, members):
    cut = "lfw-deepfunneled/Zoe_Last/Zoe_Last_0001.jpg"
    write_archive(archive, members | {cut: members[cut][:2000]})
    with pytest.raises(DataError, match=r"lfw-00003/0001.*cannot be decoded.*[Rr]eplace"):
        lfw(archive).crops(["lfw-00003/0001"])


def test_a_missing_archive_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"gone\.tar is missing.*bench fetch lfw"):
        lfw(tmp_path / "gone.tar").identities()


def test_a_missing_landmark_file_says_how_to_get_it(archive):
    with pytest.raises(DataError, match=r"gone\.csv is missing.*bench fetch lfw"):
        lfw(archive, landmarks=str(archive.parent / "gone.csv")).crops(["lfw-00000/0001"])


@pytest.mark.parametrize("content", [b"", b"not a tar at all" * 100])
def test_a_file_that_is_no_archive_is_refused(archive, content):
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"lfw\.tar is not a whole, uncompressed tar"):
        lfw(archive).identities()


def test_a_cut_archive_is_refused(archive):
    archive.write_bytes(archive.read_bytes()[:60_000])
    with pytest.raises(DataError, match=r"lfw\.tar.*(ends inside|not a whole)"):
        lfw(archive).check()


def test_an_archive_of_something_else_is_refused(archive):
    write_archive(archive, {"cats/cat.jpg": jpeg(0)})
    with pytest.raises(DataError, match="no photos named PERSON/PERSON_0001"):
        lfw(archive).identities()


def test_an_unknown_id_is_refused(archive):
    with pytest.raises(UsageError, match="lfw-99999/0001"):
        lfw(archive).crops(["lfw-99999/0001"])


class TestReal:
    pytestmark = real_data

    def test_the_official_numbers(self):
        identities = LFW().identities()
        assert len(identities) == 5749
        assert sum(len(p.photos) for p in identities) == 13_233
        assert sum(p.role == "evaluation" for p in identities) == 158
        assert sum(p.role == "training" for p in identities) == 5591
        assert max(len(p.photos) for p in identities) == 530

    def test_choices_are_made_on_training_identities(self):
        dataset = LFW()
        found = roles(dataset, "development")
        training = {one.id: one for one in dataset.identities() if one.role == "training"}
        assert sum(len(one.photos) >= 6 for one in training.values()) == 153
        assert len(found.evaluated) == 102
        assert len(found.others) == 5591 - 102
        assert all(6 <= len(training[one.id].photos) <= 9 for one in found.evaluated)
        run = resolve(make_spec({"dataset": "lfw", "split": "development", "protocol": "verification"}))
        assert set(run.split.gallery) == {one.id for one in found.evaluated}
        assert not set(run.split.gallery) & set(run.impostors)
        split = resolve(make_spec({"dataset": "lfw", "split": "development"})).split
        assert [sum(map(len, part.values())) for part in (split.gallery, split.probes)] == [507, 220]
        targets = target_identities(run.roles.others, 0)
        assert len(targets) == TARGET_IDENTITIES
        assert min(len(one.photos) for one in targets) >= 6

    @pytest.mark.parametrize("identities", [12, pytest.param(None, marks=pytest.mark.slow)])
    def test_no_run_is_warned_of_photos_saved_again(self, identities):
        run = resolve(make_spec({"dataset": "lfw", "identities": identities}))
        gallery, probes = (
            [photo for photos in part.values() for photo in photos]
            for part in (run.split.gallery, run.split.probes)
        )
        seen, shown = (fingerprint_photos(run.dataset, photos) for photos in (gallery, probes))
        found = same_photos([shown], lambda: [seen])
        assert found.probes == len(probes)
        assert of_photos(found, run.dataset.note) == []

    @pytest.mark.slow
    def test_every_photo_has_landmarks_that_give_an_upright_crop(self):
        dataset = LFW()
        dataset.check()
        assert dataset._landmarks is not None
        matrices = np.array([estimate_similarity(found.points) for found in dataset._landmarks.values()])
        angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
        scales = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
        assert np.abs(angles).max() < 90
        assert 0.3 < scales.min() <= scales.max() < 2

    def test_official_pairs_are_all_found(self):
        dataset = LFW()
        lines = (data_folder() / "lfw/pairs.txt").read_text().splitlines()[1:]
        ids = set()
        for fields in (line.split("\t") for line in lines):
            named = [(fields[0], n) for n in fields[1:]] if len(fields) == 3 else [fields[:2], fields[2:]]
            ids |= {dataset.image_id(identity, int(number)) for identity, number in named}
        assert len(lines) == 6000
        assert len(ids) == 7701  # distinct photos of view 2

    def test_crops_show_faces(self):
        dataset = LFW()
        ids = [identity.photos[0] for identity in dataset.identities()[::50]]
        mean = dataset.crops(ids).float().mean((0, 1))
        # An average of aligned faces is symmetric; the eyes are darker than the forehead between and above.
        face = mean[20:100, 16:96]
        assert np.corrcoef(face.flatten().numpy(), face.flip(1).flatten().numpy())[0, 1] > 0.9
        eyes = (mean[48:55, 34:43].mean() + mean[48:55, 69:78].mean()) / 2
        assert eyes < mean[20:30, 46:66].mean() - 15
