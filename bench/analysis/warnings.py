"""The leaderboard's warnings: the facts in a run's folder, and the rules of `bench.analysis.warning_rules` on them.

In a leaderboard, a row's warnings are a `RowWarnings`; only its CSV holds them as text.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pandas as pd

from bench.analysis import reference_tests, warning_rules
from bench.analysis.results import Results
from bench.analysis.warning_rules import RULES, RowWarning
from bench.plugins.syntax import parse
from bench.quality import diagnosis, per_image
from bench.quality.diagnosis import AttackDiagnosis, PurifierDiagnosis
from bench.quality.near_duplicates import SamePhotos
from bench.randomness import numpy_generator
from bench.run.folder import CellResult, RunFolder
from bench.run.spec import Cell
from bench.stats import significance
from bench.stats.unlike_spread import unlike_spread

BEFORE = RowWarning(
    "not-diagnosed", "the run was made before diagnoses were kept, the same command writes them now"
)


class RowWarnings(tuple[RowWarning, ...]):
    """The warnings of one row of a leaderboard; its text is the field of the CSV."""

    __slots__ = ()

    @classmethod
    def of(cls, warnings: Iterable[RowWarning]) -> "RowWarnings":
        """Return warnings, each once, in the order of `RULES`."""
        order = list(RULES)
        return cls(sorted(dict.fromkeys(warnings), key=lambda warning: order.index(warning.code)))

    @classmethod
    def from_text(cls, text: str) -> "RowWarnings":
        """Return the warnings of a CSV's field, as `str` wrote them.

        Sentences may hold a semicolon, so only one before a code of `RULES` separates two warnings.

        Raises:
            ValueError: the text does not begin with a code.
        """
        before, *pieces = _CODE.split(text)
        if before:
            raise ValueError(f"the warning '{before}', which begins with no code of {', '.join(RULES)}")
        return cls(map(RowWarning, pieces[::2], pieces[1::2]))

    def __str__(self) -> str:
        return "; ".join(map(str, self))


_CODE = re.compile(rf"(?:^|; )({'|'.join(map(re.escape, RULES))}): ")


def warning_columns(results: Results, leaderboard: pd.DataFrame) -> dict[str, list[RowWarnings]]:
    """Return the leaderboard's column `warnings`.

    Args:
        results: of the run.
        leaderboard: with the columns that name a row, `condition` and `p_holm`.

    Raises:
        DataError: a file of the run's folder is missing or damaged.
    """
    rows = _Rows(results)
    keys = leaderboard[[*Cell._fields, "condition"]].itertuples(index=False, name=None)
    tested = [None if pd.isna(p) else float(p) for p in leaderboard["p_holm"]]
    return {
        "warnings": [
            RowWarnings.of(
                [*rows.warnings(point := Cell(*key[:-1]), key[-1]), *rows.of_test(point, key[-1], p)]
            )
            for key, p in zip(keys, tested, strict=True)
        ]
    }


def by_warning(leaderboard: pd.DataFrame) -> dict[RowWarning, list[str]]:
    """Return each warning of a leaderboard → the rows that carry it, as ``attack x defence x backbone``."""
    found: dict[RowWarning, dict[str, None]] = {}
    for row in leaderboard.to_dict("records"):
        where = f"{row['attack']} x {row['defense']} x {row['backbone']}"
        for warning in row["warnings"]:
            found.setdefault(warning, {})[where] = None
    return {warning: list(rows) for warning, rows in found.items()}


@dataclass
class _Rows:
    """The warnings of each row; what rows share is worked out once."""

    results: Results
    _known: dict[tuple[str, ...], list[RowWarning]] = field(default_factory=dict)

    def warnings(self, point: Cell, condition: str) -> Iterator[RowWarning]:
        cell = self.results.cells[point]
        if cell.status != "ok":
            return
        folder = self.results.folder
        if cell.cloak_measures:
            key: tuple[str, ...] = ("attack", cell.attack_diagnosis, cell.cloak_measures)
            yield from self._once(key, lambda: _of_attack(folder, cell))
        if cell.purified_measures:
            key = ("purifier", cell.purifier_diagnosis, cell.purified_measures)
            yield from self._once(key, lambda: _of_purifier(folder, cell))
        if cell.photo_diagnosis:  # earlier versions wrote none
            yield from self._once(("photos", cell.photo_diagnosis), lambda: _of_photos(self.results, cell))
        measured = self.results.measured(point, condition)
        if measured is not None and warning_rules.may_be_alike(measured.answers, measured.spread):
            rows = self.results.rows(point, condition)
            yield from () if rows is None else warning_rules.of_scores(rows)
        if condition not in cell.restored_measures:  # that less is left after erasing is no fault
            undefended = point._replace(defense="none")
            key = ("access", *map(str, undefended), condition)
            yield from self._once(key, lambda: _of_access(self.results, undefended, condition))

    def of_test(self, point: Cell, condition: str, p_holm: float | None) -> list[RowWarning]:
        """Return the warning about a row's p value, which is over all its seeds."""
        if p_holm is None or p_holm > warning_rules.ALPHA:
            return []
        key = ("test", *map(str, point._replace(seed=0)), condition)
        return self._once(
            key, lambda: warning_rules.of_test(p_holm, _unlike_spread(self.results, point, condition))
        )

    def _once(self, key: tuple[str, ...], find: Callable[[], list[RowWarning]]) -> list[RowWarning]:
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]


def _of_attack(folder: RunFolder, cell: CellResult) -> list[RowWarning]:
    if not cell.attack_diagnosis:
        return [BEFORE]
    name = cell.attack_diagnosis
    found = diagnosis.read(AttackDiagnosis, folder.content(name), name)
    rows = per_image.from_bytes(folder.content(cell.cloak_measures), cell.cloak_measures)
    return [*warning_rules.of_cloaks(rows, found.max_linf, found.max_dssim), *warning_rules.of_attack(found)]


def _of_purifier(folder: RunFolder, cell: CellResult) -> list[RowWarning]:
    if not cell.purifier_diagnosis:
        return [BEFORE]
    name = cell.purifier_diagnosis
    found = diagnosis.read(PurifierDiagnosis, folder.content(name), name)
    return warning_rules.of_purifier(found, cloaked=bool(cell.cloak_measures))


def _of_photos(results: Results, cell: CellResult) -> list[RowWarning]:
    name = cell.photo_diagnosis
    found = diagnosis.read(SamePhotos, results.folder.content(name), name)
    return warning_rules.of_photos(found, results.facts.dataset_note)


def _unlike_spread(results: Results, point: Cell, condition: str) -> str:
    """Return `unlike_spread` of a row and its reference; "" where they have no rates."""
    rates = reference_tests.rates_compared(results, point, condition)
    return "" if rates is None else unlike_spread(*rates)


# -- white-box against black-box -----------------------------------------------------------------------


def _of_access(results: Results, point: Cell, condition: str) -> list[RowWarning]:
    """Return whether a white-box cell without defence has less success than its black-box counterparts.

    Counterparts are the same attack made on other surrogates against the same tracker; where the run has
    none, the same attack against other trackers. The latter differ in errors without a cloak too, so there
    the success is counted above those.
    """
    if _access(results, point) != "white-box":
        return []
    siblings = [p for p in results.cells if _differs_by_surrogates(p, point) and _is_black_box(results, p)]
    if siblings:
        found = (_tested(results, point, one, condition) for one in siblings)
        against = (f"black-box from the surrogates of {one.attack}" for one in siblings)
        return [warning for test, text in zip(found, against, strict=True) for warning in _judged(test, text)]
    others = [
        p for p in results.cells if p._replace(backbone=point.backbone) == point and _is_black_box(results, p)
    ]
    own = _gain(results, point, condition)
    rates = [gain for p in others if (gain := _gain(results, p, condition)) is not None]
    if own is None or not rates:
        return []
    names = ", ".join(p.backbone for p in others)
    test = _paired(results, own, significance.mean_over(rates), ("others", *map(str, point), condition))
    return _judged(test, f"black-box on {names}, errors without a cloak subtracted")


def _judged(test: tuple[float | None, float | None], against: str) -> list[RowWarning]:
    return warning_rules.of_access(*test, against)


def _access(results: Results, point: Cell) -> str:
    cell = results.cells.get(point)
    return cell.threat.access if cell is not None and cell.status == "ok" else ""


def _is_black_box(results: Results, point: Cell) -> bool:
    return _access(results, point) == "black-box"


def _differs_by_surrogates(one: Cell, other: Cell) -> bool:
    if one.attack == other.attack or one._replace(attack=other.attack) != other:
        return False
    return _without_surrogates(one.attack) == _without_surrogates(other.attack)


def _without_surrogates(attack: str) -> tuple[str, dict[str, str]]:
    written = parse(attack)
    values = dict(written.values)
    values.pop("surrogates", None)
    return written.name, values


def _tested(results: Results, white: Cell, black: Cell, condition: str) -> tuple[float | None, float | None]:
    first, second = (results.rates_of(point, condition, "asr") for point in (white, black))
    if first is None or second is None:
        return None, None
    return _paired(results, first, second, (*map(str, white), black.attack, condition))


def _gain(results: Results, point: Cell, condition: str) -> "pd.Series[float] | None":
    """Return each identity's ASR minus its error rate without a cloak, None where one of the two is missing."""
    own = results.rates_of(point, condition, "asr")
    uncloaked = results.rates_of(point._replace(attack="none"), condition, "asr")
    return None if own is None or uncloaked is None else own - uncloaked


def _paired(
    results: Results, first: "pd.Series[float]", second: "pd.Series[float]", stream: tuple[str, ...]
) -> tuple[float | None, float | None]:
    """Return the mean difference over identities and its two-sided p value; None where it cannot be tested."""
    differences = (first - second).dropna()
    if (differences.abs() > 0).sum() < significance.LEAST_DIFFERING:
        return None, None
    rng = numpy_generator(results.facts.spec.split_seed, "doubt/access", *stream)
    return float(differences.mean()), significance.sign_flip_test(differences.to_numpy(), rng)
