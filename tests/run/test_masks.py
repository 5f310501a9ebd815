"""Masks of identities in a run: learnt once from the gallery, laid on gallery and probes, taken off."""

import numpy as np
import pandas as pd
import pytest
import torch

from bench.contracts import Context, Faces, View
from bench.errors import MethodError, UsageError
from bench.faces.pixels import decode_pixels, to_bytes_range
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.run import calls
from bench.run.pipeline import Pipeline
from bench.run.stages.apply_masks import ApplyMasks
from bench.run.stages.cloak import Cloak

POINT = ("tiny-mask", "tiny-a", 0)


def pixels(prepared, nodes):
    """Return image id → 3×H×W uint8 over all shards."""
    shards = [decode_pixels(prepared.store.read(node.stage, node.address)) for node in nodes]
    return {name: image for shard in shards for name, image in zip(shard.ids, shard.images, strict=True)}


def faces_of(prepared, ids, identity):
    images = prepared.run.dataset.crops(list(ids)).float() / 255
    return Faces(images, tuple(ids), (identity,) * len(ids))


@pytest.fixture(scope="module")
def masked(evaluate):
    return evaluate(attacks=("tiny-mask",), defenses=("jpeg:quality=20",), protocol="tracker:probes=cloaked")


def expected(prepared, photos):
    """Return what the attack makes of photos of each identity, its mask learnt from the gallery, with plain loops."""
    attack, ctx, found = factory.attack("tiny-mask"), Context(seed=0), {}
    for identity, ids in photos.items():
        mask = attack.learn(faces_of(prepared, prepared.run.split.gallery[identity], identity), ctx)
        images = attack.apply(faces_of(prepared, ids, identity), mask, ctx)
        found |= dict(zip(ids, to_bytes_range(images), strict=True))
    return found


@pytest.mark.parametrize("role", ["gallery", "probes"])
def test_gallery_and_probes_wear_the_mask_that_the_gallery_taught(masked, role):
    found = pixels(masked, masked.pipeline.cloaks(*POINT, role))
    wanted = expected(masked, getattr(masked.run.split, role))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_mask_is_learnt_once_for_both(masked):
    assert len(masked.pipeline.masks(*POINT)) == len(masked.run.split.gallery)
    stored = sorted((masked.store.folder / "mask").rglob("*.json"))
    made = {node.address for node in masked.pipeline.masks(*POINT).values()}
    assert made <= {path.stem for path in stored}
    used = [
        mask.address
        for role in ("gallery", "probes")
        for shard in masked.pipeline.cloaks(*POINT, role)
        for mask in shard.masks
    ]
    assert set(used) == made


def test_cloak_gives_the_same_bytes_as_the_stages(masked):
    (shard, *_) = masked.pipeline.cloaks(*POINT, "gallery")
    assert isinstance(shard, ApplyMasks)
    whole = Cloak(shard.label, shard.environment, shard.attack, shard.photos, shard.chosen)
    payloads = {shard.photos.address: masked.store.read("faces", shard.photos.address)}
    made = decode_pixels(whole.run(payloads, masked.pipeline.machine, lambda _n: None))
    there = decode_pixels(masked.store.read("cloak", shard.address))
    assert made.ids == there.ids
    assert torch.equal(made.images, there.images)


def test_a_mask_is_learnt_from_the_photos_that_are_cloaked_alone(evaluate):
    half = evaluate(attacks=("tiny-mask",), protocol="tracker:cloaked_share=0.5")
    for identity, mask in half.pipeline.masks(*POINT).items():
        assert mask.chosen == half.run.split.cloaked[identity]
        assert 0 < len(mask.chosen) < len(half.run.split.gallery[identity])


@pytest.mark.parametrize("protocol", ["scenarios", "growing"])
def test_protocols_that_cloak_queries_take_masks(evaluate, protocol):
    table = build(evaluate(attacks=("tiny-mask",), protocol=protocol).folder)
    assert set(table.status) == {"ok"}


def test_a_mask_takes_itself_off_and_no_other_does(evaluate):
    run = evaluate(
        dataset="tiny:training_identities=46", attacks=("tiny-mask",), protocol="erasure:far=0.1,impostors=46"
    )
    originals = pixels(run, run.pipeline.natural("gallery"))
    posted = pixels(run, run.pipeline.cloaks(*POINT, "gallery"))
    away = {}
    for key in ("right", "wrong", "none"):
        view = View(photos="gallery", state="erased", key=key)
        erased = pixels(run, run.pipeline.edits(*POINT, view))
        assert erased.keys() == posted.keys()
        away[key] = np.mean([(erased[n].double() - originals[n].double()).abs().mean() for n in posted])
        if key == "none":
            assert all(torch.equal(erased[name], posted[name]) for name in posted)
    assert away["right"] < 1 < away["none"] < away["wrong"]
    table = build(run.folder).set_index(["attack", "condition"])
    restored = table.loc["tiny-mask"]
    right, wrong = (
        restored[restored.defense == "none"].loc[f"{key} key", "restored_psnr"] for key in ("right", "wrong")
    )
    assert right > wrong


def test_the_wrong_mask_is_another_identitys(evaluate):
    run = evaluate(
        dataset="tiny:training_identities=46", attacks=("tiny-mask",), protocol="erasure:far=0.1,impostors=46"
    )
    (shard, *_) = run.pipeline.erased(*POINT, "gallery", "wrong")
    assert all(mask.identity != tried_on for tried_on, mask in shard.masks.items())


def test_one_identity_has_no_wrong_mask(evaluate, monkeypatch):
    run = evaluate(
        dataset="tiny:training_identities=46", attacks=("tiny-mask",), protocol="erasure:far=0.1,impostors=46"
    )
    one = dict(list(run.pipeline.masks(*POINT).items())[:1])
    monkeypatch.setattr(run.pipeline, "masks", lambda *_point: one)
    with pytest.raises(UsageError, match="only one identity"):
        run.pipeline._tried(*POINT, "wrong")


def test_the_table_has_a_row_for_it(masked):
    table = build(masked.folder)
    row = table[(table.attack == "tiny-mask") & (table.defense == "none")]
    assert len(row) == 1
    assert pd.notna(row.cloak_psnr.iloc[0])


def test_a_mask_of_nothing_is_the_attacks_fault(monkeypatch, tiny):
    del tiny
    attack = factory.attack("tiny-mask")
    monkeypatch.setattr(type(attack), "learn", lambda _self, _faces, _ctx: {})
    faces = Faces(torch.zeros(1, 3, 112, 112), ("a",), ("x",))
    with pytest.raises(MethodError, match="attack 'tiny-mask' learnt a mask without a tensor"):
        calls.learn(attack, faces, Context())


def test_a_mask_may_imitate_somebody(evaluate, monkeypatch):
    run = evaluate(attacks=("tiny-mask",))
    attack = type(run.run.attacks["tiny-mask"])
    wants = attack.threat.model_copy(update={"needs_targets": True})
    monkeypatch.setattr(attack, "threat", wants)
    (first, *_) = Pipeline(run.run, run.pipeline.machine).masks(*POINT).values()
    assert first.targets is not None
    assert first.targets in first.inputs
    seen = []
    monkeypatch.setattr(
        attack,
        "learn",
        lambda _self, faces, ctx: seen.append(ctx.targets) or {"noise": torch.zeros(3, 14, 14)},
    )
    payloads = {
        first.photos.address: run.store.read("faces", first.photos.address),
        first.targets.address: first.targets.run({}, run.pipeline.machine, lambda _n: None),
    }
    first.run(payloads, run.pipeline.machine, lambda _n: None)
    assert len(seen[0]) > 0
