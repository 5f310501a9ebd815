"""dlib's files, written here by their description, whole and broken."""

import bz2
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.data.dlib_files import MARK, Layer, read_network
from bench.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))

from foreign_files import (
    EMPTY,
    affine,
    alias,
    convolution,
    floating,
    integer,
    matrix,
    network,
    sides,
    text,
)

WEIGHT = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3) / 7
BIAS = np.array([1, -1], np.float32)
FACTOR, OFFSET = np.array([2, 3], np.float32), np.array([-4, 5], np.float32)
MATRIX = np.arange(8, dtype=np.float32).reshape(2, 4)


SMALL = network(
    convolution(WEIGHT, BIAS, stride=2, padding=0),
    affine(FACTOR, OFFSET),
    None,
    text("relu_"),
    text("max_pool_2") + sides(3, 3, 2, 2) + sides(0, 0),
    text("add_prev_"),
    matrix(MATRIX),
)


@pytest.mark.parametrize("pack", [bytes, bz2.compress], ids=["plain", "bzip2"])
def test_layers_come_in_the_order_they_run_with_their_numbers_and_arrays(tmp_path, pack):
    path = tmp_path / "net.dat"
    path.write_bytes(pack(SMALL))
    found = read_network(path)
    assert [(layer.kind, layer.numbers) for layer in found] == [
        ("input_rgb_image_sized", (122.75, 117.0, 104.25, 150, 150)),
        ("con_4", (2, 2, 0, 0)),
        ("affine_", (1,)),
        (MARK, ()),
        ("relu_", ()),
        ("max_pool_2", (3, 3, 2, 2, 0, 0)),
        ("add_prev_", ()),
        ("fc_2", ()),
        ("loss_metric_2", (0.25, 0.5)),
    ]
    np.testing.assert_array_equal(found[1].arrays["weight"], WEIGHT)
    np.testing.assert_array_equal(found[1].arrays["bias"], BIAS)
    np.testing.assert_array_equal(found[2].arrays["weight"], FACTOR)
    np.testing.assert_array_equal(found[2].arrays["bias"], OFFSET)
    np.testing.assert_array_equal(found[7].arrays["weight"], MATRIX)
    assert found[3] == Layer(MARK)


def declaring(count):
    """Return a network whose convolution declares a tensor of `count` values."""
    return SMALL.replace(integer(2) + sides(56, 1, 1, 1), integer(2) + sides(count, 1, 1, 1))


LIES = {
    "a tensor larger than the file": declaring(2**50),
    "a tensor of negative size": declaring(-8),
    "an empty tensor of absurd sides": SMALL.replace(EMPTY, integer(2) + sides(0, 2**62, 2**62, 1), 1),
    "an empty convolution of absurd sides": network(
        text("con_4")
        + EMPTY
        + b"".join(map(integer, (0, 2**62, 1, 1, 1, 0, 0)))
        + alias(0, 2**62, 2**62, 1)
        + alias(1, 0, 1, 1)
        + floating(1) * 4
    ),
    "a smaller tensor": declaring(55),
    "another loss": network(convolution(WEIGHT, BIAS), loss="loss_softmax"),
    "an unknown layer": network(text("lstm_")),
    "a long name": network(integer(2**40)),
    "a convolution of other parts": SMALL.replace(alias(1, 2, 1, 1), alias(1, 3, 1, 1), 1),
    "a truth value that is none": SMALL.replace(b"110", b"1x0"),
    "something after the end": SMALL + b"x",
    "layers without end": network().replace(integer(3), integer(2) * 5000),
    "nothing": b"",
    "cut off in bzip2": bz2.compress(SMALL)[:-9],
    "broken bzip2": b"BZh9" + bytes(200),
    "a bomb": bz2.compress(bytes(10_000_000)),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_files_that_lie_are_refused_in_a_sentence(read_or_refuse, content):
    assert isinstance(read_or_refuse(read_network, content, "net.dat"), DataError)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), pack=st.sampled_from([bytes, bytes, bz2.compress]))
def test_whatever_becomes_of_a_file_it_is_read_or_refused(mutated, read_or_refuse, data, pack):
    content = data.draw(mutated(pack(SMALL)))
    found = read_or_refuse(read_network, content, "net.dat")
    assert isinstance(found, DataError) or found[0].kind == "input_rgb_image_sized"


@given(st.integers(-(2**63) + 1, 2**63 - 1))
@example(0)
def test_integers_of_any_size_are_read(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "integer.dat"
    path.write_bytes(network(text("max_pool_2") + integer(value) + sides(3, 2, 2) + sides(0, 0)))
    assert read_network(path)[1].numbers[0] == value


@pytest.mark.parametrize(("mantissa", "exponent"), [(1, 32_000), (2**52, 1000), (-(2**53) + 1, 972)])
def test_a_number_beyond_all_bounds_is_refused(read_or_refuse, mantissa, exponent):
    number = integer(mantissa) + integer(exponent)
    infinite = network(convolution(WEIGHT, BIAS)).replace(floating(122.75), number)
    assert isinstance(read_or_refuse(read_network, infinite, "net.dat"), DataError)
