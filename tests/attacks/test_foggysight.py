"""FoggySight: what is done to whose photos, by PGD's own means."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks.foggysight import FoggySight
from attacks.pgd import PGD
from bench.contracts import Context
from bench.errors import UsageError
from bench.plugins import factory

_spec = importlib.util.spec_from_file_location("attack_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)
make_faces, stacked = fixtures.make_faces, fixtures.stacked


@pytest.fixture
def protecting(ctx):
    """Return a context whose targets are the photos of one identity."""
    targets = ctx.targets
    own = [row for row, name in enumerate(targets.identities) if name == targets.identities[0]]
    return replace(ctx, targets=targets.subset(own))


def test_decoys_are_targeted_pgd_towards_the_protected(protecting):
    faces = make_faces(3)
    ours = FoggySight(FoggySight.Params(steps=3)).cloak(faces, protecting)
    theirs = PGD(PGD.Params(goal="targeted", eps=16, step=2, steps=3)).cloak(faces, protecting)
    assert torch.equal(stacked(ours, faces), stacked(theirs, faces))
    assert (stacked(ours, faces) - faces.images).abs().max() <= 16 / 255 + 1e-6


def test_decoys_come_nearer_to_the_protected(surrogates, protecting):
    faces = make_faces(3)
    made = stacked(FoggySight(FoggySight.Params(steps=8)).cloak(faces, protecting), faces)

    def cosine(images):
        backbone = surrogates[0]
        centre = torch.nn.functional.normalize(backbone.embed(protecting.targets.images), dim=1).mean(0)
        return torch.nn.functional.cosine_similarity(backbone.embed(images), centre[None])

    assert (cosine(made) > cosine(faces.images) + 0.05).all()


def test_single_photos_are_drawn_for_each_decoy(ctx):
    faces, targets = make_faces(6), make_faces(4)
    one = replace(targets, identities=("who",) * 4)
    attack = FoggySight(FoggySight.Params(steps=2, aim="photo"))
    made = attack.cloak(faces, replace(ctx, targets=one))
    centre = FoggySight(FoggySight.Params(steps=2)).cloak(faces, replace(ctx, targets=one))
    assert not torch.equal(stacked(made, faces), stacked(centre, faces))
    assert set(attack.assign_targets(faces, replace(ctx, targets=one)).values()) == {"who"}


def test_it_says_what_it_is():
    attack = factory.attack("foggysight")
    assert attack.edits_others
    assert (attack.threat.goal, attack.threat.needs_targets, attack.threat.max_linf) == ("targeted", True, 16)
    assert attack.passes == 20


def test_nobody_to_protect_is_a_usage_error(surrogates):
    with pytest.raises(UsageError, match="got no target faces"):
        FoggySight().cloak(make_faces(1), Context(backbones=surrogates))
