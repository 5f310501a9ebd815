"""A gallery of several views of each photo: what is kept, what is shared, and who is recognised, by plain loops."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from bench.authoring.checks import run_checks
from bench.contracts import Binding
from bench.errors import UsageError
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.run import decisions, embeddings, resolve
from bench.run.planning import Options, prepare
from bench.run.spec import Cell, make_spec

VIEWS = "views:members=[none & jpeg:quality=20 & tiny-negative]"
MEMBERS = ("none", "jpeg:quality=20", "tiny-negative")
HARDENED = f"{VIEWS} + tiny-centring"


# -- how it is written -------------------------------------------------------------------------------------


def test_it_is_made_of_the_purifiers_it_names():
    made = factory.defense("views:members=[none & jpeg:quality=75 & gaussian:sigma=2.0 + median]")
    assert factory.canonical(made) == "views:members=[none & jpeg & gaussian:sigma=2 + median]"
    assert [factory.canonical(one) for one in made.purifiers] == ["none", "jpeg", "gaussian:sigma=2 + median"]
    assert made.purifiers == made.parts()
    assert made.hardening is None
    assert factory.canonical(factory.defense("views:members=[none & gaussian:sigma=2]")) == "views"


@pytest.mark.parametrize(
    ("text", "deterministic", "differentiable"),
    [
        ("views:members=[none & gaussian]", True, True),
        ("views:members=[none & jpeg]", True, False),
        ("views:members=[none & noise]", False, True),
    ],
)
def test_it_declares_what_its_views_do(text, deterministic, differentiable):
    made = factory.defense(text)
    assert (made.deterministic, made.differentiable) == (deterministic, differentiable)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("views:members=jpeg", "members=[jpeg] is less than two views of a photo; name two purifiers"),
        ("views:members=", "members=[] is less than two views"),
        ("views:members=[jpeg & none & jpeg:quality=75]", "has 'jpeg' 2 times; leave the others out"),
        ("views:members=[jpeg & tiny-centring]", "'tiny-centring' in 'views:members=[jpeg & tiny-centring]' changes "),
        ("views:members=[jpeg & views]", "'views' in 'views:members=[jpeg & views]' keeps 2 views of each photo"),
        ("ensemble:defenses=[jpeg & views]", "keeps 2 views of each photo; only purifiers can be put together"),
        ("jpeg + views", "'views' in 'jpeg + views' keeps 2 views of each photo; only purifiers can be put together"),
        ("jpeg + views + tiny-centring", "'views' in 'jpeg + views' keeps 2 views of each photo"),
        ("views:members=[jpeg & medain]", "unknown defense 'medain'. Did you mean 'median'"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_views_is_refused_with_the_fix(tiny, text, message):
    with pytest.raises(UsageError) as caught:
        factory.defense(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", [VIEWS, HARDENED, "jpeg + tiny-centring"])
def test_it_keeps_the_contract(tiny, text):
    assert [finding for finding in run_checks(factory.defense(text)) if not finding.passed] == []


def test_attacks_that_trained_a_view_trained_the_whole(tiny):
    made = factory.defense("views:members=[none & tiny-trained:attacks=pgd & jpeg]")
    binding = Binding("tiny", "synthetic", (), "tiny-a")
    parts = (binding, binding, binding)
    assert made.trained_on(Binding("tiny", "synthetic", (), "tiny-a", parts)) == ("pgd",)


# -- what a run keeps of each photo ------------------------------------------------------------------------


def planned(tmp_path, **fields):
    requested = {"dataset": "tiny", "backbones": ("tiny-a",), "identities": 4, **fields}
    return prepare(make_spec(requested), Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))


@pytest.fixture(scope="module")
def together(evaluate):
    return evaluate(
        attacks=("tiny-noise",),
        defenses=(*MEMBERS, VIEWS, "tiny-centring", HARDENED),
        heads=("nn", "centroid", "linear", "finetune"),
        protocol="tracker:finetune_epochs=1,folds=3",
    )


def stages(prepared):
    return Counter(node.stage for node in prepared.missing)


def test_over_known_purifiers_only_decisions_are_computed(evaluate, tmp_path):
    known = {"attacks": ("tiny-noise",), "identities": 4}
    evaluate(store=tmp_path / "store", defenses=(*MEMBERS[1:], "tiny-centring"), **known)
    plan = planned(tmp_path, attacks=("tiny-noise",), defenses=(VIEWS,))
    assert stages(plan) == {"decide": 2}
    # The hardening is trained already, so what is left is to embed the views by it; the photos as they are have been.
    plan = planned(tmp_path, attacks=("tiny-noise",), defenses=("jpeg:quality=20 + tiny-centring", HARDENED))
    assert set(stages(plan)) == {"embed", "decide"}
    embedded = {(node.tracker.label, node.pictures.label) for node in plan.missing if node.stage == "embed"}
    assert embedded == {
        ("tiny-a hardened by tiny-centring", "jpeg:quality=20"),
        ("tiny-a hardened by tiny-centring", "tiny-negative"),
    }


def vectors(prepared, defense, sources):
    """Return image id → embedding by the tracker of a cell of `defense`, of what its purifiers make of shards."""
    pipeline = prepared.pipeline
    found: dict[str, list[np.ndarray]] = {}
    for view in pipeline.defended(defense, "tiny-a", 0, sources):
        for node in pipeline.embedded(defense, "tiny-a", 0, view):
            shard = embeddings.decode_embedded(prepared.store.read(node.stage, node.address))
            for name, row in zip(shard.ids, shard.vectors, strict=True):
                found.setdefault(name, []).append(row.astype(np.float64))
    return found


def gallery_of(prepared, attack, defense):
    """Return (natural, protected): image id → embeddings of all its views."""
    natural = vectors(prepared, defense, prepared.pipeline.natural("gallery"))
    if attack == "none":
        return natural, natural
    cloaks = prepared.pipeline.cloaks(attack, "tiny-a", 0, "gallery")
    return natural, natural | vectors(prepared, defense, cloaks)


def probes_of(prepared, defense):
    nodes = prepared.pipeline.embedded(defense, "tiny-a", 0, prepared.pipeline.natural("probes"))
    shards = [embeddings.decode_embedded(prepared.store.read(n.stage, n.address)) for n in nodes]
    return {name: row.astype(np.float64) for s in shards for name, row in zip(s.ids, s.vectors, strict=True)}


def unit(vector):
    return vector / np.linalg.norm(vector)


def score(head, probe, rows):
    """Return a class's score by the definition: the nearest of all views, or the mean of all."""
    if head == "nn":
        return max(float(unit(probe) @ unit(row)) for row in rows)
    return float(unit(probe) @ unit(sum(unit(row) for row in rows)))


def decided(prepared, attack, defense, head):
    node = prepared.nodes[Cell(attack, defense, "tiny-a", head, 0)].decision
    return decisions.from_bytes(prepared.store.read(node.stage, node.address)).rows


@pytest.mark.parametrize("head", ["nn", "centroid"])
@pytest.mark.parametrize("defense", [VIEWS, HARDENED])
@pytest.mark.parametrize("attack", ["none", "tiny-noise"])
def test_answers_are_those_of_plain_loops_over_all_views(together, attack, defense, head):
    split = together.run.split
    natural, protected = gallery_of(together, attack, defense)
    assert {len(rows) for rows in natural.values()} == {3}
    probes = probes_of(together, defense)
    rows = decided(together, attack, defense, head).set_index(["fold", "image"])
    assert len(rows) == split.folds * len(probes)
    for (fold, image), row in rows.iterrows():
        scores = {}
        for name, photos in split.gallery.items():
            seen = protected if split.fold[name] == fold else natural
            scores[name] = score(head, probes[image], [view for photo in photos for view in seen[photo]])
        assert row["score"] == pytest.approx(max(scores.values()), abs=1e-6)
        assert row["predicted"] == max(sorted(scores), key=scores.__getitem__)


def test_the_best_view_is_at_least_as_near_as_each_alone(together):
    key = ["fold", "image"]
    whole = decided(together, "none", VIEWS, "nn").set_index(key)["score"]
    # Of attack none, where no score depends on who is protected.
    for member in MEMBERS:
        alone = decided(together, "none", member, "nn").set_index(key)["score"]
        assert (whole >= alone.reindex(whole.index)).all()


@pytest.mark.parametrize("head", ["linear", "finetune"])
def test_heads_that_learn_get_every_view_as_a_photo_of_its_own(together, head, monkeypatch):
    from bench.protocols import finetuning, heads

    given = []
    for known in (heads.Linear, finetuning.FineTuned):
        fit = known.fit

        def seen(self, vectors, labels, n_classes, fit=fit):
            given.append((len(vectors), Counter(labels.tolist())))
            return fit(self, vectors, labels, n_classes)

        monkeypatch.setattr(known, "fit", seen)
    node = together.nodes[Cell("tiny-noise", VIEWS, "tiny-a", head, 0)].decision
    payloads = {each.address: together.store.read(each.stage, each.address) for each in node.inputs}
    made = node.run(payloads, together.machine, lambda _n: None)
    pd.testing.assert_frame_equal(
        decisions.from_bytes(made).rows, decided(together, "tiny-noise", VIEWS, head)
    )
    photos = {k: 3 * len(v) for k, v in enumerate(together.run.split.gallery.values())}
    assert given == [(sum(photos.values()), photos)] * together.run.split.folds


def test_the_oracle_keeps_natural_photos_once(evaluate):
    prepared = evaluate(
        attacks=("tiny-noise",), defenses=(VIEWS,), identities=4, protocol="tracker:defended=cloaked"
    )
    shown = prepared.nodes[Cell("tiny-noise", VIEWS, "tiny-a", "nn", 0)].decision.views
    assert {name: len(view.kept) for name, view in shown.items()} == {
        "gallery": 1, "cloaked gallery": 3, "probes": 1,
    }  # fmt: skip
    assert build(prepared.folder)["asr"].notna().all()


# -- measures ----------------------------------------------------------------------------------------------


def test_image_measures_are_means_over_the_views_that_change_photos(together):
    table = build(together.folder)
    nn = table[table["head"] == "nn"].set_index(["attack", "defense"])
    for attack in ("none", "tiny-noise"):
        alone = [nn.loc[(attack, name)] for name in MEMBERS[1:]]
        for defense in (VIEWS, HARDENED):
            row = nn.loc[(attack, defense)]
            for measure in ("psnr", "ssim", "linf"):
                mean = np.mean([one[f"purified_{measure}"] for one in alone])
                assert row[f"purified_{measure}"] == pytest.approx(mean)
            assert row["purified_reason"] == ""
    assert np.isnan(nn.loc[("none", "tiny-centring"), "purified_psnr"])


def test_a_purifier_before_a_hardening_is_measured_as_alone(evaluate):
    prepared = evaluate(
        attacks=("tiny-noise",), defenses=("tiny-negative", "tiny-negative + tiny-centring"), identities=4
    )
    table = build(prepared.folder).set_index(["attack", "defense"])
    columns = [name for name in table.columns if name.startswith("purified_")]
    assert columns
    for attack in ("none", "tiny-noise"):
        whole, alone = (
            table.loc[(attack, name), columns] for name in ("tiny-negative + tiny-centring", "tiny-negative")
        )
        pd.testing.assert_series_equal(whole, alone, check_names=False)


# -- which protocols ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("verification", "keeps 3 views of each gallery photo, and the protocol compares single photos. Use one of "),
        ("erasure", "the protocol compares single photos. Use one of the protocols identification, mixed, posted, "),
        ("tracker:probes=purified", "would make 3 images of each probe, and a probe is one. Keep it away from probes"),
        ("scenarios:probes_defended=true", "would make 3 images of each probe"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("defense", [VIEWS, HARDENED])
def test_protocols_that_cannot_have_several_views_say_so_before_any_work(tiny, protocol, message, defense):
    requested = {"dataset": "tiny", "backbones": ("tiny-a",), "defenses": (defense,), "protocol": protocol}
    with pytest.raises(UsageError) as caught:
        resolve.resolve(make_spec(requested))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "protocol",
    [
        "scenarios",
        "robustness:channels=[none|jpeg + gaussian]",
        "identification:distractors=2,fpir=none,ranks=1|2",
        "tracker:probes=cloaked",
    ],
)
def test_protocols_of_galleries_take_several_views(evaluate, protocol):
    prepared = evaluate(attacks=("tiny-noise",), defenses=(VIEWS, HARDENED), protocol=protocol)
    table = build(prepared.folder)
    assert set(table["status"]) == {"ok"}
    assert table["asr"].notna().all()
    assert {VIEWS, HARDENED} < set(table["defense"])


def test_a_view_that_draws_like_the_channel_is_refused(tiny):
    text = "views:members=[none & noise]"
    requested = {
        "dataset": "tiny", "backbones": ("tiny-a",), "defenses": (text,),
        "protocol": "robustness:channels=[none|noise:sigma=4]",
    }  # fmt: skip
    with pytest.raises(UsageError, match="would draw the same random numbers for a photo"):
        resolve.resolve(make_spec(requested))


@pytest.mark.slow
def test_the_command_plans_and_runs_it(command, tmp_path):
    options = ("--dataset", "tiny", "--attack", "tiny-noise", "--backbone", "tiny-a", "--identities", "4")
    where = ("--threads", "1", "--store", tmp_path / "store", "--out", tmp_path / "run")
    done = command("run", *options, "--defense", HARDENED, *where, "--csv", tmp_path / "table.csv")
    assert done.returncode == 0, done.stderr
    assert HARDENED in (tmp_path / "table.csv").read_text()
    plan = command("plan", *options, "--defense", HARDENED, "--threads", "1", "--store", tmp_path / "store")
    assert plan.returncode == 0, plan.stderr
    assert "4 cells (3 of them added as references), 4 cached" in plan.stdout
    refused = command("plan", *options, "--defense", VIEWS, "--protocol", "verification:far=0.9")
    assert refused.returncode == 2
    assert "the protocol compares single photos" in refused.stderr
