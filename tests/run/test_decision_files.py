"""A file of decisions says whose it is, and is refused under another's name."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.contracts import Decided
from bench.errors import DataError
from bench.run import decision_files, decisions
from bench.run.spec import Cell, RunSpec

CELL = Cell("fawkes", "jpeg", "iresnet", "nn", 0)
SPEC = RunSpec(dataset="lfw", identities=20)
NAME = decision_files.name_of(CELL, SPEC)


def artefact(rows=2):
    frame = pd.DataFrame(
        {
            "fold": np.zeros(rows, np.int16),
            "identity": ["a"] * rows,
            "image": [f"a{i}" for i in range(rows)],
            "protected": [True] * rows,
            "predicted": ["a"] * rows,
            "correct": [True] * rows,
            "score": np.full(rows, 0.25, np.float32),
            "margin": np.full(rows, np.nan, np.float32),
        }
    )
    return decisions.to_bytes(Decided(frame))


def test_a_name_changes_no_row_and_is_the_same_bytes_each_time():
    made = artefact()
    file = decision_files.to_bytes(made, NAME)
    assert file == decision_files.to_bytes(made, dict(reversed(NAME.items())))
    read, plain = decision_files.from_bytes(file, "cell.parquet", NAME), decisions.from_bytes(made)
    pd.testing.assert_frame_equal(read.rows, plain.rows)
    assert read.conditions == plain.conditions
    one, other = (pq.read_table(io.BytesIO(data)) for data in (file, made))
    assert one.schema.equals(other.schema, check_metadata=False)
    assert [str(field.metadata) for field in one.schema] == [str(field.metadata) for field in other.schema]


@pytest.mark.parametrize(
    ("cell", "spec"),
    [
        *((CELL._replace(**{field: "other"}), SPEC) for field in Cell._fields[:-1]),
        (CELL._replace(seed=1), SPEC),
        (CELL, SPEC.model_copy(update={"dataset": "synthetic"})),
        (CELL, SPEC.model_copy(update={"protocol": "verification"})),
        (CELL, SPEC.model_copy(update={"split_seed": 7})),
        (CELL, SPEC.model_copy(update={"identities": 21})),
    ],
)
def test_every_part_of_a_name_tells_two_cells_apart(cell, spec):
    file, name = decision_files.to_bytes(artefact(), NAME), decision_files.name_of(cell, spec)
    with pytest.raises(DataError, match=r"cell.parquet holds the decisions of fawkes × .* changed places"):
        decision_files.from_bytes(file, "cell.parquet", name)
    assert not decision_files.is_of(file, artefact(), name)


def test_what_else_a_run_crosses_is_no_part_of_a_cells_name():
    larger = SPEC.model_copy(update={"attacks": ("fawkes", "lowkey"), "seeds": (0, 1)})
    assert decision_files.name_of(CELL, larger) == NAME


def test_a_file_is_that_of_its_artefact_with_its_name_or_without_any():
    made = artefact()
    file = decision_files.to_bytes(made, NAME)
    assert decision_files.is_of(file, made, NAME)
    assert decision_files.is_of(made, made, NAME)
    assert not decision_files.is_of(file, artefact(3), NAME)
    pd.testing.assert_frame_equal(
        decision_files.from_bytes(made, "old.parquet", NAME).rows, decisions.from_bytes(made).rows
    )


def test_a_name_that_is_none_is_damage():
    table = pq.read_table(io.BytesIO(artefact()))
    table = table.replace_schema_metadata({**table.schema.metadata, b"cloakbench.cell": b"\xff{"})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    with pytest.raises(DataError, match="names its cell in no way that can be read"):
        decision_files.from_bytes(sink.getvalue(), "cell.parquet", NAME)


# -- files of strangers ------------------------------------------------------------------------------------------


def with_metadata(data, **fields):
    table, sink = pq.read_table(io.BytesIO(data)), io.BytesIO()
    more = {f"cloakbench.{name}".encode(): value for name, value in fields.items()}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **more}), sink)
    return sink.getvalue()


@pytest.mark.parametrize("field", ["cell", "conditions"])
def test_metadata_that_are_nested_without_end_are_no_crash(field):
    data = with_metadata(artefact(), **{field: b"[" * 200_000})
    with pytest.raises(DataError, match=r"^cell\.parquet (names its cell|holds no decisions)"):
        decision_files.from_bytes(data, "cell.parquet", NAME)


@pytest.mark.parametrize(("limit", "size"), [("MOST_ROWS", 3), ("MOST_BYTES", 100), ("_MOST_GROUPS", 0)])
def test_files_are_too_large_by_what_they_say_of_themselves(monkeypatch, limit, size):
    files = {"a.parquet": artefact(2), "b.parquet": artefact(2)}
    decision_files.check_sizes(files)
    monkeypatch.setattr(decision_files, limit, size)
    with pytest.raises(DataError, match=r"\.parquet is too large: all decisions that are read here have"):
        decision_files.check_sizes(files)


def test_few_bytes_may_stand_for_many_rows():
    sink = io.BytesIO()
    pq.write_table(pa.table({"score": pa.nulls(25_000_000, pa.float32())}), sink, compression="zstd")
    assert len(sink.getvalue()) < 100_000
    with pytest.raises(DataError, match="is too large"):
        decision_files.check_sizes({"a.parquet": sink.getvalue()})


def test_no_parquet_file_has_no_size():
    with pytest.raises(DataError, match=r"^a\.parquet is not a Parquet file"):
        decision_files.check_sizes({"a.parquet": b"PAR1"})
