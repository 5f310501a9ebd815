"""`bench reproduce`."""

from dataclasses import asdict
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
from bench.cli.output import percent, print_json
from bench.cli.worker import in_worker

if TYPE_CHECKING:
    import pandas as pd

    from bench.integrity.reproduction import Outcome, Published, Value
    from bench.run.planning import Prepared

SHOWN = 12
"""Rates outside their intervals that are printed; --json has all."""

_EXAMPLES = """\b
Examples:
  bench reproduce
  bench reproduce headline --quick
  bench reproduce headline --threads 4 --out runs/headline
"""


@click.command(epilog=_EXAMPLES)
@click.argument("name", required=False)
@click.option("--quick", is_flag=True, help="The small form of it, which takes minutes.")
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
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. [default: runs/NAME]")
@lpips_trunk_option
@engine_options
@json_option
@in_worker
def reproduce(
    name: str | None, quick: bool, folder: Path | None, source: str, yes: bool, as_json: bool, **machine: Any
) -> None:
    """Make the published table NAME again: fetch what it needs, run it, and compare.

    Every rate is held against its published 95 % interval; what differs is shown with what else of its row differs.
    Without NAME, lists the tables that can be made again. A run that was killed goes on where it was.

    Exit code 0: every rate is within its published interval; 1: some are not, or a cell failed; 2: it cannot be run.
    """
    from bench.integrity import reproduction

    place = folder or _results()
    if name is None:
        _list(reproduction.published(place), as_json=as_json)
        return
    one = reproduction.find(place, name, quick=quick)
    table = reproduction.read_table(one)
    _fetch(one, source, yes=yes)
    prepared = _prepared(one, machine)
    outcome = reproduction.compare_run(one, table, prepared, _leaderboard(prepared))
    if as_json:
        _print_json(one, prepared, outcome)
    else:
        _print(one, prepared, outcome)
    if not outcome.reproduced:
        click.get_current_context().exit(1)


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


def _prepared(one: "Published", machine: dict[str, Any]) -> "Prepared":
    from bench.run import planning
    from bench.run.spec import load_suite, make_spec

    machine["engine"] = engines.take(machine)
    machine["out"] = machine["out"] or Path("runs") / one.name
    options = planning.Options(**machine, command=f"bench run --config {one.suite}")
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


def _print_json(one: "Published", prepared: "Prepared", outcome: "Outcome") -> None:
    head = {"name": one.name, "table": str(one.table), "folder": str(prepared.folder.path)}
    print_json(
        {**head, "reproduced": outcome.reproduced, "verdict": outcome.verdict, **asdict(outcome)},
    )


def _print(one: "Published", prepared: "Prepared", outcome: "Outcome") -> None:
    click.echo("ASR in per cent, mean over all cells with a cloak: published, here")
    for mean in outcome.means:
        click.echo(
            f"  {mean.head}, {mean.defense}: {percent(mean.published)}, {percent(mean.here)} ({mean.cells} cells)"
        )
    _print_values([value for value in outcome.rates if value.state in ("outside", "failed", "missing")])
    _print_environment(outcome)
    click.echo(f"Published: {one.table}; made here: {prepared.folder.path / 'leaderboard.csv'}")
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
