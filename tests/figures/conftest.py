"""Runs that figures are drawn of: tiny ones, with cells that fail, trackers that are known, and one of everything."""

from types import SimpleNamespace

import pytest

from bench.leaderboard.view import RunView


@pytest.fixture(scope="module")
def whole(evaluate):
    """Return the view of a run with two attacks, three defences, two trackers."""
    run = evaluate(
        attacks=("tiny-noise", "tiny-identity-mean"),
        defenses=("none", "jpeg:quality=20", "tiny-negative"),
        backbones=("tiny-a", "tiny-b"),
    )
    return SimpleNamespace(view=RunView.of(run.folder.path), run=run)


@pytest.fixture(scope="module")
def torn(evaluate):
    """Return the view of a run whose second attack fails everywhere, and whose third knows one of the trackers."""
    run = evaluate(
        attacks=("tiny-noise", "tiny-failing", "pgd:eps=32,steps=2,surrogates=tiny-a"),
        defenses=("none", "jpeg:quality=20"),
        backbones=("tiny-a", "tiny-b"),
        heads=("nn",),
    )
    return SimpleNamespace(view=RunView.of(run.folder.path), run=run)


@pytest.fixture(scope="module")
def plain(evaluate):
    """Return the view of a run with attack none alone, one tracker, no defence."""
    run = evaluate(attacks=("none",), defenses=("none",))
    return SimpleNamespace(view=RunView.of(run.folder.path), run=run)


@pytest.fixture(scope="module")
def single(evaluate):
    """Return the view of a run with one attack, one tracker, no defence."""
    run = evaluate(attacks=("tiny-noise",), defenses=("none",))
    return SimpleNamespace(view=RunView.of(run.folder.path), run=run)
