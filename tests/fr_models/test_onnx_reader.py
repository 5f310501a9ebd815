"""The reader against onnxruntime, operator by operator, and on what it must refuse."""

from contextlib import suppress
from time import process_time

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from bench.data.files import sha256_of
from bench.errors import DataError
from fr_models._onnx_arithmetic import prelu
from fr_models._onnx_file import digest_of, external_files
from fr_models._onnx_graph import UnreadableNetworkError
from fr_models._onnx_reader import read_onnx


def weights(*shape, seed=0, positive=False):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return np.abs(values) + 0.1 if positive else values


def save(
    path, nodes, constants, *, opset=17, shape=("batch", 3, 14, 12), source="input.1", output="out", **more
):
    """Write a graph of `nodes` from `source` to `output`; constants by name."""
    graph = helper.make_graph(
        nodes,
        "net",
        more.get("inputs") or [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        more.get("outputs") or [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def runtime(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def node(operator, *inputs, out="out", **attributes):
    name = f"the_{operator}" if out == "out" else out
    return helper.make_node(operator, inputs, [out], name=name, **attributes)


X = "input.1"
I64 = np.int64
CONV = {"w": weights(8, 3, 3, 3), "b": weights(8, seed=1)}
AFFINE = {
    "g": weights(3),
    "s": weights(3, seed=1),
    "m": weights(3, seed=2),
    "v": weights(3, seed=3, positive=True),
}
FLAT = node("Flatten", X, out="flat")
MATRIX = {"w": weights(3 * 14 * 12, 5), "b": weights(5, seed=1)}

CASES = {
    "conv": ([node("Conv", X, "w", "b", pads=[1, 1, 1, 1], strides=[2, 2])], CONV),
    "conv without bias": ([node("Conv", X, "w")], CONV),
    "conv 1x1": ([node("Conv", X, "w")], {"w": weights(8, 3, 1, 1)}),
    "conv 1x1 strided": ([node("Conv", X, "w", strides=[2, 2])], {"w": weights(8, 3, 1, 1)}),
    "conv asymmetric pads": ([node("Conv", X, "w", "b", pads=[0, 1, 2, 3])], CONV),
    "conv groups": ([node("Conv", X, "w", group=3)], {"w": weights(6, 1, 3, 3)}),
    "conv dilations": ([node("Conv", X, "w", dilations=[2, 1])], CONV),
    "conv same upper": ([node("Conv", X, "w", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": weights(4, 3, 4, 3)}),
    "conv same lower": ([node("Conv", X, "w", auto_pad="SAME_LOWER", strides=[2, 1])], {"w": weights(4, 3, 4, 2)}),
    "conv valid": ([node("Conv", X, "w", auto_pad="VALID")], CONV),
    "batch normalisation": ([node("BatchNormalization", X, "g", "s", "m", "v", epsilon=1e-3)], AFFINE),
    "prelu per channel": ([node("PRelu", X, "a")], {"a": weights(3, 1, 1)}),
    "prelu one slope": ([node("PRelu", X, "a")], {"a": weights(1)}),
    "prelu per pixel": ([node("PRelu", X, "a")], {"a": weights(3, 14, 12)}),
    "prelu per column": ([node("PRelu", X, "a")], {"a": weights(12)}),
    "prelu on vectors": ([FLAT, node("PRelu", "flat", "a")], {"a": weights(504)}),
    "relu": ([node("Relu", X)], {}),
    "leaky relu": ([node("LeakyRelu", X, alpha=0.3)], {}),
    "leaky relu default": ([node("LeakyRelu", X)], {}),
    "clip": ([node("Clip", X, "low", "high")], {"low": np.float32(0), "high": np.float32(0.5)}),
    "clip low": ([node("Clip", X, "low")], {"low": np.float32(-0.2)}),
    "clip at zero": ([node("Clip", X, "low")], {"low": np.float32(0)}),
    "clip high": ([node("Clip", X, "", "high")], {"high": np.float32(0.2)}),
    "clip unbounded": ([node("Clip", X)], {}),
    "sigmoid": ([node("Sigmoid", X)], {}),
    "add": ([node("Add", X, "a")], {"a": weights(3, 1, 1)}),
    "sub constant first": ([node("Sub", "a", X)], {"a": weights(1)}),
    "mul itself": ([node("Mul", X, X)], {}),
    "div": ([node("Div", X, "a")], {"a": weights(12, positive=True)}),
    "flatten": ([FLAT, node("Relu", "flat")], {}),
    "flatten axis 2": ([node("Flatten", X, axis=2)], {}),
    "flatten axis -1": ([node("Flatten", X, axis=-1)], {}),
    "flatten axis 0": ([node("Flatten", X, axis=0)], {}),
    "reshape -1": ([node("Reshape", X, "s")], {"s": np.array([-1, 504], I64)}),
    "reshape 0": ([node("Reshape", X, "s")], {"s": np.array([0, 3, -1], I64)}),
    "reshape allowzero": ([node("Reshape", X, "s", allowzero=1)], {"s": np.array([2, 504], I64)}),
    "transpose": ([node("Transpose", X, perm=[0, 2, 3, 1])], {}),
    "transpose default": ([node("Transpose", X)], {}),
    "matmul": ([FLAT, node("MatMul", "flat", "w")], MATRIX),
    "gemm": ([FLAT, node("Gemm", "flat", "w", "b")], MATRIX),
    "gemm without bias": ([FLAT, node("Gemm", "flat", "w")], MATRIX),
    "gemm scaled": ([FLAT, node("Gemm", "flat", "w", "b", alpha=0.5, beta=2.0)], MATRIX),
    "gemm scalar bias": ([FLAT, node("Gemm", "flat", "w", "b")], MATRIX | {"b": np.float32(2)}),
    "gemm bias per row": ([FLAT, node("Gemm", "flat", "w", "b", beta=0.5)], MATRIX | {"b": weights(2, 5)}),
    "gemm transposed": ([FLAT, node("Gemm", "flat", "w", transB=1)], {"w": weights(5, 504)}),
    "gemm both transposed": ([FLAT, node("Gemm", "flat", "w", "b", transA=1, transB=1)],
                             {"w": weights(4, 2), "b": weights(504, 4)}),
    "global average pool": ([node("GlobalAveragePool", X)], {}),
    "average pool": ([node("AveragePool", X, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])], {}),
    "average pool with pad": (
        [node("AveragePool", X, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)], {}),
    "average pool asymmetric": ([node("AveragePool", X, kernel_shape=[3, 3], pads=[0, 1, 1, 2])], {}),
    "average pool asymmetric with pad": (
        [node("AveragePool", X, kernel_shape=[3, 3], pads=[0, 1, 1, 2], count_include_pad=1)], {}),
    "average pool same": ([node("AveragePool", X, kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER")], {}),
    "average pool ceil": ([node("AveragePool", X, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}),
    "max pool": ([node("MaxPool", X, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])], {}),
    "max pool asymmetric": ([node("MaxPool", X, kernel_shape=[2, 2], pads=[0, 0, 1, 1], strides=[2, 2])], {}),
    "max pool same lower": ([node("MaxPool", X, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER")], {}),
    "max pool dilated, ceil": ([node("MaxPool", X, kernel_shape=[2, 2], dilations=[2, 2], ceil_mode=1)], {}),
    "pad": ([node("Pad", X, "p", "c")], {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0], I64), "c": np.float32(7)}),
    "pad channels": ([node("Pad", X, "p")], {"p": np.array([0, 1, 0, 0, 0, 2, 0, 0], I64)}),
    "pad reflect": ([node("Pad", X, "p", mode="reflect")], {"p": np.array([0, 0, 1, 2, 0, 0, 3, 1], I64)}),
    "pad edge": ([node("Pad", X, "p", mode="edge")], {"p": np.array([0, 0, 1, 2, 0, 0, 3, 1], I64)}),
    "concat": ([node("Relu", X, out="r"), node("Concat", X, "r", axis=1)], {}),
    "reduce mean": ([node("ReduceMean", X, axes=[2, 3])], {}),
    "reduce mean of all": ([node("ReduceMean", X, keepdims=0)], {}),
    "reduce l2": ([node("ReduceL2", X, axes=[1], keepdims=1)], {}),
    "squeeze": ([node("ReduceMean", X, axes=[2, 3], out="r"), node("Squeeze", "r", "a")],
                {"a": np.array([2, 3], I64)}),
    "unsqueeze": ([node("Unsqueeze", X, "a")], {"a": np.array([1, -1], I64)}),
    "shape, gather, cast, reshape": (
        [node("Shape", X, out="shape"), node("Gather", "shape", "zero", out="n"),
         node("Unsqueeze", "n", "first", out="n1"), node("Concat", "n1", "rest", axis=0, out="sizes"),
         node("Cast", "sizes", to=TensorProto.INT64, out="as64"), node("Reshape", X, "as64")],
        {"zero": np.array(0, I64), "first": np.array([0], I64), "rest": np.array([-1], I64)}),
    "gather channels": ([node("Gather", X, "i", axis=1)], {"i": np.array([2, 1, -3], I64)}),
    "normalised": (
        [FLAT, node("ReduceL2", "flat", axes=[1], out="norm"), node("Shape", "flat", out="shape"),
         node("Expand", "norm", "shape", out="wide"), node("Div", "flat", "wide")], {}),
    "constant": ([node("Constant", out="c", value_float=2.5), node("Mul", X, "c")], {}),
    "constant folding": (
        [node("Constant", out="c", value=numpy_helper.from_array(weights(3), "t")),
         node("Unsqueeze", "c", "axes", out="d"), node("Add", X, "d")],
        {"axes": np.array([1, 2], I64)}),
    "identity, dropout": ([node("Identity", X, out="i"), node("Dropout", "i", out="d"), node("Relu", "d")], {}),
}  # fmt: skip


def agree(path, atol=1e-4, batch=2, size=(14, 12)):
    images = weights(batch, 3, *size, seed=9)
    found = read_onnx(path)(torch.from_numpy(images)).numpy()
    expected = runtime(path, images)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_operator_agrees_with_onnxruntime(case, tmp_path):
    nodes, constants = CASES[case]
    agree(save(tmp_path / "net.onnx", nodes, constants))


@pytest.mark.parametrize(
    ("opset", "nodes", "constants"),
    [
        (8, [node("Clip", X, min=-0.5, max=0.5)], {}),
        (10, [node("Clip", X, max=0.5)], {}),
        (10, [node("Pad", X, pads=[0, 0, 1, 1, 0, 0, 2, 2], value=1.0)], {}),
        (11, [node("Unsqueeze", X, axes=[0])], {}),
        (18, [node("ReduceMean", X, "a")], {"a": np.array([-1], I64)}),
        (18, [node("ReduceMean", X, noop_with_empty_axes=1)], {}),
        (18, [node("Pad", X, "p", "", "a")], {"p": np.array([1, 2], I64), "a": np.array([3], I64)}),
    ],
)
def test_other_opsets_agree_with_onnxruntime(opset, nodes, constants, tmp_path):
    agree(save(tmp_path / "net.onnx", nodes, constants, opset=opset))


def insightface_like(path):
    """Conv–BN–PRelu, a BN before a Conv, a residual Add, Flatten, Gemm–BN, as iresnet is exported."""
    norm = {
        f"{p}.{k}": weights(n, seed=i, positive=k == "v")
        for i, (p, n) in enumerate((("n1", 8), ("n2", 8), ("n3", 8), ("n4", 16)))
        for k in "gsmv"
    }

    def bn(prefix, source, out):
        return node("BatchNormalization", source, *(f"{prefix}.{k}" for k in "gsmv"), out=out)

    nodes = [
        node("Conv", X, "w1", pads=[1, 1, 1, 1], out="c1"),
        bn("n1", "c1", "b1"),
        node("PRelu", "b1", "a1", out="p1"),
        bn("n2", "p1", "b2"),
        node("Conv", "b2", "w2", "bias2", pads=[1, 1, 1, 1], out="c2"),
        bn("n3", "c2", "b3"),
        node("Add", "b3", "p1", out="sum"),
        node("Flatten", "sum", out="flat"),
        node("Gemm", "flat", "w3", "bias3", transB=1, out="g"),
        bn("n4", "g", "out"),
    ]
    constants = norm | {
        "w1": weights(8, 3, 3, 3),
        "a1": weights(8, 1, 1, seed=5),
        "w2": weights(8, 8, 3, 3, seed=6) / 5,
        "bias2": weights(8, seed=7),
        "w3": weights(16, 8 * 14 * 12, seed=8) / 30,
        "bias3": weights(16, seed=10),
    }
    return save(path, nodes, constants, shape=("None", 3, 14, 12))


def test_insightface_like_network_folds_and_agrees(tmp_path):
    path = insightface_like(tmp_path / "net.onnx")
    agree(path)
    network = read_onnx(path)
    labels = [step.label.split()[0] for step in network._steps]
    # Of four normalisations the one before a padded convolution must stay.
    assert labels == ["Conv", "PRelu", "BatchNormalization", "Conv", "Add", "Flatten", "Gemm"]
    assert not any(parameter.requires_grad for parameter in network.buffers())
    assert not list(network.parameters())


def test_normalisation_with_two_readers_of_its_convolution_stays(tmp_path):
    nodes = [
        node("Conv", X, "w", out="c"),
        node("BatchNormalization", "c", "g", "s", "m", "v", out="n"),
        node("Add", "c", "n"),
    ]
    path = save(tmp_path / "net.onnx", nodes, AFFINE | {"w": weights(3, 3, 3, 3)})
    agree(path)


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(2, 5), (2, 1), (1, 5), (5,)])
def test_normalisation_after_a_gemm_whose_bias_may_differ_by_row_agrees(shape, beta, tmp_path):
    constants = {
        "w": weights(5, 504), "b": weights(*shape, seed=1), "g": weights(5), "s": weights(5, seed=1),
        "m": weights(5, seed=2), "v": weights(5, seed=3, positive=True),
    }  # fmt: skip
    nodes = [
        FLAT,
        node("Gemm", "flat", "w", "b", transA=0, transB=1, alpha=1.0, beta=beta, out="e"),
        node("BatchNormalization", "e", "g", "s", "m", "v"),
    ]
    path = save(tmp_path / "net.onnx", nodes, constants)
    agree(path)
    by_row = shape[0] == 2
    assert len(read_onnx(path)._steps) == (3 if by_row else 2)


def test_input_gradient_agrees_with_finite_differences(tmp_path):
    network = read_onnx(insightface_like(tmp_path / "net.onnx")).double()
    images = torch.from_numpy(weights(1, 3, 14, 12, seed=3)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: network(x)[:, :3], (images,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (1,), (4, 1, 1)])
def test_prelu_gradient_is_that_of_torch(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 6, generator=generator).contiguous(memory_format=torch.channels_last)
    slope = torch.randn(shape, generator=generator)
    slope = slope.view(-1, 1, 1) if len(shape) == 1 and shape[0] > 1 else slope
    upstream = torch.randn(2, 4, 5, 6, generator=generator)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    (found,) = torch.autograd.grad(prelu(ours, slope), ours, upstream)
    (expected,) = torch.autograd.grad(F.prelu(theirs, slope.flatten()), theirs, upstream)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_result_does_not_depend_on_memory_format_or_on_the_call(tmp_path):
    network = read_onnx(insightface_like(tmp_path / "net.onnx"))
    images = torch.from_numpy(weights(4, 3, 14, 12))
    first = network(images)
    assert torch.equal(first, network(images.contiguous(memory_format=torch.channels_last)))


def test_moving_the_network_moves_what_its_steps_hold(tmp_path):
    network = read_onnx(insightface_like(tmp_path / "net.onnx")).double()
    held = [a for step in network._steps for a in step.arguments if a is not None]
    assert held
    assert all(a.dtype == torch.float64 for a in held if a.is_floating_point())


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [node("Det", X)],
            r"operator 'Det' of node 'the_Det' is not among the \d+ that are read with gradients",
        ),
        ([node("Cast", X, to=TensorProto.STRING)], "casts to ONNX type 8"),
        ([helper.make_node("MaxPool", [X], ["m", "out"], kernel_shape=[2, 2])], "first output only"),
        ([node("Gelu", X)], "operator 'Gelu' of node 'the_Gelu' is not in ONNX opset 17"),
    ],
)
def test_what_another_program_may_read_is_told_from_what_is_broken(nodes, message, tmp_path):
    path = save(tmp_path / "net.onnx", nodes, {})
    with pytest.raises(UnreadableNetworkError, match=rf"net\.onnx: .*{message}"):
        read_onnx(path)


def test_slopes_and_statistics_of_one_axis_are_of_the_channels_as_mxnet_means_them(tmp_path):
    path = save(tmp_path / "slopes.onnx", [node("PRelu", X, "a")], {"a": weights(3)})
    images = torch.from_numpy(weights(2, 3, 14, 12))
    torch.testing.assert_close(read_onnx(path)(images), F.prelu(images, torch.from_numpy(weights(3))))
    norm = node("BatchNormalization", X, "g", "s", "m", "v", spatial=0)
    found = read_onnx(save(tmp_path / "norm.onnx", [norm], AFFINE, opset=8))(images)
    statistics = [torch.from_numpy(AFFINE[key]) for key in "mvgs"]
    torch.testing.assert_close(found, F.batch_norm(images, *statistics))


def chain(folder, length):
    nodes = [node("Add", X if i == 0 else f"v{i}", f"c{i % 50}", out=f"v{i + 1}") for i in range(length)]
    constants = {f"c{i}": weights(12, seed=i) for i in range(50)}
    return save(folder / f"chain-{length}.onnx", [*nodes, node("Relu", f"v{length}")], constants)


def reading_time(path):
    start = process_time()
    read_onnx(path)
    return process_time() - start


def test_the_time_to_read_a_chain_grows_with_its_length_not_with_its_square(tmp_path):
    short, long = chain(tmp_path, 1_000), chain(tmp_path, 20_000)
    read_onnx(short)  # imports
    ratio = reading_time(long) / min(reading_time(short) for _ in range(5))
    assert ratio < 100, "20 times the nodes; their square would be 400 times"
    assert read_onnx(long)(torch.zeros(1, 3, 14, 12)).shape == (1, 3, 14, 12)


def test_of_several_outputs_the_one_of_more_than_one_number_a_row_is_the_embedding(tmp_path):
    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    nodes = [
        FLAT,
        node("ReduceL2", "flat", axes=[1], out="norm"),
        node("Div", "flat", "norm", out="embedding"),
    ]
    path = save(tmp_path / "net.onnx", nodes, {}, outputs=[value("norm", 1), value("embedding", 504)])
    network = read_onnx(path)
    assert network.published == "embedding"
    assert network(torch.ones(2, 3, 14, 12)).shape == (2, 504)
    path = save(tmp_path / "net.onnx", nodes, {}, outputs=[value("flat", 504), value("embedding", 504)])
    with pytest.raises(DataError, match=r"one output.*it has 2: flat, embedding"):
        read_onnx(path)


def external(folder, values, location="net.onnx.data"):
    """Write a network whose weights lie in another file, as torch's exporter does."""
    folder.mkdir()
    path = save(folder / "net.onnx", [FLAT, node("MatMul", "flat", "w")], {"w": values})
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    if location != "net.onnx.data":
        path.write_bytes(path.read_bytes().replace(b"net.onnx.data", location.encode()))
    return path


def test_weights_in_another_file_are_read_named_and_part_of_the_digest(tmp_path):
    one, other = (external(tmp_path / key, weights(504, 5, seed=seed)) for key, seed in (("a", 0), ("b", 1)))
    assert one.read_bytes() == other.read_bytes()
    assert external_files(one) == (tmp_path / "a" / "net.onnx.data",)
    assert digest_of(one) != digest_of(other)
    agree(one)
    plain = save(tmp_path / "plain.onnx", [node("Relu", X)], {})
    assert external_files(plain) == ()
    assert digest_of(plain) == sha256_of(plain)
    (tmp_path / "a" / "net.onnx.data").unlink()
    for read in (read_onnx, external_files, digest_of):
        with pytest.raises(DataError, match=r"a/net\.onnx"):
            read(one)


@pytest.mark.parametrize("location", ["../b/data.ext", "/etc/passwd.x", "link/data.ext"])
def test_weights_outside_the_files_folder_are_not_read(location, tmp_path):
    assert len(location) == len("net.onnx.data")
    external(tmp_path / "b", weights(504, 5))
    path = external(tmp_path / "a", weights(504, 5), location)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    for read in (read_onnx, external_files):
        with pytest.raises(DataError, match=f"in '{location}', outside its folder, where nothing is read"):
            read(path)


def test_a_damaged_file_is_refused_in_one_sentence_or_read(tmp_path):
    whole = insightface_like(tmp_path / "whole.onnx").read_bytes()
    graph = [i for i in range(len(whole)) if whole[i : i + 1].isalpha()]  # names, rather than weights
    rng = np.random.default_rng(0)
    path = tmp_path / "net.onnx"
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.choice(graph, 2):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        with suppress(DataError):  # anything else fails the test
            read_onnx(path)


@pytest.mark.parametrize("content", [b"", b"no network at all", b"\x08\x08\x12\x07"])
def test_corrupt_file_is_refused(content, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"net\.onnx .*(no readable ONNX file|holds no ONNX network)"):
        read_onnx(path)


def test_truncated_file_is_refused(tmp_path):
    whole = insightface_like(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "net.onnx"
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=r"net\.onnx"):
            read_onnx(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"net\.onnx is not a file"):
        read_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        (("n", 3, 14), r"\? × 3 × 14"),
        ((1, 14, 12, 3), "1 × 14 × 12 × 3.*channels last: transpose its input"),
        (("n", "h", "w", 3), r"\? × \? × \? × 3.*channels last: transpose its input"),
        ((1, 1, 9, 9), "1 × 1"),
    ],
)
def test_input_that_is_no_rgb_image_is_refused(shape, found, tmp_path):
    path = save(tmp_path / "net.onnx", [node("Relu", X)], {}, shape=shape)
    with pytest.raises(DataError, match=found):
        read_onnx(path)


def test_two_inputs_or_two_outputs_are_refused(tmp_path):
    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    nodes = [node("Add", X, "other")]
    path = save(tmp_path / "net.onnx", nodes, {}, inputs=[value(X), value("other")])
    with pytest.raises(DataError, match=r"one input.*it has 2: input\.1, other"):
        read_onnx(path)
    nodes = [node("Relu", X), node("Sigmoid", X, out="second")]
    path = save(tmp_path / "net.onnx", nodes, {}, outputs=[value("out"), value("second")])
    with pytest.raises(DataError, match=r"one output.*it has 2: out, second"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("Relu", "nothing")], {}, "reads 'nothing', which nothing makes"),
        ([node("Relu", X, out="elsewhere")], {}, "nothing computes the output 'out'"),
        ([node("Conv", X, "w")], {"w": weights(4, 3, 3)}, "only two-dimensional convolutions"),
        ([node("Conv", X, X)], {}, "is not a constant"),
        ([node("Concat", X, X)], {}, "Concat node 'the_Concat' is malformed"),
        ([helper.make_node("Relu", [X], [])], {}, "has no output"),
        ([node("Constant", out="c"), node("Add", X, "c")], {}, "holds 0 values, not one"),
        ([node("BatchNormalization", X)], {}, "BatchNormalization node 'the_BatchNormalization' has 1 inputs"),
        ([node("Relu", X), node("Neg", X)], {}, "makes 'out', which is there already"),
        ([node("Relu", X, out="a"), node("LeakyRelu", "a", alpha=2)], {}, "'alpha' of LeakyRelu .* of a wrong kind"),
        ([node("Reshape", "c", "s", out="d"), node("Add", X, "d")],
         {"c": weights(4), "s": np.array([3, 3], I64)}, "Reshape node 'd' cannot be computed"),
    ],
)  # fmt: skip
def test_malformed_graph_is_refused(nodes, constants, message, tmp_path):
    path = save(tmp_path / "net.onnx", nodes, constants)
    with pytest.raises(DataError, match=message):
        read_onnx(path)


def test_old_opset_is_refused(tmp_path):
    path = save(tmp_path / "net.onnx", [node("Relu", X)], {}, opset=6)
    with pytest.raises(DataError, match="opset 6; export it with opset 7 or newer"):
        read_onnx(path)


def test_error_while_running_names_the_node(tmp_path):
    network = read_onnx(save(tmp_path / "net.onnx", [FLAT, node("MatMul", "flat", "w")], MATRIX))
    with pytest.raises(RuntimeError) as caught:
        network(torch.zeros(1, 3, 9, 9))
    assert caught.value.__notes__ == ["in MatMul node 'the_MatMul'"]


def trainable_net(path):
    """Write Conv–BatchNorm–PRelu–BatchNorm (not foldable)–Clip–Flatten–Gemm, then a scalar Mul and an Add."""
    graph = [
        node("Conv", X, "w1", out="c"),
        node("BatchNormalization", "c", "g1", "s1", "m1", "v1", out="n"),
        node("PRelu", "n", "a", out="p"),
        node("BatchNormalization", "p", "g2", "s2", "m2", "v2", out="n2"),
        node("Clip", "n2", "low", "high", out="k"),
        node("Flatten", "k", out="f"),
        node("Gemm", "f", "w2", "b2", transB=1, out="e"),
        node("Mul", "e", "two", out="twice"),
        node("Add", "twice", "offset"),
    ]
    norms = {
        f"{kind}{k}": weights(4, seed=place + 5 * k, positive=kind == "v")
        for k in (1, 2)
        for place, kind in enumerate("gsmv")
    }
    constants = norms | {
        "w1": weights(4, 3, 3, 3),
        "a": weights(4, 1, 1, seed=2),
        "low": np.float32(-2),
        "high": np.float32(2),
        "w2": weights(5, 4 * 12 * 10) / 20,
        "b2": weights(5),
        "two": np.float32(2),
        "offset": weights(5, seed=3),
    }
    return save(path, graph, constants)


def test_a_trainable_copy_gives_the_same_and_has_the_weights_as_parameters(tmp_path):
    fixed = read_onnx(trainable_net(tmp_path / "net.onnx"))
    copy = fixed.trainable()
    images = torch.from_numpy(weights(2, 3, 14, 12, seed=9))
    torch.testing.assert_close(copy(images), fixed(images), rtol=0, atol=0)
    # Convolution with its batch norm (2), slopes, the other norm's factor and offset, Gemm (2), offset.
    assert sorted(tuple(p.shape) for p in copy.parameters()) == sorted(
        [(4, 3, 3, 3), (4,), (4, 1, 1), (4,), (4,), (5, 480), (5,), (5,)]
    )
    assert all(p.requires_grad for p in copy.parameters())
    # The second norm's statistics and the single factor stay as they are.
    assert sorted(tuple(b.shape) for b in copy.buffers() if b.numel() != 0)[-2:] == [(4,), (4,)]
    assert not list(fixed.parameters())


def test_training_the_copy_moves_every_parameter_by_its_gradient_and_leaves_the_original(tmp_path):
    fixed = read_onnx(trainable_net(tmp_path / "net.onnx"))
    copy = fixed.trainable()
    images = torch.from_numpy(weights(2, 3, 14, 12, seed=9))
    before = fixed(images).clone()
    aim = torch.from_numpy(weights(2, 5, seed=4))
    (copy(images) * aim).sum().backward()
    for parameter in copy.parameters():
        gradient = parameter.grad
        assert gradient is not None
        assert gradient.abs().sum() > 0
        direction = torch.sign(gradient)
        with torch.no_grad():
            parameter.add_(1e-3 * direction)
            ahead = (copy(images).double() * aim).sum()
            parameter.sub_(2e-3 * direction)
            behind = (copy(images).double() * aim).sum()
            parameter.add_(1e-3 * direction)
        rise = (ahead - behind) / 2e-3
        assert abs(rise - gradient.abs().sum()) < 0.05 * gradient.abs().sum() + 1e-2
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.sub_(0.1 * parameter.grad)
    assert not torch.allclose(copy(images), before)
    assert torch.equal(fixed(images), before)


def test_a_slope_gets_the_gradient_of_torchs_own_prelu():
    for shape in ((2, 3, 5, 4), (6, 3)):
        x = torch.from_numpy(weights(*shape)).requires_grad_()
        upstream = torch.from_numpy(weights(*shape, seed=1))
        for count in (1, 3):
            slope = torch.from_numpy(weights(count, seed=2)).requires_grad_()
            shaped = slope.view(-1, *[1] * (x.ndim - 2))
            ours = torch.autograd.grad((prelu(x, shaped) * upstream).sum(), (x, slope))
            torchs = torch.autograd.grad((F.prelu(x, slope) * upstream).sum(), (x, slope))
            for a, b in zip(ours, torchs, strict=True):
                torch.testing.assert_close(a, b)
