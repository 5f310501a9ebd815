"""MatConvNet's files, written here with h5py as MATLAB 7.3 lays them out, whole and broken."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.matconvnet_files import read_layers
from bench.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))

from foreign_files import Mat

KERNEL = np.arange(4 * 3 * 3 * 3, dtype=np.float32).reshape(4, 3, 3, 3)
BIAS = np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return a whole file of a convolution and a ReLU."""
    path = tmp_path_factory.mktemp("mat") / "net.mat"
    mat = Mat(path)
    mat.finish([mat.layer("conv", (KERNEL, BIAS), stride=1, pad=1), mat.layer("relu", leak=0)])
    return path


def test_layers_are_read_with_kernels_in_torch_order(small):
    conv, relu = read_layers(small)
    assert (conv.kind, conv.numbers) == ("conv", {"stride": (1.0,), "pad": (1.0,)})
    assert (relu.kind, relu.numbers, relu.arrays) == ("relu", {"leak": (0.0,)}, ())
    np.testing.assert_array_equal(conv.arrays[0], KERNEL)
    np.testing.assert_array_equal(conv.arrays[1], BIAS)


def lying(path, change):
    mat = Mat(path)
    conv = mat.layer("conv", (KERNEL, BIAS))
    change(mat, conv)
    mat.finish([conv])


def huge(mat, conv):
    """Declare a terabyte of zeros, none of which is in the file."""
    whole = mat.cells.create_dataset("huge", (2**20, 2**20), np.float32, chunks=(2**10, 2**10))
    del conv["weights"]
    mat.cell(conv, "weights", [whole])


def packed_well(mat, conv):
    zeros = mat.cells.create_dataset("zeros", data=np.zeros((1, 2**22), np.float32), compression="gzip")
    del conv["weights"]
    mat.cell(conv, "weights", [zeros])


def long_kind(_mat, conv):
    del conv["type"]
    conv["type"] = np.full((1000, 1), ord("x"), np.uint16)


def no_kind(_mat, conv):
    del conv["type"]


def whole_numbers(mat, conv):
    del conv["weights"]
    mat.cell(conv, "weights", [mat.cells.create_dataset("whole", data=np.ones((1, 4), np.int32))])


def no_cell(_mat, conv):
    del conv["weights"]
    conv["weights"] = np.ones((2, 1))


def a_group(mat, conv):
    del conv["weights"]
    mat.cell(conv, "weights", [mat.cells.create_group("group")])


def nowhere(_mat, conv):
    del conv["weights"]
    conv.create_dataset("weights", (2, 1), h5py.ref_dtype)


@pytest.mark.parametrize(
    "change", [huge, packed_well, long_kind, no_kind, whole_numbers, no_cell, a_group, nowhere]
)
def test_files_that_lie_are_refused_in_a_sentence(tmp_path, read_or_refuse, change):
    lying(tmp_path / "net.mat", change)
    content = (tmp_path / "net.mat").read_bytes()
    assert isinstance(read_or_refuse(read_layers, content, "lying.mat"), DataError)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", bytes(4096)])
def test_other_files_are_refused(read_or_refuse, content):
    assert isinstance(read_or_refuse(read_layers, content, "other.mat"), DataError)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_becomes_of_a_file_it_is_read_or_refused(mutated, read_or_refuse, small, data):
    found = read_or_refuse(read_layers, data.draw(mutated(small.read_bytes())), "net.mat")
    assert isinstance(found, DataError) or len(found) <= 2
