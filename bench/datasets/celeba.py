"""CelebA, aligned and cropped: 202,599 photos of 10,177 identities, five published landmarks each; the user brings it.

Liu, Luo, Wang, Tang, Deep Learning Face Attributes in the Wild, ICCV 2015. Layout and lists as in the publishers'
archive (folders Img, Anno, Eval) and as torchvision.datasets.CelebA reads them (all in one folder). Untested on the
real files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from bench.datasets._published import (
    LandmarkTable,
    PublishedDataset,
    PublishedIdentity,
    PublishedParams,
    broken,
    coordinates,
    detected,
    digest_of,
    existing,
    landmark_table,
    rows_of,
    whole_number,
)
from bench.errors import DataError
from bench.faces.alignment import Points

FOLDERS = ("Img", "Anno", "Eval")
"""Where the publishers' archive keeps photos and lists; all may lie in one folder too."""

IDENTITIES = "identity_CelebA.txt"
LANDMARKS = "list_landmarks_align_celeba.txt"
PARTITION = "list_eval_partition.txt"
PHOTOS = "img_align_celeba"

_TRAINING = 0  # 1 is validation, 2 is test


class CelebA(PublishedDataset):
    """Photos of celebrities, 178×218, aligned by the publishers.

    Identities of the publishers' training part are for training; of the others those with `min_photos` are evaluated.
    The dataset is for non-commercial research only, and the people in it were not asked.
    """

    name = "celeba"
    paper = "Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015"
    note = "CelebA: non-commercial research only; photos from the web, the people were not asked"

    class Params(PublishedParams):
        """Parameters of CelebA."""

        landmarks: Literal["published", "detect"] = Field(
            "published", description=f"five points of a photo: those of {LANDMARKS}, or the detector's"
        )

    params: Params

    def _find(self) -> Iterator[PublishedIdentity]:
        parts = self._parts
        photos: dict[int, list[str]] = {}
        file = self._list(IDENTITIES)
        for line, photo, number in identities_in(file):
            if photo not in parts:
                raise broken(file, line, f"'{photo}' is not in {PARTITION}")
            photos.setdefault(number, []).append(photo)
        for identity, names in sorted(photos.items()):
            evaluable = all(parts[name] != _TRAINING for name in names)
            yield PublishedIdentity(str(identity), tuple(sorted(names)), evaluable)

    @property
    def _parts(self) -> Mapping[str, int]:
        """Photo → 0 training, 1 validation, 2 test."""
        file = self._list(PARTITION)
        parts: dict[str, int] = {}
        for line, (photo, part) in rows_of(file, 2):
            if part not in ("0", "1", "2"):
                raise broken(file, line, f"the part is '{part}', not 0, 1 or 2")
            if photo in parts:
                raise broken(file, line, f"'{photo}' is listed twice")
            parts[photo] = int(part)
        return parts

    @cached_property
    def _photo_folder(self) -> Path:
        return existing(self.root, PHOTOS, FOLDERS, self._fix)

    def _file(self, identity: PublishedIdentity, photo: str) -> Path:
        del identity
        return self._photo_folder / photo

    def _list(self, name: str) -> Path:
        return existing(self.root, name, FOLDERS, self._fix)

    @property
    def _points_version(self) -> str:
        return detected() if self.params.landmarks == "detect" else digest_of(self._list(LANDMARKS))

    def _points_of(self, identity: PublishedIdentity, photo: str) -> Points | None:
        del identity
        if self.params.landmarks == "detect":
            return None
        points = self._landmarks.of(photo)
        if points is None:
            raise DataError(f"it has no row in {LANDMARKS}. Fetch that file again, or say landmarks=detect.")
        return points

    @cached_property
    def _landmarks(self) -> LandmarkTable:
        file = self._list(LANDMARKS)
        # Two lines of header: the number of photos, and the names of the coordinates, left being left in the photo.
        rows = rows_of(file, 11, header=2)
        return landmark_table(((words[0], coordinates(words[1:], file, line)) for line, words in rows), file)


def identities_in(file: Path) -> Iterator[tuple[int, str, int]]:
    """Yield (line, photo, number of the identity) of CelebA's list of identities.

    Raises:
        DataError: a line is broken, or a photo is listed twice; names the line.
    """
    seen: set[str] = set()
    for line, (photo, number) in rows_of(file, 2):
        identity = whole_number(number, file, line)
        if photo in seen:
            raise broken(file, line, f"'{photo}' is listed twice")
        seen.add(photo)
        yield line, photo, identity
