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
from bench.run.digest import digest
from bench.run.spec import Cell, RunSpec

Name = Mapping[str, Any]
"""What tells a cell from every other: the fields of `Cell`, protocol, and ``faces``, the digest of whose faces."""

_FIELD = b"cloakbench.cell"


def name_of(cell: Cell, spec: RunSpec) -> Name:
    """Return a cell's name.

    Args:
        cell: of a run.
        spec: the run's, in canonical form.
    """
    faces = digest(
        [spec.dataset, spec.split_seed, spec.identities]
    )  # a dataset's text may say where photos lie
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
    decided = decisions.from_bytes(data, source)
    found = _name_in(data, source)
    if found is not None and found != {**name}:
        raise DataError(
            f"{source} holds the decisions of {_called(found, name)} and is named as those of {_called(name, found)}: "
            "files changed places, or cells.json or spec.json were changed. `bench verify` says what else is; run the "
            "same command again to write it anew."
        )
    return decided


def is_of(data: bytes, artefact: bytes, name: Name) -> bool:
    """Return whether a file holds exactly an artefact, with the cell's name or, of an older run, without any."""
    return data in (artefact, to_bytes(artefact, name))


def _name_in(data: bytes, source: str) -> dict[str, Any] | None:
    """Return the name in a Parquet file, None where it has none."""
    import pyarrow.parquet as pq

    text = pq.read_schema(io.BytesIO(data)).metadata.get(_FIELD)
    if text is None:
        return None
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataError(f"{source} names its cell in no way that can be read ({error}).") from None


def _called(name: Name, other: Name) -> str:
    """Return a cell as messages name it, with what else tells it from another."""
    parts = [str(name.get(part)) for part in Cell._fields[:-1]]
    parts.append(f"seed {name.get('seed')}")
    further = sorted({*name, *other} - {*Cell._fields})
    parts += [f"{part} {name.get(part)}" for part in further if name.get(part) != other.get(part)]
    return printable(" × ".join(parts), 400)
