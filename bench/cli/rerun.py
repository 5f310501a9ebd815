"""`bench verify --rerun`: a run made again from its folder alone."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bench.integrity.rerun import OwnStore, RerunOutcome
    from bench.run.folder import RunFolder
    from bench.run.planning import Prepared

SHOWN = 20
"""Differences that are printed; --json has all."""


def rerun(run: Path, out: Path | None, machine: Mapping[str, Any], *, as_json: bool, quiet: bool) -> int:
    """Make a finished run again, compare the leaderboards, print the outcome and return the exit code.

    Args:
        run: the run's folder.
        out: the new folder; None for RUN-rerun.
        machine: device, threads, LPIPS trunk and store, as `bench.run.planning.Options` has them; without a store the
            run gets one of its own, which is removed when it is done.
        as_json: print one JSON document.
        quiet: show no progress.

    Raises:
        UsageError: the folder to write is that of a run, or the run cannot be made here.
        DataError: what the run was made with is missing.
    """
    from bench.cli.progress import counting
    from bench.integrity import rerun as again
    from bench.integrity.verify import differences_of_environment
    from bench.run.folder import RunFolder

    folder = RunFolder(run)
    place = again.checked_place(folder, out)
    own = None if machine["store"] else again.OwnStore.beside(place, folder.facts().run)
    prepared = _prepared(folder, place, machine, own)
    changed = differences_of_environment(folder, prepared)
    if changed and not as_json:
        click.echo("This is not what the run was made on, so that rows may differ:")
        click.echo("".join(f"  {line}\n" for line in changed), nl=False)
    total = sum(node.images for node in prepared.missing)
    if own:
        own.make()
    with counting(f"run {prepared.run.digest}", total, hidden=quiet or as_json) as advance:
        outcome = again.rerun(folder, prepared, lambda _node, n: advance(n))
    if own:
        own.remove()
    if as_json:
        head = {"run": prepared.run.digest, "folder": str(place), "environment_differs": changed}
        click.echo(json.dumps({**head, "identical": outcome.identical, **asdict(outcome)}, indent=1))
    else:
        _print(outcome, run, place)
    return outcome.exit_code


def _prepared(
    folder: "RunFolder", place: Path, machine: Mapping[str, Any], own: "OwnStore | None"
) -> "Prepared":
    from bench.integrity import rerun as again
    from bench.run.planning import Options

    store = machine["store"] or (own.path if own else None)
    options = Options(**{**machine, "store": store}, out=place, command=folder.facts().command)
    return again.prepare_rerun(folder, options)


def _print(outcome: "RerunOutcome", run: Path, place: Path) -> None:
    for cell in outcome.failed:
        click.echo(f"FAILED {cell}")
    if outcome.stored:
        click.echo(outcome.stored)
    if outcome.differences:
        rows = len({difference.row for difference in outcome.differences})
        click.echo(f"{rows} rows differ, in {len(outcome.differences)} values (run, then rerun):")
        for each in outcome.differences[:SHOWN]:
            by = "" if each.difference is None else f" (by {each.difference:+.6g})"
            click.echo(f"  {each.row}: {each.column or 'row'} {each.first!r}, {each.second!r}{by}")
        if len(outcome.differences) > SHOWN:
            click.echo(f"  and {len(outcome.differences) - SHOWN} more; --json lists them.")
    elif outcome.failed:
        click.echo(
            f"{len(outcome.failed)} cells failed again, with the same reasons, so that their numbers cannot be "
            f"compared. The other {outcome.made} cells in {place} are those of {run}."
        )
    elif outcome.identical:
        click.echo(f"Identical: the leaderboard in {place} is that of {run}.")
