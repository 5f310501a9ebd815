"""What a run is to do: the matrix as text, and nothing about how it is executed.

Batch size, threads, device and folders are not part of it.
"""

import tomllib
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, field_validator, model_serializer

from bench.contracts import Frozen
from bench.errors import UsageError, unknown

BENCHMARK_VERSION = "1"
"""Raised when a change makes numbers incomparable with older ones."""

SplitName = Literal["evaluation", "development"]
"""Whom a run evaluates: the dataset's evaluation identities, or training identities in their place."""

DEVELOPMENT_NOTE = (
    "Development split: training identities are evaluated, to make choices on; no rate of it is a result."
)
"""What every table of a run on the development split says."""


class RunSpec(Frozen):
    """The matrix of a run.

    Each method is a text ``name:parameter=value,…``; `bench.run.resolve` brings them to their canonical form.
    """

    attacks: tuple[str, ...] = Field(("none",), description="attacks to cross")
    defenses: tuple[str, ...] = Field(("none",), description="defences to cross")
    backbones: tuple[str, ...] = Field(
        (), description="trackers' backbones; empty: the first group of the dataset's pool"
    )
    heads: tuple[str, ...] = Field((), description="heads of the tracker; empty: the protocol's first")
    dataset: str = Field("synthetic", description="dataset")
    protocol: str = Field("tracker", description="protocol")
    seeds: tuple[int, ...] = Field((0,), description="seeds of the methods' randomness")
    split: SplitName = Field(
        "evaluation",
        description="whom to evaluate: evaluation, or development, training identities on which choices are made",
    )
    split_seed: int = Field(0, ge=0, description="seed of splits, folds and of the choice of identities")
    identities: int | None = Field(
        None, ge=2, description="evaluate this many identities, drawn by split_seed"
    )

    @field_validator("attacks", "defenses", "seeds")
    @classmethod
    def _not_empty(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("at least one is needed")
        return value

    @model_serializer(mode="wrap")
    def _without_default_split(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the split out where it is the usual one, so that the digests of all runs before it hold."""
        found: dict[str, Any] = fields(self)
        if self.split == "evaluation":
            found.pop("split", None)
        return found


class Cell(NamedTuple):
    """One point of the matrix, in canonical texts; sorts in reading order."""

    attack: str
    defense: str
    backbone: str
    head: str
    seed: int


def load_suite(path: Path) -> dict[str, Any]:
    """Read a suite file (TOML with the fields of `RunSpec`).

    Raises:
        UsageError: not a file, not TOML, or an unknown key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the suite file '{path}' does not exist.") from None
    except OSError as error:
        raise UsageError(f"the suite file '{path}' cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the suite file '{path}' is not valid TOML: {error}.") from None
    for key in values:
        if key not in RunSpec.model_fields:
            raise unknown(f"key in {path.name}", key, RunSpec.model_fields)
    return values


def make_spec(values: dict[str, Any]) -> RunSpec:
    """Return the specification of the given fields.

    Raises:
        UsageError: a field has the wrong type or range.
    """
    try:
        return RunSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{field} cannot be {first['input']!r}: {first['msg'].lower()}.") from None


def cells(spec: RunSpec) -> tuple[tuple[Cell, ...], frozenset[Cell]]:
    """Return every cell of a resolved specification, and those among them that were requested.

    The reference cells none×none, attack×none and none×defence are always added: the table needs them to
    report the error rate without any cloak.
    """

    def cross(attacks: tuple[str, ...], defenses: tuple[str, ...]) -> list[Cell]:
        axes = product(attacks, defenses, spec.backbones, spec.heads, spec.seeds)
        return [Cell(*point) for point in axes]

    requested = cross(spec.attacks, spec.defenses)
    attacks = ("none", *(name for name in spec.attacks if name != "none"))
    defenses = ("none", *(name for name in spec.defenses if name != "none"))
    reference = cross(("none",), defenses) + cross(attacks, ("none",))
    return tuple(dict.fromkeys(reference + requested)), frozenset(requested)
