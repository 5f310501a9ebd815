"""A tracker of several backbones: the mean of their cosines, stored embeddings used again, and who knows what of it."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from attacks.pgd import PGD
from bench.authoring.checks import run_checks
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Context, Substitution
from bench.errors import MethodError, UsageError
from bench.faces import pixels as faces_pixels
from bench.integrity.audit import audit
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.run import calls, decisions, embeddings
from bench.run.folder import RunFolder
from bench.run.planning import Options, prepare
from bench.run.resolve import resolve
from bench.run.spec import Cell, make_spec
from bench.run.stages.fuse import Fuse
from bench.run.substitution import FusedBackbone
from bench.run.threat import Threats
from bench.run.trained import trained_parts
from defenses.fusion import fused

CPU = torch.device("cpu")
TRACKERS = ("tiny-a", "tiny-b", "tiny-c")
WHOLE = "fusion:backbones=[tiny-b & tiny-c]"
OTHERS = "fusion:backbones=[tiny-b & tiny-c],own=false"
PURIFIED = f"jpeg:quality=20 + {WHOLE}"
VIEWS = f"views:members=[none & tiny-negative] + {WHOLE}"


# -- the mean cosine ---------------------------------------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(2, 9), st.floats(-6, 6)), min_size=1, max_size=5),
    st.integers(2, 5),
)
def test_the_cosine_of_fused_embeddings_is_the_mean_of_the_cosines(seed, members, photos):
    rng = np.random.default_rng(seed)
    each = [10.0**power * (rng.normal(size=(photos, length)) + 0.1) for length, power in members]
    found = fused([torch.from_numpy(vectors) for vectors in each]).numpy()
    expected = np.zeros((photos, photos))
    for vectors in each:
        for i, j in np.ndindex(photos, photos):
            lengths = np.sqrt(sum(vectors[i] ** 2)) * np.sqrt(sum(vectors[j] ** 2))
            expected[i, j] += sum(vectors[i] * vectors[j]) / lengths / len(each)
    assert found.shape == (photos, sum(length for length, _ in members))
    assert np.allclose(found @ found.T, expected, atol=1e-9)


def fakes(count):
    found = tuple(FakeBackbone(FakeBackbone.Params(seed=seed)) for seed in range(count))
    for each in found:
        each.load(CPU)
    return found


def test_the_gradient_of_the_mean_cosine_is_the_mean_of_the_gradients():
    members = fakes(3)
    tracker = FusedBackbone(
        factory.defense("fusion:backbones=[synthetic-iresnet & synthetic-mobilefacenet]"), members
    )
    assert tracker.differentiable
    assert tracker.card.embedding_dim == sum(each.card.embedding_dim for each in members)
    assert (tracker.card.thresholds, tracker.card.sha256, tracker.card.lfw_accuracy) == ((), "", None)
    photo, other = torch.rand(2, 1, 3, 112, 112, generator=torch.Generator().manual_seed(1))

    def gradient(backbone):
        image = photo.clone().requires_grad_()
        cosine = F.cosine_similarity(backbone.embed(image), backbone.embed(other)).sum()
        return torch.autograd.grad(cosine, image)[0]

    mean = sum(gradient(each) for each in members) / len(members)
    assert torch.allclose(gradient(tracker), mean, rtol=1e-3, atol=1e-7)
    network = tracker.trainable(CPU).eval()
    assert torch.allclose(network(photo), tracker.embed_batch(photo), atol=1e-5)
    assert len(list(network.parameters())) == sum(
        len(list(each.trainable(CPU).parameters())) for each in members
    )


# -- how it is written --------------------------------------------------------------------------------------------


def test_it_is_made_of_the_backbones_it_names(tiny):
    made = factory.defense("fusion:own=true,backbones=[tiny-b & tiny-c]")
    assert factory.canonical(made) == WHOLE
    assert [each.name for each in made.parts()] == ["tiny-b", "tiny-c"]
    assert (made.hardening, made.purifiers, made.trains) == (made, (), False)

    def names(text, tracker):
        return [each.name for each in factory.defense(text).embeds_with(factory.backbone(tracker))]

    assert names(WHOLE, "tiny-a") == ["tiny-a", "tiny-b", "tiny-c"]
    assert names(WHOLE, "tiny-c") == ["tiny-c", "tiny-b"]  # one backbone counts once
    assert names(OTHERS, "tiny-a") == names(OTHERS, "tiny-c") == ["tiny-b", "tiny-c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fusion:backbones=[tiny-b & tiny-c & tiny-b]", "has 'tiny-b' 2 times; leave the others out"),
        ("fusion:backbones=[tiny-b & tiny-d]", "unknown backbone 'tiny-d'. Did you mean"),
        (f"{WHOLE} + jpeg", "changes the tracker itself, so it comes last"),
        (f"tiny-centring + {WHOLE}", "joins 2 defences that change the tracker itself"),
    ],
)
def test_what_is_no_fusion_is_refused_with_the_fix(tiny, text, message):
    with pytest.raises(UsageError) as caught:
        factory.defense(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "tracker", "alone"),
    [
        ("fusion", "tiny-a", "tiny-a alone"),
        ("fusion:backbones=tiny-b", "tiny-b", "tiny-b alone"),
        ("fusion:backbones=tiny-b,own=false", "tiny-a", "tiny-b alone"),
        ("fusion:own=false", "tiny-a", "no backbone"),
        ("jpeg + fusion:backbones=tiny-b", "tiny-b", "tiny-b alone"),
    ],
)
def test_fewer_than_two_backbones_are_refused_at_plan_time(tiny, text, tracker, alone):
    run = resolve(make_spec({"dataset": "tiny", "backbones": (tracker,), "defenses": (text,)}))
    with pytest.raises(UsageError) as caught:
        Threats(run).check()
    assert f"{text} is no defence of tracker {tracker}: it would compare by {alone}. Name" in str(
        caught.value
    )


@pytest.mark.parametrize("text", [WHOLE, OTHERS, PURIFIED, VIEWS])
def test_it_keeps_the_contract(tiny, text):
    assert [finding for finding in run_checks(factory.defense(text)) if not finding.passed] == []


class Wrong(Substitution):
    """Breaks a rule of its contract."""

    name = "wrong"

    def __init__(self, backbones, does=None):
        super().__init__()
        self.backbones, self.does = backbones, does

    def parts(self):
        return self.backbones[:2]

    def embeds_with(self, tracker):
        return self.backbones

    def fuse(self, embeddings):
        return self.does(embeddings)


@pytest.mark.parametrize(
    ("count", "does", "check"),
    [
        (3, fused, "names the backbones it embeds with"),
        (0, fused, "names the backbones it embeds with"),
        (2, lambda each: each[0][:1], "its backbones embed as one"),
        (2, lambda each: each[0].double(), "its backbones embed as one"),
        (2, lambda each: each[0] / 0, "its backbones embed as one"),
        (2, lambda each: each[0] - each[1].mean(0), "a photo's embedding does not depend on the others"),
    ],
)
def test_a_substitution_that_breaks_its_contract_is_found(count, does, check):
    found = run_checks(Wrong(fakes(count), does))
    assert check in {finding.check for finding in found if not finding.passed}


def test_a_substitution_without_fuse_says_so():
    with pytest.raises(TypeError, match="embeds with 2 backbones and has no fuse"):
        Substitution.fuse(Wrong(()), [torch.ones(1, 2)] * 2)
    with pytest.raises(
        MethodError, match="fused the embeddings of 4 images to list, not to 4 rows of float32"
    ):
        calls.fuse(Wrong((), list), [torch.ones(4, 2)])


# -- runs ---------------------------------------------------------------------------------------------------------


def planned(store, out, **fields):
    requested = {
        "dataset": "tiny",
        "backbones": ("tiny-a",),
        "identities": 4,
        "attacks": ("tiny-noise",),
        **fields,
    }
    return prepare(make_spec(requested), Options(threads=1, store=store, out=out))


def test_over_known_backbones_nothing_is_embedded_again(evaluate, tmp_path):
    store = tmp_path / "store"
    evaluate(
        store=store, attacks=("tiny-noise",), identities=4, backbones=TRACKERS, defenses=("jpeg:quality=20",)
    )
    plan = planned(store, tmp_path / "run", defenses=(WHOLE, OTHERS, PURIFIED))
    missing = Counter(type(node) for node in plan.missing if node.stage == "embed")
    assert set(missing) == {Fuse}
    assert {node.stage for node in plan.missing} == {"embed", "decide"}
    # Nothing is drawn: another seed has the same embeddings of natural photos.
    natural = plan.pipeline.natural("gallery")
    one, other = (plan.pipeline.embedded(WHOLE, "tiny-a", seed, natural) for seed in (0, 1))
    assert [node.address for node in one] == [node.address for node in other]
    assert [each.tracker.label for each in one[0].members] == list(TRACKERS)


def test_its_key_holds_every_backbone_and_the_method_and_no_seed(tiny, tmp_path):
    texts = (WHOLE, OTHERS, "fusion:backbones=[tiny-c & tiny-b],own=false")
    plan = planned(tmp_path / "store", tmp_path / "run", defenses=texts)
    natural = plan.pipeline.natural("gallery")
    nodes = [plan.pipeline.embedded(text, "tiny-a", 0, natural)[0] for text in texts]
    alone = {name: plan.pipeline.embedded("none", "tiny-a", 0, natural)[0] for name in ("tiny-a",)}
    assert nodes[0].key["inputs"] == [each.address for each in nodes[0].members]
    assert nodes[0].key["inputs"][0] == alone["tiny-a"].address
    assert nodes[0].key["inputs"][1:] == nodes[1].key["inputs"] == nodes[2].key["inputs"][::-1]
    assert len({node.address for node in nodes}) == 3
    method = nodes[0].key["fused_by"]
    assert (method["method"], method["seed"], bool(method["code"])) == (WHOLE, None, True)


@pytest.fixture(scope="module")
def together(evaluate):
    return evaluate(
        attacks=("tiny-noise",),
        defenses=(WHOLE, OTHERS, PURIFIED, VIEWS, "tiny-negative", "jpeg:quality=20"),
        backbones=TRACKERS[:2],
        heads=("nn", "centroid", "linear"),
        protocol="tracker:folds=3",
        identities=4,
    )


def test_every_cell_has_an_answer_and_a_fused_row_says_what_it_is(together):
    table = build(together.folder)
    assert set(table["status"]) == {"ok"}
    assert table["asr"].notna().all()
    mine = table[table["defense"].str.contains("fusion")]
    assert set(mine["extractors"]) == {""}
    assert set(mine["attack_seen_by_defense"]) == {"not-trained", ""}


def test_runs_with_it_are_found_to_be_marked(together):
    found = audit(RunFolder(together.folder.path))
    assert found.unmarked == ()


def members_of(text, tracker):
    return [each.name for each in factory.defense(text).hardening.embeds_with(factory.backbone(tracker))]


def shown(defense, image):
    """Return the images that the tracker keeps of a photo, each 3×H×W in [0, 1], by the purifiers alone."""
    kept = []
    for purifier in factory.defense(defense).purifiers or (None,):
        seen = image if purifier is None else purifier.purify(image, Context())
        kept.append((seen.images if purifier is None else seen).mul(255).round() / 255)
    return kept


def embedded_by(name, images):
    backbone = factory.backbone(name)
    backbone.load(CPU)
    return backbone.embed_batch(images).double().numpy()


@pytest.mark.parametrize("defense", [WHOLE, OTHERS, PURIFIED, VIEWS])
@pytest.mark.parametrize("tracker", TRACKERS[:2])
def test_answers_are_those_of_the_mean_cosine_by_plain_loops(together, defense, tracker):
    split, pipeline = together.run.split, together.pipeline
    natural = {}
    for role in ("gallery", "probes"):
        for node in pipeline.natural(role):
            faces = faces_pixels.decode_pixels(together.store.read(node.stage, node.address)).faces(CPU)
            for row, name in enumerate(faces.ids):
                natural[name] = faces.subset([row])
    members = members_of(defense, tracker)

    def vectors(images):
        return [[v / np.linalg.norm(v) for v in embedded_by(name, images)] for name in members]

    kept = {name: shown(defense, natural[name]) for photos in split.gallery.values() for name in photos}
    gallery = {name: [vectors(image) for image in images] for name, images in kept.items()}
    node = together.nodes[Cell("none", defense, tracker, "nn", 0)].decision
    rows = decisions.from_bytes(together.store.read(node.stage, node.address)).rows
    rows = rows[rows["fold"] == 0].set_index("image")
    assert len(rows) == sum(map(len, split.probes.values()))
    for probe, row in rows.iterrows():
        own = vectors(natural[probe].images)
        scores = {
            name: max(
                np.mean([a[0] @ b[0] for a, b in zip(own, view, strict=True)])
                for photo in photos
                for view in gallery[photo]
            )
            for name, photos in split.gallery.items()
        }
        assert row["score"] == pytest.approx(max(scores.values()), abs=1e-5)
        assert row["predicted"] == max(sorted(scores), key=scores.__getitem__)


def test_stored_embeddings_are_those_of_the_backbone_that_heads_train(together):
    pipeline = together.pipeline
    (photos,) = pipeline.natural("gallery")
    (node,) = pipeline.embedded(WHOLE, "tiny-a", 0, (photos,))
    assert isinstance(node, Fuse)
    stored = embeddings.decode_embedded(together.store.read(node.stage, node.address))
    faces = faces_pixels.decode_pixels(together.store.read(photos.stage, photos.address)).faces(CPU)
    tracker = pipeline._tracker(WHOLE, "tiny-a", 0).on(together.machine, {})
    assert stored.ids == faces.ids
    assert np.allclose(stored.vectors, tracker.embed_batch(faces.images).numpy(), atol=1e-5)
    assert tracker.card.name == "tiny-a & tiny-b & tiny-c"


@pytest.mark.parametrize(
    "protocol",
    [
        "scenarios",
        "robustness:channels=[none|jpeg]",
        "verification:far=0.5",
        "identification:distractors=2,fpir=none",
    ],
)
def test_every_protocol_takes_it(evaluate, protocol):
    prepared = evaluate(attacks=("tiny-noise",), defenses=(WHOLE,), protocol=protocol)
    table = build(prepared.folder)
    assert set(table["status"]) == {"ok"}
    assert WHOLE in set(table["defense"])


def test_the_head_that_trains_the_network_trains_every_member(evaluate):
    protocol = "tracker:finetune_epochs=1,folds=2"
    defenses = ("fusion:backbones=tiny-b", "views:members=[none & tiny-negative] + fusion:backbones=tiny-b")
    prepared = evaluate(
        attacks=("tiny-noise",), defenses=defenses, heads=("finetune",), protocol=protocol, identities=4
    )
    assert {result.status for result in prepared.folder.cells()} == {"ok"}
    pipeline = prepared.pipeline
    tracker = pipeline._tracker(defenses[0], "tiny-a", 0).on(prepared.machine, {})
    shapes = sorted(tuple(each.shape) for each in tracker.trainable(CPU).parameters())
    assert shapes == [(196, 16), (196, 24)]
    decided = prepared.nodes[Cell("tiny-noise", defenses[0], "tiny-a", "finetune", 0)].decision
    alone = prepared.nodes[Cell("tiny-noise", "none", "tiny-a", "finetune", 0)].decision
    assert decided.tracker.label == "tiny-a & tiny-b"
    assert decided.address != alone.address


def test_it_trains_nothing_and_wants_no_training_identities(evaluate):
    prepared = evaluate(dataset="tiny:training_identities=0", attacks=("tiny-noise",), defenses=(WHOLE,))
    assert {result.status for result in prepared.folder.cells()} == {"ok"}
    assert not [node for node in prepared.artefacts if node.stage == "fit"]
    assert trained_parts(prepared.run, Cell("tiny-noise", WHOLE, "tiny-a", "nn", 0)) == {}
    recorded = {(method.kind, method.name) for method in prepared.folder.facts().methods}
    assert {("backbones", name) for name in TRACKERS} <= recorded


# -- who knows what -----------------------------------------------------------------------------------------------


@pytest.fixture
def threats(tiny):
    del tiny

    def by_point(**fields):
        run = resolve(make_spec({"dataset": "tiny", "backbones": ("tiny-a",), **fields}))
        found = Threats(run)
        found.check()
        return {(cell.attack, cell.defense): found.of(cell) for cell in run.cells}

    return by_point


@pytest.mark.parametrize(
    ("surrogate", "fusion", "access"),
    [
        ("tiny-a", "fusion:backbones=tiny-b", "white-box"),
        ("tiny-b", "fusion:backbones=tiny-b", "white-box"),
        ("tiny-c", "fusion:backbones=tiny-b", "black-box"),
        ("tiny-a", OTHERS, "black-box"),
        ("tiny-c", OTHERS, "white-box"),
    ],
)
def test_a_surrogate_among_the_backbones_is_white_box(threats, surrogate, fusion, access):
    attack = f"pgd:surrogates={surrogate}"
    found = threats(attacks=(attack,), defenses=(fusion, f"jpeg + {fusion}"))
    for defense in (fusion, f"jpeg + {fusion}"):
        row = found[attack, defense]
        assert (row.access, row.surrogates, row.extractors) == (access, surrogate, "")
        assert (row.attack_knows, row.attack_adapts_to_defense, row.extractor_is_tracker) == (
            "",
            False,
            False,
        )
    assert found[attack, "none"].access == ("white-box" if surrogate == "tiny-a" else "black-box")


def test_a_purifier_trained_with_a_fused_backbone_says_so(threats):
    purifiers = [f"tiny-trained:features={name}" for name in ("tiny-b", "tiny-c")]
    both = [f"{purifier} + fusion:backbones=tiny-b" for purifier in purifiers]
    found = threats(defenses=(*purifiers, *both))
    assert [found["none", name].extractor_is_tracker for name in (*purifiers, *both)] == [
        False,
        False,
        True,
        False,
    ]
    # tiny-c is of no family, and tiny-a and tiny-b of one.
    assert [found["none", name].related for name in both] == [True, False]


@pytest.mark.parametrize(
    ("surrogates", "fusion", "knows"),
    [
        ("tiny-a", WHOLE, "weights"),
        ("tiny-b", WHOLE, "recipe"),
        ("tiny-b", OTHERS, "weights"),
    ],
)
def test_who_knows_it_has_its_backbones(threats, surrogates, fusion, knows):
    attack = f"adaptive:attack=pgd:surrogates={surrogates},defense=[{fusion}]"
    found = threats(attacks=(attack,), defenses=(fusion,))
    row = found[attack, fusion]
    assert (row.access, row.attack_knows, row.attack_adapts_to_defense) == ("white-box", knows, True)
    # Whoever fuses its surrogates with others works against a tracker that has one of these, too.
    assert found[attack, "none"].access == ("white-box" if surrogates == "tiny-a" else "black-box")
    assert found[attack, "none"].attack_knows == ""


def test_a_photo_of_a_backbones_training_identity_is_an_overlap(threats):
    found = threats(defenses=(WHOLE,))
    assert found["none", WHOLE].identity_overlap == "no"  # all tiny backbones name the training identities
    run = resolve(make_spec({"dataset": "tiny", "backbones": ("tiny-a",), "defenses": (WHOLE,)}))
    found = Threats(run)
    run.substitutes["tiny-b"].card = run.substitutes["tiny-b"].card.model_copy(
        update={"training_data": "MS1M"}
    )
    cell = Cell("none", WHOLE, "tiny-a", "nn", 0)
    assert found.training_sources(cell) == [("tracker", "tiny/training"), ("tracker", "MS1M")]
    assert found.of(cell).identity_overlap == "unknown"


def test_a_tracker_is_later_where_every_backbone_is(threats):
    run = resolve(make_spec({"dataset": "tiny", "backbones": ("tiny-a",), "defenses": (WHOLE,)}))
    found = Threats(run)

    def says(**released):
        for name, backbone in {**run.backbones, **run.substitutes}.items():
            backbone.card = backbone.card.model_copy(update={"released": released.get(name[-1], "")})
        return found._model_times(("tiny-c",), ("tiny-a", "tiny-b"))

    assert says(a="2024", b="2023", c="2022") == ("later", "")
    assert says(a="2024", b="2020", c="2022") == ("not-later", "")
    assert says(b="2020", c="2022") == ("not-later", "")
    assert says(a="2024", c="2022") == ("", "no date of publication is known of tiny-b")


# -- the attacker who knows -----------------------------------------------------------------------------------------


def test_an_attack_that_knows_it_is_made_on_its_surrogates_fused(evaluate):
    attack = f"adaptive:attack=[pgd:steps=2,surrogates=tiny-b],defense=[{OTHERS}]"
    plain = "adaptive:attack=[pgd:steps=2,surrogates=tiny-b],defense=tiny-negative"
    prepared = evaluate(dataset="tiny:identities=4,photos=4", attacks=(attack, plain), defenses=(OTHERS,))
    assert {result.status for result in prepared.folder.cells()} == {"ok"}
    (node,) = prepared.pipeline.cloaks(attack, "tiny-a", 0, "gallery")
    made = faces_pixels.decode_pixels(prepared.store.read(node.stage, node.address))
    (photos,) = prepared.pipeline.natural("gallery")
    natural = faces_pixels.decode_pixels(prepared.store.read(photos.stage, photos.address))
    members = [factory.backbone(name) for name in ("tiny-b", "tiny-c")]
    for each in members:
        each.load(CPU)
    surrogate = FusedBackbone(factory.defense(OTHERS), members)
    faces = natural.only(frozenset(made.ids)).faces(CPU)
    by_hand = PGD(PGD.Params(steps=2)).cloak(faces, Context(seed=0, backbones=(surrogate,)))
    for name, image in zip(made.ids, made.images, strict=True):
        assert torch.equal(image, (by_hand[name] * 255).round().byte())
    # Which backbones they are decides the cloaks: it is in the key, and in that of nobody else.
    (other,) = prepared.pipeline.cloaks(plain, "tiny-a", 0, "gallery")
    names = [[each["name"] for each in one["backbones"]] for one in node.key["attack"]["substituted"]]
    assert names == [["tiny-b", "tiny-c"]]
    assert "substituted" not in other.key["attack"]


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_runs_it_on_the_embedded_dataset(command, tmp_path):
    defense = "jpeg + fusion:backbones=synthetic-mobilefacenet-wide"
    attack = "pgd:steps=1,surrogates=synthetic-iresnet"
    options = (
        *("--attack", attack, "--backbone", "synthetic-mobilefacenet", "--identities", 4, "--threads", 1),
        *("--defense", defense, "--defense", defense.removeprefix("jpeg + "), "--store", tmp_path / "store"),
    )
    done = command("run", *options, "--out", tmp_path / "run", "--csv", tmp_path / "rows.csv")
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False).set_index(["attack", "defense"])
    assert set(rows["status"]) == {"ok"}
    assert rows.loc[(attack, defense), "access"] == "black-box"
    plan = command("plan", *options)
    assert "6 cells (" in plan.stdout
    assert ", 6 cached" in plan.stdout
    shown = command("list", "fusion")
    assert shown.returncode == 0, shown.stderr
    assert "backbones joined by &" in shown.stdout
    refused = command("plan", *options[:-4], "--defense", "fusion:backbones=synthetic-mobilefacenet")
    assert refused.returncode == 2
    assert "is no defence of tracker synthetic-mobilefacenet" in refused.stderr
