"""MXNet's files, written here by their description, whole and broken."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.mxnet_files import Symbol, read_arrays, read_symbols
from bench.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))

from foreign_files import V1, V2, V3, array_bytes, parameter_file

ARRAYS = {
    "arg:weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "aux:mean": np.array([1.5, -2.5], np.float64),
    "arg:half": np.array([0.5], np.float16),
    "arg:count": np.array([[-(2**40)]], np.int64),
}


@pytest.mark.parametrize("version", [0, V1, V2, V3])
def test_arrays_of_every_version_are_read_by_name(tmp_path, version):
    path = tmp_path / "net.params"
    path.write_bytes(parameter_file(ARRAYS, version))
    found = read_arrays(path)
    assert [*found] == ["weight", "mean", "half", "count"]
    for array, expected in zip(found.values(), ARRAYS.values(), strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_arrays_that_are_declared_to_be_none_are_left_out_and_a_number_is_kept(tmp_path):
    path = tmp_path / "net.params"
    nothing = {
        "a": struct.pack("<Iii", V2, 0, 0),
        "b": struct.pack("<I", 0),
        "c": struct.pack("<Iii", V3, 0, -1),
    }
    number = array_bytes(np.float32(7).reshape(()), V3)
    path.write_bytes(parameter_file(nothing | {"d": number}))
    assert {name: float(array) for name, array in read_arrays(path).items()} == {"d": 7}


HUGE = struct.pack("<Iii2q", V2, 0, 2, 2**40, 2**40) + struct.pack("<iii", 1, 0, 0)
LIES = {
    "another magic": struct.pack("<QQQ", 0x113, 0, 0),
    "more arrays than bytes": struct.pack("<QQQ", 0x112, 0, 2**60),
    "an array larger than the file": parameter_file({"a": HUGE}),
    "a negative side": parameter_file(
        {"a": struct.pack("<Iii2q", V2, 0, 2, -1, -8) + struct.pack("<iii", 1, 0, 0)}
    ),
    "too many sides": parameter_file({"a": struct.pack("<I", 99)}),
    "a sparse array": parameter_file({"a": struct.pack("<Ii", V2, 1)}),
    "an unknown type": parameter_file({"a": struct.pack("<III", 1, 0, 1) + struct.pack("<ii", 0, 12)}),
    "a name twice": parameter_file(ARRAYS, names=["x", "x", "y", "z"]),
    "one name for aux and arg": parameter_file(ARRAYS, names=["arg:x", "aux:x", "y", "z"]),
    "fewer names than arrays": parameter_file(ARRAYS, names=["x"]),
    "something after the end": parameter_file(ARRAYS) + b"x",
    "nothing": b"",
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_files_that_lie_are_refused_in_a_sentence(read_or_refuse, content):
    assert isinstance(read_or_refuse(read_arrays, content, "net.params"), DataError)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), version=st.sampled_from([0, V1, V2, V3]))
def test_whatever_becomes_of_a_parameter_file_it_is_read_or_refused(mutated, read_or_refuse, data, version):
    content = data.draw(mutated(parameter_file(ARRAYS, version)))
    found = read_or_refuse(read_arrays, content, "net.params")
    assert isinstance(found, DataError) or sum(array.nbytes for array in found.values()) <= len(content)


# -- graphs ----------------------------------------------------------------------------------------------------


def graph(**changes):
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "null", "name": "w", "attr": {"num_filter": "8"}, "inputs": []},
        {
            "op": "Convolution",
            "name": "conv",
            "attrs": {"kernel": "(3, 3)"},
            "inputs": [[0, 0, 0], [1, 0, 0]],
        },
        {"op": "Flatten", "name": "flat", "param": {}, "inputs": [[2, 0]]},
    ]
    return {"nodes": nodes, "arg_nodes": [0, 1], "heads": [[3, 0, 0]]} | changes


def test_a_graph_is_read_whatever_its_settings_are_called(tmp_path):
    path = tmp_path / "net-symbol.json"
    path.write_text(json.dumps(graph()))
    assert read_symbols(path) == (
        Symbol("null", "data", (), {}),
        Symbol("null", "w", (), {"num_filter": "8"}),
        Symbol("Convolution", "conv", (0, 1), {"kernel": "(3, 3)"}),
        Symbol("Flatten", "flat", (2,), {}),
    )


NODE = {"op": "Flatten", "name": "flat", "inputs": [[0, 0, 0]]}
BAD_GRAPHS = {
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no nodes": b"{}",
    "no heads": json.dumps(graph(heads=[])).encode(),
    "two heads": json.dumps(graph(heads=[[2, 0, 0], [3, 0, 0]])).encode(),
    "a head in the middle": json.dumps(graph(heads=[[1, 0, 0]])).encode(),
    "itself": json.dumps({"nodes": [NODE], "heads": [[0, 0, 0]]}).encode(),
    "before the first": json.dumps(
        {"nodes": [NODE | {"inputs": [[-1, 0, 0]]}], "heads": [[0, 0, 0]]}
    ).encode(),
    "a second output": json.dumps(graph(heads=[[3, 1, 0]])).encode(),
    "a number as name": json.dumps({"nodes": [NODE | {"name": 3}], "heads": [[0, 0, 0]]}).encode(),
    "a place that is a truth value": json.dumps(graph(heads=[[True, 0, 0]])).encode(),
}


@pytest.mark.parametrize("content", BAD_GRAPHS.values(), ids=BAD_GRAPHS)
def test_graphs_that_are_none_are_refused(read_or_refuse, content):
    assert isinstance(read_or_refuse(read_symbols, content, "net-symbol.json"), DataError)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_becomes_of_a_graph_it_is_read_or_refused(mutated, read_or_refuse, data):
    found = read_or_refuse(read_symbols, data.draw(mutated(json.dumps(graph()).encode())), "net-symbol.json")
    assert isinstance(found, DataError) or all(
        place < at for at, each in enumerate(found) for place in each.inputs
    )


@pytest.mark.parametrize("read", [read_arrays, read_symbols])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(DataError, match=r"gone cannot be read: No such file"):
        read(tmp_path / "gone")
