"""Converted networks against the same networks written here in torch, layer by layer, nothing folded."""

import ast
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.assets import catalogue
from bench.contracts import Recipe
from bench.data.converters import Converter
from bench.data.dlib_files import MARK, read_network
from bench.data.files import data_folder
from bench.data.mxnet_files import read_arrays, read_symbols
from bench.errors import DataError
from bench.plugins import factory
from bench.randomness import torch_generator
from fr_models import _convert_dlib_resnet, _convert_mobileface, _convert_mobilefacenet_casia
from fr_models._convert_mobilefacenet_relu6 import convert as convert_relu6
from fr_models._onnx_backbone import prepare
from fr_models._onnx_reader import read_onnx

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import foreign_files as foreign

UPSTREAM = data_folder() / "upstream"
needs_upstream = pytest.mark.skipif(not UPSTREAM.is_dir(), reason="CLOAKBENCH_DATA has no folder upstream")


def run(path, pixels):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": pixels.numpy()})[0]


def pixels(count, height, width, largest=1.0):
    return largest * torch.randn(count, 3, height, width, generator=torch_generator(0, "pixels"))


def assert_same(path, images, expected):
    """Compare both programs that run a file with what it should give, in units of the longest embedding."""
    wanted = expected.detach().numpy()
    unit = np.linalg.norm(wanted, axis=1).max()
    np.testing.assert_allclose(run(path, images) / unit, wanted / unit, atol=1e-5)
    with torch.inference_mode():
        np.testing.assert_allclose(read_onnx(path)(images).numpy() / unit, wanted / unit, atol=1e-5)


def assert_made_the_same_again(convert, sources, path, tmp_path):
    again = tmp_path / "elsewhere" / "again.onnx"
    again.parent.mkdir()
    convert(sources, again)
    assert again.read_bytes() == path.read_bytes()
    onnx.checker.check_model(str(path), full_check=True)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


# -- MobileFaceNet, PyTorch --------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """Named as in Xiaoccer/MobileFaceNet_Pytorch."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        wide = inputs * expansion
        self.connect = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        return x + self.conv(x) if self.connect else self.conv(x)


class Unit(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, padding, groups=1, linear=False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        if not linear:
            self.prelu = nn.PReLU(outputs)

    def forward(self, x):
        x = self.bn(self.conv(x))
        return self.prelu(x) if hasattr(self, "prelu") else x


class MobileFaceNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = Unit(3, 64, 3, 2, 1)
        self.dw_conv1 = Unit(64, 64, 3, 1, 1, groups=64)
        blocks = [Bottleneck(64, 64, 2, 2), *(Bottleneck(64, 64, 1, 2) for _ in range(4))]
        blocks += [Bottleneck(64, 128, 2, 4), *(Bottleneck(128, 128, 1, 2) for _ in range(6))]
        blocks += [Bottleneck(128, 128, 2, 4), *(Bottleneck(128, 128, 1, 2) for _ in range(2))]
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = Unit(128, 512, 1, 1, 0)
        self.linear7 = Unit(512, 512, (7, 6), 1, 0, groups=512, linear=True)
        self.linear1 = Unit(512, 128, 1, 1, 0, linear=True)

    def forward(self, x):
        x = self.blocks(self.dw_conv1(self.conv1(x)))
        return self.linear1(self.linear7(self.conv2(x))).flatten(1)


@pytest.fixture(scope="module")
def mobilefacenet():
    """Return the network in float64, with statistics that a training could leave."""
    generator = torch_generator(0, "test", "mobilefacenet")
    network = MobileFaceNet().eval()
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 4:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.ndim == 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2 + name.endswith("weight") * 0.8)
    return network


@pytest.fixture
def checkpoint(mobilefacenet, tmp_path):
    path = tmp_path / "068.ckpt"
    torch.save({"epoch": 68, "net_state_dict": mobilefacenet.state_dict()}, path)
    return path


def test_a_checkpoint_becomes_the_network_it_is_of(mobilefacenet, checkpoint, tmp_path):
    path = tmp_path / "casia.onnx"
    convert = _convert_mobilefacenet_casia.convert
    convert((checkpoint,), path)
    images = pixels(2, 112, 96)
    with torch.inference_mode():
        expected = mobilefacenet.double()(images.double())
    mobilefacenet.float()
    assert_same(path, images, expected)
    assert_made_the_same_again(convert, (checkpoint,), path, tmp_path)


class Opener:
    """Pickles as a call that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_checkpoints_of_other_networks_and_pickled_code_are_refused(mobilefacenet, tmp_path):
    path, target, left = tmp_path / "068.ckpt", tmp_path / "casia.onnx", tmp_path / "left"
    state = mobilefacenet.state_dict()
    for change in (
        {"linear1.bn.bias": torch.zeros(127)},
        {"more": torch.zeros(1)},
        {"conv1.conv.weight": torch.zeros(64, 3, 3, 3, dtype=torch.float64)},
    ):
        torch.save({"net_state_dict": state | change}, path)
        with pytest.raises(DataError, match=rf"068\.ckpt is another network: .*{next(iter(change))}"):
            _convert_mobilefacenet_casia.convert((path,), target)
    torch.save({"net_state_dict": state, "run": Opener(left)}, path)
    with pytest.raises(DataError, match=r"068\.ckpt names classes that would have to be imported"):
        _convert_mobilefacenet_casia.convert((path,), target)
    assert not left.exists()
    assert not target.exists()


# -- MobileFace, MXNet -------------------------------------------------------------------------------------------


def _convolved(given, settings):
    names = {"stride": "stride", "padding": "pad", "groups": "num_group"}
    chosen = {ours: settings[theirs] for ours, theirs in names.items() if theirs in settings}
    return F.conv2d(*given, **chosen)


def _normed(given, settings):
    x, gamma, beta, mean, variance = given
    gamma = torch.ones_like(gamma) if settings.get("fix_gamma", True) else gamma
    return F.batch_norm(x, mean, variance, gamma, beta, eps=settings.get("eps", 1e-3))


MXNET = {
    "_minus_scalar": lambda given, settings: given[0] - settings["scalar"],
    "_mul_scalar": lambda given, settings: given[0] * settings["scalar"],
    "_maximum_scalar": lambda given, settings: given[0].clamp_min(settings["scalar"]),
    "_minimum_scalar": lambda given, settings: given[0].clamp_max(settings["scalar"]),
    "Convolution": _convolved,
    "BatchNorm": _normed,
    "LeakyReLU": lambda given, settings: F.prelu(*given),
    "elemwise_add": lambda given, settings: given[0] + given[1],
    "Flatten": lambda given, settings: given[0].flatten(1),
    "FullyConnected": lambda given, settings: F.linear(*given),
    "L2Normalization": lambda given, settings: F.normalize(given[0]),
}
"""What MXNet's documentation says of each operator: (what it reads, its settings) → what it gives."""


def interpreted(symbols, arrays, images):
    """Return the output of a graph of MXNet, node by node, in float64."""
    values = []
    for symbol in symbols:
        if symbol.operator == "null":
            held = arrays.get(symbol.name)
            values.append(images.double() if held is None else torch.from_numpy(held).double())
        else:
            settings = {key: _literal(text) for key, text in symbol.attributes.items()}
            values.append(MXNET[symbol.operator]([values[place] for place in symbol.inputs], settings))
    return values[-1]


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def node(operator, name, inputs=(), **attributes):
    settings = {key: str(value) for key, value in attributes.items()}
    return {"op": operator, "name": name, "attrs": settings, "inputs": [[place, 0, 0] for place in inputs]}


NODES = [
    node("null", "data"),
    node("_minus_scalar", "centre", [0], scalar=127.5),
    node("_mul_scalar", "scale", [1], scalar=0.0078125),
    node("null", "conv_weight"),
    node("null", "conv_bias"),
    node("Convolution", "conv", [2, 3, 4], kernel=(5, 3), stride=(14, 8), pad=(2, 1), num_filter=4),
    node("null", "bn_gamma"),
    node("null", "bn_beta"),
    node("null", "bn_moving_mean"),
    node("null", "bn_moving_var"),
    node("BatchNorm", "bn", [5, 6, 7, 8, 9], fix_gamma=False, eps=0.01),
    node("_maximum_scalar", "low", [10], scalar=-0.5),
    node("_minimum_scalar", "high", [11], scalar=0.75),
    node("null", "dw_weight"),
    node("Convolution", "dw", [12, 13], kernel=(3, 3), pad=(1, 1), num_filter=4, num_group=4, no_bias=True),
    node("BatchNorm", "fixed", [14, 6, 7, 8, 9]),
    node("null", "slopes"),
    node("LeakyReLU", "prelu", [15, 16], act_type="prelu"),
    node("elemwise_add", "sum", [17, 12]),
    node("_maximum_scalar", "relu", [18], scalar=0),
    node("Flatten", "flat", [19]),
    node("null", "fc_weight"),
    node("FullyConnected", "fc", [20, 21], num_hidden=6, no_bias=True),
    node("L2Normalization", "unit", [22]),
]


def drawn_arrays():
    shapes = {
        "conv_weight": (4, 3, 5, 3),
        "conv_bias": (4,),
        "bn_gamma": (4,),
        "bn_beta": (4,),
        "bn_moving_mean": (4,),
        "bn_moving_var": (4,),
        "dw_weight": (4, 1, 3, 3),
        "slopes": (4,),
        "fc_weight": (6, 4 * 8 * 14),
    }
    generator = torch_generator(0, "test", "mxnet")
    drawn = {name: torch.randn(shape, generator=generator).numpy() for name, shape in shapes.items()}
    return drawn | {"bn_moving_var": np.abs(drawn["bn_moving_var"]) + np.float32(0.1)}


@pytest.fixture
def mxnet(tmp_path):
    """Return a function that writes a graph and its arrays."""

    def write(nodes=NODES, **changes):
        symbol, parameters = tmp_path / "net-symbol.json", tmp_path / "net-0000.params"
        symbol.write_text(json.dumps({"nodes": nodes, "heads": [[len(nodes) - 1, 0, 0]]}))
        parameters.write_bytes(foreign.parameter_file(drawn_arrays() | changes))
        return symbol, parameters

    return write


def test_every_operator_of_mxnet_does_what_its_documentation_says(mxnet, tmp_path):
    sources, path = mxnet(), tmp_path / "net.onnx"
    convert = _convert_mobileface.convert
    convert(sources, path)
    images = 40 * pixels(3, 112, 112) + 127.5
    expected = interpreted(read_symbols(sources[0]), read_arrays(sources[1]), images)
    found = torch.from_numpy(run(path, (images - 127.5) / 128))
    # The graph's last node is left out; embeddings keep their length.
    assert found.norm(dim=1).std() > 1e-3
    torch.testing.assert_close(F.normalize(found).double(), expected, atol=1e-5, rtol=0)
    assert {each.op_type for each in onnx.load(path).graph.node} == {
        "Conv",
        "Clip",
        "PRelu",
        "Add",
        "Flatten",
        "Gemm",
    }
    assert_made_the_same_again(convert, sources, path, tmp_path)


def changed(place, **attributes):
    nodes = [dict(each) for each in NODES]
    nodes[place] |= attributes
    return nodes


BROKEN_GRAPHS = {
    "other operator": (changed(19, op="Dropout"), "not among the operators read"),
    "other mean": (changed(1, attrs={"scalar": "128"}), "does not standardise pixels"),
    "no mean": (changed(1, attrs={}), "setting scalar of .* is missing"),
    "a setting that is no number": (changed(11, attrs={"scalar": "low"}), "setting scalar of .* is low"),
    "holes": (
        changed(5, attrs=NODES[5]["attrs"] | {"dilate": "(2, 2)"}),
        r"setting dilate of .* is \(2, 2\)",
    ),
    "other kernel": (changed(5, attrs=NODES[5]["attrs"] | {"kernel": "(3, 3)"}), "a kernel of"),
    "other filters": (changed(5, attrs=NODES[5]["attrs"] | {"num_filter": "5"}), "has 5 outputs"),
    "a pair of three": (changed(5, attrs=NODES[5]["attrs"] | {"pad": "(1, 1, 1)"}), "setting pad"),
    "elu": (changed(17, attrs={"act_type": "elu"}), "setting act_type"),
    "a norm of a sum": (changed(10, inputs=[[2, 0, 0], *NODES[10]["inputs"][1:]]), "does not follow a layer"),
    "another array": (
        changed(10, inputs=[*NODES[10]["inputs"][:4], [3, 0, 0]]),
        "array 'conv_weight' is float32",
    ),
    "two images": (changed(16, name="other"), "is read as an image|must lead from one image|missing"),
    "flattened by itself": (
        changed(20, op="elemwise_add", inputs=[[19, 0, 0], [18, 0, 0]]),
        "a Flatten gives",
    ),
}


@pytest.mark.parametrize(("nodes", "message"), BROKEN_GRAPHS.values(), ids=BROKEN_GRAPHS)
def test_graphs_that_are_not_read_are_refused_by_node_and_reason(mxnet, tmp_path, nodes, message):
    with pytest.raises(DataError, match=rf"net-symbol\.json.*({message})"):
        _convert_mobileface.convert(mxnet(nodes), tmp_path / "net.onnx")


def test_arrays_that_do_not_fit_are_refused(mxnet, tmp_path):
    sources = mxnet(bn_beta=np.zeros(5, np.float32))
    with pytest.raises(DataError, match=r"array 'bn_beta' is float32 of shape \(5,\), not float32 of \(4,\)"):
        _convert_mobileface.convert(sources, tmp_path / "net.onnx")


# -- dlib --------------------------------------------------------------------------------------------------------


def dlib_file(widths=(2, 3, 4, 5, 6)):
    """Return a file of dlib's face network with few channels: one number a group of blocks of one width."""
    generator = torch_generator(0, "test", "dlib")

    def drawn(*shape):
        fan = np.prod(shape[1:]) if len(shape) == 4 else 9
        return (torch.randn(shape, generator=generator) / fan**0.5).numpy()

    def conv(inputs, outputs, kernel, stride):
        padding = 0 if stride == 2 else kernel // 2
        layer = foreign.convolution(drawn(outputs, inputs, kernel, kernel), drawn(outputs), stride, padding)
        return [layer, foreign.affine(drawn(outputs) + 1, drawn(outputs))]

    def pool(name, kernel, stride):
        return foreign.text(name) + foreign.sides(kernel, kernel, stride, stride) + foreign.sides(0, 0)

    relu, add = foreign.text("relu_"), foreign.text("add_prev_")
    layers = [*conv(3, widths[0], 7, 2), relu, pool("max_pool_2", 3, 2)]
    inputs = widths[0]
    for outputs, repetitions in zip(widths, (3, 4, 3, 3, 1), strict=True):
        for repetition in range(repetitions):
            halved = repetition == 0 and outputs != widths[0]
            block = [None, *conv(inputs, outputs, 3, 2 if halved else 1), relu, *conv(outputs, outputs, 3, 1)]
            layers += [*block, *([None, None, pool("avg_pool_2", 2, 2)] if halved else []), add, relu]
            inputs = outputs
    layers += [pool("avg_pool_2", 0, 1), foreign.matrix(drawn(inputs, 128))]
    return foreign.network(*layers)


def _scaled(x, layer):
    weight, bias = (
        torch.from_numpy(layer.arrays[name]).double()[:, None, None] for name in ("weight", "bias")
    )
    return x * weight + bias


def _convolved_by_dlib(x, layer):
    weight, bias = (torch.from_numpy(layer.arrays[name]).double() for name in ("weight", "bias"))
    return F.conv2d(x, weight, bias, stride=int(layer.numbers[0]), padding=int(layer.numbers[2]))


DLIB = {
    "input_rgb_image_sized": lambda x, layer: (
        (x - torch.tensor(layer.numbers[:3]).double()[:, None, None]) / 256
    ),
    "con_4": _convolved_by_dlib,
    "affine_": _scaled,
    "relu_": lambda x, layer: x.relu(),
    "max_pool_2": lambda x, layer: F.max_pool2d(x, 3, 2),
    "avg_pool_2": lambda x, layer: F.avg_pool2d(x, 2, 2) if layer.numbers[0] else x.mean((2, 3)),
    "fc_2": lambda x, layer: x @ torch.from_numpy(layer.arrays["weight"]).double(),
    "loss_metric_2": lambda x, layer: x,
}


def filled_sum(one, other):
    """Return the sum of two maps, each filled up with zeros to the size of the larger."""
    total = torch.zeros(
        [max(sides) for sides in zip(one.shape, other.shape, strict=True)], dtype=torch.float64
    )
    for part in (one, other):
        total[tuple(map(slice, part.shape))] += part
    return total


def of_dlib(layers, images):
    """Return what dlib's layers give, in float64; the third mark of a block goes on from what the first one marked."""
    x, marked = images.double(), []
    for layer in layers:
        if layer.kind == MARK:
            marked.append(x)
            x = marked[0] if len(marked) == 3 else x
        elif layer.kind == "add_prev_":
            x, marked = filled_sum(x, marked[0] if len(marked) == 1 else marked[1]), []
        else:
            x = DLIB[layer.kind](x, layer)
    return x


def test_dlibs_layers_become_the_network_they_are_of(tmp_path):
    source, path = tmp_path / "net.dat", tmp_path / "net.onnx"
    source.write_bytes(dlib_file())
    convert = _convert_dlib_resnet.convert
    convert((source,), path)
    images = 127.5 + pixels(2, 150, 150, largest=60)
    expected = of_dlib(read_network(source), images)
    assert expected.norm(dim=1).min() > 0.01
    assert_same(path, images, expected)
    assert_made_the_same_again(convert, (source,), path, tmp_path)


AVERAGED = foreign.text("avg_pool_2")


@pytest.mark.parametrize(
    "content",
    [
        foreign.network(foreign.text("relu_")),
        dlib_file().replace(foreign.integer(150) * 2, foreign.integer(151) * 2),
        dlib_file().replace(AVERAGED + foreign.sides(2, 2, 2, 2), AVERAGED + foreign.sides(2, 2, 2, 1)),
    ],
)
def test_other_networks_of_dlib_are_refused(tmp_path, content):
    source = tmp_path / "net.dat"
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"net\.dat is another network than dlib's face recognition model"):
        _convert_dlib_resnet.convert((source,), tmp_path / "net.onnx")


# -- an ONNX file of one image -----------------------------------------------------------------------------------


def one_image(tmp_path, last="Reshape", batch=1):
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(np.ones((4, 3, 2, 2), np.float32), "w")
    shape = onnx.numpy_helper.from_array(np.array([1, -1]), "shape")
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["map"], strides=[2, 2]),
        helper.make_node(last, ["map", "shape"] if last == "Reshape" else ["map"], ["output"], name="end"),
    ]
    values = [("input", [batch, 3, 4, 4]), ("output", [batch, 16])]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sides) for name, sides in values]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, shape])
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), path)
    return path


def test_a_network_of_one_image_takes_many_afterwards(tmp_path):
    source, path = one_image(tmp_path), tmp_path / "many.onnx"
    convert_relu6((source,), path)
    images = pixels(3, 4, 4)
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    expected = [session.run(None, {"input": image[None].numpy()})[0][0] for image in images]
    np.testing.assert_array_equal(run(path, images), expected)
    assert_made_the_same_again(convert_relu6, (source,), path, tmp_path)


@pytest.mark.parametrize(("last", "batch"), [("Flatten", 1), ("Reshape", 2)])
def test_other_onnx_networks_are_refused(tmp_path, last, batch):
    with pytest.raises(DataError, match=r"one\.onnx is not the network expected"):
        convert_relu6((one_image(tmp_path, last, batch),), tmp_path / "many.onnx")


@pytest.mark.parametrize("content", [b"", b"\x08", b"no protobuf at all"])
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    path = tmp_path / "one.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"one\.onnx is (no ONNX file|not the network)"):
        convert_relu6((path,), tmp_path / "many.onnx")


# -- the published files -----------------------------------------------------------------------------------------

NAMES = ("mobilefacenet-relu6", "mobilefacenet-casia", "mobileface-v2", "mobileface-v3")


def recipe_of(name) -> Recipe:
    return factory.backbone(name).recipes[0]


def test_every_converter_that_is_named_is_there():
    named = [
        recipe.convert
        for entry in catalogue.catalogue("weights")
        for file in entry.files
        for recipe in file.recipes
        if isinstance(recipe.convert, Converter)
    ]
    assert len(named) >= 8
    assert all(callable(converter.load()) for converter in named)


@pytest.mark.real_data
@needs_upstream
@pytest.mark.parametrize("name", NAMES)
def test_a_published_file_becomes_the_file_its_card_pins(name, tmp_path):
    recipe, card = recipe_of(name), factory.backbone(name).card
    sources = tuple(UPSTREAM / source.name for source in recipe.sources)
    for source, path in zip(recipe.sources, sources, strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == source.sha256
        assert path.stat().st_size == source.bytes
    made = tmp_path / "made.onnx"
    recipe.convert(sources, made)
    assert hashlib.sha256(made.read_bytes()).hexdigest() == card.sha256


@pytest.mark.real_data
@needs_upstream
@pytest.mark.parametrize("name", NAMES)
def test_faces_embed_as_with_the_file_of_another_program(name, tmp_path):
    recipe, card = recipe_of(name), factory.backbone(name).card
    if not card.equivalents:
        pytest.skip("the converter's file is the one that was there before")
    other = data_folder() / card.file
    if hashlib.sha256(other.read_bytes()).hexdigest() not in card.equivalents:
        pytest.skip(f"{other} is the converter's own")
    made = tmp_path / "made.onnx"
    recipe.convert(tuple(UPSTREAM / source.name for source in recipe.sources), made)
    faces = factory.dataset("lfw")
    ids = [identity.photos[0] for identity in faces.identities() if identity.role == "training"][:16]
    images = prepare(faces.crops(ids).float() / 255, card.preprocessing).contiguous()
    found, expected = (F.normalize(torch.from_numpy(run(path, images))) for path in (made, other))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.real_data
@needs_upstream
@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_published_networks_of_mxnet_give_what_their_graphs_say(version, tmp_path):
    stem = f"MobileFace_Identification_V{version}"
    sources = (UPSTREAM / f"{stem}-symbol.json", UPSTREAM / f"{stem}-0000.params")
    path = tmp_path / "net.onnx"
    _convert_mobileface.convert(sources, path)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1].dim_value == (
        1 if version == 1 else 3
    )
    graph = read_symbols(sources[0]), read_arrays(sources[1])
    given = pixels(1, 112, 112, largest=0.3)
    if version == 1:  # sees grey, standardised by the caller, and ends in an L2 normalisation
        found = F.normalize(torch.from_numpy(run(path, given[:, :1])))
        torch.testing.assert_close(found.double(), interpreted(*graph, given[:, :1]), atol=1e-5, rtol=0)
    else:
        assert_same(path, given, interpreted(*graph, 128 * given.double() + 127.5))


def test_cards_preprocess_as_the_graphs_of_mxnet_do():
    for name in ("mobileface-v2", "mobileface-v3"):
        preprocessing = factory.backbone(name).card.preprocessing
        assert (preprocessing.mean, preprocessing.scale) == (
            _convert_mobileface.MEAN,
            _convert_mobileface.SCALE,
        )
