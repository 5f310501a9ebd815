import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks._input_diversity import draw_diversity
from attacks._targets import target_centre
from attacks.erasablemask import attack as erasablemask
from attacks.erasablemask.attack import SHELF, ErasableMask, MaskCard, MaskQuality, target_looks
from attacks.erasablemask.meta_auxiliary import Aim
from attacks.erasablemask.networks import (
    Shape,
    change_of,
    drawn_networks,
    key_pattern,
    load_networks,
    save_networks,
    spread,
)
from attacks.erasablemask.refinement import DIVERSITY, Draws, Surrogates, drawn_meta_train, refined
from attacks.pgd import PGD
from bench.contracts import MICRO_BATCH, Binding, Context, Faces
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from bench.quality.metrics import linf, psnr, to_8_bits
from bench.run.photo_sets import shown_photos, target_identities

_path = Path(__file__).parents[2] / "plugins" / "tiny_methods.py"
_spec = importlib.util.spec_from_file_location("tiny_methods_of_masks", _path)
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

CPU = torch.device("cpu")
KEY = b"a secret of the owner"
CELL = Binding("tiny", "synthetic", ("tiny-a", "tiny-c"), "tiny-b")
LEARNT = 2
PLAIN = ErasableMask(ErasableMask.Params(refinement=0))
"""Masks as the generator makes them."""


def written(folder, name="mask.safetensors", *, lock=None, **facts):
    """Untrained networks with a loud mask in a file, and its card."""
    shape = Shape(condition=16 + 32, width=4, blocks=1, psnr=28, linf=40, refinement=2)
    generator, restorer = drawn_networks(shape, torch.Generator().manual_seed(3))
    with torch.no_grad():
        generator.net.out.weight.mul_(30)
        restorer.net.out.weight.mul_(3)
        if lock is not None:
            restorer.lock.copy_(torch.tensor(lock))
    path = folder / name
    save_networks(generator, restorer, path)
    quality = MaskQuality(
        identities=1, mask_psnr=28, restored_psnr=30, likeness_own=0, likeness_target=0, likeness_restored=1,
        opened_right=1, opened_wrong=0, opened_natural=0,
    )  # fmt: skip
    card = {
        "file": name, "sha256": sha256_of(path), "domain": "synthetic", "dataset": "tiny",
        "dataset_fingerprint": "f", "training_identities": "tiny/training", "surrogates": ("tiny-a", "tiny-c"),
        "primary": "tiny-a", "targets": learnt(), "psnr": 28.0, "linf": 42.0, "gradients": "meta-auxiliary",
        "curriculum": (0, 1, 2), "parameters": 5, "steps": 4, "batch": 2, "trainer": "erasablemask",
        "command": "bench train erasablemask --dataset tiny", "seed": 0, "wall_seconds": 1.0, "machine": "none",
        "quality": quality,
    }  # fmt: skip
    path.with_suffix(".json").write_text(MaskCard.model_validate(card | facts).model_dump_json())
    return path


def identities():
    return tiny.TinyFaces(tiny.TinyFaces.Params(training_identities=6, training_photos=4)).identities()


def learnt():
    return tuple(sorted(identity.id for identity in target_identities(identities(), 0)[:LEARNT]))


@pytest.fixture(scope="module")
def dataset():
    return tiny.TinyFaces(tiny.TinyFaces.Params(training_identities=6, training_photos=4))


@pytest.fixture(scope="module")
def surrogates():
    backbones = (tiny.TinyA(), tiny.TinyC())
    for backbone in backbones:
        backbone.load(CPU)
    return backbones


@pytest.fixture(scope="module")
def pool(dataset):
    """The pool as the pipeline makes it."""
    names = [
        (photo, who.id) for who in target_identities(dataset.identities(), 0) for photo in shown_photos(who)
    ]
    images = dataset.crops([photo for photo, _ in names]).float() / 255
    return Faces(images, tuple(photo for photo, _ in names), tuple(who for _, who in names))


@pytest.fixture(scope="module")
def faces(dataset):
    evaluated = [p for p in dataset.identities() if p.role == "evaluation"]
    names = [(photo, identity.id) for identity in evaluated for photo in identity.photos[:2]][
        : MICRO_BATCH + 3
    ]
    images = dataset.crops([photo for photo, _ in names]).float() / 255
    return Faces(images, tuple(photo for photo, _ in names), tuple(who for _, who in names))


@pytest.fixture
def weights(tmp_path):
    return written(tmp_path)


def context(weights, surrogates, pool, **changes):
    files = (weights, weights.with_suffix(".json"))
    fields = {"seed": 7, "backbones": surrogates, "targets": pool, "files": files, "key": KEY}
    return Context(**(fields | changes))


def stacked(edits, faces):
    return torch.stack([edits[name] for name in faces.ids])


# -- masking ---------------------------------------------------------------------------------------------------


def test_a_mask_is_what_the_generator_says_of_photo_target_and_key(weights, surrogates, pool, faces):
    ctx, attack = context(weights, surrogates, pool), PLAIN
    target_assignment = attack.assign_targets(faces, ctx)
    cloaks = stacked(attack.cloak(faces, ctx), faces)
    generator, _ = load_networks(weights, CPU)
    for row, name in enumerate(faces.ids):
        mine = [k for k, who in enumerate(pool.identities) if who == target_assignment[name]]
        photos = pool.images[mine]
        means = [torch.nn.functional.normalize(b.embed(photos), dim=1).mean(0) for b in surrogates]
        told = torch.cat([mean / mean.norm() for mean in means])
        squares = photos.mean(0).reshape(3, 28, 4, 28, 4).mean((2, 4))
        looks = torch.nn.functional.interpolate(squares[None], (112, 112), mode="bilinear")
        with torch.no_grad():
            change = generator(faces.images[row : row + 1], looks, told[None], key_pattern(KEY)[None])
        expected = (faces.images[row] + change[0]).clamp(0, 1)
        torch.testing.assert_close(cloaks[row], expected, atol=1e-4, rtol=0)


def test_masks_are_refined_on_their_own_photo_the_primary_surrogate_first(tmp_path, surrogates, pool, faces):
    weights = written(tmp_path, primary="tiny-c")
    ctx, some = context(weights, surrogates, pool), faces.subset(range(MICRO_BATCH))
    target_assignment = ErasableMask().assign_targets(some, ctx)
    generator, _ = load_networks(weights, CPU)
    rows = {
        who: [k for k, name in enumerate(pool.identities) if name == who]
        for who in target_assignment.values()
    }
    centres = [
        torch.stack([target_centre([b], pool, target_assignment[name])[0] for name in some.ids])
        for b in surrogates
    ]
    looks = torch.stack([target_looks(pool.images[rows[target_assignment[name]]]) for name in some.ids])
    pattern = key_pattern(KEY).expand(len(some), -1, -1, -1)
    with torch.no_grad():
        half = generator.mask(some.images, looks, torch.cat(centres, 1))
        own = [torch.nn.functional.normalize(b.embed(some.images), dim=1) for b in surrogates]
    draws = [
        Draws(
            [
                draw_diversity(
                    [ctx.generator(f"erasablemask/{step}/{place}", name) for name in some.ids], DIVERSITY
                )
                for place in range(2)
            ],
            drawn_meta_train(2, ctx.generator("erasablemask/split", str(step))),
        )
        for step in range(2)
    ]
    turned = [Aim(own[k], centres[k]) for k in (1, 0)]
    half = refined(half, some.images, pattern, Surrogates(surrogates[::-1]), turned, generator.shape, draws)
    expected = (some.images + change_of(half, pattern, generator.shape)).clamp(0, 1)
    cloaks = stacked(ErasableMask().cloak(some, ctx), some)
    torch.testing.assert_close(cloaks, expected, atol=1e-4, rtol=0)
    plain = stacked(PLAIN.cloak(some, ctx), some)
    assert float((cloaks - plain).abs().mean()) > 0.5 / 255
    requested = ErasableMask(ErasableMask.Params(refinement=2))
    assert torch.equal(stacked(requested.cloak(some, ctx), some), cloaks)
    ensemble = written(tmp_path, "e.safetensors", primary="tiny-c", gradients="ensemble")
    other = stacked(ErasableMask().cloak(some, context(ensemble, surrogates, pool)), some)
    assert float((cloaks - other).abs().mean()) > 0.05 / 255


def test_refining_fools_the_surrogates_more(weights, surrogates, pool, faces):
    ctx, some = context(weights, surrogates, pool), faces.subset(range(MICRO_BATCH))
    target_assignment = ErasableMask().assign_targets(some, ctx)

    def nearness(refinement):
        attack = ErasableMask(ErasableMask.Params(refinement=refinement))
        cloaks = stacked(attack.cloak(some, ctx), some)
        found = []
        for backbone in surrogates:
            centres = torch.stack(
                [target_centre([backbone], pool, target_assignment[name])[0] for name in some.ids]
            )
            found.append(torch.nn.functional.cosine_similarity(backbone.embed(cloaks), centres))
        return torch.stack(found).mean(0)

    gain = nearness(6) - nearness(0)
    assert (gain > 0).float().mean() > 0.8
    assert float(gain.mean()) > 0.02


@pytest.mark.parametrize("attack", [PLAIN, ErasableMask()], ids=["plain", "refined"])
def test_masks_stay_within_the_cards_bounds_and_use_them(weights, surrogates, pool, faces, attack):
    cloaks = stacked(attack.cloak(faces, context(weights, surrogates, pool)), faces)
    card = SHELF.read(weights)
    assert cloaks.dtype == torch.float32
    assert 0 <= float(cloaks.min()) <= float(cloaks.max()) <= 1
    posted = to_8_bits(cloaks)
    assert (linf(posted, faces.images) <= card.linf + 0.5).all()
    visible = psnr((cloaks - 2 / 255 * spread(key_pattern(KEY)[None])).clamp(0, 1), faces.images)
    assert (visible >= card.psnr - 0.05).all()
    assert float(visible.median()) < card.psnr + 1  # dark photos clip some of it


def test_masks_do_not_depend_on_batch_or_order_to_the_bit(weights, surrogates, pool, faces):
    ctx, attack = context(weights, surrogates, pool), ErasableMask()
    whole = attack.cloak(faces, ctx)
    assert list(whole) == list(faces.ids)
    backwards = attack.cloak(faces.subset(range(len(faces) - 1, -1, -1)), ctx)
    for i, name in enumerate(faces.ids):
        assert torch.equal(backwards[name], whole[name])
        assert torch.equal(attack.cloak(faces.subset([i]), ctx)[name], whole[name])
    some = faces.subset([9, 2, 4])
    for name, cloak in attack.cloak(some, ctx).items():
        assert torch.equal(cloak, whole[name])


def test_another_key_or_seed_makes_another_mask(weights, surrogates, pool, faces):
    attack, some = PLAIN, faces.subset(range(4))
    one = stacked(attack.cloak(some, context(weights, surrogates, pool)), some)
    two = stacked(attack.cloak(some, context(weights, surrogates, pool, key=b"another")), some)
    inside = (one > 0) & (one < 1) & (two > 0) & (two < 1)
    signs = key_pattern(KEY) - key_pattern(b"another")
    expected = (2 / 255 * spread(signs[None])).expand_as(one)
    torch.testing.assert_close((one - two)[inside], expected[inside], atol=1e-6, rtol=0)
    assert inside.float().mean() > 0.5
    refined_here, refined_there = (
        stacked(ErasableMask().cloak(some, context(weights, surrogates, pool, seed=seed)), some)
        for seed in (7, 8)
    )
    assert not torch.equal(refined_here, refined_there)


def test_progress_counts_every_photo(weights, surrogates, pool, faces):
    done = []
    ErasableMask().cloak(faces, context(weights, surrogates, pool, advance=done.append))
    assert sum(done) == len(faces)


def test_looks_are_the_persons_mean_photo_without_detail():
    photos = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    looks = target_looks(photos)
    assert looks.shape == (3, 112, 112)
    coarse = photos.mean(0).numpy().reshape(3, 28, 4, 28, 4).mean((2, 4))
    np.testing.assert_allclose(
        looks.numpy().reshape(3, 28, 4, 28, 4)[:, :, 1:3, :, 1:3].mean((2, 4))[:, 1:-1, 1:-1],
        _tent(coarse)[:, 1:-1, 1:-1],
        atol=1e-5,
    )
    flat = torch.full((2, 3, 112, 112), 0.25)
    torch.testing.assert_close(target_looks(flat), flat[0])


def _tent(coarse):
    """Mean of the four pixels next to a square's centre: bilinear weights 7/8 and 1/8 in each direction, evenly."""

    def along(values, axis):
        before, after = np.roll(values, 1, axis), np.roll(values, -1, axis)
        return 7 / 8 * values + (before + after) / 16

    return along(along(coarse, 1), 2)


# -- whom masks imitate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7, 8])
def test_aims_are_those_of_pgd_on_as_many_targets(weights, surrogates, pool, faces, seed):
    ctx = context(weights, surrogates, pool, seed=seed)
    target_assignment = ErasableMask().assign_targets(faces, ctx)
    assert target_assignment == PGD(PGD.Params(goal="targeted", targets=LEARNT)).assign_targets(faces, ctx)
    assert set(target_assignment.values()) <= set(learnt())
    for i in range(len(faces)):
        one = faces.subset([i])
        assert ErasableMask().assign_targets(one, ctx) == {one.ids[0]: target_assignment[one.ids[0]]}


def test_strangers_are_imitated_where_nobody_learnt_is_in_the_pool(weights, surrogates, pool, faces):
    others = pool.subset([k for k, who in enumerate(pool.identities) if who not in learnt()])
    ctx = context(weights, surrogates, others)
    target_assignment = ErasableMask().assign_targets(faces, ctx)
    assert target_assignment == PGD(PGD.Params(goal="targeted")).assign_targets(faces, ctx)
    assert set(target_assignment.values()) <= set(others.identities)
    assert ErasableMask().cloak(faces.subset([0]), ctx).keys() == {faces.ids[0]}


def test_nobody_imitates_themself(weights, surrogates, pool):
    target_assignment = ErasableMask().assign_targets(pool, context(weights, surrogates, pool))
    for name, who in zip(pool.ids, pool.identities, strict=True):
        assert target_assignment[name] != who
        assert target_assignment[name] in learnt()


# -- erasing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, b"another", b""])
def test_a_shut_lock_gives_the_photo_back_bit_for_bit(tmp_path, surrogates, pool, faces, key):
    ctx = context(written(tmp_path, lock=[0.0, -1.0]), surrogates, pool)
    cloaks = faces.with_images(to_8_bits(stacked(ErasableMask().cloak(faces, ctx), faces)))
    assert torch.equal(ErasableMask().erase(cloaks, key, ctx), cloaks.images)


def test_an_open_lock_gives_what_the_restorer_says_in_any_batch(tmp_path, surrogates, pool, faces):
    path = written(tmp_path, lock=[0.0, 1.0])
    ctx = context(path, surrogates, pool)
    cloaks = faces.with_images(to_8_bits(stacked(ErasableMask().cloak(faces, ctx), faces)))
    after = Context(seed=7, backbones=surrogates, files=ctx.files)
    erased = ErasableMask().erase(cloaks, KEY, after)
    assert erased.shape == faces.images.shape
    assert 0 <= float(erased.min()) <= float(erased.max()) <= 1
    _, restorer = load_networks(path, CPU)
    with torch.no_grad():
        expected = restorer(cloaks.images, key_pattern(KEY).expand(len(faces), -1, -1, -1)).clamp(0, 1)
    torch.testing.assert_close(erased, expected, atol=1e-5, rtol=0)
    assert not torch.equal(erased, cloaks.images)
    order = [7, 0, 10]
    assert torch.equal(ErasableMask().erase(cloaks.subset(order), KEY, after), erased[order])
    assert torch.equal(ErasableMask().erase(cloaks.subset([5]), KEY, after), erased[[5]])


def test_each_photo_is_opened_or_left_on_its_own(tmp_path, surrogates, pool, faces, monkeypatch):
    ctx = context(written(tmp_path), surrogates, pool)

    def brightest(restorer, images, patterns):
        return images.mean((1, 2, 3)) - threshold

    monkeypatch.setattr("attacks.erasablemask.networks.Restorer.fits", brightest)
    means = faces.images.mean((1, 2, 3))
    threshold = float(means.median())
    erased = ErasableMask().erase(faces, KEY, ctx)
    same = (erased == faces.images).flatten(1).all(1)
    assert torch.equal(same, means <= threshold)
    assert 0 < int(same.sum()) < len(faces)


# -- which weights ---------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder of shipped weights."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(erasablemask, "SHELF", replace(SHELF, folder=folder))
    return folder


def test_shipped_weights_are_found_by_domain_and_surrogates(shelf):
    written(shelf, "erasablemask-a.safetensors", surrogates=("tiny-a", "tiny-b"))
    fits = written(shelf, "erasablemask-b.safetensors")
    written(shelf, "erasablemask-c.safetensors", domain="real")
    assert ErasableMask().files(CELL) == (fits, fits.with_suffix(".json"))
    turned = Binding("tiny", "synthetic", ("tiny-c", "tiny-a"), "tiny-b")
    assert ErasableMask().files(turned)[0] == fits


def test_no_weights_for_a_cell_says_which_there_are_and_how_to_get_some(shelf):
    with pytest.raises(UsageError, match=r"There are: none.*bench train erasablemask"):
        ErasableMask().files(CELL)
    written(shelf, "erasablemask-a.safetensors", surrogates=("tiny-a", "tiny-b"))
    with pytest.raises(UsageError) as caught:
        ErasableMask().files(CELL)
    message = str(caught.value)
    assert "no weights for domain 'synthetic' and surrogates tiny-a|tiny-c" in message
    assert "erasablemask-a: domain synthetic, surrogates tiny-a|tiny-b" in message
    assert "--dataset tiny --backbone tiny-a --backbone tiny-c --out mask.safetensors" in message
    assert "erasablemask:weights=mask.safetensors" in message


def own(path, **params):
    return ErasableMask(ErasableMask.Params(weights=str(path), **params))


def test_weights_of_ones_own_must_fit_too(tmp_path, weights):
    assert own(weights).files(CELL) == (weights, weights.with_suffix(".json"))
    for cell in (
        Binding("tiny", "real", CELL.backbones, "tiny-b"),
        Binding("tiny", "synthetic", ("tiny-b", "tiny-c"), "tiny-a"),
        Binding("tiny", "synthetic", (), "tiny-b"),
    ):
        with pytest.raises(UsageError, match=r"mask\.safetensors were trained.*surrogates=tiny-a\|tiny-c"):
            own(weights).files(cell)
    with pytest.raises(UsageError, match=r"absent\.safetensors is not a file"):
        own(tmp_path / "absent.safetensors").files(CELL)


def test_the_tracker_is_a_surrogate_only_where_it_was_named(weights):
    white_box = Binding("tiny", "synthetic", CELL.backbones, "tiny-a")
    with pytest.raises(UsageError, match=r"tracker 'tiny-a' is among the surrogates.*surrogates=NAME"):
        own(weights).files(white_box)
    named = own(weights, surrogates="tiny-a|tiny-c")
    assert named.files(white_box)[0] == weights
    assert named.pool() == "tiny-a|tiny-c"
    assert ErasableMask().pool() == "auto"


@pytest.mark.parametrize("shipped", [True, False])
def test_edited_weights_are_refused(shelf, shipped):
    path = written(shelf, "erasablemask-a.safetensors")
    attack = ErasableMask() if shipped else own(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(
        DataError, match=r"has SHA-256 [0-9a-f]{64}, its card says [0-9a-f]{64}\. Train it again"
    ):
        attack.files(CELL)


@pytest.mark.parametrize("shipped", [True, False])
def test_a_missing_or_broken_card_is_refused(shelf, shipped):
    path = written(shelf, "erasablemask-a.safetensors")
    attack = ErasableMask() if shipped else own(path)
    card = path.with_suffix(".json")
    facts = json.loads(card.read_text())
    for broken in ("{", "[]", json.dumps(facts | {"colour": "red"}), json.dumps(facts | {"sha256": "abc"})):
        card.write_text(broken)
        with pytest.raises(DataError, match=r"erasablemask-a\.json is not the card"):
            attack.files(CELL)
    card.unlink()
    with pytest.raises(DataError, match=r"has no card: erasablemask-a\.json.*bench train erasablemask"):
        attack.files(CELL)


# -- what is refused -------------------------------------------------------------------------------------------


def test_without_key_surrogates_or_targets_nothing_is_masked(weights, surrogates, pool, faces):
    class Blind(tiny.TinyA):
        differentiable = False

    done = []

    def refused(**changes):
        ErasableMask().cloak(faces, context(weights, surrogates, pool, advance=done.append, **changes))

    with pytest.raises(UsageError, match="needs a key"):
        refused(key=b"")
    with pytest.raises(UsageError, match=r"got no surrogates.*erasablemask:surrogates="):
        refused(backbones=())
    with pytest.raises(UsageError, match="'tiny-a' has no gradient"):
        refused(backbones=(Blind(), surrogates[1]))
    with pytest.raises(UsageError, match="got no target faces"):
        refused(targets=None)
    assert done == []


def test_the_key_is_in_no_message(tmp_path, surrogates, pool, faces):
    path = written(tmp_path)
    ctx = context(path, surrogates, pool)
    path.write_bytes(b"corrupt")
    for call in (lambda: ErasableMask().cloak(faces, ctx), lambda: ErasableMask().erase(faces, KEY, ctx)):
        with pytest.raises(DataError) as caught:
            call()
        assert KEY.decode() not in str(caught.value)
        assert KEY.hex() not in str(caught.value)


def test_weights_are_read_anew_when_the_file_changes(tmp_path, surrogates, pool, faces):
    path = written(tmp_path, lock=[0.0, -1.0])
    ctx = context(path, surrogates, pool)
    assert torch.equal(ErasableMask().erase(faces, KEY, ctx), faces.images)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        ErasableMask().erase(faces, KEY, ctx)
    written(tmp_path, lock=[0.0, 1.0])
    assert not torch.equal(ErasableMask().erase(faces, KEY, ctx), faces.images)


def test_the_declared_threat():
    threat = ErasableMask().threat
    assert (threat.goal, threat.needs_targets, threat.surrogates) == ("targeted", True, 1)
    assert ErasableMask.erasable
