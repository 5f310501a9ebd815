"""How many trainings stand behind a claim about a trained part (DESIGN 7).

A run trains what learns in it anew under each seed; weights that are read from files are of one training, whatever the
seed. With fewer than `LEAST_SEEDS` a claim is about these weights, and says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.results import Results
from bench.run.spec import Cell
from bench.run.trained import Axis
from bench.stats.random_seeds import LEAST_SEEDS


@dataclass(frozen=True)
class TrainingSeeds:
    """The trained methods a claim is about.

    Attributes:
        counts: method → trainings behind its rates, none of those that are not trained.
    """

    counts: Mapping[str, int]

    @property
    def fewest(self) -> int | None:
        """The fewest trainings of a method, None where none is trained."""
        return min(self.counts.values(), default=None)

    @property
    def enough(self) -> bool:
        """Whether every trained method was trained often enough for the seed to be a random effect."""
        return self.fewest is not None and self.fewest >= LEAST_SEEDS

    def caution(self) -> str:
        """Return the clause that a claim from too few trainings needs, or ""."""
        few = {name: count for name, count in self.counts.items() if count < LEAST_SEEDS}
        if not few:
            return ""
        said = ", ".join(
            f"{name} {'once' if count == 1 else 'under two seeds'}" for name, count in few.items()
        )
        return (
            f"trained {said}: a claim about a trained part needs {LEAST_SEEDS} training seeds or more, so this one is "
            "about these weights"
        )


def training_seeds(results: Results, points: Iterable[Cell], axes: Sequence[Axis]) -> TrainingSeeds:
    """Return the trainings behind some cells.

    Args:
        results: of the run.
        points: the cells a claim is over.
        axes: whose methods it is about.
    """
    seeds: dict[str, set[int]] = {}
    fixed: set[str] = set()
    for point in points:
        for axis in axes:
            way = _way(results, point, axis)
            if way:
                name = getattr(point, axis)
                seeds.setdefault(name, set()).add(point.seed)
                fixed |= {name} if way == "weights" else set()
    return TrainingSeeds({name: 1 if name in fixed else len(found) for name, found in seeds.items()})


def _way(results: Results, point: Cell, axis: Axis) -> str:
    cell = results.cells.get(point)
    if cell is None:
        return ""
    if cell.trained is not None:
        return cell.trained.get(axis, "")
    # Runs of earlier versions say of a defence only that it was trained: then one training is known of.
    seen = cell.threat.attack_seen_by_defense
    return "weights" if axis == "defense" and seen not in ("", "not-trained") else ""
