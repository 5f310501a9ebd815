"""LFW deep-funneled: real faces, 13,233 photos of 5,749 identities.

Huang et al., Labeled Faces in the Wild, UMass TR 07-49 (2007); Huang et al., Learning to align from scratch,
NIPS 2012 (deep funneling). Identities are known by opaque ids; their names stay in this class.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import CROP_SIZE, AssetEntry, Dataset, Identity, MethodParams
from bench.data.files import data_folder, sha256_of
from bench.errors import DataError, UsageError
from bench.faces.alignment import ALIGNMENT_VERSION, Landmarks, Pixels, align
from bench.faces.landmark_files import read_landmarks
from bench.faces.photos import read_photo

ARCHIVE = "lfw/lfw-deepfunneled.tar"
LANDMARKS = "lfw/landmarks.csv"
DETECT = "detect"

_MEMBER = re.compile(r"(?:^|/)(?P<person>[^/]+)/(?P=person)_(?P<number>\d{4,})\.jpg$")
_FIX = "`bench fetch lfw` gets it; lfw:path=FILE points to a copy."


@dataclass(frozen=True)
class _Photo:
    """Where one photo lies: `name` as in the landmarks; in the archive at `offset`, `size` bytes long."""

    name: str
    identity: str
    number: int
    offset: int
    size: int


class LFW(Dataset):
    """Labeled Faces in the Wild, deep-funneled.

    An identity id is ``lfw-`` and the identity's index in sorted name order; an image id adds the number in
    the file name: ``lfw-00123/0004``.
    """

    name = "lfw"
    paper = "Huang et al., UMass TR 07-49 (2007); Huang et al., NIPS 2012 (deep funneling)"
    domain = "real"
    default_pool = "real"

    class Params(MethodParams):
        """Parameters of LFW."""

        path: str = Field(
            ARCHIVE,
            description="the .tar, or a folder it was unpacked to; default inside the data folder",
            json_schema_extra={"path": True},
        )
        landmarks: str = Field(
            LANDMARKS,
            description="CSV of five points a photo, default inside the data folder; 'detect' for none",
            json_schema_extra={"path": True},
        )
        min_photos: int = Field(
            10,
            ge=2,
            le=530,
            description="identities with at least this many photos are evaluated, the others are for training",
            json_schema_extra={"unit": "photos"},
        )

    params: Params

    @property
    def archive(self) -> Path:
        """The archive or folder the photos come from."""
        return _resolved(self.params.path, ARCHIVE)

    @property
    def _landmark_file(self) -> Path | None:
        if self.params.landmarks == DETECT:
            return None
        return _resolved(self.params.landmarks, LANDMARKS)

    def assets(self) -> tuple[AssetEntry, ...]:
        """Return what is fetched for it: photos, landmarks and lists; none where the photos are the user's own."""
        from bench.datasets._lfw_source import ENTRY

        return (ENTRY,) if self.params.path == ARCHIVE else ()

    def identities(self) -> tuple[Identity, ...]:
        """Return everyone, sorted by id; reads the archive's table of contents only."""
        return self._identities

    @cached_property
    def _identities(self) -> tuple[Identity, ...]:
        return tuple(
            Identity(
                _identity_id(i),
                tuple(_image_id(i, number) for number in sorted(numbers)),
                "evaluation" if len(numbers) >= self.params.min_photos else "training",
            )
            for i, numbers in enumerate(self._by_id.values())
        )

    def fingerprint(self) -> str:
        """Return a digest of archive, landmarks and alignment.

        A folder counts by its photos' bytes, so it has another fingerprint than the archive it came from.
        """
        landmarks = self._landmark_file
        if landmarks is None:
            from bench.faces.detection import DETECTOR_VERSION

            points = f"{DETECTOR_VERSION}/central"
        else:
            points = sha256_of(_existing(landmarks, "landmarks"))
        text = "\n".join(("lfw", self._photos_digest, points, ALIGNMENT_VERSION))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _photos_digest(self) -> str:
        archive = _existing(self.archive, "archive")
        if archive.is_file():
            return sha256_of(archive)
        digest = hashlib.sha256()
        for image_id, photo in self._photos.items():
            content = hashlib.sha256(self._bytes(photo)).hexdigest()
            digest.update(f"{image_id} {content}\n".encode())
        return digest.hexdigest()

    def check(self) -> None:
        """Check that every photo lies wholly inside the archive and has landmarks.

        Raises:
            DataError: names the first that does not.
        """
        if self._landmark_file is None:
            from bench.faces.detection import detector

            detector()  # says how to install it where it is not
        end = self.archive.stat().st_size if self.archive.is_file() else None
        for image_id, photo in self._photos.items():
            if end is not None and photo.offset + photo.size > end:
                raise DataError(f"{self.archive} ends inside photo {image_id}. {_FIX}")
            if self._landmarks is not None:
                self._landmarks_of(image_id, photo)

    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8 aligned crops of the images named.

        Raises:
            UsageError: an id is not one of this dataset's.
            DataError: a photo cannot be decoded or has no landmarks.
        """
        crops = torch.empty((len(ids), 3, CROP_SIZE, CROP_SIZE), dtype=torch.uint8)
        for row, image_id in enumerate(ids):
            crops[row] = torch.from_numpy(np.ascontiguousarray(self._crop(image_id).transpose(2, 0, 1)))
        return crops

    def photo(self, image_id: str) -> Pixels:
        """Return the whole photo as H×W×3 uint8 RGB."""
        return read_photo(self._bytes(self._photo_of(image_id)), self._called(image_id))

    def _crop(self, image_id: str) -> Pixels:
        pixels = self.photo(image_id)
        try:
            return align(pixels, self._points(image_id, pixels).points)
        except DataError as error:
            raise DataError(f"{self._called(image_id)}: {error}") from error

    def _points(self, image_id: str, pixels: Pixels) -> Landmarks:
        if self._landmarks is not None:
            return self._landmarks_of(image_id, self._photo_of(image_id))
        from bench.faces.detection import detector

        # LFW's identity is in the middle; others may stand nearer to the camera.
        found = detector().detect(pixels, choose="central")
        if found is None:
            raise DataError(f"no face found. Use lfw:landmarks={LANDMARKS} instead of the detector.")
        return found

    def _landmarks_of(self, image_id: str, photo: _Photo) -> Landmarks:
        assert self._landmarks is not None
        found = self._landmarks.get(photo.name)
        if found is None:
            top = photo.name.split("/")[0]
            raise DataError(
                f"{self._called(image_id)} has no row beginning '{top}/…' in {self._landmark_file}. "
                f"Give landmarks made for these photos, or lfw:landmarks={DETECT}."
            )
        return found

    @cached_property
    def _landmarks(self) -> Mapping[str, Landmarks] | None:
        path = self._landmark_file
        return None if path is None else read_landmarks(_existing(path, "landmarks"))

    def image_id(self, identity: str, number: int) -> str:
        """Return the opaque id of a photo LFW's own lists name by identity and number (pairs.txt).

        Raises:
            DataError: the archive has no such photo.
        """
        index = self._index_of.get(identity)
        if index is None or number not in self._by_id[identity]:
            raise DataError(f"{self.archive} has no photo {number} of '{identity}'. {_FIX}")
        return _image_id(index, number)

    def file_name(self, image_id: str) -> str:
        """Return the path of a photo inside archive or folder, for looking at it on this machine only."""
        return self._photo_of(image_id).name

    def _called(self, image_id: str) -> str:
        # The file's name is an identity's name and an error may end up in a published table.
        return f"photo {image_id} of {self.archive.name} (LFW().file_name('{image_id}') names the file)"

    def _photo_of(self, image_id: str) -> _Photo:
        photo = self._photos.get(image_id)
        if photo is None:
            raise UsageError(f"unknown image '{image_id}' in LFW; ids look like {_image_id(123, 4)}.")
        return photo

    @cached_property
    def _by_id(self) -> Mapping[str, Mapping[int, _Photo]]:
        """Identity → number → photo, sorted by name."""
        archive = _existing(self.archive, "archive")
        identities: dict[str, dict[int, _Photo]] = {}
        for photo in _folder_photos(archive) if archive.is_dir() else _archive_photos(archive):
            identities.setdefault(photo.identity, {})[photo.number] = photo
        if not identities:
            raise DataError(f"{archive} has no photos named PERSON/PERSON_0001.jpg. {_FIX}")
        return dict(sorted(identities.items()))

    @cached_property
    def _index_of(self) -> Mapping[str, int]:
        return {identity: i for i, identity in enumerate(self._by_id)}

    @cached_property
    def _photos(self) -> Mapping[str, _Photo]:
        return {
            _image_id(i, number): photo
            for i, photos in enumerate(self._by_id.values())
            for number, photo in sorted(photos.items())
        }

    def _bytes(self, photo: _Photo) -> bytes:
        if self.archive.is_dir():
            return (self._folder_above / photo.name).read_bytes()
        # Opened anew each time: 20 µs against a millisecond of decoding, and safe in forks and threads.
        with self.archive.open("rb") as file:
            file.seek(photo.offset)
            return file.read(photo.size)

    @cached_property
    def _folder_above(self) -> Path:
        return self.archive.parent if _is_identities_folder(self.archive) else self.archive


def _identity_id(index: int) -> str:
    return f"lfw-{index:05d}"


def _image_id(index: int, number: int) -> str:
    return f"{_identity_id(index)}/{number:04d}"


def _resolved(value: str, default: str) -> Path:
    return data_folder() / default if value == default else Path(value).expanduser().resolve()


def _existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise DataError(f"LFW's {what} {path} is missing. {_FIX}")
    return path


def _archive_photos(archive: Path) -> Iterator[_Photo]:
    try:
        # "r:" refuses compression: photos are read by their offset.
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                match = _MEMBER.search(member.name)
                if match and member.isfile():
                    number = int(match["number"])
                    yield _Photo(member.name, match["person"], number, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{archive} is not a whole, uncompressed tar ({error}). Decompress or fetch it again. {_FIX}"
        ) from error


def _is_identities_folder(folder: Path) -> bool:
    return next(folder.glob("*/*.jpg"), None) is not None


def _folder_photos(folder: Path) -> Iterator[_Photo]:
    identities = (
        [folder] if _is_identities_folder(folder) else sorted(p for p in folder.iterdir() if p.is_dir())
    )
    for top in identities:
        for file in top.glob("*/*.jpg"):
            name = f"{top.name}/{file.parent.name}/{file.name}"
            if match := _MEMBER.search(name):
                yield _Photo(name, match["person"], int(match["number"]), 0, 0)
