"""No stale hit: whatever is an ingredient of a key, changed at its source, gives what is made of it another address.

Plans are made and nothing is computed. Every leaf of every stage's key must be among the leaves of a change below, and
must be seen to change by it; a stage that gains an ingredient fails here until a change is written for it. Each change
says which artefacts hold the ingredient: those and all that is made of them must get other addresses, the others must
keep theirs.
"""

import importlib.metadata
import pkgutil
import platform
import re
import sys
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from bench import contracts
from bench.faces.alignment import TEMPLATE
from bench.plugins import registry, sources
from bench.protocols.tracker import TrackerProtocol
from bench.quality.lpips import Lpips
from bench.run import code_hashes, digest, planning
from bench.run.planning import Options, prepare
from bench.run.spec import make_spec

pytestmark = pytest.mark.system  # some seventy plans of every stage take minutes

OWN = """\
from pathlib import Path
from typing import ClassVar

from own_beside import K
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Purifier

HERE = Path(__file__).parent


class Net(FakeBackbone):
    name = "own-net"

    def files(self, binding):
        return (HERE / "net.bin",)


class Soft(Purifier):
    name = "own-soft"

    def files(self, binding):
        return (HERE / "soft.bin",)

    def purify(self, faces, ctx):
        return faces.images * K


class Hard(Soft):
    name = "own-soft"
"""

TINY = "tiny:training_identities=46"
ATTACKS = ("tiny-learning", "pgd:steps=2")


@dataclass
class World:
    """Sources of everything that a plan is made from.

    Attributes:
        folder: of the files: plugin, helper module, weights, photos, landmarks.
        specs: name of a plan → its specification.
        options: how it would be executed.
        patch: for what is no file.
        undo: what else is to be done at the end.
    """

    folder: object
    patch: pytest.MonkeyPatch
    specs: dict = field(default_factory=dict)
    options: dict = field(default_factory=lambda: {"threads": 1})
    undo: list = field(default_factory=list)

    def update(self, plan, **fields):
        self.specs[plan] = self.specs[plan] | fields

    def swap(self, plan, axis, old, new):
        values = self.specs[plan][axis]
        assert old in values
        self.update(plan, **{axis: tuple(new if one == old else one for one in values)})

    def write(self, name, content):
        (self.folder / name).write_bytes(content)

    def nodes(self):
        """Return every node of every plan as another process would plan it, in an order that no value decides."""
        # What was read of a file in a state stays read, so that each plan costs a second and not five.
        code_hashes._found.clear()
        code_hashes._files_of.clear()
        sources.forget()
        for name in [name for name in sys.modules if name == "own_beside" or "own.py" in name]:
            del sys.modules[name]
        registry.forget()
        found = []
        for plan, fields in self.specs.items():
            options = Options("cpu", store=self.folder / "store", out=self.folder / "out", **self.options)
            prepared = prepare(make_spec(fields), options)
            seen = {}
            for cell in prepared.nodes.values():
                for node in cell.all():
                    _walk(node, seen)
            found += [(plan, node) for node in seen.values()]
        return found


def _walk(node, seen):
    if id(node) not in seen:
        seen[id(node)] = node
        for source in node.inputs:
            _walk(source, seen)


def portrait(seed):
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((130, 130), Image.Resampling.BICUBIC)


def landmarks(shift=0.0):
    points = ",".join(str(value) for value in (TEMPLATE + 5 + shift).ravel())
    rows = [f"p{person}/{photo}.png,{points}" for person in range(4) for photo in range(5)]
    header = "path," + ",".join(f"x{i},y{i}" for i in range(1, 6))
    return "\n".join([header, *rows, ""]).encode()


def write_onnx(path, shift=0.0):
    """Write a net whose weights lie beside it; another shift changes them alone."""
    weights = np.random.default_rng(0).standard_normal((3 * 112 * 112, 8)).astype(np.float32) + shift
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)


def given_pairs(last):
    """Return who imitates whom: all the first training identity, but for the last, who imitates another one."""
    from bench.run.resolve import resolve

    run = resolve(make_spec({"dataset": TINY}))
    who, whom = ([one.id for one in part] for part in (run.roles.evaluated, run.roles.others))
    rows = [(name, whom[0]) for name in who[:-1]] + [(who[-1], whom[last])]
    return "\n".join(["identity,target", *(f"{one},{other}" for one, other in rows), ""]).encode()


def fake_lpips(digit):
    found = Lpips.__new__(Lpips)
    found.__dict__["trunk_sha256"] = digit * 64
    return found


@pytest.fixture
def world(tiny, tmp_path, monkeypatch):
    del tiny
    monkeypatch.syspath_prepend(tmp_path)
    made = World(tmp_path, monkeypatch)
    made.write("own.py", OWN.encode())
    made.write("own_beside.py", b"K = 0.5\n")
    for name in ("net.bin", "soft.bin", "pairs.txt"):
        made.write(name, b"1")
    for person in range(4):
        (tmp_path / f"people/p{person}").mkdir(parents=True)
        for photo in range(5):
            portrait(10 * person + photo).save(tmp_path / f"people/p{person}/{photo}.png")
    made.write("points.csv", landmarks())
    made.write("given.csv", given_pairs(1))
    write_onnx(tmp_path / "net.onnx")
    monkeypatch.setattr(planning, "make_machine", _machine_with(fake_lpips("a")))
    monkeypatch.setattr(TrackerProtocol, "files", lambda _self, _binding: (tmp_path / "pairs.txt",))
    own = f"{tmp_path}/own.py"
    defences = ("jpeg:quality=20", "noise", "tiny-centring", "jpeg:quality=30 + noise", f"{own}:Soft")
    made.specs = {
        "tracker": {
            "dataset": TINY,
            "attacks": ATTACKS,
            "defenses": defences,
            "backbones": ("tiny-a", f"{own}:Net"),
            "heads": ("nn", "finetune"),
        },
        "erasure": {
            "dataset": TINY,
            "attacks": ("tiny-erasable", "tiny-mask"),
            "backbones": ("tiny-a",),
            "protocol": "erasure:far=0.1,impostors=46",
        },
        "robustness": {
            "dataset": TINY,
            "attacks": ("tiny-noise",),
            "backbones": ("tiny-a",),
            "protocol": "robustness:channels=none|jpeg:quality=50|noise",
        },
        "posted": {
            "dataset": TINY,
            "attacks": ("tiny-noise",),
            "backbones": ("tiny-a",),
            "protocol": "posted:channels=none|resize+jpeg,detect=false",
        },
        "verification": {
            "dataset": TINY,
            "attacks": ("tiny-imitating",),
            "backbones": ("tiny-a",),
            "protocol": "verification:far=0.1,impostors=46",
        },
        "pairs": {
            "dataset": TINY,
            "attacks": ("tiny-imitating",),
            "backbones": ("tiny-a",),
            "protocol": f"pairs:far=0.1,impostors=46,given={tmp_path}/given.csv",
        },
        "detection": {
            "dataset": TINY,
            "attacks": ("tiny-noise",),
            "defenses": ("detector:attacks=[tiny-noise],purifier=tiny-negative,fpr=0.5",),
            "backbones": ("tiny-a",),
            "protocol": "scenarios",
        },
        "folder": {
            "dataset": f"folder:path={tmp_path}/people,landmarks={tmp_path}/points.csv",
            "attacks": ("tiny-noise",),
            "backbones": (f"{tmp_path}/net.onnx:mean=0",),
        },
    }
    yield made
    for undone in made.undo:
        undone()
    code_hashes.forget()
    registry.forget()


_make_machine = planning.make_machine


def _machine_with(lpips):
    def made(*args):
        return replace(_make_machine(*args), lpips=lpips)

    return made


# -- what holds an ingredient: (plan, node) → whether its own key does --------------------------------------------


def every(_plan, _node):
    return True


def stage(*names, plan=None, label=""):
    """Return what is true of nodes of stages, of one plan where it is named, whose label holds a text."""

    def holds(where, node):
        return node.stage in names and plan in (None, where) and label in node.label

    return holds


def kind(*names, plan=None):
    """Return what is true of nodes of classes."""
    return lambda where, node: type(node).__name__ in names and plan in (None, where)


def either(*rules):
    return lambda plan, node: any(rule(plan, node) for rule in rules)


def end_to_end(plan, node):
    """Decisions whose tracker is in the key, as it is trained there."""
    return plan == "tracker" and node.stage == "decide" and node.label.endswith("finetune")


def of_tracker(name):
    """What a tracker's backbone computes or is trained in: embeddings, its hardening, decisions that fine-tune it."""

    def holds(plan, node):
        if node.stage == "decide":
            return end_to_end(plan, node) and f"× {name} ×" in node.label
        trained = getattr(node, "tracker", None)
        if node.stage == "embed":
            return trained.backbone.name == name
        return node.stage == "fit" and trained is not None and trained.name == name

    return holds


def draws(plan, node):
    """What the seed of a run reaches."""
    if node.stage == "purify":
        return "noise" in node.label
    if node.stage == "embed":
        return node.tracker.hardening is not None or any("noise" in one.label for one in node.channel)
    drawn = node.stage in ("cloak", "fit", "mask", "erase", "target_assignment")
    return drawn or type(node).__name__ == "AttackDiagnosis" or end_to_end(plan, node)


# -- changes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """An ingredient and its source.

    Attributes:
        make: changes the world.
        holds: the artefacts whose own key holds the ingredient.
        leaves: what of a key it must be seen to change, as `leaves` names it; a pattern.
        plans: which are made; all where none is named.
        open: artefacts of which nothing is said, as they may or may not hold it.
    """

    make: object
    holds: object
    leaves: tuple[str, ...]
    plans: tuple[str, ...] = ()
    open: object = lambda _plan, _node: False


def edit(name, old, new):
    def make(world):
        path = world.folder / name
        text = path.read_bytes()
        assert old in text
        path.write_bytes(text.replace(old, new))

    return make


def edited_module(module):
    """Plan as if a constant stood at the end of a module of the project."""

    def make(world):
        whole = code_hashes.code_of

        def code_of(name, path, its_state):
            if name != module:
                return whole(name, path, its_state)
            copy = world.folder / path.name
            copy.write_text(path.read_text(encoding="utf-8") + "\n\nEDITED = 1\n", encoding="utf-8")
            return whole(name, copy, sources.state(copy))

        world.patch.setattr(code_hashes, "code_of", code_of)

    return make


def other_version(package):
    def make(world):
        whole = importlib.metadata.version
        world.patch.setattr(
            importlib.metadata, "version", lambda name: "999" if name == package else whole(name)
        )

    return make


def view_of_probes(world):
    whole = TrackerProtocol.views.fget

    def views(self):
        found = dict(whole(self))
        return found | {"probes": found["probes"].model_copy(update={"key": "wrong"})}

    world.patch.setattr(TrackerProtocol, "views", property(views))


def other_protocol_class(world):
    whole = TrackerProtocol.__qualname__
    world.undo.append(lambda: setattr(TrackerProtocol, "__qualname__", whole))
    TrackerProtocol.__qualname__ = "Other"


def protocol(plan, text):
    return lambda world: world.update(plan, protocol=text)


SMALL = ("erasure", "folder")
"""Plans that are made in no time, for what is in every key."""

OWN_MADE = either(of_tracker("own-net"), stage("purify", label="own-soft"))

CHANGES = {
    # methods
    "an attack's parameter": Change(
        lambda w: w.swap("tracker", "attacks", "pgd:steps=2", "pgd:steps=3"),
        stage("cloak", plan="tracker", label="pgd"),
        ("method.method", "method.params.steps"),
    ),
    "a purifier's parameter": Change(
        lambda w: w.swap("tracker", "defenses", "jpeg:quality=20", "jpeg:quality=21"),
        stage("purify", label="jpeg:quality=20"),
        ("method.method", "method.params.quality"),
    ),
    "a part's parameter": Change(
        lambda w: w.swap("tracker", "defenses", "jpeg:quality=30 + noise", "jpeg:quality=31 + noise"),
        stage("purify", label="jpeg:quality=30"),
        ("method.method", "method.params.quality"),
    ),
    "another class of one name": Change(
        lambda w: w.swap("tracker", "defenses", f"{w.folder}/own.py:Soft", f"{w.folder}/own.py:Hard"),
        stage("purify", label="own-soft"),
        ("method.class",),
    ),
    "a file of a method": Change(
        lambda w: w.write("soft.bin", b"22"), stage("purify", label="own-soft"), ("method.files",)
    ),
    "the seed": Change(
        lambda w: [w.update(plan, seeds=(1,)) for plan in w.specs],
        draws,
        ("method.seed", "Decide.seed", "AttackDiagnosis.seed"),
    ),
    "a channel": Change(
        protocol("robustness", "robustness:channels=none|jpeg:quality=51|noise"),
        either(
            stage("decide", plan="robustness"),
            lambda plan, node: (
                plan == "robustness"
                and node.stage == "embed"
                and any("jpeg" in c.label for c in node.channel)
            ),
        ),
        ("method.params.quality", "Decide.params.channels", "Decide.views.view.channel", "Decide.protocol"),
        plans=("erasure", "robustness"),
    ),
    "who imitates whom": Change(
        lambda w: w.write("given.csv", given_pairs(2)),
        stage("decide", plan="pairs"),
        ("Decide.given_targets",),
        plans=("erasure", "pairs"),
        open=lambda plan, node: plan == "pairs" and node.stage == "faces" and "targets" in node.label,
    ),
    "how whole photos are posted": Change(
        protocol("posted", "posted:channels=none|resize+jpeg,detect=false,scale=0.25,quality=50"),
        lambda plan, node: (
            plan == "posted"
            and (node.stage == "decide" or (node.stage == "post" and node.posting.quality is not None))
        ),
        (
            *("Posted.posting.scale", "Posted.posting.quality", "Decide.params.quality"),
            *("Decide.views.view.posting.scale", "Decide.views.view.posting.quality"),
        ),
        plans=("erasure", "posted"),
    ),
    # backbones
    "another tracker": Change(
        lambda w: w.update("robustness", backbones=("tiny-c",)),
        stage("embed", "decide", plan="robustness"),
        ("backbone.name", "backbone.class", "backbone.card.name", "backbone.card.embedding_dim"),
        plans=("erasure", "robustness"),
    ),
    "a file of weights": Change(
        lambda w: w.write("net.bin", b"22"), of_tracker("own-net"), ("backbone.weights",)
    ),
    "a file of weights beside an ONNX graph": Change(
        lambda w: write_onnx(w.folder / "net.onnx", 1.0),
        stage("embed", plan="folder"),
        ("backbone.weights", "backbone.card.sha256"),
        plans=SMALL,
    ),
    "how pixels are prepared": Change(
        lambda w: w.update("folder", backbones=(f"{w.folder}/net.onnx:mean=1,scale=2,channels=BGR",)),
        stage("embed", plan="folder"),
        (
            "backbone.card.preprocessing.mean",
            "backbone.card.preprocessing.scale",
            "backbone.card.preprocessing.channels",
        ),
        plans=SMALL,
    ),
    "what embeds": Change(
        lambda w: w.update("folder", backbones=(f"{w.folder}/net.onnx:mean=0,embed_with=onnxruntime",)),
        stage("embed", plan="folder"),
        ("backbone.card.embed_with",),
        plans=SMALL,
    ),
    # photos
    "another dataset": Change(
        lambda w: w.update(
            "robustness", dataset="synthetic:identities=6,photos=6,training_identities=46,training_photos=2"
        ),
        stage("faces", plan="robustness"),
        ("Crops.dataset", "Crops.class"),
        plans=("erasure", "robustness"),
    ),
    "a dataset's parameter": Change(
        lambda w: [w.update(plan, dataset=f"{TINY},photos=7") for plan in w.specs if plan != "folder"],
        lambda plan, node: plan != "folder" and node.stage == "faces",
        (
            *("Crops.dataset", "Crops.fingerprint", "Crops.ids", "Decide.split"),
            *("Cloak.chosen", "AimedCloaks.chosen", "LearnMask.chosen", "ApplyMasks.chosen", "Posted.chosen"),
        ),
    ),
    "the bytes of a photo": Change(
        lambda w: portrait(99).save(w.folder / "people/p0/0.png"),
        stage("faces", plan="folder"),
        ("Crops.fingerprint",),
        plans=SMALL,
    ),
    "landmarks": Change(
        lambda w: w.write("points.csv", landmarks(1.0)),
        stage("faces", plan="folder"),
        ("Crops.fingerprint",),
        plans=SMALL,
    ),
    "the split seed": Change(
        lambda w: [w.update(plan, split_seed=1) for plan in w.specs],
        stage("decide"),
        (
            *("Crops.ids", "Crops.identities", "Cloak.chosen", "TargetAssignment.chosen"),
            *(
                "AttackDiagnosis.chosen",
                "Measure.given",
                "Decide.split",
            ),
        ),
        open=lambda _plan, node: node.stage != "decide",  # which photos move is the draw's
    ),
    "impostors": Change(
        protocol("erasure", "erasure:far=0.1,impostors=46,max_gallery=3"),
        stage("decide", plan="erasure"),
        ("Decide.params.max_gallery",),
        open=lambda plan, _node: plan == "erasure",
        plans=("erasure", "verification"),
    ),
    # protocols
    "a protocol's parameter": Change(
        protocol("tracker", "tracker:finetune_epochs=4"),
        stage("decide", plan="tracker"),
        ("Decide.params.finetune_epochs", "Decide.protocol"),
    ),
    "a head": Change(
        lambda w: w.swap("tracker", "heads", "nn", "centroid"),
        stage("decide", plan="tracker", label="nn"),
        ("Decide.head",),
        open=end_to_end,
    ),
    "a view": Change(
        view_of_probes,
        either(stage("decide", plan="tracker"), stage("decide", plan="folder")),
        ("Decide.views.view.key",),
    ),
    "a protocol's class": Change(
        other_protocol_class,
        either(stage("decide", plan="tracker"), stage("decide", plan="folder")),
        ("Decide.class",),
    ),
    "a file of a protocol": Change(
        lambda w: w.write("pairs.txt", b"22"),
        either(stage("decide", plan="tracker"), stage("decide", plan="folder")),
        ("Decide.files",),
    ),
    "the trunk of LPIPS": Change(
        lambda w: w.patch.setattr(planning, "make_machine", _machine_with(fake_lpips("b"))),
        lambda _plan, node: node.stage == "measure" and node.lpips_trunk != "",
        ("Measure.lpips_trunk",),
    ),
    # code
    "a plugin's file": Change(
        edit("own.py", b"faces.images * K", b"faces.images / K"), OWN_MADE, ("method.code", "backbone.code")
    ),
    "a module beside a plugin": Change(
        edit("own_beside.py", b"0.5", b"0.25"), OWN_MADE, ("method.code", "backbone.code")
    ),
    "an attack's module": Change(edited_module("attacks.pgd"), stage("cloak", label="pgd"), ("method.code",)),
    "a dataset's module": Change(
        edited_module("bench.datasets.synthetic"),
        lambda plan, node: plan != "folder" and node.stage == "faces",
        ("Crops.dataset_code",),
        # The tiny methods are of the module of the tiny faces, which imports it.
        open=lambda _plan, node: node.stage != "faces" and "tiny" in str(node.key),
    ),
    "how datasets give whole photos": Change(
        edited_module("bench.datasets.whole_photos"),
        kind("Posted"),
        ("Posted.photos_code",),
        plans=("erasure", "posted"),
    ),
    "a protocol's module": Change(
        edited_module("bench.protocols.tracker"),
        either(stage("decide", plan="tracker"), stage("decide", plan="folder")),
        ("Decide.protocol_code",),
    ),
    **{
        f"the module of the stage {module}": Change(
            edited_module(f"bench.run.stages.{module}"),
            kind(*classes),
            tuple(f"{one}.code" for one in classes if one != "JoinedCloaks"),
        )
        for module, classes in {
            "faces": ("Crops",),
            "fit": ("Fit",),
            "cloak": ("Cloak", "JoinedCloaks", "AimedCloaks"),
            "joined": ("AimedCloaks",),
            "aimed_cloaks": ("AimedCloaks",),
            "learn_mask": ("LearnMask", "ApplyMasks", "TakeOffMasks"),
            "apply_masks": ("ApplyMasks", "TakeOffMasks"),
            "take_off_masks": ("TakeOffMasks",),
            "target_assignment": ("TargetAssignment",),
            "erase": ("Erase",),
            "posted": ("Posted",),
            "purify": ("Purify", "Embed", "Detection"),
            "measure": ("Measure",),
            "attack_diagnosis": ("AttackDiagnosis",),
            "purifier_diagnosis": ("PurifierDiagnosis",),
            "detection": ("Detection",),
            "photo_diagnosis": ("PhotoDiagnosis",),
            "photo_fingerprints": ("PhotoFingerprints", "PhotoDiagnosis"),
            "embed": ("Embed",),
            "decide": ("Decide",),
        }.items()
    },
    # surroundings
    **{
        f"a version of the contract: {name}": Change(
            lambda w, name=name: w.patch.setitem(contracts.CONTRACT, name, 999),
            every,
            (f"contract.{name}",),
            SMALL,
        )
        for name in contracts.CONTRACT
    },
    **{
        f"the package {name}": Change(other_version(name), every, (f"environment.packages.{name}",), SMALL)
        for name in digest.NUMERICAL_PACKAGES
    },
    "Python": Change(
        lambda w: w.patch.setattr(
            digest, "sys", SimpleNamespace(version_info=SimpleNamespace(major=3, minor=99))
        ),
        every,
        ("environment.python",),
        SMALL,
    ),
    "the machine": Change(
        lambda w: w.patch.setattr(platform, "machine", lambda: "abacus"),
        every,
        ("environment.machine",),
        SMALL,
    ),
    "CPU kernels": Change(
        lambda w: w.patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NONE"),
        every,
        ("environment.kernels",),
        SMALL,
    ),
    "the device": Change(
        lambda w: w.patch.setattr(digest, "_device_name", lambda _device: "other"),
        every,
        ("environment.device",),
        SMALL,
    ),
    "threads": Change(lambda w: w.options.update(threads=2), every, ("environment.threads",), SMALL),
}

FIXED = {
    "stage": "the name of the stage, which its class decides",
    "inputs": "addresses of what it is made from: every change upstream shows there",
    "environment.dtype": "a constant of the harness",
    "Decide.groups.view": "how many shards a view has, which the inputs show",
    "PhotoDiagnosis.gallery": "how many of the inputs are gallery shards",
    **{
        f"Decide.views.view.{name}": "decides what is planned, not only its addresses; see the test below"
        for name in ("photos", "state", "defended", "posting.detected")
    },
    "Posted.posting.detected": "likewise",
    "Erase.key": "which key is tried, as the protocol's views say; see the test below",
    "TakeOffMasks.tried on": "on whom a mask is tried, as the protocol's views say; the masks are inputs",
    "Decide.impostors": "as the protocol draws them from the dataset; see the test below",
    "backbone.card.file": "of a card by name, beside the digest of what is in it",
    "backbone.card.alignment": "one value so far",
    "backbone.card.preprocessing.height": "of the class, as its code is",
    "backbone.card.preprocessing.width": "of the class, as its code is",
    "backbone.card.preprocessing.crop": "of the class, as its code is",
}
"""Leaves that no change of one ingredient shows, each with why."""


# -- leaves ---------------------------------------------------------------------------------------------------------

_METHODS = (
    r"(?:Cloak|JoinedCloaks|LearnMask|ApplyMasks|TakeOffMasks|Erase|TargetAssignment)\.attack|(?:Purify\.purifier|Detection\.detector)"
    r"|Fit\.method|Embed\.channel"
)
_BACKBONES = r"(?:Fit|Embed|Decide)\.tracker(?:\.backbone)?|AttackDiagnosis\.surrogates|method\.helpers"


def named(path):
    """Return a leaf's name: of methods, backbones and environment alike wherever in a key they are."""
    path = re.sub(r"^\w+\.(environment|stage|inputs)\b", r"\1", path)
    path = re.sub(rf"^\w+\.({'|'.join(contracts.CONTRACT)})$", r"contract.\1", path)
    path = re.sub(rf"^(?:{_METHODS}|(?:Embed|Decide)\.tracker\.hardening)\b", "method", path)
    path = re.sub(r"^method(?:\.parts)+\b", "method", path)
    return re.sub(rf"^(?:{_BACKBONES})\b", "backbone", path)


BY_VIEW = {"Decide.views", "Decide.groups"}
"""Whose keys are names of views."""


def leaves(node):
    """Return leaf → its values in a node's key, in order."""
    found = {}

    def walk(value, path):
        if not value or not isinstance(value, dict | list | tuple):
            found.setdefault(named(path), []).append(value)
        elif isinstance(value, dict) and path not in BY_VIEW:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}")
        else:
            for inner in value.values() if isinstance(value, dict) else value:
                walk(inner, path if path not in BY_VIEW else f"{path}.view")

    walk(node.key, type(node).__name__)
    return found


STRUCTURE = {"method", "backbone", "method.helpers"}
"""Empty where there is none, and leaves of their own where there is one."""


def registered():
    return {leaf for change in CHANGES.values() for leaf in change.leaves}


def is_registered(leaf):
    # Every parameter comes the same way: through the one dump of a method's, or a protocol's.
    known = registered() | FIXED.keys() | STRUCTURE
    return leaf in known or leaf.startswith(("method.params", "Decide.params"))


def test_every_ingredient_of_every_key_has_a_change(world):
    there = {leaf for _, node in world.nodes() for leaf in leaves(node)}
    lacking = sorted(leaf for leaf in there if not is_registered(leaf))
    assert not lacking, f"ingredients of keys that no change of this file changes: {', '.join(lacking)}"
    gone = sorted(leaf for leaf in registered() | FIXED.keys() if leaf not in there)
    assert not gone, f"no key holds {', '.join(gone)} any more"


def test_every_stage_is_planned(world):
    from bench.run import stages
    from bench.run.graph import Node

    for module in pkgutil.iter_modules(stages.__path__, "bench.run.stages."):
        importlib.import_module(module.name)

    def below(cls):
        return {cls, *(each for inner in cls.__subclasses__() for each in below(inner))}

    known = {cls.__name__ for cls in below(Node) if cls.__module__.startswith("bench.run.stages.")}
    planned = {type(node).__name__ for _, node in world.nodes()}
    assert known - planned == {
        "JoinedCloaks",  # of dear attacks on many photos; its key is that of its cloaks
        "Fuse",  # made of embeddings alone: tests/defenses/test_fusion.py
        "Smooth",  # of `bench certify`, in no run's plan: tests/analysis/test_certificates.py
    }


def made_of(nodes, holds):
    """Return the ids of nodes that hold an ingredient, or are made of what does."""
    known = {}

    def touched(plan, node):
        if id(node) not in known:
            known[id(node)] = holds(plan, node) or any(touched(plan, one) for one in node.inputs)
        return known[id(node)]

    return {id(node) for plan, node in nodes if touched(plan, node)}


QUICK = 10
"""One of so many changes is tried in the quick tests, all in ``.ci/full``."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (number % QUICK != 0))
        for number, name in enumerate(CHANGES)
    ],
)
def test_what_is_made_of_it_is_computed_anew_and_nothing_else(world, name):
    change = CHANGES[name]
    world.specs = {
        plan: fields for plan, fields in world.specs.items() if plan in (change.plans or world.specs)
    }
    before = world.nodes()
    addresses = [node.address for _, node in before]
    values = [leaves(node) for _, node in before]
    expected, undecided = made_of(before, change.holds), made_of(before, change.open)
    change.make(world)
    after = world.nodes()
    assert [(plan, type(node)) for plan, node in after] == [(plan, type(node)) for plan, node in before]
    stale, needless = [], []
    for (plan, node), was, (_, now) in zip(before, addresses, after, strict=True):
        if id(node) in expected and now.address == was:
            stale.append(f"{plan}: {node.stage} {node.label}")
        elif id(node) not in expected | undecided and now.address != was:
            needless.append(f"{plan}: {node.stage} {node.label}")
    assert not stale, f"{name}: a stale hit in {stale}"
    assert not needless, f"{name}: computed anew, though nothing changed there: {needless}"
    assert expected
    for leaf in change.leaves:
        pairs = zip(values, (leaves(node) for _, node in after), strict=True)
        assert any(was.get(leaf) != now.get(leaf) for was, now in pairs), f"{name} changes no {leaf}"


def test_the_same_world_has_the_same_addresses(world):
    assert [node.address for _, node in world.nodes()] == [node.address for _, node in world.nodes()]


def test_each_key_that_is_tried_and_each_set_of_impostors_has_addresses_of_its_own(world):
    erased = {node.tried: node.address for _, node in world.nodes() if type(node).__name__ == "Erase"}
    assert set(erased) == {"right", "wrong", "none"}
    assert len(set(erased.values())) == 3
    decide = next(node for plan, node in world.nodes() if (plan, node.stage) == ("erasure", "decide"))
    fewer = replace(decide.dealt, impostors=dict(list(decide.dealt.impostors.items())[1:]))
    assert replace(decide, dealt=fewer).address != decide.address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("photos", "probes"),
            ("state", "cloaked"),
            ("key", "wrong"),
            ("channel", "jpeg"),
            ("defended", False),
        ),
        ("posting", contracts.Posting(detected=True)),
    ],
)
def test_all_of_a_view_is_in_the_key_of_what_is_decided_by_it(world, name, value):
    assert name in contracts.View.model_fields
    decide = next(node for _, node in world.nodes() if node.stage == "decide")
    shown = decide.views["gallery"]
    other = replace(shown, view=shown.view.model_copy(update={name: value}))
    assert other.view != shown.view
    assert replace(decide, views={**decide.views, "gallery": other}).address != decide.address
