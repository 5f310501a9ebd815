"""`bench ablate`."""

import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import device_option, json_option, store_option, threads_option
from bench.cli.output import (
    check_files,
    console,
    is_silent,
    log_to_stderr,
    number,
    percent,
    print_json,
    reporting,
    rows_of,
    verbosity,
)
from bench.cli.worker import in_worker

if TYPE_CHECKING:
    import pandas as pd

    from bench.ablation.suite import Plan, SuiteOutcome, Training
    from bench.run.graph import Node
    from bench.run.planning import Options, Prepared

_EXAMPLES = """\b
Examples:
  bench ablate results/ablations.toml --out runs/ablations --dry-run
  bench ablate results/ablations.toml --out runs/ablations --csv results/ablations.csv \\
      --figure results/ablations.png
"""


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for weights, training cloaks and runs. [default: runs/NAME OF FILE]",
)
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write the table here.")
@click.option("--figure", type=click.Path(path_type=Path), help="Draw the table here: .png, .svg or .pdf.")
@store_option
@device_option
@threads_option
@click.option("--dry-run", is_flag=True, help="Only show what would be trained and how much is missing.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")
@in_worker
def ablate(
    file: Path,
    out: Path | None,
    csv_file: Path | None,
    figure: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Vary one factor at a time, as FILE says, and measure every level.

    FILE (TOML) has one table [base] and [[level]] tables, each with a factor, a name and what it changes of
    the base: dataset, split, identities, split_seed, seeds, attacks, backbones, heads, protocol, defense, trainer,
    trainer_attacks, trainer_backbones, trainer_seed. Where the defence says {weights} the trained file goes.

    Weights, training cloaks and cells are kept: killed, the same command goes on; levels share what is the
    same. Exit code 0 only if every level was measured, 1 if one failed, 2 if what was requested cannot be done.
    """
    from bench.ablation import suite
    from bench.ablation import table as ablation_table
    from bench.figures.files import check_suffix
    from bench.files import check_writable
    from bench.run.planning import Options

    folder = out or Path("runs") / file.stem
    if figure:
        check_suffix(figure)
    check_files({"--figure": figure, "--csv": csv_file})
    check_writable(folder, "--out")
    options = Options(**values, command=shlex.join(["bench", *sys.argv[1:]]))
    requested = suite.plan(suite.load(file), folder)
    if dry_run:
        _show_plan(requested, options, as_json)
        return
    log_to_stderr(verbosity())
    outcome = _execute(requested, options)
    table = ablation_table.table(requested, outcome)
    _write(table, csv_file, figure)
    if as_json:
        click.echo(table.to_json(orient="records", indent=1))
    elif not quiet:
        _show(table)
    for reason in outcome.failures:
        click.echo(f"Failed: {reason}", err=True)
    if outcome.failures:
        click.echo("Error: some levels were not measured; their rows say why.", err=True)
        sys.exit(1)


def _show_plan(requested: "Plan", options: "Options", as_json: bool) -> None:
    from bench.ablation import suite

    todo = [training for training in requested.trainings if training.card() is None]
    if as_json:
        document = {
            "levels": len(requested.places),
            "trainings": len(requested.trainings),
            "to_train": [training.digest for training in todo],
            "runs": [
                {"run": one.run, "cells": one.cells, "cells_cached": one.cached, "untrained": one.untrained}
                for one in suite.missing(requested, options)
            ],
        }
        print_json(document)
        return
    click.echo(
        f"{len(requested.places)} levels; {len(requested.trainings)} sets of weights, {len(todo)} to be trained:"
    )
    for training in todo:
        users = [f"{level.factor} {level.name}" for level in requested.users(training)] or ["the base"]
        against = " & ".join(training.attacks)
        click.echo(f"  {training.digest}  {training.trainer} against {against} for {', '.join(users)}")
    click.echo(f"{len(requested.matrices)} runs:")
    missing = suite.missing(requested, options)
    for one in missing:
        untrained = f"; {one.untrained} defences wait for their weights" if one.untrained else ""
        click.echo(f"  {one.run}  {one.cells} cells, {one.cells - one.cached} missing{untrained}")
    cells = sum(one.cells for one in missing)
    click.echo(f"{cells - sum(one.cached for one in missing)} of {cells} cells are missing.")


def _execute(requested: "Plan", options: "Options") -> "SuiteOutcome":
    from bench.ablation import suite
    from bench.cli.run import progress

    with ExitStack() as bars:  # closed before a run shows its own: two at a time would write over each other
        shown = bars.enter_context(reporting())

        def report(training: "Training") -> Callable[[str, int, int], None]:
            return lambda what, done, total: shown(f"{training.digest} {what}", done, total)

        def watch(prepared: "Prepared") -> AbstractContextManager[Callable[["Node", int], None]]:
            bars.close()
            return progress(prepared)

        return suite.execute(requested, options, report=report, watch=watch)


def _write(table: "pd.DataFrame", csv_file: Path | None, figure: Path | None) -> None:
    from bench.ablation.figure import ablation_figure
    from bench.files import write_atomically
    from bench.leaderboard.as_csv import to_csv

    if csv_file:
        write_atomically(csv_file, to_csv(table).encode(), "--csv")
    if figure:
        ablation_figure(table, figure)
    for path in filter(None, (csv_file, figure)):
        if not is_silent():
            click.echo(f"{path} written")


def _show(table: "pd.DataFrame") -> None:
    from rich.table import Table

    shown = Table("factor", "level", "attack", "tracker", "head")
    headings = (
        "ASR % [95 %]",
        "undefended",
        "against base",
        "p Holm",
        "accuracy %",
        "undefended",
        "natural dB",
    )
    for heading in headings:
        shown.add_column(heading, justify="right")
    for row in rows_of(table):
        shown.add_row(
            *(str(row[name]) for name in ("factor", "level", "attack", "backbone", "head")),
            percent(row["asr"], row["asr_low"], row["asr_high"]),
            percent(row["undefended_asr"]),
            "base" if row["is_base"] else percent(row["difference"]),
            "" if row["p_holm"] is None else f"{row['p_holm']:.4f}",
            percent(row["normal_accuracy"]),
            percent(row["undefended_accuracy"]),
            number(row["natural_psnr"]),
        )
    console(width=220).print(shown)
    for caution in table["caution"].dropna().unique():
        if caution:
            click.echo(f"Caution: {caution}.")
