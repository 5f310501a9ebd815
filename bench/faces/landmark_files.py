"""Files of landmarks: a CSV → five points a photo, each refused that cannot be of the photo it names."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import DataError
from bench.faces.alignment import Landmarks, estimate_similarity

_COLUMNS = ("path", "x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4", "x5", "y5")

_OUTSIDE = 0.1
"""How far outside the photo a point may lie, as a share of its side: faces at the edge are cut off."""

_FRACTION = 1.5
"""Points none of which is larger are fractions of the photo's size, as some detectors give them."""


@dataclass(frozen=True)
class LandmarkFile:
    """What a file of landmarks says.

    Attributes:
        found: photo path as written in the file → landmarks; rows whose `detected` is no (0, 0.0, false, no) are left
            out, because their points are a guess.
        wrong: photo path → why its row is of no face (not numbers, not finite, in one place, on one line, mirrored), or
            that there are two.
    """

    found: Mapping[str, Landmarks]
    wrong: Mapping[str, str]


def read_landmarks(path: Path) -> Mapping[str, Landmarks]:
    """Return the landmarks of a file in which every row is right; see `read_landmark_file`.

    Raises:
        DataError: the file cannot be read, or a row is of no face; names the first.
    """
    read = read_landmark_file(path)
    for reason in read.wrong.values():
        raise DataError(reason)
    return read.found


def read_landmark_file(path: Path) -> LandmarkFile:
    """Read a CSV with the columns path, x1, y1, …, x5, y5 and, where there are any, score and detected.

    Raises:
        DataError: the file is missing, lacks a column, or has a row whose `detected` is neither yes nor no.
    """
    found: dict[str, Landmarks] = {}
    wrong: dict[str, str] = {}
    lines: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [c for c in _COLUMNS if c not in (rows.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path} lacks the columns {', '.join(missing)}. Needed: {', '.join(_COLUMNS)}."
                )
            for row in rows:
                where, photo = f"{path}, line {rows.line_num}", row["path"]
                if not _is_detected(row.get("detected"), where):
                    continue
                if photo in lines:
                    wrong[photo] = (
                        f"{where}: '{photo}' is on line {lines[photo]} already. Keep one row a photo."
                    )
                    continue
                lines[photo] = rows.line_num
                try:
                    found[photo] = _landmarks_of_row(where, row)
                except DataError as error:
                    wrong[photo] = str(error)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the landmarks {path} cannot be read: {error}.") from error
    return LandmarkFile(found, wrong)


def check_inside(landmarks: Landmarks, size: tuple[int, int], where: str) -> None:
    """Refuse points that are not in the photo they are said to be of.

    Args:
        landmarks: five points, in pixels of the photo as it is shown.
        size: its width and height.
        where: photo and file of landmarks, for the message.

    Raises:
        DataError: a point lies far outside, or all are fractions of the photo's size.
    """
    points, (width, height) = landmarks.points, size
    if points.max() <= _FRACTION and points.min() >= -_FRACTION:
        raise DataError(
            f"{where}: the points {_written(landmarks)} are fractions of the photo, not pixels. Multiply them by its "
            f"size, {width}×{height}."
        )
    margin = _OUTSIDE * max(width, height)
    inside = (points >= -margin).all() and (points <= np.array([width, height]) + margin).all()
    if not inside:
        raise DataError(
            f"{where}: the points {_written(landmarks)} lie outside the photo of {width}×{height} pixels. Give them in "
            "pixels of the photo as it is shown, x before y."
        )


def _written(landmarks: Landmarks) -> str:
    return ", ".join(f"({x:g}, {y:g})" for x, y in landmarks.points)


def _is_detected(text: str | None, where: str) -> bool:
    value = "1" if text is None or not text.strip() else text.strip().lower()
    if value in ("true", "yes"):
        return True
    if value in ("false", "no"):
        return False
    try:
        return {0.0: False, 1.0: True}[float(value)]
    except (ValueError, KeyError):
        raise DataError(f"{where}: detected is '{text}'. Valid: 1, 0, true, false.") from None


def _landmarks_of_row(where: str, row: Mapping[str, str]) -> Landmarks:
    try:
        points = np.array([float(row[c]) for c in _COLUMNS[1:]]).reshape(5, 2)
        found = Landmarks(points, float(row.get("score") or 1.0))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}. A row is a path and ten numbers.") from error
    try:
        estimate_similarity(points)
    except DataError as error:
        raise DataError(f"{where} ('{row['path']}'): {error}.") from error
    return found
