"""LFW out of an archive as GitHub packs it: drawn photos under invented names, hostile archives, and the real ones."""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lfw_site import TOP, pack_site

from bench.data.files import data_folder, sha256_of
from bench.datasets import _lfw_source as source
from bench.datasets.lfw import LFW
from bench.errors import DataError
from bench.faces.alignment import TEMPLATE
from bench.faces.landmark_files import read_landmarks

NAMES = ("Zoe_Last", "Ann_First", "Ann_Firs")
"""Invented."""

real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(not (data_folder() / "lfw").exists(), reason="CLOAKBENCH_DATA has no lfw"),
]


def photos():
    return {
        f"{name}/{name}_000{k}.jpg": f"photo {k} of {name}".encode() * 30 for name in NAMES for k in (1, 2)
    }


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mtime = 1_600_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def pack(path, members):
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": source.COMMIT}) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def site(changes=()):
    files = {f"{TOP}/images/{name}": content for name, content in photos().items()}
    files |= {f"{TOP}/lists/pairs.txt": b"pairs", f"{TOP}/pairs.txt": b"another file of that name"}
    files |= {f"{TOP}/thumbs/{NAMES[0]}/{NAMES[0]}_0001.jpg": b"another photo of that name"}
    files |= dict(changes)
    return [member(name, content) for name, content in files.items() if content is not None]


@pytest.fixture(autouse=True)
def known(monkeypatch, request):
    """Let the shipped landmarks be those of the drawn photos, but for tests of the real ones."""
    if {"real_data", "shipped"} & {*request.keywords, *request.fixturenames}:
        return
    digests = sorted(hashlib.sha256(content).digest() for content in photos().values())
    points = {
        digest[: source.PREFIX]: source.FacePoints(
            tuple(int(1000 * value) + k for value in TEMPLATE.ravel()), 99_000 + k
        )
        for k, digest in enumerate(digests)
    }
    listed = "".join(f"{digest.hex()}\n" for digest in digests)
    monkeypatch.setattr(source, "shipped_points", lambda: points)
    monkeypatch.setattr(source, "PHOTOS", len(digests))
    monkeypatch.setattr(source, "PHOTOS_SHA256", hashlib.sha256(listed.encode()).hexdigest())


@pytest.fixture
def archive(tmp_path):
    return pack(tmp_path / source.ARCHIVE.name, site())


def test_the_tar_is_the_same_bytes_whatever_order_the_archive_has(archive, tmp_path):
    source.make_tar((archive,), tmp_path / "one.tar")
    pack(tmp_path / "other.tar.gz", site()[::-1])
    source.make_tar((tmp_path / "other.tar.gz",), tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar", "r:") as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}
        facts = {(m.type, m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in tar}
    assert list(found) == sorted(f"{source.FOLDER}/{name}" for name in photos())
    assert found == {f"{source.FOLDER}/{name}": content for name, content in photos().items()}
    assert facts == {(tarfile.REGTYPE, 0o644, 0, 0, "", "", 0)}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one.tar",
        "other.tar.gz",
        "two.tar",
        source.ARCHIVE.name,
    ]


def test_landmarks_get_the_names_that_the_archive_gives_the_photos(archive, tmp_path):
    source.make_landmarks((archive,), tmp_path / "points.csv")
    found = read_landmarks(tmp_path / "points.csv")
    assert list(found) == sorted(f"{source.FOLDER}/{name}" for name in photos())
    for name, content in photos().items():
        stored = source.shipped_points()[hashlib.sha256(content).digest()[: source.PREFIX]]
        landmarks = found[f"{source.FOLDER}/{name}"]
        np.testing.assert_allclose(landmarks.points.ravel(), np.array(stored.points) / 1000)
        assert landmarks.score == pytest.approx(stored.score / 100_000)


def test_lists_are_found_by_name_and_digest_wherever_they_lie(archive, tmp_path):
    source._take("pairs.txt", hashlib.sha256(b"pairs").hexdigest(), (archive,), tmp_path / "pairs.txt")
    assert (tmp_path / "pairs.txt").read_bytes() == b"pairs"
    with pytest.raises(DataError, match=r"has no pairs\.txt with SHA-256 00"):
        source._take("pairs.txt", "00", (archive,), tmp_path / "x")


PLACE = f"{TOP}/images/{NAMES[0]}/{NAMES[0]}_0001.jpg"


@pytest.mark.parametrize("changed", [None, b"changed"], ids=["missing", "changed"])
def test_a_photo_that_is_missing_or_differs_is_counted_with_both_digests(tmp_path, changed):
    path = pack(tmp_path / "a.tar.gz", site({PLACE: changed}))
    for make in (source.make_tar, source.make_landmarks):
        with pytest.raises(DataError, match=rf"has 5 of LFW's 6 photos .* expected {source.PHOTOS_SHA256}"):
            make((path,), tmp_path / "out")


def test_one_photo_under_two_names_is_refused(tmp_path):
    twice = f"{TOP}/images/{NAMES[1]}/{NAMES[1]}_0009.jpg"
    path = pack(tmp_path / "a.tar.gz", site({twice: photos()[f"{NAMES[0]}/{NAMES[0]}_0001.jpg"]}))
    with pytest.raises(DataError, match="one photo under two names"):
        source.make_tar((path,), tmp_path / "out")


# -- hostile archives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", f"{TOP}/../../up", "a/.."])
def test_a_path_outside_is_refused(tmp_path, name):
    path = pack(tmp_path / "a.tar.gz", [member(name, b"x"), *site()])
    with pytest.raises(DataError, match="outside itself, and is refused"):
        source.make_tar((path,), tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_in_a_photos_place_is_not_followed(tmp_path, kind):
    rest = [(info, content) for info, content in site() if info.name != PLACE]
    link = member(PLACE, type=kind, linkname="/etc/hostname")
    path = pack(tmp_path / "a.tar.gz", [*rest, link])
    with pytest.raises(DataError, match="has 5 of LFW's 6 photos"):
        source.make_tar((path,), tmp_path / "out")


def test_a_bomb_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LARGEST_ARCHIVE", 1 << 20)
    path = pack(tmp_path / "a.tar.gz", [member(f"{TOP}/zeros", bytes(8 << 20)), *site()])
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="unpacks to more than 1,048,576 bytes and is refused"):
        source.make_tar((path,), tmp_path / "out")


def test_a_photo_of_absurd_size_is_not_read(tmp_path):
    path = pack(tmp_path / "a.tar.gz", site({PLACE: bytes(source.LARGEST_FILE + 1)}))
    with pytest.raises(DataError, match="has 5 of LFW's 6 photos"):
        source.make_tar((path,), tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_absurd_size_is_not_read(tmp_path, kind):
    header = tarfile.TarInfo("h")
    header.type, header.size = kind, 1 << 33
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)))
    with pytest.raises(DataError, match=r"a header of 8,589,934,592 bytes and is refused"):
        source.make_tar((path,), tmp_path / "out")


def test_headers_without_end_are_refused(tmp_path):
    header = tarfile.TarInfo("h")
    header.type, record = tarfile.XHDTYPE, b"12 comment=\n"
    header.size = len(record)
    chained = (header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")) * 3000
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(chained + tarfile.TarInfo("x").tobuf() + bytes(1024)))
    with pytest.raises(DataError, match=r"no whole \.tar\.gz"):
        source.make_tar((path,), tmp_path / "out")


@pytest.mark.parametrize(
    "records",
    [{"GNU.sparse.map": "a,b"}, {"GNU.sparse.size": "x"}, {"size": "9" * 5000}],
    ids=["words in a map", "a word for a size", "a number of 5,000 digits"],
)
def test_records_that_are_none_are_refused(tmp_path, records):
    path = pack(tmp_path / "a.tar.gz", [member("x", b"x", pax_headers=records), *site()])
    with pytest.raises(DataError):
        source.make_tar((path,), tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive" * 99, gzip.compress(b"no tar" * 500)],
    ids=["empty", "no gzip", "gzip of no tar"],
)
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"no whole \.tar\.gz|has 0 of LFW's 6 photos"):
        source.make_tar((tmp_path / "a.tar.gz",), tmp_path / "out")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_archive_is_refused(archive, tmp_path, share):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"no whole \.tar\.gz"):
        source.make_tar((archive,), tmp_path / "out")


# -- what is shipped, and the real photos ----------------------------------------------------------------------


@pytest.fixture
def shipped():
    """Ask for the landmarks as they are shipped."""


def test_the_shipped_landmarks_are_those_of_the_card_and_hold_no_name(shipped):
    card = json.loads(source.LANDMARKS.with_suffix(".json").read_text())
    assert (sha256_of(source.LANDMARKS), source.LANDMARKS.stat().st_size) == (card["sha256"], card["bytes"])
    assert card["bytes"] < 500_000
    with np.load(source.LANDMARKS, allow_pickle=False) as stored:
        assert {name: (array.dtype.name, array.shape) for name, array in stored.items()} == {
            "digests": ("uint8", (source.PHOTOS, source.PREFIX)),
            "points": ("int32", (10, source.PHOTOS)),
            "scores": ("int32", (source.PHOTOS,)),
        }
    points = source.shipped_points()
    assert len(points) == source.PHOTOS
    every = np.array([face.points for face in points.values()]) / 1000
    assert every.min() > 0
    assert every.max() < 250
    assert (every[:, 0] < every[:, 2]).all(), "the left eye is left of the right one"


@pytest.fixture(scope="session")
def real_archive(tmp_path_factory):
    """Pack the data pack's photos and lists as GitHub would."""
    return pack_site(data_folder() / "lfw", tmp_path_factory.mktemp("github") / source.ARCHIVE.name)


@pytest.mark.slow
class TestReal:
    pytestmark = real_data

    @pytest.mark.parametrize("file", source.ENTRY.files, ids=lambda file: file.path)
    def test_every_file_is_made_byte_for_byte(self, real_archive, tmp_path, file):
        (recipe,) = file.recipes
        recipe.convert((real_archive,), tmp_path / "made")
        assert (sha256_of(tmp_path / "made"), (tmp_path / "made").stat().st_size) == (file.sha256, file.bytes)

    def test_the_dataset_is_the_same(self):
        (entry,) = LFW().assets()
        assert entry is source.ENTRY
        assert LFW(LFW.Params(path="mine.tar")).assets() == ()
