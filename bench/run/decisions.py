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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

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
_DTYPES = {field.name: field.type.to_pandas_dtype() for field in SCHEMA if field.type != _NAME}


_PLAIN = pa.schema([pa.field(f.name, pa.string() if f.name in _NAMES else f.type) for f in SCHEMA])

_FACTS = b"cloakbench.conditions"
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
    _check_sense(table.cast(_PLAIN), "decisions")
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
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
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
    for field in SCHEMA:
        if not field.nullable and table[field.name].null_count:
            raise DataError(f"column '{field.name}' of {source} has empty values; every row needs one.")
    plain = table.cast(_PLAIN)
    _check_sense(plain, source)
    decisions: pd.DataFrame = plain.to_pandas()
    try:
        facts = json.loads(table.schema.metadata[_FACTS])
        return Decided(decisions, {name: ConditionFacts.model_validate(fact) for name, fact in facts.items()})
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


def _check_sense(table: Any, source: str) -> None:
    """Raise DataError where rows of an Arrow table, names as plain strings, contradict themselves."""
    import pyarrow.compute as pc

    fold = table["fold"].to_numpy()
    if (fold < 0).any():
        raise DataError(f"column 'fold' of {source} has {fold.min()}; folds count from 0.")
    codes = {name: _codes(table[name]) for name in _NAMES}
    place = fold.astype(np.int64)
    for name in KEY:
        if name != "fold":
            place = np.unique(
                place * (codes[name].max(initial=0) + 2) + codes[name] + 1, return_inverse=True
            )[1]
    first = np.unique(place, return_index=True)[1]
    if len(first) < len(place):
        row = int(np.setdiff1d(np.arange(len(place)), first)[0])
        raise DataError(f"{source} has two decisions for image '{table['image'][row]}' in fold {fold[row]}.")
    # A refusal is right for an impostor and wrong for the identity; an answer speaks for itself.
    answered = codes["predicted"] >= 0
    agrees = pc.fill_null(pc.equal(table["predicted"], table["identity"]), fill_value=False).to_numpy()
    if (answered & (agrees != table["correct"].to_numpy())).any():
        raise DataError(f"column 'correct' of {source} contradicts 'identity' and 'predicted'.")
    if (answered & pc.is_null(table["score"], nan_is_null=True).to_numpy()).any():
        raise DataError(f"column 'score' of {source} is empty where 'predicted' has an answer.")


def _codes(names: Any) -> Any:
    """Return a number for each name, the same for the same; −1 for none."""
    encoded = names.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
