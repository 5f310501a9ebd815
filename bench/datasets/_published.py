"""Datasets that people already have on disk, in the layout their publishers gave them.

What lives here: opaque ids, who is evaluated, lazy reading, alignment, the fingerprint. What must not: any one
dataset's files. A subclass says which photos belong to whom (`_find`) and where the landmarks come from (`_points_of`).
Photos are opened one by one when crops are asked for; only names and landmarks are held.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.alignment import ALIGNMENT_VERSION, Pixels, Points, align
from bench.contracts import CROP_SIZE, Dataset, Identity, MethodParams
from bench.data_files import data_folder, sha256_of
from bench.errors import DataError, UsageError
from bench.photos import read_photo

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""File name endings of photos, in any case."""

UNTESTED = "untested on the real files"
"""What the docs say of a reader that was only tested on folders of the published layout."""


class FolderParams(MethodParams):
    """Where a dataset is that the user brings."""

    path: str = Field(
        "",
        description="its folder; of the dataset's name inside the data folder when empty",
        json_schema_extra={"path": True},
    )


class PublishedParams(FolderParams):
    """Parameters of every such dataset that evaluates people."""

    min_photos: int = Field(
        10,
        ge=2,
        le=10_000,
        description="people with fewer photos are for training, not evaluated",
        json_schema_extra={"unit": "photos"},
    )
    evaluated: int = Field(
        200,
        ge=2,
        le=100_000,
        description="most people evaluated, drawn by their ids; the others are for training",
        json_schema_extra={"unit": "people"},
    )


@dataclass(frozen=True, slots=True)
class Person:
    """One person's photos.

    Attributes:
        name: what the publisher calls the person (a folder, a number); stays on this machine.
        photos: the publisher's name of each photo, sorted; image ids count them.
        evaluable: False where the publisher's split says that the person is for training.
    """

    name: str
    photos: tuple[str, ...]
    evaluable: bool = True


@dataclass(frozen=True)
class LandmarkTable:
    """Published landmarks of many photos, 40 bytes each.

    Attributes:
        rows: name of the photo → row of `points`.
        points: N×5×2 float32 (x, y) in pixels of the photo, in the order of `bench.alignment.TEMPLATE`.
    """

    rows: Mapping[str, int]
    points: NDArray[np.float32]

    def of(self, photo: str) -> Points | None:
        """Return the 5×2 points of a photo, None where there are none."""
        row = self.rows.get(photo)
        return None if row is None else self.points[row].astype(np.float64)


def landmark_table(entries: Iterable[tuple[str, Sequence[float]]]) -> LandmarkTable:
    """Collect (photo, ten coordinates x1, y1, …, x5, y5) without holding them as Python objects."""
    from array import array

    rows: dict[str, int] = {}
    values = array("f")
    for photo, coordinates in entries:
        rows[photo] = len(rows)
        values.extend(coordinates)
    return LandmarkTable(rows, np.frombuffer(values, dtype=np.float32).reshape(-1, 5, 2))


class PublishedDataset(Dataset):
    """Base of datasets read from a folder in their publisher's layout.

    An identity id is the dataset's name and the person's index in sorted order, an image id adds the photo's:
    ``celeba-00012/0003``. A person is evaluated who has `min_photos` photos, whom the publisher's split does not keep
    for training, and who is among the first `evaluated` in an order drawn from the ids; everyone else serves training
    and calibration.
    """

    domain = "real"
    default_pool = "real"

    Params = FolderParams
    params: FolderParams

    @property
    def root(self) -> Path:
        """The folder of the dataset."""
        return Path(self.params.path).expanduser() if self.params.path else data_folder() / self.name

    # -- what a subclass says ------------------------------------------------------------------------------

    @abstractmethod
    def _find(self) -> Iterator[Person]:
        """Yield everyone, sorted; reads lists and names of files, no pixels.

        Raises:
            DataError: the layout is not the published one; names the file, the line and the mend.
        """

    @abstractmethod
    def _points_of(self, person: Person, photo: str) -> Points | None:
        """Return 5×2 points of a photo, None where the detector must look."""

    @property
    @abstractmethod
    def _points_version(self) -> str:
        """What decides the points: a digest of the landmarks, `detected()` or `ALIGNED`."""

    def _file(self, person: Person, photo: str) -> Path:
        """Return the file of a photo."""
        return self.root / person.name / photo

    def _pixels(self, person: Person, photo: str, called: str) -> Pixels:
        """Return a photo as H×W×3 uint8 RGB; `called` is its name in errors."""
        return read_photo(self._file(person, photo), called)

    def _state(self, person: Person, photo: str) -> str:
        """Return what tells a photo from another one that has its name."""
        return str(_size(self._file(person, photo)))

    # -- what it makes of it -------------------------------------------------------------------------------

    @cached_property
    def _people(self) -> Mapping[str, Person]:
        """Identity id → person, sorted by id."""
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder. {self._mend}")
        people = {f"{self.name}-{index:05d}": person for index, person in enumerate(self._find())}
        if not people:
            raise DataError(f"{self.root} has no photos in the layout of {self.name}. {self._mend}")
        return people

    @property
    def _mend(self) -> str:
        return (
            f"Get {self.name} from its publisher (`bench data fetch {self.name}` says where) and unpack it there, "
            f"or give its folder: {self.name}:path=FOLDER."
        )

    def identities(self) -> tuple[Identity, ...]:
        """Return everyone, sorted by id; reads no pixels.

        Raises:
            DataError: the folder is missing or not in the published layout.
        """
        return self._identities

    @cached_property
    def _identities(self) -> tuple[Identity, ...]:
        chosen = self._chosen
        return tuple(
            Identity(
                identity,
                tuple(_image_id(identity, index) for index in range(len(person.photos))),
                "evaluation" if identity in chosen else "training",
            )
            for identity, person in self._people.items()
        )

    @cached_property
    def _chosen(self) -> frozenset[str]:
        """The people who are evaluated; none where the parameters set no limits, as for strangers."""
        limits = self.params
        if not isinstance(limits, PublishedParams):
            return frozenset()
        able = [
            identity
            for identity, person in self._people.items()
            if person.evaluable and len(person.photos) >= limits.min_photos
        ]
        return frozenset(sorted(able, key=_drawn)[: limits.evaluated])

    def fingerprint(self) -> str:
        """Return a digest of photos, landmarks, detector and alignment.

        Photos count by name and size, not by their bytes: some of these datasets are a hundred gigabytes.

        Raises:
            DataError: a photo that belongs to someone is not there.
        """
        digest = hashlib.sha256(f"{self.name}\n{ALIGNMENT_VERSION}\n{self._points_version}\n".encode())
        for identity, person in self._people.items():
            digest.update(f"{identity} {person.name}\n".encode())
            for index, photo in enumerate(person.photos):
                try:
                    digest.update(f"{photo} {self._state(person, photo)}\n".encode())
                except OSError as error:
                    called = self._called(_image_id(identity, index))
                    raise DataError(f"{called} cannot be read ({error.strerror}). {self._mend}") from error
        return digest.hexdigest()

    def check(self) -> None:
        """Check that every photo of someone evaluated is there and has landmarks, or that the detector is.

        Raises:
            DataError: names the first photo that does not.
            UsageError: the detector is needed and not installed.
        """
        if self._points_version == detected():
            from bench.face_detection import detector

            detector()  # says how to install it where it is not
        for identity in sorted(self._chosen):
            person = self._people[identity]
            for index, photo in enumerate(person.photos):
                called = self._called(_image_id(identity, index))
                try:
                    self._state(person, photo)
                    self._points_of(person, photo)
                except OSError as error:
                    raise DataError(f"{called} cannot be read ({error.strerror}). {self._mend}") from error
                except DataError as error:
                    raise DataError(f"{called}: {error}") from error

    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8 aligned crops of the images named.

        Raises:
            UsageError: an id is not one of this dataset's.
            DataError: a photo cannot be decoded, has no landmarks or no face.
        """
        crops = torch.empty((len(ids), 3, CROP_SIZE, CROP_SIZE), dtype=torch.uint8)
        for row, image_id in enumerate(ids):
            crops[row] = torch.from_numpy(np.ascontiguousarray(self._crop(image_id).transpose(2, 0, 1)))
        return crops

    def _crop(self, image_id: str) -> Pixels:
        person, photo = self._located(image_id)
        called = self._called(image_id)
        pixels = self._pixels(person, photo, called)
        if self._points_version == ALIGNED:
            return _aligned(pixels, called)
        try:
            points = self._points_of(person, photo)
            return align(pixels, _detected(pixels) if points is None else points)
        except DataError as error:
            raise DataError(f"{called}: {error}") from error

    def _located(self, image_id: str) -> tuple[Person, str]:
        identity, _, index = image_id.partition("/")
        person = self._people.get(identity)
        # Written anew and compared, so that one photo has one id.
        if person is None or not index.isdecimal() or int(index) >= len(person.photos):
            raise self._unknown(image_id)
        if _image_id(identity, int(index)) != image_id:
            raise self._unknown(image_id)
        return person, person.photos[int(index)]

    def _unknown(self, image_id: str) -> UsageError:
        return UsageError(
            f"unknown image '{image_id}' in {self.name}; ids look like {_image_id(f'{self.name}-00012', 3)}."
        )

    def file_name(self, image_id: str) -> str:
        """Return the publisher's name of a photo, for looking at it on this machine only."""
        person, photo = self._located(image_id)
        return f"{person.name}/{photo}"

    def names(self) -> Mapping[str, str]:
        """Return identity id → the publisher's name of the person, for use on this machine; tables never carry it."""
        return {identity: person.name for identity, person in self._people.items()}

    def _called(self, image_id: str) -> str:
        # A file's name may be a person's and an error may end up in a published table.
        return f"photo {image_id} (file_name('{image_id}') of the dataset names the file)"


ALIGNED = "aligned"
"""Points version of photos that are aligned crops already."""


def detected() -> str:
    """Return the points version of photos that the detector looks at."""
    from bench.face_detection import DETECTOR_VERSION

    return f"{DETECTOR_VERSION}/central"


def _drawn(identity: str) -> bytes:
    """Return the place of a person in the draw of who is evaluated: no order that a publisher's names could have."""
    return hashlib.sha256(f"evaluated {identity}".encode()).digest()


def _image_id(identity: str, index: int) -> str:
    return f"{identity}/{index:04d}"


def _size(file: Path) -> int:
    return file.stat().st_size


def _detected(pixels: Pixels) -> Points:
    from bench.face_detection import detector

    found = detector().detect(pixels, choose="central")
    if found is None:
        raise DataError("the detector finds no face in it. Remove the photo.")
    return found.points


def _aligned(pixels: Pixels, called: str) -> Pixels:
    if pixels.shape != (CROP_SIZE, CROP_SIZE, 3):
        height, width = pixels.shape[:2]
        raise DataError(
            f"{called} is {width}×{height}, an aligned crop is {CROP_SIZE}×{CROP_SIZE}. Leave out landmarks=aligned."
        )
    return pixels


# -- lists and folders -------------------------------------------------------------------------------------


def existing(root: Path, name: str, folders: Sequence[str], mend: str) -> Path:
    """Return the path of a file or folder called `name` in `root` or in one of its `folders`.

    Raises:
        DataError: it is in none of them.
    """
    for folder in ("", *folders):
        if (path := root / folder / name).exists():
            return path
    places = ", ".join(str(root / folder) for folder in ("", *folders))
    raise DataError(f"'{name}' is not in {places}. {mend}")


def rows_of(file: Path, columns: int, header: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, words) of the lines of a list that follow its header; empty lines are passed over.

    Raises:
        DataError: the file cannot be read, or a line has not `columns` words; names the line.
    """
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                words = line.split()
                if number <= header or not words:
                    continue
                if len(words) != columns:
                    raise broken(file, number, f"{len(words)} words, expected {columns}")
                yield number, words
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}. Fetch it again.") from error


def broken(file: Path, line: int, what: str) -> DataError:
    """Return the error for a line of a list."""
    return DataError(f"{file}, line {line}: {what}. Mend the line or fetch the file again.")


def whole_number(word: str, file: Path, line: int) -> int:
    """Return a word as a number that counts.

    Raises:
        DataError: it is none.
    """
    if not (word.isascii() and word.isdecimal()):
        raise broken(file, line, f"'{word}' is not a number")
    return int(word)


def coordinates(words: Sequence[str], file: Path, line: int) -> list[float]:
    """Return words as finite numbers.

    Raises:
        DataError: one is none.
    """
    try:
        found = [float(word) for word in words]
    except ValueError as error:
        raise broken(file, line, str(error)) from error
    if not all(map(np.isfinite, found)):
        raise broken(file, line, "a coordinate is not finite")
    return found


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a list.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return sha256_of(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}. Fetch it again.") from error


def folders_of(root: Path) -> list[str]:
    """Return the names of a folder's subfolders, sorted, hidden ones left out."""
    import os

    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())


def photos_of(folder: Path) -> tuple[str, ...]:
    """Return the names of a folder's photos, sorted; other files are passed over."""
    import os

    with os.scandir(folder) as entries:
        return tuple(
            sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in SUFFIXES
            )
        )


PhotosAre = Literal["detect", "aligned"]
"""Where five points come from if none are published: the detector, or the photos are aligned 112×112 crops."""
