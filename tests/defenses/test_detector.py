"""The detector of cloaks: its threshold, what it learns and flags, and `tracker:defended=detected`."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bench.authoring.checks import training_faces
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Attack, Context, Faces, ThreatModel
from bench.datasets.synthetic import Synthetic
from bench.errors import UsageError
from bench.faces.pixels import decode_pixels
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.run.planning import Options, prepare
from bench.run.spec import make_spec
from bench.run.threat import Threats
from bench.stats.intervals import rate_interval
from defenses import _hardened
from defenses.detector import CloakDetector, ResidualClassifier, Residuals, allowed, halves

CPU = torch.device("cpu")
QUICK = "detector:attacks=[pgd:steps=1],fpr=0.5,batch=4,steps=6"
ONE = "jpeg:quality=20"


def fake(seed):
    backbone = FakeBackbone(FakeBackbone.Params(seed=seed))
    backbone.load(CPU)
    return backbone


def context(seed=1, attacks=1, **fields):
    inner = (Context(seed=9 + i, backbones=(fake(5),)) for i in range(attacks))
    return Context(seed=seed, parts=(Context(seed=3), *inner), **fields)


def fit(text=QUICK, ctx=None, faces=None):
    return factory.defense(text).fit(faces or training_faces(), ctx or context())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def whole(images):
    return images.mul(255).round()


def by_hand(state, images, purified):
    """Return the logits of photos, layer by layer in float64, without the network's class."""
    weights = {name.removeprefix("network.layers."): value.double() for name, value in state.items()}
    values = (whole(images) - whole(purified)).double() / state["network.spread"].double()
    for layer, (size, stride) in {0: (5, 2), 2: (3, 2), 4: (3, 2)}.items():
        kernel, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        values = F.conv2d(values, kernel, bias, stride=stride, padding=size // 2).clamp(min=0)
    return values.mean((2, 3)) @ weights["8.weight"][0] + weights["8.bias"]


# -- the threshold -----------------------------------------------------------------------------------------


@given(st.integers(0, 3000), st.integers(1, 999))
def test_as_many_photos_lie_above_the_threshold_as_keep_a_new_one_within_its_rate(photos, thousandths):
    fpr = Fraction(thousandths, 1000)
    above = allowed(photos, float(fpr))
    assert Fraction(above + 1, photos + 1) <= fpr
    assert Fraction(above + 2, photos + 1) > fpr


def test_a_new_photo_lies_above_the_threshold_at_the_rate_and_not_more_often():
    rng, photos, fpr = np.random.default_rng(0), 199, 0.05
    draws = rng.standard_normal((20_000, photos + 1))
    thresholds = -np.sort(-draws[:, :photos], axis=1)[:, allowed(photos, fpr)]
    assert (draws[:, photos] > thresholds).mean() == pytest.approx(fpr, abs=0.005)


def test_the_threshold_is_the_next_largest_score_of_the_photos_that_were_held_out():
    text = "detector:attacks=[pgd:steps=1],fpr=0.4,batch=4,steps=6"
    state, faces = fit(text), training_faces()
    jpeg = factory.defense("jpeg").purify(faces, Context())
    held_out = [
        row
        for row, name in enumerate(faces.identities)
        if name in list(dict.fromkeys(faces.identities))[1::2]
    ]
    scores = by_hand(state, faces.images[held_out], jpeg[held_out])
    above = 1  # (1 + 1) of 4 + 1 orders are two fifths
    assert len(held_out) == 4
    assert float(state["threshold"]) == pytest.approx(float(scores.sort(descending=True)[0][above]), abs=1e-4)


def test_identities_are_learnt_from_or_set_the_threshold_and_never_both():
    rows = halves(("b", "b", "a", "c", "a", "d", "c"))
    assert rows == ([0, 1, 3, 6], [2, 4, 5])


# -- what it learns from -----------------------------------------------------------------------------------


def test_half_of_a_batch_is_cloaks_of_any_attack_and_any_photo_mirrored_or_not():
    levels = [torch.tensor([1, 2]), torch.tensor([11]), torch.tensor([21, 22, 23])]
    natural, one, other = (each.to(torch.int16).view(-1, 1, 1, 1).repeat(1, 3, 4, 4) for each in levels)
    for each in (natural, one, other):
        each[..., :2] += 100
    count = 6000
    drawn, labels = Residuals(natural, (one, other)).draw(count, torch.Generator().manual_seed(0))
    assert (drawn.shape, drawn.dtype) == ((count, 3, 4, 4), torch.float32)
    mirrored = drawn[:, 0, 0, 0] < 100
    level = drawn[:, 0, 0].amin(1)
    assert bool(((level > 10) == (labels == 1)).all())
    shares = {
        "cloaks": labels.mean(),
        "mirrored": mirrored.float().mean(),
        "first attack": (level[labels == 1] == 11).float().mean(),
        "a photo of the second": (level[labels == 1] == 22).float().mean() * 6,
    }
    assert {name: float(share) for name, share in shares.items()} == pytest.approx(
        {"cloaks": 0.5, "mirrored": 0.5, "first attack": 0.5, "a photo of the second": 1}, abs=0.08
    )


class Sparing(Attack):
    """Halves the photos of one identity and leaves the others alone."""

    name = "sparing"
    threat = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        pairs = zip(faces.ids, faces.identities, faces.images, strict=True)
        return {name: image / 2 for name, who, image in pairs if who == faces.identities[0]}


class Idle(Sparing):
    """Leaves all photos alone."""

    def cloak(self, faces, ctx):
        return {}


def test_photos_that_an_attack_left_alone_are_no_cloaks(monkeypatch):
    defense, faces = factory.defense(QUICK), training_faces()
    monkeypatch.setattr(defense, "_attacks", (Sparing(),))
    (found,) = defense._residuals_of_cloaks(faces, context(), context(), 4)
    halved = whole(faces.images[:2] / 2) / 255
    purified = factory.defense("jpeg").purify(faces.subset([0, 1]).with_images(halved), Context())
    assert torch.equal(found, (whole(halved) - whole(purified)).to(torch.int16))


def test_an_attack_that_changes_no_photo_is_named(monkeypatch):
    defense = factory.defense(QUICK)
    monkeypatch.setattr(defense, "_attacks", (Idle(),))
    with pytest.raises(UsageError, match="changed none of 4 photos: there is no cloak to learn from"):
        defense.fit(training_faces(), context())


# -- what it learns ----------------------------------------------------------------------------------------


def test_its_file_is_small():
    state = fit()
    assert sum(value.numel() * value.element_size() for value in state.values()) < 65_000
    assert sum(each.numel() for each in ResidualClassifier().parameters()) == 15_137


def test_the_seed_decides_and_nothing_else():
    first = fit()
    assert same(first, fit())
    assert not same(first, fit(ctx=context(seed=2)))


def test_every_photo_counts_once_cloaking_and_training_together():
    counted = []
    fit(ctx=context(advance=counted.append))
    assert sum(counted) == len(training_faces())


class KilledError(Exception):
    """Stands for a kill."""


def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(_hardened, "_CHECKPOINT_STEPS", 2)
    counted = []

    def advance(count):
        counted.append(count)
        if sum(counted) >= 7:  # four of cloaking, and five of six steps
            raise KilledError

    ctx = context(checkpoint=tmp_path / "kept")
    with pytest.raises(KilledError):
        fit(ctx=replace(ctx, advance=advance))
    assert ctx.checkpoint.is_file()
    assert same(fit(), fit(ctx=ctx))


def drawn(role, identities, photos):
    dataset = Synthetic()
    chosen = [one for one in dataset.identities() if one.role == role][:identities]
    ids, owners = zip(*((p, one.id) for one in chosen for p in one.photos[:photos]), strict=True)
    return Faces(dataset.crops(ids).float() / 255, ids, owners)


@pytest.fixture(scope="module")
def learnt():
    """A detector with its state, trained on drawn faces, and photos of others with their cloaks."""
    defense = factory.defense(
        "detector:attacks=[pgd],fpr=0.1,batch=12,steps=60,learning_rate=0.01,purifier=gaussian"
    )
    state = defense.fit(drawn("training", 40, 2), context())
    shown = drawn("evaluation", 8, 2)
    edits = factory.attack("pgd").cloak(shown, Context(seed=4, backbones=(fake(6),)))
    cloaks = shown.with_images(whole(torch.stack([edits[name] for name in shown.ids])) / 255)
    return defense, replace(context(), state=state), shown, cloaks


def test_it_flags_cloaks_of_others_and_leaves_their_natural_photos(learnt):
    defense, ctx, shown, cloaks = learnt
    assert float(defense.flagged(cloaks, ctx).float().mean()) > 0.9
    assert float(defense.flagged(shown, ctx).float().mean()) < 0.3


def test_flags_are_scores_above_the_threshold_and_decide_what_is_purified(learnt):
    defense, ctx, shown, cloaks = learnt
    faces = Faces(
        torch.cat([shown.images[:3], cloaks.images[:3]]), tuple("abcdef"), ("x",) * 6
    )  # not a multiple of the micro-batch
    purified = whole(factory.defense("gaussian").purify(faces, Context())) / 255
    scores = by_hand(ctx.state, faces.images, purified)
    assert defense.scores(faces, ctx).tolist() == pytest.approx(scores.tolist(), abs=1e-3)
    flags = defense.flagged(faces, ctx)
    assert flags.tolist() == (scores > ctx.state["threshold"]).tolist()
    assert {*flags.tolist()} == {True, False}
    expected = torch.where(flags[:, None, None, None], purified, faces.images)
    assert torch.equal(defense.purify(faces, ctx), expected)


def test_a_purifier_that_draws_makes_it_random_and_one_that_learns_is_fitted():
    assert not factory.defense("detector:purifier=noise").deterministic
    assert factory.defense("detector:purifier=median").deterministic
    inner = factory.defense(f"detector:purifier=[{QUICK}],attacks=[pgd:steps=1],fpr=0.5,steps=2,batch=4")
    parts = (context(), Context(seed=8, backbones=(fake(5),)))
    assert any(name.startswith("0.network.") for name in inner.fit(training_faces(), Context(parts=parts)))


# -- what it refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("detector:attacks=[pgd & none]", "cannot train on cloaks of 'none': it changes no photo"),
        ("detector:attacks=[pgd:goal=targeted]", "imitates others"),
        ("detector:purifier=none", "'none' changes no photo, so that nothing tells cloaks from others"),
        ("detector:purifier=robust-extractor", "changes the tracker itself"),
    ],
)
def test_what_cannot_be_learnt_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        factory.defense(text)


def test_too_few_photos_for_the_rate_are_refused_with_how_many_it_takes():
    with pytest.raises(UsageError, match=r"4 natural photos were held out .* fpr=0\.01 needs 99"):
        fit("detector:attacks=[pgd:steps=1],steps=2,batch=4")


# -- in front of every cell's defence ----------------------------------------------------------------------


def protocol(detector="", **values):
    given = {"defended": "detected", **({"detector": f"[{detector}]"} if detector else {}), **values}
    return factory.protocol("tracker:" + ",".join(f"{key}={value}" for key, value in given.items()))


@pytest.mark.parametrize(
    ("defense", "deployed"),
    [
        ("none", "none"),
        (ONE, f"detector:attacks=pgd:steps=3,purifier={ONE}"),
        ("jpeg + median", "detector:attacks=pgd:steps=3,purifier=[jpeg + median]"),
        ("robust-extractor", "robust-extractor"),
        (
            f"{ONE} + robust-extractor:steps=3",
            f"detector:attacks=pgd:steps=3,purifier={ONE} + robust-extractor:steps=3",
        ),
    ],
)
def test_the_detector_stands_before_the_purifier_of_a_defence(defense, deployed):
    made = protocol("detector:attacks=[pgd:steps=3]").deployed(factory.defense(defense))
    assert factory.canonical(made) == deployed
    assert factory.canonical(factory.defense(factory.text_of(made))) == deployed


def test_without_a_detector_named_it_is_the_one_registered_and_without_the_option_none():
    jpeg = factory.defense(ONE)
    assert factory.canonical(protocol().deployed(jpeg)) == f"detector:purifier={ONE}"
    assert factory.protocol("tracker:defended=cloaked").deployed(jpeg) is jpeg
    assert all(view.defended for name, view in protocol().views.items() if "gallery" in name)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tracker:defended=detected,detector=jpeg", "'jpeg' detects no cloaks"),
        ("tracker:defended=detected,detector=[detector:purifier=median]", "names a purifier"),
        ("tracker:detector=detector", "acts with defended=detected only"),
    ],
)
def test_a_detector_that_cannot_act_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        factory.protocol(text)


@pytest.mark.parametrize(
    ("defense", "why"),
    [("views", "the defence keeps 2 views of each"), ("detector", "the defence detects cloaks itself")],
)
def test_defences_that_it_cannot_stand_before_are_refused_in_the_plan(defense, why, tmp_path):
    spec = make_spec({"defenses": (defense,), "protocol": "tracker:defended=detected"})
    with pytest.raises(UsageError, match=f"cannot measure .*{why}"):
        prepare(spec, Options(store=tmp_path, out=tmp_path / "out", threads=1))


def test_rows_say_which_attacks_the_detector_has_seen(tmp_path):
    spec = make_spec(
        {
            "attacks": ("pgd:eps=15", "pgd", "lowkey:perceptual=dssim"),
            "defenses": (ONE,),
            "protocol": "tracker:defended=detected",
        }
    )
    prepared = prepare(spec, Options(store=tmp_path, out=tmp_path / "out", threads=1))
    threats = Threats(prepared.run)
    found = {c.attack: threats.of(c) for c in prepared.run.cells if c.defense == ONE}
    assert {name: each.attack_seen_by_defense for name, each in found.items()} == {
        "none": "",
        "pgd:eps=15": "seen",
        "pgd": "seen-with-other-parameters",
        "lowkey:perceptual=dssim": "unseen",
    }
    assert {each.identity_overlap for each in found.values()} == {"no"}
    roles = {one.id: one.role for one in prepared.run.dataset.identities()}
    fits = [node for node in prepared.artefacts if node.stage == "fit"]
    assert {roles[name] for node in fits for name in node.faces.identities} == {"training"}
    assert len({node.address for node in fits}) == 1


LEARNING = "fpr=0.25,steps=30,batch=8,learning_rate=0.01"
RUN = {
    "dataset": "tiny:training_identities=20",
    "attacks": ("tiny-noise", "tiny-sometimes"),
    "defenses": ("tiny-negative",),
    "protocol": f"tracker:folds=6,defended=detected,detector=[detector:attacks=[tiny-noise],{LEARNING}]",
}


@pytest.fixture(scope="module")
def run(evaluate):
    return evaluate(**RUN)


def cell_of(run, attack, defense="tiny-negative"):
    (found,) = (one for one in run.folder.cells() if (one.attack, one.defense) == (attack, defense))
    assert found.status == "ok", found.reason
    return found


def flags_of(run, attack, kind):
    content = json.loads((run.folder.path / cell_of(run, attack).detection).read_bytes())
    parts = [pd.DataFrame(shard) for shard in content[kind]]
    return pd.concat(parts, ignore_index=True)


def row_of(run, attack, defense="tiny-negative"):
    table = build(run.folder)
    ((_, row),) = table[(table["attack"] == attack) & (table["defense"] == defense)].iterrows()
    return row


@pytest.mark.parametrize(("kind", "column"), [("cloaked", "detector_tpr"), ("natural", "detector_fpr")])
def test_rates_are_means_over_identities_of_what_was_flagged(run, kind, column):
    flags, row = flags_of(run, "tiny-noise", kind), row_of(run, "tiny-noise")
    shares = [
        flags["flagged"][flags["identities"] == name].mean() for name in sorted(set(flags["identities"]))
    ]
    assert len(shares) == 6
    assert row[column] == pytest.approx(sum(shares) / 6)
    expected = rate_interval(shares, len(flags))
    assert (row[f"{column}_low"], row[f"{column}_high"]) == pytest.approx((expected.low, expected.high))
    assert row["detector_reason"] == ""


def test_cloaks_are_flagged_and_natural_photos_seldom(run):
    row = row_of(run, "tiny-noise")
    assert row["detector_tpr"] > 0.8 > row["detector_fpr"]


def test_photos_that_the_attack_left_alone_are_no_cloaks_to_be_detected(run):
    cloaks, photos = (flags_of(run, "tiny-sometimes", kind) for kind in ("cloaked", "natural"))
    assert {int(name[-2:]) % 2 for name in cloaks["images"]} == {0}
    assert set(cloaks["images"]) < set(photos["images"])


def test_flagged_photos_are_purified_and_the_others_are_what_they_were(run):
    flags = {
        (kind, name): flag
        for kind in ("cloaked", "natural")
        for name, flag in flags_of(run, "tiny-noise", kind)[["images", "flagged"]].itertuples(index=False)
    }
    seen = {node.address: node for node in run.artefacts if node.stage == "purify"}
    compared = 0
    for node in seen.values():
        given, got = (
            decode_pixels(run.store.read(each.stage, each.address)) for each in (node.images_given, node)
        )
        kind = {"faces": "natural", "cloak": "cloaked"}[node.images_given.stage]
        if kind == "cloaked" and "tiny-noise" not in node.images_given.label:
            continue
        for name, before, after in zip(given.ids, given.images, got.images, strict=True):
            compared += 1
            assert torch.equal(after, 255 - before if flags[kind, name] else before)
    assert compared == len(flags)


def test_rows_without_a_detector_or_cloaks_say_why_they_have_no_rate(run):
    undefended, uncloaked = row_of(run, "tiny-noise", "none"), row_of(run, "none")
    assert pd.isna(undefended["detector_tpr"])
    assert undefended["detector_reason"] == "the defence has no detector, or several"
    assert pd.isna(uncloaked["detector_tpr"])
    assert 0 <= uncloaked["detector_fpr"] <= 1
    assert uncloaked["detector_reason"] == "attack none makes no cloaks"


def test_it_is_a_defence_by_itself_too(evaluate):
    alone = evaluate(
        **{
            **RUN,
            "attacks": ("tiny-noise",),
            "protocol": "tracker:folds=6",
            "defenses": ("detector:attacks=[tiny-noise],purifier=tiny-negative," + LEARNING,),
        }
    )
    before = evaluate(**RUN)
    name = next(one.defense for one in alone.folder.cells() if one.defense != "none")
    one, other = row_of(alone, "tiny-noise", name), row_of(before, "tiny-noise")
    same_columns = ["asr", "normal_accuracy", "detector_tpr", "detector_fpr", "attack_seen_by_defense"]
    assert one[same_columns].tolist() == other[same_columns].tolist()


def test_the_class_is_found_by_its_name():
    assert isinstance(factory.defense("detector"), CloakDetector)
