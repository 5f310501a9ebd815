"""What papers report, to be set beside our numbers: the reader of `results/literature.csv`.

What lives here: the table's columns, what each may hold, and the check of a file against them. What must not:
any use of these values in a rank, a test or a mean. They were measured by others under other protocols; each
row says in one sentence how its own differs.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.errors import DataError

COLUMNS: Mapping[str, str] = {
    "id": "name of the row, unique; lower case, digits and hyphens",
    "paper": "the paper's short name and title",
    "year": "year of the venue, or of the preprint where there is none",
    "venue": "where it appeared",
    "arxiv_or_doi": "arXiv number, DOI or the venue's own identifier",
    "where": "which part of the source states the value",
    "attack": "what the photos were cloaked with, with version where the source says",
    "defense": "what the tracker did against it; none where nothing",
    "tracker": "what recognised: backbone and head, or the commercial service",
    "dataset": "whose photos",
    "n_identities": "identities the tracker knows; empty where the source does not say",
    "n_protected": "identities whose protection the value is measured on; empty where the source does not say",
    "protocol": "the nearest of CloakBench's protocols, or image-quality",
    "metric": "what was measured, in the source's word",
    "bound": "exactly, above, at least or below: what the source says of the value",
    "value": "the number as the source prints it, in the row's unit; empty only with value_reason",
    "value_reason": "why value is empty",
    "unit": "unit of value, see UNITS",
    "condition": "under what condition the value was taken",
    "quoted_from": "paper, abstract, authors' repository, or second-hand and which",
    "checked": "yes where the sentence or table was read in the source itself, else no",
    "source": "address or file in which it was read",
    "differs_from_ours": "one sentence: how its protocol differs from CloakBench's",
    "note": "what else a reader must know; may be empty",
}
"""Every column of the table, in order, and what it holds."""

UNITS: Mapping[str, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "percent": (0.0, 100.0),
    "percentage points": (-100.0, 100.0),
    "DSSIM": (0.0, 1.0),
}
"""Units of a value, and the range it may have in each (inclusive)."""

BOUNDS = ("exactly", "above", "at least", "below")
"""What a source says of a value: 'over 72 %' is `above`, '95+ %' is `at least`."""

PROTOCOLS = ("tracker", "verification", "identification", "erasure", "image-quality")
"""What a row is nearest to."""

SOURCES = ("paper", "abstract", "authors' repository")
"""First-hand kinds of source; any other begins with `second-hand: `."""

_SECOND_HAND = "second-hand: "
_MAY_BE_EMPTY = frozenset({"n_identities", "n_protected", "value", "value_reason", "note"})
_COUNTS = ("n_identities", "n_protected")
_DEFAULT = Path(__file__).parents[2] / "results" / "literature.csv"


def load(path: Path | None = None) -> pd.DataFrame:
    """Return the table of published numbers, checked.

    Args:
        path: the CSV file; by default `results/literature.csv` of the checkout this package runs from. It is
            not part of an installed wheel, so give a path there.

    Returns:
        One row a number, columns as `COLUMNS` in that order: `year` int64, `n_identities` and `n_protected`
        Int64 (missing where not stated), `value` float64 in its row's `unit` (NaN where `value_reason` says
        why), `checked` bool, all others strings.

    Raises:
        DataError: the file is absent or no UTF-8 CSV, a column is missing, unknown, twice or out of place, or
            a row breaks what its column may hold; the message names file, line, value and valid ones.
    """
    file = _DEFAULT if path is None else path
    rows = _rows(file)
    for line, row in rows:
        problem = _problem(row)
        if problem:
            raise DataError(f"{file}, line {line} ('{row['id']}'): {problem}")
    _check_ids(file, rows)
    return _frame([row for _, row in rows])


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (number of the line a row ends on, row by column), the header checked."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            _check_header(file, header)
            rows = [(reader.line_num, cells) for cells in reader]
    except FileNotFoundError:
        raise DataError(
            f"there is no table of published numbers at {file}. Give the path of literature.csv; "
            "it lies in the repository's results/ and is not installed with the package."
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a UTF-8 CSV file: {error}") from error
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{file}, line {line}: {len(cells)} cells where the header has {len(header)}. "
                "Put a cell that holds a comma in double quotes."
            )
    if not rows:
        raise DataError(f"{file} has a header and no rows")
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in rows]


def _check_header(file: Path, header: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    if missing or unknown:
        said = [f"missing columns: {', '.join(missing)}"] if missing else []
        said += [f"unknown columns: {', '.join(repr(name) for name in unknown)}"] if unknown else []
        raise DataError(f"{file}: {'; '.join(said)}. Valid, in this order: {', '.join(COLUMNS)}.")
    if list(header) != list(COLUMNS):
        raise DataError(
            f"{file}: columns are repeated or out of place. Valid, in this order: {', '.join(COLUMNS)}."
        )


def _check_ids(file: Path, rows: Sequence[tuple[int, Mapping[str, str]]]) -> None:
    first: dict[str, int] = {}
    for line, row in rows:
        if row["id"] in first:
            raise DataError(
                f"{file}, line {line}: the id '{row['id']}' is already that of line {first[row['id']]}. "
                "Give each row its own."
            )
        first[row["id"]] = line


def _problem(row: Mapping[str, str]) -> str:
    """Return what is wrong with a row, or an empty string."""
    empty = [name for name in COLUMNS if name not in _MAY_BE_EMPTY and not row[name].strip()]
    if empty:
        return f"empty: {', '.join(empty)}. Every number needs them."
    return _wrong_choice(row) or _wrong_count(row) or _wrong_value(row)


def _wrong_choice(row: Mapping[str, str]) -> str:
    choices: dict[str, Sequence[str]] = {
        "unit": tuple(UNITS),
        "bound": BOUNDS,
        "protocol": PROTOCOLS,
        "checked": ("yes", "no"),
    }
    for name, valid in choices.items():
        if row[name] not in valid:
            return f"{name} is '{row[name]}'. Valid: {', '.join(valid)}."
    quoted = row["quoted_from"]
    second_hand = quoted.startswith(_SECOND_HAND) and bool(quoted.removeprefix(_SECOND_HAND).strip())
    if quoted not in SOURCES and not second_hand:
        return f"quoted_from is '{quoted}'. Valid: {', '.join(SOURCES)}, or '{_SECOND_HAND}' and from where."
    if second_hand and row["checked"] == "yes":
        return "a second-hand number was not read in its source. Set checked to no, or quote the source."
    return ""


def _wrong_count(row: Mapping[str, str]) -> str:
    for name in _COUNTS:
        if row[name] and not (row[name].isdecimal() and int(row[name]) > 0):
            return f"{name} is '{row[name]}'. Valid: a whole number above 0, or empty."
    if not (row["year"].isdecimal() and len(row["year"]) == 4):
        return f"year is '{row['year']}'. Valid: four digits."
    return ""


def _wrong_value(row: Mapping[str, str]) -> str:
    text, reason = row["value"], row["value_reason"]
    if not text:
        return "" if reason.strip() else "value is empty without a reason. Say in value_reason why."
    if reason:
        return f"value is {text} and value_reason says '{reason}'. Only one of them may be given."
    try:
        value = float(text)
    except ValueError:
        return f"value is '{text}'. Valid: a number without its unit."
    low, high = UNITS[row["unit"]]
    if not (math.isfinite(value) and low <= value <= high):
        return f"value is {text}. Valid in {row['unit']}: {low:g} to {high:g}."
    return ""


def _frame(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    table = pd.DataFrame({name: [row[name] for row in rows] for name in COLUMNS}, dtype="str")
    table["year"] = [int(row["year"]) for row in rows]
    table["value"] = [float(row["value"]) if row["value"] else math.nan for row in rows]
    table["checked"] = [row["checked"] == "yes" for row in rows]
    for name in _COUNTS:
        counts = [int(row[name]) if row[name] else pd.NA for row in rows]
        table[name] = pd.array(counts, dtype="Int64")
    return table
