"""Backbones that users bring, from files in exactly the published layout with random weights."""

import argparse
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from bench.authoring import checks
from bench.contracts import Binding
from bench.data.checkpoints import convert, read_tensors
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from bench.plugins import factory, registry
from fr_models._inception_resnet import InceptionResNet
from fr_models._insightface_pack import take_member
from fr_models._iresnet_deep import UNITS, IResNet, adaface_names, insightface_names
from fr_models.adaface import LFW
from fr_models.magface import EPSILON

CPU = torch.device("cpu")
NAMES = (
    "insightface-buffalo-l",
    "insightface-buffalo-s",
    "insightface-antelopev2",
    "arcface-torch",
    "facenet-vggface2",
    "facenet-casia",
    "adaface",
    "magface",
)
EMPTY = Binding("lfw", "real", (), "x")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=2, seed=1):
    return torch.rand(count, 3, 112, 112, generator=generator(seed))


def cosines(one, other):
    return F.cosine_similarity(one, other).min().item()


# -- the publishers' layouts, written down anew from their code ---------------------------------------------------


class Layout:
    """A state_dict by a publisher's rules of naming, and its network as plain functions over it."""

    def __init__(self, seed=0):
        self.state = {}
        self.draw = generator(seed)

    def conv(self, name, outputs, inputs, kernel):
        fan = inputs * kernel * kernel
        self.state[f"{name}.weight"] = (
            torch.randn(outputs, inputs, kernel, kernel, generator=self.draw) / fan**0.5
        )

    def norm(self, name, channels, *, affine=True):
        if affine:
            self.state[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=self.draw)
            self.state[f"{name}.bias"] = 0.2 * torch.randn(channels, generator=self.draw)
        self.state[f"{name}.running_mean"] = 0.2 * torch.randn(channels, generator=self.draw)
        self.state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=self.draw)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def slope(self, name, channels):
        self.state[f"{name}.weight"] = torch.rand(channels, generator=self.draw) / 2

    def linear(self, name, outputs, inputs):
        self.state[f"{name}.weight"] = torch.randn(outputs, inputs, generator=self.draw) / inputs**0.5
        self.state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=self.draw)

    def apply_norm(self, name, x, epsilon):
        s = self.state
        return F.batch_norm(
            x,
            s[f"{name}.running_mean"],
            s[f"{name}.running_var"],
            s.get(f"{name}.weight"),
            s.get(f"{name}.bias"),
            eps=epsilon,
        )


WIDTHS = (64, 128, 256, 512)


def insightface_state(depth, seed=0):
    """recognition/arcface_torch/backbones/iresnet.py of deepinsight/insightface; MagFace's models/iresnet.py."""
    net = Layout(seed)
    net.conv("conv1", 64, 3, 3)
    net.norm("bn1", 64)
    net.slope("prelu", 64)
    inputs = 64
    for stage, (width, units) in enumerate(zip(WIDTHS, UNITS[depth], strict=True), start=1):
        for unit in range(units):
            name = f"layer{stage}.{unit}"
            net.norm(f"{name}.bn1", inputs)
            net.conv(f"{name}.conv1", width, inputs, 3)
            net.norm(f"{name}.bn2", width)
            net.slope(f"{name}.prelu", width)
            net.conv(f"{name}.conv2", width, width, 3)
            net.norm(f"{name}.bn3", width)
            if unit == 0:
                net.conv(f"{name}.downsample.0", width, inputs, 1)
                net.norm(f"{name}.downsample.1", width)
            inputs = width
    net.norm("bn2", 512)
    net.linear("fc", 512, 512 * 7 * 7)
    net.norm("features", 512)
    return net


def insightface_forward(net, depth, x, epsilon):
    s = net.state
    x = F.conv2d(x, s["conv1.weight"], padding=1)
    x = F.prelu(net.apply_norm("bn1", x, epsilon), s["prelu.weight"])
    for stage in range(1, 5):
        for unit in range(UNITS[depth][stage - 1]):
            name, stride, before = f"layer{stage}.{unit}", 2 if unit == 0 else 1, x
            x = net.apply_norm(f"{name}.bn1", x, epsilon)
            x = net.apply_norm(f"{name}.bn2", F.conv2d(x, s[f"{name}.conv1.weight"], padding=1), epsilon)
            x = F.conv2d(
                F.prelu(x, s[f"{name}.prelu.weight"]), s[f"{name}.conv2.weight"], stride=stride, padding=1
            )
            x = net.apply_norm(f"{name}.bn3", x, epsilon)
            if unit == 0:
                before = F.conv2d(before, s[f"{name}.downsample.0.weight"], stride=2)
                before = net.apply_norm(f"{name}.downsample.1", before, epsilon)
            x = x + before
    x = F.linear(net.apply_norm("bn2", x, epsilon).flatten(1), s["fc.weight"], s["fc.bias"])
    return net.apply_norm("features", x, epsilon)


def adaface_state(depth, seed=0):
    """net.py of mk-minchul/AdaFace."""
    net = Layout(seed)
    net.conv("input_layer.0", 64, 3, 3)
    net.norm("input_layer.1", 64)
    net.slope("input_layer.2", 64)
    inputs, place = 64, 0
    for width, units in zip(WIDTHS, UNITS[depth], strict=True):
        for _ in range(units):
            name = f"body.{place}"
            if inputs != width:
                net.conv(f"{name}.shortcut_layer.0", width, inputs, 1)
                net.norm(f"{name}.shortcut_layer.1", width)
            net.norm(f"{name}.res_layer.0", inputs)
            net.conv(f"{name}.res_layer.1", width, inputs, 3)
            net.norm(f"{name}.res_layer.2", width)
            net.slope(f"{name}.res_layer.3", width)
            net.conv(f"{name}.res_layer.4", width, width, 3)
            net.norm(f"{name}.res_layer.5", width)
            inputs, place = width, place + 1
    net.norm("output_layer.0", 512)
    net.linear("output_layer.3", 512, 512 * 7 * 7)
    net.norm("output_layer.4", 512, affine=False)
    return net


def adaface_forward(net, depth, x):
    s, eps, place = net.state, 1e-5, 0
    x = F.prelu(
        net.apply_norm("input_layer.1", F.conv2d(x, s["input_layer.0.weight"], padding=1), eps),
        s["input_layer.2.weight"],
    )
    for units in UNITS[depth]:
        for unit in range(units):
            name, stride, before = f"body.{place}", 2 if unit == 0 else 1, x
            x = F.conv2d(
                net.apply_norm(f"{name}.res_layer.0", x, eps), s[f"{name}.res_layer.1.weight"], padding=1
            )
            x = F.prelu(net.apply_norm(f"{name}.res_layer.2", x, eps), s[f"{name}.res_layer.3.weight"])
            x = F.conv2d(x, s[f"{name}.res_layer.4.weight"], stride=stride, padding=1)
            x = net.apply_norm(f"{name}.res_layer.5", x, eps)
            if f"{name}.shortcut_layer.0.weight" in s:
                before = F.conv2d(before, s[f"{name}.shortcut_layer.0.weight"], stride=stride)
                before = net.apply_norm(f"{name}.shortcut_layer.1", before, eps)
            else:
                before = F.max_pool2d(before, 1, stride)
            x, place = x + before, place + 1
    x = F.linear(
        net.apply_norm("output_layer.0", x, eps).flatten(1),
        s["output_layer.3.weight"],
        s["output_layer.3.bias"],
    )
    x = net.apply_norm("output_layer.4", x, eps)
    return x / x.norm(2, 1, keepdim=True)


# -- the IResNets --------------------------------------------------------------------------------------------------


@pytest.fixture
def shallow(monkeypatch):
    """Make IResNet-18 and -50 four units deep; the published depths take long on a CPU."""
    for depth in (18, 50):
        monkeypatch.setitem(UNITS, depth, (1, 1, 1, 1))


@pytest.fixture
def arcface(tmp_path, shallow):
    net = insightface_state(18)
    torch.save(net.state, tmp_path / "backbone.pth")
    return net, tmp_path / "backbone.pth"


@pytest.fixture
def adaface(tmp_path, shallow):
    net = adaface_state(18)
    path = tmp_path / "adaface_ir18_casia.ckpt"
    state = {f"model.{name}": value for name, value in net.state.items()}
    head = {"head.kernel": torch.randn(512, 10), "head.t": torch.zeros(1), "head.batch_mean": torch.ones(1)}
    torch.save(
        {"epoch": 24, "global_step": 9, "state_dict": state | head, "hyper_parameters": {"lr": 0.1}}, path
    )
    return net, path


def loaded(text):
    backbone = factory.backbone(text)
    backbone.load(CPU)
    return backbone


def agrees(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_arcface_torch_embeds_as_its_published_network(tmp_path):
    net, path = insightface_state(18), tmp_path / "backbone.pth"
    torch.save(net.state, path)
    backbone = loaded(f"arcface-torch:depth=18,weights={path}")
    x = images()
    agrees(backbone.embed_batch(x), insightface_forward(net, 18, x * 2 - 1, 1e-5))
    assert backbone.files(EMPTY) == (path,)
    assert backbone.card.name == "arcface-torch:depth=18,weights=backbone.pth"


@pytest.mark.parametrize("file", ["mine.pth", "backbone.pth", "backbone.safetensors"])
def test_a_file_of_another_name_is_said_to_be_taken_on_trust(arcface, tmp_path, caplog, file):
    path = tmp_path / "here" / file
    path.parent.mkdir()
    if path.suffix == ".pth":
        torch.save(arcface[0].state, path)
    else:
        save_file(arcface[0].state, path)
    with caplog.at_level("WARNING", "bench"):
        backbone = loaded(f"arcface-torch:depth=18,weights={path}")
    assert "was trained on is the user's word" in backbone.card.note
    odd = f"its name is {file}, the publisher's is backbone.pth"
    assert (odd in backbone.card.note) == (odd in caplog.text) == (file == "mine.pth")
    assert "depth=18" in backbone.card.name


def test_a_packs_file_of_another_name_too(tmp_path, caplog):
    write_pack(tmp_path / "r50.onnx")
    with caplog.at_level("WARNING", "bench"):
        backbone = loaded(f"insightface-buffalo-l:weights={tmp_path / 'r50.onnx'}")
    assert "its name is r50.onnx, the publisher's is w600k_r50.onnx" in backbone.card.note
    assert "insightface-buffalo-l: its name is r50.onnx" in caplog.text
    assert "user's word" not in factory.backbone("insightface-buffalo-l").card.note


def contract_failures(backbone):
    findings = checks.run_checks(backbone)
    assert len(findings) > 8
    return [finding for finding in findings if not finding.passed]


def test_a_trainable_copy_is_not_folded_and_gets_gradients(arcface):
    net, path = arcface
    backbone = loaded(f"arcface-torch:depth=18,weights={path}")
    copy = backbone.trainable(CPU)
    agrees(copy.eval()(images()).detach(), insightface_forward(net, 18, images() * 2 - 1, 1e-5))
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in copy.modules()) == 1 + 4 * 3 + 4 + 1
    copy.train()(images()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in copy.parameters())


@pytest.mark.parametrize("prefix", ["features.module.", "module.features."])
def test_magface_embeds_as_its_published_network(tmp_path, shallow, prefix):
    net = insightface_state(50)
    state = {prefix + name: value for name, value in net.state.items()} | {
        "module.fc.weight": torch.ones(512, 4)
    }
    path = tmp_path / "magface_epoch_00025.pth"
    torch.save(
        {"epoch": 25, "arch": "iresnet50", "state_dict": state, "optimizer": {"param_groups": []}}, path
    )
    x = images()
    expected = insightface_forward(net, 50, x.flip(1), EPSILON)
    agrees(loaded(f"magface:depth=50,weights={path}").embed(x), expected)


def test_adaface_embeds_as_its_published_network(adaface):
    net, path = adaface
    backbone = loaded(f"adaface:depth=18,data=casia,weights={path}")
    x = images()
    expected = adaface_forward(net, 18, x.flip(1) * 2 - 1)
    agrees(F.normalize(backbone.embed(x)), expected)
    assert backbone.card.lfw_accuracy == 0.9913
    assert contract_failures(backbone) == []


@pytest.mark.parametrize("depth", sorted(UNITS))
def test_every_published_depth_has_the_published_names_and_shapes(depth, monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.empty(*shape, device="meta"))
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.empty(*shape, device="meta"))
    with torch.device("meta"):
        plain, subsampling = IResNet(depth), IResNet(depth, subsample=True)
    for network, names, layout in (
        (plain, insightface_names(plain), insightface_state(depth)),
        (subsampling, adaface_names(subsampling), adaface_state(depth)),
    ):
        own = network.state_dict()
        shapes = {names[name]: tuple(value.shape) for name, value in own.items() if name in names}
        assert len(shapes) == len(names)
        assert shapes == {name: tuple(value.shape) for name, value in layout.state.items()}
        assert len(own) - len(names) == (0 if network is plain else 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.bias"), r"it lacks 'fc\.bias'\."),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("layer4.0.")], r"it lacks .* and \d+ more\."),
        (
            lambda s: s.update({"layer1.2.conv1.weight": torch.zeros(1)}),
            r"it has 'layer1\.2\.conv1\.weight' too",
        ),
        (
            lambda s: s.update({"fc.weight": torch.zeros(128, 25088)}),
            r"fc\.weight is 128×25088, expected 512×25088",
        ),
    ],
)
def test_a_file_of_another_network_is_refused_by_its_tensors(arcface, tmp_path, change, message):
    state = dict(arcface[0].state)
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(DataError, match=rf"other\.pth is not the network of 'arcface-torch.*{message}"):
        loaded(f"arcface-torch:depth=18,weights={tmp_path / 'other.pth'}")


def test_old_files_lack_counters_and_halves_become_singles(arcface, tmp_path):
    state = {n: v.half() for n, v in arcface[0].state.items() if not n.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "half.safetensors")
    backbone = loaded(f"arcface-torch:depth=18,weights={tmp_path / 'half.safetensors'}")
    found = backbone.embed(images())
    assert found.dtype == torch.float32
    assert cosines(found, insightface_forward(arcface[0], 18, images() * 2 - 1, 1e-5)) > 0.999


# -- FaceNet -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def facenet(tmp_path_factory):
    """Return facenet-pytorch's own network with random weights, and its state_dict as published."""
    published = pytest.importorskip("facenet_pytorch").InceptionResnetV1(classify=False).eval()
    draw = generator()
    for name, value in published.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=draw)
        elif value.is_floating_point():
            value.add_(0.05 * torch.randn(value.shape, generator=draw))
    path = tmp_path_factory.mktemp("facenet") / "20180402-114759-vggface2.pt"
    logits = {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}
    # The files are older than PyTorch's present format.
    torch.save(published.state_dict() | logits, path, _use_new_zipfile_serialization=False)
    return published, path


def test_inception_resnet_is_facenet_pytorchs_bit_for_bit(facenet):
    network = InceptionResNet().eval()
    network.load_state_dict(facenet[0].state_dict())
    x = torch.randn(2, 3, 160, 160, generator=generator())
    with torch.inference_mode():
        assert torch.equal(F.normalize(network(x)), facenet[0](x))


@pytest.mark.parametrize("name", ["facenet-vggface2", "facenet-casia"])
def test_facenet_embeds_as_facenet_pytorch(facenet, name):
    published, path = facenet
    backbone = loaded(f"{name}:weights={path}")
    x = images()
    # facenet-pytorch's fixed_image_standardization of the crop at 160×160.
    enlarged = F.interpolate(255 * x, size=(160, 160), mode="bilinear", align_corners=False, antialias=True)
    with torch.inference_mode():
        expected = published((enlarged - 127.5) / 128.0)
    agrees(F.normalize(backbone.embed(x)), expected)
    assert name == "facenet-casia" or contract_failures(backbone) == []


# -- insightface's packs -------------------------------------------------------------------------------------------


def write_pack(path, *, side=112, dimension=512, first="Conv_0", batch="None", standardise=False):
    """Write a small network as torch2onnx.py of arcface_torch does: input.1, an open batch axis, Gemm at the end."""
    rng = np.random.default_rng(0)

    def tensor(name, *shape, low=-0.3, high=0.3):
        return numpy_helper.from_array(rng.uniform(low, high, shape).astype(np.float32), name)

    weights = [
        tensor("conv.w", 16, 3, 3, 3),
        tensor("conv.b", 16),
        tensor("slope", 16, 1, 1, low=0, high=0.5),
        *(tensor(f"bn.{k}", 16, low=0.5, high=1.5) for k in range(4)),
        tensor("fc.w", dimension, 16 * (side // 16) ** 2),
        tensor("fc.b", dimension),
        *(tensor(f"features.{k}", dimension, low=0.5, high=1.5) for k in range(4)),
    ]
    nodes = [
        helper.make_node(
            "Conv",
            ["x", "conv.w", "conv.b"],
            ["c"],
            name=first,
            kernel_shape=[3, 3],
            strides=[16, 16],
            pads=[0] * 4,
        ),
        helper.make_node("PRelu", ["c", "slope"], ["p"], name="PRelu_1"),
        helper.make_node(
            "BatchNormalization", ["p", *(f"bn.{k}" for k in range(4))], ["b"], name="BatchNormalization_2"
        ),
        helper.make_node("Add", ["b", "p"], ["s"], name="Add_3"),
        helper.make_node("Flatten", ["s"], ["f"], name="Flatten_4", axis=1),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["g"], name="Gemm_5", transB=1),
        helper.make_node(
            "BatchNormalization",
            ["g", *(f"features.{k}" for k in range(4))],
            ["683"],
            name="BatchNormalization_6",
        ),
    ]
    if standardise:
        weights += [
            numpy_helper.from_array(np.float32(v).reshape(1), n) for n, v in (("m", 127.5), ("k", 1 / 127.5))
        ]
        nodes = [
            helper.make_node("Sub", ["input.1", "m"], ["d"], name="_minusscalar0"),
            helper.make_node("Mul", ["d", "k"], ["x"], name="_mulscalar0"),
            *nodes,
        ]
    else:
        nodes[0].input[0] = "input.1"
    source = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [batch, 3, side, side])
    target = helper.make_tensor_value_info("683", TensorProto.FLOAT, [batch, dimension])
    graph = helper.make_graph(nodes, "torch-jit-export", [source], [target], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), str(path))


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_pack_embeds_as_insightface_calls_it(tmp_path, monkeypatch, name):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    path = tmp_path / factory.backbone(name).card.file
    path.parent.mkdir(parents=True)
    write_pack(path)
    if registry.BACKBONES.load(name).card.sha256:
        with pytest.raises(DataError, match=r"has SHA-256 .* expected"):
            loaded(name)
        cls = registry.BACKBONES.load(name)
        monkeypatch.setattr(cls, "card", cls.card.model_copy(update={"sha256": sha256_of(path)}))
    backbone = loaded(name)
    x = images()
    # arcface_onnx.py: cv2.dnn.blobFromImages(BGR, 1 / 127.5, size, (127.5,) * 3, swapRB=True), that is RGB.
    blob = ((255 * x - 127.5) / 127.5).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = torch.from_numpy(session.run(None, {"input.1": blob})[0])
    agrees(backbone.embed(x), expected)
    agrees(backbone.embed_batch(x), expected)
    leaf = x.clone().requires_grad_()
    backbone.embed(leaf).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().sum() > 0
    assert backbone.trainable(CPU)(x).shape == (2, 512)
    assert name != NAMES[0] or contract_failures(backbone) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 256}, r"returns \(2, 256\) for two images, expected \(2, 512\)"),
        ({"side": 128}, r"takes images of 128 × 128 .*its card says 112 × 112"),
        ({"standardise": True}, r"subtracts and scales its pixels itself.*mean=0,scale=1,channels=RGB"),
    ],
)
def test_another_graph_is_refused(tmp_path, options, message):
    write_pack(tmp_path / "net.onnx", **options)
    with pytest.raises(DataError, match=message):
        loaded(f"insightface-buffalo-l:weights={tmp_path / 'net.onnx'}")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match=r"bad\.onnx.*(no readable ONNX file|holds no ONNX network)"):
        loaded(f"insightface-buffalo-l:weights={tmp_path / 'bad.onnx'}")


def write_zip(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in members.items():
            pack.writestr(name.replace("__", "/").replace("_onnx", ".onnx"), content)
    return path


def test_one_file_is_taken_out_of_a_pack_wherever_it_lies(tmp_path):
    pack = write_zip(tmp_path / "antelopev2.zip", antelopev2__glintr100_onnx=b"net", other_onnx=b"no")
    take_member((pack,), tmp_path / "out", member="glintr100.onnx")
    assert (tmp_path / "out").read_bytes() == b"net"
    recipe = factory.backbone("insightface-antelopev2").recipes[0]
    recipe.convert((pack,), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"net"


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


def spoil(path):
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF  # within the packed bytes of the member
    path.write_bytes(content)


def lie(path):
    """Say in the directory that the member is shorter than it is."""
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02") + 24
    path.write_bytes(content[:at] + (5).to_bytes(4, "little") + content[at + 4 :])


@pytest.mark.parametrize(
    ("change", "message"),
    [(cut, "cannot be unpacked"), (spoil, "cannot be unpacked"), (lie, "cannot be unpacked")],
)
def test_a_damaged_pack_is_refused(tmp_path, change, message):
    pack = write_zip(tmp_path / "p.zip", net_onnx=bytes(range(256)) * 4)
    change(pack)
    with pytest.raises(DataError, match=rf"p\.zip {message} .*Fetch it again"):
        take_member((pack,), tmp_path / "out", member="net.onnx")


def test_a_pack_without_the_file_with_two_or_with_a_huge_one_is_refused(tmp_path, monkeypatch):
    pack = write_zip(tmp_path / "p.zip", a__net_onnx=b"1", b__net_onnx=b"2", one_onnx=b"123")
    for member, count in (("none.onnx", 0), ("net.onnx", 2)):
        with pytest.raises(DataError, match=rf"p\.zip has {count} files '{member}', expected one"):
            take_member((pack,), tmp_path / "out", member=member)
    monkeypatch.setattr("fr_models._insightface_pack._LARGEST", 2)
    with pytest.raises(DataError, match=r"says that it has 3 bytes; more than 2 are not unpacked"):
        take_member((pack,), tmp_path / "out", member="one.onnx")
    assert not (tmp_path / "out").exists()


# -- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_with_the_way_to_get_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    backbone = factory.backbone(name)
    with pytest.raises(
        DataError, match=r"'weights/.*' is not in the data folder .*github\.com/.*weights=FILE"
    ):
        backbone.load(CPU)
    with pytest.raises(DataError, match=r"nowhere\.pth is not a file.*github\.com/"):
        factory.backbone(f"{name}:weights=nowhere.pth").files(EMPTY)


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_is_stated_and_what_was_not_tried(name):
    card = factory.backbone(name).card
    assert card.name == name
    assert card.note.startswith("untested on the real file")
    assert bool(card.sha256) == ("buffalo" in name)  # of the others nobody states one
    assert card.released
    assert card.thresholds == ()
    assert card.embedding_dim == 512
    assert card.training_data != "unknown"
    assert "/" in card.source


@pytest.mark.parametrize("name", NAMES)
def test_what_has_an_address_is_fetched_and_what_has_none_says_why(name):
    backbone = factory.backbone(name)
    (entry,) = backbone.assets()
    (file,) = entry.files
    assert file.sha256 == backbone.card.sha256
    if name in ("adaface", "arcface-torch", "magface"):
        assert file.recipes == ()
        assert "hand" in entry.how
        assert "Drive" in entry.how
        return
    assert "bench fetch" in refusal_of(backbone)
    last = file.recipes[-1].sources[0]
    assert last.url == f"{last.url.rpartition('/')[0]}/{last.name}"
    assert last.url.startswith(("https://github.com/timesler/", "https://github.com/deepinsight/"))
    assert last.sha256 == ""
    assert bool(entry.terms) == name.startswith("insightface")


def refusal_of(backbone):
    with pytest.raises(DataError) as refusal:
        backbone.weights_path()
    return str(refusal.value)


def test_a_file_of_the_users_is_known_by_its_own_digest(tmp_path):
    write_pack(tmp_path / "w600k_r50.onnx")
    backbone = factory.backbone(f"insightface-buffalo-l:weights={tmp_path / 'w600k_r50.onnx'}")
    assert backbone.card.sha256 == ""
    assert backbone.files(EMPTY) == (tmp_path / "w600k_r50.onnx",)


def test_no_default_pool_has_them():
    for pool in registry.POOLS.entries():
        if registry.POOLS.entries()[pool].distribution == "cloakbench":
            assert not {n for group in registry.POOLS.load(pool).groups for n in group} & set(NAMES)


@pytest.mark.parametrize(("depth", "data"), sorted(LFW))
def test_every_published_adaface_has_its_file(depth, data):
    card = factory.backbone(f"adaface:depth={depth},data={data}").card
    assert card.file.startswith(
        f"weights/adaface/adaface_ir{depth}_{'vgg2' if data == 'vggface2' else data}.ckpt"
    )
    assert card.lfw_accuracy == LFW[depth, data]


def test_an_adaface_that_is_not_published_is_refused():
    with pytest.raises(UsageError, match=r"no such network is published; valid: depth=18,data=casia"):
        factory.backbone("adaface:depth=101,data=casia")


# -- checkpoints ---------------------------------------------------------------------------------------------------


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (print, ("it ran",))


def test_pickled_classes_are_refused_by_name_and_can_be_left_out(tmp_path, capsys):
    path, out = tmp_path / "lightning.ckpt", tmp_path / "lightning.safetensors"
    state = {"model.a": torch.arange(6.0).view(2, 3).T, "model.b": torch.ones(2, dtype=torch.int64)}
    callbacks = {argparse.ArgumentParser: {"best": argparse.Namespace(score=1)}}
    torch.save({"state_dict": state, "callbacks": callbacks}, path)
    with pytest.raises(
        DataError,
        match=r"argparse\.ArgumentParser, argparse\.Namespace\).*bench models convert lightning\.ckpt lightning\.s",
    ):
        read_tensors(path)
    assert convert(path, out) == ("argparse.ArgumentParser", "argparse.Namespace")
    kept = read_tensors(out)
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[name], state[name]) for name in state)
    with pytest.raises(UsageError, match=r"lightning\.safetensors exists"):
        convert(path, out)
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        convert(path, tmp_path / "x.pth")
    # The format before PyTorch 1.6 tells one name at a time.
    torch.save({"state_dict": state, "callbacks": callbacks}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"\(argparse\.ArgumentParser\), which is not done"):
        read_tensors(path)
    out.unlink()
    assert set(convert(path, out)) == {"argparse.ArgumentParser", "argparse.Namespace"}
    assert all(torch.equal(read_tensors(out)[name], state[name]) for name in state)
    torch.save({"state_dict": state, "evil": Evil()}, path)
    with pytest.raises(DataError, match="names classes that would have to be imported"):
        read_tensors(path)
    convert(path, tmp_path / "evil.safetensors")
    assert "it ran" not in capsys.readouterr().out


class AttributeDict(dict):
    """As PyTorch Lightning keeps its hyper-parameters."""


class Marked(OrderedDict):
    """A mapping with a state of its own."""


class Losses(list):
    """A list of a class of its own."""


class Row(argparse.Namespace):
    """An object with a state."""


@pytest.mark.parametrize("old", [False, True])
def test_stand_ins_can_be_filled_like_the_dicts_and_lists_they_stand_for(tmp_path, old):
    state = Marked({"model.a": torch.arange(3.0)})
    state.mark = 1
    held = defaultdict(list, {"x": [1], "y": [2]})
    hyper, losses = AttributeDict(lr=0.1, deep=AttributeDict(a=1, b=2)), Losses([1.0, 2.0])
    path, out = tmp_path / "a.ckpt", tmp_path / "a.safetensors"
    content = {"held": held, "hyper": hyper, "state_dict": state, "losses": losses, "row": Row(a=1)}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(DataError, match=r"bench models convert a\.ckpt"):
        read_tensors(path)
    left = convert(path, out)
    assert {name.rpartition(".")[2] for name in left} == {
        "AttributeDict",
        "Marked",
        "Losses",
        "Row",
        "defaultdict",
        "list",
    }
    assert list(read_tensors(out)) == ["model.a"]
    assert torch.equal(read_tensors(out)["model.a"], torch.arange(3.0))


def test_what_cannot_be_converted_says_why(tmp_path):
    path, out = tmp_path / "a.ckpt", tmp_path / "a.safetensors"
    torch.save(Row(a=1), path)
    with pytest.raises(DataError, match=r"a\.ckpt holds a Row, not tensors by name"):
        convert(path, out)
    torch.save({"a": torch.eye(3).to_sparse()}, path)
    for use in (lambda: convert(path, out), lambda: read_tensors(path)):
        with pytest.raises(DataError, match=r"a\.ckpt: 'a' is sparse, quantised or without values"):
            use()
    assert not out.exists()
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.onnx is an ONNX file.*--backbone x\.onnx"):
        loaded(f"adaface:weights={tmp_path / 'x.onnx'}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a checkpoint|is no checkpoint"),
        (b"junk" * 100, "cannot be read as a checkpoint|is no checkpoint"),
        ([torch.ones(2)], r"holds a list, not tensors by name"),
        ({"epoch": 3}, "holds no tensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content, message):
    path = tmp_path / "x.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(DataError, match=message):
        read_tensors(path)
    with pytest.raises(DataError, match=r"gone\.pth is not a file"):
        read_tensors(tmp_path / "gone.pth")


def test_a_cut_file_is_refused(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut\.pth cannot be read as a checkpoint"):
        read_tensors(tmp_path / "cut.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"no readable \.safetensors file"):
        read_tensors(tmp_path / "cut.safetensors")
