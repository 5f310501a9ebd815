"""VGGFace2: 3.31 million photos of 9,131 people, five published landmarks each; the user brings it.

Cao, Shen, Xie, Parkhi, Zisserman, VGGFace2, FG 2018. Layout as in the publishers' archives: test/n000001/0001_01.jpg,
train/…, and bb_landmark/loose_landmark_test.csv with the columns NAME_ID, P1X, P1Y … P5Y, where NAME_ID is
n000001/0001_01. Untested on the real files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from bench.alignment import Points
from bench.datasets._published import (
    LandmarkTable,
    Person,
    PublishedDataset,
    PublishedParams,
    broken,
    coordinates,
    detected,
    digest_of,
    existing,
    folders_of,
    landmark_table,
    photos_of,
)
from bench.errors import DataError

PARTS = ("test", "train")

_FOLDERS = ("bb_landmark", "meta/bb_landmark", "meta")
_COLUMNS = ["NAME_ID", *(f"P{point}{axis}" for point in range(1, 6) for axis in "XY")]


class VGGFace2(PublishedDataset):
    """Loosely cropped photos of people from a web search, with large differences of pose and age.

    Of the publishers' test part those with `min_photos` are evaluated; the training part, where it is read, is for
    training. The publishers no longer hand the photos out; the people in them were not asked.
    """

    name = "vggface2"
    paper = "Cao et al., VGGFace2, FG 2018"
    note = "VGGFace2: taken offline by its publishers; photos from a web search, the people were not asked"

    class Params(PublishedParams):
        """Parameters of VGGFace2."""

        part: Literal["test", "both"] = Field(
            "test",
            description="test: 500 people; both: the 8,631 people of its training part for training too",
        )
        landmarks: Literal["published", "detect"] = Field(
            "published", description="five points of a photo: those of bb_landmark, or the detector's"
        )

    params: Params

    @property
    def _parts(self) -> tuple[str, ...]:
        return PARTS if self.params.part == "both" else PARTS[:1]

    def _find(self) -> Iterator[Person]:
        for part in self._parts:
            folder = existing(self.root, part, ("data",), self._mend)
            for name in folders_of(folder):
                if photos := photos_of(folder / name):
                    yield Person(f"{part}/{name}", photos, part == "test")

    @cached_property
    def _photo_folders(self) -> dict[str, Path]:
        return {part: existing(self.root, part, ("data",), self._mend) for part in self._parts}

    def _file(self, person: Person, photo: str) -> Path:
        part, _, name = person.name.partition("/")
        return self._photo_folders[part] / name / photo

    def _list(self, part: str) -> Path:
        return existing(self.root, f"loose_landmark_{part}.csv", _FOLDERS, self._mend)

    @property
    def _points_version(self) -> str:
        if self.params.landmarks == "detect":
            return detected()
        return " ".join(digest_of(self._list(part)) for part in self._parts)

    def _points_of(self, person: Person, photo: str) -> Points | None:
        if self.params.landmarks == "detect":
            return None
        part, _, name = person.name.partition("/")
        points = self._landmarks[part].of(f"{name}/{Path(photo).stem}")
        if points is None:
            raise DataError(
                f"it has no row in loose_landmark_{part}.csv. Fetch that again, or say landmarks=detect."
            )
        return points

    @cached_property
    def _landmarks(self) -> dict[str, LandmarkTable]:
        return {part: landmark_table(_rows(self._list(part))) for part in self._parts}


def _rows(file: Path) -> Iterator[tuple[str, list[float]]]:
    """Yield (person/photo, ten coordinates) of each line."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines, skipinitialspace=True)
            header = next(rows, [])
            if [name.strip() for name in header] != _COLUMNS:
                raise broken(file, 1, f"the columns are {', '.join(header)}, expected {', '.join(_COLUMNS)}")
            for row in rows:
                if len(row) != len(_COLUMNS):
                    raise broken(file, rows.line_num, f"{len(row)} columns, expected {len(_COLUMNS)}")
                yield row[0], coordinates(row[1:], file, rows.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read: {error}. Fetch it again.") from error
