"""`bench verify`: a finished run checked, or made again from its folder alone."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.cli.options import json_option, lpips_trunk_option, store_option
from bench.cli.output import counting, duration, is_silent, print_json
from bench.cli.worker import in_worker

if TYPE_CHECKING:
    from bench.integrity.consistency import Check
    from bench.integrity.rerun import RerunOutcome
    from bench.run.folder import RunFolder
    from bench.run.graph import Node
    from bench.run.planning import Prepared

SHOWN = 20
"""Differences of a run made again that are printed; --json has all."""


@click.command(
    epilog="""\b
Examples:
  bench verify runs/3f2a
  bench verify runs/3f2a --cells 3 --sample-seed 7
  bench verify runs/3f2a --cells 0 --artefacts 2
  bench verify runs/3f2a --rerun --out runs/again
"""
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--cells", type=click.IntRange(0), default=1, show_default=True, help="Cells to make again from nothing."
)
@click.option(
    "--artefacts",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Artefacts of each stage to make again from their stored inputs; cheaper than a cell.",
)
@click.option("--sample-seed", type=int, default=0, show_default=True, help="Seed that draws the samples.")
@click.option(
    "--rerun",
    "again",
    is_flag=True,
    help="Make the whole run again from its folder and compare the leaderboards.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="With --rerun: the new folder. [default: RUN-rerun]"
)
@store_option
@click.option("--device", default="auto", help="Compute here. [default: as the run did]")
@click.option("--threads", type=click.IntRange(1), help="Threads. [default: as the run had]")
@lpips_trunk_option
@json_option
@in_worker
def verify(
    run: Path,
    again: bool,
    out: Path | None,
    as_json: bool,
    cells: int,
    artefacts: int,
    sample_seed: int,
    **machine: Any,
) -> None:
    """Check the finished run in folder RUN: every digest, and a random sample made again.

    With --rerun the whole run is made again, and goes on where it was if it was killed. It takes artefacts only from
    a --store on the command line: one that is set for all commands would answer with what it holds.

    Exit code 0: all that could be checked is as it was; 1: something differs; 2: the run cannot be checked,
    something it was made with is missing, or cells cannot be checked as code has changed.
    """
    from bench.run.folder import RunFolder

    _refuse_other_mode(again)
    folder = RunFolder(run)
    if again:
        code = _rerun(folder, out, machine, as_json=as_json)
    else:
        code = _check(folder, machine, cells, artefacts, sample_seed, as_json=as_json)
    if code:
        click.get_current_context().exit(code)  # the findings are the command's output


def _is_on_command_line(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _refuse_other_mode(again: bool) -> None:
    """Refuse options on the command line that count only with --rerun, or only without it.

    Raises:
        UsageError: names the first.
    """
    for name in ("cells", "artefacts", "sample_seed") if again else ("out",):
        if _is_on_command_line(name):
            option = f"--{name.replace('_', '-')}"
            if again:
                raise click.UsageError(
                    f"{option} is for a sample, not for --rerun. Leave it out, or leave out --rerun."
                )
            raise click.UsageError(f"{option} needs --rerun. Add --rerun, or leave it out.")


def _environment(folder: "RunFolder", prepared: "Prepared", what: str, *, as_json: bool) -> list[str]:
    """Return what is not as it was when the run was made; printed unless the result is JSON."""
    from bench.integrity.verify import differences_of_environment

    changed = differences_of_environment(folder, prepared)
    if changed and not as_json:
        click.echo(f"This is not what the run was made on, so that {what} may differ:")
        click.echo("".join(f"  {line}\n" for line in changed), nl=False)
    return changed


# -- checked -------------------------------------------------------------------------------------------------


def _check(
    folder: "RunFolder", machine: Mapping[str, Any], cells: int, artefacts: int, seed: int, *, as_json: bool
) -> int:
    """Check a run, print what was found and return the exit code."""
    from bench.integrity import consistency
    from bench.integrity import verify as checks
    from bench.run import planning

    found = [*checks.check_files(folder), checks.check_leaderboard(folder)]
    prepared = planning.prepare_again(folder, planning.Options(**machine, out=folder.path))
    changed = _environment(folder, prepared, "bytes", as_json=as_json)
    found += consistency.check_plan(folder, prepared)
    found += checks.check_artefacts(folder, prepared)
    found += consistency.check_views(folder, prepared)
    chosen = checks.sample_cells(folder, cells, seed, prepared.nodes)
    nodes = checks.work_of_cells(prepared, chosen)
    _announce(prepared, nodes, f"Making {len(chosen)} cells again from nothing")
    with counting("cells", sum(node.work for node in nodes)) as advance:
        found += checks.recompute_cells(folder, prepared, chosen, lambda _node, n: advance(n))
    nodes = checks.sample_artefacts(prepared, artefacts, seed)
    _announce(prepared, nodes, f"Making {len(nodes)} artefacts again from their inputs")
    with counting("artefacts", sum(node.work for node in nodes)) as advance:
        found += checks.recompute_artefacts(prepared, nodes, lambda _node, n: advance(n))
    found = checks.reconcile(found)
    failed = sum(cell.status != "ok" for cell in folder.cells())
    code, sentence = checks.verdict(found, failed)
    if as_json:
        document = _document(prepared.run.digest, changed, found)
        print_json(document | {"failed_cells": failed, "verdict": sentence})
    else:
        _print(found)
        click.echo(sentence)
    return code


def _announce(prepared: "Prepared", nodes: "list[Node]", what: str) -> None:
    from bench.integrity.verify import expected_seconds

    if nodes and not is_silent():
        seconds, untimed = expected_seconds(prepared, nodes)
        rest = f"; a rough estimate for {untimed} artefacts never timed on this store" if untimed else ""
        click.echo(f"{what}: about {duration(seconds)}{rest}.", err=True)


def _document(run: str, changed: list[str], found: "list[Check]") -> dict[str, object]:
    states = ("same", "differs", "absent", "unchecked", "extra")
    return {
        "run": run,
        "environment_differs": changed,
        "counts": {state: sum(check.state == state for check in found) for state in states},
        "findings": [vars(check) for check in found if check.state != "same"],
        "recomputed": [vars(check) for check in found if check.kind.startswith("recomputed")],
    }


def _print(found: "list[Check]") -> None:
    for kind in dict.fromkeys(check.kind for check in found):
        own = [check for check in found if check.kind == kind]
        if kind == "extra":
            click.echo(f"extra: {', '.join(check.name for check in own)}: no part of the run")
            continue
        states = [check.state for check in own]
        absent, unchecked = states.count("absent"), states.count("unchecked")
        tail = f", {absent} not there to be checked" if absent else ""
        tail += f", {unchecked} cannot be checked" if unchecked else ""
        click.echo(f"{kind}: {states.count('same')} of {len(own)} the same{tail}")
        for state, word in (("differs", "DIFFERS"), ("unchecked", "CANNOT BE CHECKED")):
            for check in own:
                if check.state == state:
                    click.echo(f"  {word} {check.name}: {check.detail}")


# -- made again ----------------------------------------------------------------------------------------------


def _rerun(folder: "RunFolder", out: Path | None, machine: dict[str, Any], *, as_json: bool) -> int:
    """Make a run again, compare the leaderboards, print the outcome and return the exit code.

    Without a store on the command line the run gets one of its own, which is removed when it is done.
    """
    from bench.integrity import rerun as again
    from bench.run.planning import Options

    place = again.checked_place(folder, out)
    facts = folder.facts()
    own = None
    if not _is_on_command_line("store"):
        own = again.OwnStore.beside(place, facts.run)
        machine["store"] = own.path
    prepared = again.prepare_rerun(folder, Options(**machine, out=place, command=facts.command))
    changed = _environment(folder, prepared, "rows", as_json=as_json)
    if own:
        own.make()
    with counting(f"run {prepared.run.digest}", sum(node.work for node in prepared.missing)) as advance:
        outcome = again.rerun(folder, prepared, lambda _node, n: advance(n))
    if own:
        own.remove()
    if as_json:
        head = {"run": prepared.run.digest, "folder": str(place), "environment_differs": changed}
        print_json({**head, "identical": outcome.identical, **asdict(outcome)})
    else:
        _print_rerun(outcome, folder.path, place)
    return outcome.exit_code


def _print_rerun(outcome: "RerunOutcome", run: Path, place: Path) -> None:
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
