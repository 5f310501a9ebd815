"""A user's own ONNX file as a backbone."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from attacks._surrogates import require_surrogates
from bench.contracts import Binding, Preprocessing
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from bench.plugins import factory
from bench.run.resolve import resolve
from bench.run.spec import RunSpec
from fr_models._onnx_backbone import prepare
from fr_models.onnx_file import OnnxFile

CPU = torch.device("cpu")
BINDING = Binding(dataset="lfw", domain="real", backbones=(), tracker="onnx")


def write_net(path, size=(112, 112), dimension: int | None = 16, batch="n"):
    """Write Conv–BatchNorm–PRelu–Conv–Flatten–Gemm–BatchNorm, named as insightface's nets are."""
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    features = 4 * -(-size[0] // 16) * -(-size[1] // 16)
    constants = {
        "w1": array(8, 3, 3, 3) / 5,
        "a1": np.abs(array(8, 1, 1)),
        "w2": array(4, 8, 3, 3) / 8,
        "w3": array(16, features) / 10,
        "b3": array(16),
    }
    for prefix, n in (("n1", 8), ("n2", 16)):
        constants |= {f"{prefix}.{k}": array(n) for k in ("weight", "bias", "running_mean")}
        constants[f"{prefix}.running_var"] = np.abs(array(n)) + 0.5

    def norm(prefix, source, out):
        names = [f"{prefix}.{k}" for k in ("weight", "bias", "running_mean", "running_var")]
        return helper.make_node("BatchNormalization", [source, *names], [out], epsilon=1e-5)

    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input.1", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[4, 4]),
            norm("n1", "c1", "b1"),
            helper.make_node("PRelu", ["b1", "a1"], ["p1"]),
            helper.make_node("Conv", ["p1", "w2"], ["c2"], pads=[1, 1, 1, 1], strides=[4, 4]),
            helper.make_node("Flatten", ["c2"], ["f"]),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["g"], transB=1),
            norm("n2", "g", "683"),
        ],
        "net",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [batch, 3, *size])],
        [helper.make_tensor_value_info("683", TensorProto.FLOAT, [batch, dimension])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(model, str(path))
    return path


def write_card(path, **fields):
    card = {"licence": "MIT", "preprocessing": {"mean": 127.5, "scale": 1 / 127.5, "channels": "BGR"}}
    path.with_suffix(".json").write_text(json.dumps(card | fields))
    return path


@pytest.fixture
def net(tmp_path):
    return write_net(tmp_path / "mine.onnx")


@pytest.fixture
def images():
    return torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def loaded(**params):
    backbone = OnnxFile(OnnxFile.Params(**params))
    backbone.load(CPU)
    return backbone


def test_agrees_with_onnxruntime_on_pixels_prepared_by_hand(net, images):
    write_card(net)
    pixels = (images.numpy()[:, ::-1] * 255 - 127.5) / 127.5
    session = onnxruntime.InferenceSession(str(net), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input.1": np.ascontiguousarray(pixels)})[0]
    for path in ("torch", "onnxruntime"):
        backbone = loaded(path=str(net), embed_with=path)
        assert backbone.card.embedding_dim == 16
        np.testing.assert_allclose(backbone.embed(images).numpy(), expected, atol=1e-4)
        np.testing.assert_allclose(backbone.embed_batch(images).numpy(), expected, atol=1e-4)


def test_gradient_agrees_with_finite_differences(net):
    backbone = loaded(path=str(net), mean=127.5)
    backbone._network.double()
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    weight = torch.linspace(-1, 1, 16, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((backbone.embed(image) * weight).sum(), image)
    for place in ((0, 0, 5, 7), (0, 1, 60, 50), (0, 2, 111, 111)):
        step = torch.zeros_like(image)
        step[place] = 1e-6
        with torch.no_grad():
            change = ((backbone.embed(image + step) - backbone.embed(image - step)) * weight).sum() / 2e-6
        assert gradient[place].item() == pytest.approx(change.item(), rel=1e-4, abs=1e-7)


def test_crop_and_resize_reach_the_network(tmp_path, images):
    net = write_net(tmp_path / "narrow.onnx", size=(112, 96))
    backbone = loaded(path=str(net), width=96, crop=(0, 8, 112, 96))
    changed = images.clone()
    changed[..., :8] = 0
    changed[..., 104:] = 1
    assert torch.equal(backbone.embed(images), backbone.embed(changed))
    small = prepare(images, Preprocessing(height=56, width=56, mean=0, scale=1))
    expected = torch.nn.functional.interpolate(images * 255, (56, 56), mode="bilinear", antialias=True)
    torch.testing.assert_close(small, expected)


def test_inline_parameters_override_the_card(net):
    write_card(net, name="from-card", family="theirs", note="kept")
    card = OnnxFile(OnnxFile.Params(path=str(net), mean=127.0, label="mine", licence="own")).card
    assert (card.name, card.licence, card.family, card.note) == ("mine", "own", "theirs", "kept")
    assert card.preprocessing == Preprocessing(mean=127.0, scale=1 / 127.5, channels="BGR")


def test_name_comes_from_the_file_and_dimension_from_the_graph(net):
    card = OnnxFile(OnnxFile.Params(path=str(net), scale=127.5)).card
    assert card.name.partition("@")[0] == "mine"
    assert (card.licence, card.embedding_dim) == ("not stated", 16)
    assert "/" not in card.file


def test_two_networks_never_look_alike_that_their_user_did_not_call_alike(net, tmp_path):
    (tmp_path / "b").mkdir()
    other = write_net(tmp_path / "b" / "mine.onnx", dimension=None)
    copy = tmp_path / "b" / "copy.onnx"
    copy.write_bytes(net.read_bytes())

    def name(path, **params):
        return factory.canonical(OnnxFile(OnnxFile.Params(path=str(path), embedding_dim=16, **params)))

    names = [name(net, mean=0), name(net, mean=127.5), name(net, mean=0, channels="BGR"), name(other, mean=0)]
    names.append(name(net, mean=0, embed_with="onnxruntime"))
    assert len(set(names)) == 5
    assert all(re.fullmatch(r"mine@[0-9a-f]{8}", one) for one in names)
    assert name(copy, mean=0) == names[0].replace("mine", "copy")
    assert name(net, mean=0, label="My net (v2)") == "My net (v2)"


def test_a_cards_name_stands_where_nothing_overrides_the_card(net):
    write_card(net, name="theirs")
    assert factory.canonical(factory.backbone(str(net))) == "theirs"
    assert re.fullmatch(r"theirs@[0-9a-f]{8}", factory.canonical(factory.backbone(f"{net}:mean=0")))
    assert factory.canonical(factory.backbone(f"{net}:mean=0,label=own")) == "own"


def test_a_registered_backbones_name_is_never_given_to_another(net):
    write_card(net, name="mobileface-v2")
    assert re.fullmatch(r"mobileface-v2@[0-9a-f]{8}", factory.canonical(factory.backbone(str(net))))
    with pytest.raises(UsageError, match="label=mobileface-v2 is the name of a registered backbone"):
        factory.backbone(f"{net}:label=mobileface-v2")


@pytest.mark.parametrize(
    "name", ["<b>x</b>", "=cmd()", "../up", "a:b", "a,b", "\x1b[31m", "x\ny", "x" * 65, " x"]
)
def test_a_name_that_cannot_stand_in_a_table_is_refused(net, name):
    with pytest.raises(UsageError, match=r"label=.* cannot stand in a table"):
        OnnxFile(OnnxFile.Params(path=str(net), mean=0, label=name))
    net.with_suffix(".json").write_text(json.dumps({"name": name, "preprocessing": {}}))
    if " ".join(name.split()) == name and "\x1b" not in name:
        with pytest.raises(DataError, match=r"mine\.json: the name .* cannot stand in a table.*label=NAME"):
            OnnxFile(OnnxFile.Params(path=str(net)))


def test_a_files_odd_name_is_shown_without_what_cannot_stand_in_a_table(net):
    odd = net.with_name("=a,<b>[c].onnx")
    net.rename(odd)
    card = OnnxFile(OnnxFile.Params(path=str(odd), mean=0)).card
    assert re.fullmatch(r"_a__b__c_@[0-9a-f]{8}", card.name)


def test_two_of_one_label_are_refused_in_one_run(net, tmp_path):
    other = write_net(tmp_path / "other.onnx")
    spec = RunSpec(
        dataset="synthetic",
        attacks=("none",),
        defenses=("none",),
        backbones=(f"{net}:mean=0,label=same", f"{other}:mean=0,label=same"),
    )
    with pytest.raises(
        UsageError, match=r"both called 'same', and tables would not tell them apart.*label=NAME"
    ):
        resolve(spec)


def test_an_ending_in_capitals_is_read_too(net):
    net.rename(net.with_name("MINE.ONNX"))
    assert isinstance(factory.backbone(f"{net.with_name('MINE.ONNX')}:mean=0"), OnnxFile)


def with_outside_weights(folder, net, factor):
    """Write a network whose weights lie in a file beside it."""
    model = onnx.load(str(net))
    for tensor in model.graph.initializer:
        if tensor.name == "w3":
            changed = numpy_helper.from_array(factor * numpy_helper.to_array(tensor), "w3")
            tensor.CopyFrom(changed)
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return path


def test_weights_beside_the_graph_are_part_of_what_a_network_is(net, tmp_path):
    first = with_outside_weights(tmp_path / "a", net, 1)
    second = with_outside_weights(tmp_path / "b", net, 2)
    assert first.read_bytes() == second.read_bytes()
    one, two = (OnnxFile(OnnxFile.Params(path=str(path), mean=0)) for path in (first, second))
    assert one.card.sha256 != two.card.sha256
    assert one.card.name != two.card.name
    assert one.files(BINDING) == (first, tmp_path / "a" / "model.onnx.data")
    (tmp_path / "b" / "model.onnx.data").unlink()
    with pytest.raises(DataError, match=r"has weights in 'model\.onnx\.data', which is not beside it"):
        OnnxFile(OnnxFile.Params(path=str(second), mean=0))


def test_weights_elsewhere_are_not_followed(net):
    model = onnx.load(str(net))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    net.write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match=r"in '\.\./\.\./secret', outside its folder"):
        OnnxFile(OnnxFile.Params(path=str(net), mean=0))


def test_a_path_on_the_command_line_is_this_plugin(net):
    backbone = factory.backbone(f"{net}:mean=127.5,channels=BGR,crop=0|0|112|112")
    assert isinstance(backbone, OnnxFile)
    assert backbone.card.preprocessing == Preprocessing(channels="BGR", crop=(0, 0, 112, 112))


def test_neither_card_nor_preprocessing_is_refused_with_the_way_to_give_them(net):
    with pytest.raises(UsageError, match=r"mine\.onnx has no card\..*mean=127\.5.*mine\.json beside it"):
        OnnxFile(OnnxFile.Params(path=str(net), label="named"))
    net.with_suffix(".json").write_text('{"licence": "MIT"}')
    with pytest.raises(UsageError, match=r"no preprocessing in its card"):
        OnnxFile(OnnxFile.Params(path=str(net)))


def test_no_path_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"needs a file: onnx:path=model\.onnx"):
        OnnxFile()
    with pytest.raises(DataError, match=r"gone\.onnx is not a file"):
        OnnxFile(OnnxFile.Params(path=str(tmp_path / "gone.onnx"), mean=0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ('{"name": 3, "preprocessing": {}}', "the name 3 cannot stand in a table"),
        ("[]", "one JSON object"),
        ('{"preprocessing": {"mean": 300}}', "field 'mean' cannot be 300"),
        ('{"preprocessing": {}, "licence": "MIT", "means": 1}', "field 'means'"),
    ],
)
def test_card_that_is_none_is_refused(net, text, message):
    net.with_suffix(".json").write_text(text)
    with pytest.raises(DataError, match=message):
        OnnxFile(OnnxFile.Params(path=str(net)))


def test_digest_of_the_card_is_checked_and_both_files_enter_the_key(net):
    write_card(net, sha256=sha256_of(net))
    assert OnnxFile(OnnxFile.Params(path=str(net))).files(BINDING) == (net, net.with_suffix(".json"))
    write_card(net, sha256="0" * 64)
    with pytest.raises(DataError, match=rf"SHA-256 {sha256_of(net)}, its card says 0000"):
        loaded(path=str(net))


def test_wrong_size_dimension_or_batch_is_found_when_loading(net, tmp_path):
    with pytest.raises(DataError, match=r"takes images of 112 × 112 .* its card says 112 × 96"):
        loaded(path=str(net), width=96)
    with pytest.raises(DataError, match=r"returns \(2, 16\) for two images, expected \(2, 99\)"):
        loaded(path=str(net), mean=0, embedding_dim=99)
    flat = write_net(tmp_path / "flat.onnx")
    model = onnx.load(str(flat))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("683", TensorProto.FLOAT, ["n", 16, 7, 7]))
    flat.write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match=r"gives N×16×7×7 where N×D is wanted"):
        OnnxFile(OnnxFile.Params(path=str(flat), mean=0))
    flat.write_bytes(b"")
    with pytest.raises(DataError, match=r"flat\.onnx is no readable ONNX file: it is empty"):
        OnnxFile(OnnxFile.Params(path=str(flat), mean=0))
    silent = write_net(tmp_path / "silent.onnx", dimension=None)
    with pytest.raises(DataError, match="does not state the length of its embedding"):
        OnnxFile(OnnxFile.Params(path=str(silent), mean=0))
    single = write_net(tmp_path / "single.onnx", batch=1)
    with pytest.raises(DataError, match=r"fixes its batch size.*Set embed_with to torch"):
        loaded(path=str(single), mean=0, embed_with="onnxruntime")
    assert loaded(path=str(single), mean=0).embed(torch.zeros(2, 3, 112, 112)).shape == (2, 16)


def test_images_of_another_size_are_refused(net):
    backbone = loaded(path=str(net), mean=0)
    with pytest.raises(ValueError, match="expected N×3×112×112"):
        backbone.embed(torch.zeros(1, 3, 96, 96))


def test_use_before_load_is_refused(net):
    with pytest.raises(RuntimeError, match=r"used before load\(\)"):
        OnnxFile(OnnxFile.Params(path=str(net), mean=0)).embed(torch.zeros(1, 3, 112, 112))


@pytest.mark.parametrize("embed_with", ["torch", "onnxruntime"])
@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_copy_can_be_trained_and_the_backbone_stays(net, images, embed_with, is_loaded):
    params = {"path": str(net), "mean": 127.0, "scale": 60.0, "channels": "BGR", "embed_with": embed_with}
    backbone = loaded(**params) if is_loaded else OnnxFile(OnnxFile.Params(**params))
    copy = backbone.trainable(CPU)
    assert copy.training
    before = loaded(**params).embed_batch(images)
    torch.testing.assert_close(copy(images).detach(), before, atol=1e-4, rtol=1e-4)
    optimiser = torch.optim.SGD(copy.parameters(), lr=1e-3)
    copy(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in copy.parameters())
    optimiser.step()
    assert copy(images).square().sum() < 0.99 * before.square().sum()
    if is_loaded:
        assert torch.equal(backbone.embed_batch(images), before)
    again = backbone.trainable(CPU)
    torch.testing.assert_close(again(images).detach(), before, atol=1e-4, rtol=1e-4)


def write_unread_net(path):
    """Write a network with an operator that onnxruntime knows and the project's reader does not."""
    model = onnx.load(str(write_net(path)))
    last = model.graph.node[-1].output[0]
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(helper.make_node("ThresholdedRelu", ["raw"], [last], name="odd", alpha=-1.0))
    onnx.save(model, str(path))
    return path


def test_what_only_onnxruntime_reads_embeds_without_a_gradient_and_says_why(tmp_path, images):
    path = write_unread_net(tmp_path / "odd.onnx")
    assert OnnxFile(OnnxFile.Params(path=str(path), mean=0)).differentiable
    backbone = loaded(path=str(path), mean=0)
    assert not backbone.differentiable
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input.1": prepare(images, backbone.card.preprocessing).numpy()})[0]
    for embed in (backbone.embed, backbone.embed_batch):
        np.testing.assert_allclose(embed(images).numpy(), expected, rtol=1e-4, atol=1e-3)
    why = r"operator 'ThresholdedRelu' of node 'odd' is not among the \d+ that are read with gradients"
    with pytest.raises(UsageError, match=rf"'odd@[0-9a-f]{{8}}' has no gradient: .*{why}"):
        backbone.embed(images.clone().requires_grad_())
    with pytest.raises(UsageError, match=rf"cannot be trained: .*{why}\. Use a head that keeps"):
        backbone.trainable(CPU)
    context = SimpleNamespace(backbones=(backbone,))
    with pytest.raises(
        UsageError,
        match=rf"^surrogate 'odd@[0-9a-f]{{8}}' has no gradient, attack 'pgd' needs one \(.*{why}\)\. Choose",
    ):
        require_surrogates("pgd", context)


def test_what_only_onnxruntime_reads_is_refused_where_that_is_missing_or_of_no_use(tmp_path, monkeypatch):
    path = write_unread_net(tmp_path / "odd.onnx")
    backbone = OnnxFile(OnnxFile.Params(path=str(path), mean=0))
    with pytest.raises(DataError, match=r"'ThresholdedRelu' .*; onnxruntime may read it, on a CPU only"):
        backbone.load(torch.device("meta"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        DataError, match=r"needs onnxruntime .*not read with gradients either: .*'ThresholdedRelu'"
    ):
        backbone.load(CPU)


def test_a_file_that_nobody_reads_is_refused_with_both_reasons(tmp_path):
    path = write_net(tmp_path / "odd.onnx")
    model = onnx.load(str(path))
    model.graph.node[-1].op_type = "NoSuchOperator"
    onnx.save(model, str(path))
    with pytest.raises(
        DataError, match=r"onnxruntime cannot read .*not read with gradients either: .*'NoSuchOperator'"
    ):
        loaded(path=str(path), mean=0)


def test_two_models_of_one_graph_with_weights_elsewhere_are_told_apart(tmp_path):
    cards = []
    for key in "ab":
        folder = tmp_path / key
        folder.mkdir()
        path = write_net(folder / "mine.onnx")
        model = onnx.load(str(path))
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor) + (key == "b")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(model, str(path), save_as_external_data=True, location="mine.onnx.data", size_threshold=0)
        backbone = OnnxFile(OnnxFile.Params(path=str(path), mean=0))
        assert backbone.files(BINDING) == (path, folder / "mine.onnx.data")
        cards.append(backbone.card.sha256)
    assert (tmp_path / "a" / "mine.onnx").read_bytes() == (tmp_path / "b" / "mine.onnx").read_bytes()
    assert cards[0] != cards[1]


def test_an_embedding_with_trailing_axes_of_one_is_read(tmp_path, images):
    path = write_net(tmp_path / "deep.onnx")
    model = onnx.load(str(path))
    last = model.graph.output[0]
    model.graph.node[-1].output[0] = "rows"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 16, 1, 1]), "deep"))
    model.graph.node.append(helper.make_node("Reshape", ["rows", "deep"], [last.name]))
    last.CopyFrom(helper.make_tensor_value_info(last.name, TensorProto.FLOAT, ["n", 16, 1, 1]))
    onnx.save(model, str(path))
    for how in ("torch", "onnxruntime"):
        backbone = loaded(path=str(path), mean=0, embed_with=how)
        assert backbone.card.embedding_dim == 16
        assert backbone.embed_batch(images).shape == (len(images), 16)


def test_a_batch_fixed_inside_the_graph_is_named_as_the_reason(tmp_path):
    path = write_net(tmp_path / "one.onnx", batch=1)
    model = onnx.load(str(path))
    last = model.graph.output[0].name
    model.graph.node[-1].output[0] = "rows"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 16]), "one"))
    model.graph.node.append(helper.make_node("Reshape", ["rows", "one"], [last]))
    onnx.save(model, str(path))
    with pytest.raises(DataError, match=r"Its batch is fixed at 1: export it with an open batch axis"):
        loaded(path=str(path), mean=0)


def test_half_precision_in_onnxruntime_is_refused_with_what_to_do(tmp_path):
    path = write_net(tmp_path / "half.onnx")
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    onnx.save(model, str(path))
    assert loaded(path=str(path), mean=0).embed(torch.zeros(1, 3, 112, 112)).dtype == torch.float32
    with pytest.raises(DataError, match=r"tensor\(float16\), not float32.*Set embed_with to torch"):
        loaded(path=str(path), mean=0, embed_with="onnxruntime")
