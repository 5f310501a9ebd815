"""What each stage hands to the next, seen in the artefacts of real runs with tiny methods."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from bench.faces import pixels as faces_pixels
from bench.leaderboard.table import build
from bench.plugins import factory, registry
from bench.quality import per_image
from bench.run import embeddings, resolve
from bench.run import photo_sets as dealing
from bench.run.photo_sets import SHARD_IMAGES
from bench.run.planning import Options, prepare
from bench.run.runner import execute
from bench.run.spec import make_spec


def payloads(prepared, nodes):
    return [prepared.store.read(node.stage, node.address) for node in nodes]


def pixels(prepared, nodes):
    """Return image id → 3×H×W uint8 over all shards."""
    shards = [faces_pixels.decode_pixels(payload) for payload in payloads(prepared, nodes)]
    return {
        name: image.numpy() for shard in shards for name, image in zip(shard.ids, shard.images, strict=True)
    }


def vectors(prepared, nodes):
    shards = [embeddings.decode_embedded(payload) for payload in payloads(prepared, nodes)]
    return {name: row for shard in shards for name, row in zip(shard.ids, shard.vectors, strict=True)}


def cloaks(prepared, attack, role="gallery"):
    return pixels(prepared, prepared.pipeline.cloaks(attack, "tiny-a", 0, role))


def crops(prepared, ids):
    ids = list(ids)
    return dict(zip(ids, prepared.run.dataset.crops(ids).numpy(), strict=True))


def rows(prepared):
    return build(prepared.folder).set_index(["attack", "defense"])


def training(prepared):
    return {
        photo
        for identity in prepared.run.dataset.identities()
        if identity.role == "training"
        for photo in identity.photos
    }


@pytest.fixture(scope="module")
def together(evaluate):
    """One run with every well-behaved attack."""
    attacks = ("tiny-identity-mean", "tiny-learning", "tiny-imitating", "tiny-sometimes", "tiny-noise")
    return evaluate(attacks=attacks, defenses=("tiny-centring", "tiny-negative"))


# --- attacks ----------------------------------------------------------------------------------------------


def test_natural_faces_are_the_datasets_crops(together):
    pipeline = together.pipeline
    for role, photos in (("gallery", together.run.split.gallery), ("probes", together.run.split.probes)):
        found = pixels(together, pipeline.natural(role))
        expected = crops(together, [image for images in photos.values() for image in images])
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_an_attack_on_identities_gets_all_photos_of_one_person(together):
    made = cloaks(together, "tiny-identity-mean")
    for photos in together.run.split.gallery.values():
        originals = np.stack(list(crops(together, photos).values())).astype(np.float32) / 255
        expected = np.rint(originals.mean(0) * 255)
        for name in photos:
            assert np.abs(made[name] - expected).max() <= 1


def test_an_attack_learns_from_training_people_only(together):
    (fitted,) = (
        node
        for node in together.pipeline.cloaks("tiny-learning", "tiny-a", 0, "gallery")[0].inputs
        if node.stage == "fit"
    )
    source = faces_pixels.decode_pixels(together.store.read("faces", fitted.inputs[0].address))
    assert set(source.ids) == training(together)
    mean = load(together.store.read("fit", fitted.address))["mean"].numpy()
    assert mean == pytest.approx(source.images.numpy().astype(np.float64).mean(0) / 255, abs=1e-5)
    made = cloaks(together, "tiny-learning")
    for name, original in crops(together, made).items():
        assert np.abs(made[name] - (original / 255 + mean) / 2 * 255).max() <= 0.51


def test_targets_are_other_peoples_faces(together):
    made = cloaks(together, "tiny-imitating")
    same = np.stack(list(made.values()))
    assert (same == same[0]).all()
    targets = crops(together, sorted(training(together)))
    assert any(np.array_equal(same[0], image) for image in targets.values())


def test_photos_an_attack_leaves_out_stay_as_they_are(together):
    made = cloaks(together, "tiny-sometimes")
    gallery = [name for photos in together.run.split.gallery.values() for name in photos]
    assert set(made) == {name for name in gallery if int(name[-2:]) % 2 == 0}
    for name, original in crops(together, made).items():
        assert np.array_equal(made[name], original[:, ::-1])
    row = rows(together).loc[("tiny-sometimes", "none")]
    assert row["cloak_unchanged"] == pytest.approx(1 - len(made) / len(gallery))


def test_cloaks_differ_between_photos_and_seeds_and_repeat(evaluate, together):
    other = evaluate(attacks=("tiny-noise",), seeds=(0, 1))
    first, second = (
        pixels(other, other.pipeline.cloaks("tiny-noise", "tiny-a", seed, "gallery")) for seed in (0, 1)
    )
    assert all(np.array_equal(first[name], image) for name, image in cloaks(together, "tiny-noise").items())
    assert not any(np.array_equal(first[name], second[name]) for name in first)
    noise = [first[name].astype(int) - original for name, original in crops(other, first).items()]
    assert not np.array_equal(noise[0], noise[1])


def test_image_measures_are_of_the_cloaks(together):
    made = cloaks(together, "tiny-noise")
    originals = crops(together, made)
    parts = payloads(together, together.pipeline.cloak_measures("tiny-noise", "tiny-a", 0))
    table = pd.concat(per_image.from_bytes(part) for part in parts).set_index("image")
    for name, image in made.items():
        mse = np.square(image.astype(float) - originals[name]).mean()
        assert table.loc[name, "psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)
        assert table.loc[name, "linf"] == pytest.approx(
            np.abs(image.astype(int) - originals[name]).max(), abs=1e-3
        )
    assert rows(together).loc[("tiny-noise", "none"), "cloak_psnr"] == pytest.approx(table["psnr"].mean())


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("range", "returned values in ["),
        ("nan", "returned values in [nan"),
        ("shape", "returned torch.float32 (3, 100, 112), not torch.float32 (3, 112, 112)"),
        ("dtype", "returned torch.float64"),
        ("stranger", "edited 'somebody/00', which it was not given"),
        ("mapping", "returned list, not a mapping"),
    ],
)
def test_an_attack_that_breaks_its_contract_is_a_failed_row(evaluate, rule, reason):
    table = rows(evaluate(attacks=(f"tiny-breaking:rule={rule}",)))
    assert table.loc[("none", "none"), "status"] == "ok"
    (failed,) = table.drop(("none", "none")).to_dict("records")
    assert failed["status"] == "failed"
    assert "attack 'tiny-breaking'" in failed["reason"]
    assert reason in failed["reason"]


# --- defences ---------------------------------------------------------------------------------------------


def test_a_purifier_gets_cloaks_and_natural_photos_alike(together):
    pipeline = together.pipeline
    for sources in (pipeline.natural("gallery"), pipeline.cloaks("tiny-noise", "tiny-a", 0, "gallery")):
        before = pixels(together, sources)
        (purified,) = pipeline.defended("tiny-negative", "tiny-a", 0, sources)
        after = pixels(together, purified)
        assert before.keys() == after.keys()
        assert all(np.array_equal(after[name], 255 - image) for name, image in before.items())


def test_a_hardening_trains_on_training_people_and_answers_as_the_backbone(together):
    pipeline = together.pipeline
    sources = pipeline.natural("gallery")
    hardened = pipeline.embedded("tiny-centring", "tiny-a", 0, sources)
    plain = vectors(together, pipeline.embedded("none", "tiny-a", 0, sources))
    moved = vectors(together, hardened)
    backbone = pipeline.backbone("tiny-a").on(together.machine)
    faces = together.run.dataset.crops(sorted(training(together)))
    centre = backbone.embed_batch(faces.float() / 255).mean(0).numpy()
    assert moved.keys() == plain.keys()
    for name, vector in moved.items():
        assert vector == pytest.approx(plain[name] - centre, abs=1e-3)


def test_a_defence_that_changes_no_image_has_no_image_measures(together):
    row = rows(together).loc[("tiny-noise", "tiny-centring")]
    assert np.isnan(row["purified_psnr"])
    assert row["purified_reason"] == "the defence does not change images"


# --- the protocol's options -------------------------------------------------------------------------------


def test_cloaked_share_cloaks_that_share_of_each_gallery(evaluate):
    prepared = evaluate(attacks=("tiny-imitating",), protocol="tracker:cloaked_share=0.5")
    made = cloaks(prepared, "tiny-imitating")
    for identity, photos in prepared.run.split.gallery.items():
        assert len(photos) == 4
        assert set(prepared.run.split.cloaked[identity]) == set(photos[:2])
        assert sum(name in made for name in photos) == 2
    whole = rows(evaluate(attacks=("tiny-imitating",))).loc[("tiny-imitating", "none"), "asr"]
    assert whole == 1  # the whole gallery is someone else's face
    assert rows(prepared).loc[("tiny-imitating", "none"), "asr"] < 1  # two true photos are left


def test_cloaked_probes_are_cloaked_while_their_person_is_protected(evaluate):
    clean = rows(evaluate(attacks=("tiny-imitating",)))
    cloaked = rows(evaluate(attacks=("tiny-imitating",), protocol="tracker:probes=cloaked"))
    # Everyone protected posts and shows the same one face: the tracker knows it at once.
    assert clean.loc[("tiny-imitating", "none"), "asr"] == 1
    assert cloaked.loc[("tiny-imitating", "none"), "asr"] == 0
    accuracy = [table.loc[("tiny-imitating", "none"), "normal_accuracy"] for table in (clean, cloaked)]
    assert accuracy[0] == accuracy[1]


def test_purified_probes_go_through_the_defence(evaluate):
    clean = rows(evaluate(defenses=("tiny-negative",)))
    purified = rows(evaluate(defenses=("tiny-negative",), protocol="tracker:probes=purified"))
    # A negative turns embeddings of tiny-a round: with both sides turned nothing changes.
    columns = ["asr", "normal_accuracy"]
    assert (
        purified.loc[("none", "tiny-negative"), columns].to_list()
        == purified.loc[("none", "none"), columns].to_list()
    )
    assert clean.loc[("none", "tiny-negative"), "asr"] > clean.loc[("none", "none"), "asr"]


# --- shards, batches, keys --------------------------------------------------------------------------------


def planned(tmp_path, **fields):
    options = fields.pop("options", Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))
    return prepare(make_spec({"dataset": "tiny", "backbones": ("tiny-a",), **fields}), options)


def test_shards_hold_whole_people_and_the_photos_once(tiny, tmp_path):
    prepared = planned(tmp_path, dataset="tiny:identities=41,photos=8")
    nodes = prepared.pipeline.natural("gallery")
    assert len(nodes) == 3
    identities = [set(node.identities) for node in nodes]
    assert sum(map(len, identities)) == len(set.union(*identities)) == 41
    ids = [name for node in nodes for name in node.ids]
    assert sorted(ids) == sorted(name for photos in prepared.run.split.gallery.values() for name in photos)
    assert all(SHARD_IMAGES - 8 < node.images <= SHARD_IMAGES for node in nodes[:-1])


@given(st.lists(st.integers(1, 130), min_size=1, max_size=40))
def test_few_places_of_a_batch_are_empty(counts):
    photos = {f"i{k:02d}": tuple(f"{k}/{n}" for n in range(count)) for k, count in enumerate(counts)}
    dealt = list(dealing.shards(photos))
    assert [name for shard in dealt for name, _ in shard] == [
        name for i in sorted(photos) for name in photos[i]
    ]
    assert all(len(shard) <= SHARD_IMAGES or len({who for _, who in shard}) == 1 for shard in dealt)
    # No two neighbours would have been one: only what does not fit begins another.
    for one, after in pairwise(dealt):
        assert len(one) + len(photos[after[0][1]]) > SHARD_IMAGES


@pytest.mark.parametrize("attack", ["pgd:eps=16,steps=2", "fawkes:steps=3"])
def test_batch_size_changes_no_byte_of_a_cloak(evaluate, tmp_path, attack):
    made = {}
    for size in (1, 64):
        prepared = evaluate(attacks=(attack,), batch_size=size, store=tmp_path / str(size))
        made[size] = cloaks(prepared, attack)
        assert prepared.run.helpers(prepared.run.attacks[attack], "tiny-a") == ("tiny-b", "tiny-c")
    assert len(made[1]) == 24
    originals = crops(prepared, made[1])
    assert any(not np.array_equal(made[1][name], originals[name]) for name in originals)
    assert all(np.array_equal(made[1][name], made[64][name]) for name in made[1])


def test_how_a_run_is_executed_is_no_part_of_its_name(tiny, tmp_path):
    one = planned(tmp_path, attacks=("tiny-noise",))
    other = planned(
        tmp_path,
        attacks=("tiny-noise",),
        options=Options(
            threads=2, store=tmp_path / "other", out=tmp_path / "out", batch_size=3, command="bench"
        ),
    )
    assert one.run.digest == other.run.digest
    assert planned(tmp_path, attacks=("tiny-noise",), split_seed=1).run.digest != one.run.digest


def test_the_name_of_a_run_says_what_was_asked_in_whatever_order():
    def name(**requested: object) -> str:
        fields = {"attacks": ("pgd", "none"), "defenses": ("jpeg",), "backbones": ("synthetic-iresnet",)}
        return resolve.resolve(make_spec({**fields, **requested})).digest

    assert len(name()) == 12
    assert int(name(), 16) >= 0
    assert name(attacks=("none", "pgd:eps=8")) == name()
    others = [
        name(attacks=("pgd",)),
        name(defenses=("median",)),
        name(seeds=(1,)),
        name(split_seed=1),
        name(identities=5),
        name(heads=("linear",)),
        name(dataset="synthetic:photos=6"),
        name(protocol="tracker:folds=2"),
    ]
    assert len({name(), *others}) == len(others) + 1


def test_batch_size_is_no_part_of_a_key_and_threads_are(tiny, tmp_path):
    def addresses(**how):
        options = Options(store=tmp_path / "store", out=tmp_path / "run", **how)
        return {node.address for node in planned(tmp_path, attacks=("tiny-noise",), options=options).missing}

    assert addresses(threads=1) == addresses(threads=1, batch_size=3)
    assert not addresses(threads=1) & addresses(threads=2)


def test_seeds_and_parameters_decide_cloaks_and_nothing_upstream(tiny, tmp_path):
    def addresses(stage, **fields):
        return {node.address for node in planned(tmp_path, **fields).missing if node.stage == stage}

    plain = {"attacks": ("pgd:steps=2",)}
    for changed in (
        {"attacks": ("pgd:steps=3",)},
        {**plain, "seeds": (1,)},
        {**plain, "backbones": ("tiny-b",)},
    ):
        assert not addresses("cloak", **plain) & addresses("cloak", **changed)
        assert addresses("faces", **plain) == addresses("faces", **changed)
    assert addresses("cloak", **plain) == addresses("cloak", **plain, heads=("linear",), defenses=("jpeg",))


def test_same_text_same_cell(tiny):
    run = resolve.resolve(
        make_spec(
            {
                "dataset": "tiny",
                "attacks": ("pgd:eps=8", "pgd", "none"),
                "heads": ("nn", "nn"),
                "backbones": ("tiny-a",),
            }
        )
    )
    assert run.spec.attacks == ("pgd", "none")
    assert len(run.cells) == 2
    assert isinstance(run.attacks["pgd"], registry.ATTACKS.load("pgd"))


def test_the_pools_first_group_are_the_trackers_by_default(tiny):
    run = resolve.resolve(make_spec({"dataset": "tiny"}))
    assert run.spec.backbones == run.pool.groups[0] == ("tiny-a",)


def test_the_device_and_threads_are_taken(tiny, tmp_path):
    prepared = planned(tmp_path, options=Options(threads=2, device="cpu", store=tmp_path / "store"))
    assert torch.get_num_threads() == 2
    assert (prepared.machine.threads, str(prepared.machine.device)) == (2, "cpu")


# --- parts of a shard -------------------------------------------------------------------------------------

DEAR = ("tiny-noise", "tiny-identity-mean", "fawkes:steps=2", "pgd:steps=2")


@pytest.fixture
def dear(monkeypatch):
    """Have the attacks declare that an image takes ten seconds."""

    def declare():
        for name in DEAR:
            monkeypatch.setattr(type(factory.attack(name)), "core_seconds", 10.0)

    return declare


def test_a_dear_attack_works_in_parts_that_make_the_same_artefact(evaluate, dear, tmp_path):
    whole = evaluate(attacks=DEAR, defenses=("tiny-negative",), store=tmp_path / "whole")
    dear()
    cut = evaluate(attacks=DEAR, defenses=("tiny-negative",), store=tmp_path / "cut")
    for attack in DEAR:
        (one,) = whole.pipeline.cloaks(attack, "tiny-a", 0, "gallery")
        (other,) = cut.pipeline.cloaks(attack, "tiny-a", 0, "gallery")
        assert not hasattr(one, "parts")
        assert [len(part.chosen) for part in other.parts] == [8, 8, 8]
        assert one.address == other.address
        assert payloads(whole, [one]) == payloads(cut, [other])
    assert {node.address for node in whole.artefacts} < {node.address for node in cut.artefacts}
    counted = [sum(group.images for group in run.groups() if group.stage == "cloak") for run in (whole, cut)]
    assert counted == [24 * len(DEAR)] * 2
    timed = pd.read_csv(cut.folder.path / "timings.csv").query("stage == 'cloak'")
    assert list(timed["images"]) == [24] * len(DEAR)


def test_an_interruption_costs_a_part(tiny, dear, tmp_path):
    dear()
    options = Options(threads=1, store=tmp_path / "store", out=tmp_path / "run")
    fields = {"dataset": "tiny", "attacks": ("tiny-noise",), "backbones": ("tiny-a",)}
    left = 9

    def interrupted(node, count):
        nonlocal left
        left -= count if node.stage == "cloak" else 0
        if left <= 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepare(make_spec(fields), options), interrupted)
    again = prepare(make_spec(fields), options)
    (group,) = (group for group in again.groups() if group.stage == "cloak")
    assert (group.images, group.missing) == (16, 3)  # two parts and the whole
    execute(again)
    assert prepare(make_spec(fields), options).missing == []


def test_a_shard_that_is_there_whole_needs_no_parts(evaluate, dear, tmp_path):
    evaluate(attacks=("tiny-noise",), store=tmp_path)
    dear()
    assert evaluate(attacks=("tiny-noise",), store=tmp_path).missing == []


def test_before_anything_was_timed_a_plan_tells_what_methods_declare(tiny, tmp_path):
    options = Options(threads=1, store=tmp_path / "store", out=tmp_path / "run")
    fields = {"dataset": "tiny", "defenses": ("jpeg",), "backbones": ("tiny-a",)}
    groups = {
        steps: prepare(make_spec({**fields, "attacks": (f"fawkes:steps={steps}",)}), options).groups()
        for steps in (10, 100)
    }
    assert all(group.seconds > 0 and not group.timed for found in groups.values() for group in found)
    few, many = (
        next(group.seconds for group in found if group.stage == "cloak") for found in groups.values()
    )
    assert many == pytest.approx(10 * few)
