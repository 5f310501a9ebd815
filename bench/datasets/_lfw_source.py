"""LFW from its publishers' repository: which files there are, and how each is made from GitHub's archive of one commit.

GitHub packs that archive anew, so its own bytes are not stable; the files in it are. Photos are therefore known by
their SHA-256: those of the 13,233 deep-funneled photos are in `LANDMARKS` with the five points of each face, without
names. The archive is read as a stream and nothing in it is ever unpacked to a path that it names.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.contracts import AssetEntry, AssetFile, Recipe, Source
from bench.errors import DataError

REPOSITORY = "umass-vis-lfw/umass-vis-lfw.github.io"
COMMIT = "2a620cd8cceb10430f8c7012fe9fa5f0837759e9"

ARCHIVE = Source(
    name=f"umass-vis-lfw.github.io-{COMMIT}.tar.gz",
    url=f"https://github.com/{REPOSITORY}/archive/{COMMIT}.tar.gz",
)
"""As GitHub names it. No digest: it is packed on request."""

LANDMARKS = Path(__file__).with_name("lfw_landmarks.npz")
"""Five points a photo by the photo's digest; its card stands beside it, ``benchmarks/lfw_landmarks.py`` made it."""

PHOTOS = 13_233
PHOTOS_SHA256 = "ab0b52c62870bf0c947acecac13cb737bd4f5bff0b9bbbb0e310929efe193bb1"
"""Of the photos' SHA-256 in hex, sorted, one a line: the photos' identity, whatever they are packed in."""

PREFIX = 8
"""Bytes of a photo's SHA-256 that know it in `LANDMARKS`; no two of LFW's photos share them."""

FOLDER = "lfw-deepfunneled"
"""What the paths of photos begin with in the tar and in the landmarks."""

LARGEST_FILE = 1 << 20
"""Bytes; the largest photo of LFW has 15,884, ``pairs.txt`` 155,335."""

LARGEST_ARCHIVE = 4 << 30
"""Bytes an archive may unpack to; a bomb unpacks to more."""

_PHOTO = re.compile(r"(?:^|/)(?P<identity>[^/]+)/(?P<file>(?P=identity)_\d{4}\.jpg)$")
_BROKEN = (
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    RecursionError,
)
"""What `tarfile` and `zlib` raise of archives that are none: also of numbers in PAX records, of headers without end."""

_AGAIN = "Fetch it again, or give a copy with --from URL_OR_FOLDER."


# -- reading an archive that nobody vouches for --------------------------------------------------------------


class _Member(tarfile.TarInfo):
    """A member of an archive; a header's extension (long names, PAX records) must not fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the member that a header block describes.

        Raises:
            DataError: it is an extension of absurd size.
        """
        member = super().frombuf(buf, encoding, errors)
        if not member.isfile() and member.size > LARGEST_FILE:
            raise DataError(f"the archive has a header of {member.size:,} bytes and is refused. {_AGAIN}")
        return member


class _Bounded:
    """A stream that ends in an error where more comes out of it than an archive may hold."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes.

        Raises:
            DataError: the limit is passed.
        """
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise DataError(
                f"the archive unpacks to more than {LARGEST_ARCHIVE:,} bytes and is refused. {_AGAIN}"
            )
        return content


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of the small files of a ``.tar.gz``, in its order; memory holds one at a time.

    Links, devices and files larger than `LARGEST_FILE` are passed over unread: what is needed is none of these.

    Raises:
        DataError: it is no whole archive, names a path outside itself, or unpacks to absurd sizes.
    """
    try:
        with gzip.open(archive, "rb") as unpacked:
            stream: Any = _Bounded(unpacked, LARGEST_ARCHIVE)  # all of a file that tarfile uses
            tar = tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member)  # noqa: SIM115 -- holds nothing open
            for member in tar:
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    raise DataError(
                        f"the archive names '{member.name}', outside itself, and is refused. {_AGAIN}"
                    )
                if member.isreg() and member.size <= LARGEST_FILE and (file := tar.extractfile(member)):
                    yield member.name, file.read()
    except _BROKEN as error:
        raise DataError(f"{archive.name} is no whole .tar.gz ({error}). {_AGAIN}") from error


# -- landmarks by photo --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FacePoints:
    """Five landmarks and the detector's score, as whole numbers, so that they are written again byte for byte.

    Attributes:
        points: x1, y1 … x5, y5 in thousandths of a pixel.
        score: in hundred-thousandths.
    """

    points: tuple[int, ...]
    score: int

    def row(self) -> str:
        """Return the columns of ``landmarks.csv`` behind the path."""
        numbers = (f"{value // 1000}.{value % 1000:03d}" for value in self.points)
        return ",".join([*numbers, f"{self.score // 100_000}.{self.score % 100_000:05d}", "1"])


HEADER = "path," + ",".join(f"x{k},y{k}" for k in range(1, 6)) + ",score,detected"
"""First line of ``landmarks.csv``."""


@cache
def shipped_points() -> Mapping[bytes, FacePoints]:
    """Return the shipped landmarks by the first `PREFIX` bytes of the photo's SHA-256."""
    with np.load(LANDMARKS, allow_pickle=False) as stored:
        digests = [row.tobytes() for row in stored["digests"]]
        points, scores = stored["points"].T.tolist(), stored["scores"].tolist()
    return {
        digest: FacePoints(tuple(face), score)
        for digest, face, score in zip(digests, points, scores, strict=True)
    }


@dataclass(frozen=True)
class _Found:
    """One of LFW's photos as it was met in an archive: path as in the tar, SHA-256, content."""

    path: str
    digest: bytes
    content: bytes


def _photos(archive: Path) -> Iterator[_Found]:
    """Yield each of LFW's photos once; whatever else lies in the archive is passed over.

    Raises:
        DataError: photos are missing or differ, or one is there under two names.
    """
    known = shipped_points()
    seen: dict[bytes, str] = {}
    for path, content in members(archive):
        named = _PHOTO.search(path)
        if named is None:
            continue
        digest = hashlib.sha256(content).digest()
        own = f"{FOLDER}/{named['identity']}/{named['file']}"
        if digest[:PREFIX] not in known or seen.get(digest) == own:
            continue
        if digest in seen:
            raise DataError(f"{archive.name} has one photo under two names. {_AGAIN}")
        seen[digest] = own
        yield _Found(own, digest, content)
    _check_all(archive, seen)


def _check_all(archive: Path, seen: Mapping[bytes, str]) -> None:
    listed = "".join(f"{digest.hex()}\n" for digest in sorted(seen))
    if (found := hashlib.sha256(listed.encode()).hexdigest()) != PHOTOS_SHA256:
        raise DataError(
            f"{archive.name} has {len(seen):,} of LFW's {PHOTOS:,} photos byte for byte; the others are missing or "
            f"differ. The digest over all photos is {found}, expected {PHOTOS_SHA256}. {_AGAIN}"
        )


# -- what is made of it --------------------------------------------------------------------------------------


def make_tar(sources: tuple[Path, ...], target: Path) -> None:
    """Write the photos as one uncompressed tar: sorted by path, mode 0644, no owner, no time.

    The photos are spooled beside the target first, as the archive may have them in any order.

    Raises:
        DataError: the archive is not what it should be.
    """
    places: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryFile(dir=target.parent) as spool:
        for photo in _photos(sources[0]):
            places[photo.path] = (spool.tell(), len(photo.content))
            spool.write(photo.content)
        with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
            for path, (offset, size) in sorted(places.items()):
                member = tarfile.TarInfo(path)
                member.size = size
                spool.seek(offset)
                tar.addfile(member, spool)


def make_landmarks(sources: tuple[Path, ...], target: Path) -> None:
    """Write ``landmarks.csv``: the shipped points, with the paths that the archive gives the photos.

    Raises:
        DataError: the archive is not what it should be.
    """
    known = shipped_points()
    rows = {photo.path: known[photo.digest[:PREFIX]].row() for photo in _photos(sources[0])}
    lines = [HEADER, *(f"{path},{row}" for path, row in sorted(rows.items()))]
    target.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _take(name: str, sha256: str, sources: tuple[Path, ...], target: Path) -> None:
    """Write the file of an archive that has a base name and a digest, wherever in it that lies."""
    for path, content in members(sources[0]):
        if path.rpartition("/")[2] == name and hashlib.sha256(content).hexdigest() == sha256:
            with target.open("wb") as file:
                shutil.copyfileobj(io.BytesIO(content), file)
            return
    raise DataError(f"{sources[0].name} has no {name} with SHA-256 {sha256}. {_AGAIN}")


def _list_file(name: str, size: int, sha256: str) -> AssetFile:
    recipe = Recipe(sources=(ARCHIVE,), convert=partial(_take, name, sha256))
    return AssetFile(path=f"lfw/{name}", bytes=size, sha256=sha256, recipes=(recipe,))


ENTRY = AssetEntry(
    name="lfw",
    kind="dataset",
    what="Labeled Faces in the Wild, deep-funneled: 13,233 photos of 5,749 identities, five landmarks each",
    licence=(
        "none stated; published by its authors as a public research benchmark "
        "(cite Huang et al., UMass TR 07-49, 2007, and Huang et al., NIPS 2012)"
    ),
    source=f"{REPOSITORY} @ {COMMIT}",
    collection=(
        "Photos of public figures from news on the web (2002 to 2003), found by a Viola-Jones face detector, named "
        "by their captions and checked by hand by the publishers; the people were not asked."
    ),
    biases=(
        "Its publishers say: many groups are not well represented; there are few children, no babies, very few "
        "people over 80, relatively few women, and many ethnicities are hardly there or not at all; poor light, "
        "extreme poses and strong occlusions are rare, and faces that the detector misses are missing."
    ),
    files=(
        AssetFile(
            path="lfw/lfw-deepfunneled.tar",
            bytes=126_760_960,
            sha256="351075da5e18755678ee5851572a5b1c879476632a79e6cabed84430a11785f1",
            recipes=(Recipe(sources=(ARCHIVE,), convert=make_tar),),
        ),
        AssetFile(
            path="lfw/landmarks.csv",
            bytes=1_919_323,
            sha256="3df48366ccf49e848d18dfbfb8d5382a2aec1e04a81110b3e6f85555a0675c4b",
            recipes=(Recipe(sources=(ARCHIVE,), convert=make_landmarks),),
        ),
        _list_file("pairs.txt", 155_335, "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592"),
        _list_file("people.txt", 94_770, "bc8fa2b7f25c895cf7efb6de4f4fc27ca8b8d1cfa63350ad8b96eae2b198d365"),
    ),
    how=(
        "Photos and lists come from GitHub's archive of the publishers' site, the landmarks with this package. Without "
        "it: --from URL_OR_FOLDER, or unpack any deep-funneled LFW and run --dataset lfw:path=FOLDER,landmarks=detect."
    ),
)
"""What ``bench fetch lfw`` gets."""
