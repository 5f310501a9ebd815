"""VGGFace2: 3.31 million photos of 9,131 identities, five published landmarks each; the user brings it.

Cao, Shen, Xie, Parkhi, Zisserman, VGGFace2, FG 2018. Layout as in the publishers' archives: test/n000001/0001_01.jpg,
train/…, and bb_landmark/loose_landmark_test.csv with the columns NAME_ID, P1X, P1Y … P5Y, where NAME_ID is
n000001/0001_01. Untested on the real files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
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
    folders_of,
    landmark_table,
    photos_of,
)
from bench.errors import DataError
from bench.faces.alignment import Points

PARTS = ("test", "train")

CORPUS = "VGGFace2"
"""What the cards of backbones trained on it call it."""

_FOLDERS = ("bb_landmark", "meta/bb_landmark", "meta")
_COLUMNS = ["NAME_ID", *(f"P{point}{axis}" for point in range(1, 6) for axis in "XY")]


class VGGFace2(PublishedDataset):
    """Loosely cropped photos of identities from a web search, with large differences of pose and age.

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
            description="test: 500 identities; both: the 8,631 identities of its training part for training too",
        )
        landmarks: Literal["published", "detect"] = Field(
            "published", description="five points of a photo: those of bb_landmark, or the detector's"
        )

    params: Params

    @property
    def _parts(self) -> tuple[str, ...]:
        return PARTS if self.params.part == "both" else PARTS[:1]

    def _find(self) -> Iterator[PublishedIdentity]:
        for part in self._parts:
            folder = existing(self.root, part, ("data",), self._fix)
            for name in folders_of(folder):
                if photos := photos_of(folder / name):
                    yield PublishedIdentity(f"{part}/{name}", photos, part == "test")

    @cached_property
    def _photo_folders(self) -> dict[str, Path]:
        return {part: existing(self.root, part, ("data",), self._fix) for part in self._parts}

    def _file(self, identity: PublishedIdentity, photo: str) -> Path:
        part, _, name = identity.name.partition("/")
        return self._photo_folders[part] / name / photo

    def _list(self, part: str) -> Path:
        return existing(self.root, f"loose_landmark_{part}.csv", _FOLDERS, self._fix)

    @property
    def _points_version(self) -> str:
        if self.params.landmarks == "detect":
            return detected()
        return " ".join(digest_of(self._list(part)) for part in self._parts)

    def _points_of(self, identity: PublishedIdentity, photo: str) -> Points | None:
        if self.params.landmarks == "detect":
            return None
        part, _, name = identity.name.partition("/")
        points = self._landmarks[part].of(name, Path(photo).stem)
        if points is None:
            raise DataError(
                f"it has no row in loose_landmark_{part}.csv. Fetch that again, or say landmarks=detect."
            )
        return points

    @cached_property
    def _landmarks(self) -> dict[str, LandmarkList]:
        return {part: LandmarkList(self._list(part)) for part in self._parts}

    def identities_in(self, corpus: str) -> frozenset[str] | None:
        """Return the identities of the training part for ``VGGFace2``; see `Dataset.identities_in`.

        Backbones are trained on its 8,631 identities; the publishers' two parts share nobody.
        """
        if corpus != CORPUS:
            return None
        return frozenset(i for i, identity in self._published.items() if identity.name.startswith("train/"))


@dataclass(frozen=True)
class _Block:
    """Lines of one identity that follow each other: where they begin, their bytes, the number of the first."""

    start: int
    size: int
    line: int


class LandmarkList:
    """A list of landmarks, read identity by identity: that of the training part has 3.1 million rows.

    Only where each identity's lines are is held, and the last identity's points.

    Args:
        file: the list.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._last: tuple[str, LandmarkTable] | None = None

    def of(self, identity: str, photo: str) -> Points | None:
        """Return the 5×2 points of a photo, None where there are none.

        Raises:
            DataError: the list cannot be read, or one of the identity's lines is broken; names it.
        """
        if self._last is None or self._last[0] != identity:
            self._last = (identity, landmark_table(self._rows(identity), self.file))
        return self._last[1].of(f"{identity}/{photo}")

    @cached_property
    def _blocks(self) -> dict[str, list[_Block]]:
        found: dict[str, list[_Block]] = {}
        try:
            with self.file.open("rb") as lines:
                self._check_header(lines.readline())
                start = place = lines.tell()
                last, first = b"", 2
                for number, line in enumerate(lines, start=2):
                    identity = line.partition(b"/")[0].strip(b'\xef\xbb\xbf" \r\n')
                    if identity != last:
                        if last:
                            block = _Block(start, place - start, first)
                            found.setdefault(last.decode(), []).append(block)
                        last, start, first = identity, place, number
                    place += len(line)
                if last:
                    found.setdefault(last.decode(), []).append(_Block(start, place - start, first))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.file} cannot be read: {error}. Fetch it again.") from error
        return found

    def _check_header(self, line: bytes) -> None:
        header = next(csv.reader([line.decode("utf-8-sig")], skipinitialspace=True), [])
        if [name.strip() for name in header] != _COLUMNS:
            raise broken(self.file, 1, f"the columns are {', '.join(header)}, expected {', '.join(_COLUMNS)}")

    def _rows(self, identity: str) -> Iterator[tuple[str, list[float]]]:
        """Yield (identity/photo, ten coordinates) of an identity's lines."""
        for block in self._blocks.get(identity, ()):
            try:
                with self.file.open("rb") as file:
                    file.seek(block.start)
                    lines = file.read(block.size).decode().splitlines()
                rows = list(csv.reader(lines, skipinitialspace=True, strict=True))
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise DataError(
                    f"{self.file} cannot be read from line {block.line} on: {error}. Fetch it again."
                ) from error
            for number, row in enumerate(rows, start=block.line):
                if len(row) != len(_COLUMNS):
                    raise broken(self.file, number, f"{len(row)} columns, expected {len(_COLUMNS)}")
                yield row[0], coordinates(row[1:], self.file, number)
