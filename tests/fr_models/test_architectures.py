import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fr_models._arcface_loss import ArcFaceLoss, margin_logits
from fr_models._iresnet import IResNet18
from fr_models._layers import Convolution, PReLU, fold, initialise, scaled
from fr_models._mobilefacenet import MobileFaceNet
from fr_models._torch_backbone import Architecture


def parameters(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def trained_a_little(network: nn.Module) -> nn.Module:
    """Give batch norms and slopes values that a wrong fold would get wrong."""
    generator = torch.Generator().manual_seed(5)
    initialise(network, generator)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "normalisation" in name or "before" in name or "after" in name or "slope" in name:
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
        network.train()
        for _ in range(3):
            network(torch.randn(8, 3, 112, 112, generator=generator))
    return network.eval()


def test_full_mobilefacenet_has_the_papers_size() -> None:
    """Table 1 counted by hand: 0.99 million as the paper states, batch norm and PReLU included."""

    def convolution(inputs: int, outputs: int, kernel: int, *, groups: int = 1, linear: bool = False) -> int:
        return outputs * (inputs // groups) * kernel**2 + 2 * outputs + (0 if linear else outputs)

    def bottleneck(inputs: int, outputs: int, expansion: int) -> int:
        hidden = inputs * expansion
        return (
            convolution(inputs, hidden, 1)
            + convolution(hidden, hidden, 3, groups=hidden)
            + convolution(hidden, outputs, 1, linear=True)
        )

    by_hand = (
        convolution(3, 64, 3)
        + convolution(64, 64, 3, groups=64)
        + 5 * bottleneck(64, 64, 2)
        + bottleneck(64, 128, 4)
        + 6 * bottleneck(128, 128, 2)
        + bottleneck(128, 128, 4)
        + 2 * bottleneck(128, 128, 2)
        + convolution(128, 512, 1)
        + convolution(512, 512, 7, groups=512, linear=True)
        + convolution(512, 128, 1, linear=True)
    )
    assert parameters(MobileFaceNet()) == by_hand
    assert by_hand == pytest.approx(0.99e6, rel=0.03)


def test_full_iresnet18_has_the_reference_size() -> None:
    """24,025,600 is insightface's iresnet18 (its frozen last scale of 512 counted)."""
    assert parameters(IResNet18()) == 24_025_600


def test_iresnet18_is_built_like_the_reference() -> None:
    network = IResNet18()
    body, units = network.body, [unit for unit in network.body if hasattr(unit, "shortcut")]
    x = torch.randn(2, 3, 112, 112)
    sides = []
    with torch.inference_mode():
        for layer in body.eval():
            x = layer(x)
            sides.append((x.shape[1], x.shape[2]))
    expected = [(64, 112)] + [(c, s) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7)) for _ in range(2)]
    assert sides == expected
    assert len(units) == 8
    assert [isinstance(unit.shortcut, Convolution) for unit in units] == [True, False] * 4


@pytest.mark.parametrize(
    "network",
    [
        MobileFaceNet(0.25, 0.5, 32),
        MobileFaceNet(0.375, 1, 48),
        IResNet18(0.25, 32),
        IResNet18(0.125, 24, stem_stride=2),
    ],
    ids=["mobilefacenet-narrow", "mobilefacenet-deep", "iresnet18", "iresnet18-strided"],
)
def test_fold_keeps_values_and_gradients(network: nn.Module) -> None:
    network = trained_a_little(network)
    folded = fold(copy.deepcopy(network))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    x = torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    before, after = (x.clone().requires_grad_() for _ in range(2))
    expected, found = network(before), folded(after)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3 * expected.detach().abs().max().item())
    (expected**2).sum().backward()
    (found**2).sum().backward()
    cosine = F.cosine_similarity(before.grad.flatten(), after.grad.flatten(), dim=0)  # type: ignore[union-attr]
    assert cosine > 0.999


def test_fold_refuses_a_training_network() -> None:
    with pytest.raises(ValueError, match="eval"):
        fold(MobileFaceNet(0.25, 0.5))


def test_prelu_has_torchs_values_and_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = PReLU(6), nn.PReLU(6)
    with torch.no_grad():
        ours.slope.copy_(torch.randn(6, generator=generator))
        theirs.weight.copy_(ours.slope)
    x = torch.randn(4, 6, 5, 5, generator=generator)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(4, 6, 5, 5, generator=generator)
    (ours(one) * weights).sum().backward()
    (theirs(other) * weights).sum().backward()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(ours.slope.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)


def test_prelu_gradient_by_differences() -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    layer = PReLU(3).double()
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(),))


@settings(deadline=None)
@given(st.integers(1, 2048), st.floats(0.01, 8))
def test_scaled_channels_are_multiples_of_eight(channels: int, width: float) -> None:
    found = scaled(channels, width)
    assert found % 8 == 0
    assert found >= 16
    assert found == 16 or abs(found - channels * width) <= 4


def independent_arcface(embeddings: Tensor, centres: Tensor, labels: Tensor, s: float, m: float) -> float:
    """Eq. 3 with the angle itself, in plain Python."""
    total = 0.0
    for vector, label in zip(embeddings.double().tolist(), labels.tolist(), strict=True):
        logits = []
        for index, centre in enumerate(centres.double().tolist()):
            length = math.hypot(*vector) * math.hypot(*centre)
            cosine = sum(a * b for a, b in zip(vector, centre, strict=True)) / length
            theta = math.acos(max(-1.0, min(1.0, cosine)))
            if index == label:
                safe = theta + m < math.pi
                cosine = math.cos(theta + m) if safe else math.cos(theta) - m * math.sin(m)
            logits.append(s * cosine)
        top = max(logits)
        total += top + math.log(sum(math.exp(value - top) for value in logits)) - logits[label]
    return total / len(labels)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(1, 64), st.floats(0, 1.5))
def test_arcface_is_the_papers_formula(seed: int, scale: float, margin: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = ArcFaceLoss(5, 7, scale, margin, generator)
    embeddings = torch.randn(6, 5, generator=generator)
    embeddings[0] = -3 * loss.centres[2].detach() + 1e-3  # past π − m: the safe branch
    labels = torch.tensor([2, 0, 1, 6, 3, 3])
    expected = independent_arcface(embeddings, loss.centres.detach(), labels, scale, margin)
    assert loss(embeddings, labels).item() == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_arcface_falls_with_the_angle_and_its_gradient_is_finite() -> None:
    cosine = torch.linspace(1, -1, 2001, dtype=torch.float64)[:, None].requires_grad_()
    target = margin_logits(cosine, torch.zeros(2001, dtype=torch.long), 0.5)
    assert bool((target.diff(dim=0) < 0).all())
    target.sum().backward()
    assert cosine.grad is not None
    assert bool(cosine.grad.isfinite().all())


def test_architecture_builds_what_it_says() -> None:
    made = Architecture(arch="iresnet18", width=0.25, depth=1, embedding_dim=40, stem_stride=2).build().eval()
    assert made(torch.zeros(1, 3, 112, 112)).shape == (1, 40)
    made = Architecture(arch="mobilefacenet", width=0.25, depth=0.5, embedding_dim=24).build().eval()
    assert made(torch.zeros(1, 3, 112, 112)).shape == (1, 24)
