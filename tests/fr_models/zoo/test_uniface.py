"""The networks of yakhyo/uniface by name, on small networks of the same interface in place of the real files."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bench.contracts import Binding
from bench.data.files import sha256_of
from bench.errors import DataError
from bench.plugins import factory, registry

CPU = torch.device("cpu")
EMPTY = Binding("lfw", "real", (), "x")

STATED = {
    "insightface-buffalo-s": ("uniface", "w600k_mbf.onnx", "9cc6e4a75f0e2bf0"),
    "insightface-buffalo-l": ("uniface", "w600k_r50.onnx", "4c06341c33c2ca1f"),
    "uniface-adaface-ir18": ("adaface-onnx", "adaface_ir_18.onnx", "6b6a35772fb636cd"),
    "uniface-adaface-ir101": ("adaface-onnx", "adaface_ir_101.onnx", "f2eb07d03de0af56"),
    "uniface-edgeface-xxs": ("edgeface-onnx", "edgeface_xxs.onnx", "dc674de4cbc77fa0"),
    "uniface-edgeface-xs": ("edgeface-onnx", "edgeface_xs_gamma_06.onnx", "9206e2eb13a2761d"),
    "uniface-edgeface-s": ("edgeface-onnx", "edgeface_s_gamma_05.onnx", "b850767cf791bda5"),
    "uniface-edgeface-base": ("edgeface-onnx", "edgeface_base.onnx", "b56942f072c67385"),
    "uniface-sphere20": ("uniface", "sphere20.onnx", "c02878cf658eb186"),
    "uniface-sphere36": ("uniface", "sphere36.onnx", "13b3890cd5d7dec2"),
    "uniface-mobilenetv1": ("uniface", "mobilenetv1_0.25.onnx", "eeda7d23d9c2b40c"),
    "uniface-mobilenetv2": ("uniface", "mobilenetv2.onnx", "38b148284dd48cc8"),
    "uniface-mobilenetv3-small": ("uniface", "mobilenetv3_small.onnx", "d4acafa1039a8295"),
    "uniface-mobilenetv3-large": ("uniface", "mobilenetv3_large.onnx", "0e48f8e11f070211"),
}
"""Name → repository, file and first digits of the digest that uniface/constants.py states."""

OWN = [name for name in STATED if name.startswith("uniface-")]


def write_network(path, dimension=512):
    """Write a network of the publisher's interface: ``input`` N×3×112×112, ``output`` N×512, opset 11."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((dimension, 3 * 14 * 14)), "b": rng.standard_normal(dimension)}
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["small"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["output"], transB=1),
        ],
        "torch-jit-export",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch_size", 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch_size", dimension])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(model, str(path))


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    return tmp_path


def in_place(name, data, monkeypatch, **options):
    """Return a backbone whose card is that of a stand-in at its place, and the stand-in."""
    cls = registry.BACKBONES.load(name)
    path = data / cls.card.file
    write_network(path, **options)
    monkeypatch.setattr(cls, "card", cls.card.model_copy(update={"sha256": sha256_of(path)}))
    return factory.backbone(name), path


@pytest.mark.parametrize("name", STATED)
def test_each_is_fetched_as_it_is_and_pinned_by_the_digest_stated(name):
    repository, file, digits = STATED[name]
    (entry,) = factory.backbone(name).assets()
    (asset,) = entry.files
    recipe = asset.recipes[0]
    (source,) = recipe.sources
    assert recipe.convert is None
    assert source.url == f"https://github.com/yakhyo/{repository}/releases/download/weights/{file}"
    assert source.name == file == asset.path.rpartition("/")[2]
    assert source.sha256 == asset.sha256
    assert asset.sha256.startswith(digits)


def test_no_other_is_registered_and_no_two_share_a_file():
    registered = {name for name in registry.BACKBONES.entries() if name.startswith("uniface-")}
    assert registered == set(OWN)
    cards = [factory.backbone(name).card for name in STATED]
    assert len({card.sha256 for card in cards}) == len({card.file for card in cards}) == len(STATED)


@pytest.mark.parametrize("name", OWN)
def test_cards_say_what_is_stated_and_what_was_not_tried(name):
    card = factory.backbone(name).card
    assert card.name == name
    assert card.note.startswith("untested on the real file")
    assert card.licence
    assert card.training_data != "unknown"
    assert card.thresholds == ()
    assert card.preprocessing.channels == ("BGR" if "adaface" in name else "RGB")
    assert card.released == ("" if "edgeface" in name else "2022" if "adaface" in name else "2025-01-03")


def test_networks_of_one_publisher_or_loss_are_related():
    family = {name: factory.backbone(name).card.family for name in (*STATED, "adaface")}
    assert family["uniface-adaface-ir18"] == family["uniface-adaface-ir101"] == family["adaface"]
    assert len({family[name] for name in STATED}) == 5


def test_terms_are_asked_where_a_publisher_has_some():
    asked = {name for name in STATED if any(entry.terms for entry in factory.backbone(name).assets())}
    assert asked == {name for name in STATED if "insightface" in name or "edgeface" in name}


@pytest.mark.parametrize("name", ["uniface-adaface-ir18", "uniface-mobilenetv2"])
def test_a_file_of_that_interface_embeds_with_the_preprocessing_stated(name, data, monkeypatch):
    backbone, path = in_place(name, data, monkeypatch)
    backbone.load(CPU)
    assert backbone.files(EMPTY) == (path,)
    pixels = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    wanted = pixels.flip(1) if "adaface" in name else pixels
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"input": ((255 * wanted - 127.5) / 127.5).numpy()})[0]
    np.testing.assert_allclose(backbone.embed(pixels).numpy(), expected, atol=1e-3)


def test_another_dimension_than_the_cards_is_found_when_it_is_loaded(data, monkeypatch):
    backbone, _ = in_place("uniface-mobilenetv1", data, monkeypatch, dimension=128)
    with pytest.raises(DataError, match=r"returns \(2, 128\) for two images, expected \(2, 512\)"):
        backbone.load(CPU)


@pytest.mark.parametrize("name", OWN)
def test_a_missing_file_says_how_to_fetch_it_and_another_is_refused(name, data):
    backbone = factory.backbone(name)
    with pytest.raises(
        DataError, match=rf"'weights/uniface/.*' is not in the data folder .*bench fetch {name}'"
    ):
        backbone.load(CPU)
    write_network(data / backbone.card.file)
    with pytest.raises(DataError, match=f"has SHA-256 .*, expected {backbone.card.sha256}"):
        backbone.load(CPU)
