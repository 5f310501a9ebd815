"""A user's own photos: ``folder:path=DIR`` with ``DIR/identity/photo.jpg``.

Everyone is evaluated; the names of the subfolders stay in this class, tables carry ``folder-0000``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.contracts import CROP_SIZE, Dataset, Identity, MethodParams
from bench.data.files import sha256_of
from bench.data.folders import registered
from bench.errors import DataError, UsageError
from bench.faces.alignment import ALIGNMENT_VERSION, Landmarks, Pixels, align
from bench.faces.landmark_files import LandmarkFile, check_inside, read_landmark_file
from bench.faces.photos import photo_size, read_photo, refuse_irregular, verify_photo

log = logging.getLogger("bench")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""File name endings of photos, in any case."""

_LITTER = frozenset({"thumbs.db", "desktop.ini"})  # like hidden files, put there by file browsers


@dataclass(frozen=True)
class Skipped:
    """A photo that was left out.

    Attributes:
        file: its path; for the user's eyes, it may hold a name.
        reason: why, in one sentence.
    """

    file: Path
    reason: str


@dataclass(frozen=True)
class _FolderIdentity:
    """One subfolder: its index in sorted order, its name, image id → file."""

    index: int
    name: str
    photos: Mapping[str, Path]

    @property
    def id(self) -> str:
        return f"folder-{self.index:04d}"


class Folder(Dataset):
    """Any folder of ``identity/photo``.

    Identity ids are ``folder-`` and the index of the subfolder in sorted order, image ids add the index of
    the file in sorted order: ``folder-0002/0007``. Hidden files, and files other than photos beside the
    subfolders, are passed over.

    Attributes:
        skipped: what was left out, with the reasons.
    """

    name = "folder"
    domain = "real"
    default_pool = "real"
    shorthand = "path"
    required = ("path",)
    note = "own photos: rates hold for these identities only"

    class Params(MethodParams):
        """Parameters of a folder."""

        path: str = Field(
            "",
            description="the folder, one subfolder of photos an identity; or a name given with `bench data add`",
            json_schema_extra={"path": True},
        )
        landmarks: str = Field(
            "",
            description="CSV of path (identity/photo.jpg), x1, y1 … x5, y5; when absent the detector runs",
            json_schema_extra={"path": True},
        )
        aligned: bool = Field(False, description="the photos are aligned 112×112 crops already")
        min_photos: int = Field(
            3,
            ge=2,
            le=10_000,
            description="least number of photos of an identity",
            json_schema_extra={"unit": "photos"},
        )
        skip_small: bool = Field(
            False, description="leave out identities with fewer photos instead of refusing"
        )
        on_bad: Literal["error", "skip"] = Field(
            "error", description="what to do with a file that is no photo or a photo without a face"
        )

        @model_validator(mode="after")
        def _one_way_to_align(self) -> Self:
            if self.aligned and self.landmarks:
                raise ValueError("aligned=true leaves nothing for landmarks to align; give one of the two")
            return self

    params: Params

    @cached_property
    def root(self) -> Path:
        """The folder: a path, or what `bench data add` recorded under this name."""
        if not self.params.path:
            raise UsageError("folder needs a path: --dataset folder:path=DIR with DIR/identity/photo.jpg.")
        # A bare name may be one of `bench data add`; those come first, so that a name means one thing.
        named = Path(self.params.path).name == self.params.path and registered().get(self.params.path)
        return named or Path(self.params.path).expanduser()

    def identities(self) -> tuple[Identity, ...]:
        """Return everyone, sorted by id.

        Reads no pixels, except with ``on_bad=skip``: which photos are left out must be known here, so they
        are all read (and searched for faces) once. Landmarks are held against the photos' sizes.

        Raises:
            UsageError: an identity has too few photos, or nobody is left.
            DataError: the folder is missing, empty, without subfolders or has a file that is no photo.
        """
        if not (self.params.aligned or self.params.landmarks) and self._are_crops:
            _say_once(
                f"every photo of {self.root} is {CROP_SIZE}×{CROP_SIZE}. If these are crops on ArcFace's template, "
                "add aligned=true: as it is, faces are looked for in them and cut out again."
            )
        return tuple(Identity(p.id, tuple(p.photos), "evaluation") for p in self._identities)

    def names(self) -> Mapping[str, str]:
        """Return identity id → name of the subfolder, for use on this machine; tables never carry it."""
        return {p.id: p.name for p in self._identities}

    def file_names(self) -> Mapping[str, Path]:
        """Return image id → file, for use on this machine."""
        return dict(self._files)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out, with the reasons; empty unless ``on_bad=skip`` or ``skip_small``."""
        small = tuple(
            Skipped(self.root / p.name, f"{_count(len(p.photos))}, fewer than {self.params.min_photos}")
            for p in self._small
        )
        return self._scan[1] + small

    def check(self) -> None:
        """Read every photo to its end and find its face, so that errors come before any work.

        Raises:
            DataError: names the first file that cannot be decoded, has no face, has no row in the landmarks,
                or is the same photo as another one of the folder.
            UsageError: the detector is needed and not installed.
        """
        self.verify_photos()
        if not self.params.aligned:
            for file in self._files.values():
                self._points(file, read_photo(file))

    def verify_photos(self) -> None:
        """Read every photo to its end, without looking for faces.

        Raises:
            DataError: names the first file that cannot be decoded or is the same photo as another one.
        """
        seen: dict[str, Path] = {}
        for file in self._files.values():
            verify_photo(file)
            self._refuse_repeated(file, seen)

    def fingerprint(self) -> str:
        """Return a digest of photos, landmarks, detector and alignment."""
        digest = hashlib.sha256(f"folder\n{ALIGNMENT_VERSION}\n{self._points_version}\n".encode())
        for image_id, file in self._files.items():
            digest.update(f"{image_id} {_content(file)}\n".encode())
        return digest.hexdigest()

    @property
    def _points_version(self) -> str:
        if self.params.aligned:
            return "aligned"
        if self.params.landmarks:
            return sha256_of(self._landmark_file)
        from bench.faces.detection import DETECTOR_VERSION

        return f"{DETECTOR_VERSION}/largest"

    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8 aligned crops of the images named.

        Raises:
            UsageError: an id is not one of this folder's.
            DataError: a photo cannot be decoded or has no face; names the file.
        """
        crops = torch.empty((len(ids), 3, CROP_SIZE, CROP_SIZE), dtype=torch.uint8)
        for row, image_id in enumerate(ids):
            if image_id not in self._files:
                raise UsageError(
                    f"unknown image '{image_id}' in {self.root}; ids look like folder-0000/0000."
                )
            try:
                crop = self._crop(self._files[image_id])
            except DataError as error:
                # A reason may end up in a published table, and a file's name may be an identity's.
                file = str(self._files[image_id])
                raise DataError(str(error).replace(file, f"photo {image_id} of the folder")) from error
            crops[row] = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return crops

    def _crop(self, file: Path) -> Pixels:
        pixels = read_photo(file)
        if self.params.aligned:
            _refuse_unaligned(file, pixels)
            return pixels
        points = self._points(file, pixels).points
        try:
            return align(pixels, points)
        except DataError as error:
            raise DataError(f"{file}: {error}. Fix its landmarks or remove the photo.") from error

    def _points(self, file: Path, pixels: Pixels) -> Landmarks:
        if self._landmarks is not None:
            height, width = pixels.shape[:2]
            return self._landmarks_of(file, (width, height))
        if file not in self._detected:
            self._detected[file] = self._detect(file, pixels)
        return self._detected[file]

    @staticmethod
    def _detect(file: Path, pixels: Pixels) -> Landmarks:
        from bench.faces.detection import detector

        try:
            found = detector().detect(pixels)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        if found is None:
            raise DataError(
                f"{file} shows no face that the detector finds. Remove it, give landmarks or say on_bad=skip."
            )
        return found

    def _landmarks_of(self, file: Path, size: tuple[int, int]) -> Landmarks:
        """Return a photo's landmarks, which lie inside it."""
        assert self._landmarks is not None
        row = file.relative_to(self.root).as_posix()
        if row in self._landmarks.wrong:
            raise DataError(self._landmarks.wrong[row])
        if row not in self._landmarks.found:
            raise DataError(
                f"{file} has no row '{row}' with a detected face in {self._landmark_file}. Add it."
            )
        found = self._landmarks.found[row]
        check_inside(found, size, f"{file}, row '{row}' of {self._landmark_file}")
        return found

    @property
    def _landmark_file(self) -> Path:
        return Path(self.params.landmarks).expanduser()

    @cached_property
    def _landmarks(self) -> LandmarkFile | None:
        if not self.params.landmarks:
            return None
        if self.params.aligned:
            raise UsageError(
                "folder: aligned=true leaves nothing for landmarks to align; give one of the two."
            )
        return read_landmark_file(self._landmark_file)

    @cached_property
    def _detected(self) -> dict[Path, Landmarks]:
        """Landmarks found so far: `on_bad=skip` looks for bad photos first, `crops` need not look again."""
        return {}

    @cached_property
    def _are_crops(self) -> bool:
        """Whether all photos have the size of a crop; reads headers up to the first that has not."""
        try:
            return all(photo_size(file) == (CROP_SIZE, CROP_SIZE) for file in self._files.values())
        except DataError:
            return False  # said where its pixels are read

    @cached_property
    def _files(self) -> Mapping[str, Path]:
        return {image_id: file for p in self._identities for image_id, file in p.photos.items()}

    @property
    def _identities(self) -> tuple[_FolderIdentity, ...]:
        if self._small and not self.params.skip_small:
            identity = self._small[0]
            raise UsageError(
                f"{self.root / identity.name} has {_count(len(identity.photos))}, fewer than min_photos="
                f"{self.params.min_photos}. Add photos, remove the folder, or say skip_small=true."
            )
        enough = tuple(p for p in self._scan[0] if len(p.photos) >= self.params.min_photos)
        if not enough:
            raise UsageError(
                f"nobody in {self.root} has {self.params.min_photos} photos or more. Add photos."
            )
        return enough

    @cached_property
    def _small(self) -> tuple[_FolderIdentity, ...]:
        return tuple(p for p in self._scan[0] if len(p.photos) < self.params.min_photos)

    @cached_property
    def _scan(self) -> tuple[tuple[_FolderIdentity, ...], tuple[Skipped, ...]]:
        """Everyone found, and the files left out. Ids count all files, so they stay when one is left out."""
        skipped: list[Skipped] = []
        seen: dict[str, Path] = {}
        identities = []
        for index, folder in enumerate(_subfolders(self.root)):
            photos = {}
            for number, file in enumerate(_visible(folder)):
                try:
                    _refuse_other_files(file)
                    if self.params.on_bad == "skip":
                        self._try(file, seen)
                    elif self.params.landmarks:
                        self._landmarks_of(file, photo_size(file))
                except DataError as error:
                    if self.params.on_bad == "error":
                        raise
                    skipped.append(Skipped(file, str(error)))
                else:
                    photos[f"folder-{index:04d}/{number:04d}"] = file
            identities.append(_FolderIdentity(index, folder.name, photos))
        return tuple(identities), tuple(skipped)

    def _try(self, file: Path, seen: dict[str, Path]) -> None:
        self._crop(file)
        self._refuse_repeated(file, seen)

    @staticmethod
    def _refuse_repeated(file: Path, seen: dict[str, Path]) -> None:
        """The same photo among gallery and probes would be recognised whatever the cloak does."""
        first = seen.setdefault(_content(file), file)
        if first != file:
            raise DataError(f"{file} is the same photo as {first}. Remove one of them.")


@cache
def _say_once(text: str) -> None:
    """Warn of a folder once, however many objects a run makes of it."""
    log.warning(text)


def _count(photos: int) -> str:
    return f"{photos} photo" if photos == 1 else f"{photos} photos"


def _content(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error}). Put it back or remove its entry.") from error


def _visible(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if not entry.name.startswith(".") and entry.name.lower() not in _LITTER:
            yield entry


def _subfolders(root: Path) -> tuple[Path, ...]:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Give one with a subfolder of photos for each identity.")
    entries = tuple(_visible(root))
    if not entries:
        raise DataError(f"{root} is empty. Put a subfolder of photos into it for each identity.")
    identities = tuple(entry for entry in entries if entry.is_dir())
    if not identities:
        raise DataError(
            f"{root} has no subfolders. Put the photos of each identity into one: identity/photo.jpg."
        )
    loose = [e for e in entries if e.is_file() and e.suffix.lower() in SUFFIXES]
    if loose:
        raise DataError(f"{loose[0]} lies outside the subfolders. Move it into the folder of its identity.")
    return identities


def _refuse_other_files(file: Path) -> None:
    if file.is_dir():
        raise DataError(f"{file} is a folder inside an identity's folder. Move its photos up or remove it.")
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file} is not a photo ({', '.join(sorted(SUFFIXES))}). Remove or convert it.")
    refuse_irregular(file)


def _refuse_unaligned(file: Path, pixels: Pixels) -> None:
    if pixels.shape != (CROP_SIZE, CROP_SIZE, 3):
        height, width = pixels.shape[:2]
        raise DataError(
            f"{file} is {width}×{height}, an aligned crop is {CROP_SIZE}×{CROP_SIZE}. Leave out aligned=true."
        )
