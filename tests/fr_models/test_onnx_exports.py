"""Networks of random weights as torch's exporters write them, against onnxruntime and the modules themselves."""

import warnings

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from torch.nn.init import normal_

from fr_models._inception_resnet import InceptionResNet
from fr_models._iresnet_deep import IResNet
from fr_models._onnx_reader import read_onnx

TOLERANCE = 1e-4
"""Relative to the largest value."""

NETWORKS = {
    "edgenext": (64, lambda: timm.create_model("edgenext_xx_small", num_classes=16, depths=(1, 1, 2, 2))),
    "vit": (48, lambda: timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2, num_classes=16)),
    "mobilenetv3": (64, lambda: timm.create_model("mobilenetv3_small_050", num_classes=16)),
    "iresnet": (112, lambda: IResNet(18)),
    "inception-resnet": (160, InceptionResNet),
}


def built(name):
    """Return a network of random weights whose layer scales let every branch through, and its input's side."""
    side, build = NETWORKS[name]
    torch.manual_seed(0)
    network = build().eval()
    for key, parameter in network.named_parameters():
        if "gamma" in key:
            normal_(parameter, std=0.5)
    return network, side


def exported(network, side, path, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        torch.onnx.export(
            network, (torch.zeros(2, 3, side, side),), str(path), input_names=["image"], verbose=False, **how
        )
    return path


def agrees(network, side, path):
    """Compare for batches of 1, 2 and 5."""
    read = read_onnx(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(batch))
        (expected,) = session.run(None, {"image": images.numpy()})
        found = read(images).detach().numpy()
        assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
        ours, theirs = gradient(read, images), gradient(network, images)
        # Folding batch norm moves a few activations across a kink, where the gradient jumps: so in the mean.
        assert (ours - theirs).norm() < 1e-2 * theirs.norm()
        assert (ours - theirs).abs().median() < TOLERANCE * theirs.abs().max()


def gradient(network, images):
    leaf = images.clone().requires_grad_()
    vectors = network(leaf)
    score = (vectors * torch.linspace(-1, 1, vectors.shape[1])).sum()
    return torch.autograd.grad(score, leaf)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_network_by_the_tracing_exporter(name, tmp_path):
    network, side = built(name)
    how = {"dynamo": False, "opset_version": 17, "dynamic_axes": {"image": {0: "N"}}}
    agrees(network, side, exported(network, side, tmp_path / "net.onnx", **how))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edgenext", "vit", "mobilenetv3", "iresnet"])
def test_network_by_the_dynamo_exporter_whose_weights_lie_in_another_file(name, tmp_path):
    network, side = built(name)
    how = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("N", min=1)},), "external_data": True}
    agrees(network, side, exported(network, side, tmp_path / "net.onnx", **how))
    assert (tmp_path / "net.onnx.data").is_file()


def test_a_trainable_copy_of_an_attention_network_gets_a_gradient_in_every_weight(tmp_path):
    network, side = built("vit")
    how = {"dynamo": False, "opset_version": 17, "dynamic_axes": {"image": {0: "N"}}}
    copy = read_onnx(exported(network, side, tmp_path / "net.onnx", **how)).trainable()
    copy(torch.randn(2, 3, side, side)).square().sum().backward()
    trained, theirs = list(copy.parameters()), list(network.parameters())
    # The exporter writes equal biases once.
    assert sum(p.numel() for p in trained) > 0.99 * sum(p.numel() for p in theirs)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
