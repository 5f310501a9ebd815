"""What trainers share: the decay, the clock, and checkpoints from which a training goes on to the same bits."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.errors import DataError
from bench.plugins import training
from bench.plugins.training import Clock, cosine_decay, load_checkpoint, save_checkpoint


def test_the_decay_is_torchs_cosine_annealing():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20)
    for step in range(20):
        assert cosine_decay(step, 20, 0.01) == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert cosine_decay(20, 20, 0.01) == pytest.approx(0, abs=1e-12)


# -- the clock -------------------------------------------------------------------------------------------------


def test_time_adds_up_over_kills_and_counts_no_second_twice(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(tmp_path / "clock.json")
    now[0] += 5
    assert clock.save() == 5
    now[0] += 2
    assert clock.save() == clock.seconds == 7
    now[0] += 50  # killed before it was saved
    resumed = Clock(tmp_path / "clock.json")
    assert resumed.seconds == 7
    now[0] += 1
    assert resumed.save() == 8
    assert [path.name for path in tmp_path.iterdir()] == ["clock.json"]


def test_a_kill_while_the_clock_is_written_leaves_the_old_time(tmp_path, monkeypatch):
    path = tmp_path / "clock.json"
    path.write_text(json.dumps({"seconds": 3.0}))
    clock = Clock(path)

    def die(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", die)
        with pytest.raises(KeyboardInterrupt):
            clock.save()
    assert Clock(path).seconds == 3


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"seconds": "soon"}', '{"seconds": null}'])
def test_a_file_that_is_no_clock_is_named_with_the_mend(tmp_path, content):
    path = tmp_path / "clock.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"clock\.json does not hold the time.*Delete it"):
        Clock(path)


# -- checkpoints -----------------------------------------------------------------------------------------------


class Stand:
    """Two networks with one optimiser, at some step of a training whose batches are drawn by the step."""

    def __init__(self, optimiser=torch.optim.AdamW, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.modules = {
                "first": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5)),
                "second": nn.Linear(5, 2),
            }
            self.modules["first"](torch.zeros(2, 3, 6, 6))
        self.modules["first"].to(memory_format=torch.channels_last)
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        self.optimiser = optimiser(parameters, lr=0.01)

    def train(self, first, last):
        for step in range(first, last):
            batch = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
            for group in self.optimiser.param_groups:
                group["lr"] = cosine_decay(step, 10, 0.01)
            self.optimiser.zero_grad(set_to_none=True)
            self.modules["second"](self.modules["first"](batch)).square().sum().backward()
            self.optimiser.step()
        return self

    def weights(self):
        return {
            (part, name): tensor.clone()
            for part, module in self.modules.items()
            for name, tensor in module.state_dict().items()
        }


def momentum(parameters, lr):
    return torch.optim.SGD(parameters, lr, momentum=0.9)


@pytest.mark.parametrize("optimiser", [torch.optim.AdamW, momentum, torch.optim.SGD])
def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path, optimiser):
    path = tmp_path / "state.safetensors"
    whole = Stand(optimiser).train(0, 10).weights()
    killed = Stand(optimiser).train(0, 4)
    facts = {"step": 4, "loss": 0.1 + 0.2, "began": [0, 3], "best": float("inf"), "who": "ü"}
    save_checkpoint(path, killed.modules, killed.optimiser, facts)
    resumed = Stand(optimiser, seed=1)
    assert load_checkpoint(path, resumed.modules, resumed.optimiser) == facts
    assert all(torch.equal(resumed.weights()[key], tensor) for key, tensor in killed.weights().items())
    resumed.train(4, 10)
    for key, tensor in resumed.weights().items():
        assert torch.equal(tensor, whole[key]), key
    fresh = Stand(optimiser)
    for key, module in killed.modules.items():
        fresh.modules[key].load_state_dict(module.state_dict())
    if optimiser is not torch.optim.SGD:
        forgetful = fresh.train(4, 10).weights()
        assert any(not torch.equal(forgetful[key], whole[key]) for key in whole), "the moments do not matter"


def test_a_kill_while_it_is_written_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    stand = Stand().train(0, 2)
    save_checkpoint(path, stand.modules, stand.optimiser, {"step": 2})
    before = stand.weights()
    stand.train(2, 3)

    def half(tensors, file, metadata):
        save_file(tensors, file, metadata)
        file.write_bytes(file.read_bytes()[:200])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_file", half)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, stand.modules, stand.optimiser, {"step": 3})
    other = Stand()
    assert load_checkpoint(path, other.modules, other.optimiser) == {"step": 2}
    assert all(torch.equal(other.weights()[key], tensor) for key, tensor in before.items())


def rewritten(path, edit, metadata):
    save_file(edit(load_file(path)), path, metadata)


def without(part):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(part)}


def reshaped(tensors):
    return tensors | {"second/weight": torch.zeros(3, 5)}


FACTS = {"facts": "{}"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: rewritten(path, dict, {}),
        lambda path: rewritten(path, dict, {"facts": "{"}),
        lambda path: rewritten(path, without("second/"), FACTS),
        lambda path: rewritten(path, reshaped, FACTS),
        lambda path: rewritten(path, lambda t: t | {"second/more": torch.zeros(1)}, FACTS),
        lambda path: rewritten(path, lambda t: t | {"optimiser/x/step": torch.zeros(1)}, FACTS),
    ],
    ids=["empty", "cut", "no facts", "broken facts", "missing", "shape", "more", "index"],
)
def test_a_damaged_checkpoint_is_named_with_the_mend(tmp_path, damage):
    path = tmp_path / "state.safetensors"
    stand = Stand().train(0, 2)
    save_checkpoint(path, stand.modules, stand.optimiser, {"step": 2})
    damage(path)
    other = Stand()
    with pytest.raises(DataError, match=r"(?s)state\.safetensors cannot be read.*Delete it"):
        load_checkpoint(path, other.modules, other.optimiser)


def test_checkpoints_of_the_same_stand_are_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        stand = Stand().train(0, 3)
        save_checkpoint(tmp_path / name, stand.modules, stand.optimiser, {"step": 3})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
