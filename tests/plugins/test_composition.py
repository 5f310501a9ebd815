"""Defences made of others: how they are written, what they do, and what is said of them."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from pydantic import Field

from bench.authoring.checks import run_checks, sample_faces, training_faces
from bench.contracts import (
    Attack,
    Binding,
    Context,
    Faces,
    MethodParams,
    Purifier,
    ThreatModel,
    with_parts,
)
from bench.errors import MethodError, UsageError
from bench.leaderboard.table import build
from bench.plugins import factory, registry, syntax
from bench.plugins import factory as methods
from bench.plugins.composition import Composition, part_context
from bench.run import resolve
from bench.run.planning import Options, prepare
from bench.run.spec import Cell, make_spec
from bench.run.threat import Threats

TRACKERS = ("tiny-a", "tiny-b", "tiny-c")


def context(count, **fields):
    parts = tuple(Context(seed=index) for index in range(count))
    return Context(parts=parts, **fields)


def some(count=3, side=16):
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    return Faces(images, tuple(f"p{i}" for i in range(count)), ("one",) * count)


def rounded(images):
    return (images * 255).round() / 255


# -- how they are written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jpeg:quality=75 + puface", "jpeg + puface"),
        ("  jpeg:quality=60  +  median + noise:sigma=8.0 ", "jpeg:quality=60 + median + noise"),
        (
            "ensemble:defenses=[jpeg:quality=75 & gaussian + median] + jpeg",
            "ensemble:defenses=[jpeg & gaussian + median] + jpeg",
        ),
        ("ensemble:defenses=[median & gaussian & jpeg]", "ensemble:defenses=[median & gaussian & jpeg]"),
        ("ensemble:defenses=[jpeg:quality=75 & gaussian:sigma=1 & median]", "ensemble"),
    ],
)
def test_purifiers_are_composed_and_named_canonically(text, expected):
    made = factory.defense(text)
    assert methods.canonical(made) == expected
    again = factory.defense(expected)
    assert (type(again), again.params) == (type(made), made.params)
    assert [methods.canonical(part) for part in again.parts()] == [
        methods.canonical(part) for part in made.parts()
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpeg + none", "'none' in 'jpeg + none' changes no image; leave it out"),
        ("jpeg + pufce", "unknown defense 'pufce'. Did you mean 'puface'"),
        ("jpeg + ", "has a '+' with no defence beside it"),
        ("jpeg:quality=75+median", "Purifiers are joined by '+' with a space on either side"),
        ("ensemble:defenses=jpeg", "defenses=[jpeg] leaves nothing to draw; name two purifiers or more"),
        ("ensemble:defenses=", "defenses=[] leaves nothing to draw"),
        ("ensemble:defenses=[jpeg & medain]", "unknown defense 'medain'. Did you mean 'median'"),
        ("ensemble:defenses=[jpeg & median", "the bracket '[' at character 19 of"),
        ("ensemble:defenses=[jpeg:quality=0 & median]", "parameter 'quality' of 'jpeg' cannot be '0'"),
    ],
)
def test_what_cannot_be_put_together_is_refused_with_the_mend(text, message):
    with pytest.raises(UsageError) as caught:
        factory.defense(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ensemble:defenses=[jpeg & tiny-centring]",
            "'tiny-centring' in 'ensemble:defenses=[jpeg & tiny-centring]' changes the tracker itself; only purifiers",
        ),
        (
            "tiny-centring + jpeg + median",
            "'tiny-centring' in 'tiny-centring + jpeg + median' changes the tracker itself, so it comes last: "
            "purifiers, then one hardening. Write 'jpeg + median + tiny-centring'.",
        ),
        (
            "jpeg + tiny-centring + robust-extractor",
            "joins 2 defences that change the tracker itself (tiny-centring, robust-extractor), and a tracker is "
            "hardened once: purifiers, then one hardening. Write 'jpeg + tiny-centring'",
        ),
        ("tiny-centring + tiny-centring", "Write 'tiny-centring'"),
        ("none + tiny-centring", "'none' in 'none + tiny-centring' changes no image; leave it out"),
        ("jpeg + none + tiny-centring", "'none' in 'jpeg + none' changes no image; leave it out"),
    ],
)
def test_a_hardening_comes_last_and_alone(tiny, text, message):
    with pytest.raises(UsageError) as caught:
        factory.defense(text)
    assert message in str(caught.value)


def test_purifiers_before_a_hardening_are_one_half_of_the_whole(tiny):
    made = factory.defense("jpeg:quality=75 + gaussian:sigma=2.0 + tiny-centring")
    assert methods.canonical(made) == "jpeg + gaussian:sigma=2 + tiny-centring"
    assert factory.text_of(made) == factory.normal("defenses", methods.canonical(made))
    photos, backbone = made.parts()
    assert made.purifiers == (photos,)
    assert made.hardening is backbone
    assert (methods.canonical(photos), factory.text_of(backbone)) == (
        "jpeg + gaussian:sigma=2",
        "tiny-centring",
    )
    again = factory.defense(methods.canonical(made))
    assert (type(again), again.params) == (type(made), made.params)
    assert not factory.defense("noise + tiny-centring").deterministic


def test_plain_defences_declare_themselves(tiny):
    jpeg, centring = factory.defense("jpeg"), factory.defense("tiny-centring")
    assert (jpeg.purifiers, jpeg.hardening) == ((jpeg,), None)
    assert (centring.purifiers, centring.hardening) == ((), centring)


def test_attacks_are_not_joined():
    with pytest.raises(UsageError, match=r"'pgd \+ fawkes' joins attacks by '\+', which only purifiers can"):
        factory.attack("pgd + fawkes")


def test_a_composition_needs_two():
    with pytest.raises(UsageError, match=r"'jpeg' has 1 members"):
        Composition(Composition.Params(members=("jpeg",)))


# -- what they do -------------------------------------------------------------------------------------------


def test_members_are_applied_in_order_and_rounded_in_between():
    faces = some()
    blur, sharpen = factory.defense("gaussian"), factory.defense("gamma:value=0.8")
    with torch.inference_mode():
        found = factory.defense("gaussian + gamma:value=0.8").purify(faces, context(2))
        between = rounded(blur.purify(faces, Context()))
        expected = sharpen.purify(faces.with_images(between), Context())
        unrounded = sharpen.purify(faces.with_images(blur.purify(faces, Context())), Context())
    assert torch.equal(found, expected)
    assert not torch.equal(found, unrounded)


def test_a_gradient_passes_through_members_that_are_not_rounded():
    faces = some()
    images = faces.images.clone().requires_grad_()
    made = factory.defense("gaussian + gamma:value=0.8")
    assert made.differentiable
    found = made.purify(faces.with_images(images), context(2))
    found.sum().backward()
    blur, sharpen = factory.defense("gaussian"), factory.defense("gamma:value=0.8")
    expected = sharpen.purify(faces.with_images(blur.purify(faces, Context())), Context())
    assert torch.equal(found.detach(), expected)
    assert float(images.grad.abs().min()) > 0


@pytest.mark.parametrize(
    ("text", "deterministic", "differentiable"),
    [
        ("gaussian + gamma", True, True),
        ("jpeg + gamma", True, False),
        ("noise + gamma", False, True),
        ("jpeg + noise", False, False),
        ("ensemble:defenses=[gaussian & gamma]", False, True),
        ("ensemble:defenses=[gaussian & jpeg] + median", False, False),
    ],
)
def test_the_whole_declares_what_its_parts_do(text, deterministic, differentiable):
    made = factory.defense(text)
    assert (made.deterministic, made.differentiable, made.requires_fit) == (
        deterministic,
        differentiable,
        False,
    )
    assert (Composition.deterministic, Composition.differentiable) == (True, False)  # of the class, untouched


@pytest.mark.parametrize(
    "text", ["jpeg + gaussian", "noise + noise:sigma=4", "ensemble:defenses=[jpeg & noise]"]
)
def test_they_keep_the_contract(text):
    findings = run_checks(factory.defense(text))
    assert [finding for finding in findings if not finding.passed] == []


def test_a_member_that_returns_other_shapes_is_named(monkeypatch):
    made = factory.defense("gaussian + gamma")
    monkeypatch.setattr(type(made.parts()[0]), "purify", lambda _self, faces, _ctx: faces.images[:1])
    with pytest.raises(MethodError, match=r"defence 'gaussian' returned torch.float32 \(1, 3, 16, 16\)"):
        made.purify(some(), context(2))


def test_a_context_without_parts_is_refused():
    with pytest.raises(MethodError, match=r"no context for part 1: Context\.parts has 0"):
        factory.defense("gaussian + gamma").purify(some(), Context())


class Subtracting(Purifier):
    """Learns the mean training image and takes it away."""

    name = "subtracting"
    requires_fit: ClassVar[bool] = True

    def fit(self, faces, ctx):
        return {"mean": faces.images.mean(0) + ctx.seed}

    def purify(self, faces, ctx):
        ctx.advance(len(faces))
        return (faces.images - ctx.state["mean"]).abs().clamp(0, 1)


def test_members_that_learn_do_so_on_what_those_before_them_leave(monkeypatch):
    load = registry.DEFENSES.load
    monkeypatch.setattr(
        registry.DEFENSES, "load", lambda name: Subtracting if name == "subtracting" else load(name)
    )
    made = factory.defense("gamma:value=0.8 + subtracting + subtracting")
    assert made.requires_fit
    faces, ctx = some(), context(3)
    state = made.fit(faces, ctx)
    first = factory.defense("gamma:value=0.8").purify(faces, Context())
    assert set(state) == {"1.mean", "2.mean"}
    assert torch.equal(state["1.mean"], rounded(first).mean(0) + 1)  # the second part's seed is 1 here
    used = replace(ctx, state=state)
    assert torch.equal(part_context(used, 2).state["mean"], state["2.mean"])
    assert part_context(used, 0).state == {}
    assert made.purify(faces, used).shape == faces.images.shape
    ensemble = factory.defense("ensemble:defenses=[gaussian & subtracting]")
    assert set(ensemble.fit(training_faces(), context(2))) == {"1.mean"}


# -- in a run ------------------------------------------------------------------------------------------------


class Knowing(Attack):
    """Says that it knows some defences; cloaks nothing."""

    name = "knowing"

    class Params(MethodParams):
        defense: str = Field("jpeg", description="what it knows", json_schema_extra={"method": "defenses"})
        attack: str = Field("pgd", description="what it runs", json_schema_extra={"method": "attack"})

    params: Params

    def parts(self):
        texts = syntax.split(self.params.defense, "&")
        return (factory.attack(self.params.attack), *map(factory.defense, texts))

    @property
    def threat(self):
        known = tuple(methods.canonical(part) for part in self.parts()[1:])
        return ThreatModel(goal="untargeted", constraint="none", adapts_to=known)

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        return {}


@pytest.fixture
def threats(tiny, monkeypatch):
    del tiny
    load = registry.ATTACKS.load
    monkeypatch.setattr(registry.ATTACKS, "load", lambda name: Knowing if name == "knowing" else load(name))

    def by_point(attack, *defenses, trackers=TRACKERS):
        requested = {"dataset": "tiny", "backbones": trackers, "attacks": (attack,), "defenses": defenses}
        run = resolve.resolve(make_spec(requested))
        found = Threats(run)
        return run, {(cell.attack, cell.defense, cell.backbone): found.of(cell) for cell in run.cells}

    return by_point


def test_helpers_are_those_of_the_parts_of_ones_own_kind(threats):
    attack = "knowing:attack=[pgd:surrogates=tiny-b,steps=3],defense=[tiny-trained:features=tiny-c & jpeg]"
    defense = "tiny-trained:features=tiny-b,attacks=pgd + tiny-trained:features=tiny-c + jpeg"
    run, found = threats(attack, defense, trackers=("tiny-a",))
    (attack_name, _), (defense_name, _) = run.attacks, run.defenses
    cell = found[attack_name, defense_name, "tiny-a"]
    assert (cell.surrogates, cell.extractors) == ("tiny-b", "tiny-b|tiny-c")
    assert (cell.access, cell.extractors_are_surrogates) == ("black-box", True)
    binding = run.binding(run.attacks[attack_name], "tiny-a")
    assert [own.backbones for own in binding.parts] == [("tiny-b",), ("tiny-c",), ()]
    every = list(with_parts(run.defenses[defense_name], run.binding(run.defenses[defense_name], "tiny-a")))
    assert [own.backbones for _, own in every] == [("tiny-b", "tiny-c"), ("tiny-b",), ("tiny-c",), ()]


def test_what_members_saw_in_training_is_seen_by_the_whole(threats):
    for whole in (
        "jpeg + tiny-trained:attacks=pgd",
        "ensemble:defenses=[jpeg & median + tiny-trained:attacks=pgd]",
    ):
        _, found = threats("pgd", whole, trackers=("tiny-a",))
        assert found["pgd", whole, "tiny-a"].attack_seen_by_defense == "seen"
    _, found = threats("pgd", "jpeg + median", trackers=("tiny-a",))
    assert found["pgd", "jpeg + median", "tiny-a"].attack_seen_by_defense == "not-trained"


@pytest.mark.parametrize(
    ("known", "defense", "adapts"),
    [
        ("jpeg", "jpeg", "exactly"),
        ("jpeg", "jpeg:quality=60", ""),
        ("jpeg", "median + jpeg", "in part"),
        ("jpeg", "ensemble:defenses=[median & jpeg + gamma]", "in part"),
        ("jpeg + median", "jpeg + median", "exactly"),
        ("jpeg + median", "median", "in part"),
        ("jpeg & median", "median", "exactly"),
        ("jpeg & median", "gamma", ""),
        ("jpeg", "none", ""),
    ],
)
def test_an_attack_adapts_only_to_what_it_knows(threats, known, defense, adapts):
    run, found = threats(f"knowing:defense=[{known}]", defense, trackers=("tiny-a",))
    name = run.spec.attacks[0]
    threat, undefended = found[name, defense, "tiny-a"], found[name, "none", "tiny-a"]
    assert threat.attack_adapts_to_defense is (adapts == "exactly")
    assert threat.attack_adapts_in_part is (adapts == "in part")
    assert not undefended.attack_adapts_to_defense
    assert not undefended.attack_adapts_in_part
    assert run.attacks[name].threat.knows_defense


def test_the_halves_of_a_hardened_composition_count_in_its_row(threats):
    whole = "tiny-trained:attacks=pgd,features=tiny-b + tiny-centring"
    run, found = threats("knowing:defense=[tiny-centring]", whole, trackers=("tiny-a",))
    cell = found[run.spec.attacks[0], whole, "tiny-a"]
    assert (cell.extractors, cell.attack_adapts_in_part) == ("tiny-b", True)
    assert (
        cell.identity_overlap == "no"
    )  # the tracker's and the hardening's training identities are not evaluated
    sources = Threats(run).training_sources(Cell(run.spec.attacks[0], whole, "tiny-a", "nn", 0))
    assert ("defence", "tiny/training") in sources
    _, found = threats("pgd", whole, trackers=("tiny-a",))
    assert found["pgd", whole, "tiny-a"].attack_seen_by_defense == "seen"


def test_a_view_that_does_nothing_is_nothing_to_know(threats):
    run, found = threats("knowing:defense=[views:members=[none & jpeg]]", "jpeg", trackers=("tiny-a",))
    name = run.spec.attacks[0]
    assert found[name, "jpeg", "tiny-a"].attack_adapts_in_part
    assert not found[name, "none", "tiny-a"].attack_adapts_in_part


def test_people_and_extractors_of_a_part_count_as_the_wholes(threats):
    defense = "jpeg + tiny-trained:features=tiny-a,identities=unknown"
    _, found = threats("pgd", defense, trackers=("tiny-a",))
    cell = found["pgd", defense, "tiny-a"]
    assert (cell.identity_overlap, cell.extractor_is_tracker) == ("unknown", True)
    attack = "knowing:defense=[tiny-trained:features=tiny-a,identities=unknown]"
    run, found = threats(attack, "jpeg", trackers=("tiny-a",))
    cell = found[run.spec.attacks[0], "jpeg", "tiny-a"]
    assert (cell.identity_overlap, cell.extractor_is_tracker, cell.extractors) == ("unknown", True, "")
    assert cell.identity_overlap_detail.startswith("attack: ")
    assert found["none", "jpeg", "tiny-a"].identity_overlap == "no"


def planned(tmp_path, **fields):
    requested = {"dataset": "tiny", "backbones": ("tiny-a",), "identities": 3, **fields}
    return prepare(make_spec(requested), Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))


def node(prepared, defense):
    sources = prepared.pipeline.natural("gallery")
    (view,) = prepared.pipeline.defended(defense, "tiny-a", 0, sources)
    return view[0]


def test_parts_decide_the_key_and_plain_methods_keep_theirs(tiny, tmp_path):
    names = ("jpeg", "jpeg + median", "median + jpeg", "jpeg + median:size=5", "noise + jpeg")
    prepared = planned(tmp_path, defenses=names)
    nodes = {name: node(prepared, name) for name in names}
    assert len({each.address for each in nodes.values()}) == len(names)
    fields = {name: dict(each.key_fields()["purifier"]) for name, each in nodes.items()}
    assert "parts" not in fields["jpeg"]
    parts = fields["jpeg + median"]["parts"]
    assert [part["method"] for part in parts] == ["jpeg", "median"]
    assert {**parts[0], "seed": None} == fields["jpeg"]
    assert fields["jpeg + median"]["seed"] is None
    assert fields["noise + jpeg"]["seed"] == 0


def test_parts_draw_by_seeds_of_their_own(tiny, tmp_path):
    prepared = planned(tmp_path, defenses=("noise + noise:sigma=4",))
    bound = prepared.pipeline.method("defenses", "noise + noise:sigma=4", "tiny-a", 0)
    ctx = bound.context(prepared.machine, {})
    assert len({ctx.seed, *(part.seed for part in ctx.parts)}) == 3
    again = bound.context(prepared.machine, {})
    assert [part.seed for part in again.parts] == [part.seed for part in ctx.parts]


def test_a_composition_runs_like_any_defence(evaluate):
    prepared = evaluate(attacks=("tiny-noise",), defenses=("jpeg:quality=75 + tiny-negative",), identities=4)
    table = build(prepared.folder)
    assert set(table["defense"]) == {"none", "jpeg + tiny-negative"}
    assert table["asr"].notna().all()
    cell = Cell("tiny-noise", "jpeg + tiny-negative", "tiny-a", prepared.run.spec.heads[0], 0)
    recorded = {method.text: method for method in prepared.folder.facts().methods}
    assert recorded["jpeg:quality=75 + tiny-negative"].name == cell.defense


def test_the_training_of_a_hardening_is_shared_with_its_own_cells(tiny, tmp_path):
    names = ("jpeg", "tiny-centring", "jpeg + tiny-centring")
    prepared = planned(tmp_path, defenses=names, attacks=("tiny-noise",))
    nodes = {stage: [n for n in prepared.artefacts if n.stage == stage] for stage in ("fit", "purify")}
    assert len(nodes["fit"]) == 1
    pipeline = prepared.pipeline
    sources = pipeline.natural("gallery")
    alone, whole = (pipeline.defended(name, "tiny-a", 0, sources)[0] for name in ("jpeg", names[2]))
    assert [node.address for node in whole] == [node.address for node in alone]
    assert {node.label for node in nodes["purify"]} == {"jpeg"}
    (embedded,) = pipeline.embedded(names[2], "tiny-a", 0, alone[:1])
    (fit,) = embedded.tracker.learnt
    assert fit.address == nodes["fit"][0].address
    assert embedded.pictures is alone[0]


@pytest.mark.parametrize(
    "protocol", ["tracker:probes=purified", "tracker:defended=cloaked", "verification:far=0.9"]
)
def test_purifiers_and_a_hardening_run_together(evaluate, protocol):
    whole = "tiny-negative + tiny-centring"
    prepared = evaluate(attacks=("tiny-noise",), defenses=(whole,), protocol=protocol)
    table = build(prepared.folder)
    assert set(table["status"]) == {"ok"}
    shown = prepared.nodes[Cell("tiny-noise", whole, "tiny-a", prepared.run.spec.heads[0], 0)].decision.views
    of_probes = shown["probes"].kept[0].natural[0]
    assert of_probes.tracker.label == "tiny-a hardened by tiny-centring"
    purified = protocol == "tracker:probes=purified"
    assert (of_probes.pictures.stage == "purify") is purified
    assert shown["cloaked gallery"].kept[0].edits[0].pictures.stage == "purify"


def test_a_file_named_by_a_part_is_recorded(tiny, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from bench.contracts import Purifier\n"
        "class Flip(Purifier):\n"
        "    name = 'flip'\n"
        "    def purify(self, faces, ctx):\n"
        "        return faces.images.flip(-1)\n"
    )
    from bench.run.provenance import check_files_are_there, describe_methods

    texts = (f"jpeg + {plugin}:Flip", f"ensemble:defenses=[jpeg & {plugin}:Flip]")
    run = resolve.resolve(make_spec({"dataset": "tiny", "backbones": ("tiny-a",), "defenses": texts}))
    assert run.spec.defenses == ("jpeg + flip", "ensemble:defenses=[jpeg & flip]")
    recorded = describe_methods(run)
    composed = [method for method in recorded if method.kind == "defenses"]
    assert [[name for name, _ in method.files] for method in composed] == [[str(plugin)]] * 2
    check_files_are_there(recorded)
    plugin.unlink()
    from bench.errors import DataError

    with pytest.raises(DataError, match=r"needs the file '.*mine\.py', which is not here"):
        check_files_are_there(recorded)


def test_the_command_line_takes_compositions(cli):
    code, out, err = cli("list", "jpeg:quality=60 + median", "--json")
    assert (code, err) == (0, "")
    assert '"canonical": "jpeg:quality=60 + median"' in out
    assert '"made_of"' in out
    code, out, err = cli("plan", "--dataset", "tiny", "--defense", "jpeg + medain", "--backbone", "tiny-a")
    assert code == 2
    assert "unknown defense 'medain'. Did you mean 'median'" in err
    code, out, err = cli("plan", "--dataset", "tiny", "--defense", "jpeg + median", "--backbone", "tiny-a")
    assert code == 0, err
    assert "jpeg + median" in out


def test_sample_faces_are_purified_alike_alone():
    # The draw depends on the photo alone, so a photo meets one member whichever are beside it.
    made = factory.defense("ensemble:defenses=[gamma:value=0.5 & gamma:value=2 & gaussian]")
    faces = sample_faces()
    binding = Binding("tiny", "synthetic", (), "tiny-a")
    assert made.trained_on(replace(binding, parts=(binding,) * 3)) == ()
    together = made.purify(faces, context(3))
    for row in range(len(faces)):
        assert torch.equal(made.purify(faces.subset([row]), context(3))[0], together[row])
