"""A cell's decisions as a file of a run's folder: the artefact of the store, with the cell's name written into it.

The manifest can be written anew by whoever changes a file; a file that says whose it is cannot be taken for another's.
Stored artefacts hold no name: cells of two runs share them.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

from bench.contracts import Decided
from bench.errors import DataError
from bench.printable import printable
from bench.run import decisions
from bench.run.decisions import CodedTable
from bench.run.digest import digest
from bench.run.spec import Cell, RunSpec

Name = Mapping[str, Any]
"""What tells a cell from every other: the fields of `Cell`, protocol, and ``faces``, the digest of whose faces."""

_FIELD = b"cloakbench.cell"

MOST_ROWS = 20_000_000
"""Rows of all files of a stranger's run, which are held at once: a row takes some 200 bytes, all of them 4 GB."""

MOST_BYTES = 2_000_000_000
"""Bytes of all of them without compression, as their metadata state it."""

_MOST_GROUPS = 1000
"""Row groups of one file; a million rows are one."""


def name_of(cell: Cell, spec: RunSpec) -> Name:
    """Return a cell's name.

    Args:
        cell: of a run.
        spec: the run's, in canonical form.
    """
    split = [] if spec.split == "evaluation" else [spec.split]  # as files were named before there was another
    # A digest, as a dataset's text may say where photos lie.
    faces = digest([spec.dataset, spec.split_seed, spec.identities, *split])
    return {**cell._asdict(), "protocol": spec.protocol, "faces": faces[:16]}


def to_bytes(artefact: bytes, name: Name) -> bytes:
    """Return an artefact of the stage ``decide`` with a name in it; the same artefact and name give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(artefact))
    text = json.dumps(name, sort_keys=True)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _FIELD: text.encode()})
    names = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=["fold", *names])
    return sink.getvalue()


def from_bytes(data: bytes, source: str, name: Name) -> Decided:
    """Return the decisions in a file.

    Args:
        data: its content.
        source: what to call it in an error.
        name: of the cell it is to be of. Files of runs made before files had names are read as they are.

    Raises:
        DataError: they are another cell's, or no decisions.
    """
    return decisions.decided_of(coded_from_bytes(data, source, name), source)


def coded_from_bytes(data: bytes, source: str, name: Name) -> CodedTable:
    """Return the decisions in a file as `bench.run.decisions.coded_from_bytes` does; see `from_bytes`."""
    import pyarrow as pa

    try:
        coded = decisions.coded_from_bytes(data, source)
    except (RecursionError, pa.ArrowException) as error:
        raise DataError(f"{source} holds no decisions that can be read ({type(error).__name__}).") from None
    found = _name_in(coded.table.schema.metadata, source)
    if found is not None and found != {**name}:
        raise DataError(
            f"{source} holds the decisions of {_called(found, name)} and is named as those of {_called(name, found)}: "
            "files changed places, or cells.json or spec.json were changed. `bench verify` says what else is; run the "
            "same command again to write it anew."
        )
    return coded


def check_sizes(files: Mapping[str, bytes]) -> None:
    """Refuse files of which a few bytes unfold to more than a run has, before any is read.

    Args:
        files: name → content.

    Raises:
        DataError: a file is no Parquet file, or they are too large together.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = size = 0
    for name, data in files.items():
        try:
            found = pq.read_metadata(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{name} is not a Parquet file ({printable(str(error), 200)}).") from None
        groups = min(found.num_row_groups, _MOST_GROUPS + 1)
        rows += found.num_rows
        size += sum(found.row_group(each).total_byte_size for each in range(groups))
        if rows > MOST_ROWS or size > MOST_BYTES or groups > _MOST_GROUPS:
            raise DataError(
                f"{name} is too large: all decisions that are read here have {MOST_ROWS:,} rows and {MOST_BYTES:,} "
                f"bytes at most, and a file {_MOST_GROUPS:,} groups of rows."
            )


def is_of(data: bytes, artefact: bytes, name: Name) -> bool:
    """Return whether a file holds exactly an artefact, with the cell's name or, of an older run, without any."""
    return data in (artefact, to_bytes(artefact, name))


def _name_in(metadata: Mapping[bytes, bytes], source: str) -> dict[str, Any] | None:
    """Return the name in a Parquet file's metadata, None where it has none."""
    text = metadata.get(_FIELD)
    if text is None:
        return None
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{source} names its cell in no way that can be read ({error}).") from None


def _called(name: Name, other: Name) -> str:
    """Return a cell as messages name it, with what else tells it from another."""
    parts = [str(name.get(part)) for part in Cell._fields[:-1]]
    parts.append(f"seed {name.get('seed')}")
    further = sorted({*name, *other} - {*Cell._fields})
    parts += [f"{part} {name.get(part)}" for part in further if name.get(part) != other.get(part)]
    return printable(" × ".join(parts), 400)
