"""Where the weights of a cell's methods come from, of tiny methods and of the plan that records it."""

import pytest

from bench.run.resolve import resolve
from bench.run.spec import Cell, make_spec
from bench.run.trained import trained_parts


@pytest.fixture
def trained(tiny):
    del tiny

    def of(attack="none", defense="none"):
        run = resolve(make_spec({"attacks": (attack,), "defenses": (defense,), "backbones": ("tiny-a",)}))
        return trained_parts(run, Cell(run.spec.attacks[0], run.spec.defenses[0], "tiny-a", "nn", 0))

    return of


@pytest.mark.parametrize(
    ("attack", "defense", "expected"),
    [
        ("tiny-noise", "jpeg", {}),
        ("tiny-learning", "none", {"attack": "run"}),
        ("none", "tiny-centring", {"defense": "run"}),
        ("tiny-noise", "tiny-trained", {}),
        ("tiny-noise", "tiny-trained:attacks=pgd", {"defense": "weights"}),
        ("tiny-noise", "tiny-trained:identities=unknown", {"defense": "weights"}),
        ("tiny-learning", "tiny-trained:attacks=pgd", {"attack": "run", "defense": "weights"}),
        # One part whose weights no seed changes decides for the whole.
        ("none", "jpeg + tiny-trained:attacks=pgd", {"defense": "weights"}),
    ],
)
def test_a_run_trains_what_learns_in_it_and_reads_other_weights(trained, attack, defense, expected):
    assert trained(attack, defense) == expected


def test_cells_record_it(evaluate):
    prepared = evaluate(attacks=("tiny-learning",), defenses=("tiny-centring",), heads=("nn",))
    found = {(cell.attack, cell.defense): cell.trained for cell in prepared.folder.cells()}
    assert found["tiny-learning", "tiny-centring"] == {"attack": "run", "defense": "run"}
    assert found["none", "none"] == {}
