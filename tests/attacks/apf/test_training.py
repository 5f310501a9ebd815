"""Training APF: whose photos, the loss, the bound, and that a killed training goes on to the same weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from attacks.apf.card import SHELF
from attacks.apf.end import Ascent, other_photos
from attacks.apf.network import ApfNetwork, load_network
from attacks.apf.photos import deal_identities, read_pairs
from attacks.apf.training import ApfTrainer, bounded, dodging_loss, posted
from bench.contracts import Backbone, BackboneCard, Dataset, Faces, Identity, MethodParams, TrainRequest
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from bench.plugins import syntax
from bench.randomness import torch_generator

SIDE = 32


class Blobs(Dataset):
    """Each identity a smooth image, each photo that with some change; remembers which were read."""

    name = "blobs"
    domain = "test"

    class Params(MethodParams):
        """None."""

    def __init__(self, identities=24, photos=4):
        super().__init__()
        self.n_identities, self.photos = identities, photos
        self.read: set[str] = set()

    def identities(self):
        return tuple(
            Identity(
                f"p{i:02}",
                tuple(f"p{i:02}/{k}" for k in range(self.photos if i % 5 else 1)),
                "evaluation" if i % 4 == 0 else "training",
            )
            for i in range(self.n_identities)
        )

    def fingerprint(self):
        return f"blobs of {self.n_identities}"

    def crops(self, ids):
        self.read.update(ids)
        images = []
        for image in ids:
            identity = torch.rand(3, 4, 4, generator=torch_generator(0, "person", image.split("/")[0]))
            change = torch.rand(3, 8, 8, generator=torch_generator(0, "photo", image))
            images.append(
                F.interpolate(identity[None], size=SIDE, mode="bilinear")[0]
                + 0.3 * F.interpolate(change[None], size=SIDE, mode="bilinear")[0]
            )
        return torch.stack(images).div(1.3).mul(255).round().to(torch.uint8)


class Projection(Backbone):
    """Two random convolutions; fixed by its name."""

    def __init__(self, name, differentiable=True):
        super().__init__()
        self.card = BackboneCard(name=name, licence="none", embedding_dim=12)
        self.differentiable = differentiable
        generator = torch_generator(0, "projection", name)
        self.first = torch.randn(8, 3, 4, 4, generator=generator) / 4
        self.last = torch.randn(12, 8 * 8 * 8, generator=generator) / 20

    def load(self, device):
        """Nothing to read."""

    def embed(self, images):
        return F.linear(torch.tanh(F.conv2d(images - 0.5, self.first, stride=4)).flatten(1), self.last)


def request(out, **fields):
    backbones = (Projection("probe"), Projection("server"))
    return TrainRequest(**({"dataset": Blobs(), "out": Path(out), "backbones": backbones} | fields))


def trainer(**params):
    quick = {
        "width": 4, "steps": 12, "enhance_steps": 4, "universal_steps": 5, "batch": 8, "holdout": 4,
        "ascent_steps": 3, "checkpoint_every": 2,
    }  # fmt: skip
    return ApfTrainer(ApfTrainer.Params(**(quick | params)))


# -- formulas ------------------------------------------------------------------------------------------------


def test_the_loss_is_the_papers():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 7, generator=generator) for _ in "ab")
    b = F.normalize(b)
    by_hand = [10 - float(((x / x.norm() - y) ** 2).sum()) for x, y in zip(a, b, strict=True)]
    assert float(dodging_loss(a, b)) == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_the_bound_rounds_and_clips_and_lets_pixels_come_back():
    values = torch.tensor([0.3, -0.3, 1.7, 1.7, -1.7, -1.7], requires_grad=True)
    sent = bounded(values, 8)
    assert torch.equal(sent.detach() * 8, torch.tensor([2.0, -2, 8, 8, -8, -8]))
    sent.backward(torch.tensor([1.0, -2, 1, -1, 1, -1]))
    # A step goes down the gradient: 1.7 with slope 1 comes back, with slope −1 it would run away.
    assert values.grad.tolist() == [1, -2, 1, 0, 0, -1]


def test_posted_photos_are_pixels_and_gradients_pass():
    change = torch.tensor([0.5, -0.9, 0.1], requires_grad=True)
    cloaks = posted(torch.tensor([0.7, 0.2, 0.5]), change)
    torch.testing.assert_close(cloaks.detach(), torch.tensor([1.0, 0.0, 0.6]))
    cloaks.sum().backward()
    assert change.grad.tolist() == [1, 1, 1]


# -- identities and pairs ----------------------------------------------------------------------------------------


def test_nobody_is_both_held_out_and_trained_on_and_lone_photos_are_left_out():
    identities = [p for p in Blobs(40).identities() if p.role == "training"]
    held, rest = deal_identities(identities, 5, 10**6, np.random.default_rng(0), "blobs")
    training = {p.id for p in identities if len(p.photos) > 1}
    assert {p.id for p in held} | {p.id for p in rest} == training
    assert not {p.id for p in held} & {p.id for p in rest}
    assert len(held) == 5
    _, few = deal_identities(identities, 5, 9, np.random.default_rng(0), "blobs")
    assert [p.id for p in few] == [p.id for p in rest[:3]]
    with pytest.raises(UsageError, match="takes identities of three or more"):
        deal_identities(Blobs(40, photos=2).identities(), 5, 10, np.random.default_rng(0), "blobs")


def test_pairs_agree_with_the_attack_and_score_with_a_third_photo(tmp_path):
    requested = request(tmp_path / "x.safetensors")
    identities = [p for p in requested.dataset.identities() if len(p.photos) > 1][:3]
    pairs = read_pairs(
        requested, identities, requested.backbones[0], Ascent(8, 2.0, 2, 0.5), tmp_path, "pairs"
    )
    ids = tuple(image for p in identities for image in p.photos)
    faces = Faces(pairs.photos.float() / 255, ids, tuple(i.split("/")[0] for i in ids))
    assert torch.equal(faces.images[pairs.others], other_photos(faces))
    for row in range(len(ids)):
        other, third = int(pairs.others[row]), int(pairs.third[row])
        assert len({row, other, third}) == 3
        assert len({ids[r].split("/")[0] for r in (row, other, third)}) == 1
    assert pairs.gradients.dtype == torch.int8
    assert int(pairs.gradients.abs().max()) <= 8
    again = read_pairs(
        requested, identities, requested.backbones[0], Ascent(8, 2.0, 2, 0.5), tmp_path, "pairs"
    )
    assert torch.equal(pairs.gradients, again.gradients)
    assert len(list(tmp_path.glob("gradients-*"))) == 1


# -- training ------------------------------------------------------------------------------------------------


def test_training_raises_dodging_and_writes_a_card_that_is_true(tmp_path):
    out = tmp_path / "apf.safetensors"
    requested = request(out)
    card = trainer(steps=60, enhance_steps=20, universal_steps=20, lr=3e-3).train(requested)
    assert SHELF.read(out).model_dump(mode="json") == card == json.loads(out.with_suffix(".json").read_text())
    assert card["sha256"] == sha256_of(out)
    assert (card["probe"], card["server"], card["width"], card["eps"]) == ("probe", "server", 4, 8)
    network = load_network(out, torch.device("cpu"))
    assert card["parameters"] == sum(p.numel() for p in network.parameters())
    cosines = card["quality"]["cosine_server"]
    assert cosines["1+2"] < cosines["0"] - 0.02
    assert cosines["1+2"] < cosines["1"]
    assert card["quality"]["identities"] == 4
    assert card["quality"]["mean_change"]["0"] == 0
    assert max(card["quality"]["mean_change"].values()) <= 8
    evaluated = {p.id for p in requested.dataset.identities() if p.role == "evaluation"}
    assert not {image.split("/")[0] for image in requested.dataset.read} & evaluated
    assert not out.with_suffix(".checkpoint").exists()
    words = card["command"].split()
    assert words[:2] == ["bench", "train"]
    assert syntax.parse(words[2]).name == "apf"
    assert words[3:9] == ["--dataset", "blobs", "--backbone", "probe", "--backbone", "server"]
    assert words[9:] == ["--with-development", "--seed", "0", "--out", "apf.safetensors"]


def test_u_is_within_its_bound_and_the_enhancement_leaves_the_u_net_alone(tmp_path):
    two, three = (tmp_path / f"{n}.safetensors" for n in "ab")
    trainer(enhance_steps=1, enhance_lr=1e-9).train(request(two))
    trainer(enhance_steps=10).train(request(three))
    first, second = (load_file(path) for path in (two, three))
    assert float(first["enhancement.universal"].abs().max()) <= 0.1
    assert float(first["enhancement.universal"].float().abs().mean()) > 0.005
    for name in first:
        same = torch.equal(first[name], second[name])
        assert same == (name.startswith("transfer.") or name.endswith("universal")), name


class KilledError(Exception):
    """What a test stops a training with."""


def kill_in(out, stage, after):
    def stop(what, done, _total):
        if what == stage and done >= after:
            raise KilledError

    with pytest.raises(KilledError):
        trainer().train(request(out, report=stop))


@pytest.mark.parametrize(
    ("stage", "after"), [("gradients", 1), ("universal perturbation", 5), ("transfer", 7), ("enhancement", 3)]
)
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, stage, after):
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    trainer().train(request(whole))
    kill_in(killed, stage, after)
    assert not killed.exists()
    taken = []
    trainer().train(request(killed, report=lambda what, done, _total: taken.append((what, done))))
    assert whole.read_bytes() == killed.read_bytes()
    if stage == "enhancement":
        assert "transfer" not in {what for what, _ in taken}
    if stage == "transfer":
        assert ("transfer", 7) in taken
        assert ("transfer", 6) not in taken


def test_the_time_before_a_kill_counts(tmp_path):
    out = tmp_path / "apf.safetensors"
    kill_in(out, "transfer", 7)
    clock = out.with_suffix(".checkpoint") / "clock.json"
    assert 0 < json.loads(clock.read_text())["seconds"] < 600
    clock.write_text(json.dumps({"seconds": 5000}))
    assert 5000 < trainer().train(request(out))["wall_seconds"] < 5600


@pytest.mark.parametrize("damaged", ["clock.json", "state-*.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path, damaged):
    out = tmp_path / "apf.safetensors"
    kill_in(out, "transfer", 7)
    (path,) = out.with_suffix(".checkpoint").glob(damaged)
    path.write_bytes(path.read_bytes()[:7])
    with pytest.raises(DataError, match=rf"{path.name}.*Delete it"):
        trainer().train(request(out))


@pytest.mark.slow
def test_another_seed_or_parameter_gives_other_weights(tmp_path):
    outs = []
    for i, (params, fields) in enumerate(
        [
            ({}, {}),
            ({"server_diversity": 1.0}, {}),
            ({"probe_weight": 0.5}, {}),
            ({}, {"seed": 1}),
            ({"precision": "bfloat16"}, {}),
        ]
    ):
        out = tmp_path / f"{i}.safetensors"
        trainer(**params).train(request(out, **fields))
        outs.append(out.read_bytes())
    assert len(set(outs)) == 5


def test_probe_and_server_may_be_named(tmp_path):
    for i, (params, expected) in enumerate(
        [
            ({}, ("probe", "server")),
            ({"probe": "server"}, ("server", "probe")),
            ({"server": "probe"}, ("server", "probe")),
            ({"probe": "probe", "server": "server"}, ("probe", "server")),
        ]
    ):
        card = trainer(steps=1, enhance_steps=1, universal_steps=1, **params).train(
            request(tmp_path / f"{i}.safetensors")
        )
        assert (card["probe"], card["server"]) == expected


def test_what_cannot_be_trained_is_refused_before_any_work(tmp_path):
    out = tmp_path / "x.safetensors"
    one, two = Projection("probe"), Projection("server")
    refused = [
        ({}, {"backbones": (one,)}, "needs two backbones"),
        ({}, {"backbones": (one, Projection("probe"))}, "needs two backbones"),
        ({}, {"backbones": (one, two, Projection("third"))}, "needs two backbones"),
        ({}, {"backbones": (one, Projection("blind", differentiable=False))}, "'blind' has no gradient"),
        ({"probe": "z"}, {}, "unknown apf probe 'z'"),
        ({"probe": "server", "server": "server"}, {}, "both 'server'"),
        ({}, {"out": tmp_path / "x.pt"}, "must end in"),
        ({"holdout": 500}, {}, "Lower holdout"),
    ]
    for params, fields, message in refused:
        with pytest.raises(UsageError, match=message):
            trainer(**params).train(request(**({"out": out} | fields)))
    assert list(tmp_path.iterdir()) == []


def test_a_wide_network_starts_as_the_identity():
    network = ApfNetwork(24)
    network.draw(torch.Generator().manual_seed(1))
    gradients = torch.randint(-8, 9, (3, 3, 112, 112), generator=torch.Generator().manual_seed(0)) / 8
    with torch.no_grad():
        outputs = network(gradients, 2)
        network.transfer.decoder[-1].weight[:24] = 0  # what comes from below
        network.transfer.decoder[-1].weight[48:] = 0
        assert 0 < float((outputs - gradients).std()) < 0.2
        torch.testing.assert_close(network(gradients, 2), gradients, atol=1e-5, rtol=0)


def test_a_network_is_drawn_from_its_seed_alone():
    first, second = ApfNetwork(4), ApfNetwork(4)
    for network in (first, second):
        network.draw(torch.Generator().manual_seed(5))
    gradients = torch.rand(4, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        outputs = first.transfer(gradients)
    assert torch.equal(outputs, second.transfer(gradients))
    assert 0.1 < float(outputs.std()) < 3
