"""FFHQ: 70,000 photos without identity labels at 1024×1024, for training and calibration only; the user brings it.

Karras, Laine, Aila, A Style-Based Generator Architecture, CVPR 2019. Layout and metadata as in NVlabs/ffhq-dataset
(README, download_ffhq.py): images1024x1024/00000/00000.png or thumbnails128x128/…, and ffhq-dataset-v2.json with 68
points a photo. Nobody's name or number is published, so nobody can be recognised: no one is evaluated. Untested on
the real files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from bench.datasets._published import (
    FolderParams,
    LandmarkTable,
    PublishedDataset,
    PublishedIdentity,
    detected,
    digest_of,
    existing,
    folders_of,
    landmark_table,
    photos_of,
)
from bench.errors import DataError
from bench.faces.alignment import Points

METADATA = "ffhq-dataset-v2.json"
FOLDERS = {1024: "images1024x1024", 128: "thumbnails128x128"}

_FULL_SIDE = 1024
_POINTS = 68
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)  # dlib's numbering, as download_ffhq.py uses it
_NOSE_TIP, _LEFT_MOUTH, _RIGHT_MOUTH = 30, 48, 54
_CHUNK = 1 << 20


class FFHQ(PublishedDataset):
    """Photos of people on Flickr; each photo counts as an identity of its own, and all are for training.

    Use it where impostors are wanted: ``bench train`` and calibration. A run that evaluates needs another dataset. The
    same person may be in it twice. CC BY-NC-SA 4.0; the metadata name each photo's own licence and author.
    """

    name = "ffhq"
    paper = "Karras et al., A Style-Based Generator Architecture, CVPR 2019"
    note = "FFHQ: no identity labels, nobody is evaluated; non-commercial use only"
    impostors_only = True

    class Params(FolderParams):
        """Parameters of FFHQ."""

        size: Literal[1024, 128] = Field(
            1024,
            description="which photos: images1024x1024 or thumbnails128x128",
            json_schema_extra={"unit": "pixels"},
        )
        landmarks: Literal["published", "detect"] = Field(
            "published", description=f"five points of a photo: from {METADATA}, or the detector's"
        )

    params: Params

    @property
    def _side(self) -> int:
        return int(self.params.size)

    def _find(self) -> Iterator[PublishedIdentity]:
        folder = self._photo_folder
        # The publishers keep a thousand photos to a folder; a flat one is read too.
        for inner in (*folders_of(folder), ""):
            for photo in photos_of(folder / inner):
                yield PublishedIdentity(inner, (photo,), evaluable=False)

    @cached_property
    def _photo_folder(self) -> Path:
        return existing(self.root, FOLDERS[self._side], (), self._fix)

    def _file(self, identity: PublishedIdentity, photo: str) -> Path:
        return self._photo_folder / identity.name / photo

    @property
    def _points_version(self) -> str:
        if self.params.landmarks == "detect":
            return detected()
        return f"{self._side} {digest_of(self._metadata)}"

    @property
    def _metadata(self) -> Path:
        return existing(self.root, METADATA, (), f"{self._fix} Or say landmarks=detect.")

    def _points_of(self, identity: PublishedIdentity, photo: str) -> Points | None:
        del identity
        if self.params.landmarks == "detect":
            return None
        points = self._landmarks.of(Path(photo).stem)
        if points is None:
            raise DataError(f"it is not in {METADATA}. Fetch that again, or say landmarks=detect.")
        # The centre of small pixel i is the centre of the block of large ones it stands for.
        shrunk = _FULL_SIDE / self._side
        return (points + 0.5) / shrunk - 0.5

    @cached_property
    def _landmarks(self) -> LandmarkTable:
        file = self._metadata
        five = ((f"{int(key):05d}", _five(entry, key, file)) for key, entry in entries_of(file))
        return landmark_table(five, file)


def entries_of(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield (photo's number, its metadata) of the JSON object in a file, one entry at a time: it has 255 MB.

    Raises:
        DataError: it cannot be read, is no such object, or ends too early; names the last entry read.
    """
    last = "none"
    try:
        with file.open(encoding="utf-8") as stream:
            held, place = stream.read(_CHUNK), 0
            if not held.startswith("{"):
                raise DataError(f"{file} is no JSON object of photos. Fetch it again.")
            place = 1
            while True:
                found = _entry(held, place)
                if found is _END:
                    return
                if found is not None:
                    last, entry, place = found
                    yield last, entry
                elif more := stream.read(_CHUNK):
                    held, place = held[place:] + more, 0
                else:
                    raise DataError(f"{file} ends or breaks after entry {last}. Fetch it again.")
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read after entry {last} ({error}). Fetch it again.") from error


_END = ("", None, 0)
_BETWEEN = re.compile(r"[\s,]*")
_KEY = re.compile(r'"([^"]*)"\s*:\s*')
_DECODER = json.JSONDecoder()


def _entry(text: str, place: int) -> tuple[str, Any, int] | None:
    """Return (key, value, end) of the entry of an object that begins at `place`; None where more text is needed."""
    between = _BETWEEN.match(text, place)
    assert between is not None  # it matches nothing too
    place = between.end()
    if text.startswith("}", place):
        return _END
    key = _KEY.match(text, place)
    if key is None:
        return None
    if not key[1].isdecimal():
        raise ValueError(f"'{key[1]}' is not a photo's number")
    try:
        # A value is an object, so it is whole as soon as it can be read.
        value, end = _DECODER.raw_decode(text, key.end())
    except json.JSONDecodeError:
        return None
    return key[1], value, end


def _five(entry: Any, key: str, file: Path) -> list[float]:
    """Return x1, y1 … x5, y5 in the 1024×1024 photo: eyes, tip of the nose, corners of the mouth."""
    try:
        points = np.asarray(entry["image"]["face_landmarks"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: entry {key} has no image.face_landmarks ({error}). Fetch it again."
        ) from error
    if points.shape != (_POINTS, 2) or not np.isfinite(points).all():
        raise DataError(f"{file}: face_landmarks of entry {key} are not {_POINTS} points. Fetch it again.")
    eyes = [points[_LEFT_EYE].mean(0), points[_RIGHT_EYE].mean(0)]
    chosen = np.array([*eyes, points[_NOSE_TIP], points[_LEFT_MOUTH], points[_RIGHT_MOUTH]])
    return [float(value) for value in chosen.ravel()]
