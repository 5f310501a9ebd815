"""The real backbones from their ONNX files."""

import numpy as np
import onnxruntime
import pytest
import torch

from bench.contracts import MICRO_BATCH, Binding
from bench.data.files import data_folder
from bench.errors import DataError
from bench.plugins import factory
from bench.run.stages.embed import EMBED_BATCH
from fr_models._onnx_backbone import OnnxBackbone, prepare

NAMES = (
    "mobilefacenet-relu6", "mobilefacenet-casia", "mobileface-v2", "mobileface-v3", "dlib-resnet", "edgeface-xxs",
)  # fmt: skip
FAMILIES = {
    "mobileface-v2": "MobileFace",
    "mobileface-v3": "MobileFace",
    "dlib-resnet": "dlib",
    "edgeface-xxs": "edgeface",
}
CPU = torch.device("cpu")

pytestmark = pytest.mark.parametrize("name", NAMES)
real_data = pytest.mark.real_data
needs_weights = pytest.mark.skipif(
    not (data_folder() / "weights" / "fr").exists(), reason="CLOAKBENCH_DATA has no weights/fr folder"
)


@pytest.fixture
def backbone(name):
    made = factory.backbone(name)
    made.load(CPU)
    return made


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def noise(count, seed=0):
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed))


def forward_and_gradient(backbone, images):
    leaf = images.clone().requires_grad_()
    vectors = backbone.embed(leaf)
    weight = torch.linspace(-1, 1, vectors.shape[1])
    score = (torch.nn.functional.normalize(vectors, dim=1) * weight).sum()
    return vectors.detach(), torch.autograd.grad(score, leaf)[0]


def test_card_states_what_a_table_needs(name):
    card = factory.backbone(name).card
    assert card.name == name
    assert card.licence
    assert " @ " in card.source
    assert len(card.sha256) == 64
    assert [t.far for t in card.thresholds] == [0.1, 0.01, 0.001]
    assert sorted(t.cosine for t in card.thresholds) == [t.cosine for t in card.thresholds]
    assert all(t.far_low < t.far < t.far_high < 1.2 * t.far for t in card.thresholds)
    assert card.family == FAMILIES.get(name, name)


def test_missing_weights_are_refused_with_the_way_to_get_them(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"'weights/fr/{name}.*\.onnx' is not in .*bench fetch {name}"):
        factory.backbone(name).load(CPU)


@real_data
@needs_weights
def test_embedding_agrees_with_onnxruntime_by_both_paths(name, backbone):
    assert isinstance(backbone, OnnxBackbone)
    images = noise(4)
    path = backbone.weights_path()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = prepare(images, backbone.card.preprocessing).numpy()
    expected = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    assert expected.shape == (4, backbone.card.embedding_dim)
    assert np.abs(backbone.embed(images).numpy() - expected).max() < 1e-3
    assert np.abs(backbone.embed_batch(images).numpy() - expected).max() < 1e-3
    assert backbone.files(Binding("lfw", "real", (), name)) == (path,)


@real_data
@needs_weights
def test_gradient_is_finite_and_reaches_every_pixel_the_network_sees(name, backbone):
    _, gradient = forward_and_gradient(backbone, noise(2))
    assert gradient.isfinite().all()
    crop = backbone.card.preprocessing.crop or (0, 0, 112, 112)
    inside = torch.zeros(112, 112, dtype=torch.bool)
    inside[crop[0] : crop[0] + crop[2], crop[1] : crop[1] + crop[3]] = True
    # dlib's first convolutions and pools, which are not padded, leave the last rows and columns out.
    assert (gradient[..., inside] != 0).float().mean() > (0.97 if name == "dlib-resnet" else 0.99)
    assert (gradient[..., ~inside] == 0).all()


@real_data
@needs_weights
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_image_embeds_alike_in_every_place_of_a_batch(name, count, threads):
    """Bytes must not depend on the neighbours: sign steps amplify the last bit (DESIGN 4)."""
    threads(count)
    backbone = factory.backbone(name)
    backbone.load(CPU)
    first = noise(MICRO_BATCH)
    expected, expected_gradient = forward_and_gradient(backbone, first)
    for place, seed in ((5, 1), (3, 2)):
        other = noise(MICRO_BATCH, seed)
        other[place] = first[0]
        vectors, gradient = forward_and_gradient(backbone, other)
        assert torch.equal(vectors[place], expected[0])
        assert torch.equal(gradient[place], expected_gradient[0])
    wide, moved = noise(EMBED_BATCH, 3), noise(EMBED_BATCH, 4)
    moved[17] = wide[0]
    assert torch.equal(backbone.embed_batch(wide)[0], backbone.embed_batch(moved)[17])


@real_data
@needs_weights
def test_a_trainable_copy_embeds_alike_and_every_weight_gets_a_gradient(name, backbone):
    images = noise(2)
    before = backbone.embed(images)
    copy = backbone.trainable(CPU)
    vectors = copy(images)
    torch.testing.assert_close(vectors.detach(), before, rtol=1e-3, atol=1e-3)
    torch.nn.functional.normalize(vectors, dim=1)[:, 0].sum().backward()
    parameters = list(copy.parameters())
    weights = sum(p.numel() for p in parameters)
    assert weights > 0.99 * sum(b.numel() for b in backbone._network.buffers()) > 500_000
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    torch.optim.SGD(parameters, lr=1.0).step()
    assert not torch.allclose(copy(images), before, rtol=1e-3)
    assert torch.equal(backbone.embed(images), before)
