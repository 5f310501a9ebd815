"""A person's own photos, a folder or one: what is there, the faces in each as aligned crops, crops as PNG files.

What lives here: finding and reading. What must not: attacks and keys (`cloaking`, `erasing`), pixels that
go back into a photo (`bench.faces.paste_back`).

A folder is flat, or has a subfolder for each person. Unlike `bench.datasets.folder`, nothing is refused as a
whole because of one file: what cannot be used is named.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.contracts import CROP_SIZE, MICRO_BATCH
from bench.errors import DataError, UsageError
from bench.faces import search
from bench.faces.alignment import Pixels, align
from bench.faces.paste_back import Place, place_at, place_of, take_crop
from bench.faces.whole_photo import PhotoFile
from bench.photo_tools import photo_files
from bench.photo_tools.photo_files import SUFFIXES


class _Personal(Protocol):
    @property
    def person(self) -> str: ...


OfPerson = TypeVar("OfPerson", bound=_Personal)
"""A photo, or what is made of one."""

_LITTER = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Photo:
    """One photo of a folder.

    Attributes:
        path: the file.
        name: path inside the folder, with slashes.
        output: path inside the folder to write; without its ending unique among the folder's photos.
        person: opaque id of the subfolder it lies in; of the folder itself where it lies in none.
    """

    path: Path
    name: str
    output: str
    person: str

    @property
    def id(self) -> str:
        """The image id: the same for what is written of it, so that `erase` finds it by its name alone."""
        return without_ending(self.output)

    @property
    def copy(self) -> str:
        """Path inside the folder to write where the photo is copied as it is."""
        return self.id + self.path.suffix

    def face_ids(self, count: int) -> tuple[str, ...]:
        """Return the ids of its faces: the largest is called as the photo is, no photo can be called as the others."""
        return tuple(self.id if number == 0 else f"{self.id}//{number}" for number in range(count))

    def people(self, count: int) -> tuple[str, ...]:
        """Return whose its faces are: the largest is the folder's person, each other somebody seen once."""
        others = (sha256(name.encode()).hexdigest()[:12] for name in self.face_ids(count)[1:])
        return (self.person, *(f"person-{other}" for other in others))[:count]


@dataclass(frozen=True)
class Refusal:
    """A file that was not handled.

    Attributes:
        name: path inside the folder.
        reason: why, in one sentence.
    """

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class FacedPhoto:
    """The faces of a photo.

    Attributes:
        photo: the photo.
        sha256: of its file.
        crops: each face, 3×112×112 uint8, the largest first; () where there is none.
        places: where they lie in the upright photo; () where only crops count.
        is_crop: whether the photo is an aligned crop already.
    """

    photo: Photo
    sha256: str
    crops: tuple[Tensor, ...]
    places: tuple[Place, ...] = ()
    is_crop: bool = False


def find_photos(
    root: Path, ignore: Sequence[str] = (), ending: Callable[[Path], str] = lambda _path: ".png"
) -> tuple[tuple[Photo, ...], tuple[Refusal, ...]]:
    """Return the photos of a folder and its subfolders, sorted by name, and what else is there.

    Hidden files and file browsers' litter are passed over.

    Args:
        root: the folder, or one photo.
        ignore: names at its top that are passed over too.
        ending: of what will be written of a photo.

    Raises:
        UsageError: it is neither.
    """
    if root.is_file():
        entries, base = [root], root.parent
    elif root.is_dir():
        entries, base = [entry for entry in _listed(root) if entry.name not in ignore], root
    else:
        raise UsageError(
            f"{root} is not a folder{'' if root.exists() or root.is_symlink() else ', nor a file'}. Give a photo, a "
            "folder of photos, or one of one subfolder a person."
        )
    names, refusals = [], []
    for entry in entries:
        is_folder = _is_folder(entry)
        if is_folder and not _may_be_listed(entry):
            refusals.append(Refusal(_shown(entry, base), "a folder that cannot be read"))
            continue
        for file in _listed(entry) if is_folder else (entry,):
            try:
                reason = _why_no_photo(file)
            except OSError as error:  # in a folder that may be listed and not entered
                reason = f"it cannot be looked at ({error.strerror}); fix the permissions of its folder"
            if reason:
                refusals.append(Refusal(_shown(file, base), reason))
            else:
                names.append(file.relative_to(base).as_posix())
    # Some file systems take a.png and A.png for one file.
    taken = Counter(one.lower() for name in names for one in possible_ids(name))
    photos = []
    for name in names:
        free = next(one for one in possible_ids(name) if taken[one.lower()] == 1)
        photos.append(Photo(base / name, name, free + ending(base / name), person_of(name)))
    return tuple(photos), tuple(refusals)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _listed(folder: Path) -> list[Path]:
    return sorted(filter(_visible, folder.iterdir()))


def _may_be_listed(folder: Path) -> bool:
    try:
        next(folder.iterdir(), None)
    except OSError:
        return False
    return True


def _why_no_photo(file: Path) -> str:
    """Say why a file is not to be read, "" where it is: a pipe would be waited for, for ever."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return "its name is no text (not UTF-8); rename it"
    if file.is_dir():
        return "a folder inside a person's folder; move its photos up"
    if file.suffix.lower() not in SUFFIXES:
        return f"not a photo that is read ({', '.join(sorted(SUFFIXES))})"
    if file.is_symlink() and not file.exists():
        return "a link to a file that is not there"
    if not file.is_file():
        return "not a file but a device, pipe or socket"
    return ""


def _shown(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix().encode(errors="backslashreplace").decode()


def _visible(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in _LITTER


def possible_ids(name: str) -> tuple[str, str, str]:
    """Return what a photo may be called, without an ending, the nicest name first; nothing else can have the last."""
    return (without_ending(name), name, f"{name}.{sha256(name.encode()).hexdigest()[:12]}")


def without_ending(name: str) -> str:
    """Return a path without the last ending of its name."""
    folder, slash, file = name.rpartition("/")
    stem = file.rpartition(".")[0]
    return f"{folder}{slash}{stem or file}"


def person_of(name: str) -> str:
    """Return the id of the person whose folder a photo lies in: an id, never a name (`bench.contracts.Faces`)."""
    return f"person-{sha256(name.rpartition('/')[0].encode()).hexdigest()[:12]}"


def batches(items: Sequence[OfPerson], *, by_person: bool) -> list[Sequence[OfPerson]]:
    """Return what is changed, and can be lost, together."""
    if by_person:
        people = dict.fromkeys(item.person for item in items)
        return [[item for item in items if item.person == person] for person in people]
    return [items[start : start + MICRO_BATCH] for start in range(0, len(items), MICRO_BATCH)]


def needs_detector(photos: Sequence[Photo]) -> bool:
    """Say whether faces must be looked for in any of them; a file that is no image does not count."""
    from PIL import Image

    for photo in photos:
        try:
            with photo.path.open("rb") as file:
                if photo_files.is_heif(file.read(12)):
                    return True
            with Image.open(photo.path) as image:
                if image.size != (CROP_SIZE, CROP_SIZE):
                    return True
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return False


def load_detector() -> None:
    """Load the face detector, so that its absence is known before any work.

    Raises:
        UsageError: it is not installed.
    """
    from bench.faces.detection import detector

    try:
        detector()
    except UsageError:
        raise UsageError(
            f"photos that are not aligned {CROP_SIZE}×{CROP_SIZE} crops need the face detector, which is not "
            "installed. Run pip install 'cloakbench[detector]'."
        ) from None


def read_crop(photo: Photo) -> FacedPhoto:
    """Return the largest face of a photo, aligned; one of 112×112 pixels is taken as it is.

    Raises:
        DataError: it cannot be decoded or shows no face.
    """
    content = photo_files.read(read_bytes(photo.path))
    pixels = content.seen()
    is_crop = pixels.shape == (CROP_SIZE, CROP_SIZE, 3)
    face = pixels if is_crop else _largest_face(pixels)
    return FacedPhoto(photo, content.sha256, (to_tensor(face),), is_crop=is_crop)


def read_faces(photo: Photo) -> FacedPhoto:
    """Return every face of a photo, with its place; one of 112×112 pixels is a face as it is.

    Raises:
        DataError: it cannot be decoded, or the detector failed on it.
    """
    content = photo_files.read(read_bytes(photo.path))
    height, width = content.upright().shape[:2]
    is_crop = (height, width) == (CROP_SIZE, CROP_SIZE)
    if is_crop:
        places = [place_of(np.eye(2, 3), height, width)]
    else:
        found = search.find_faces(content.seen())
        places = [place_at(face.points, height, width) for face in found]
    crops = tuple(to_tensor(take_crop(content, place)) for place in places)
    return FacedPhoto(photo, content.sha256, crops, tuple(places), is_crop)


def read_again(faced: FacedPhoto) -> PhotoFile:
    """Return the photo to write into.

    Raises:
        DataError: it is another than when its faces were looked for.
    """
    content = photo_files.read(read_bytes(faced.photo.path))
    if content.sha256 != faced.sha256:
        raise DataError("it was changed while it was worked on; give the command again")
    return content


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}") from error


def _largest_face(pixels: Pixels) -> Pixels:
    from bench.faces.detection import detector

    found = detector().detect(pixels)
    if found is None:
        raise DataError("it shows no face that the detector finds")
    return align(pixels, found.points)


def to_tensor(pixels: Pixels) -> Tensor:
    """Return H×W×3 uint8 as a tensor 3×H×W."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def png(image: Tensor) -> bytes:
    """Return a 3×H×W uint8 image as a PNG file, which keeps every value."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(sink, format="PNG")
    return sink.getvalue()
