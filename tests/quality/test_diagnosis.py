"""What is seen of attacks and purifiers from outside, against plain NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contracts import MICRO_BATCH, Backbone, BackboneCard
from bench.errors import DataError, MethodError
from bench.faces.pixels import Pixels
from bench.quality import diagnosis
from bench.quality.diagnosis import SAMPLE_BATCHES, matched_noise, probe_attack, probe_purifier, sample

CPU = torch.device("cpu")
SIDE = 12


class Linear(Backbone):
    """Projects the pixels; `turn` makes of the embedding what a test wants."""

    name = "linear"

    def __init__(self, turn=lambda vectors, _images: vectors, *, differentiable=True):
        super().__init__()
        self.turn, self.differentiable = turn, differentiable
        self.card = BackboneCard(name="linear", licence="none", embedding_dim=5)
        generator = torch.Generator().manual_seed(3)
        self.weights = torch.randn(3 * SIDE * SIDE, 5, generator=generator)
        self.shapes = set()

    def load(self, device):
        del device

    def embed(self, images):
        self.shapes.add(tuple(images.shape))
        return self.turn((images - 0.5).flatten(1) @ self.weights, images)


def pixels(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(40, 216, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    ids = tuple(f"photo-{k:02}" for k in range(count))
    return Pixels(images, ids, ids)


def noisy(photos, amplitude=10, seed=1):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(-amplitude, amplitude + 1, photos.images.shape, generator=generator)
    return Pixels((photos.images + noise).clamp(0, 255).to(torch.uint8), photos.ids, photos.identities)


def probes(backbone, photos, cloaks, chosen=None, **options):
    options = {"seed": 0, "device": CPU, **options}
    return probe_attack(photos, cloaks, chosen or photos.ids, [("linear", backbone)], **options)


def cosine_distance(backbone, one, other):
    def unit(image):
        flat = (image.numpy().astype(np.float64) / 255 - 0.5).ravel() @ backbone.weights.double().numpy()
        return flat / np.linalg.norm(flat)

    return 1 - unit(one) @ unit(other)


# --- the sample -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 70), max_size=12))
def test_the_sample_is_of_whole_micro_batches_spread_over_the_shards(sizes):
    shards = [[f"{k}/{n}" for n in range(size)] for k, size in enumerate(sizes)]
    chosen = sample(shards)
    filled = [k for k, size in enumerate(sizes) if size]
    assert len(chosen) == min(SAMPLE_BATCHES, len(filled))
    for k, ids in chosen.items():
        each = SAMPLE_BATCHES // len(chosen) * MICRO_BATCH
        assert len(ids) == len(set(ids)) == min(each, sizes[k])
        assert set(ids) <= set(shards[k])
    assert sum(map(len, chosen.values())) <= SAMPLE_BATCHES * MICRO_BATCH


def test_the_sample_does_not_depend_on_the_order_of_the_ids():
    ids = [f"photo-{k}" for k in range(64)]
    assert sample([ids]) == sample([ids[::-1]])
    assert sample([ids])[0] != tuple(ids[:32])


# --- matched noise ----------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_matched_noise_keeps_all_but_the_aim(seed):
    generator = torch.Generator().manual_seed(seed)
    perturbation = torch.randn((3, SIDE, SIDE), generator=generator) / 30
    noise = matched_noise(perturbation, generator)
    before, after = perturbation.double().numpy(), noise.double().numpy()
    assert after.mean((1, 2)) == pytest.approx(before.mean((1, 2)), abs=1e-6)
    for a in range(3):
        for b in range(3):
            assert (after[a] * after[b]).sum() == pytest.approx((before[a] * before[b]).sum(), abs=1e-5)
    spectra = (np.abs(np.fft.fft2(image)) for image in (before, after))
    assert next(spectra) == pytest.approx(next(spectra), abs=1e-4)
    assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.5


def test_a_still_perturbation_stays_still():
    assert (matched_noise(torch.zeros(3, SIDE, SIDE), torch.Generator()) == 0).all()


# --- an attack under its surrogates -----------------------------------------------------------------------


def test_distances_are_cosine_distances_of_the_posted_images():
    photos, backbone = pixels(11), Linear()
    cloaks = noisy(photos)
    found = probes(backbone, photos, cloaks)
    assert [probe.image for probe in found] == list(photos.ids)
    for probe, photo, cloak in zip(found, photos.images, cloaks.images, strict=True):
        assert probe.moved == pytest.approx(cosine_distance(backbone, photo, cloak), rel=1e-3, abs=1e-6)
        assert probe.random > 0
    assert backbone.shapes == {(MICRO_BATCH, 3, SIDE, SIDE)}


def test_an_aimed_cloak_is_far_beyond_noise_and_noise_is_not():
    photos, backbone = pixels(16), Linear()
    aimed = []
    for image in photos.images:
        at = (image.float() / 255).requires_grad_()
        away = torch.ones(5) @ (backbone.weights.T @ (at - 0.5).flatten()).sign()
        (gradient,) = torch.autograd.grad((backbone.embed(at[None])[0, 0] * away.sign()), at)
        aimed.append((image + 10 * gradient.sign()).clamp(0, 255))
    cloaks = Pixels(torch.stack(aimed).to(torch.uint8), photos.ids, photos.identities)
    advantage = [
        np.median([p.moved / p.random for p in probes(backbone, photos, c)]) for c in (cloaks, noisy(photos))
    ]
    assert advantage[0] > 4
    assert advantage[1] < 2


def test_unchanged_and_missing_cloaks_are_passed_over():
    photos = pixels(6)
    cloaks = noisy(photos)
    cloaks.images[2] = photos.images[2]
    cloaks = cloaks.only(frozenset(photos.ids[:5]))
    done = []
    found = probes(Linear(), photos, cloaks, advance=done.append)
    assert [probe.image for probe in found] == [photos.ids[k] for k in (0, 1, 3, 4)]
    assert done == [4]
    assert probes(Linear(), photos, photos) == ()


def test_what_is_said_of_an_image_does_not_depend_on_the_others():
    photos = pixels(12)
    cloaks = noisy(photos)
    together = probes(Linear(), photos, cloaks)
    alone = probes(Linear(), photos, cloaks, chosen=photos.ids[7:8])
    assert alone[0].random == pytest.approx(together[7].random, rel=1e-4)
    assert alone[0].slope == pytest.approx(together[7].slope, rel=1e-4)
    other = probes(Linear(), photos, cloaks, chosen=photos.ids[7:8], seed=1)
    assert other[0].moved == pytest.approx(alone[0].moved)
    assert other[0].random != alone[0].random


def test_the_slope_is_what_a_grey_level_along_the_gradient_adds():
    photos, backbone = pixels(3), Linear()
    for probe, image in zip(probes(backbone, photos, noisy(photos)), photos.images, strict=True):
        generator = diagnosis.torch_generator(0, "diagnose/start", probe.image)
        offset = 2 * torch.rand(image.shape, generator=generator) - 1
        start = (image.double() / 255 + offset.double() * diagnosis.START / 255).clamp(0, 1)
        weights = backbone.weights.double()
        clean, at = ((x - 0.5).flatten() @ weights for x in (image.double() / 255, start))
        clean, norm = clean / clean.norm(), at.norm()
        gradient = -weights @ (clean / norm - (clean @ at) * at / norm**3)
        assert probe.slope == pytest.approx(float(gradient.abs().sum()) / 255, rel=1e-3)
        assert probe.finite


@pytest.mark.parametrize(
    ("turn", "slope", "finite"),
    [
        (lambda vectors, _images: vectors.detach(), 0, True),
        (lambda vectors, _images: vectors.round(), 0, True),
        (lambda vectors, images: vectors + (images - images).flatten(1).sqrt()[:, :5], None, False),
    ],
)
def test_faulty_gradients_are_told(turn, slope, finite):
    photos = pixels(2)
    for probe in probes(Linear(turn), photos, noisy(photos)):
        assert (probe.slope, probe.finite) == (slope, finite)


def test_a_black_box_is_not_asked_for_a_gradient():
    photos = pixels(2)
    for probe in probes(Linear(differentiable=False), photos, noisy(photos)):
        assert probe.slope is None
        assert probe.finite
        assert probe.moved > 0


def test_embeddings_that_are_not_finite_are_refused():
    photos = pixels(2)
    with pytest.raises(MethodError, match="surrogate 'linear' returned embeddings that are not finite"):
        probes(Linear(lambda vectors, _images: vectors / 0), photos, noisy(photos))


# --- a purifier -------------------------------------------------------------------------------------------


def test_a_purified_shard_is_compared_image_by_image():
    photos = pixels(5)
    changed = photos.images.clone()
    changed[3, 1, 4, 4] += 7
    shuffled = [4, 2, 3, 1, 0]
    returned = Pixels(changed[shuffled], tuple(photos.ids[k] for k in shuffled), photos.identities)
    shard = probe_purifier(photos, returned)
    assert shard.changes == {name: 7 if name == photos.ids[3] else 0 for name in photos.ids}
    assert shard.spread_given == pytest.approx(photos.images.numpy().astype(float).std(0).mean(), rel=1e-5)
    constant = Pixels(changed[:1].expand(5, -1, -1, -1), photos.ids, photos.identities)
    assert probe_purifier(photos, constant).spread_returned == 0


# --- stored forms -----------------------------------------------------------------------------------------


def test_stored_forms_come_back_and_damage_is_told():
    photos = pixels(3)
    found = probes(Linear(), photos, noisy(photos))
    assert diagnosis.probes_from_bytes(diagnosis.probes_to_bytes(found)) == found
    shard = probe_purifier(photos, photos)
    assert diagnosis.shard_from_bytes(diagnosis.to_bytes(shard)) == shard
    with pytest.raises(DataError, match="cells/x is damaged"):
        diagnosis.read(diagnosis.AttackDiagnosis, b"{", "cells/x")
