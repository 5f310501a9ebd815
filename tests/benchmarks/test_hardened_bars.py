"""The bar of hardened trackers: the worst case over the best attack's undefended rate, held by its interval."""

import numpy as np
import pandas as pd
import pytest

from bench.errors import UsageError
from bench.run.spec import Cell
from benchmarks.hardened_bars import held

IDENTITIES = [f"id-{number:02}" for number in range(40)]


class Rates:
    """Stands for a run's results: rates of every cell by a function of the cell."""

    def __init__(self, rates, **axes):
        self._rates = rates
        self._axes = {
            "backbone": ("net",),
            "head": ("nn",),
            "defense": ("none", "hard"),
            "seed": (0, 1),
        } | axes

    def values(self, axis):
        return self._axes[axis]

    def facts_of(self, point):
        return {"": None}

    def rates_of(self, point, condition, measure):
        values = self._rates(point, measure)
        return None if values is None else pd.Series(values, index=IDENTITIES).sample(frac=1, random_state=1)


def rates(point: Cell, measure: str) -> np.ndarray:
    """Weak reaches every other identity undefended, strong all; behind the defence each reaches another tenth."""
    if measure == "normal_accuracy":
        return np.full(40, 1.0 if point.defense == "none" else 0.99)
    place = np.arange(40)
    if point.defense == "none":
        return (
            (place % 2 == 0).astype(float) if point.attack == "weak" else np.full(40, 0.8 + 0.1 * point.seed)
        )
    return (place % 10 == (3 if point.attack == "weak" else 4)).astype(float)


def test_the_worst_case_is_over_attacks_and_the_ratio_to_the_strongest_undefended():
    (found,) = held(Rates(rates, attack=("none", "weak", "strong")))
    assert (found.backbone, found.head, found.defense, found.attack) == ("net", "nn", "hard", "strong")
    assert found.undefended == pytest.approx(0.85)
    assert found.worst == pytest.approx(0.2)
    assert found.ratio.value == pytest.approx(0.2 / 0.85)
    assert found.by_seed == pytest.approx((0.2 / 0.8, 0.2 / 0.9))
    assert found.ratio.low < found.ratio.value < found.ratio.high
    assert found.lost.value == pytest.approx(0.01)
    row = found.row()
    assert row["≤ 1/2"] == "met"
    assert row["≤ 1/3"] == ("met" if found.ratio.high <= 1 / 3 else "open")
    assert row["ratio [95 %]"].startswith("0.24 [")


def test_a_run_without_a_defence_or_with_a_failed_cell_is_refused():
    with pytest.raises(UsageError, match=r"results/hardened\.toml"):
        list(held(Rates(rates, attack=("none", "weak"), defense=("none",))))
    lacking = lambda point, measure: None if point.defense == "hard" else rates(point, measure)  # noqa: E731
    with pytest.raises(UsageError, match="has no decisions"):
        list(held(Rates(lacking, attack=("none", "weak"))))
