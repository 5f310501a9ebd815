"""The leaderboard's warnings: the facts in a run's folder, and the rules of `bench.doubts` on them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pandas as pd

from bench import diagnosis, doubts, image_measures, significance
from bench.answers import Answers, Point
from bench.diagnosis import AttackDiagnosis, PurifierDiagnosis
from bench.doubts import Doubt
from bench.errors import DataError
from bench.methods import parse
from bench.randomness import numpy_generator
from bench.run_folder import CellResult, RunFolder

BEFORE = Doubt(
    "not-diagnosed", "the run was made before diagnoses were kept, the same command writes them now"
)


def doubt_columns(answers: Answers, board: pd.DataFrame) -> dict[str, list[str]]:
    """Return the leaderboard's column `warnings`.

    Args:
        answers: of the run.
        board: with the columns that name a row, and `condition`.

    Raises:
        DataError: a file of the run's folder is missing or damaged.
    """
    rows = _Rows(answers)
    keys = board[[*Point._fields, "condition"]].itertuples(index=False, name=None)
    return {"warnings": [doubts.join(rows.doubts(Point(*key[:-1]), key[-1])) for key in keys]}


def by_warning(board: pd.DataFrame) -> dict[str, list[str]]:
    """Return each warning of a leaderboard → the rows that carry it, as ``attack x defence x backbone``."""
    found: dict[str, dict[str, None]] = {}
    for row in board.to_dict("records"):
        where = f"{row['attack']} x {row['defense']} x {row['backbone']}"
        for warning in filter(None, str(row["warnings"]).split("; ")):
            found.setdefault(warning, {})[where] = None
    return {warning: list(rows) for warning, rows in found.items()}


@dataclass
class _Rows:
    """The doubts of each row; what rows share is worked out once."""

    answers: Answers
    _known: dict[tuple[str, ...], list[Doubt]] = field(default_factory=dict)

    def doubts(self, point: Point, condition: str) -> Iterator[Doubt]:
        cell = self.answers.cells[point]
        if cell.status != "ok":
            return
        folder = self.answers.folder
        if cell.cloak_measures:
            key: tuple[str, ...] = ("attack", cell.attack_diagnosis, cell.cloak_measures)
            yield from self._once(key, lambda: _of_attack(folder, cell))
        if cell.purified_measures:
            key = ("purifier", cell.purifier_diagnosis, cell.purified_measures)
            yield from self._once(key, lambda: _of_purifier(folder, cell))
        if condition not in cell.restored_measures:  # that less is left after erasing is no fault
            bare = point._replace(defense="none")
            key = ("access", *map(str, bare), condition)
            yield from self._once(key, lambda: _of_access(self.answers, bare, condition))

    def _once(self, key: tuple[str, ...], find: Callable[[], list[Doubt]]) -> list[Doubt]:
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]


def _of_attack(folder: RunFolder, cell: CellResult) -> list[Doubt]:
    if not cell.attack_diagnosis:
        return [BEFORE]
    name = cell.attack_diagnosis
    found = diagnosis.read(AttackDiagnosis, _payload(folder, name), name)
    rows = image_measures.from_bytes(_payload(folder, cell.cloak_measures), cell.cloak_measures)
    return [*doubts.of_cloaks(rows, found.max_linf, found.max_dssim), *doubts.of_attack(found)]


def _of_purifier(folder: RunFolder, cell: CellResult) -> list[Doubt]:
    if not cell.purifier_diagnosis:
        return [BEFORE]
    name = cell.purifier_diagnosis
    found = diagnosis.read(PurifierDiagnosis, _payload(folder, name), name)
    return doubts.of_purifier(found, cloaked=bool(cell.cloak_measures))


def _payload(folder: RunFolder, name: str) -> bytes:
    try:
        return (folder.path / name).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{folder.path / name} is missing; run the same command again to write it.") from None


# -- white-box against black-box -----------------------------------------------------------------------


def _of_access(answers: Answers, point: Point, condition: str) -> list[Doubt]:
    """Return whether a white-box cell without defence has less success than its black-box counterparts.

    Counterparts are the same attack made on other surrogates against the same tracker; where the run has
    none, the same attack against other trackers. The latter differ in errors without a cloak too, so there
    the success is counted above those.
    """
    if _access(answers, point) != "white-box":
        return []
    siblings = [p for p in answers.cells if _differs_by_surrogates(p, point) and _is_black_box(answers, p)]
    if siblings:
        found = (_tested(answers, point, one, condition) for one in siblings)
        against = (f"black-box from the surrogates of {one.attack}" for one in siblings)
        return [doubt for test, text in zip(found, against, strict=True) for doubt in _judged(test, text)]
    others = [
        p for p in answers.cells if p._replace(backbone=point.backbone) == point and _is_black_box(answers, p)
    ]
    own = _earned(answers, point, condition)
    rates = [earned for p in others if (earned := _earned(answers, p, condition)) is not None]
    if own is None or not rates:
        return []
    names = ", ".join(p.backbone for p in others)
    test = _paired(answers, own, significance.mean_over(rates), ("others", *map(str, point), condition))
    return _judged(test, f"black-box on {names}, errors without a cloak taken off")


def _judged(test: tuple[float | None, float | None], against: str) -> list[Doubt]:
    return doubts.of_access(*test, against)


def _access(answers: Answers, point: Point) -> str:
    cell = answers.cells.get(point)
    return cell.threat.access if cell is not None and cell.status == "ok" else ""


def _is_black_box(answers: Answers, point: Point) -> bool:
    return _access(answers, point) == "black-box"


def _differs_by_surrogates(one: Point, other: Point) -> bool:
    if one.attack == other.attack or one._replace(attack=other.attack) != other:
        return False
    return _without_surrogates(one.attack) == _without_surrogates(other.attack)


def _without_surrogates(attack: str) -> tuple[str, dict[str, str]]:
    written = parse(attack)
    values = dict(written.values)
    values.pop("surrogates", None)
    return written.name, values


def _tested(
    answers: Answers, white: Point, black: Point, condition: str
) -> tuple[float | None, float | None]:
    first, second = (answers.people(point, condition) for point in (white, black))
    if first is None or second is None:
        return None, None
    return _paired(answers, first["asr"], second["asr"], (*map(str, white), black.attack, condition))


def _earned(answers: Answers, point: Point, condition: str) -> "pd.Series[float] | None":
    """Return each person's ASR above that of the uncloaked reference, None where one of both is missing."""
    own = answers.people(point, condition)
    bare = answers.people(point._replace(attack="none"), condition)
    return None if own is None or bare is None else own["asr"] - bare["asr"]


def _paired(
    answers: Answers, first: "pd.Series[float]", second: "pd.Series[float]", stream: tuple[str, ...]
) -> tuple[float | None, float | None]:
    """Return the mean difference over people and its two-sided p value; None where it cannot be tested."""
    differences = (first - second).dropna()
    if (differences.abs() > 0).sum() < significance.LEAST_DIFFERING:
        return None, None
    rng = numpy_generator(answers.facts.spec.split_seed, "doubt/access", *stream)
    return float(differences.mean()), significance.sign_flip_test(differences.to_numpy(), rng)
