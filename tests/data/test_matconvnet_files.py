"""MatConvNet's files, written here with h5py as MATLAB 7.3 lays them out, whole and broken."""

import hashlib
import sys
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
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


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_layers_are_read_with_kernels_in_torch_order(small):
    conv, relu = read_layers(small, digest(small.read_bytes()))
    assert (conv.kind, conv.numbers) == ("conv", {"stride": (1.0,), "pad": (1.0,)})
    assert (relu.kind, relu.numbers, relu.arrays) == ("relu", {"leak": (0.0,)}, ())
    np.testing.assert_array_equal(conv.arrays[0], KERNEL)
    np.testing.assert_array_equal(conv.arrays[1], BIAS)


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


@pytest.mark.parametrize("change", [no_kind, whole_numbers, no_cell, a_group, nowhere])
def test_networks_of_another_layout_are_refused_in_a_sentence(tmp_path, read_or_refuse, change):
    path = tmp_path / "net.mat"
    mat = Mat(path)
    conv = mat.layer("conv", (KERNEL, BIAS))
    change(mat, conv)
    mat.finish([conv])
    content = path.read_bytes()
    error = read_or_refuse(partial(read_layers, sha256=digest(content)), content, "other.mat")
    assert "is no network of MatConvNet" in str(error)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", bytes(4096)])
def test_other_formats_are_refused(read_or_refuse, content):
    error = read_or_refuse(partial(read_layers, sha256=digest(content)), content, "other.mat")
    assert "is no network of MatConvNet" in str(error)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="gone is not a file"):
        read_layers(tmp_path / "gone", "")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_changed_file_never_gets_to_the_library_that_would_believe_it(mutated, read_or_refuse, small, data):
    whole = small.read_bytes()
    content = data.draw(mutated(whole))
    assume(content != whole)
    error = read_or_refuse(partial(read_layers, sha256=digest(whole)), content, "net.mat")
    assert f"has SHA-256 {digest(content)}" in str(error)
