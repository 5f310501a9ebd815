"""`bench reproduce`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import engines
from bench.cli.options import (
    device_option,
    engine_options,
    json_option,
    lpips_trunk_option,
    store_option,
    threads_option,
)
from bench.cli.output import duration, percent, print_json
from bench.cli.worker import in_worker
from bench.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

    from bench.integrity.reproduction import Outcome, Published, Value
    from bench.run.planning import Prepared

SHOWN = 12
"""Rates outside their intervals that are printed; --json has all."""

ALL = "all"
"""What stands for every published table in place of a name."""

_EXAMPLES = """\b
Examples:
  bench reproduce
  bench reproduce headline --quick
  bench reproduce headline --threads 4 --out runs/headline
  bench reproduce all --dry-run
"""


@click.command(epilog=_EXAMPLES)
@click.argument("name", required=False)
@click.option("--quick", is_flag=True, help="The small form of it, which takes minutes.")
@click.option(
    "--dry-run", is_flag=True, help="Only say about how long it takes; computes and fetches nothing."
)
@click.option(
    "--update",
    is_flag=True,
    help="After the comparison put the table made here, and what it was made with, in the place of the published one.",
)
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of suites and their tables. [default: results/ here or of the clone]",
)
@click.option(
    "--from",
    "source",
    default="",
    metavar="URL_OR_FOLDER",
    help="Fetch what is missing from this mirror. [default: the public sources]",
)
@click.option("--yes", is_flag=True, help="Agree to the terms of what is fetched.")
@device_option
@threads_option
@store_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run's folder; of `all` the folder that holds one for each. [default: runs/NAME]",
)
@lpips_trunk_option
@engine_options
@json_option
@in_worker
def reproduce(
    name: str | None,
    quick: bool,
    dry_run: bool,
    update: bool,
    folder: Path | None,
    source: str,
    yes: bool,
    as_json: bool,
    **machine: Any,
) -> None:
    """Make the published table NAME again: fetch what it needs, run it, and compare.

    Every rate is held against its published 95 % interval; what differs is shown with what else of its row differs.
    Without NAME, lists the tables that can be made again; `all` makes every one of them, the quickest first, and what
    two of them share once. A run that was killed goes on where it was; `all` does too.

    Exit code 0: every rate is within its published interval; 1: some are not, or a cell failed; 2: it cannot be run.
    """
    from bench.integrity import reproduction

    place = folder or _results()
    if name is None:
        _list(reproduction.published(place), as_json=as_json)
        return
    machine["engine"] = engines.take(machine)
    wanted = _wanted(place, name, quick=quick)
    if dry_run:
        _show_plans([_planned(one, machine, among=name == ALL) for one in wanted], as_json=as_json)
        return
    if name == ALL:
        _make_all(wanted, machine, source, yes=yes, update=update, as_json=as_json)
        return
    (one,) = wanted
    made = _make(one, machine, source, yes=yes, update=update)
    if as_json:
        print_json(made.document())
    else:
        _print(made)
    if not made.outcome.reproduced:
        click.get_current_context().exit(1)


@dataclass(frozen=True)
class _Made:
    """A table made again."""

    one: "Published"
    prepared: "Prepared"
    outcome: "Outcome"

    def document(self) -> dict[str, Any]:
        """Return what --json prints of it."""
        return {
            "name": self.one.name,
            "table": str(self.one.table),
            "folder": str(self.prepared.folder.path),
            "reproduced": self.outcome.reproduced,
            "verdict": self.outcome.verdict,
            **asdict(self.outcome),
        }


@dataclass(frozen=True)
class _Planned:
    """What it takes to make a table again; `prepared` is None where it cannot be made, for the reason given."""

    one: "Published"
    prepared: "Prepared | None"
    reason: str = ""

    @property
    def seconds(self) -> float:
        """About how long it takes by itself."""
        return sum(group.seconds for group in self.prepared.groups()) if self.prepared else 0.0


def _wanted(place: Path, name: str, *, quick: bool) -> "list[Published]":
    """Return the suites to make: the one of this name, or all of them.

    Raises:
        UsageError: there is none of this name, or no quick form of it.
        DataError: the folder has no published suites.
    """
    from bench.integrity import reproduction

    if name != ALL:
        return [reproduction.find(place, name, quick=quick)]
    return reproduction.find_all(place, quick=quick)


def _planned(one: "Published", machine: dict[str, Any], *, among: bool) -> _Planned:
    """Plan a suite; of several, one that cannot be made says why.

    Raises:
        BenchError: it cannot be made and is the only one.
    """
    try:
        return _Planned(one, _prepared(one, machine, among=among))
    except BenchError as error:
        if not among:
            raise
        return _Planned(one, None, str(error))


def _show_plans(plans: list[_Planned], *, as_json: bool) -> None:
    """Print about how long each table takes, and all of them, what they share counted once."""
    from bench.integrity.reproduction import seconds_together

    together = seconds_together([plan.prepared for plan in plans if plan.prepared])
    if as_json:
        of_each = [
            {
                "name": plan.one.name,
                "cells": len(plan.prepared.run.cells) if plan.prepared else None,
                "seconds": plan.seconds if plan.prepared else None,
                "reason": plan.reason,
            }
            for plan in plans
        ]
        print_json({"tables": of_each, "seconds": together})
        return
    for plan in plans:
        if plan.prepared is None:
            click.echo(f"{plan.one.name}: cannot be made: {plan.reason}")
            continue
        cells, cached = len(plan.prepared.run.cells), plan.prepared.cached_cells()
        click.echo(f"{plan.one.name}: {cells} cells, {cached} cached, about {duration(plan.seconds)}")
    if len(plans) > 1:
        click.echo(f"Together about {duration(together)}, what several tables share counted once.")


def _make_all(
    wanted: "list[Published]",
    machine: dict[str, Any],
    source: str,
    *,
    yes: bool,
    update: bool,
    as_json: bool,
) -> None:
    """Make every table again, the quickest first; one that cannot be made keeps no other from being made."""
    plans = sorted(
        (_planned(one, machine, among=True) for one in wanted), key=lambda plan: (plan.seconds, plan.one.name)
    )
    documents, outside, broken = [], False, False
    for plan in plans:
        try:
            made = _make(plan.one, machine, source, yes=yes, update=update, among=True)
        except BenchError as error:
            broken = True
            documents.append({"name": plan.one.name, "reproduced": False, "verdict": str(error)})
        else:
            outside |= not made.outcome.reproduced
            documents.append(made.document())
        if not as_json:
            click.echo(f"{plan.one.name}: {documents[-1]['verdict']}")
    if as_json:
        print_json(documents)
    if outside or broken:
        click.get_current_context().exit(2 if broken else 1)


def _make(
    one: "Published", machine: dict[str, Any], source: str, *, yes: bool, update: bool, among: bool = False
) -> _Made:
    """Fetch what a suite needs, run it, and hold its table against the published one.

    Raises:
        BenchError: it cannot be run.
    """
    from bench.integrity import reproduction

    table = reproduction.read_table(one)
    _fetch(one, source, yes=yes)
    prepared = _prepared(one, machine, among=among)
    outcome = reproduction.compare_run(one, table, prepared, _leaderboard(prepared))
    if update:
        reproduction.update(one, prepared.folder)
    return _Made(one, prepared, outcome)


def _results() -> Path:
    """Return the folder of suites: here, or of the clone that the package is installed from."""
    import bench

    clone = Path(bench.__file__).parents[1] / "results"
    here = Path("results")
    return here if here.is_dir() or not clone.is_dir() else clone


def _list(known: "dict[str, Published]", *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(one) for one in known.values()])
        return
    for name, one in known.items():
        click.echo(f"{name}{' (--quick)' if one.quick else ''}: {one.suite}, {one.table}")


def _fetch(one: "Published", source: str, *, yes: bool) -> None:
    """Fetch what the suite needs and is not here."""
    from bench.cli.fetch import fetch_for
    from bench.quality.lpips_trunk import ENTRY

    fetch_for(one.suite, source, yes=yes, may_lack=(ENTRY.name,))  # it measures pictures, and is in no rate


def _prepared(one: "Published", machine: dict[str, Any], *, among: bool) -> "Prepared":
    """Plan a suite's run; among others its folder lies in the one that was named."""
    from bench.run import planning
    from bench.run.spec import load_suite, make_spec

    out = machine["out"]
    if out is None or among:
        out = (out or Path("runs")) / one.name
    options = planning.Options(**{**machine, "out": out}, command=f"bench run --config {one.suite}")
    return planning.prepare(make_spec(load_suite(one.suite)), options)


def _leaderboard(prepared: "Prepared") -> "pd.DataFrame":
    """Make the run and return its leaderboard, which is written into its folder."""
    from bench.cli.run import progress
    from bench.leaderboard import as_csv
    from bench.run import runner

    prepared.folder.check_free_for(prepared.run.digest)
    with progress(prepared) as advance:
        runner.execute(prepared, advance)
    return as_csv.write(prepared.folder)


# -- what is printed ----------------------------------------------------------------------------------------------


def _print(made: _Made) -> None:
    outcome = made.outcome
    click.echo("ASR in per cent, mean over all cells with a cloak: published, here")
    for mean in outcome.means:
        click.echo(
            f"  {mean.head}, {mean.defense}: {percent(mean.published)}, {percent(mean.here)} ({mean.cells} cells)"
        )
    _print_values([value for value in outcome.rates if value.state in ("outside", "failed", "missing")])
    _print_environment(outcome)
    click.echo(f"Published: {made.one.table}; made here: {made.prepared.folder.path / 'leaderboard.csv'}")
    click.echo(outcome.verdict)


def _print_values(odd: "list[Value]") -> None:
    for value in odd[:SHOWN]:
        click.echo(
            f"{value.state.upper()} {value.cell}: {value.measure} "
            f"{percent(value.published, value.low, value.high)} published, {percent(value.here)} here"
            + (f" ({value.why})" if value.why else "")
        )
    if len(odd) > SHOWN:
        click.echo(f"and {len(odd) - SHOWN} more; --json lists them.")


def _print_environment(outcome: "Outcome") -> None:
    if outcome.environment is None:
        click.echo("What the published table was made on is not recorded beside it.")
    elif outcome.environment:
        click.echo("Made on something else than the published table, so that last digits may differ:")
        click.echo("".join(f"  {line}\n" for line in outcome.environment), nl=False)
