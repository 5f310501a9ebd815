"""A matrix on the command line: the options that `bench run` and `bench plan` share, and what they ask for."""

import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.cli import engines
from bench.cli.options import (
    device_option,
    engine_options,
    long_name,
    lpips_trunk_option,
    store_option,
    threads_option,
)
from bench.cli.output import is_quiet

if TYPE_CHECKING:
    from bench.run.folder import CellResult
    from bench.run.planning import Prepared
    from bench.run.spec import RunSpec

Command = Callable[..., Any]

EXAMPLES = """\b
Examples:
  bench run --attack fawkes --defense puface
  bench run --dataset lfw --attack fawkes --attack pgd:eps=15 \\
            --defense none --defense jpeg:quality=75 --defense puface --head nn --head linear
  bench run --config suite.toml --out runs/mine
  bench plan --config suite.toml
"""


def matrix_options(command: Command) -> Command:
    """Add the options that say what is requested and how to execute it."""
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
        click.option(
            "--split",
            type=click.Choice(["evaluation", "development"]),
            help="Whom to evaluate; development: training identities, on which choices are made. [default: evaluation]",
        ),
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
        click.option(
            "--precision",
            type=click.Choice(["float32", "bfloat16"]),
            default="float32",
            show_default=True,
            help="What trackers' backbones multiply in. bfloat16 is for GPUs: it moves scores in the third digit.",
        ),
        click.option(
            "--time-limit",
            type=click.FloatRange(0),
            metavar="SECONDS",
            help="What one stage of a method may take on a shard of photos, 0 for any time. [default: ten times what "
            "it declares, an hour at least]",
        ),
        click.option(
            "--memory-limit",
            type=click.FloatRange(0),
            metavar="GB",
            help="Memory it may take, 0 for any. [default: what the machine has left]",
        ),
        store_option,
        click.option(
            "--out", type=click.Path(path_type=Path), help="The run's folder. [default: runs/<run>]"
        ),
        lpips_trunk_option,
        engine_options,
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def _suite(values: dict[str, Any]) -> dict[str, Any]:
    from bench.run.spec import load_suite

    return load_suite(values["config"]) if values["config"] else {}


_REQUESTED = (
    *("attacks", "defenses", "backbones", "heads", "seeds"),
    *("dataset", "protocol", "split", "split_seed", "identities"),
)
"""Parameters that are fields of a `RunSpec`."""


def _used(values: dict[str, Any], suite: dict[str, Any]) -> list[str]:
    """Return the parameters that are given and count: the suite file is nearer than the settings file."""
    source = click.get_current_context().get_parameter_source
    given = [key for key in _REQUESTED if values[key] not in (None, ())]
    return [key for key in given if key not in suite or source(key) is not ParameterSource.DEFAULT_MAP]


def _requested(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a `RunSpec` that the suite file and the options give."""
    suite = _suite(values)
    return suite | {key: values[key] for key in _used(values, suite)}


def command_line(values: dict[str, Any]) -> str:
    """Return the command that requests the same on another machine.

    What environment, settings file and suite file say of it is written out.
    """
    source = click.get_current_context().get_parameter_source
    requested = _requested(values)
    if values["device"] != "auto":
        requested["device"] = values["device"]
    params = click.get_current_context().command.params
    options = {param.name: long_name(param) for param in params if isinstance(param, click.Option)}
    words = ["bench", *_without("--config", sys.argv[1:])]
    for key in (*_REQUESTED, "device"):
        if key in requested and source(key) is not ParameterSource.COMMANDLINE:
            each = requested[key] if isinstance(requested[key], (list, tuple)) else (requested[key],)
            words += [word for value in each for word in (f"--{options[key]}", str(value))]
    return shlex.join(words)


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
    if is_quiet():
        return
    source = click.get_current_context().get_parameter_source
    decisive = ["config", *_used(values, _suite(values))] + ["device"] * (values["device"] != "auto")
    names: dict[str, list[str]] = {}
    for param in click.get_current_context().command.params:
        if not isinstance(param, click.Option) or param.name not in decisive:
            continue
        elsewhere = source(param.name) in {ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP}
        if values[param.name] is not None and elsewhere:
            names.setdefault(_place(param), []).append(long_name(param))
    if names:
        set_elsewhere = "; ".join(f"{place} sets {', '.join(options)}" for place, options in names.items())
        click.echo(f"Note: {set_elsewhere}.", err=True)


def _place(option: click.Parameter) -> str:
    """Return the environment variable or the settings file that an option's value is from."""
    if click.get_current_context().get_parameter_source(str(option.name)) is ParameterSource.ENVIRONMENT:
        return next(name for name in option.envvar or () if os.environ.get(name))
    from bench.cli import settings

    return str(settings.find())


@dataclass(frozen=True)
class Planned:
    """A run as a command line asks for it.

    Attributes:
        prepared: the run.
        is_complete: whether nothing of it is left to compute, which was found out without torch: its data may be read.
        note: notes what became of its cells, so that the next command may find out likewise.
    """

    prepared: "Prepared"
    is_complete: bool
    note: "Callable[[Prepared, Iterable[CellResult]], None]"


@contextmanager
def planned(values: dict[str, Any], *, in_folder: bool) -> Iterator[Planned]:
    """Give the run that a command line asks for.

    Args:
        values: of the options.
        in_folder: whether a run is complete only where its folder holds it; else where the store does.

    Raises:
        UsageError: something requested does not exist or does not fit together.
        DataError: photos or weights are missing.
    """
    from bench.run.again import Again
    from bench.run.limits import Limits
    from bench.run.spec import make_spec

    _say_what_is_set(values)
    spec = make_spec(_requested(values))
    engine = engines.take(values)
    keys = ("device", "threads", "batch_size", "precision", "store", "out", "lpips_trunk")
    limits = Limits(values["time_limit"], values["memory_limit"])
    given = {key: values[key] for key in keys}
    given |= {"limits": limits, "engine": engine, "command": command_line(values)}
    again = Again(spec, given)
    with again.planned(in_folder=in_folder) as complete:
        if complete is not None:
            yield Planned(complete, is_complete=True, note=again.note)
            return
    yield Planned(_prepared(spec, given), is_complete=False, note=again.note)


def _prepared(spec: "RunSpec", given: dict[str, Any]) -> "Prepared":
    from bench.errors import DataError
    from bench.run import planning

    try:
        return planning.prepare(spec, planning.Options(**given))
    except DataError as error:
        raise DataError(f"{_first_of(error, spec.dataset)}{_one_command(spec)}") from error


def _first_of(error: Exception, dataset: str) -> Exception:
    """Return what is said first: where the data set is missing too, its photos come before weights made for them."""
    from bench.errors import DataError
    from bench.plugins import factory

    try:
        factory.dataset(dataset).identities()
    except DataError as missing:
        return missing
    return error


def _one_command(spec: "RunSpec") -> str:
    """Return the sentence with the one command that gets all that a run lacks, "" where it lacks one thing at most."""
    from bench.assets.needs import needs_of

    missing = needs_of(spec).missing()
    return f" All that this run lacks: `bench fetch {shlex.join(missing)}`." if len(missing) > 1 else ""
