"""A plugin that breaks its contract, or the process around it, is named, and touches nobody else."""

import logging
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import PIL.ImageFile
import pytest
import torch

from bench.authoring.fakes import FakeBackbone
from bench.contracts import Attack, Context, Defense, Faces, Hardening, Purifier, ThreatModel
from bench.errors import MethodError
from bench.faces.pixels import Pixels
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.plugins.process import calling, settings
from bench.quality import diagnosis
from bench.run import calls

CPU = torch.device("cpu")
FACES = Faces(torch.rand(2, 3, 4, 4), ("a", "b"), ("p", "q"))


class Any(Attack, Defense):
    """Does what the test says, whatever it is called for."""

    name = "any"
    threat = ThreatModel(goal="targeted", needs_targets=True)

    def __init__(self, does):
        super().__init__()
        self.does = does

    def fit(self, faces, ctx):
        return self.does(faces)

    def cloak(self, faces, ctx):
        return self.does(faces)

    def assign_targets(self, faces, ctx):
        return self.does(faces)

    def erase(self, faces, key, ctx):
        return self.does(faces)


class AnyPurifier(Purifier):
    name = "any"

    def __init__(self, does):
        super().__init__()
        self.does = does

    def purify(self, faces, ctx):
        return self.does(faces)


class AnyHardening(Hardening):
    name = "any"

    def __init__(self, does):
        super().__init__()
        self.does = does

    def train(self, tracker, faces, ctx):
        return self.does(faces)

    def harden(self, tracker, state):
        return self.does(state)


class AnyBackbone(FakeBackbone):
    def __init__(self, does):
        super().__init__()
        self.does = does

    def load(self, device):
        self.does(device)

    def embed(self, images):
        return self.does(images)


def plain(does):
    """Return a dataset and protocol in one: only what the seam asks for."""
    return SimpleNamespace(name="any", crops=does, identities=lambda: does(None), decide=lambda v, t: does(v))


TARGETED = Context(targets=FACES)

CALLS = {
    "crops": lambda does: calls.crops(plain(does), ["a"]),
    "identities": lambda does: calls.identities(plain(does), "training"),
    "fit": lambda does: calls.fit(Any(does), FACES, Context()),
    "train": lambda does: calls.train(AnyHardening(does), FakeBackbone(), FACES, Context()),
    "harden": lambda does: calls.harden(AnyHardening(does), FakeBackbone(), {}),
    "cloak": lambda does: calls.cloak(Any(does), FACES, Context()),
    "assign_targets": lambda does: calls.assign_targets(Any(does), FACES, TARGETED),
    "erase": lambda does: calls.erase(Any(does), FACES, b"", Context()),
    "purify": lambda does: calls.purify(AnyPurifier(does), FACES, Context()),
    "load": lambda does: calls.load(AnyBackbone(does), CPU),
    "embed": lambda does: calls.embed(AnyBackbone(does), torch.zeros(2, 3, 112, 112)),
    "decide": lambda does: calls.decide(plain(does), {}, None),
}
"""What a plugin is called for → a call of one that does what it is told."""


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("code", [0, 3, "bye", None])
def test_leaving_the_process_is_a_failure_that_names_the_plugin(call, code):
    with pytest.raises(MethodError, match=rf"'(any|fake-0)' called sys.exit\({code!r}\)"):
        call(lambda _given: sys.exit(code))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_an_interrupt_is_the_users(call):
    def interrupted(_given):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(interrupted)


def disturb(_given=None):
    """Change every setting and every global generator."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(not torch.is_grad_enabled())
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.mkldnn.enabled = False
    torch.set_autocast_enabled("cpu", True)
    torch.set_flush_denormal(True)
    np.seterr(all="raise")
    cv2.setNumThreads(cv2.getNumThreads() + 1)
    cv2.setUseOptimized(False)
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True
    os.environ["CLOAKBENCH_DATA"] = "/elsewhere"
    os.chdir("/" if Path.cwd() != Path("/") else "/tmp")
    logging.disable(logging.CRITICAL)
    for seed in (torch.default_generator.manual_seed, np.random.seed, random.seed):
        seed(1)


def test_disturbing_changes_every_setting():
    with calling("nobody"):
        before = settings()
        disturb()
        assert [name for name, value in settings().items() if value == before[name]] == []


def drawn():
    return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002


def states():
    return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("fails", [False, True])
def test_what_a_plugin_leaves_behind_is_undone(call, fails):
    before, generators = settings(), states()

    def work(given):
        disturb()
        if fails:
            raise ZeroDivisionError

    with pytest.raises((MethodError, ZeroDivisionError, TypeError)):
        call(work)
    assert settings() == before
    assert states() == generators


def test_what_was_undone_is_reported_once_with_the_plugins_name(caplog):
    for _ in range(3):
        with calling("attack 'careless'"):
            torch.set_default_dtype(torch.float64)
    (record,) = caplog.records
    assert record.getMessage().startswith("attack 'careless' changed torch's default dtype")


def test_a_plugin_that_changes_nothing_is_not_reported(caplog):
    with calling("attack 'careful'"):
        torch.rand(3)
    assert not caplog.records


def test_random_numbers_of_others_do_not_depend_on_what_a_plugin_drew():
    torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
    expected = drawn()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
    with calling("attack 'gambler'"):
        drawn()
    assert drawn() == expected


def test_a_plugin_finds_the_global_generators_alike_in_every_call():
    found = []
    for _ in range(2):
        drawn()
        with calling("attack 'gambler'"):
            found.append(drawn())
    assert found[0] == found[1]


def test_a_plugin_is_imported_and_built_at_the_seam_too(tmp_path):
    before = settings()
    path = tmp_path / "rude.py"
    path.write_text(
        "import torch\ntorch.set_default_dtype(torch.float64)\nfrom bench.contracts import Purifier\n\n\n"
        "class Rude(Purifier):\n    name = 'rude'\n\n    def __init__(self, params=None):\n"
        "        super().__init__(params)\n        torch.set_flush_denormal(True)\n\n"
        "    def purify(self, faces, ctx):\n        return faces.images\n"
    )
    factory.defense(f"{path}:Rude")
    assert settings() == before


VECTORS = torch.rand(2, 32)


@pytest.mark.parametrize(
    ("call", "returned", "message"),
    [
        (
            "crops",
            torch.zeros(2, 3, 112, 112, dtype=torch.uint8),
            r"dataset 'any' returned torch.uint8 \(2, ",
        ),
        ("crops", torch.zeros(1, 3, 112, 112), "torch.float32"),
        ("crops", [1], "returned list"),
        ("fit", None, "attack 'any' returned NoneType, not a mapping name → tensor"),
        ("fit", {"mean": 1.0}, "attack 'any' learnt 'mean': float"),
        ("fit", {3: VECTORS}, "attack 'any' learnt 3: Tensor"),
        ("train", {"mean": np.zeros(3)}, "defence 'any' learnt 'mean': ndarray"),
        ("harden", None, "defence 'any' returned NoneType, not a Backbone"),
        ("cloak", {"z": FACES.images[0]}, "attack 'any' edited 'z', which it was not given"),
        ("cloak", {"a": FACES.images[0].double()}, "attack 'any' on 'a' returned torch.float64"),
        ("assign_targets", {"a": "p"}, "attack 'any' imitates None on 'b'"),
        ("assign_targets", {"a": "p", "b": "z"}, "attack 'any' imitates 'z' on 'b', who is not in its pool"),
        ("erase", FACES.images[:1], r"attack 'any', erasing, returned torch.float32 \(1, 3, 4, 4\)"),
        ("purify", FACES.images[:1], r"defence 'any' returned torch.float32 \(1, 3, 4, 4\)"),
        ("purify", 3 * FACES.images + 1, r"defence 'any' returned values in \["),
        ("embed", VECTORS[:1], r"backbone 'fake-0' returned torch.float32 embeddings \(1, 32\) for 2 images"),
        ("embed", VECTORS[:, :5], r"its card says \(2, 32\)"),
        ("embed", VECTORS * float("nan"), "embeddings that are not finite"),
        ("embed", VECTORS.numpy(), "ndarray, not a tensor"),
        ("decide", {}, "protocol 'any' returned dict, not Decided"),
    ],
)
def test_what_a_plugin_returns_is_checked(call, returned, message):
    with pytest.raises(MethodError, match=message):
        CALLS[call](lambda _given: returned)


def test_a_surrogate_that_drops_a_row_is_not_hidden_by_padding():
    backbone = AnyBackbone(lambda images: images.mean((2, 3)).repeat(1, 11)[1:, :32])
    photos = Pixels(torch.zeros(3, 3, 112, 112, dtype=torch.uint8), ("a", "b", "c"), ("p",) * 3)
    cloaks = Pixels(photos.images + 9, photos.ids, photos.identities)
    with pytest.raises(MethodError, match=r"surrogate 's' returned embeddings \(7, 32\) for 8 images"):
        diagnosis.probe_attack(photos, cloaks, photos.ids, [("s", backbone)], seed=0, device=CPU)


BAD = """
import sys, torch
from bench.contracts import Attack, ThreatModel


class Bad(Attack):
    '''Ends the process, or leaves it changed.'''

    name = "bad"
    threat = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        {body}
        return {{}}
"""


def test_the_cells_of_a_plugin_that_exits_fail_and_the_others_stay(evaluate, tmp_path):
    (tmp_path / "exits.py").write_text(BAD.format(body="sys.exit(0)"))
    table = build(evaluate(attacks=(f"{tmp_path}/exits.py:Bad", "tiny-noise")).folder).set_index("attack")
    assert table["status"].to_dict() == {"none": "ok", "tiny-noise": "ok", "bad": "failed"}
    assert "attack 'bad' called sys.exit(0)" in table.loc["bad", "reason"]


def test_a_plugin_that_changes_the_process_changes_no_other_cell(evaluate, tmp_path):
    body = "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.set_num_threads(2)"
    (tmp_path / "changes.py").write_text(BAD.format(body=body))
    run = {"attacks": (f"{tmp_path}/changes.py:Bad", "pgd:steps=2"), "heads": ("linear",)}
    beside = build(evaluate(**run, store=tmp_path / "one").folder).set_index("attack")
    alone = build(evaluate(**{**run, "attacks": ("pgd:steps=2",)}, store=tmp_path / "two").folder)
    columns = ["asr", "cloak_psnr", "normal_accuracy"]
    assert set(beside["status"]) == {"ok"}
    assert beside.loc["pgd:steps=2", columns].equals(alone.set_index("attack").loc["pgd:steps=2", columns])
