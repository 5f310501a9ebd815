"""`bench run` and `bench plan`."""

import functools
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.cli.options import (
    console,
    device_option,
    is_quiet,
    json_option,
    long_name,
    lpips_trunk_option,
    store_option,
    threads_option,
    verbosity,
)

if TYPE_CHECKING:
    from bench.run.folder import CellResult
    from bench.run.graph import Node
    from bench.run.planning import Options, Prepared
    from bench.run.spec import RunSpec

Command = Callable[..., Any]

_EXAMPLES = """\b
Examples:
  bench run --attack fawkes --defense puface
  bench run --dataset lfw --attack fawkes --attack pgd:eps=15 \\
            --defense none --defense jpeg:quality=75 --defense puface --head nn --head linear
  bench run --config suite.toml --out runs/mine
  bench plan --config suite.toml
"""


def matrix_options(command: Command) -> Command:
    """Add the options that say what is asked and how to execute it."""
    many = functools.partial(click.option, multiple=True, metavar="METHOD")
    options = [
        many("--attack", "attacks", help="Attack, e.g. fawkes:mode=mid. May be repeated."),
        many("--defense", "defenses", help="Defence, e.g. jpeg:quality=75. May be repeated."),
        many(
            "--backbone",
            "backbones",
            help="Tracker's backbone, or an ONNX file. May be repeated. [default: first group of the dataset's pool]",
        ),
        click.option(
            "--head",
            "heads",
            multiple=True,
            help="Tracker's head. May be repeated. [default: the protocol's first]",
        ),
        click.option(
            "--dataset", metavar="METHOD", help="Dataset: synthetic, lfw, folder:PHOTOS. [default: synthetic]"
        ),
        click.option("--protocol", metavar="METHOD", help="Protocol. [default: tracker]"),
        click.option("--seed", "seeds", type=int, multiple=True, help="Seed. May be repeated. [default: 0]"),
        click.option("--split-seed", type=int, help="Seed of splits and folds. [default: 0]"),
        click.option("--identities", type=int, help="Evaluate this many identities. [default: all]"),
        click.option(
            "--config", type=click.Path(path_type=Path), help="Suite file (TOML); options override it."
        ),
        device_option,
        threads_option,
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            default=64,
            show_default=True,
            help="Images handed to a method per call; changes memory and speed, not a byte of the result.",
        ),
        store_option,
        click.option(
            "--out", type=click.Path(path_type=Path), help="The run's folder. [default: runs/<run>]"
        ),
        lpips_trunk_option,
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def _spec(values: dict[str, Any]) -> "RunSpec":
    from bench.run.spec import make_spec

    suite = _suite(values)
    return make_spec(suite | {key: values[key] for key in _used(values, suite)})


def _suite(values: dict[str, Any]) -> dict[str, Any]:
    from bench.run.spec import load_suite

    return load_suite(values["config"]) if values["config"] else {}


_REQUESTED = (
    "attacks",
    "defenses",
    "backbones",
    "heads",
    "seeds",
    "dataset",
    "protocol",
    "split_seed",
    "identities",
)
"""Parameters that are fields of a `RunSpec`."""


def _used(values: dict[str, Any], suite: dict[str, Any]) -> list[str]:
    """Return the parameters that are given and count: the suite file is nearer than the settings file."""
    source = click.get_current_context().get_parameter_source
    given = [key for key in _REQUESTED if values[key] not in (None, ())]
    return [key for key in given if key not in suite or source(key) is not ParameterSource.DEFAULT_MAP]


_ELSEWHERE = frozenset({ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP})
"""Where values come from that the command line does not show."""


def _command_line(values: dict[str, Any]) -> str:
    """Return the command that asks for the same on another machine.

    What environment, settings file and suite file say of it is written out.
    """
    source = click.get_current_context().get_parameter_source
    suite = _suite(values)
    requested = suite | {key: values[key] for key in _used(values, suite)}
    if values["device"] != "auto":
        requested["device"] = values["device"]
    options = _long_names()
    words = ["bench", *_without("--config", sys.argv[1:])]
    for key in (*_REQUESTED, "device"):
        if key in requested and source(key) is not ParameterSource.COMMANDLINE:
            each = requested[key] if isinstance(requested[key], (list, tuple)) else (requested[key],)
            words += [word for value in each for word in (f"--{options[key]}", str(value))]
    return shlex.join(words)


def _long_names() -> dict[str, str]:
    params = click.get_current_context().command.params
    return {str(param.name): long_name(param) for param in params if isinstance(param, click.Option)}


def _without(option: str, words: list[str]) -> list[str]:
    """Return the words without an option and its values."""
    kept = []
    rest = iter(words)
    for word in rest:
        if word == option:
            next(rest, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def _say_what_is_set(values: dict[str, Any]) -> None:
    """Say on stderr which options that decide the run the command line does not show, and where they stand."""
    source = click.get_current_context().get_parameter_source
    decisive = ["config", *_used(values, _suite(values))] + ["device"] * (values["device"] != "auto")
    names: dict[str, list[str]] = {}
    for param in click.get_current_context().command.params:
        if not isinstance(param, click.Option) or param.name not in decisive:
            continue
        if values[param.name] is not None and source(param.name) in _ELSEWHERE:
            names.setdefault(_place(param), []).append(long_name(param))
    if names and not is_quiet():
        told = "; ".join(f"{place} sets {', '.join(options)}" for place, options in names.items())
        click.echo(f"Note: {told}.", err=True)


def _place(option: click.Parameter) -> str:
    """Return the environment variable or the settings file that an option's value is from."""
    if click.get_current_context().get_parameter_source(str(option.name)) is ParameterSource.ENVIRONMENT:
        return next(name for name in option.envvar or () if os.environ.get(name))
    from bench.cli import config

    return str(config.find())


def _options(values: dict[str, Any]) -> "Options":
    from bench.run.planning import Options

    keys = ("device", "threads", "batch_size", "store", "out", "lpips_trunk")
    return Options(**{key: values[key] for key in keys}, command=_command_line(values))


def _prepare(values: dict[str, Any]) -> "Prepared":
    from bench.errors import DataError
    from bench.plugins import factory
    from bench.run import planning

    _say_what_is_set(values)
    spec = _spec(values)
    try:
        return planning.prepare(spec, _options(values))
    except DataError:
        # Where the data set is missing too, its photos come before the weights made for them.
        factory.dataset(spec.dataset).identities()
        raise


@click.command(epilog=_EXAMPLES)
@matrix_options
@click.option("--dry-run", is_flag=True, help="Only say what would be computed (as `bench plan`).")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write the leaderboard here too.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table; warnings stay.")
def run(dry_run: bool, csv_file: Path | None, as_json: bool, quiet: bool, **values: Any) -> None:
    """Run a matrix of attacks x defences x backbones and print its leaderboard.

    Every stage is kept: a run that was killed goes on where it was, and a matrix with one more defence
    computes that defence's cells only. Exit code 0 only if every cell is there, 1 if one failed, 2 if
    what was requested cannot be done.
    """
    from bench.leaderboard import as_csv
    from bench.leaderboard.table import build
    from bench.run import planning, runner

    if csv_file:
        planning.check_writable(csv_file.absolute().parent, "--csv")
    prepared = _prepare(values)
    if dry_run:
        _show_plan(prepared, as_json)
        return
    from bench.cli.logs import log_to_stderr

    prepared.folder.check_free_for(prepared.run.digest)
    log_to_stderr(verbosity())
    with progress(prepared, hidden=quiet or as_json) as advance:
        results = runner.execute(prepared, advance)
    leaderboard = build(prepared.folder)
    text = as_csv.to_csv(leaderboard)
    prepared.folder.write_bytes("leaderboard.csv", text.encode())
    prepared.folder.write_manifest()
    if csv_file:
        from bench.files import write_atomically

        write_atomically(csv_file, text.encode(), "--csv")
    if as_json:
        click.echo(leaderboard.to_json(orient="records", indent=1))
    elif not quiet:
        _show_leaderboard(leaderboard, prepared)
    _warn(leaderboard)
    _leave(results)


@click.command(epilog=_EXAMPLES)
@matrix_options
@json_option
def plan(as_json: bool, **values: Any) -> None:
    """Say what a run would compute: cells, what is cached, about how long and how much disk.

    It describes what `bench run` would do with the same options: where environment and settings file say
    nothing for `bench plan`, what they say for `bench run` counts.
    """
    _show_plan(_prepare(values), as_json)


def _leave(results: "list[CellResult]") -> None:
    failed = [result for result in results if result.status != "ok"]
    if failed:
        reasons = {result.reason: result for result in failed}
        for reason in reasons:
            click.echo(f"Failed: {reason}", err=True)
        click.echo(f"Error: {len(failed)} of {len(results)} cells failed.", err=True)
        sys.exit(1)


def _show_plan(prepared: "Prepared", as_json: bool) -> None:
    groups = prepared.groups()
    cells = prepared.run.cells
    known = sum(group.seconds for group in groups if group.seconds is not None)
    untimed = [f"{group.stage} {group.label}" for group in groups if group.seconds is None]
    size = sum(group.size for group in groups)
    if as_json:
        document = {
            "run": prepared.run.digest,
            "folder": str(prepared.folder.path),
            "cells": len(cells),
            "cells_asked": len(prepared.run.cells_requested),
            "cells_cached": prepared.cached_cells(),
            "seconds": known,
            "untimed": untimed,
            "bytes": size,
            "groups": [vars(group) for group in groups],
        }
        click.echo(json.dumps(document, indent=1))
        return
    from rich.table import Table

    table = Table("stage", "method", "images", "about", title=f"To compute for run {prepared.run.digest}")
    for group in groups:
        table.add_row(group.stage, group.label, str(group.images), _duration(group.seconds))
    screen = console()
    if groups:
        screen.print(table)
    screen.print(
        f"{len(cells)} cells ({len(cells) - len(prepared.run.cells_requested)} of them added as references), "
        f"{prepared.cached_cells()} cached; {_duration(known)} for what was timed before on this store"
        + (f", {len(untimed)} groups never timed" if untimed else "")
        + f"; about {size / 1e6:.0f} MB in {prepared.store.folder}."
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not timed yet"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def progress(prepared: "Prepared", *, hidden: bool) -> Iterator[Callable[["Node", int], None]]:
    """Show the progress of a run and give the function that moves it on."""
    if hidden or is_quiet():
        yield lambda _node, _n: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as progress:
        tasks = {
            (group.stage, group.label): progress.add_task(
                f"{group.stage:8} {group.label}", total=group.images, start=False, rate=""
            )
            for group in prepared.groups()
            if group.images
        }

        def advance(node: "Node", count: int) -> None:
            task_id = tasks.get(node.group)
            if task_id is None:
                return
            progress.start_task(task_id)
            progress.advance(task_id, count)
            speed = progress.tasks[task_id].speed
            progress.update(task_id, rate=f"{speed:.1f}/s" if speed else "")

        yield advance


_AXES = frozenset({"backbone", "head", "seed"})
"""Columns that go into a table's title where they have one value."""


def _detectable(leaderboard: Any) -> str:
    """Say how small a difference the rows' tests would have found."""
    known = leaderboard["minimum_detectable_difference"].dropna()
    if known.empty:
        return "No row could be tested against its reference; p_holm_reason says why."
    return (
        f"Rows are tested against no defence (defence none: against no attack); {len(known)} such tests would have "
        f"found differences in ASR of {100 * known.median():.1f} points (median; largest {100 * known.max():.1f}) "
        "in 80 of 100 such runs."
    )


def _show_leaderboard(leaderboard: Any, prepared: "Prepared") -> None:
    from rich.table import Table

    from bench.leaderboard.table import Condensed, condense

    headings = {
        "asr": "ASR % [95 %]",
        "baseline": "ASR without cloak %",
        "accuracy": "normal accuracy % [95 %]",
        "recovery": "recovery %",
        "psnr": "cloak PSNR dB",
    }
    spec = prepared.run.spec
    rows = [row.model_dump() for row in condense(leaderboard)]
    same = {name: {row[name] for row in rows} for name in Condensed.model_fields}
    constant = [
        f"{name} {next(iter(same[name]))}" for name in ("backbone", "head", "seed") if len(same[name]) == 1
    ]
    shown = [
        name for name, values in same.items() if values != {""} and not (name in _AXES and len(values) == 1)
    ]
    table = Table(title=f"{', '.join([spec.protocol, spec.dataset, *constant])} (run {prepared.run.digest})")
    for name in shown:
        table.add_column(headings.get(name, name), justify="right" if name in headings else "left")
    for row in rows:
        table.add_row(*(str(row[name]) for name in shown))
    screen = console(width=None if sys.stdout.isatty() else 200)
    screen.print(table)
    if leaderboard["n_identities"].notna().any():
        identities, probes = leaderboard["n_identities"].max(), leaderboard["n_probes"].max()
        screen.print(f"{identities} identities, {probes} probes; rates are means over identities.")
    screen.print(_detectable(leaderboard))
    screen.print(f"Leaderboard: {prepared.folder.path / 'leaderboard.csv'}")
    if prepared.run.dataset.note:
        screen.print(f"Note: {prepared.run.dataset.note}")
    for reason in sorted(set(leaderboard["lpips_reason"].dropna()) - {""}):
        screen.print(f"LPIPS is NA: {reason}")


def _warn(leaderboard: Any) -> None:
    """Print what gives reason to distrust rows on stderr, whatever becomes of the table."""
    from bench.analysis import warnings as warning_columns

    for warning, where in warning_columns.by_warning(leaderboard).items():
        marked = f"{len(where)} cells, e.g. {where[0]}" if where[1:] else where[0]
        click.echo(f"Warning: {warning} ({marked})", err=True)
