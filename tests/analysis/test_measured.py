"""Cells measured by the numbers that stand for names, against groups of rows as pandas counts them."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.measured import Reader, of_rows
from bench.contracts import ConditionFacts, Decided
from bench.errors import DataError
from bench.run import decisions

NAMES = ("zoë", "ann", "b,c", "Ann")


@st.composite
def cells(draw):
    """Draw a cell's decisions: several conditions and rotations, ties, refusals, identities without a probe in some."""
    rows = []
    for condition in draw(st.sampled_from([("",), ("b", "a")])):
        compared = draw(st.booleans())
        for fold in range(draw(st.integers(1, 3))):
            for name in NAMES:
                protected = draw(st.booleans())
                for photo in range(draw(st.integers(0, 3))):
                    answer = draw(st.sampled_from([name, "someone", None]))
                    right = answer == name if answer is not None else draw(st.booleans())
                    score = draw(st.sampled_from([0.25, 0.5])) if answer is not None else np.nan
                    other = draw(st.sampled_from([None, "p1", "p2"])) if compared else None
                    rows.append(
                        (condition, fold, name, f"{name}{photo}", other, protected, answer, right, score)
                    )
    names = (
        *("condition", "fold", "identity", "image", "reference"),
        *("protected", "predicted", "correct", "score"),
    )
    frame = pd.DataFrame(rows, columns=names).astype({"fold": np.int16, "score": np.float32})
    frame = frame.astype({"protected": bool, "correct": bool}).assign(margin=np.float32(0))
    return frame.sample(frac=1, random_state=draw(st.integers(0, 9))).reset_index(drop=True)


def stored(rows):
    conditions = {str(name): ConditionFacts() for name in rows["condition"].unique()}
    return decisions.to_bytes(Decided(rows, conditions))


def groups_among(rows, names):
    """Return the sets of identities that a chain of shared photos joins."""
    found = [{name} for name in names]
    for _, some in rows.dropna(subset=["reference"]).groupby("reference"):
        met = set(some["identity"])
        found = [one for one in found if not one & met] + [set.union(*(one for one in found if one & met))]
    return {frozenset(one) for one in found}


@settings(max_examples=80, deadline=None)
@given(cells())
def test_measures_are_those_of_grouped_rows(rows):
    read = dict(Reader().by_condition(decisions.coded_from_bytes(stored(rows))))
    assert set(read) == set(rows["condition"])
    for name, own in rows.groupby("condition"):
        one, by = read[name], own.groupby("identity")
        pd.testing.assert_series_equal(
            one.identities["n_probes"], by["image"].nunique(), check_dtype=False, check_names=False
        )
        wrong = (~own["correct"])[own["protected"]].groupby(own["identity"]).mean()
        right = own["correct"][~own["protected"]].groupby(own["identity"]).mean()
        order = sorted(own["identity"].unique())
        assert list(one.identities.index) == order
        np.testing.assert_allclose(one.asr, wrong.reindex(order).astype(float))
        np.testing.assert_allclose(one.normal_accuracy, right.reindex(order).astype(float))
        assert one.summary.n_identities == len(order)
        assert one.summary.asr.value == (pytest.approx(wrong.mean()) if len(wrong) else None)
        assert one.summary.normal_accuracy.value == (pytest.approx(right.mean()) if len(right) else None)
        known = own["score"].dropna()
        assert (one.answers, one.spread) == (len(known), known.max() - known.min() if len(known) else 0)
        labels = pd.Series(one.groups, index=order)
        assert {frozenset(some.index) for _, some in labels.groupby(labels)} == groups_among(own, order)
        assert bool(one.dependence) == (labels.nunique() < len(order))


@settings(max_examples=30, deadline=None)
@given(cells())
def test_a_frame_of_strings_is_measured_the_same(rows):
    data = stored(rows)
    read = dict(Reader().by_condition(decisions.coded_from_bytes(data)))
    plain = dict(of_rows(decisions.from_bytes(data).rows))
    assert set(read) == set(plain)
    for name, one in read.items():
        pd.testing.assert_frame_equal(one.identities, plain[name].identities)
        assert repr(one.summary) == repr(plain[name].summary)
        assert (one.groups == plain[name].groups).all()
        assert (one.answers, one.spread) == (plain[name].answers, plain[name].spread)


def four_rows(**changes):
    rows = {
        "condition": "",
        "fold": np.int16(0),
        "identity": ["b", "a", "b", "a"],
        "reference": None,
        "image": ["b0", "a0", "b1", "a1"],
        "protected": True,
        "predicted": ["b", "b", None, "a"],
        "correct": [True, False, False, True],
        "score": np.float32(0.5),
        "margin": np.float32(0),
    }
    return pd.DataFrame({**rows, **changes})


def test_names_that_a_stranger_s_file_lists_twice_are_one():
    table = pq.read_table(io.BytesIO(stored(four_rows())))
    twice = pa.DictionaryArray.from_arrays(pa.array([2, 0, 1, 3], pa.int32()), pa.array(["b", "a", "a", "b"]))
    changed = table.set_column(2, decisions.SCHEMA.field("identity"), twice)
    coded = decisions.CodedTable.of(changed)
    names, codes = coded.names["identity"], coded.codes["identity"]
    assert [names[code] for code in codes] == twice.to_pylist()
    assert sorted(names) == ["a", "b"]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("image", ["a0", "a0", "b0", "b1"], r"two decisions for image 'a0' in fold 0"),
        ("correct", [True, True, True, False], r"'correct' of cell contradicts"),
        ("score", [np.nan] * 4, r"'score' of cell is empty where"),
        ("fold", [-1, 0, 0, 0], r"'fold' of cell has -1"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(column, values, message):
    table = pq.read_table(io.BytesIO(stored(four_rows())))
    field = decisions.SCHEMA.field(column)
    kind = pa.string() if column == "image" else field.type
    array = pa.array(values, type=kind, from_pandas=True)
    if column == "image":
        array = array.dictionary_encode()
    sink = io.BytesIO()
    pq.write_table(table.set_column(table.schema.get_field_index(column), field, array), sink)
    with pytest.raises(DataError, match=message):
        decisions.coded_from_bytes(sink.getvalue(), "cell")
