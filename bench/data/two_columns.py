"""Files that a user gives to say one thing of each of many: a CSV of two columns."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from bench.errors import DataError


def read_two_columns(path: Path, what: str, columns: tuple[str, str]) -> dict[str, str]:
    """Return the second field of each line by its first, in the file's order.

    Args:
        path: a CSV in UTF-8.
        what: what the file says, in the plural, for messages: ``groups``.
        columns: its first line.

    Raises:
        DataError: it cannot be read, has other columns, an empty field, or says two things of one.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{what} '{path}' cannot be read as CSV: {error}.") from error
    first, second = columns
    if not rows or [name.strip() for name in rows[0]] != list(columns):
        found = ", ".join(rows[0]) if rows else "nothing"
        raise DataError(f"{what} '{path}' begin with {found}; the first line is {first},{second}.")
    said: dict[str, str] = {}
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != 2 or not all(field.strip() for field in row):
            raise DataError(f"{what} '{path}', line {line}: {row} is not an {first} and its {second}.")
        one, other = (field.strip() for field in row)
        if said.setdefault(one, other) != other:
            raise DataError(
                f"{what} '{path}', line {line}: '{one}' is in '{said[one]}' and '{other}'. Name one."
            )
    return said
