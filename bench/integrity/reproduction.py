"""Holds a run made here against the table that was published for its suite.

What lives here: which suites have a published table, and the comparison of two leaderboards of one suite. What must
not: fetching what a suite needs (`bench.assets`) and making the run (`bench.run.runner`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from bench.errors import DataError, UsageError, unknown
from bench.files import write_atomically
from bench.integrity.verify import differences_of_environment
from bench.leaderboard import as_csv
from bench.leaderboard.columns import KEY
from bench.leaderboard.plausible import EVALUATED
from bench.run.folder import RunFolder
from bench.run.planning import Prepared
from bench.run.spec import RunSpec, load_suite, make_spec

State = Literal["same", "within", "outside", "failed", "missing"]

RECORD = ("spec.json", "environment.json")
"""Files of a run's folder that say what its table was made with."""

MEASURES = ("asr", "normal_accuracy")
"""What is held against its published interval."""

CELL = tuple(name for name in KEY if name not in ("dataset", "protocol"))
"""What names a rate: a suite has one dataset and one protocol, which are compared as the other columns are."""

_WHERE = "They are in results/ of a clone of the project: give the command there, or --results FOLDER."

_DIGITS = 5e-7
"""Half of the last digit that a table shows."""

_ASKED = ("dataset", "protocol", "n_identities", "n_probes", "benchmark_version")
_MADE = ("surrogates", "extractors", "access", "attack_seen_by_defense", "threshold")
_PICTURES = {
    "cloak_psnr": "the cloaks' PSNR, dB",
    "cloak_linf": "the cloaks' L∞, grey levels",
    "purified_psnr": "the purified images' PSNR, dB",
}
_PLAIN = {
    "baseline_error": "the error without any cloak",
    "defended_baseline_error": "that behind the defence",
}

_NOTABLE_DB = 0.05
_NOTABLE_RATE = 0.001


@dataclass(frozen=True)
class Published:
    """A suite with the table that was published for it.

    Attributes:
        name: as `bench reproduce` knows it.
        suite: the suite file.
        table: the leaderboard's CSV.
        record: folder with the ``spec.json`` and ``environment.json`` of the run that made the table: methods by
            digest, packages and machine; need not have them.
        quick: the smaller suite that stands for it, None where there is none.
    """

    name: str
    suite: Path
    table: Path
    record: Path
    quick: Published | None = None


@dataclass(frozen=True)
class Value:
    """One published rate and the same made here.

    Attributes:
        cell: attack, defence, backbone, head, condition and seed, joined.
        measure: ``asr`` or ``normal_accuracy``.
        published: in [0, 1]; None where the table has none.
        low: lower end of the published 95 % interval over identities; None where there is none.
        high: upper end.
        here: what was made here, in [0, 1].
        state: ``same`` to the last digit that the table shows; ``within`` or ``outside`` the published interval, or,
            where 0 or 1 was made here, whether this one's interval holds the published rate;
            ``failed`` here; ``missing`` here or there.
        why: what else of the row differs, or the reason of the failure; "" where nothing does.
    """

    cell: str
    measure: str
    published: float | None
    low: float | None
    high: float | None
    here: float | None
    state: State
    why: str = ""

    @property
    def difference(self) -> float | None:
        """Here minus published; None where one is missing."""
        return None if self.here is None or self.published is None else self.here - self.published


@dataclass(frozen=True)
class Mean:
    """A defence's attack success rate in the mean over all cells with a cloak, there and here; in [0, 1].

    Attributes:
        head: the tracker's head.
        defense: canonical.
        cells: averaged over.
        published: of the table.
        here: made here.
    """

    head: str
    defense: str
    cells: int
    published: float
    here: float


@dataclass(frozen=True)
class Outcome:
    """What came of making a published table again.

    Attributes:
        rates: every one of the table, in its order.
        means: the published means with ours.
        environment: what differs from the machine, packages, code and weights the table was made with, one sentence
            each; None where these are not recorded.
    """

    rates: tuple[Value, ...]
    means: tuple[Mean, ...]
    environment: tuple[str, ...] | None

    def count(self, *states: State) -> int:
        """Return how many rates have one of the states."""
        return sum(value.state in states for value in self.rates)

    @property
    def reproduced(self) -> bool:
        """Whether every rate is there and within its published interval."""
        return bool(self.rates) and self.count("same", "within") == len(self.rates)

    @property
    def verdict(self) -> str:
        """What came of it, in a sentence."""
        counted = (
            f"{self.count('same')} of {len(self.rates)} rates are the published ones to the last digit, "
            f"{self.count('within')} within their published 95 % intervals"
        )
        states: tuple[State, ...] = ("outside", "failed", "missing")
        rest = [f"{self.count(state)} {state}" for state in states if self.count(state)]
        # What differs by less than the table shows has not moved.
        moved = [each.difference for each in self.rates if each.state != "same" and each.difference]
        shift = (
            f" The largest difference is {100 * max(moved, key=abs):+.1f} points, the mean over all rates "
            f"{100 * sum(moved) / len(self.rates):+.2f}; {sum(each > 0 for each in moved)} rates are higher here and "
            f"{sum(each < 0 for each in moved)} lower."
            if moved
            else ""
        )
        head = "Reproduced: " if self.reproduced else "Not reproduced: "
        return f"{head}{', '.join([counted, *rest])}.{shift}"


def published(folder: Path) -> dict[str, Published]:
    """Return the suites of a folder that have a published table, by name.

    A suite is ``NAME.toml``, its table ``NAME.csv``, the quick form of both ``NAME-quick.*``. Suites of other
    commands (`bench ablate`) are none.
    """
    names = sorted(
        path.stem for path in folder.glob("*.toml") if path.with_suffix(".csv").is_file() and _is_suite(path)
    )
    found = {name: _of(folder, name) for name in names}
    quick = {name: found[f"{name}-quick"] for name in names if f"{name}-quick" in found}
    return {
        name: Published(one.name, one.suite, one.table, one.record, quick.get(name))
        for name, one in found.items()
        if one not in quick.values()
    }


def _is_suite(path: Path) -> bool:
    try:
        return set(tomllib.loads(path.read_text(encoding="utf-8"))) <= set(RunSpec.model_fields)
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' is no readable TOML ({error}). Take it from the project again.") from error


def _of(folder: Path, name: str) -> Published:
    return Published(name, folder / f"{name}.toml", folder / f"{name}.csv", folder / name)


def find(folder: Path, name: str, *, quick: bool = False) -> Published:
    """Return a published suite.

    Raises:
        UsageError: there is none of this name, or no quick form of it.
        DataError: the folder has no published suites.
    """
    known = published(folder)
    if not known:
        raise DataError(f"'{folder}' has no suites with published tables. {_WHERE}")
    if name not in known:
        raise unknown("published table", name, known)
    one = known[name]
    if not quick:
        return one
    if one.quick is None:
        with_quick = ", ".join(each.name for each in known.values() if each.quick) or "none"
        raise UsageError(f"'{name}' has no quick form; those with one: {with_quick}. Leave out --quick.")
    return one.quick


def find_all(folder: Path, *, quick: bool = False) -> list[Published]:
    """Return every published suite; with `quick` the quick forms of those that have one.

    Raises:
        DataError: the folder has no published suites.
        UsageError: none has a quick form.
    """
    known = published(folder)
    found = [one.quick for one in known.values() if one.quick] if quick else list(known.values())
    if found:
        return found
    if known:
        raise UsageError(f"no suite in '{folder}' has a quick form. Leave out --quick.")
    raise DataError(f"'{folder}' has no suites with published tables. {_WHERE}")


def seconds_together(plans: Sequence[Prepared]) -> float:
    """Return about how many seconds runs on one store take, artefacts that several of them need counted once."""
    done: set[str] = set()
    total = 0.0
    for prepared in plans:
        of_artefact = {group: seconds / images for group, images, seconds in _paces(prepared) if images}
        for node in prepared.missing:
            if node.address not in done:
                done.add(node.address)
                total += of_artefact.get(node.group, 0.0) * node.work
    return total


def _paces(prepared: Prepared) -> list[tuple[tuple[str, str], int, float]]:
    """Return stage and method, images and seconds of each line of a plan."""
    return [((group.stage, group.label), group.images, group.seconds) for group in prepared.groups()]


def update(one: Published, folder: RunFolder) -> None:
    """Put a finished run's table in the place of a suite's published one, and what it was made with beside it.

    Raises:
        StoreError: the files cannot be written.
    """
    one.record.mkdir(parents=True, exist_ok=True)
    places = {name: one.record / name for name in RECORD} | {"leaderboard.csv": one.table}
    for name, place in places.items():
        write_atomically(place, (folder.path / name).read_bytes(), "--results")


def compare(table: pd.DataFrame, here: pd.DataFrame, environment: tuple[str, ...] | None = None) -> Outcome:
    """Hold a leaderboard made here against the published one.

    Args:
        table: the published leaderboard.
        here: that of the run made here.
        environment: what differs between the two machines; None where it is not known.
    """
    columns = list(CELL)
    made = {_cell(row, columns): row for row in here.to_dict("records")}
    rows = [(_cell(row, columns), row) for row in table.to_dict("records")]
    values = [
        _value(cell, measure, row, made.get(cell))
        for cell, row in rows
        for measure in MEASURES
        if not pd.isna(row[measure])
    ]
    return Outcome(tuple(values), tuple(_means(table, here)), environment)


def read_table(one: Published) -> pd.DataFrame:
    """Return a suite's published table.

    Raises:
        DataError: it is damaged, or has no rows.
        UsageError: the suite is of the development split.
    """
    if (split := make_spec(load_suite(one.suite)).split) != EVALUATED:
        raise UsageError(
            f"'{one.suite}' is of split {split}: choices are made on it, and what is published and made again is of "
            f"evaluated identities. `bench run --config {one.suite}` runs it."
        )
    table = as_csv.read_csv(one.table)
    if table.empty:
        raise DataError(f"'{one.table}' has no rows. Take it from the project again.")
    return table


def compare_run(one: Published, table: pd.DataFrame, prepared: Prepared, here: pd.DataFrame) -> Outcome:
    """Hold the leaderboard of a finished run against a published suite's table.

    Args:
        one: the suite.
        table: its table.
        prepared: the run.
        here: its leaderboard.

    Raises:
        DataError: what is recorded of the table's making is damaged.
    """
    record = RunFolder(one.record)
    recorded = all((record.path / name).is_file() for name in RECORD)
    environment = tuple(differences_of_environment(record, prepared)) if recorded else None
    return compare(table, here, environment)


def _cell(row: Mapping[Any, Any], columns: list[str]) -> str:
    return " ".join(str(row[name]) for name in columns if row[name] != "")


def _number(row: Mapping[Any, Any], name: str) -> float | None:
    return None if pd.isna(row[name]) else float(row[name])


def _value(cell: str, measure: str, row: Mapping[Any, Any], made: Mapping[Any, Any] | None) -> Value:
    there = _rate(row, measure)
    stated = (cell, measure, there.rate, there.low, there.high)
    if made is None:
        return Value(*stated, None, "missing", "the run made here has no such cell")
    if made["status"] != "ok":
        return Value(*stated, None, "failed", str(made["reason"]))
    here = _rate(made, measure)
    if here.rate is None:
        return Value(*stated, None, "missing", str(made[f"{measure}_reason"]))
    state = _state(there, here)
    return Value(*stated, here.rate, state, "" if state == "same" else _why(row, made))


class _Rate(NamedTuple):
    """A rate with its interval, as far as a table has them."""

    rate: float | None
    low: float | None
    high: float | None

    def holds(self, rate: float | None) -> bool:
        """Whether a rate lies in the interval, up to the digits that tables show."""
        if rate is None or self.low is None or self.high is None:
            return False
        return self.low - _DIGITS <= rate <= self.high + _DIGITS


def _rate(row: Mapping[Any, Any], measure: str) -> _Rate:
    return _Rate(*(_number(row, f"{measure}{name}") for name in ("", "_low", "_high")))


def _state(there: _Rate, here: _Rate) -> State:
    assert here.rate is not None, "a missing rate has a state of its own"
    if there.rate is not None and abs(here.rate - there.rate) <= 2 * _DIGITS:
        return "same"
    if there.holds(here.rate):
        return "within"
    # No interval of a rate between 0 and 1 holds either, be it of one probe: there the one made here must hold.
    at_the_end = here.rate in (0, 1) and here.holds(here.rate)
    return "within" if at_the_end and here.holds(there.rate) else "outside"


def _why(row: Mapping[Any, Any], made: Mapping[Any, Any]) -> str:
    """Return what else of the two rows differs, from what was requested to what came out."""
    found = [
        f"{name.replace('_', ' ')} {_shown(row[name])}, here {_shown(made[name])}"
        for name in (*_ASKED, *_MADE)
        if name in row and _shown(row[name]) != _shown(made[name])
    ]
    for names, least, form in ((_PICTURES, _NOTABLE_DB, "{:.2f}"), (_PLAIN, _NOTABLE_RATE, "{:.4f}")):
        for name, words in names.items():
            there, here = _number(row, name), _number(made, name)
            if there is not None and here is not None and abs(here - there) >= least:
                found.append(f"{words}: {form.format(there)}, here {form.format(here)}")
    return "; ".join(found)


def _shown(value: Any) -> str:
    return as_csv.as_text(value)


def _means(table: pd.DataFrame, here: pd.DataFrame) -> list[Mean]:
    """Return the means over the cells with a cloak that both tables have."""
    both = table.merge(here, on=list(CELL), suffixes=("", "_here"))
    both = both[(both["attack"] != "none") & both["asr"].notna() & both["asr_here"].notna()]
    return [
        Mean(str(head), str(defense), len(rows), float(rows["asr"].mean()), float(rows["asr_here"].mean()))
        for (head, defense), rows in both.groupby(["head", "defense"], sort=False)
    ]
