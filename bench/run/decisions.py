"""Decisions: the rows every table, figure and test is made from.

What lives here: the documented Arrow schema, and the way from a data frame to bytes and back. What must
not: any measure (`bench.stats.rates`) and any writing to disk (the store does that).

A decision is the tracker's answer for one probe in one rotation of one cell, under one condition where the
protocol asks several questions. One Parquet file holds the decisions of one cell, sorted by `KEY`, so that
the same rows are the same bytes; what is known of each condition travels in its metadata.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from bench.contracts import ConditionFacts, Decided
from bench.errors import DataError

VERSION = b"2"
"""Version of the schema; files of another version are refused."""

_NAME = pa.dictionary(pa.int32(), pa.string())


def _field(name: str, kind: Any, description: str, *, nullable: bool = False) -> Any:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


SCHEMA = pa.schema(
    [
        _field("condition", _NAME, "which of the protocol's questions; the empty text where it has one"),
        _field("fold", pa.int16(), "rotation, from 0; one fold of identities is protected in each"),
        _field("identity", _NAME, "identity id of the identity on the probe"),
        _field("image", _NAME, "image id of the probe"),
        _field(
            "reference",
            _NAME,
            "image id of the photo it was compared with; empty where the answer is of the whole gallery",
            nullable=True,
        ),
        _field("protected", pa.bool_(), "whether the identity's gallery photos are cloaked in this rotation"),
        _field(
            "predicted",
            _NAME,
            "identity id the tracker answers or accepts; empty where it refuses, or a defence left it no gallery "
            "photo at all",
            nullable=True,
        ),
        _field(
            "correct",
            pa.bool_(),
            "whether the answer is right: the identity recognised or, where the probe shows another, not accepted",
        ),
        _field(
            "score",
            pa.float32(),
            "score of the answer: cosine in [-1, 1] for nn, centroid and pair, probability in [0, 1] for linear "
            "and finetune; empty where there was nothing to compare with",
            nullable=True,
        ),
        _field(
            "margin",
            pa.float32(),
            "best score of the true identity minus best score of any other (of one pair: minus the threshold), same "
            "unit as score; empty where the true identity, or every other, has no gallery photo left",
            nullable=True,
        ),
    ],
    metadata={"cloakbench.decisions": VERSION},
)
"""One row a decision; each field's metadata has its `description`."""

KEY = ("condition", "fold", "identity", "image", "reference")
"""Columns that name a row; rows are sorted by them."""

_NAMES = tuple(field.name for field in SCHEMA if field.type == _NAME)
_FULL = tuple(field.name for field in SCHEMA if not field.nullable)
_DTYPES = {field.name: field.type.to_pandas_dtype() for field in SCHEMA if field.type != _NAME}


_PLAIN = pa.schema([pa.field(f.name, pa.string() if f.name in _NAMES else f.type) for f in SCHEMA])

Codes = NDArray[np.int64]

_FACTS = b"cloakbench.conditions"
_THREADS_PAY = 200_000  # rows; reading a small file on several threads costs more than it saves
_OPTIONAL = {"condition": "", "reference": None}


def to_table(decisions: pd.DataFrame) -> Any:
    """Return the rows as an Arrow table of `SCHEMA`, sorted by `KEY`.

    Numbers are taken as they are: a column of another dtype than the schema's is refused, never cast. NaN
    in `score` and `margin` becomes null.

    Args:
        decisions: one row a decision, the columns of `SCHEMA` in any order; `condition` and `reference` may
            be left out by a protocol that has none.

    Raises:
        DataError: a column is missing, not known, of another type, has an empty value where there must be
            one, or the rows contradict themselves.
    """
    decisions = decisions.assign(**{k: v for k, v in _OPTIONAL.items() if k not in decisions.columns})
    _check(decisions, "decisions")
    ordered = decisions.sort_values(list(KEY), kind="stable")
    arrays = [
        _dictionary(ordered[field.name])
        if field.name in _NAMES
        else pa.array(ordered[field.name].to_numpy(), type=field.type, from_pandas=field.nullable)
        for field in SCHEMA
    ]
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    _check_sense(CodedTable.of(table), "decisions")
    return table


def to_bytes(decided: Decided) -> bytes:
    """Return answers as a Parquet file; the same rows in any order give the same bytes.

    Raises:
        DataError: see `to_table`; or a condition has rows and no facts.
    """
    import pyarrow.parquet as pq

    table = to_table(decided.rows)
    unknown = set(table["condition"].unique().to_pylist()) - set(decided.conditions)
    if unknown:
        raise DataError(
            f"decisions have the condition '{min(unknown)}', of which the protocol says nothing; it names "
            f"{', '.join(map(repr, decided.conditions)) or 'none'}."
        )
    facts = {name: fact.model_dump(exclude_defaults=True) for name, fact in decided.conditions.items()}
    table = table.replace_schema_metadata(
        {**table.schema.metadata, _FACTS: json.dumps(facts).encode()}  # in the protocol's order
    )
    sink = io.BytesIO()
    # Names repeat in every rotation; scores hardly ever do.
    pq.write_table(table, sink, compression="zstd", use_dictionary=["fold", *_NAMES])
    return sink.getvalue()


def from_bytes(data: bytes, source: str = "decisions") -> Decided:
    """Return the answers in a Parquet file made by `to_bytes`, names as plain strings.

    Args:
        data: the file's content.
        source: what to call it in an error.

    Raises:
        DataError: it is not a Parquet file, has another schema or version, or contradicts itself.
    """
    return decided_of(coded_from_bytes(data, source), source)


@dataclass(frozen=True)
class CodedTable:
    """The answers in a file, each name a number that stands for it.

    Attributes:
        table: Arrow table of `SCHEMA`, one chunk a column.
        names: of each column of names, its different names, some perhaps in no row.
        codes: of each, the place of every row's name among them, −1 for none.
    """

    table: Any
    names: Mapping[str, tuple[str, ...]]
    codes: Mapping[str, Codes]

    @classmethod
    def of(cls, table: Any) -> CodedTable:
        """Return a table so; its columns of names may have a dictionary or none."""
        found = {name: _coded(table[name]) for name in _NAMES}
        return cls(
            table, {k: one for k, (one, _) in found.items()}, {k: one for k, (_, one) in found.items()}
        )


def decided_of(coded: CodedTable, source: str = "decisions") -> Decided:
    """Return the answers of `coded_from_bytes`, names as plain strings.

    Raises:
        DataError: it lacks the facts of its conditions.
    """
    decisions: pd.DataFrame = coded.table.cast(_PLAIN).to_pandas()
    return Decided(decisions, conditions_of(coded, source))


def coded_from_bytes(data: bytes, source: str = "decisions") -> CodedTable:
    """Return the answers in a Parquet file, names as the numbers that stand for them.

    Every check of `from_bytes` is made; a frame of strings takes longer to make than all of them.

    Args:
        data: the file's content.
        source: what to call it in an error.

    Raises:
        DataError: it is not a Parquet file, has another schema or version, or contradicts itself.
    """
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        table = file.read(use_threads=file.metadata.num_rows > _THREADS_PAY).combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{source} is not a Parquet file ({error}). Delete it and run again.") from error
    found = (table.schema.metadata or {}).get(b"cloakbench.decisions", b"none")
    if found != VERSION:
        raise DataError(
            f"{source} has decisions of schema version {found.decode()}, this version reads "
            f"{VERSION.decode()}. Run the cell again."
        )
    if not table.schema.equals(SCHEMA, check_metadata=False):
        raise DataError(f"{source} has the columns\n{table.schema}\nexpected\n{SCHEMA}. Run the cell again.")
    for name in _FULL:
        if table[name].null_count:
            raise DataError(f"column '{name}' of {source} has empty values; every row needs one.")
    coded = CodedTable.of(table)
    _check_sense(coded, source)
    return coded


def conditions_of(coded: CodedTable, source: str = "decisions") -> dict[str, ConditionFacts]:
    """Return what a file says of each condition, in the protocol's order.

    Raises:
        DataError: it says nothing, or nothing that can be read.
    """
    try:
        facts = json.loads(coded.table.schema.metadata[_FACTS])
        return {name: ConditionFacts.model_validate(fact) for name, fact in facts.items()}
    except RecursionError as error:
        raise DataError(f"{source} holds no decisions that can be read ({type(error).__name__}).") from error
    except (KeyError, ValueError, AttributeError) as error:
        raise DataError(
            f"{source} lacks the facts of its conditions ({error}). Run the cell again."
        ) from error


def read(path: Path) -> Decided:
    """Return the decisions in a file; raises DataError where it is missing or not valid."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read decisions from {path}: {error.strerror}.") from error
    return from_bytes(data, str(path))


def _dictionary(names: pd.Series[Any]) -> Any:
    """Return a dictionary array whose dictionary is sorted, so that it depends on the rows only."""
    codes, values = pd.factorize(names.astype(object), sort=True)
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(values), type=pa.string()))


def _check(decisions: pd.DataFrame, source: str) -> None:
    """Raise DataError unless the frame has the columns and types of `SCHEMA`."""
    if sorted(decisions.columns) != sorted(SCHEMA.names):
        there = ", ".join(map(str, decisions.columns))
        raise DataError(f"{source} has columns {there}; expected {', '.join(SCHEMA.names)}.")
    for name, dtype in _DTYPES.items():
        if decisions[name].dtype != dtype:
            there = decisions[name].dtype
            raise DataError(f"column '{name}' of {source} is {there}, expected {np.dtype(dtype)}.")
    for name in _NAMES:
        kind = pd.api.types.infer_dtype(decisions[name], skipna=True)
        if kind not in ("string", "categorical", "empty"):
            raise DataError(f"column '{name}' of {source} holds {kind} values, expected strings.")
        if not SCHEMA.field(name).nullable and decisions[name].isna().any():
            raise DataError(f"column '{name}' of {source} has empty values; every row needs one.")


def _coded(names: Any) -> tuple[tuple[str, ...], Codes]:
    """Return the different names of a column, and of each row the place of its name among them, −1 for none."""
    column = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    found = tuple(column.dictionary.to_pylist())
    if len(set(found)) < len(found) or None in found:  # no writer of ours does that
        column = column.dictionary_decode().dictionary_encode()
        found = tuple(column.dictionary.to_pylist())
    indices = column.indices.fill_null(-1) if column.null_count else column.indices
    return found, indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _check_sense(coded: CodedTable, source: str) -> None:
    """Raise DataError where rows contradict themselves."""
    table, codes = coded.table, coded.codes
    fold = table["fold"].to_numpy()
    if (fold < 0).any():
        raise DataError(f"column 'fold' of {source} has {fold.min()}; folds count from 0.")
    row = _second_of_two({k: fold.astype(np.int64) if k == "fold" else codes[k] for k in KEY})
    if row is not None:
        raise DataError(f"{source} has two decisions for image '{table['image'][row]}' in fold {fold[row]}.")
    # A refusal is right for an impostor and wrong for the identity; an answer speaks for itself.
    place = {name: code for code, name in enumerate(coded.names["identity"])}
    same = np.array([place.get(name, -1) for name in coded.names["predicted"]], dtype=np.int64)
    answered = codes["predicted"] >= 0
    agrees = same[codes["predicted"][answered]] == codes["identity"][answered]
    if (agrees != table["correct"].to_numpy()[answered]).any():
        raise DataError(f"column 'correct' of {source} contradicts 'identity' and 'predicted'.")
    if np.isnan(table["score"].to_numpy()[answered]).any():
        raise DataError(f"column 'score' of {source} is empty where 'predicted' has an answer.")


def _second_of_two(columns: Mapping[str, Codes]) -> int | None:
    """Return the first row whose key an earlier row has, None where every row has its own.

    Args:
        columns: the columns of `KEY` in that order as whole numbers from −1.
    """
    place, most = np.zeros(1, dtype=np.int64), 1
    for codes in columns.values():
        values = int(codes.max(initial=-1)) + 2
        if most * values > np.iinfo(np.int64).max:
            place = np.unique(place, return_inverse=True)[1]
            most = len(place)
        place, most = place * values + codes + 1, most * values
    if (np.diff(place) > 0).all():  # as in files, whose rows are sorted by key
        return None
    first = np.unique(place, return_index=True)[1]
    return int(np.setdiff1d(np.arange(len(place)), first)[0]) if len(first) < len(place) else None
