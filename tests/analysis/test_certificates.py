"""Certificates of a smoothed tracker: moments by NumPy, a network whose smoothed scores are known, a whole run."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis import certificates
from bench.analysis.certificates import Smoothing, certified_probes, curve
from bench.contracts import Backbone, BackboneCard
from bench.errors import MethodError, UsageError
from bench.figures import FigureOptions, NotDrawableError, certified, files
from bench.randomness import torch_generator
from bench.run.stages.smooth import Moments, Noise, moments
from bench.stats.smoothing import certified_radius, score_bounds

SHAPE = (3, 4, 4)


class Angle(Backbone):
    """Embeds an image as the point of the unit circle at an angle that is linear in it.

    With w of length 1, f̂(x) has the angle a⟨w, x⟩, so that E⟨u, f̂(x + σn)⟩ = exp(−a²σ²/2) cos(a⟨w, x⟩ − angle of u),
    and a change of norm r turns g by a·r at most.
    """

    name = "angle"
    card = BackboneCard(name="angle", licence="none", embedding_dim=2)
    RATE = 2.0

    def load(self, device):
        del device

    @property
    def direction(self):
        one = torch.linspace(-1, 1, math.prod(SHAPE))
        return one / one.norm()

    def embed(self, images):
        angles = self.RATE * (images.flatten(1) @ self.direction)
        return 3 * torch.stack([angles.cos(), angles.sin()], dim=1)


def at_angle(angle):
    """Return an image that `Angle` embeds at an angle."""
    backbone = Angle()
    return (angle / backbone.RATE * backbone.direction).view(SHAPE)


def smoothed(angles, names, identities, noise, *, spread=True):
    found = [
        moments(Angle(), at_angle(a), name, noise, spread=spread)
        for a, name in zip(angles, names, strict=True)
    ]
    means, covariances = (torch.stack(each).numpy() for each in zip(*found, strict=True))
    return Moments(tuple(names), tuple(identities), means, covariances)


def shrunk(sigma):
    return math.exp(-((Angle.RATE * sigma) ** 2) / 2)


# -- moments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [2, 31, 32, 70])
def test_moments_are_those_of_numpy_over_the_same_draws(samples):
    noise = Noise(0.3, samples, seed=5)
    image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))
    mean, covariance = moments(Angle(), image, "a/0", noise, spread=True)
    generator = torch_generator(5, "smooth", "a/0")
    draws = torch.cat([torch.randn((32, *SHAPE), generator=generator) for _ in range(-(-samples // 32))])
    vectors = Angle().embed(image + 0.3 * draws[:samples]).double().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(mean.numpy(), unit.mean(0), atol=1e-6)
    np.testing.assert_allclose(covariance.numpy(), np.cov(unit.T), atol=1e-6)


def test_the_mean_is_the_smoothed_embedding_that_is_known():
    mean, _ = moments(Angle(), at_angle(0.7), "a/0", Noise(0.4, 20_000, 0), spread=False)
    expected = shrunk(0.4) * np.array([math.cos(0.7), math.sin(0.7)])
    np.testing.assert_allclose(mean.numpy(), expected, atol=0.02)


def test_photos_draw_noise_of_their_own_and_the_seed_counts():
    one, other = (moments(Angle(), at_angle(0.7), n, Noise(0.4, 32, 0), spread=False)[0] for n in ("a", "b"))
    again, seeded = (moments(Angle(), at_angle(0.7), "a", Noise(0.4, 32, s), spread=False)[0] for s in (0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, seeded)


def test_a_copy_without_direction_is_a_method_error():
    class Zero(Angle):
        def embed(self, images):
            return torch.zeros(len(images), 2)

    with pytest.raises(MethodError, match="embeds a noisy copy of a/0 as 0"):
        moments(Zero(), at_angle(0.0), "a/0", Noise(0.1, 4, 0), spread=False)


# -- certificates ------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    probe=st.floats(-1.5, 1.5),
    own=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=3),
    others=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=3),
    sigma=st.floats(0.1, 0.5),
)
def test_a_certified_probe_is_recognised_after_every_change_of_that_norm(probe, own, others, sigma):
    how = Smoothing(sigma=sigma, samples=600, probe_samples=200, failure=1e-6)
    names = [f"a/{k}" for k in range(len(own))] + [f"b/{k}" for k in range(len(others))]
    identities = ["a"] * len(own) + ["b"] * len(others)
    gallery = smoothed([*own, *others], names, identities, Noise(sigma, how.samples, 0))
    probes = smoothed([probe], ["a/p"], ["a"], Noise(sigma, how.probe_samples, 0), spread=False)
    (row,) = certified_probes(gallery, probes, how).itertuples()
    if row.radius <= 0:
        return
    # What is known of this network: a change of norm r turns a smoothed embedding by at most RATE · r.
    direction = math.atan2(probes.means[0, 1], probes.means[0, 0])
    turned = Angle.RATE * row.radius * 0.999
    rival = max(math.cos(other - direction) for other in others)
    worst = max(math.cos(min(abs(mine - direction) + turned, math.pi)) for mine in own)
    assert worst > rival - 1e-9


def test_changes_that_are_found_by_search_do_not_undo_a_certificate():
    """Against the estimate itself: gradient steps on the photo, projected onto the ball, with fresh noise."""
    sigma = 0.3
    how = Smoothing(sigma=sigma, samples=2000, probe_samples=200)
    gallery = smoothed([0.1, 1.4], ["a/0", "b/0"], ["a", "b"], Noise(sigma, how.samples, 0))
    probes = smoothed([0.0], ["a/p"], ["a"], Noise(sigma, how.probe_samples, 0), spread=False)
    (row,) = certified_probes(gallery, probes, how).itertuples()
    assert row.radius > 0.1
    photo, unit = at_angle(0.1), torch.from_numpy(probes.means[0] / np.linalg.norm(probes.means[0])).float()
    change = torch.zeros(SHAPE, requires_grad=True)
    generator = torch.Generator().manual_seed(9)
    for _ in range(30):
        noisy = photo + change + sigma * torch.randn((256, *SHAPE), generator=generator)
        score = torch.nn.functional.normalize(Angle().embed(noisy)) @ unit
        (gradient,) = torch.autograd.grad(score.mean(), change)
        with torch.no_grad():
            change -= 0.2 * gradient / gradient.norm()
            change *= (row.radius / change.norm()).clamp(max=1)
    noisy = photo + change.detach() + sigma * torch.randn((20_000, *SHAPE), generator=generator)
    after = float((torch.nn.functional.normalize(Angle().embed(noisy)) @ unit).mean())
    assert after > row.other_high


def random_moments(seed, identities, photos, dimension=5):
    rng = np.random.default_rng(seed)
    names = [f"p{i}/{k}" for i in range(identities) for k in range(photos)]
    samples = rng.normal(size=(len(names), 40, dimension)) + 2 * rng.normal(size=(len(names), 1, dimension))
    samples /= np.linalg.norm(samples, axis=2, keepdims=True)
    covariances = np.stack([np.cov(each.T) for each in samples]).astype(np.float32)
    return samples, Moments(
        tuple(names), tuple(name.partition("/")[0] for name in names), samples.mean(1), covariances
    )


def test_scores_bounds_and_radii_are_those_of_plain_loops():
    samples, gallery = random_moments(0, 4, 3)
    _, probes = random_moments(1, 4, 2)
    how = Smoothing(sigma=0.5, samples=40, failure=0.4)
    table = certified_probes(gallery, probes, how)
    assert list(table) == list(certificates.PROBE_COLUMNS)
    bounds = len(gallery.ids) * len(probes.ids)
    for row in table.itertuples():
        mean = probes.means[probes.ids.index(row.image)]
        unit = mean / np.linalg.norm(mean)
        own, other = [], []
        for owner, draws in zip(gallery.identities, samples, strict=True):
            values = draws @ unit
            low, high = score_bounds(values.mean(), values.var(ddof=1), 40, 0.4 / bounds)
            (own if owner == row.identity else other).append((values.mean(), low, high))
        assert row.own == pytest.approx(max(mean for mean, _, _ in own), abs=1e-6)
        assert row.own_low == pytest.approx(max(low for _, low, _ in own), abs=1e-5)
        assert row.other_high == pytest.approx(max(high for _, _, high in other), abs=1e-5)
        assert row.recognised == (row.own > row.other)
        assert row.radius == pytest.approx(certified_radius(row.own_low, row.other_high, 0.5), abs=1e-9)


def test_a_curve_counts_each_identity_the_same_and_never_rises():
    probes = pd.DataFrame(
        {"identity": ["a", "a", "a", "b"], "image": list("wxyz"), "radius": [0.1, 0.2, -np.inf, 0.3]}
    )
    table = curve(probes, [0.0, 0.1, 0.25, 0.3])
    assert list(table) == list(certificates.CURVE_COLUMNS)
    assert table["certified"].tolist() == pytest.approx([5 / 6, 4 / 6, 0.5, 0.0])
    assert table["certified_pooled"].tolist() == [0.75, 0.5, 0.25, 0.0]
    assert (table["certified_low"] <= table["certified"]).all()
    whole = curve(probes)
    assert whole["certified"].is_monotonic_decreasing
    assert whole["certified"].iloc[-1] == 0
    assert whole["radius"].iloc[-1] == 0.3


def test_the_figure_shows_the_curve_and_real_cloaks(tmp_path):
    table = curve(pd.DataFrame({"identity": ["a", "b"], "image": ["x", "y"], "radius": [0.1, 0.2]}))
    cloaks = pd.DataFrame(
        [{"attack": "pgd", "seed": 0, "photos": 3, "l2_min": 7.0, "l2_median": 8.0, "l2_max": 9.0}]
    )
    drawing = certified.draw(table, cloaks, FigureOptions(width="column"))
    (axes,) = drawing.figure.axes
    assert axes.get_xlim()[1] > 9
    (line,) = [each for each in axes.lines if each.get_label() == "pgd"]
    assert set(line.get_xdata()) == {8.0}
    assert "pgd 8" in drawing.alt
    assert "a lower bound" in drawing.caption
    for form in files.FORMATS:
        files.save(drawing, tmp_path / f"curve.{form}")
    nothing = curve(pd.DataFrame({"identity": ["a", "b"], "image": ["x", "y"], "radius": [-1.0, -np.inf]}))
    with pytest.raises(NotDrawableError, match="no probe is certified at any radius"):
        certified.draw(nothing, cloaks, FigureOptions())


# -- of a run ----------------------------------------------------------------------------------------------

QUICK = Smoothing(sigma=0.1, samples=64, probe_samples=32)


@pytest.fixture(scope="module")
def run(evaluate, tmp_path_factory):
    return evaluate(
        attacks=("tiny-noise",),
        identities=4,
        heads=("nn",),
        store=tmp_path_factory.mktemp("smooth") / "store",
    )


def test_norms_of_cloaks_are_those_of_what_was_posted(run):
    from bench.faces.pixels import decode_pixels

    def fetch(node):
        return run.store.read(node.stage, node.address)

    (row,) = certificates.cloak_sizes(run, "tiny-a", fetch).itertuples()
    norms = []
    for node in run.pipeline.cloaks("tiny-noise", "tiny-a", 0, "gallery"):
        posted = decode_pixels(fetch(node))
        crops = run.run.dataset.crops(list(posted.ids))
        for before, after in zip(crops, posted.images, strict=True):
            norms.append(np.linalg.norm((after.numpy().astype(float) - before.numpy()).ravel()) / 255)
    assert (row.attack, row.photos) == ("tiny-noise", len(norms))
    assert (row.l2_min, row.l2_max) == pytest.approx((min(norms), max(norms)))
    assert row.l2_median == pytest.approx(np.median(norms))


@pytest.mark.parametrize(
    "change", [{"sigma": 0.2}, {"samples": 96}, {"seed": 1}], ids=lambda change: next(iter(change))
)
def test_what_decides_the_noise_is_in_the_key(run, change):
    from dataclasses import replace

    first = {node.address for node in certificates.work(run, "tiny-a", QUICK).gallery}
    assert first == {node.address for node in certificates.work(run, "tiny-a", QUICK).gallery}
    assert first.isdisjoint(
        node.address for node in certificates.work(run, "tiny-a", replace(QUICK, **change)).gallery
    )
    with pytest.raises(UsageError, match=r"no tracker 'tiny-b'\. Name one with --backbone: tiny-a"):
        certificates.tracker_of(run, "tiny-b")


@pytest.mark.slow
def test_the_command_plans_certifies_and_finds_it_again(run, command, tmp_path):
    options = (
        run.folder.path, "--sigma", "0.1", "--samples", "40", "--probe-samples", "32",
        "--store", run.store.folder,
    )  # fmt: skip
    photos = sum(map(len, run.run.split.gallery.values()))
    probes = sum(map(len, run.run.split.probes.values()))
    plan = command("certify", *options, "--dry-run", "--json")
    assert plan.returncode == 0, plan.stderr
    planned = json.loads(plan.stdout)
    assert (planned["gallery_photos"], planned["probes"]) == (photos, probes)
    assert (planned["passes"], planned["cached"]) == (64 * photos + 32 * probes, 0)  # whole batches of 32
    done = command("certify", *options, "--out", tmp_path / "certified")
    assert done.returncode == 0, done.stderr
    assert f"4 identities, {probes} probes" in done.stdout
    assert "Cloaks of tiny-noise: L2" in done.stdout
    table = pd.read_csv(tmp_path / "certified/probes.csv")
    assert len(table) == probes
    assert list(table) == list(certificates.PROBE_COLUMNS)
    assert pd.read_csv(tmp_path / "certified/curve.csv")["certified"].is_monotonic_decreasing
    again = command("certify", *options, "--dry-run")
    assert f"{planned['passes']:,} of them cached" in again.stdout
    said = command("certify", *options, "--out", tmp_path / "certified", "--json")
    assert json.loads(said.stdout)["probes"][0]["identity"] == table["identity"][0]
