"""`bench ablate`."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import (
    console,
    device_option,
    json_option,
    store_option,
    threads_option,
    verbosity,
)

if TYPE_CHECKING:
    import pandas as pd

    from bench.ablation.suite import Plan, SuiteOutcome, Training
    from bench.run.planning import Options

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
    the base: dataset, identities, split_seed, seeds, attacks, backbones, heads, protocol, defense, trainer,
    trainer_attacks, trainer_backbones, trainer_seed. Where the defence says {weights} the trained file goes.

    Weights, training cloaks and cells are kept: killed, the same command goes on; levels share what is the
    same. Exit code 0 only if every level was measured, 1 if one failed, 2 if what was requested cannot be done.
    """
    from bench.ablation import suite
    from bench.ablation import table as ablation_table
    from bench.cli.logs import log_to_stderr
    from bench.run.planning import Options

    folder = out or Path("runs") / file.stem
    _check_files(folder, csv_file, figure)
    options = Options(**values, command=shlex.join(["bench", *sys.argv[1:]]))
    requested = suite.plan(suite.load(file), folder)
    if dry_run:
        _show_plan(requested, options, as_json)
        return
    log_to_stderr(verbosity())
    outcome = _execute(requested, options, quiet or as_json)
    table = ablation_table.table(requested, outcome)
    _write(table, csv_file, figure, announced=not (quiet or as_json))
    if as_json:
        click.echo(table.to_json(orient="records", indent=1))
    elif not quiet:
        _show(table)
    for reason in outcome.failures:
        click.echo(f"Failed: {reason}", err=True)
    if outcome.failures:
        click.echo("Error: some levels were not measured; their rows say why.", err=True)
        sys.exit(1)


def _check_files(folder: Path, csv_file: Path | None, figure: Path | None) -> None:
    """Check that what was requested can be written.

    Raises:
        UsageError: a folder cannot be written, or the figure has no format's ending.
    """
    from bench.figures.files import check_suffix
    from bench.run.planning import check_writable

    if figure:
        check_suffix(figure)
        check_writable(figure.absolute().parent, "--figure")
    if csv_file:
        check_writable(csv_file.absolute().parent, "--csv")
    check_writable(folder, "--out")


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
        click.echo(json.dumps(document, indent=1))
        return
    click.echo(
        f"{len(requested.places)} levels; {len(requested.trainings)} sets of weights, {len(todo)} to be trained:"
    )
    for training in todo:
        users = [f"{level.factor} {level.name}" for level in requested.users(training)] or ["the base"]
        against = " & ".join(training.attacks)
        click.echo(f"  {training.digest}  {training.trainer} against {against} for {', '.join(users)}")
    click.echo(f"{len(requested.matrices)} runs:")
    cells = cached = 0
    for one in suite.missing(requested, options):
        untrained = f"; {one.untrained} defences wait for their weights" if one.untrained else ""
        click.echo(f"  {one.run}  {one.cells} cells, {one.cells - one.cached} missing{untrained}")
        cells += one.cells
        cached += one.cached
    click.echo(f"{cells - cached} of {cells} cells are missing.")


def _execute(requested: "Plan", options: "Options", quiet: bool) -> "SuiteOutcome":
    from rich.markup import escape
    from rich.progress import Progress

    from bench.ablation import suite
    from bench.cli.run import progress

    def report(training: "Training") -> Callable[[str, int, int], None]:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(escape(f"{training.digest} {what}"), total=total)
            bar.update(tasks[what], completed=done, total=total)

        return advance

    @contextmanager
    def watch(prepared: Any) -> Iterator[Any]:
        bar.stop()  # two bars at a time would write over each other
        with progress(prepared, hidden=quiet) as advance:
            yield advance

    with Progress(console=console(stderr=True), disable=quiet) as bar:
        return suite.execute(requested, options, report=report, watch=watch)


def _write(table: "pd.DataFrame", csv_file: Path | None, figure: Path | None, *, announced: bool) -> None:
    from bench.ablation.figure import ablation_figure
    from bench.files import write_atomically
    from bench.leaderboard.as_csv import to_csv

    if csv_file:
        write_atomically(csv_file, to_csv(table).encode(), "--csv")
        if announced:
            click.echo(f"{csv_file} written")
    if figure:
        ablation_figure(table, figure)
        if announced:
            click.echo(f"{figure} written")


def _show(table: "pd.DataFrame") -> None:
    from rich.table import Table

    shown = Table("factor", "level", "attack", "tracker", "head")
    for heading in (
        "ASR % [95 %]",
        "undefended",
        "against base",
        "p Holm",
        "accuracy %",
        "undefended",
        "natural dB",
    ):
        shown.add_column(heading, justify="right")
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        asr = _percent(row["asr"])
        if row["asr_low"] is not None:
            asr += f" [{_percent(row['asr_low'])}, {_percent(row['asr_high'])}]"
        shown.add_row(
            *(str(row[name]) for name in ("factor", "level", "attack", "backbone", "head")),
            asr,
            _percent(row["undefended_asr"]),
            "base" if row["is_base"] else _percent(row["difference"]),
            "" if row["p_holm"] is None else f"{row['p_holm']:.4f}",
            _percent(row["normal_accuracy"]),
            _percent(row["undefended_accuracy"]),
            "" if row["natural_psnr"] is None else f"{row['natural_psnr']:.1f}",
        )
    console(width=None if sys.stdout.isatty() else 220).print(shown)


def _percent(value: float | None) -> str:
    return "NA" if value is None else f"{round(100 * value, 1) + 0.0:.1f}"
