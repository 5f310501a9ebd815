import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from attacks.lowkey import LowKey, blurred, feature_gain, unit_features
from bench.contracts import MICRO_BATCH, Binding, Context, Faces
from bench.errors import DataError, UsageError
from bench.quality.lpips import VARIABLE, load_lpips
from bench.quality.metrics import dssim, linf, to_8_bits

_spec = importlib.util.spec_from_file_location("attack_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)
make_faces, stacked = fixtures.make_faces, fixtures.stacked

BINDING = Binding("synthetic", "synthetic", (), "tracker")


def lowkey(**params):
    return LowKey(LowKey.Params(**{"perceptual": "dssim", **params}))


def cloaked(faces, ctx, **params):
    return stacked(lowkey(**params).cloak(faces, ctx), faces)


def soft(images):
    """OpenCV's Gaussian of 7×7, σ 3, which mirrors the border too."""
    planes = images.detach().flatten(0, 1).numpy()
    done = [cv2.GaussianBlur(p, (7, 7), 3, borderType=cv2.BORDER_REFLECT_101) for p in planes]
    return torch.from_numpy(np.stack(done)).view(images.shape)


def test_blur_agrees_with_opencv(faces):
    torch.testing.assert_close(blurred(faces.images), soft(faces.images), atol=1e-5, rtol=0)


def feature(backbone, image):
    """e + e of the mirror image, divided by its length; one image, in float64."""
    both = backbone.embed(image[None])[0].double() + backbone.embed(image.flip(2)[None])[0].double()
    return both / both.pow(2).sum().sqrt()


def gains(backbones, images, clean):
    """The published sum, photo by photo, branch by branch and dimension by dimension."""
    found = []
    for image, origin in zip(images, clean, strict=True):
        terms = []
        for backbone in backbones:
            anchor = feature(backbone, origin)
            for seen in (image, blurred(image[None])[0]):
                difference = feature(backbone, seen) - anchor
                terms.append(sum(d * d for d in difference) / anchor.norm() / 512)
        found.append(sum(terms) / len(terms))
    return torch.stack(found)


def test_gain_is_the_published_mean(faces, surrogates):
    moved = (faces.images + 0.1).clamp(0, 1)
    ours = feature_gain(surrogates, moved, unit_features(surrogates, faces.images))
    torch.testing.assert_close(ours, gains(surrogates, moved, faces.images).float(), rtol=1e-4, atol=1e-9)


def test_gain_is_free_of_the_length_of_embeddings_and_counts_the_blurred_photo_as_moved(faces, surrogates):
    clean = unit_features(surrogates, faces.images)
    for feature_of_all in clean:
        torch.testing.assert_close(feature_of_all.norm(dim=1), torch.ones(len(faces)))
    at_rest = feature_gain(surrogates, faces.images, clean)
    assert (at_rest > 1e-8).all()  # the blurred photo is held against the raw one
    longer = [
        fixtures.TinyBackbone(seed, dim=b.card.embedding_dim)
        for seed, b in ((1, surrogates[0]), (2, surrogates[1]))
    ]
    for backbone, factor in zip(longer, (3.0, 100.0), strict=True):
        backbone.last = backbone.last * factor
    torch.testing.assert_close(
        feature_gain(longer, faces.images, unit_features(longer, faces.images)), at_rest, rtol=1e-3, atol=1e-9
    )
    assert (feature_gain(surrogates, 1 - faces.images, clean) <= 4 / 512).all()


def start_of(faces, ctx, noise=0.005):
    draws = [torch.rand(faces.images.shape[1:], generator=ctx.generator("lowkey", i)) for i in faces.ids]
    return faces.images + (2 * torch.stack(draws) - 1) * noise


def test_one_step_is_the_signed_gradient_of_the_stated_objective(faces, ctx, surrogates):
    weight = 2.0
    start = start_of(faces, ctx).requires_grad_()
    objective = gains(surrogates, start, faces.images) - weight * dssim(start, faces.images)
    (gradient,) = torch.autograd.grad(objective.sum(), start)
    expected = (start + 0.0025 * gradient.sign()).clamp(0, 1).detach()
    found = cloaked(faces, ctx, steps=1, weight=weight)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999  # signs of vanishing gradients may differ
    without = cloaked(faces, ctx, steps=1, weight=0)
    assert ((without - expected).abs() > 1e-3).float().mean() > 0.05  # the penalty had a say


def test_published_steps_reach_33_grey_levels_and_no_further(faces, ctx):
    attack = lowkey()
    cloaks = stacked(attack.cloak(faces, ctx), faces)
    assert cloaks.min() >= 0
    assert cloaks.max() <= 1
    largest = linf(to_8_bits(cloaks), faces.images).round()
    assert attack.threat.max_linf == 33
    assert (largest <= 33).all()
    assert (largest >= 30).all()
    assert "33 grey levels" in attack.threat.constraint


def test_raw_and_blurred_features_move_on_every_surrogate(faces, ctx, surrogates):
    cloaks = to_8_bits(cloaked(faces, ctx, steps=20))
    noise = (cloaks - faces.images).abs()
    noise *= torch.randn(noise.shape, generator=torch.Generator().manual_seed(3)).sign()
    for backbone in surrogates:
        for view in (lambda x: x, soft):
            base, after, by_chance = (
                F.normalize(backbone.embed(view(x)) + backbone.embed(view(x).flip(3)), dim=1)
                for x in (faces.images, cloaks, faces.images + noise)
            )
            moved, drifted = (after - base).square().sum(1), (by_chance - base).square().sum(1)
            assert (moved > drifted).all()
            assert moved.mean() > 3 * drifted.mean()


def test_a_heavier_penalty_makes_a_less_visible_cloak(faces, ctx):
    free, held = (dssim(cloaked(faces, ctx, steps=20, weight=w), faces.images) for w in (0, 1000))
    assert (held < 0.9 * free).all()


def test_truncated_cloaks_are_the_cloaks_cut_down_to_whole_levels(faces, ctx):
    """Against NumPy's cast, which is what the authors' program does."""
    plain = cloaked(faces, ctx, steps=6)
    cut = cloaked(faces, ctx, steps=6, truncate=True)
    cast = (plain.numpy() * np.float32(255)).astype(np.uint8)
    assert np.array_equal((to_8_bits(cut).numpy() * 255).round().astype(np.uint8), cast)
    assert torch.equal(to_8_bits(cut), cut)
    assert (to_8_bits(plain) - cut).mean().item() * 255 == pytest.approx(0.5, abs=0.05)
    threat = lowkey(truncate=True).threat
    assert threat.max_linf == 34  # −33.15 levels become −34
    full = stacked(lowkey(truncate=True).cloak(faces, ctx), faces)
    assert linf(to_8_bits(full), faces.images).round().max() <= 34


def test_cloaks_do_not_depend_on_the_batch(ctx, surrogates):
    faces = make_faces(MICRO_BATCH + 3)
    attack = lowkey(steps=3)
    whole = attack.cloak(faces, ctx)
    backwards = attack.cloak(faces.subset(range(len(faces) - 1, -1, -1)), ctx)
    for i, name in enumerate(faces.ids):
        assert torch.equal(attack.cloak(faces.subset([i]), ctx)[name], whole[name])
        assert torch.equal(backwards[name], whole[name])
    assert {size for b in surrogates for size in b.batches} == {MICRO_BATCH}


def test_seed_decides_and_progress_counts(faces, ctx, surrogates):
    done = []
    attack = lowkey(steps=2)
    first = attack.cloak(faces, ctx)
    again = attack.cloak(faces, Context(seed=7, backbones=surrogates, advance=done.append))
    other = attack.cloak(faces, Context(seed=8, backbones=surrogates))
    assert all(torch.equal(first[i], again[i]) for i in faces.ids)
    assert not any(torch.equal(first[i], other[i]) for i in faces.ids)
    assert sum(done) == len(faces)


def test_declared_threat_and_parameters():
    assert LowKey.Params().perceptual == "lpips"
    assert (LowKey().threat.goal, LowKey().threat.surrogates) == ("untargeted", 1)
    assert LowKey().pool() == "auto"
    assert LowKey.Params().weight == 0.05
    for bad in ({"steps": 0}, {"step": 0}, {"weight": -1}, {"perceptual": "ssim"}):
        with pytest.raises(ValidationError):
            LowKey.Params(**bad)


def test_surrogates_are_needed(faces):
    with pytest.raises(UsageError, match=r"lowkey:surrogates="):
        lowkey().cloak(faces, Context())


# --- LPIPS -------------------------------------------------------------------------------------------------


def test_without_a_trunk_the_plan_is_refused_and_names_the_variant(tmp_path, monkeypatch, faces, ctx):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"`bench fetch lpips`.*in the data folder.*lowkey:perceptual=dssim"):
        LowKey().files(BINDING)
    with pytest.raises(UsageError, match=r"lowkey:perceptual=dssim"):
        LowKey().cloak(faces, ctx)
    assert lowkey().files(BINDING) == ()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "missing.pth"))
    with pytest.raises(DataError, match=r"missing\.pth' does not exist"):
        LowKey().files(BINDING)


@pytest.fixture
def trunk(tmp_path, monkeypatch):
    """AlexNet's convolutions drawn at random, where the environment names them."""
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    generator = torch.Generator().manual_seed(3)
    state = {}
    for place, (outputs, inputs, kernel) in shapes.items():
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        state[f"features.{place}.weight"] = weight * (2 / weight[0].numel()) ** 0.5
        state[f"features.{place}.bias"] = torch.zeros(outputs)
    path = tmp_path / "trunk.pth"
    torch.save(state, path)
    monkeypatch.setenv(VARIABLE, str(path))
    return path


class CentreBackbone(fixtures.TinyBackbone):
    """Sees the middle of 64×64 images only: LPIPS needs larger ones than the tiny backbone takes."""

    def embed(self, images):
        return super().embed(images[..., 12:52, 12:52])


@pytest.fixture
def large():
    small = make_faces(3)
    return small.with_images(to_8_bits(F.interpolate(small.images, (64, 64), mode="bicubic")))


def test_the_lpips_penalty_is_the_distance_and_its_gradient_rises(trunk, large):
    lpips = load_lpips(trunk)
    cloaks = (large.images + 0.1 * torch.sin(torch.arange(64.0))).requires_grad_()
    values = lpips.penalty(cloaks, large.images)
    torch.testing.assert_close(values.detach(), lpips.distance(cloaks.detach(), large.images))
    (gradient,) = torch.autograd.grad(values.sum(), cloaks)
    step = 0.05 * gradient / gradient.norm()
    ahead, behind = (lpips.distance(cloaks.detach() + s * step, large.images).sum() for s in (1, -1))
    assert (ahead - behind).item() == pytest.approx(2 * 0.05 * gradient.norm().item(), rel=0.05)


def test_published_lowkey_weighs_lpips(trunk, large):
    backbones = (CentreBackbone(1), CentreBackbone(2))
    ctx = Context(seed=7, backbones=backbones)
    attack = LowKey(LowKey.Params(steps=1))
    files = attack.files(BINDING)
    assert files[0] == trunk
    assert files[1].name == "alex.pth"
    start = start_of(large, ctx).requires_grad_()
    gain = gains(backbones, start, large.images)
    distance = load_lpips(trunk).penalty(start, large.images)
    (gradient,) = torch.autograd.grad((gain - 0.05 * distance).sum(), start)
    expected = (start + 0.0025 * gradient.sign()).clamp(0, 1).detach()
    found = stacked(attack.cloak(large, Context(seed=7, backbones=backbones, files=files)), large)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.995
    border = torch.ones(64, 64, dtype=torch.bool)
    border[9:55, 9:55] = False  # no surrogate sees it, raw or blurred: LPIPS alone decides there
    outside = found[..., border] - start.detach()[..., border]
    assert (outside.abs() > 1e-3).float().mean() > 0.5


def test_lpips_cloaks_do_not_depend_on_the_batch(trunk, large):
    ctx = Context(seed=7, backbones=(CentreBackbone(1),))
    attack = LowKey(LowKey.Params(steps=2))
    whole = attack.cloak(large, ctx)
    assert isinstance(large, Faces)
    for i, name in enumerate(large.ids[:1]):
        assert torch.equal(attack.cloak(large.subset([i]), ctx)[name], whole[name])
