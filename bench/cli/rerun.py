"""`bench rerun`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import json_option, lpips_trunk_option

if TYPE_CHECKING:
    from bench.integrity.rerun import RerunOutcome

SHOWN = 20
"""Differences that are printed; --json has all."""


@click.command(epilog="Example: bench rerun runs/3f2a --out runs/again")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The new folder. [default: RUN-rerun]")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Reuse the artefacts of this folder. [default: none; OUT-store is made and, when done, removed]",
)
@click.option("--device", default="auto", help="Compute here. [default: as the run did]")
@click.option("--threads", type=click.IntRange(1), help="Threads. [default: as the run had]")
@lpips_trunk_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def rerun(
    run: Path,
    out: Path | None,
    store: Path | None,
    device: str,
    threads: int | None,
    lpips_trunk: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make the finished run in folder RUN again from that folder alone, and compare the leaderboards.

    A rerun that was killed goes on where it was. Exit code 0: identical; 1: rows differ; 2: something the
    run was made with is missing or has changed, or no cell could be made.
    """
    from bench.cli.progress import counting
    from bench.integrity import rerun as again
    from bench.integrity.verify import differences_of_environment
    from bench.run.folder import RunFolder
    from bench.run.planning import Options

    folder = RunFolder(run)
    facts = folder.facts()
    place = again.checked_place(folder, out)
    own = None if store else again.OwnStore.beside(place, facts.run)
    options = Options(
        device=device,
        threads=threads,
        store=store or (own.path if own else None),
        out=place,
        lpips_trunk=lpips_trunk,
        command=facts.command,
    )
    prepared = again.prepare_rerun(folder, options)
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
        document = {
            "run": prepared.run.digest,
            "folder": str(place),
            "environment_differs": changed,
            "identical": outcome.identical,
            **asdict(outcome),
        }
        click.echo(json.dumps(document, indent=1))
    else:
        _print(outcome, run, place)
    if code := outcome.exit_code:
        click.get_current_context().exit(code)


def _print(outcome: "RerunOutcome", run: Path, place: Path) -> None:
    for cell in outcome.failed:
        click.echo(f"FAILED {cell}")
    if outcome.stored:
        click.echo(outcome.stored)
    if outcome.differences:
        rows = len({difference.row for difference in outcome.differences})
        click.echo(f"{rows} rows differ, in {len(outcome.differences)} values (run, then run again):")
        for each in outcome.differences[:SHOWN]:
            by = "" if each.difference is None else f" (by {each.difference:+.6g})"
            click.echo(f"  {each.row}: {each.column or 'row'} {each.first!r}, {each.second!r}{by}")
        if len(outcome.differences) > SHOWN:
            click.echo(f"  and {len(outcome.differences) - SHOWN} more; --json lists them.")
    elif outcome.failed:
        click.echo(
            f"{len(outcome.failed)} cells failed again, with the same reasons; nothing can be said of their numbers. "
            f"The other {outcome.made} cells in {place} are those of {run}."
        )
    elif outcome.identical:
        click.echo(f"Identical: the leaderboard in {place} is that of {run}.")
