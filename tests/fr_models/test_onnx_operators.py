"""Operators of attention networks and others: values against onnxruntime, gradients against finite differences.

Those that the MobileFaceNets are made of are in test_onnx_reader.py.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bench.errors import DataError
from fr_models._onnx_operators import OPERATORS
from fr_models._onnx_reader import read_onnx

I64 = np.int64
SHAPE = (2, 3, 6, 4)
X = "image"
SAMPLES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def weights(*shape, seed=0, positive=False):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return np.abs(values) + 0.1 if positive else values


def node(operator, *inputs, out="out", **attributes):
    outputs = [out] if isinstance(out, str) else out
    return helper.make_node(operator, inputs, outputs, name=f"the_{operator}_{outputs[0]}", **attributes)


def write(path, nodes, constants=None, *, opset=20, shape=SHAPE):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(X, TensorProto.FLOAT, ["batch", *shape[1:]])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, str(path))
    return path


def runtime(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {X: images})[0]


def compared(path, shape=SHAPE, *, positive=False, tolerance=1e-5):
    """Return the network after its output was found to be onnxruntime's, with another batch than in the file too."""
    network = read_onnx(path)
    for batch in (shape[0], 1):
        images = weights(batch, *shape[1:], seed=9, positive=positive)
        expected = runtime(path, images)
        found = network(torch.from_numpy(images))
        assert found.dtype == torch.float32
        assert tuple(found.shape) == expected.shape
        np.testing.assert_allclose(found.numpy(), expected, atol=tolerance, rtol=tolerance)
    return network


def float_of(name, out="out"):
    return node("Cast", name, out=out, to=TensorProto.FLOAT)


SIZES = node("Shape", X, out="sizes")
FLAT = node("Reshape", X, "as_rows", out="rows")
ROWS = {"as_rows": np.array([0, 3, 24], I64)}
MASK = [node("Greater", X, "limit", out="high"), node("Less", X, "top", out="low")]
BOUNDS = {"limit": np.float32(-0.5), "top": np.float32(0.7)}

SMOOTH = {
    "abs": ([node("Abs", X)], {}),
    "cos": ([node("Cos", X)], {}),
    "cumulative sum": ([node("CumSum", X, "axis")], {"axis": np.array(2, I64)}),
    "cumulative sum, exclusive, from the end": (
        [node("CumSum", X, "axis", exclusive=1, reverse=1)], {"axis": np.array(-1, I64)}),
    "transposed convolution": (
        [node("ConvTranspose", X, "w", "b", strides=[2, 3], pads=[1, 0, 0, 2], output_padding=[1, 0])],
        {"w": weights(3, 4, 3, 3), "b": weights(4)}),
    "transposed convolution, groups, dilated": (
        [node("ConvTranspose", X, "w", group=3, dilations=[1, 2])], {"w": weights(3, 2, 2, 2)}),
    "depth to space": ([node("Concat", *[X] * 4, axis=1, out="c"), node("DepthToSpace", "c", blocksize=2)], {}),
    "depth to space, rows first": (
        [node("Concat", *[X] * 4, axis=1, out="c"), node("DepthToSpace", "c", blocksize=2, mode="CRD")], {}),
    "einsum": ([node("Einsum", X, "w", equation="nchw,kw->nk hc")], {"w": weights(5, 4)}),
    "elu": ([node("Elu", X, alpha=0.7)], {}),
    "erf": ([node("Erf", X)], {}),
    "exp": ([node("Exp", X)], {}),
    "expand both ways": ([node("Expand", X, "s")], {"s": np.array([5, 1, 3, 1, 4], I64)}),
    "gather elements": ([node("GatherElements", X, "i", axis=3)],
                        {"i": np.random.default_rng(0).integers(-4, 4, (1, 3, 6, 5))}),
    "gather n-d": ([node("GatherND", X, "i")], {"i": np.array([[[0, 2], [0, -1]]], I64)}),
    "gelu": ([node("Gelu", X)], {}),
    "gelu by tanh": ([node("Gelu", X, approximate="tanh")], {}),
    "hard sigmoid": ([node("HardSigmoid", X, alpha=0.3, beta=0.4)], {}),
    "hard swish": ([node("HardSwish", X)], {}),
    "instance normalisation": (
        [node("InstanceNormalization", X, "g", "b", epsilon=1e-3)], {"g": weights(3), "b": weights(3, seed=1)}),
    "layer normalisation": (
        [node("LayerNormalization", X, "g", "b", epsilon=1e-6)], {"g": weights(4), "b": weights(4, seed=1)}),
    "layer normalisation over two axes, without bias": (
        [node("LayerNormalization", X, "g", axis=2)], {"g": weights(6, 4)}),
    "layer normalisation, one factor": ([node("LayerNormalization", X, "g", axis=2)], {"g": weights(4)}),
    "log softmax": ([node("LogSoftmax", X, axis=1)], {}),
    "lp normalisation": ([node("LpNormalization", X, axis=1, p=1)], {}),
    "local response normalisation": ([node("LRN", X, size=3, alpha=0.3, beta=0.5, bias=2.0)], {}),
    "matrix product of stacks": ([FLAT, node("MatMul", "rows", "w")], ROWS | {"w": weights(1, 24, 5)}),
    "matrix product of two values": (
        [FLAT, node("Transpose", "rows", perm=[0, 2, 1], out="turned"), node("MatMul", "rows", "turned")], ROWS),
    "maximum": ([node("Max", X, "a", "b")], {"a": weights(4), "b": weights(6, 1, seed=1)}),
    "minimum": ([node("Min", X, "a")], {"a": np.float32(0.1)}),
    "mish": ([node("Mish", X)], {}),
    "neg": ([node("Neg", X)], {}),
    "power": ([node("Pow", X, "two")], {"two": np.float32(2)}),
    "power, whole exponent": ([node("Pow", X, "two")], {"two": np.array(3, I64)}),
    "powers": ([node("Abs", X, out="a"), node("Pow", "a", "p")], {"p": weights(4, positive=True)}),
    "reduce max": ([node("ReduceMax", X, "axes", keepdims=0)], {"axes": np.array([-1], I64)}),
    "reduce min": ([node("ReduceMin", X)], {}),
    "reduce prod": ([node("ReduceProd", X, "axes", keepdims=0)], {"axes": np.array([1, 3], I64)}),
    "reduce sum": ([node("ReduceSum", X, "axes")], {"axes": np.array([2, -1], I64)}),
    "resize, scales": ([node("Resize", X, "", "s", mode="linear")], {"s": np.array([1, 1, 2, 1.5], np.float32)}),
    "softmax": ([node("Softmax", X)], {}),
    "softplus": ([node("Softplus", X)], {}),
    "sin": ([node("Sin", X)], {}),
    "slice": ([node("Slice", X, "from", "to", "axes", "steps")],
              {"from": np.array([-3, 0], I64), "to": np.array([2**62, 3], I64), "axes": np.array([2, -1], I64),
               "steps": np.array([2, 1], I64)}),
    "slice backwards": ([node("Slice", X, "from", "to", "axes", "steps")],
                        {"from": np.array([-1], I64), "to": np.array([-(2**62)], I64),
                         "axes": np.array([2], I64), "steps": np.array([-2], I64)}),
    "slice, first axes": ([node("Slice", X, "from", "to")],
                          {"from": np.array([0, 1], I64), "to": np.array([9, 9], I64)}),
    "space to depth": ([node("SpaceToDepth", X, blocksize=2)], {}),
    "split": ([node("Split", X, "sizes", axis=2, out=["a", "b", "c"]), node("Concat", "c", "a", axis=2)],
              {"sizes": np.array([1, 2, 3], I64)}),
    "split in parts, the last smaller": (
        [node("Split", X, axis=1, num_outputs=2, out=["a", "b"]), node("Mul", "a", "b")], {}),
    "split, first output unread": (
        [node("Split", X, axis=1, num_outputs=3, out=["a", "b", "c"]), node("Neg", "b")], {}),
    "sum": ([node("Sum", X, "a", X)], {"a": weights(4)}),
    "tanh": ([node("Tanh", X)], {}),
    "tile": ([node("Tile", X, "r")], {"r": np.array([1, 2, 1, 3], I64)}),
    "triangle": ([node("Trilu", X, "k", upper=0)], {"k": np.array(1, I64)}),
    "upper triangle": ([node("Trilu", X)], {}),
    "where": ([*MASK, node("And", "high", "low", out="both"), node("Where", "both", X, "other")],
              BOUNDS | {"other": weights(6, 1)}),
    "or, not": ([*MASK, node("Not", "low", out="top_of"), node("Or", "high", "top_of", out="any"),
                 node("Where", "any", X, "limit")], BOUNDS),
}  # fmt: skip

OF_POSITIVE = {
    "log": ([node("Log", X)], {}),
    "reciprocal": ([node("Reciprocal", X)], {}),
    "sqrt": ([node("Sqrt", X)], {}),
    "root": ([node("Pow", X, "half")], {"half": np.float32(0.5)}),
}

STEPPED = {
    "ceil": ([node("Ceil", X)], {}),
    "floor": ([node("Floor", X)], {}),
    "round to even": ([node("Mul", X, "wide", out="w"), node("Round", "w", out="r"), node("Add", "r", X)],
                      {"wide": np.float32(3)}),
    "comparisons": (
        [node("GreaterOrEqual", X, "a", out="g"), float_of("g", "gf"), node("LessOrEqual", X, "b", out="l"),
         float_of("l", "lf"), node("Equal", X, "c", out="e"), float_of("e", "ef"), node("Sum", "gf", "lf", "ef")],
        {"a": np.float32(0.2), "b": np.float32(-0.1), "c": np.float32(0)}),
    "global max pool": ([node("GlobalMaxPool", X)], {}),
    # Quotients of integers are rounded toward zero, remainders have the divisor's sign or, by fmod, the dividend's.
    "whole quotient": ([SIZES, node("Sub", "sizes", "five", out="d"), node("Div", "d", "two", out="q"), float_of("q")],
                       {"five": np.array([5, 8, 5, 11], I64), "two": np.array(2, I64)}),
    "whole remainder": ([SIZES, node("Sub", "sizes", "five", out="d"), node("Mod", "d", "two", out="q"), float_of("q")],
                        {"five": np.array([5, 8, 5, 11], I64), "two": np.array([3, 3, -4, -5], I64)}),
    "whole remainder by fmod": (
        [SIZES, node("Sub", "sizes", "five", out="d"), node("Mod", "d", "two", fmod=1, out="q"), float_of("q")],
        {"five": np.array([5, 8, 5, 11], I64), "two": np.array([3, 3, -4, -5], I64)}),
    "whole power, bounds": (
        [SIZES, node("Pow", "sizes", "two", out="p"), node("Clip", "p", "low", "high", out="c"), float_of("c")],
        {"two": np.float32(2), "low": np.array(5, I64), "high": np.array(20, I64)}),
    "range": ([SIZES, node("Gather", "sizes", "two", out="n"), node("Range", "zero", "n", "one", out="r"),
               float_of("r", "f"), node("Add", "f", "unit")],
              {"two": np.array(2, I64), "zero": np.array(0, I64), "one": np.array(1, I64), "unit": np.float32(0.5)}),
    "constant of a shape": (
        [SIZES, node("ConstantOfShape", "sizes", value=numpy_helper.from_array(np.array([7], I64))
                     , out="c"), float_of("c", "f"), node("Mul", "f", X)], {}),
    "zeros of a shape": ([SIZES, node("ConstantOfShape", "sizes", out="c"), node("Add", "c", X)], {}),
    "casts": ([node("Cast", X, to=TensorProto.INT32, out="i"), node("Cast", "i", to=TensorProto.FLOAT, out="f"),
               node("Cast", X, to=TensorProto.BOOL, out="b"), node("Cast", "b", to=TensorProto.FLOAT, out="g"),
               node("Add", "f", "g")], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", {**SMOOTH, **STEPPED})
def test_operator_agrees_with_onnxruntime(case, tmp_path):
    compared(write(tmp_path / "net.onnx", *{**SMOOTH, **STEPPED}[case]))


@pytest.mark.parametrize("case", OF_POSITIVE)
def test_operator_of_positive_numbers_agrees_with_onnxruntime(case, tmp_path):
    compared(write(tmp_path / "net.onnx", *OF_POSITIVE[case]), positive=True)


@pytest.mark.parametrize("case", {**SMOOTH, **OF_POSITIVE})
def test_gradient_is_that_of_finite_differences(case, tmp_path):
    network = read_onnx(write(tmp_path / "net.onnx", *{**SMOOTH, **OF_POSITIVE}[case])).double()
    images = torch.from_numpy(weights(1, *SHAPE[1:], seed=4, positive=case in OF_POSITIVE)).double()
    assert torch.autograd.gradcheck(network, (images.requires_grad_(),), eps=1e-6, atol=1e-6, fast_mode=True)


def test_group_normalisation_agrees_with_torch(tmp_path):
    # onnxruntime has no kernel of opset 21 on every platform.
    constants = {"g": weights(6), "b": weights(6, seed=1)}
    nodes = [
        node("Concat", X, X, axis=1, out="six"),
        node("GroupNormalization", "six", "g", "b", num_groups=3, epsilon=1e-3),
    ]
    network = read_onnx(write(tmp_path / "net.onnx", nodes, constants, opset=21))
    images = torch.from_numpy(weights(*SHAPE))
    expected = torch.nn.functional.group_norm(
        torch.cat((images, images), 1), 3, *map(torch.from_numpy, constants.values()), 1e-3
    )
    torch.testing.assert_close(network(images), expected)


def test_every_operator_has_a_case_here_or_among_those_of_mobilefacenets():
    named = (
        "Add AveragePool BatchNormalization Cast Clip Concat Conv Div Expand Flatten Gather Gemm GlobalAveragePool "
        "LeakyRelu MatMul MaxPool Mul PRelu Pad ReduceL2 ReduceMean Relu Reshape Shape Sigmoid Squeeze Sub Transpose "
        "Unsqueeze"
    )
    here = {n.op_type for nodes, _ in (SMOOTH | STEPPED | OF_POSITIVE).values() for n in nodes}
    assert set(OPERATORS) == set(named.split()) | here | {"GroupNormalization"}


@pytest.mark.parametrize(
    ("opset", "nodes", "constants"),
    [
        (11, [node("Softmax", X)], {}),
        (12, [node("LogSoftmax", X, axis=2)], {}),
        (11, [node("Split", X, axis=2, split=[2, 4], out=["a", "b"]), node("Neg", "b")], {}),
        (11, [node("Split", X, axis=1, out=["a", "b", "c"]), node("Neg", "b")], {}),
        (9, [node("Slice", X, starts=[1, -3], ends=[9, 2**62], axes=[1, 2])], {}),
        (11, [node("ReduceSum", X, axes=[1], keepdims=0)], {}),
        (10, [node("Resize", X, "s", mode="nearest")], {"s": np.array([1, 1, 2, 3], np.float32)}),
        (10, [node("Resize", X, "s", mode="linear")], {"s": np.array([1, 1, 2, 1.5], np.float32)}),
        (12, [node("Pow", X, "two")], {"two": np.array(2, I64)}),
    ],
)  # fmt: skip
def test_other_opsets_agree_with_onnxruntime(opset, nodes, constants, tmp_path):
    compared(write(tmp_path / "net.onnx", nodes, constants, opset=opset))


MODES = st.one_of(
    st.tuples(
        st.just("nearest"),
        st.sampled_from(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]),
        st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    ),
    st.tuples(
        st.sampled_from(["linear", "cubic"]),
        st.sampled_from(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]),
        st.just("round_prefer_floor"),
    ),
)


SIDES = st.tuples(st.integers(2, 13), st.integers(2, 13))
# Hardly any of these is a float32 number, and many places fall on a pixel or half-way between two.
SCALES = st.sampled_from([0.3, 0.45, 0.6, 0.7, 0.9, 1.0, 1.05, 1.1, 1.3, 1.7, 2.3, 2.7, 3.3])


def resize(how, *inputs):
    mode, transformation, rounding = how
    return node(
        "Resize", X, *inputs, mode=mode, coordinate_transformation_mode=transformation, nearest_mode=rounding
    )


@SAMPLES
@given(how=MODES, sides=SIDES, height=st.integers(1, 29), width=st.integers(1, 29))
@example(how=("nearest", "asymmetric", "round_prefer_ceil"), sides=(13, 7), height=16, width=8)
def test_resize_to_sizes_agrees_with_onnxruntime(how, sides, height, width, tmp_path):
    constants = {"s": np.array([2, 3, height, width], I64)}
    path = write(tmp_path / "net.onnx", [resize(how, "", "", "s")], constants, shape=(2, 3, *sides))
    images = weights(2, 3, *sides, seed=9)
    np.testing.assert_allclose(
        read_onnx(path)(torch.from_numpy(images)).numpy(), runtime(path, images), atol=1e-4, rtol=1e-4
    )


@SAMPLES
@given(how=MODES, sides=SIDES, height=SCALES, width=SCALES)
@example(how=("nearest", "half_pixel", "floor"), sides=(8, 10), height=0.6, width=0.45)
@example(how=("nearest", "pytorch_half_pixel", "floor"), sides=(8, 10), height=0.6, width=0.45)
@example(how=("nearest", "asymmetric", "floor"), sides=(8, 10), height=0.6, width=0.45)
@example(how=("linear", "half_pixel", "floor"), sides=(10, 10), height=2.3, width=0.7)
@example(
    how=("nearest", "half_pixel", "round_prefer_floor"), sides=(11, 13), height=1.0, width=1.05
)  # both sides stay
def test_resize_by_scales_agrees_with_onnxruntime(how, sides, height, width, tmp_path):
    assume(min(sides[0] * height, sides[1] * width) > 1)
    constants = {"s": np.array([1, 1, height, width], np.float32)}
    shape = (2, 3, *sides)
    path = write(tmp_path / "net.onnx", [resize(how, "", "s")], constants, opset=13, shape=shape)
    compared(path, shape, tolerance=1e-4)


@SAMPLES
@given(mode=st.sampled_from(["nearest", "linear"]), sides=SIDES, height=SCALES, width=SCALES)
def test_resize_before_opset_11_agrees_with_onnxruntime(mode, sides, height, width, tmp_path):
    assume(min(sides[0] * height, sides[1] * width) > 1)
    constants = {"s": np.array([1, 1, height, width], np.float32)}
    shape = (2, 3, *sides)
    nodes = [node("Resize", X, "s", mode=mode)]
    compared(write(tmp_path / "net.onnx", nodes, constants, opset=10, shape=shape), shape, tolerance=1e-4)


def test_resize_by_cubic_that_counts_nothing_outside_agrees_with_onnxruntime(tmp_path):
    constants = {"s": np.array([1, 1, 1.5, 2], np.float32)}
    nodes = [node("Resize", X, "", "s", mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1)]
    compared(write(tmp_path / "net.onnx", nodes, constants), tolerance=1e-4)


@SAMPLES
@given(
    cuts=st.lists(
        st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(-3, 3).filter(bool)),
        min_size=1,
        max_size=2,
    )
)
def test_slice_agrees_with_numpy(cuts, tmp_path):
    axes = np.array([2, 3], I64)[: len(cuts)]
    constants = {
        key: np.array([cut[i] for cut in cuts], I64) for i, key in enumerate(("from", "to", "steps"))
    }
    nodes = [node("Slice", X, "from", "to", "axes", "steps")]
    path = write(tmp_path / "net.onnx", nodes, constants | {"axes": axes})
    images = weights(*SHAPE)
    expected = images[(slice(None), slice(None), *(slice(*cut) for cut in cuts))]
    np.testing.assert_array_equal(read_onnx(path)(torch.from_numpy(images)).numpy(), expected)


@SAMPLES
@given(data=st.data(), axis=st.integers(-4, 3), keep=st.booleans())
def test_sums_over_axes_agree_with_onnxruntime(data, axis, keep, tmp_path):
    operator = data.draw(st.sampled_from(["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean"]))
    nodes = [node(operator, X, "axes", keepdims=int(keep))]
    compared(write(tmp_path / "net.onnx", nodes, {"axes": np.array([axis], I64)}))


@SAMPLES
@given(shared=st.integers(0, 2), count=st.integers(1, 3), seed=st.integers(0, 99))
def test_gather_nd_agrees_with_onnx(shared, count, seed, tmp_path):
    rng = np.random.default_rng(seed)
    shape = (1, 3, 6, 4)
    lead = shape[:shared]
    indices = np.stack(
        [rng.integers(-n, n, (*lead, 5)) for n in shape[shared : shared + min(count, 4 - shared)]], axis=-1
    )
    nodes = [node("GatherND", X, "i", batch_dims=shared)]
    path = write(tmp_path / "net.onnx", nodes, {"i": indices})
    images = weights(*shape)
    expected = runtime(path, images)
    np.testing.assert_array_equal(read_onnx(path)(torch.from_numpy(images)).numpy(), expected)


def absent_beside(first, last):
    """Return a Slice without axes and two Splits whose outer outputs are called `first` and `last`."""

    def outer(name):
        return [first and name + first, name, last and name + last]

    return [
        node("Split", X, axis=1, out=outer("a")),
        node("Neg", X, out="n"),
        node("Split", "n", axis=1, out=outer("b")),
        node("Exp", "b", out="e"),
        node("Add", "a", "e", out="sum"),
        node("Slice", "sum", "from", "to", "", "steps"),
    ]


def test_unnamed_outputs_and_absent_inputs_are_no_values(tmp_path):
    constants = {
        "from": np.array([0, 0, 1, 0], I64), "to": np.array([9, 9, 5, 9], I64), "steps": np.array([1, 1, 2, 1], I64)
    }  # fmt: skip
    images = weights(*SHAPE, seed=9)
    # onnxruntime crashes where an output of Split has no name: it gets the same graph with names.
    named = write(tmp_path / "named.onnx", absent_beside("1", "3"), constants, opset=13)
    unnamed = write(tmp_path / "net.onnx", absent_beside("", ""), constants, opset=13)
    found = read_onnx(unnamed)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, runtime(named, images), atol=1e-5)


HUGE = np.array([2**20, 2**20], I64)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("ConstantOfShape", "n", out="c")], {"n": HUGE}),
        ([node("Expand", "one", "n", out="c")], {"one": weights(1), "n": HUGE}),
        ([node("Tile", "one", "n", out="c")], {"one": weights(1, 1), "n": HUGE}),
        ([node("Range", "a", "b", "d", out="c")],
         {"a": np.array(0, I64), "b": np.array(2**40, I64), "d": np.array(1, I64)}),
        ([node("Mul", "column", "row", out="c")], {"column": weights(2**15, 1), "row": weights(1, 2**15)}),
    ],
    ids=lambda case: case[0].op_type if isinstance(case, list) else "",
)  # fmt: skip
def test_a_constant_too_large_for_memory_is_refused_before_it_is_made(nodes, constants, tmp_path):
    path = write(
        tmp_path / "net.onnx", [*nodes, node("ReduceSum", "c", out="s"), node("Add", X, "s")], constants
    )
    with pytest.raises(DataError, match=r"makes a constant of \d+ elements; at most 268435456 are computed"):
        read_onnx(path)


def test_shapes_stay_on_the_cpu_and_what_is_computed_with_them_comes_to_the_images(tmp_path):
    """Torch's device without values stands for a GPU: it, too, refuses tensors of another device."""
    nodes = [
        SIZES,
        node(
            "ConstantOfShape", "sizes", out="ones", value=numpy_helper.from_array(np.array([1.0], np.float32))
        ),
        node("CumSum", "ones", "axis", out="counted"),
        node("Conv", "counted", "w", out="c"),
        node("Resize", "c", "", "scales", mode="linear", out="r"),
        node("Resize", X, "", "scales", mode="linear", out="s"),
        node("Add", "r", "s", out="sum"),
        node("Slice", "sum", "from", "to", "axes"),
    ]
    constants = {
        "axis": np.array(2, I64), "w": weights(3, 3, 1, 1), "scales": np.array([1, 1, 2, 2], np.float32),
        "from": np.array([0], I64), "to": np.array([5], I64), "axes": np.array([2], I64),
    }  # fmt: skip
    path = write(tmp_path / "net.onnx", nodes, constants)
    compared(path)
    found = read_onnx(path).to("meta")(torch.zeros(SHAPE, device="meta"))
    assert (found.device.type, tuple(found.shape)) == ("meta", (2, 3, 5, 8))
