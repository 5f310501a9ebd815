"""PuFace: the network, which weights fit which cell, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bench.contracts import MICRO_BATCH, Binding, Context, Faces
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from bench.randomness import torch_generator
from defenses.puface import network
from defenses.puface import purifier as puface
from defenses.puface.network import PurifierNetwork, load_network, purify, save_network
from defenses.puface.purifier import SHELF, PuFace, PurifierCard


def random_network(width: int = 4, depth: int = 2, seed: int = 0) -> PurifierNetwork:
    """Return a network that changes its input, unlike a fresh one."""
    network = PurifierNetwork(width, depth)
    generator = torch_generator(seed, "test", "weights")
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def random_images(count: int, seed: int = 0, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch_generator(seed, "test", "images"))


def write_weights(folder: Path, name: str = "puface-test", **changes: object) -> Path:
    """Write a small network with a card that fits it; `changes` replace fields of the card."""
    network = random_network()
    path = folder / f"{name}.safetensors"
    save_network(network, path)
    card: dict[str, object] = {
        "file": path.name,
        "sha256": sha256_of(path),
        "domain": "real",
        "dataset": "lfw",
        "dataset_fingerprint": "0" * 64,
        "training_identities": "lfw/training",
        "extractors": ["a", "b"],
        "attacks": ["pgd:eps=15"],
        "amplification": {"pgd:eps=15": [1, 3]},
        "image_weight": 10,
        "feature_weight": 1,
        "width": network.width,
        "depth": network.depth,
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": 10,
        "batch": 4,
        "trainer": "puface",
        "command": "bench train puface",
        "seed": 0,
        "wall_seconds": 1.0,
        "machine": "cpu",
        "quality": {
            "identities": 1,
            "natural_psnr": 30,
            "cloaked_psnr": 25,
            "purified_psnr": 27,
            "distance_cloaked": 1,
            "distance_purified": 0.1,
            "recovered": 0.9,
        },
    }
    path.with_suffix(".json").write_text(json.dumps(card | changes), encoding="utf-8")
    return path


def binding(*backbones: str, domain: str = "real", tracker: str = "tracker") -> Binding:
    return Binding(dataset="lfw", domain=domain, backbones=backbones, tracker=tracker)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the shipped weights."""
    monkeypatch.setattr(puface, "SHELF", replace(SHELF, folder=tmp_path))
    return tmp_path


# The network.


def test_the_size_stated_in_the_docs() -> None:
    assert sum(p.numel() for p in PurifierNetwork(48, 10).parameters()) == 212_499


def test_a_fresh_network_changes_nothing() -> None:
    images = random_images(2)
    assert torch.equal(PurifierNetwork(8, 4, torch.Generator().manual_seed(1))(images), images)


def test_first_weights_depend_on_the_generator_only() -> None:
    one, two = (PurifierNetwork(4, 2, torch.Generator().manual_seed(7)).state_dict() for _ in range(2))
    other = PurifierNetwork(4, 2, torch.Generator().manual_seed(8)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["body.0.weight"], other["body.0.weight"])


def test_forward_is_the_sum_its_docstring_describes() -> None:
    network = random_network(width=5, depth=4).double()
    w = network.state_dict()
    images = random_images(2).double()
    x = F.conv2d(images - 0.5, w["down.weight"], w["down.bias"], stride=2, padding=1)
    for i in (0, 2):
        inner = F.conv2d(x.clamp_min(0), w[f"body.{i}.weight"], w[f"body.{i}.bias"], padding=1)
        j = i + 1
        x = x + F.conv2d(inner.clamp_min(0), w[f"body.{j}.weight"], w[f"body.{j}.bias"], padding=1)
    correction = F.conv_transpose2d(x.clamp_min(0), w["up.weight"], w["up.bias"], stride=2, padding=1)
    torch.testing.assert_close(network(images), images + correction)
    assert float(correction.abs().max()) > 1e-3


def test_an_odd_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="depth 3 is odd"):
        PurifierNetwork(4, 3)


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(11)), cut=st.integers(1, 10))
def test_bytes_do_not_depend_on_the_company(order: list[int], cut: int) -> None:
    network = random_network()
    images = random_images(11)
    together = purify(network, images)
    shuffled = torch.cat([purify(network, images[order[:cut]]), purify(network, images[order[cut:]])])
    assert torch.equal(shuffled, together[order])


def test_output_is_clamped_and_differs_from_the_input() -> None:
    network = random_network()
    network.up.bias += 0.3
    purified = purify(network, random_images(3))
    assert float(purified.max()) == 1.0
    assert float(purified.min()) >= 0.0
    assert not torch.equal(purified, random_images(3))


def test_no_images_give_no_images() -> None:
    assert purify(random_network(), random_images(0)).shape == (0, 3, 32, 32)


# Reading weights.


def test_weights_come_back_as_written(tmp_path: Path) -> None:
    network = random_network()
    path = tmp_path / "w.safetensors"
    save_network(network, path)
    read = load_network(path, torch.device("cpu"))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor.half().float(), read.state_dict()[name])
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())


def test_missing_weights_say_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"do not exist.*bench train puface"):
        load_network(tmp_path / "no.safetensors", torch.device("cpu"))


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 200])
def test_corrupt_weights_are_data_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        load_network(path, torch.device("cpu"))


def test_truncated_weights_are_data_errors(tmp_path: Path) -> None:
    path = write_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be read"):
        load_network(path, torch.device("cpu"))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="architecture 'not stated'"):
        load_network(path, torch.device("cpu"))


def test_a_wrong_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    network = random_network(width=4)
    network.width = 5
    save_network(network, path)
    with pytest.raises(DataError, match="does not hold the network it declares"):
        load_network(path, torch.device("cpu"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = random_network()
    network.up.bias.fill_(float("nan"))
    path = tmp_path / "w.safetensors"
    save_network(network, path)
    with pytest.raises(DataError, match="not finite"):
        load_network(path, torch.device("cpu"))


# Choosing weights.


def test_weights_are_chosen_by_domain_and_extractors(shelf: Path) -> None:
    write_weights(shelf, "puface-ab")
    write_weights(shelf, "puface-cd", extractors=["c", "d"])
    write_weights(shelf, "puface-synthetic", domain="synthetic")
    weights, card = PuFace().files(binding("c", "d"))
    assert weights.name == "puface-cd.safetensors"
    assert card == weights.with_suffix(".json")
    assert PuFace().files(binding("a", "b", domain="synthetic"))[0].name == "puface-synthetic.safetensors"


def test_extractors_fit_in_any_order(shelf: Path) -> None:
    write_weights(shelf)
    assert PuFace().files(binding("b", "a"))[0].name == "puface-test.safetensors"


def test_auto_takes_the_widest_mixture_and_train_narrows_it(shelf: Path) -> None:
    write_weights(shelf, "puface-one")
    write_weights(shelf, "puface-two", attacks=["fawkes", "pgd:eps=15"])
    assert PuFace().files(binding("a", "b"))[0].name == "puface-two.safetensors"
    only_pgd = PuFace(PuFace.Params(train="pgd"))
    assert only_pgd.files(binding("a", "b"))[0].name == "puface-one.safetensors"
    both = PuFace(PuFace.Params(train="pgd|fawkes"))
    assert both.trained_on(binding("a", "b")) == ("fawkes", "pgd:eps=15")


def test_weights_trained_against_themselves_are_taken_only_where_asked_for(shelf: Path) -> None:
    write_weights(shelf, "puface-pgd")
    write_weights(shelf, "puface-mixed", attacks=["fawkes", "pgd:eps=15"])
    write_weights(shelf, "puface-adaptive", attacks=["adaptive", "fawkes", "pgd:eps=15"])

    def chosen(train: str) -> str:
        return PuFace(PuFace.Params(train=train)).files(binding("a", "b"))[0].stem

    assert [chosen(train) for train in ("auto", "mixed", "adaptive", "pgd")] == [
        "puface-mixed",
        "puface-mixed",
        "puface-adaptive",
        "puface-pgd",
    ]


def test_a_missing_adaptive_purifier_names_the_trainer_that_makes_it(shelf: Path) -> None:
    write_weights(shelf)
    with pytest.raises(
        UsageError, match=r"train=adaptive.*bench train puface:adaptive_share=0.5 --dataset lfw"
    ):
        PuFace(PuFace.Params(train="adaptive")).files(binding("a", "b"))


def test_no_weights_name_what_there_is_and_the_command(shelf: Path) -> None:
    write_weights(shelf)
    with pytest.raises(UsageError) as error:
        PuFace().files(binding("x", "y"))
    message = str(error.value)
    assert "puface-test: domain real, extractors a|b, train pgd" in message
    assert "bench train puface --dataset lfw" in message
    assert "--backbone x --backbone y" in message


def test_an_unknown_mixture_is_asked_for_in_the_command(shelf: Path) -> None:
    write_weights(shelf)
    with pytest.raises(UsageError, match="--attack lowkey"):
        PuFace(PuFace.Params(train="lowkey")).files(binding("a", "b"))


def test_the_tracker_among_the_extractors_must_be_named(shelf: Path) -> None:
    write_weights(shelf)
    cell = binding("a", "b", tracker="a")
    with pytest.raises(UsageError, match=r"tracker 'a' is among the feature extractors.*features="):
        PuFace().files(cell)
    named = PuFace(PuFace.Params(features="a|b"))
    assert named.files(cell)[0].name == "puface-test.safetensors"
    assert named.pool() == "a|b"


def test_card_answers_for_training(shelf: Path) -> None:
    write_weights(shelf)
    assert PuFace().trained_on(binding("a", "b")) == ("pgd:eps=15",)
    assert PuFace().training_identities(binding("a", "b")) == "lfw/training"


def test_own_weights_must_fit_the_cell(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    mine = write_weights(tmp_path_factory.mktemp("own"), "mine", extractors=["x"])
    purifier = PuFace(PuFace.Params(weights=str(mine)))
    assert purifier.files(binding("x"))[0] == mine
    with pytest.raises(UsageError, match=r"extractors x.*features=x"):
        purifier.files(binding("a", "b"))


def test_own_weights_must_exist(shelf: Path) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        PuFace(PuFace.Params(weights=str(shelf / "no.safetensors"))).files(binding("a"))


def test_changed_weights_are_noticed(shelf: Path) -> None:
    path = write_weights(shelf)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match="its card says"):
        PuFace().files(binding("a", "b"))


def test_weights_without_card_are_data_errors(shelf: Path) -> None:
    path = write_weights(shelf)
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match="has no card"):
        PuFace().files(binding("a", "b"))


@pytest.mark.parametrize("content", ["", "{}", "[]", "{"])
def test_a_broken_card_is_a_data_error(shelf: Path, content: str) -> None:
    path = write_weights(shelf)
    path.with_suffix(".json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="is not the card of weights by `bench train puface`"):
        PuFace().files(binding("a", "b"))


# Purifying.


def test_purify_is_the_network_and_passes_gradients(tmp_path: Path) -> None:
    weights = write_weights(tmp_path)
    finished: list[int] = []
    ctx = Context(files=(weights, weights.with_suffix(".json")), advance=finished.append)
    images = random_images(3).requires_grad_()
    faces = Faces(images, ("1", "2", "3"), ("p", "p", "q"))
    purified = PuFace().purify(faces, ctx)
    assert torch.equal(purified, purify(load_network(weights, torch.device("cpu")), images))
    purified.sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert float(images.grad.abs().min()) > 0 or float(images.grad.abs().mean()) > 0.5
    assert sum(finished) == 3


def in_micro_batches(net: PurifierNetwork, images: torch.Tensor) -> torch.Tensor:
    """Return what the plain forward pass makes of images, `MICRO_BATCH` at a time, black ones among them."""
    batches = []
    for start in range(0, len(images), MICRO_BATCH):
        batch = images[start : start + MICRO_BATCH]
        black = batch.new_zeros(MICRO_BATCH - len(batch), *batch.shape[1:])
        output = net(torch.cat([batch, black]).contiguous(memory_format=torch.channels_last))
        batches.append(output[: len(batch)].clamp(0, 1))
    return torch.cat(batches)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_without_gradients_the_bytes_are_those_of_the_plain_forward_pass(mode: Any, threads: int) -> None:
    net, images = random_network(width=12, depth=4), random_images(11, side=48)
    given = images.clone()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with mode():
            purified = purify(net, images)
            assert torch.equal(purified, in_micro_batches(net, images))
            assert torch.equal(purified, purify(net, images))
    finally:
        torch.set_num_threads(before)
    assert purified.is_contiguous()
    assert torch.equal(images, given)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_convolutions_with_a_second_operation_give_the_bytes_of_those_without(
    stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = PurifierNetwork(48, 4, torch_generator(0, "test", "weights"), stride)
    torch.nn.init.normal_(net.up.weight, std=0.05, generator=torch_generator(1, "test", "weights"))
    net.requires_grad_(False).to(memory_format=torch.channels_last)
    images = random_images(3, side=64)
    fused = purify(net, images)
    monkeypatch.setattr(network, "_fuses", lambda _images: False)
    in_place = purify(net, images)
    assert torch.equal(fused, in_place)
    assert torch.equal(in_place, in_micro_batches(net, images))
    assert not torch.equal(fused, images)


def test_gradients_are_those_of_the_plain_forward_pass() -> None:
    net = random_network(width=12)
    ours, plain = (random_images(9).requires_grad_() for _ in range(2))
    purified = purify(net, ours)
    assert torch.equal(purified, in_micro_batches(net, plain))
    assert torch.equal(purified, purify(net, ours.detach()))
    (gradient,) = torch.autograd.grad(purified.square().sum(), ours)
    (expected,) = torch.autograd.grad(in_micro_batches(net, plain).square().sum(), plain)
    assert torch.equal(gradient, expected)


def test_a_network_in_training_gets_gradients_through_photos_that_have_none() -> None:
    net = random_network().requires_grad_()
    purify(net, random_images(2)).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_odd_sides_are_refused(tmp_path: Path) -> None:
    weights = write_weights(tmp_path)
    faces = Faces(random_images(1, side=31), ("1",), ("p",))
    with pytest.raises(DataError, match="multiples of 2, got 31×31"):
        PuFace().purify(faces, Context(files=(weights,)))


# What the project ships.


@pytest.mark.parametrize("weights", SHELF.shipped(), ids=lambda path: path.stem)
def test_shipped_weights_are_those_of_their_card(weights: Path) -> None:
    card: PurifierCard = SHELF.read(weights)
    network = load_network(weights, torch.device("cpu"))
    assert card.file == weights.name
    assert card.sha256 == sha256_of(weights)
    assert weights.stat().st_size < 2_000_000
    assert card.parameters == sum(p.numel() for p in network.parameters()) <= 250_000
    assert (card.width, card.depth) == (network.width, network.depth)
    assert card.command.startswith("bench train ")
    assert f"--out defenses/weights/{weights.name}" in card.command
    assert card.training_identities.removesuffix(" without development").endswith("/training")
    cell = Binding(card.dataset, card.domain, card.extractors, "another")
    assert PuFace(PuFace.Params(train="|".join(card.attack_names))).files(cell)[0] == weights


def test_gradients_flow_after_a_purification_without_them(tmp_path: Path) -> None:
    weights = write_weights(tmp_path)
    ctx = Context(files=(weights, weights.with_suffix(".json")))
    images = random_images(1)
    with torch.inference_mode():
        PuFace().purify(Faces(images, ("1",), ("p",)), ctx)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(PuFace().purify(Faces(images, ("1",), ("p",)), ctx).sum(), images)
    assert float(gradient.abs().max()) > 0
