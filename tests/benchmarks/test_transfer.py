"""What the transfer table is made of: training identities only, paired differences, thresholds of the cards."""

import numpy as np
import pytest
import torch
from scipy import stats

from bench.plugins import factory
from benchmarks.transfer import ATTACKS, FAR, SURROGATES, TRACKERS, change, cosines, line, lost, photos


def test_photos_are_of_training_identities_one_each_and_the_same_each_time():
    dataset = factory.dataset("synthetic:training_identities=20")
    roles = {identity.id: identity.role for identity in dataset.identities()}
    faces = photos(dataset, 8)
    assert len(set(faces.identities)) == 8
    assert {roles[identity] for identity in faces.identities} == {"training"}
    assert photos(dataset, 8).ids == faces.ids
    assert torch.equal(faces.images, dataset.crops(faces.ids).float() / 255)


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
