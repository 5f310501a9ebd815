"""TIP-IM against a plain restatement of its choice and of one step."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attacks.tipim import TIPIM, _centres, gain
from bench.contracts import Context
from bench.errors import UsageError
from bench.quality.metrics import linf, to_8_bits

_spec = importlib.util.spec_from_file_location("attack_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)
make_faces, stacked = fixtures.make_faces, fixtures.stacked


def tipim(**params):
    return TIPIM(TIPIM.Params(**{"steps": 6, "targets": 3, **params}))


def unit(rng, *shape):
    rows = rng.standard_normal(shape)
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def test_the_gain_is_the_papers_sum():
    rng = np.random.default_rng(0)
    own, clean = ([unit(rng, 2, d) for d in (7, 11)] for _ in range(2))
    targets = [[unit(rng, d) for d in (7, 11)] for _ in range(4)]
    for row in range(2):
        away = np.mean([float((own[k][row] - clean[k][row]).norm()) for k in range(2)])
        near = [np.mean([float((own[k][row] - one[k]).norm()) for k in range(2)]) for one in targets]
        wanted = math.log(1 + max(math.exp(away - distance) for distance in near))
        assert float(gain(own, clean, targets)[row]) == pytest.approx(wanted, rel=1e-6)


def test_the_first_step_is_the_best_candidate_of_all_targets(surrogates, ctx):
    """From the clean photo, without diversity: every target's step by hand, and the one with the largest gain."""
    faces = make_faces(3)
    ours = stacked(tipim(steps=1, diversity=0).cloak(faces, ctx), faces)
    centres = _centres(surrogates, ctx.targets, 3, ctx)
    for image, found in zip(faces.images, ours, strict=True):
        clean = [F.normalize(b.embed(image[None]), dim=1).detach() for b in surrogates]
        candidates = []
        for one in centres:
            x = image[None].clone().requires_grad_()
            rows = [F.normalize(b.embed(x), dim=1) for b in surrogates]
            loss = sum(
                (r - t).square().sum() - (r - c).square().sum()
                for r, t, c in zip(rows, one, clean, strict=True)
            )
            (g,) = torch.autograd.grad(loss, x)
            step = 1.5 * 12 / 255 * math.sqrt(g.numel()) * g / g.norm()
            moved = (image + (-step).clamp(-12 / 255, 12 / 255)).clamp(0, 1)
            with torch.no_grad():
                rows = [F.normalize(b.embed(moved), dim=1) for b in surrogates]
                away = sum(float((r - c).norm()) for r, c in zip(rows, clean, strict=True)) / 2
                score = max(
                    away - sum(float((r - t).norm()) for r, t in zip(rows, each, strict=True)) / 2
                    for each in centres
                )
            candidates.append((score, moved[0]))
        torch.testing.assert_close(found, max(candidates, key=lambda pair: pair[0])[1], atol=1e-4, rtol=0)


def test_cloaks_come_nearer_to_a_target_than_the_photo_was(surrogates, ctx):
    faces = make_faces(4)
    cloaks = to_8_bits(stacked(tipim(steps=12).cloak(faces, ctx), faces))
    assert linf(cloaks, faces.images).max() <= 12 + 1e-4
    centres = _centres(surrogates, ctx.targets, 3, ctx)

    def nearest(images):
        rows = [F.normalize(b.embed(images), dim=1) for b in surrogates]
        return torch.stack(
            [sum((r - t).norm(dim=1) for r, t in zip(rows, one, strict=True)) for one in centres]
        ).amin(0)

    assert (nearest(cloaks) < nearest(faces.images)).all()


def test_nobody_to_imitate_is_an_error(surrogates):
    with pytest.raises(UsageError, match="got no target faces"):
        tipim().cloak(make_faces(1), Context(backbones=surrogates))


def test_it_costs_a_pass_for_each_step_and_target():
    assert tipim(steps=20, targets=5).passes == 100
    assert tipim().threat.needs_targets
    assert tipim().threat.goal == "untargeted"
