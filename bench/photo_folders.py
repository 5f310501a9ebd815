"""A person's own folder of photos: what is in it, each face as an aligned crop, and crops as PNG files.

What lives here: reading and writing. What must not: attacks and keys (`bench.cloaking`, `bench.erasing`).

A folder is flat, or has a subfolder for each person. Unlike `bench.datasets.folder`, nothing is refused as a
whole because of one file: what cannot be used is named.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from bench.alignment import Pixels, align
from bench.contracts import CROP_SIZE
from bench.datasets.folder import SUFFIXES
from bench.errors import DataError, UsageError
from bench.photos import read_photo

_LITTER = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Photo:
    """One photo of a folder.

    Attributes:
        path: the file.
        name: path inside the folder, with slashes.
        output: path inside the folder to write, a PNG; unique among the folder's photos.
        person: opaque id of the subfolder it lies in; of the folder itself where it lies in none.
    """

    path: Path
    name: str
    output: str
    person: str

    @property
    def id(self) -> str:
        """Return the image id: the same for what is written of it, so that `erase` finds it by its name alone."""
        return self.output.removesuffix(".png")


@dataclass(frozen=True)
class Refusal:
    """A file that was not handled.

    Attributes:
        name: path inside the folder.
        reason: why, in one sentence.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Crop:
    """An aligned face.

    Attributes:
        image: 3×112×112 uint8.
        sha256: of the file it was read from.
        detected: whether the face was looked for and cut out; False where the photo is a crop already.
    """

    image: Tensor
    sha256: str
    detected: bool


def find_photos(root: Path, ignore: Sequence[str] = ()) -> tuple[tuple[Photo, ...], tuple[Refusal, ...]]:
    """Return the photos of a folder and its subfolders, sorted by name, and what else is there.

    Hidden files and file browsers' litter are passed over.

    Args:
        root: the folder.
        ignore: names at its top that are passed over too.

    Raises:
        UsageError: it is not a folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder. Give a folder of photos, or of one subfolder a person.")
    files, refusals = [], []
    for entry in sorted(root.iterdir()):
        if not _visible(entry) or entry.name in ignore:
            continue
        for file in sorted(filter(_visible, entry.iterdir())) if entry.is_dir() else (entry,):
            name = file.relative_to(root).as_posix()
            if file.is_dir():
                refusals.append(Refusal(name, "a folder inside a person's folder; move its photos up"))
            elif file.suffix.lower() not in SUFFIXES:
                refusals.append(Refusal(name, f"not a photo that is read ({', '.join(sorted(SUFFIXES))})"))
            else:
                files.append(name)
    # Some file systems take a.png and A.png for one file.
    taken = Counter(output.lower() for name in files for output in possible_outputs(name))
    photos = []
    for name in files:
        output = next(output for output in possible_outputs(name) if taken[output.lower()] == 1)
        photos.append(Photo(root / name, name, output, _person(name)))
    return tuple(photos), tuple(refusals)


def _visible(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in _LITTER


def possible_outputs(name: str) -> tuple[str, str, str]:
    """Return what may be written of a photo, the nicest name first; nothing else can have the last."""
    return (
        f"{name.rpartition('.')[0]}.png",
        f"{name}.png",
        f"{name}.{sha256(name.encode()).hexdigest()[:12]}.png",
    )


def _person(name: str) -> str:
    """Return the id of the person whose folder a photo lies in: an id, never a name (`bench.contracts.Faces`)."""
    return f"person-{sha256(name.rpartition('/')[0].encode()).hexdigest()[:12]}"


def needs_detector(photos: Sequence[Photo]) -> bool:
    """Say whether the face must be looked for in any of them; a file that is no image does not count."""
    from PIL import Image

    for photo in photos:
        try:
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
    from bench.face_detection import detector

    try:
        detector()
    except UsageError:
        raise UsageError(
            f"photos that are not aligned {CROP_SIZE}×{CROP_SIZE} crops need the face detector, which is not "
            "installed. Run pip install 'cloakbench[detector]'."
        ) from None


def read_crop(photo: Photo) -> Crop:
    """Return the aligned face of a photo; one of 112×112 pixels is taken as it is.

    Raises:
        DataError: it cannot be decoded or shows no face.
    """
    payload = read_bytes(photo.path)
    pixels = read_photo(payload, "it")
    detected = pixels.shape != (CROP_SIZE, CROP_SIZE, 3)
    face = _largest_face(pixels) if detected else pixels
    return Crop(to_tensor(face), sha256(payload).hexdigest(), detected)


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
    from bench.face_detection import detector

    found = detector().detect(pixels)
    if found is None:
        raise DataError("it shows no face that the detector finds")
    return align(pixels, found.points)


def read_pixels(photo: Photo) -> tuple[Tensor, str]:
    """Return a photo as it is, 3×H×W uint8, and the SHA-256 of its file.

    Raises:
        DataError: it cannot be decoded.
    """
    payload = read_bytes(photo.path)
    return to_tensor(read_photo(payload, "it")), sha256(payload).hexdigest()


def to_tensor(pixels: Pixels) -> Tensor:
    """Return H×W×3 uint8 as a tensor 3×H×W."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def png(image: Tensor) -> bytes:
    """Return a 3×H×W uint8 image as a PNG file, which keeps every value."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(sink, format="PNG")
    return sink.getvalue()
