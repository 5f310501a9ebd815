"""What papers report, to be set beside our numbers: `results/literature.csv` as typed rows.

What lives here: the model of a row and the reader of a file. What must not: any use of these values in a rank, a test
or a mean. They were measured by others under other protocols; each row says in one sentence how its own differs.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.errors import DataError

UNITS: Mapping[str, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "percent": (0.0, 100.0),
    "percentage points": (-100.0, 100.0),
    "DSSIM": (0.0, 1.0),
}
"""Units of a value, and the range it may have in each (inclusive)."""

SECOND_HAND = "second-hand: "
"""How `quoted_from` begins where the number was not read in its source."""

_SHOWN_UNITS = {"percent": " %", "share": "", "percentage points": " points", "DSSIM": " DSSIM"}
_SHOWN_BOUNDS = {"exactly": "", "above": "> ", "at least": "≥ ", "below": "< "}
_DEFAULT = Path(__file__).parents[2] / "results" / "literature.csv"

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class PublishedNumber(BaseModel):
    """One number of one paper: a row of the table, whose columns are these fields in this order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(
        pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$",
        description="name of the row, unique; lower case, digits and hyphens",
    )
    paper: Text = Field(description="the paper's short name and title")
    year: int = Field(
        ge=1900, le=2100, description="year of the venue, or of the preprint where there is none"
    )
    venue: Text = Field(description="where it appeared")
    arxiv_or_doi: Text = Field(description="arXiv number, DOI or the venue's own identifier")
    where: Text = Field(description="which part of the source states the value")
    attack: Text = Field(description="what the photos were cloaked with, with version where the source says")
    defense: Text = Field(description="what the tracker did against it; none where nothing")
    tracker: Text = Field(description="what recognised: backbone and head, or the commercial service")
    dataset: Text = Field(description="whose photos")
    n_identities: int | None = Field(gt=0, description="identities the tracker knows; empty where not stated")
    n_protected: int | None = Field(
        gt=0, description="identities whose protection the value is measured on; empty where not stated"
    )
    protocol: Literal["tracker", "verification", "identification", "erasure", "image-quality"] = Field(
        description="the nearest of CloakBench's protocols, or image-quality"
    )
    metric: Text = Field(description="what was measured, in the source's word")
    bound: Literal["exactly", "above", "at least", "below"] = Field(
        description="what the source says of the value: 'over 72 %' is above, '95+ %' is at least"
    )
    value: float | None = Field(
        allow_inf_nan=False, description="as the source prints it, in the row's unit; empty with value_reason"
    )
    value_reason: str = Field(description="why value is empty")
    unit: Literal["share", "percent", "percentage points", "DSSIM"] = Field(description="of value, see UNITS")
    condition: Text = Field(description="under what condition the value was taken")
    quoted_from: str = Field(
        pattern=rf"^(paper|abstract|authors' repository|{SECOND_HAND}.*\S.*)$",
        description="paper, abstract, authors' repository, or second-hand: and from where",
    )
    checked: bool = Field(description="yes where it was read in the source itself, else no")
    source: Text = Field(description="address or file in which it was read")
    differs_from_ours: Text = Field(description="one sentence: how its protocol differs from CloakBench's")
    note: str = Field(description="what else a reader must know; may be empty")

    @field_validator("n_identities", "n_protected", "value", mode="before")
    @classmethod
    def _empty_is_missing(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("checked", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        if value not in ("yes", "no", True, False):
            raise ValueError("valid: yes, no")
        return value in ("yes", True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.value is None) != bool(self.value_reason.strip()):
            raise ValueError("value_reason: needed where value is empty, and only there")
        low, high = UNITS[self.unit]
        if self.value is not None and not low <= self.value <= high:
            raise ValueError(
                f"value: {self.value:g} is out of range. Valid in {self.unit}: {low:g} to {high:g}"
            )
        if self.checked and self.quoted_from.startswith(SECOND_HAND):
            raise ValueError(
                "checked: a second-hand number was not read in its source. Set no, or quote the source"
            )
        return self

    @property
    def text(self) -> str:
        """Return the value as it is printed: bound, number and unit, or NA with its reason."""
        if self.value is None:
            return f"NA: {self.value_reason}"
        return f"{_SHOWN_BOUNDS[self.bound]}{self.value:g}{_SHOWN_UNITS[self.unit]}"


COLUMNS: Mapping[str, str] = {
    name: field.description or "" for name, field in PublishedNumber.model_fields.items()
}
"""Every column of the table, in order, and what it holds."""


def load(path: Path | None = None) -> tuple[PublishedNumber, ...]:
    """Return the published numbers of a table, checked.

    Args:
        path: the CSV file; by default `results/literature.csv` of the checkout this package runs from. It is
            not part of an installed wheel, so give a path there.

    Raises:
        DataError: the file is absent or no UTF-8 CSV, has other columns than `COLUMNS`, or a cell is invalid; the
            message names file, line and column.
    """
    file = _DEFAULT if path is None else path
    found: dict[str, tuple[int, PublishedNumber]] = {}
    for line, row in _rows(file):
        number = _validated(file, line, row)
        if number.id in found:
            raise DataError(
                f"{file}, line {line}, id: '{number.id}' is already that of line {found[number.id][0]}. "
                "Give each row its own."
            )
        found[number.id] = line, number
    if not found:
        raise DataError(f"{file} has a header and no rows")
    return tuple(number for _, number in found.values())


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (number of the line a row ends on, column → cell), the header checked."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            rows = [(reader.line_num, cells) for cells in reader]
    except FileNotFoundError:
        raise DataError(
            f"there is no table of published numbers at {file}. Give the path of literature.csv; "
            "it lies in the repository's results/ and is not installed with the package."
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a UTF-8 CSV file: {error}") from error
    if header != list(COLUMNS):
        raise DataError(
            f"{file}, line 1: the columns are {', '.join(header) or 'none'}. "
            f"Valid, in this order: {', '.join(COLUMNS)}."
        )
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{file}, line {line}: {len(cells)} cells where the header has {len(header)}. "
                "Put a cell that holds a comma in double quotes."
            )
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in rows]


def _validated(file: Path, line: int, row: Mapping[str, str]) -> PublishedNumber:
    try:
        return PublishedNumber.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # A rule over several columns names its column itself.
        column = f", {first['loc'][0]}: '{row[str(first['loc'][0])]}'" if first["loc"] else ""
        problem = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{file}, line {line} ('{row['id']}'){column}: {problem}.") from error
