"""Datasets that users already have on disk, in the layout their publishers gave them.

What lives here: opaque ids, who is evaluated, lazy reading, alignment, the fingerprint. What must not: any one
dataset's files. A subclass says which photos belong to whom (`_find`) and where the landmarks come from (`_points_of`).
Photos are opened one by one when crops are requested; names, landmarks that a subclass holds, and points that the
detector found are kept.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
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

from bench.contracts import CROP_SIZE, Dataset, Identity, MethodParams
from bench.data.files import data_folder, sha256_of
from bench.errors import DataError, UsageError
from bench.faces.alignment import ALIGNMENT_VERSION, Pixels, Points, align
from bench.faces.photos import read_photo

log = logging.getLogger("bench")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""File name endings of photos, in any case."""

UNTESTED = "untested on the real files"
"""What the docs say of a reader that was only tested on folders of the published layout."""

SAMPLE_BYTES = 1 << 16
"""What counts of a photo of someone who is not evaluated: so many bytes from its middle, beside its size."""

_SHOWN = 50  # photos that one error names


class FolderParams(MethodParams):
    """Where a dataset is that the user brings."""

    path: str = Field(
        "",
        description="its folder; of the dataset's name inside the data folder when empty",
        json_schema_extra={"path": True},
    )
    training: int = Field(
        1_000_000,
        ge=0,
        le=10_000_000,
        description="most identities for training and calibration, drawn by their ids",
        json_schema_extra={"unit": "identities"},
    )
    on_bad: Literal["error", "skip"] = Field(
        "error",
        description="what to do with a photo that cannot be read, shows no face or is there twice; skip leaves it out "
        "and looks at every photo of all these identities before any work",
    )


class PublishedParams(FolderParams):
    """Parameters of every such dataset that evaluates identities."""

    min_photos: int = Field(
        10,
        ge=2,
        le=10_000,
        description="identities with fewer photos are for training, not evaluated",
        json_schema_extra={"unit": "photos"},
    )
    evaluated: int = Field(
        200,
        ge=2,
        le=100_000,
        description="most identities evaluated, drawn by their ids; the others are for training",
        json_schema_extra={"unit": "identities"},
    )


@dataclass(frozen=True, slots=True)
class PublishedIdentity:
    """One identity's photos.

    Attributes:
        name: what the publisher calls the identity (a folder, a number); stays on this machine.
        photos: the publisher's name of each photo, sorted; image ids count them.
        evaluable: False where the publisher's split says that the identity is for training.
    """

    name: str
    photos: tuple[str, ...]
    evaluable: bool = True


@dataclass(frozen=True)
class LandmarkTable:
    """Published landmarks of many photos, 40 bytes each.

    Attributes:
        rows: name of the photo → row of `points`.
        points: N×5×2 float32 (x, y) in pixels of the photo, in the order of `bench.faces.alignment.TEMPLATE`.
    """

    rows: Mapping[str, int]
    points: NDArray[np.float32]

    def of(self, photo: str) -> Points | None:
        """Return the 5×2 points of a photo, None where there are none."""
        row = self.rows.get(photo)
        return None if row is None else self.points[row].astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Listed:
    """Someone who is listed: the role, and which of the identity's photos are."""

    role: Literal["evaluation", "training"]
    photos: Sequence[int]


def landmark_table(entries: Iterable[tuple[str, Sequence[float]]], file: Path) -> LandmarkTable:
    """Collect (photo, ten coordinates x1, y1, …, x5, y5) without holding them as Python objects.

    Raises:
        DataError: a photo is listed twice; names it and the file.
    """
    from array import array

    rows: dict[str, int] = {}
    values = array("f")
    for photo, coordinates in entries:
        if photo in rows:
            raise DataError(f"{file} has '{photo}' twice. Fetch it again.")
        rows[photo] = len(rows)
        values.extend(coordinates)
    return LandmarkTable(rows, np.frombuffer(values, dtype=np.float32).reshape(-1, 5, 2))


class PublishedDataset(Dataset):
    """Base of datasets read from a folder in their publisher's layout.

    An identity id is the dataset's name and the identity's index in sorted order, an image id adds the place of the
    photo's file among the identity's: ``celeba-00012/0003``; both count what is left out, so that ids
    stay. An identity is
    evaluated who has `min_photos` photos, whom the publisher's split does not keep for training, and who is among the
    first `evaluated` in an order drawn from the ids; the next serve training and calibration, `training` at most.
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
    def _find(self) -> Iterator[PublishedIdentity]:
        """Yield everyone, sorted; reads lists and names of files, no pixels.

        Raises:
            DataError: the layout is not the published one; names the file, the line and the fix.
        """

    @abstractmethod
    def _points_of(self, person: PublishedIdentity, photo: str) -> Points | None:
        """Return 5×2 points of a photo, None where the detector must look."""

    @property
    @abstractmethod
    def _points_version(self) -> str:
        """What decides the points: a digest of the landmarks, `detected()` or `ALIGNED`."""

    def _file(self, person: PublishedIdentity, photo: str) -> Path:
        """Return the file of a photo."""
        return self.root / person.name / photo

    def _pixels(self, person: PublishedIdentity, photo: str, called: str) -> Pixels:
        """Return a photo as H×W×3 uint8 RGB; `called` is its name in errors."""
        return read_photo(self._file(person, photo), called)

    def _open(self, person: PublishedIdentity, photo: str) -> io.BufferedIOBase:
        """Return the bytes of a photo, from their beginning."""
        return self._file(person, photo).open("rb")

    @property
    def _packed(self) -> tuple[Path, ...]:
        """The files that hold all photos, where no file holds one."""
        return ()

    # -- what it makes of it -------------------------------------------------------------------------------

    @cached_property
    def _published(self) -> Mapping[str, PublishedIdentity]:
        """Identity id → identity, sorted by id."""
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder. {self._fix}")
        published = {f"{self.name}-{index:05d}": person for index, person in enumerate(self._find())}
        if not published:
            raise DataError(f"{self.root} has no photos in the layout of {self.name}. {self._fix}")
        return published

    @property
    def _fix(self) -> str:
        return (
            f"Get {self.name} from its publisher (`bench fetch {self.name}` says where) and unpack it there, "
            f"or give its folder: {self.name}:path=FOLDER."
        )

    def identities(self) -> tuple[Identity, ...]:
        """Return everyone, sorted by id; reads no pixels, except with ``on_bad=skip``: then all, once.

        Raises:
            DataError: the folder is missing or not in the published layout.
            UsageError: the detector is needed and not installed.
        """
        return self._identities

    @cached_property
    def _identities(self) -> tuple[Identity, ...]:
        return tuple(
            Identity(identity, tuple(_image_id(identity, index) for index in listed.photos), listed.role)
            for identity, listed in self._listed.items()
        )

    @cached_property
    def _listed(self) -> Mapping[str, _Listed]:
        """Everyone who is listed, sorted by id; nobody is evaluated where the parameters set no limits."""
        limits = self.params if isinstance(self.params, PublishedParams) else None
        found: dict[str, _Listed] = {}
        room = {"evaluation": limits.evaluated if limits else 0, "training": self.params.training}
        for identity in sorted(self._published, key=_drawn):
            person = self._published[identity]
            least = limits.min_photos if limits and person.evaluable and room["evaluation"] else 0
            if not (0 < least <= len(person.photos) or room["training"]):
                continue
            photos = self._usable(identity)
            role: Literal["evaluation", "training"] = "evaluation" if 0 < least <= len(photos) else "training"
            if photos and room[role]:
                found[identity] = _Listed(role, photos)
                room[role] -= 1
        if self.skipped:
            first = next(iter(self.skipped.values()))
            log.warning("%s: %d photos left out; the first: %s", self.name, len(self.skipped), first)
        return dict(sorted(found.items()))

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Image id → why the photo was left out; empty before `identities`, and unless ``on_bad=skip``."""
        return {}

    def _usable(self, identity: str) -> Sequence[int]:
        """Return which of an identity's photos are listed; looks at each where bad ones are left out."""
        count = range(len(self._published[identity].photos))
        if self.params.on_bad == "error":
            return count
        usable = []
        for index in count:
            try:
                self._try(identity, index, self._seen)
            except DataError as error:
                self.skipped[_image_id(identity, index)] = str(error)
            else:
                usable.append(index)
        return tuple(usable)

    @cached_property
    def _seen(self) -> dict[str, str]:
        """Digest of a photo's bytes → the first image that has them."""
        return {}

    def _try(self, identity: str, index: int, seen: dict[str, str]) -> None:
        """Refuse a photo that has no crop, or that is one of those seen.

        The same photo among gallery and probes would be recognised whatever the cloak does.
        """
        self._crop(identity, index)
        image = _image_id(identity, index)
        first = seen.setdefault(self._digest(identity, index), image)
        if first != image:
            raise DataError(f"{self._called(image)} is the same photo as {first}. Remove one of them.")

    def _digest(self, identity: str, index: int, sample: bool = False) -> str:
        """Return the SHA-256 of a photo's bytes; or of its size and a sample.

        Raises:
            DataError: it cannot be read.
        """
        person = self._published[identity]
        try:
            with self._open(person, person.photos[index]) as file:
                return _sampled(file) if sample else hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            called = self._called(_image_id(identity, index))
            raise DataError(f"{called} cannot be read ({error.strerror}). {self._fix}") from error

    def fingerprint(self) -> str:
        """Return a digest of photos, landmarks, detector and alignment; computed once.

        Photos of identities that are evaluated count by all their bytes, those of others by their size and
        `SAMPLE_BYTES`
        from their middle: some of these datasets are a hundred gigabytes. So who is evaluated counts too.

        Raises:
            DataError: a photo that belongs to someone listed is not there.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.name}\n{ALIGNMENT_VERSION}\n{self._points_from}\n".encode())
        digest.update(" ".join(digest_of(file) for file in self._packed).encode())
        for identity, listed in self._listed.items():
            digest.update(f"{identity} {self._published[identity].name}\n".encode())
            for index in listed.photos:
                # Reading a packed file in one go is faster than half a million records.
                sample = listed.role != "evaluation"
                content = "" if self._packed else self._digest(identity, index, sample)
                digest.update(f"{self._published[identity].photos[index]} {content}\n".encode())
        return digest.hexdigest()

    def check(self) -> None:
        """Read every photo of everyone evaluated to its end, and find its face.

        With ``on_bad=skip`` this is done already when identities are listed, for everyone.

        Raises:
            DataError: names the photos that have no crop, or are the same as another one.
            UsageError: the detector is needed and not installed.
        """
        if self._points_from == detected():
            from bench.faces.detection import detector

            detector()  # says how to install it where it is not
        if self.params.on_bad == "skip":
            _ = self._listed
            return
        seen: dict[str, str] = {}
        bad: list[str] = []
        evaluated = {i: listed for i, listed in self._listed.items() if listed.role == "evaluation"}
        for identity, listed in evaluated.items():
            for index in listed.photos:
                try:
                    self._try(identity, index, seen)
                except DataError as error:
                    bad.append(str(error))
        if bad:
            raise DataError(_report(bad, sum(len(listed.photos) for listed in evaluated.values())))

    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8 aligned crops of the images named.

        Raises:
            UsageError: an id is not one of this dataset's.
            DataError: a photo cannot be decoded, has no landmarks or no face.
        """
        crops = torch.empty((len(ids), 3, CROP_SIZE, CROP_SIZE), dtype=torch.uint8)
        for row, image_id in enumerate(ids):
            crop = self._crop(*self._located(image_id))
            crops[row] = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return crops

    def _crop(self, identity: str, index: int) -> Pixels:
        person, image_id = self._published[identity], _image_id(identity, index)
        photo, called = person.photos[index], self._called(image_id)
        pixels = self._pixels(person, photo, called)
        if self._points_from == ALIGNED:
            return _aligned(pixels, called)
        try:
            points = self._points_of(person, photo)
            return align(pixels, self._detected(image_id, pixels) if points is None else points)
        except DataError as error:
            raise DataError(f"{called}: {error}") from error

    @cached_property
    def _points_from(self) -> str:
        """`_points_version`, looked up once."""
        return self._points_version

    def _detected(self, image_id: str, pixels: Pixels) -> Points:
        if image_id not in self._points_found:
            self._points_found[image_id] = _detected(pixels)
        return self._points_found[image_id]

    @cached_property
    def _points_found(self) -> dict[str, Points]:
        """What the detector found so far: `check` looks first, `crops` need not look again."""
        return {}

    def _located(self, image_id: str) -> tuple[str, int]:
        identity, _, index = image_id.partition("/")
        listed = self._listed.get(identity)
        # Written anew and compared, so that one photo has one id.
        if listed is None or not index.isdecimal() or int(index) not in listed.photos:
            raise self._unknown(image_id)
        if _image_id(identity, int(index)) != image_id:
            raise self._unknown(image_id)
        return identity, int(index)

    def _unknown(self, image_id: str) -> UsageError:
        return UsageError(
            f"unknown image '{image_id}' in {self.name}; ids look like {_image_id(f'{self.name}-00012', 3)}."
        )

    def file_name(self, image_id: str) -> str:
        """Return the publisher's name of a photo, for looking at it on this machine only."""
        identity, _, index = image_id.partition("/")
        if image_id not in self.skipped:  # those too can be looked at
            self._located(image_id)
        person = self._published[identity]
        return f"{person.name}/{person.photos[int(index)]}"

    def names(self) -> Mapping[str, str]:
        """Return identity id → the publisher's name of the identity, for use on this machine; tables never carry it."""
        return {identity: self._published[identity].name for identity in self._listed}

    def _called(self, image_id: str) -> str:
        # A file's name may be an identity's and an error may end up in a published table.
        return f"photo {image_id} (file_name('{image_id}') of the dataset names the file)"


ALIGNED = "aligned"
"""Points version of photos that are aligned crops already."""


def detected() -> str:
    """Return the points version of photos that the detector looks at."""
    from bench.faces.detection import DETECTOR_VERSION

    return f"{DETECTOR_VERSION}/central"


def _drawn(identity: str) -> bytes:
    """Return the place of an identity in the draw of who is evaluated: no order that a publisher's names could have."""
    return hashlib.sha256(f"evaluated {identity}".encode()).digest()


def _image_id(identity: str, index: int) -> str:
    return f"{identity}/{index:04d}"


def _sampled(file: io.BufferedIOBase) -> str:
    """Return the size of a file and the SHA-256 of bytes from its middle."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, (size - SAMPLE_BYTES) // 2))
    return f"{size} {hashlib.sha256(file.read(SAMPLE_BYTES)).hexdigest()}"


def _report(bad: Sequence[str], among: int) -> str:
    shown = "\n  ".join(bad[:_SHOWN])
    more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return (
        f"{len(bad)} of {among} photos of identities that are evaluated cannot be used; on_bad=skip leaves them out:"
        f"\n  {shown}{more}"
    )


def _detected(pixels: Pixels) -> Points:
    from bench.faces.detection import detector

    found = detector().detect(pixels, choose="central")
    if found is None:
        raise DataError("the detector finds no face in it. Say on_bad=skip, or remove the photo.")
    return found.points


def _aligned(pixels: Pixels, called: str) -> Pixels:
    if pixels.shape != (CROP_SIZE, CROP_SIZE, 3):
        height, width = pixels.shape[:2]
        raise DataError(
            f"{called} is {width}×{height}, an aligned crop is {CROP_SIZE}×{CROP_SIZE}. Leave out landmarks=aligned."
        )
    return pixels


# -- lists and folders -------------------------------------------------------------------------------------


def existing(root: Path, name: str, folders: Sequence[str], fix: str) -> Path:
    """Return the path of a file or folder called `name` in `root` or in one of its `folders`.

    Raises:
        DataError: it is in none of them.
    """
    for folder in ("", *folders):
        if (path := root / folder / name).exists():
            return path
    places = ", ".join(str(root / folder) for folder in ("", *folders))
    raise DataError(f"'{name}' is not in {places}. {fix}")


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
    return DataError(f"{file}, line {line}: {what}. Fix the line or fetch the file again.")


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
    """Return the names of a folder's subfolders, sorted, hidden ones left out.

    Raises:
        DataError: it cannot be read.
    """
    return sorted(entry.name for entry in _entries(root) if entry.is_dir())


def photos_of(folder: Path) -> tuple[str, ...]:
    """Return the names of a folder's photos, sorted; other files are passed over.

    Raises:
        DataError: it cannot be read.
    """
    found = _entries(folder)
    return tuple(sorted(entry.name for entry in found if Path(entry.name).suffix.lower() in SUFFIXES))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        # The folder's own name may be an identity's.
        raise DataError(f"a folder in {folder.parent} cannot be read ({error.strerror}).") from error


PhotosAre = Literal["detect", "aligned"]
"""Where five points come from if none are published: the detector, or the photos are aligned 112×112 crops."""
