"""What the transfer table is made of: training identities only, paired differences, thresholds of the cards."""

import numpy as np
import pytest
import torch
from scipy import stats

from bench.contracts import Context
from bench.plugins import factory
from bench.quality.metrics import dssim, linf
from benchmarks.former_lowkey import FormerLowKey
from benchmarks.transfer import (
    ATTACKS,
    FAR,
    SURROGATES,
    TRACKERS,
    change,
    cosines,
    line,
    lost,
    photos,
    visibility,
)


def test_photos_are_of_training_identities_one_each_and_the_same_each_time():
    dataset = factory.dataset("synthetic:training_identities=20")
    roles = {identity.id: identity.role for identity in dataset.identities()}
    faces = photos(dataset, 8)
    assert len(set(faces.identities)) == 8
    assert {roles[identity] for identity in faces.identities} == {"training"}
    assert photos(dataset, 8).ids == faces.ids
    assert torch.equal(faces.images, dataset.crops(faces.ids).float() / 255)


def test_several_photos_of_each_are_the_identitys_first_ones():
    dataset = factory.dataset("synthetic:training_identities=20")
    own = {identity.id: identity.photos for identity in dataset.identities()}
    faces = photos(dataset, 4, each=3)
    assert len(faces) == 12
    for start in range(0, 12, 3):
        (identity,) = set(faces.identities[start : start + 3])
        assert faces.ids[start : start + 3] == own[identity][:3]


def test_visibility_is_of_the_most_visible_pixel_and_the_mean_photo():
    class Distance:
        def distance(self, images, reference):
            return (images - reference).abs().flatten(1).mean(1)

    clean = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.8
    cloaks = clean + torch.tensor([0.0, 0.1, 0.2]).view(3, 1, 1, 1)
    expected = dssim(cloaks, clean)
    assert visibility(cloaks, clean, Distance()) == [
        f"{linf(cloaks, clean).max():.0f}",
        f"{expected.mean():.4f} ({expected.max():.4f})",
        "0.100",
    ]
    assert line("b", torch.tensor([27.0]), {}, {}, ["51", "0.1", "0.2"]) == "| `b` | 27.0 | 51 | 0.1 | 0.2 |"


def test_former_lowkey_with_both_changes_is_lowkey_as_it_is():
    dataset = factory.dataset("synthetic:training_identities=20")
    backbone = factory.backbone("synthetic-mobilefacenet")
    backbone.load(torch.device("cpu"))
    faces, ctx = photos(dataset, 2), Context(backbones=(backbone,))

    def cloaks(attack):
        edits = attack.cloak(faces, ctx)
        return torch.stack([edits[i] for i in faces.ids])

    now = cloaks(factory.attack("lowkey:perceptual=dssim,steps=3"))
    both = cloaks(FormerLowKey(FormerLowKey.Params(features="unit", anchor="raw", weight=0.05, steps=3)))
    assert ((both - now).abs() < 1e-5).float().mean() > 0.99  # signs of vanishing gradients may differ
    former = [{}, {"features": "unit"}, {"anchor": "raw"}]
    for params in former:
        other = cloaks(FormerLowKey(FormerLowKey.Params(steps=3, **params)))
        assert ((other - now).abs() > 1e-3).float().mean() > 0.02


def test_a_change_is_the_mean_of_differences_with_its_t_interval():
    rng = np.random.default_rng(0)
    base, values = rng.normal(size=24), rng.normal(size=24)
    low, high = stats.ttest_rel(values, base).confidence_interval(0.95)
    assert change(values, base) == f"{(low + high) / 2:+.3f} ± {(high - low) / 2:.3f}"


def test_a_line_states_the_first_attack_without_a_change():
    tracker = factory.backbone(TRACKERS[0])
    (threshold,) = (t.cosine for t in tracker.card.thresholds if t.far == FAR)
    values = np.array([threshold - 0.2, threshold - 0.1, threshold + 0.3, threshold + 0.4])
    assert lost(tracker, values) == 0.5
    visible = torch.tensor([26.0, 28.0, 27.0, 27.0])
    first = line("pgd", visible, {tracker: values}, {tracker: values})
    assert first == f"| `pgd` | 27.0 | {values.mean():.3f} | 50 |"
    assert f"({change(values, values + 1)})" in line("b", visible, {tracker: values}, {tracker: values + 1})


def test_cosines_are_those_of_paired_photos():
    backbone = factory.backbone("synthetic-mobilefacenet")
    backbone.load(torch.device("cpu"))
    images = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert cosines(backbone, images, images) == pytest.approx(np.ones(3))
    assert (cosines(backbone, images.flip(0), images)[[0, 2]] < 1).all()


def test_the_attacks_are_methods_and_no_tracker_is_a_surrogate():
    names = [factory.canonical(factory.attack(name)) for name in ATTACKS]
    assert len(set(names)) == len(ATTACKS)
    assert not set(SURROGATES) & set(TRACKERS)
