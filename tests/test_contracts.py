"""One table of plugins, one contract test over all of it; and plugins that break it, each in one way."""

import json
import random

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pydantic import Field

from bench.authoring import parametrize_with_checks
from bench.authoring.checks import run_checks, sample_faces, training_faces
from bench.authoring.fakes import FakeBackbone
from bench.cli.check import check
from bench.contracts import (
    Attack,
    Backbone,
    BackbonePool,
    Decided,
    Hardening,
    Identity,
    MethodParams,
    PersonMask,
    Purifier,
    ThreatModel,
)
from bench.data.files import VARIABLE, data_folder
from bench.plugins import factory, registry

KINDS = ("attacks", "defenses", "backbones", "datasets", "protocols", "trainers")

NEEDS_REAL_DATA = {
    ("backbones", "mobilefacenet-relu6"),
    ("backbones", "mobilefacenet-casia"),
    ("backbones", "mobileface-v2"),
    ("backbones", "mobileface-v3"),
    ("backbones", "dlib-resnet"),
    ("backbones", "edgeface-xxs"),
    ("datasets", "lfw"),
    ("defenses", "dncnn"),
    ("defenses", "ffdnet"),
}

BROUGHT = {
    *(("backbones", f"insightface-{pack}") for pack in ("antelopev2", "buffalo-l", "buffalo-s")),
    *(
        ("backbones", name)
        for name in ("adaface", "arcface-torch", "facenet-casia", "facenet-vggface2", "magface")
    ),
    *(("backbones", name) for name in registry.BACKBONES.entries() if name.startswith("uniface-")),
    *(
        ("datasets", name)
        for name in ("casia-webface", "celeba", "celeba-hq", "facescrub", "ffhq", "vggface2")
    ),
}
"""What reads files that users bring; tests/fr_models and tests/datasets check them on files of that layout."""

QUICK = {
    "adaptive-extractor": "adaptive-extractor:attacks=[pgd:steps=1],steps=2,batch=4",
    "adaptive": "adaptive:attack=[pgd:steps=1],mode=joint",
    "apf": "apf:steps=2",
    "chameleon": "chameleon:epochs=2",
    "detector": "detector:attacks=[pgd:steps=1],fpr=0.5,steps=2,batch=4",
    "erasablemask": "erasablemask:refinement=2",
    "fawkes": "fawkes:steps=4",
    "fusion": "fusion:backbones=[synthetic-iresnet & synthetic-mobilefacenet-wide]",
    "later": "later:backbone=synthetic-iresnet",
    "lowkey": "lowkey:perceptual=dssim,steps=4",
    "opom": "opom:steps=6",
    "protego2d": "protego2d:epochs=2",
    "robust-extractor": "robust-extractor:steps=2,batch=4",
    "tipim": "tipim:steps=2,targets=2",
    "foggysight": "foggysight:steps=2",
}
"""Parameters for plugins that take long under their own, need some, or need weights no test can have (LPIPS' trunk)."""

NEEDS_A_PATH = {("attacks", "precomputed"), ("backbones", "onnx"), ("datasets", "folder")}
"""Plugins that read a file or folder of the user's, which a test has to make first."""

PLUGINS = [
    pytest.param(
        factory.create(kind, QUICK.get(name, name)),
        id=f"{kind}-{name}",
        marks=[pytest.mark.real_data] if (kind, name) in NEEDS_REAL_DATA else [],
    )
    for kind in KINDS
    for name in registry.EVERY[kind].entries()
    if (kind, name) not in BROUGHT | NEEDS_A_PATH
]


def is_here(kind, name):
    """Whether the data folder has the file or folder that a user brings."""
    if kind == "datasets":
        return (data_folder() / name).is_dir()
    return (data_folder() / factory.backbone(name).card.file).is_file()


def failures(method):
    return {finding.check: finding.detail for finding in run_checks(method) if not finding.passed}


@pytest.fixture
def real_data():
    """The data folder with real faces and weights."""
    folder = data_folder()
    if not (folder / "lfw").exists():
        pytest.skip(f"needs real faces and weights; {VARIABLE} points to no folder that has them")
    return folder


@pytest.fixture(autouse=True)
def skip_without_real_data(request):
    if request.node.get_closest_marker("real_data"):
        request.getfixturevalue("real_data")


@pytest.fixture
def photos(tmp_path):
    """A user's folder: two identities with three aligned photos each."""
    for row, image in enumerate(training_faces().images[:6]):
        identity = tmp_path / "photos" / f"identity-{row // 3}"
        identity.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        assert cv2.imwrite(str(identity / f"{row}.png"), pixels[:, :, ::-1])
    return tmp_path / "photos"


@parametrize_with_checks(PLUGINS)
def test_every_registered_plugin_keeps_its_contract(plugin, check):
    del plugin
    check()


def test_plugins_bear_the_names_they_are_registered_under():
    assert [case.values[0].name for case in PLUGINS] == [case.id.partition("-")[2] for case in PLUGINS]


@pytest.mark.parametrize(("kind", "name"), sorted(BROUGHT))
def test_what_users_bring_keeps_its_contract(kind, name):
    if not is_here(kind, name):
        pytest.skip(f"{VARIABLE} has no {name}; its reader is tested on a file of the published layout")
    assert failures(factory.create(kind, name)) == {}


@pytest.mark.real_data
def test_an_onnx_file_keeps_the_contract(real_data, tmp_path):
    # A link elsewhere: what lies beside the original is no card of ours.
    link = tmp_path / "network.onnx"
    link.symlink_to(real_data / "weights" / "fr" / "mobilefacenet-relu6.onnx")
    assert failures(factory.backbone(f"onnx:path={link},mean=127,scale=0.0078125")) == {}


def test_a_folder_of_photos_keeps_the_contract(photos):
    assert failures(factory.dataset(f"folder:path={photos},aligned=true")) == {}


def test_a_check_whose_needs_failed_is_skipped_and_the_one_that_failed_says_why():
    *_, marked = parametrize_with_checks([Crashes()]).args
    check = {case.values[1].name: case.values[1] for case in marked}
    with pytest.raises(pytest.fail.Exception, match="ZeroDivisionError: what now"):
        check["cloaks without an error"]()
    with pytest.raises(pytest.skip.Exception, match="needs failed"):
        check[SAME]()
    check["declares its threat model"]()


def test_only_plugins_can_be_parametrised():
    with pytest.raises(TypeError, match="'fawkes' is no plugin; give an instance"):
        parametrize_with_checks(["fawkes"])


def test_fawkes_that_looks_at_the_whole_person_keeps_its_contract():
    attack = factory.attack("fawkes:version=0.3,mode=min,steps=3")
    assert (attack.scope, attack.threat.needs_targets) == ("identity", True)
    assert failures(attack) == {}


def test_an_attack_that_knows_hardenings_gets_surrogates_hardened_by_them():
    known = (
        "robust-extractor:steps=2,batch=4 & adaptive-extractor:attacks=[pgd:steps=1],steps=2,batch=4 & jpeg"
    )
    attack = factory.attack(f"adaptive:attack=[pgd:steps=1],defense=[{known}],mode=joint")
    assert failures(attack) == {}


@pytest.mark.parametrize("name", registry.POOLS.entries())
def test_a_pool_names_registered_backbones_and_never_mixes_groups(name):
    pool = registry.POOLS.load(name)
    members = [member for group in pool.groups for member in group]
    assert len(set(members)) == len(members) >= 2
    assert set(members) <= set(registry.BACKBONES.entries())
    for group in pool.groups:
        for tracker in group:
            assert pool.helpers(tracker)
            assert tracker not in pool.helpers(tracker)
            assert set(pool.helpers(tracker)).issubset(group) == pool.within
            assert pool.within or not set(pool.helpers(tracker)) & set(group)


def test_siblings_help_each_other_and_no_stranger():
    pool = BackbonePool(name="p", groups=(("a", "b", "c"), ("d", "e")), within=True)
    assert pool.helpers("b") == ("a", "c")
    assert pool.helpers("e") == ("d",)
    assert pool.helpers("z") == ()
    real, siblings = registry.POOLS.load("real"), registry.POOLS.load("real-siblings")
    assert siblings.groups == real.groups
    for tracker in sum(real.groups, ()):
        everyone = {tracker, *real.helpers(tracker), *siblings.helpers(tracker)}
        assert everyone == set(sum(real.groups, ()))
        assert not set(real.helpers(tracker)) & set(siblings.helpers(tracker))


def test_a_fake_is_a_whole_backbone():
    assert failures(FakeBackbone(FakeBackbone.Params(seed=3))) == {}


# -- plugins that break the contract, each in one way ----------------------------------------------------------


class Tint(Attack):
    """A cloak that keeps the contract; the breaking ones below change one thing of it."""

    name = "tint"
    threat = ThreatModel(goal="untargeted", constraint="L∞ at most 5 grey levels")

    class Params(MethodParams):
        strength: float = Field(0.02, ge=0, le=1, description="largest change")

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        return {
            name: self.tint(name, image, ctx) for name, image in zip(faces.ids, faces.images, strict=True)
        }

    def tint(self, name, image, ctx):
        noise = torch.rand(image.shape, generator=ctx.generator(self.name, name))
        return (image + self.params.strength * noise).clamp(0, 1)


class DrawsGlobally(Tint):
    def tint(self, name, image, ctx):
        return (image + 0.02 * torch.rand(image.shape)).clamp(0, 1)


class UsesPython(Tint):
    def tint(self, name, image, ctx):
        random.random()
        return super().tint(name, image, ctx)


class UsesNumpy(Tint):
    def tint(self, name, image, ctx):
        np.random.random()  # noqa: NPY002 - the offence
        return super().tint(name, image, ctx)


class SetsThreads(Tint):
    def cloak(self, faces, ctx):
        torch.set_num_threads(torch.get_num_threads() % 2 + 1)
        return super().cloak(faces, ctx)


class OneStream(Tint):
    """Draws from one generator for the whole batch."""

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        noise = torch.rand(faces.images.shape, generator=ctx.generator(self.name, "all"))
        return dict(zip(faces.ids, (faces.images + 0.02 * noise).clamp(0, 1), strict=True))


class LooksAround(Tint):
    """The more company, the darker."""

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        return dict(zip(faces.ids, faces.images * 0.9 ** len(faces), strict=True))


class OutOfRange(Tint):
    def tint(self, name, image, ctx):
        return image + 0.5


class NotFinite(Tint):
    def tint(self, name, image, ctx):
        return image / 0 * 0


class Doubles(Tint):
    def tint(self, name, image, ctx):
        return image.double()


class Smaller(Tint):
    def tint(self, name, image, ctx):
        return image[:, ::2, ::2]


class EditsOthers(Tint):
    def cloak(self, faces, ctx):
        return {**super().cloak(faces, ctx), "somebody": faces.images[0]}


class ReturnsTensor(Tint):
    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        return faces.images


class WritesInput(Tint):
    def cloak(self, faces, ctx):
        edits = super().cloak(faces, ctx)
        faces.images.mul_(0.5)
        return edits


class NeverReports(Tint):
    def cloak(self, faces, ctx):
        return {
            name: self.tint(name, image, ctx) for name, image in zip(faces.ids, faces.images, strict=True)
        }


class HelpsItself(Tint):
    def cloak(self, faces, ctx):
        ctx.backbones[0].embed(faces.images)
        return super().cloak(faces, ctx)


class TrainsSurrogates(Tint):
    def pool(self):
        return "auto"

    def cloak(self, faces, ctx):
        ctx.backbones[0].weights[0].add_(1)
        return super().cloak(faces, ctx)


class NeedsAtLeastTwo(Tint):
    def cloak(self, faces, ctx):
        if len(faces) < 2:
            raise ValueError("too few")
        return super().cloak(faces, ctx)


class Crashes(Tint):
    def cloak(self, faces, ctx):
        raise ZeroDivisionError("what now")


class WantsButSaysNothing(Tint):
    threat = ThreatModel(goal="untargeted", surrogates=2, constraint="none")


class SilentBudget(Tint):
    threat = ThreatModel(goal="untargeted")


class Undescribed(Tint):
    class Params(MethodParams):
        strength: float = 0.02


class Required(Tint):
    class Params(MethodParams):
        strength: float = Field(description="largest change")

    def __init__(self):
        super().__init__(self.Params(strength=0.5))


class OddName(Tint):
    name = "my tint:x"


class Forgets(Tint):
    """Learns something else each time."""

    requires_fit = True
    calls = 0

    def fit(self, faces, ctx):
        Forgets.calls += 1
        return {"universal": torch.full((3,), float(Forgets.calls))}


class RequiresFit(Tint):
    requires_fit = True

    def fit(self, faces, ctx):
        assert not ctx.state
        return {"universal": faces.images.mean(0)}

    def tint(self, name, image, ctx):
        return (image + 0.01 * ctx.state["universal"]).clamp(0, 1)


class KeepsItsBound(Tint):
    threat = ThreatModel(goal="untargeted", constraint="L∞ at most 5 grey levels", max_linf=5)


class Exceeds(Tint):
    threat = ThreatModel(goal="untargeted", constraint="L∞ at most 4 grey levels", max_linf=4)


LEAVES_GLOBALS = "leaves global random state and settings alone"
SOUND = "edits images it was given, as float32 3×H×W in [0, 1]"
SAME, ORDER = "same seed, same bytes", "another order gives the same bytes"
ALONE = "one image alone gives the same bytes as among others"

BROKEN_ATTACKS = [
    (DrawsGlobally, {LEAVES_GLOBALS, SAME, ORDER, ALONE}, "torch's global random state"),
    (UsesPython, {LEAVES_GLOBALS}, "Python's global random state"),
    (UsesNumpy, {LEAVES_GLOBALS}, "NumPy's global random state"),
    (SetsThreads, {LEAVES_GLOBALS}, "torch's number of threads"),
    (OneStream, {ORDER, ALONE}, "differs by up to 0.0"),
    (LooksAround, {ALONE}, "differs by up to"),
    (OutOfRange, {SOUND}, "not in [0, 1]"),
    (NotFinite, {SOUND}, "not finite"),
    (Doubles, {SOUND}, "torch.float64"),
    (Smaller, {SOUND}, "(3, 56, 56)"),
    (EditsOthers, {SOUND}, "'somebody', which it was not given"),
    (ReturnsTensor, {SOUND}, "not a mapping"),
    (WritesInput, {"leaves its input as it was"}, "wrote into the images"),
    (NeverReports, {"reports each image to advance() once"}, "0 of 5 images"),
    (HelpsItself, {"uses backbones only if pool() asks for them"}, "pool() is None"),
    (TrainsSurrogates, {"leaves the backbones as they were"}, "weights"),
    (NeedsAtLeastTwo, {ALONE}, "ValueError: too few"),
    (Crashes, {"cloaks without an error"}, "ZeroDivisionError: what now"),
    (WantsButSaysNothing, {"declares its threat model"}, "2 surrogates"),
    (Exceeds, {"posted cloaks keep within the declared max_linf"}, "changes a pixel by 5 of 4 grey levels"),
    (SilentBudget, {"declares its threat model"}, "constraint is empty"),
    (Undescribed, {"every parameter has a description and a default"}, "'strength' has no description"),
    (
        OddName,
        {"declares a name of letters, digits, '.', '_' and '-'", "its canonical name describes it again"},
        "'my tint:x'",
    ),
    (Forgets, {"fit learns the same again from the same seed"}, "'universal' differs by up to 1"),
]


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("cls", [Tint, KeepsItsBound, RequiresFit])
def test_a_faithful_attack_passes(cls):
    assert failures(cls()) == {}


@pytest.mark.parametrize(
    ("cls", "expected", "detail"), BROKEN_ATTACKS, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_broken_attack_fails_exactly_the_check_it_breaks(cls, expected, detail):
    found = failures(cls())
    assert set(found) == expected
    assert any(detail in text for text in found.values()), found


def test_a_parameter_without_a_default_is_found():
    found = failures(Required())
    assert "'strength' has no default" in found["every parameter has a description and a default"]


class Dim(Purifier):
    """A purifier that keeps the contract."""

    name = "dim"
    differentiable = True

    def purify(self, faces, ctx):
        ctx.advance(len(faces))
        return faces.images * 0.5


class Blank(Dim):
    differentiable = False

    def purify(self, faces, ctx):
        ctx.advance(len(faces))
        return torch.zeros_like(faces.images)


class Drops(Dim):
    def purify(self, faces, ctx):
        return super().purify(faces, ctx)[1:]


class Noisy(Dim):
    """Random, and says it is not."""

    def purify(self, faces, ctx):
        noise = [
            torch.rand(i.shape, generator=ctx.generator("noise", n))
            for n, i in zip(faces.ids, faces.images, strict=True)
        ]
        return super().purify(faces, ctx) + torch.stack(noise) / 4


class HonestlyNoisy(Noisy):
    deterministic = False


class Rounds(Dim):
    """Claims to let gradients through."""

    def purify(self, faces, ctx):
        return super().purify(faces, ctx).mul(255).round() / 255


class Normalises(Dim):
    """Stretches the contrast over the whole batch."""

    def purify(self, faces, ctx):
        return super().purify(faces, ctx) / faces.images.max()


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Dim, set()),
        (HonestlyNoisy, set()),
        (Blank, {"different images stay different"}),
        (Drops, {"returns one image for each, float32 N×3×H×W in [0, 1]"}),
        (Noisy, {"another seed gives the same bytes, as declared"}),
        (Rounds, {"gradients pass through it, as declared"}),
        (Normalises, {ALONE}),
    ],
)
def test_purifiers_fail_exactly_what_they_break(cls, expected):
    assert set(failures(cls())) == expected


class Shifted(Backbone):
    """A tracker's backbone with a learnt mean taken off."""

    name = "shifted"

    def __init__(self, tracker, mean):
        super().__init__()
        self.tracker, self.mean, self.card = tracker, mean, tracker.card

    def load(self, device):
        self.tracker.load(device)

    def embed(self, images):
        return self.tracker.embed(images) - self.mean


class Centre(Hardening):
    """A hardening that keeps the contract."""

    name = "centre"

    def train(self, tracker, faces, ctx):
        return {"mean": tracker.embed_batch(faces.images).mean(0)}

    def harden(self, tracker, state):
        return Shifted(tracker, state["mean"])


class Unreconciled(Centre):
    def train(self, tracker, faces, ctx):
        return {"mean": torch.rand(32)}


class SpoilsTracker(Centre):
    def harden(self, tracker, state):
        tracker.weights[0].mul_(2)
        return super().harden(tracker, state)


class ReturnsWeights(Centre):
    def harden(self, tracker, state):
        return state


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Centre, set()),
        (Unreconciled, {LEAVES_GLOBALS, "train learns the same again from the same seed"}),
        (SpoilsTracker, {"leaves the tracker's backbone as it was", "hardens the same again"}),
        (
            ReturnsWeights,
            {"returns a backbone", "the backbone embeds as its card says", "hardens the same again"},
        ),
    ],
)
def test_hardenings_fail_exactly_what_they_break(cls, expected):
    assert set(failures(cls())) == expected


class NoLicence(FakeBackbone):
    def __init__(self, params=None):
        super().__init__(params)
        self.card = self.card.model_copy(update={"licence": " "})


class WrongDimension(FakeBackbone):
    def __init__(self, params=None):
        super().__init__(params)
        self.card = self.card.model_copy(update={"embedding_dim": 64})


class BatchNormalised(FakeBackbone):
    def embed(self, images):
        return super().embed(images - images.mean((0, 2, 3), keepdim=True))


class NoGradient(FakeBackbone):
    def embed(self, images):
        return super().embed(images.detach()) + 0 * images.sum()


class OtherFastPath(FakeBackbone):
    def embed_batch(self, images):
        return super().embed_batch(images) * 1.01


class OtherEachTime(FakeBackbone):
    def load(self, device):
        super().load(device)
        generator = torch.Generator().manual_seed(torch.Generator().seed())
        self.weights = tuple(w + 0.1 * torch.randn(w.shape, generator=generator) for w in self.weights)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (NoLicence, {"its card is complete"}),
        (WrongDimension, {"embeds to finite float32 N×D as its card says", "embed_batch does too"}),
        (BatchNormalised, {"an image's embedding does not depend on the others"}),
        (NoGradient, {"gradients reach the images, as declared"}),
        (OtherFastPath, {"embed_batch agrees with embed to 0.001"}),
        (OtherEachTime, {"loading it again gives the same embeddings"}),
    ],
)
def test_backbones_fail_exactly_what_they_break(cls, expected):
    assert set(failures(cls())) == expected


def synthetic(**overrides):
    base = registry.DATASETS.load("synthetic")
    return type("Broken", (base,), overrides)(base.Params(identities=4, photos=3, training_identities=2))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, set()),
        (
            {"identities": lambda self: tuple(Identity(n, (n,), "evaluation") for n in "ba")},
            {"identities are unique and sorted by id", "gives crops"},
        ),
        (
            {"identities": lambda self: tuple(Identity(n, ("x",), "evaluation") for n in "ab")},
            {"image ids are unique, and everyone has some", "gives crops"},
        ),
        (
            {"identities": lambda self: tuple(Identity(n, (n,), "training") for n in "ab")},
            {"at least two identities are evaluated; roles are valid", "gives crops"},
        ),
        ({"fingerprint": lambda self: str(id(self))}, {"its fingerprint is a hex digest and stays"}),
        (
            {"crops": lambda self, ids: torch.full((len(ids), 3, 112, 112), len(ids), dtype=torch.uint8)},
            {"a crop alone is the same"},
        ),
        (
            {"crops": lambda self, ids: torch.zeros(len(ids), 3, 112, 112)},
            {"crops are uint8 N×3×112×112"},
        ),
    ],
)
def test_datasets_fail_exactly_what_they_break(overrides, expected):
    assert set(failures(synthetic(**overrides))) == expected


def tracker(**overrides):
    base = registry.PROTOCOLS.load("tracker")
    return type("Broken", (base,), {"heads": ("nn",), **overrides})()


def _split_then(change):
    base = registry.PROTOCOLS.load("tracker")

    def split(self, identities, split_seed):
        from dataclasses import replace

        return change(replace, base.split(self, identities, split_seed))

    return split


def _half_the_rows(self, views, trial):
    rows = registry.PROTOCOLS.load("tracker").decide(self, views, trial).rows
    return Decided(rows.iloc[: len(rows) // 2])


def _renamed(self, views, trial):
    rows = registry.PROTOCOLS.load("tracker").decide(self, views, trial).rows
    return Decided(rows.rename(columns={"margin": "gap"}))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, set()),
        ({"heads": ()}, {"offers heads"}),
        (
            {"split": _split_then(lambda replace, s: replace(s, probes=s.gallery))},
            {"gallery and probes are disjoint"},
        ),
        (
            {"split": _split_then(lambda replace, s: replace(s, cloaked=s.probes))},
            {"everyone is protected in one fold, with cloaked photos of the gallery"},
        ),
        ({"decide": _half_the_rows}, {"head nn: decides every identity's probes"}),
        (
            {"decide": _renamed},
            {
                "head nn: rows have the documented schema and facts",
                "head nn: answers do not depend on the order of embeddings",
            },
        ),
    ],
)
def test_protocols_fail_exactly_what_they_break(overrides, expected):
    assert set(failures(tracker(**overrides))) == expected


def test_sample_faces_show_three_people_of_whom_one_has_a_single_photo():
    faces = sample_faces()
    counts = sorted(faces.identities.count(name) for name in set(faces.identities))
    assert counts == [1, 2, 2]
    assert not set(faces.identities) & set(training_faces().identities)


# -- the command -----------------------------------------------------------------------------------------------

PLUGIN = '''
"""A cloak of one's own."""
from bench.contracts import Attack, ThreatModel


class Mine(Attack):
    name = "mine"
    threat = ThreatModel(goal="untargeted", constraint="a tenth darker")

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        return {name: image * 0.9 for name, image in zip(faces.ids, faces.images)}


class Broken(Mine):
    def cloak(self, faces, ctx):
        return {name: image + 2 for name, image in zip(faces.ids, faces.images)}
'''


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path / "mine.py"


def invoke(*arguments):
    return CliRunner().invoke(check, [str(argument) for argument in arguments])


def test_check_passes_a_good_plugin_from_a_file(plugin):
    result = invoke(f"{plugin}:Mine")
    assert result.exit_code == 0
    assert "All 17 checks passed." in result.output


def test_check_fails_a_bad_plugin_with_exit_code_1(plugin):
    result = invoke(f"{plugin}:Broken", "--json")
    assert result.exit_code == 1
    document = json.loads(result.output)
    assert (document["kind"], document["passed"]) == ("attack", False)
    failed = [finding for finding in document["findings"] if not finding["passed"]]
    assert {finding["check"] for finding in failed} == {SOUND, "reports each image to advance() once"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-like-it"], "unknown plugin 'nothing-like-it'"),
        (["none"], "--kind attack or --kind defense"),
        (["./missing.py:Mine"], "'./missing.py' is not a file"),
    ],
)
def test_check_says_why_it_cannot_load(arguments, message):
    result = invoke(*arguments)
    assert result.exception.exit_code == 2
    assert message in str(result.exception)


def test_check_takes_a_kind_for_a_name_of_two():
    result = invoke("none", "--kind", "defense", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["kind"] == "defense"


class Erasable(Tint):
    """Adds a pattern drawn from the key, and takes it off again."""

    erasable = True

    def pattern(self, key, image):
        if not key:
            return torch.zeros_like(image)
        return 0.1 * torch.rand(image.shape, generator=torch.Generator().manual_seed(len(key)))

    def tint(self, name, image, ctx):
        return (image + self.pattern(ctx.key, image)).clamp(0, 1)

    def erase(self, faces, key, ctx):
        return torch.stack([(image - self.pattern(key, image)).clamp(0, 1) for image in faces.images])


class EveryKeyOpens(Erasable):
    def erase(self, faces, key, ctx):
        return super().erase(faces, b"the key of the contract checks", ctx)


class ErasesAtRandom(Erasable):
    def erase(self, faces, key, ctx):
        self.calls = getattr(self, "calls", 0) + 1
        return (super().erase(faces, key, ctx) + 1e-4 * self.calls).clamp(0, 1)


class ErasesToBytes(Erasable):
    def erase(self, faces, key, ctx):
        return (super().erase(faces, key, ctx) * 255).to(torch.uint8)


class ErasesNothing(Erasable):
    def erase(self, faces, key, ctx):
        raise NotImplementedError


def test_an_erasable_attack_that_keeps_its_contract_passes():
    assert failures(Erasable()) == {}


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (
            EveryKeyOpens,
            "the right key brings photos nearer to the originals than another key, none, or nothing",
        ),
        (ErasesAtRandom, "same key, same bytes"),
        (ErasesToBytes, "erases to float32 N×3×H×W in [0, 1]"),
        (ErasesNothing, "erases without an error"),
    ],
)
def test_a_broken_erasure_fails_exactly_its_check(cls, expected):
    assert list(failures(cls())) == [expected]


class Stripes(PersonMask):
    """Adds an identity's own stripes, and takes them off again."""

    name = "stripes"
    erasable = True
    threat = ThreatModel(goal="untargeted", constraint="L∞ at most 26", max_linf=26)

    def learn(self, faces, ctx):
        ctx.advance(len(faces))
        return {
            "stripes": 0.1 * torch.rand(3, 112, 1, generator=ctx.generator("stripes", faces.identities[0]))
        }

    def apply(self, faces, mask, ctx):
        return (faces.images + mask["stripes"]).clamp(0, 1)

    def take_off(self, faces, mask, ctx):
        return (faces.images - mask["stripes"]).clamp(0, 1)


class LooksAtAllPhotos(Stripes):
    def apply(self, faces, mask, ctx):
        return (faces.images + mask["stripes"] * len(faces) / 3).clamp(0, 1)


class CloaksAnotherWay(Stripes):
    def cloak(self, faces, ctx):
        return {name: image.flip(1) for name, image in super().cloak(faces, ctx).items()}


class EveryMaskOpens(Stripes):
    def take_off(self, faces, mask, ctx):
        return faces.images


class LearnsAtRandom(Stripes):
    def learn(self, faces, ctx):
        self.calls = getattr(self, "calls", 0) + 1
        return {"stripes": super().learn(faces, ctx)["stripes"] * (1 - 1e-4 * self.calls)}


def test_a_mask_that_keeps_its_contract_passes():
    assert failures(Stripes()) == {}


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (LooksAtAllPhotos, {"lays a mask on each photo as if it were alone"}),
        (CloaksAnotherWay, {"cloak is learn and apply"}),
        (
            EveryMaskOpens,
            {"an identity's own mask brings its photos nearer to the originals than another's, or nothing"},
        ),
        (LearnsAtRandom, {"learn learns the same again from the same seed", "same seed, same bytes"}),
    ],
)
def test_a_broken_mask_fails_its_check(cls, expected):
    assert expected <= failures(cls()).keys()
