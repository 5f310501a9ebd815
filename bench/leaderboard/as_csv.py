"""The leaderboard as CSV, guarded against formulas, and back."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.warnings import RowWarnings
from bench.errors import DataError
from bench.leaderboard.columns import COLUMNS, FLAGS, FORMERLY, KEY, TEXTS, WARNINGS, WHOLE
from bench.leaderboard.table import build
from bench.run.folder import RunFolder
from bench.run.renamed import today

# What a spreadsheet passes over before it looks for a formula, and what begins one, in ASCII, full width and small.
_PASSED = r"[\s\x00-\x1f\u200b-\u200f\u2060\ufeff'\"]*"

_FORMULA = r"[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"

_RISKY_START = re.compile(rf"'*[\t\n]|{_PASSED}{_FORMULA}")

# Where the semicolon parts fields, a text that holds one is two.
_RISKY_REST = re.compile(rf";(?={_PASSED}{_FORMULA})")

_GUARDED_REST = re.compile(rf";'(?={_PASSED}{_FORMULA})")


def to_csv(leaderboard: pd.DataFrame) -> str:
    """Return the leaderboard as CSV: floats with six decimals, empty for missing, safe in spreadsheets.

    Before what a spreadsheet would take for a formula, at the start of a text or after a semicolon in it, stands an
    apostrophe; a carriage return, which readers take for the end of a row, is a space. `read_csv` takes the
    apostrophes off again.
    """
    safe = leaderboard.copy()
    for name in safe.columns:
        if safe[name].dtype == object or pd.api.types.is_string_dtype(safe[name]):
            safe[name] = safe[name].map(_as_field)
    return str(safe.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def write(folder: RunFolder) -> pd.DataFrame:
    """Make a finished run's leaderboard, write it as ``leaderboard.csv`` of its folder, and return it.

    Raises:
        StoreError: the folder cannot be written.
        DataError: one of its files is missing or damaged.
    """
    leaderboard = build(folder)
    folder.write_bytes("leaderboard.csv", to_csv(leaderboard).encode())
    folder.write_manifest()
    return leaderboard


def as_text(value: Any) -> str:
    """Return a value of a leaderboard as its CSV shows it, without the apostrophes of `guarded`."""
    if value is None or (not isinstance(value, RowWarnings) and pd.isna(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _as_field(value: Any) -> Any:
    return guarded(str(value)) if isinstance(value, str | RowWarnings) else value


def guarded(text: str) -> str:
    """Return a text as a field of a CSV that no spreadsheet takes for a formula."""
    line = _RISKY_REST.sub(";'", text.replace("\r", " "))
    return f"'{line}" if _RISKY_START.match(line) else line


def unguarded(field: str) -> str:
    """Return the text of a field that `guarded` made."""
    text = field[1:] if field.startswith("'") and _RISKY_START.match(field, 1) else field
    return _GUARDED_REST.sub(";", text)


def read_csv(path: Path) -> pd.DataFrame:
    """Return a leaderboard from a file that `to_csv` wrote, see `from_csv`.

    Raises:
        DataError: there is no such file, or it is no leaderboard.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        raise DataError(
            f"'{path}' does not exist. Give a finished run's folder, or a leaderboard's CSV."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read as CSV: {error}.") from None
    return from_csv(text, str(path))


def from_csv(text: str, name: str) -> pd.DataFrame:
    """Return the leaderboard of a CSV, with the types of its columns and without `to_csv`'s apostrophes.

    A missing number is NaN or NA, a missing text is "". In a table that an earlier version wrote, columns under
    their former names get today's; those it lacks are empty, and the columns of reasons among them say so.

    Args:
        text: of the CSV.
        name: what an error calls it.

    Raises:
        DataError: it is no leaderboard, or damaged.
    """
    try:
        written, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except csv.Error as error:
        raise DataError(f"'{name}' cannot be read as CSV: {error}.") from None
    header = today(written, name)
    _check_header(name, header, rows)
    table = pd.DataFrame(rows, columns=header, dtype=object)
    older = "not in the file, which an older version wrote"
    for column in COLUMNS:
        if column not in table.columns:
            empty = older if column.endswith("_reason") else "False" if column in FLAGS else ""
            table[column] = FORMERLY.get(column, empty)
    try:
        return pd.DataFrame({column: _typed(table[column]) for column in COLUMNS})
    except (ValueError, KeyError) as error:
        raise DataError(
            f"'{name}' is damaged: a column of numbers, of True and False or of warnings has {error}."
        ) from None


def holds(text: str, leaderboard: pd.DataFrame, name: str) -> bool:
    """Say whether a CSV is what `to_csv` makes of a leaderboard; of an earlier version's, the columns it has count.

    Raises:
        DataError: it is no leaderboard, or damaged.
    """
    if text == to_csv(leaderboard):
        return True
    columns = columns_in(text, name)
    if columns == list(COLUMNS):
        return False
    return to_csv(from_csv(text, name)[columns]) == to_csv(leaderboard[columns])


def columns_in(text: str, name: str) -> list[str]:
    """Return the columns that a leaderboard's CSV has, under today's names."""
    return today(next(csv.reader(io.StringIO(text, newline="")), []), name)


def _check_header(name: str, header: list[str], rows: list[list[str]]) -> None:
    needed = (*KEY, "status", "n_identities", "asr", "normal_accuracy", "benchmark_version", "run")
    lacking = [column for column in needed if column not in header]
    strange = [column for column in header if column not in COLUMNS]
    if lacking or strange or len(set(header)) < len(header):
        what = (
            f"it lacks {', '.join(lacking)}"
            if lacking
            else f"it has {', '.join(strange) or 'a column twice'}"
        )
        raise DataError(
            f"'{name}' is not a leaderboard: {what}. `bench leaderboard RUN --csv FILE` writes one."
        )
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"'{name}' is damaged: row {line} has {len(row)} fields, not {len(header)}.")


def _typed(column: "pd.Series[Any]") -> "pd.Series[Any]":
    name = str(column.name)
    if name == WARNINGS:
        return pd.Series([RowWarnings.from_text(unguarded(text)) for text in column], dtype=object)
    if name in TEXTS:
        return column.map(unguarded).astype(object)
    if name in FLAGS:
        return column.map({"True": True, "False": False}.__getitem__).astype(bool)
    numbers = pd.to_numeric(column.replace("", None), errors="raise")
    return numbers.astype(
        "Int64" if name in WHOLE and name != "seed" else "int64" if name == "seed" else float
    )
