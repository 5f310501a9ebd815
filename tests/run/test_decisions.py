import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bench.contracts import ConditionFacts, Decided
from bench.errors import DataError
from bench.run import decisions


def rows():
    return pd.DataFrame(
        {
            "fold": np.array([0, 0, 1, 1], dtype=np.int16),
            "identity": ["a", "b", "a", "b"],
            "image": ["a1", "b1", "a1", "b1"],
            "protected": [True, False, False, True],
            "predicted": ["b", "b", "a", None],
            "correct": [False, True, True, False],
            "score": np.array([0.1, 1 / 3, 0.9, np.nan], dtype=np.float32),
            "margin": np.array([-0.2, 1e-9, np.nan, np.nan], dtype=np.float32),
        }
    )


def test_every_field_is_described_and_names_are_dictionary_encoded():
    assert decisions.SCHEMA.names == [
        "condition",
        "fold",
        "identity",
        "image",
        "reference",
        "protected",
        "predicted",
        "correct",
        "score",
        "margin",
    ]
    for field in decisions.SCHEMA:
        assert len(field.metadata[b"description"]) > 20
    encoded = [field.name for field in decisions.SCHEMA if pa.types.is_dictionary(field.type)]
    assert encoded == ["condition", "identity", "image", "reference", "predicted"]


def test_a_table_has_the_schema_with_its_descriptions():
    table = decisions.to_table(rows())
    assert table.schema.equals(decisions.SCHEMA, check_metadata=True)
    assert table.column("margin").null_count == 2
    assert table.column("predicted").to_pylist() == ["b", "b", "a", None]


def test_rows_survive_bytes_and_nothing_is_rounded():
    back = decisions.from_bytes(decisions.to_bytes(Decided(rows()))).rows
    assert (back.pop("condition") == "").all()
    assert back.pop("reference").isna().all()
    pd.testing.assert_frame_equal(back, rows(), check_dtype=False)
    assert back["score"].dtype == np.float32
    np.testing.assert_array_equal(back["score"], rows()["score"])
    assert back["fold"].dtype == np.int16
    assert back["predicted"].isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize("seed", range(4))
def test_the_same_rows_in_any_order_are_the_same_bytes(seed):
    shuffled = rows().sample(frac=1, random_state=seed)
    shuffled = shuffled[shuffled.columns[::-1]].astype({"identity": "category"})
    assert decisions.to_bytes(Decided(shuffled)) == decisions.to_bytes(Decided(rows()))


def test_the_bytes_hold_no_trace_of_pandas_or_the_clock():
    import io

    import pyarrow.parquet as pq

    metadata = pq.read_metadata(io.BytesIO(decisions.to_bytes(Decided(rows())))).metadata
    assert set(metadata) == {b"cloakbench.decisions", b"cloakbench.conditions", b"ARROW:schema"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": None}, "has columns"),
        ({"extra": 1}, "extra"),
        ({"fold": np.arange(4)}, "'fold' of decisions is int64, expected int16"),
        ({"score": np.zeros(4)}, "'score' of decisions is float64, expected float32"),
        ({"image": [1, 2, 3, 4]}, "'image' of decisions holds integer"),
        ({"identity": ["a", None, "a", "b"]}, "'identity' of decisions has empty values"),
        ({"fold": np.array([-1, 0, 1, 1], dtype=np.int16)}, "folds count from 0"),
        ({"image": "a1", "identity": "a", "fold": np.int16(0)}, "two decisions for image 'a1' in fold 0"),
        ({"correct": [True] * 4}, "'correct' of decisions contradicts"),
        ({"score": np.full(4, np.nan, dtype=np.float32)}, "'score' of decisions is empty where"),
        ({"condition": "rank 5"}, "have the condition 'rank 5', of which the protocol says nothing"),
    ],
)
def test_what_is_not_decisions_is_refused(change, message):
    wrong = rows()
    for name, value in change.items():
        wrong = wrong.drop(columns=name) if value is None else wrong.assign(**{name: value})
    with pytest.raises(DataError, match=message):
        decisions.to_bytes(Decided(wrong))


def test_a_file_is_read_back(tmp_path):
    path = tmp_path / "cell.parquet"
    path.write_bytes(decisions.to_bytes(Decided(rows())))
    pd.testing.assert_frame_equal(decisions.read(path).rows, decisions.from_bytes(path.read_bytes()).rows)


def test_conditions_keep_their_facts_and_order():
    facts = {"rank 5": ConditionFacts(), "FAR 1 %": ConditionFacts(threshold=0.25, rate_wanted=0.01, pairs=7)}
    facts["impersonation"] = ConditionFacts(reason="the attack imitates nobody")
    twice = pd.concat([rows().assign(condition=name) for name in list(facts)[:2]])
    back = decisions.from_bytes(decisions.to_bytes(Decided(twice, facts)))
    assert list(back.conditions.items()) == list(facts.items())
    assert back.rows["condition"].value_counts().to_dict() == {"rank 5": 4, "FAR 1 %": 4}


def test_a_refusal_is_right_for_an_impostor_and_wrong_for_the_person():
    refused = rows().assign(predicted=None, correct=[True, False, True, False])
    back = decisions.from_bytes(decisions.to_bytes(Decided(refused))).rows
    expected = refused.sort_values(["fold", "identity", "image"])["correct"].tolist()
    assert back["correct"].tolist() == expected


def test_a_file_that_is_not_decisions_is_refused_by_name(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "cell.parquet"
    with pytest.raises(DataError, match=r"cannot read decisions from .*cell\.parquet"):
        decisions.read(path)
    path.write_bytes(decisions.to_bytes(Decided(rows()))[:-20])
    with pytest.raises(DataError, match=r"cell\.parquet is not a Parquet file"):
        decisions.read(path)
    table = decisions.to_table(rows())
    pq.write_table(table.replace_schema_metadata({"cloakbench.decisions": "0"}), path)
    with pytest.raises(DataError, match="schema version 0, this version reads 2"):
        decisions.read(path)
    pq.write_table(table.drop_columns(["margin"]), path)
    with pytest.raises(DataError, match="has the columns"):
        decisions.read(path)
