"""What commands print: JSON, tables, progress, the files they wrote, and the harness's log."""

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from bench.leaderboard.as_text import TextColumn, TextTable
    from bench.run.folder import RunFacts

QUIET = "bench.quiet"
VERBOSE = "bench.verbose"
"""Where a context notes how often ``-q`` and ``-v`` were given, before or after the command's name."""


def is_quiet() -> bool:
    """Say whether ``-q`` was given."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(QUIET))


def is_silent() -> bool:
    """Say whether no progress is shown: with ``-q``, and where a JSON document is all that is printed."""
    ctx = click.get_current_context(silent=True)
    return is_quiet() or (ctx is not None and bool(ctx.params.get("as_json")))


def verbosity() -> int:
    """Return how often ``-v`` was given."""
    ctx = click.get_current_context(silent=True)
    return 0 if ctx is None else int(ctx.meta.get(VERBOSE, 0))


class _Stderr(logging.StreamHandler[Any]):
    """The harness's log on stderr; a class of its own so that it is added once."""


def log_to_stderr(verbosity: int) -> None:
    """Print warnings of the harness; 1: all that is logged; 2: tracebacks too, which `run.log` has in any case."""
    logger = logging.getLogger("bench")
    for old in [handler for handler in logger.handlers if isinstance(handler, _Stderr)]:
        logger.removeHandler(old)
    handler = _Stderr()
    logger.setLevel(logging.INFO if verbosity else logging.NOTSET)
    handler.setLevel(logging.INFO if verbosity else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    if verbosity < 2:
        handler.addFilter(lambda record: record.exc_info is None)
    logger.addHandler(handler)


# -- progress ------------------------------------------------------------------------------------------------


def begin_reading(run: Path) -> None:
    """Say on stderr that a run is read, before what takes a while is imported; nothing where there is no run."""
    if (run / "spec.json").is_file() and not is_silent():
        click.echo(f"Reading {run} and its photos …", err=True)


def say_split(facts: "RunFacts") -> None:
    """Say on stderr that a run is on the development split, where what is printed of it does not."""
    from bench.run.spec import DEVELOPMENT_NOTE

    if facts.spec.split == "development" and not is_quiet():
        click.echo(DEVELOPMENT_NOTE, err=True)


@contextmanager
def counting(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar of images finished on stderr and give the function that moves it on.

    Args:
        what: what is being done.
        total: images in all; None where that is not known.
    """
    if is_silent() or total == 0:
        yield lambda _n: None
        return
    from bench.run.progress import display

    with display(console(stderr=True)) as shown:
        shown.add(what, total)
        shown.advance(what, 0)
        yield lambda count: shown.advance(what, count)


@contextmanager
def reporting() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr for each thing that the function given reports: what, how much is done, of how much."""
    if is_silent():
        yield lambda _what, _done, _total: None
        return
    from bench.run.progress import display

    with display(console(stderr=True)) as shown:
        yield shown.report


# -- what is printed -----------------------------------------------------------------------------------------


def print_json(document: Any) -> None:
    """Print a value as one JSON document."""
    click.echo(json.dumps(document, indent=1, default=str))


def print_columns(meanings: Mapping[str, str], *, as_json: bool) -> None:
    """Print what the columns of a table mean."""
    if as_json:
        print_json(dict(meanings))
        return
    width = max(map(len, meanings))
    for name, meaning in meanings.items():
        click.echo(f"{name:{width}}  {meaning}")


def rows_of(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return the rows of a table, None where there is no value."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a share in per cent, with its interval where there is one."""
    if value is None:
        return "NA"
    text = f"{round(100 * value, 1) + 0.0:.1f}"  # not -0.0
    return text if low is None or high is None else f"{text} [{percent(low)}, {percent(high)}]"


def number(value: float | None, missing: str = "") -> str:
    """Return a number with one decimal."""
    return missing if value is None else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Return a time in words: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """Return a console for tables and progress: no style where NO_COLOR is set, brackets printed as they are.

    Args:
        stderr: print there; for what is not the command's result.
        width: columns where the output is no terminal; 80 by default.
    """
    plain = bool(os.environ.get("NO_COLOR"))
    return _console_class()(
        stderr=stderr,
        width=None if sys.stdout.isatty() else width,
        markup=False,
        highlight=not plain,
        color_system=None if plain else "auto",
    )


@cache
def _console_class() -> "type[Console]":
    from rich.console import Console

    class Piped(Console):
        """A console whose reader may go away: rich would leave with code 1."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Piped


def print_table(columns: "Sequence[TextColumn]", title: str = "", *, full: bool = False) -> "TextTable":
    """Print a table, one line a row, and below it what it leaves out; return what was shown.

    Args:
        columns: all there are.
        title: a line above it, "" for none.
        full: every column and interval, however wide.
    """
    from rich import box
    from rich.table import Table

    from bench.leaderboard.as_text import fit

    screen = console()
    shown = fit(columns, None if full else screen.width)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in shown.columns:
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        drawn.add_column(column.title(), justify=justify, overflow="fold")
    for row in zip(*(column.fields for column in shown.columns), strict=True):
        drawn.add_row(*map(str, row))
    if title:
        click.echo(title)
    if full:
        screen.width = max(screen.width, shown.width())
    screen.print(drawn)
    if shown.same:
        click.echo(f"The same in every row: {', '.join(shown.same)}.")
    return shown


# -- files ---------------------------------------------------------------------------------------------------


def check_files(files: Mapping[str, Path | None]) -> dict[str, Path]:
    """Return the files that were requested, by option, once it is known that each can be written.

    Raises:
        UsageError: a folder cannot be written.
    """
    from bench.files import check_writable

    wanted = {option: path for option, path in files.items() if path is not None}
    for option, path in wanted.items():
        check_writable(path.absolute().parent, option)
    return wanted
