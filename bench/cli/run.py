"""`bench run`, and `bench plan`, which is `bench run --dry-run`."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.leaderboard import show_table
from bench.cli.matrix import EXAMPLES, Planned, matrix_options, planned
from bench.cli.options import intervals_option, json_option
from bench.cli.output import check_files, console, duration, is_silent, log_to_stderr, print_json, verbosity
from bench.cli.worker import in_worker

if TYPE_CHECKING:
    from bench.run.folder import CellResult
    from bench.run.graph import Node
    from bench.run.planning import Prepared


@click.command(epilog=EXAMPLES)
@matrix_options
@click.option("--dry-run", is_flag=True, help="Only show what would be computed, as `bench plan` does.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write the leaderboard here too.")
@intervals_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table; warnings stay.")
@in_worker
def run(
    dry_run: bool, csv_file: Path | None, intervals: bool, as_json: bool, quiet: bool, **values: Any
) -> None:
    """Run a matrix of attacks x defences x backbones and print its leaderboard.

    Every stage is kept: a run that was killed goes on where it was, and a matrix with one more defence
    computes that defence's cells only. Exit code 0 only if every cell is there, 1 if one failed, 2 if
    what was requested cannot be done.
    """
    check_files({"--csv": csv_file})
    with planned(values, in_folder=not dry_run) as request:
        if dry_run:
            _show_plan(request.prepared, as_json)
        else:
            _run(request, csv_file, intervals=intervals, as_json=as_json, quiet=quiet)


def _run(request: Planned, csv_file: Path | None, *, intervals: bool, as_json: bool, quiet: bool) -> None:
    """Compute what is missing; write and show the leaderboard."""
    from bench.leaderboard import as_csv
    from bench.leaderboard.about import about

    prepared = request.prepared
    prepared.folder.check_free_for(prepared.run.digest)
    log_to_stderr(verbosity())
    results = _results(request)
    leaderboard = as_csv.write(prepared.folder)
    if not request.is_complete:
        request.note(prepared, results)
    if csv_file:
        from bench.files import write_atomically

        write_atomically(csv_file, as_csv.to_csv(leaderboard).encode(), "--csv")
    if as_json:
        print_json(
            {
                "run": about(prepared.folder, leaderboard),
                "rows": json.loads(leaderboard.to_json(orient="records")),
            }
        )
    elif not quiet:
        _show_leaderboard(leaderboard, prepared, full=intervals)
    _warn(leaderboard)
    if failed := [result for result in results if result.status != "ok"]:
        for reason in dict.fromkeys(result.reason for result in failed):
            click.echo(f"Failed: {reason}", err=True)
        click.echo(f"Error: {len(failed)} of {len(results)} cells failed.", err=True)
    if not (as_json or quiet):
        _say_what_next(prepared)
    if failed:
        sys.exit(1)


def _results(request: Planned) -> "list[CellResult]":
    """Compute what is missing and return what became of each cell."""
    with progress(request.prepared) as advance:
        if request.is_complete:
            return request.prepared.folder.cells()
        from bench.run import runner

        return runner.execute(request.prepared, advance)


@contextmanager
def progress(prepared: "Prepared") -> Iterator[Callable[["Node", int], None]]:
    """Show the progress of a run and give the function that moves it on."""
    if is_silent():
        yield lambda _node, _n: None
        return
    from bench.run.following import of_run

    with of_run(prepared, console(stderr=True)) as advance:
        yield advance


@click.command(epilog=EXAMPLES)
@matrix_options
@json_option
def plan(as_json: bool, **values: Any) -> None:
    """Show what a run would compute: cells, what is cached, about how long and how much disk.

    Describes what `bench run` would do with the same options: where environment and settings file say
    nothing for `bench plan`, what they say for `bench run` counts.
    """
    with planned(values, in_folder=False) as request:
        _show_plan(request.prepared, as_json)


def _show_plan(prepared: "Prepared", as_json: bool) -> None:
    """Print what a run would compute: a table, or one JSON document."""
    from rich.table import Table

    from bench.run.spec import DEVELOPMENT_NOTE

    groups = prepared.groups()
    cells = prepared.run.cells
    seconds = sum(group.seconds for group in groups)
    untimed = [f"{group.stage} {group.label}" for group in groups if not group.timed]
    size = sum(group.size for group in groups)
    if as_json:
        document = {
            "run": prepared.run.digest,
            "folder": str(prepared.folder.path),
            "cells": len(cells),
            "cells_requested": len(prepared.run.cells_requested),
            "cells_cached": prepared.cached_cells(),
            "seconds": seconds,
            "untimed": untimed,
            "bytes": size,
            "groups": [vars(group) for group in groups],
        }
        print_json(document)
        return
    table = Table("stage", "method", "images", "about", title=f"To compute for run {prepared.run.digest}")
    for group in groups:
        time = duration(group.seconds)
        table.add_row(group.stage, group.label, str(group.images), time if group.timed else f"roughly {time}")
    screen = console()
    if prepared.run.spec.split == "development":
        screen.print(DEVELOPMENT_NOTE)
    if groups:
        screen.print(table)
    screen.print(
        f"{len(cells)} cells ({len(cells) - len(prepared.run.cells_requested)} of them added as references), "
        f"{prepared.cached_cells()} cached; about {duration(seconds)} and {size / 1e6:.0f} MB in "
        f"{prepared.store.folder}."
    )
    if untimed:
        screen.print(
            f"Roughly: by what methods declare, as {len(untimed)} of {len(groups)} lines were never timed on this "
            "store; a factor of two or three is usual."
        )


def _detectable(leaderboard: Any) -> str:
    """Return the minimum detectable difference of the rows' tests, in words."""
    from bench.analysis.reference_tests import REFERENCE

    known = leaderboard["minimum_detectable_difference"].dropna()
    if known.empty:
        reasons = [text for text in leaderboard["p_holm_reason"].dropna() if text not in ("", REFERENCE)]
        return f"No row could be tested against its reference: {'; '.join(dict.fromkeys(reasons))}."
    return (
        "Rows are tested against no defence (defence none: against no attack). Minimum detectable difference in ASR at "
        f"80 % power, over {len(known)} such tests: {100 * known.median():.1f} points (median; largest "
        f"{100 * known.max():.1f})."
    )


def _show_leaderboard(leaderboard: Any, prepared: "Prepared", *, full: bool) -> None:
    """Print what the run shows: an unusual split and attacks without effect first, the table, and how to read it."""
    from bench.leaderboard.about import notes
    from bench.leaderboard.summary import development, without_effect

    spec = prepared.run.spec
    for sentence in (*development(leaderboard), *without_effect(leaderboard)):
        click.echo(click.style(sentence, bold=True))
    show_table(
        leaderboard, f"Run {prepared.run.digest}: protocol {spec.protocol}, dataset {spec.dataset}", full=full
    )
    click.echo(_detectable(leaderboard))
    for note in notes(leaderboard):
        click.echo(f"Note: {note.rstrip('.')}.")


def _say_what_next(prepared: "Prepared") -> None:
    """Print the last lines: where it all is, and what can be done with it."""
    folder = shlex.quote(str(prepared.folder.path))
    click.echo(f"Every column: {prepared.folder.path / 'leaderboard.csv'}")
    click.echo(f"Next: bench report {folder} --out report.html, or bench plot {folder} all --out figures")


def _warn(leaderboard: Any) -> None:
    """Print what gives reason to distrust rows on stderr, whatever becomes of the table."""
    from bench.analysis import warnings as warning_columns

    for warning, where in warning_columns.by_warning(leaderboard).items():
        marked = f"{len(where)} cells, e.g. {where[0]}" if where[1:] else where[0]
        click.echo(f"Warning: {warning} ({marked})", err=True)
