"""`bench verify`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.cli.options import json_option, lpips_trunk_option, store_option

if TYPE_CHECKING:
    from bench.integrity.consistency import Check
    from bench.run.folder import RunFolder
    from bench.run.graph import Node
    from bench.run.planning import Prepared


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
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def verify(run: Path, again: bool, out: Path | None, as_json: bool, quiet: bool, **values: Any) -> None:
    """Check the finished run in folder RUN: every digest, and a random sample made again.

    With --rerun the whole run is made again, and goes on where it was if it was killed. It takes artefacts only from
    a --store on the command line: one that is set for all commands would answer with what it holds.

    Exit code 0: all that could be checked is as it was; 1: something differs; 2: the run cannot be checked,
    something it was made with is missing, or cells cannot be checked as code has changed.
    """
    machine = {name: values.pop(name) for name in ("store", "device", "threads", "lpips_trunk")}
    _refuse_other_mode(again)
    if again:
        from bench.cli.rerun import rerun

        if _source("store") is not ParameterSource.COMMANDLINE:
            machine["store"] = None
        code = rerun(run, out, machine, as_json=as_json, quiet=quiet)
    else:
        code = _check(run, machine, Sample(**values), as_json=as_json, hidden=quiet or as_json)
    if code:
        click.get_current_context().exit(code)  # the findings are the command's output


@dataclass(frozen=True)
class Sample:
    """What is made again.

    Attributes:
        cells: cells, from nothing.
        artefacts: artefacts of each stage, from their stored inputs.
        sample_seed: of the draw.
    """

    cells: int
    artefacts: int
    sample_seed: int


def _source(name: str) -> ParameterSource | None:
    return click.get_current_context().get_parameter_source(name)


def _refuse_other_mode(again: bool) -> None:
    """Refuse options on the command line that count only with --rerun, or only without it.

    Raises:
        UsageError: names the first.
    """
    others = ("cells", "artefacts", "sample_seed") if again else ("out",)
    for name in others:
        if _source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            fix = "Leave it out, or leave out --rerun." if again else "Add --rerun, or leave it out."
            raise click.UsageError(
                f"{option} {'is for a sample, not for' if again else 'needs'} --rerun. {fix}"
            )


def _check(run: Path, machine: Mapping[str, Any], sample: Sample, *, as_json: bool, hidden: bool) -> int:
    """Check a run, print what was found and return the exit code."""
    from bench.integrity import consistency
    from bench.integrity import verify as checks
    from bench.run import planning
    from bench.run.folder import RunFolder

    folder = RunFolder(run)
    found = [*checks.check_files(folder), checks.check_leaderboard(folder)]
    prepared = planning.prepare_again(folder, planning.Options(**machine, out=run))
    changed = checks.differences_of_environment(folder, prepared)
    if changed and not as_json:
        click.echo("This is not what the run was made on, so that bytes may differ:")
        click.echo("".join(f"  {line}\n" for line in changed), nl=False)
    found += consistency.check_plan(folder, prepared)
    found += checks.check_artefacts(folder, prepared)
    found += consistency.check_views(folder, prepared)
    found += _recomputed_cells(folder, prepared, sample.cells, sample.sample_seed, hidden)
    found += _recomputed_artefacts(prepared, sample.artefacts, sample.sample_seed, hidden)
    found = checks.reconcile(found)
    failed = sum(cell.status != "ok" for cell in folder.cells())
    code, sentence = checks.verdict(found, failed)
    if as_json:
        document = _document(prepared.run.digest, changed, found)
        click.echo(json.dumps(document | {"failed_cells": failed, "verdict": sentence}, indent=1))
    else:
        _print(found)
        click.echo(sentence)
    return code


def _recomputed_cells(
    folder: "RunFolder", prepared: "Prepared", count: int, seed: int, hidden: bool
) -> "list[Check]":
    from bench.cli.progress import counting
    from bench.integrity import verify as checks

    chosen = checks.sample_cells(folder, count, seed, prepared.nodes)
    nodes = checks.work_of_cells(prepared, chosen)
    if not hidden and chosen:
        _announce(prepared, nodes, f"Making {len(chosen)} cells again from nothing")
    with counting("cells", sum(node.images for node in nodes), hidden=hidden) as advance:
        return checks.recompute_cells(folder, prepared, chosen, lambda _node, n: advance(n))


def _recomputed_artefacts(prepared: "Prepared", count: int, seed: int, hidden: bool) -> "list[Check]":
    from bench.cli.progress import counting
    from bench.integrity import verify as checks

    nodes = checks.sample_artefacts(prepared, count, seed)
    if not hidden and nodes:
        _announce(prepared, nodes, f"Making {len(nodes)} artefacts again from their inputs")
    with counting("artefacts", sum(node.images for node in nodes), hidden=hidden) as advance:
        return checks.recompute_artefacts(prepared, nodes, lambda _node, n: advance(n))


def _announce(prepared: "Prepared", nodes: "list[Node]", what: str) -> None:
    from bench.cli.progress import duration
    from bench.integrity.verify import expected_seconds

    seconds, untimed = expected_seconds(prepared, nodes)
    rest = f", and {untimed} artefacts that were never timed on this store" if untimed else ""
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
        unchecked = [check for check in own if check.state == "unchecked"]
        differs = [check for check in own if check.state == "differs"]
        absent = sum(check.state == "absent" for check in own)
        tail = f", {absent} not there to be checked" if absent else ""
        tail += f", {len(unchecked)} cannot be checked" if unchecked else ""
        same = sum(check.state == "same" for check in own)
        click.echo(f"{kind}: {same} of {len(own)} the same{tail}")
        for check in differs:
            click.echo(f"  DIFFERS {check.name}: {check.detail}")
        for check in unchecked:
            click.echo(f"  CANNOT BE CHECKED {check.name}: {check.detail}")
