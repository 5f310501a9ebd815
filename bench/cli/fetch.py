"""`bench fetch`: data sets, weights and trunks, from their publishers into the data folder."""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import PluginName, json_option
from bench.cli.output import console, is_silent, print_json

if TYPE_CHECKING:
    from bench.assets.catalogue import Listed
    from bench.assets.downloads import Progress
    from bench.assets.fetching import Failure, Fetched
    from bench.contracts import AssetEntry
    from bench.errors import UsageError

PLAIN_S = 30.0
"""Seconds between two lines of progress where there is no terminal."""

_LABEL = 28
"""Characters of a file's name beside its bar; bar, bytes and time left go before it does."""

_EXAMPLES = """\b
Examples:
  bench fetch lfw mobilefacenet-relu6 lpips
  bench fetch --for results/headline.toml
  bench fetch --list
  bench fetch lfw --from ~/mirror
"""


class _Entry(PluginName):
    """The name of something to fetch; completed from the registry."""

    def __init__(self) -> None:
        super().__init__("datasets", "backbones", "defenses", "attacks")


@click.command(epilog=_EXAMPLES)
@click.argument("names", nargs=-1, type=_Entry())
@click.option(
    "--for",
    "suite",
    type=click.Path(path_type=Path),
    metavar="SUITE",
    help="All that the runs of a suite file (TOML) want: data set, backbones, helpers, LPIPS.",
)
@click.option(
    "--list", "listed", is_flag=True, help="Print what there is, its state, size and licence; fetch nothing."
)
@click.option(
    "--from",
    "source",
    default="",
    metavar="URL_OR_FOLDER",
    help="A copy somebody has: URL of a folder, or a folder here. [default: the publishers]",
)
@click.option("--yes", is_flag=True, help="Agree to what publishers ask before their files are fetched.")
@click.option("--keep", is_flag=True, help="Keep the publishers' files in downloads/ of the data folder.")
@json_option
def fetch(
    names: tuple[str, ...],
    suite: Path | None,
    listed: bool,
    source: str,
    yes: bool,
    keep: bool,
    as_json: bool,
) -> None:
    """Fetch data sets, weights and trunks NAMES into the data folder, each checked against its SHA-256.

    What is made of a publisher's file is made here and checked again; what is here and whole is left alone. The data
    folder is CLOAKBENCH_DATA, else the platform's user data folder.

    A mirror (--from) holds the publishers' files under their own names, or finished files under their place in the data
    folder or their name. A download that was cut goes on where it was when the same command runs again.
    """
    if listed:
        _list(names, suite, as_json)
        return
    if suite is None:
        if not names:
            raise _nothing_named()
        if here := _all_here(names):
            _print(here, as_json)
            return
    entries, failures = _entries(names, suite)
    if not entries and not failures:
        raise _nothing_named()
    fetched, failures = _fetch(_agreed(entries, yes), source, keep, failures)
    _print([(one.entry.name, one.written, one.notes) for one in fetched], as_json)
    _raise(failures)


def _nothing_named() -> "UsageError":
    from bench.errors import UsageError

    return UsageError(
        "name what to fetch, e.g. `bench fetch lfw lpips`; `bench fetch --list` shows what there is."
    )


def _all_here(names: Sequence[str]) -> "list[Came]":
    """Return what is requested where all of it is here and whole, else nothing.

    Raises:
        UsageError: a name is unknown, or nothing is to be fetched for it.
    """
    from bench.plugins import without_torch

    rows = without_torch.look(lambda: _rows(names, None))
    if any(row["state"] != "present" for row in rows):
        return []
    return [(row["name"], (), ()) for row in rows]


def fetch_for(suite: Path, source: str, *, yes: bool, may_lack: Collection[str] = ()) -> None:
    """Fetch what a suite wants and is not here, saying what it is.

    Args:
        suite: the suite file.
        source: a mirror, or "".
        yes: whether the user agrees to what publishers ask.
        may_lack: names of entries without which the suite can be run; that one is not to be had is said.

    Raises:
        UsageError: something cannot be fetched, or its terms are not agreed to.
        DataError: a source does not answer or gives other bytes.
    """
    from bench.assets import catalogue

    entries, failures = _entries((), suite)
    wanted = [entry for entry in entries if catalogue.state_of(entry).state != "present"]
    if wanted:
        _say(f"To be fetched: {', '.join(entry.name for entry in wanted)}.")
    _, failures = _fetch(_agreed(wanted, yes), source, keep=False, failures=failures)
    for failure in failures:
        if failure.name in may_lack:
            _say(f"Going on without {failure.name}: {failure.error}")
    _raise([failure for failure in failures if failure.name not in may_lack])


def _raise(failures: "list[Failure]") -> None:
    if failures:
        from bench.assets.fetching import failed

        raise failed(failures)


def _entries(names: Sequence[str], suite: Path | None) -> "tuple[list[AssetEntry], list[Failure]]":
    """Return what is requested, each once, and what of a suite cannot be fetched.

    Raises:
        UsageError: a name is unknown, or nothing is to be fetched for it.
    """
    from bench.assets import catalogue
    from bench.assets.fetching import Failure
    from bench.errors import UsageError

    found = {name: catalogue.find(name) for name in names}
    failures = []
    if suite is not None:
        from bench.assets.needs import needs_of
        from bench.run.spec import load_suite, make_spec

        needs = needs_of(make_spec(load_suite(suite)))
        found |= needs.entries
        for entry in needs.by_hand:
            try:
                catalogue.find(entry.name)
            except UsageError as error:
                failures.append(Failure(entry.name, error))
    once = {tuple(file.path for file in entry.files): entry for entry in found.values()}
    return list(once.values()), failures


def _agreed(entries: "list[AssetEntry]", yes: bool) -> "list[AssetEntry]":
    """Return the entries, once the user has agreed to what their publishers ask.

    Raises:
        UsageError: there is nobody to ask, or the user does not agree.
    """
    from bench.assets import catalogue
    from bench.errors import UsageError

    for entry in entries:
        if not entry.terms or yes or catalogue.state_of(entry).state == "present":
            continue
        if not sys.stdin.isatty():
            raise UsageError(
                f"the publisher of {entry.name} asks: {entry.terms} Say --yes if you agree to that."
            )
        click.echo(f"The publisher of {entry.name} asks: {entry.terms}", err=True)
        if not click.confirm("Do you agree?", err=True):
            raise UsageError(f"{entry.name} is not fetched, as its publisher's terms are not agreed to.")
    return entries


def _fetch(
    entries: "list[AssetEntry]", source: str, keep: bool, failures: "list[Failure]"
) -> "tuple[list[Fetched], list[Failure]]":
    """Fetch; returns what came, and the failures so far with those of now."""
    from bench.assets.fetching import Fetcher
    from bench.assets.mirrors import Mirror

    mirror = Mirror.at(source) if source else None
    with downloading() as report:
        fetched, more = Fetcher(mirror, keep, report, _say).fetch_all(entries)
    return fetched, failures + more


def _say(sentence: str) -> None:
    if not is_silent():
        click.echo(sentence, err=True)


Came = tuple[str, Sequence[Path], Sequence[str]]
"""Name of an entry, the files that were written for it, and what the user should know of it."""


def _print(came: Sequence[Came], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"name": name, "files": [str(path) for path in written], "notes": notes}
                for name, written, notes in came
            ]
        )
        return
    for name, written, notes in came:
        if not written:
            _say(f"{name} is here and whole.")
        for path in written:
            click.echo(str(path))
        for note in notes:
            _say(f"Note: {note}")


# -- progress ------------------------------------------------------------------------------------------------


@contextmanager
def downloading() -> "Iterator[Progress]":
    """Show on stderr how much of each file has arrived: a bar on a terminal, else a line now and then."""
    screen = console(stderr=True)
    if is_silent():
        yield lambda _name, _done, _total: None
    elif screen.is_terminal:
        with _bars(screen) as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bars(screen: Any) -> "Iterator[Progress]":
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=screen) as bars:

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                label = name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"
                tasks[name] = bars.add_task(label, total=None, completed=done)
            bars.update(tasks[name], completed=done, total=total or None)

        yield report


class _Lines:
    """Progress in lines: one where a file begins, one where it is whole, one every `PLAIN_S` seconds between."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        """Print where a line is due."""
        now = time.monotonic()
        if name in self._last and done != total and now - self._last[name] < PLAIN_S:
            return
        self._last[name] = now
        of = f" of {total / 1e6:.1f} MB ({done / total:.0%})" if total else " MB"
        click.echo(f"{name}: {done / 1e6:.1f}{of}", err=True)


# -- the list ------------------------------------------------------------------------------------------------


def _list(names: Sequence[str], suite: Path | None, as_json: bool) -> None:
    """Print the catalogue, or of it what is named."""
    from bench.data.files import data_folder
    from bench.plugins import without_torch

    rows = without_torch.look(lambda: _rows(names, suite))
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(
        "name", "state", "size", "licence", title=f"Data folder: {data_folder()}", title_justify="left"
    )
    for row in rows:
        size = _size(row["bytes"], row["download"]) if "bytes" in row else ""
        table.add_row(row["name"], row["state"], size, row["licence"])
    console(width=120).print(table)


def _rows(names: Sequence[str], suite: Path | None) -> list[dict[str, Any]]:
    """Return the rows of the catalogue, or of it those of what is named."""
    from bench.assets import catalogue

    if names or suite is not None:
        handed_out = dict.fromkeys(name for name in names if catalogue.by_hand(name) is not None)
        entries, missing = _entries([name for name in names if name not in handed_out], suite)
        found = tuple(map(catalogue.state_of, entries))
        by_hand = [_by_hand_row(name) for name in handed_out | dict.fromkeys(each.name for each in missing)]
    else:
        found = catalogue.listing()
        by_hand = [_by_hand_row(entry.name) for entry in catalogue.BY_HAND]
    return [*map(_as_row, found), *by_hand]


def _as_row(item: "Listed") -> dict[str, Any]:
    entry = item.entry
    facts = {"name": entry.name, "kind": entry.kind, "state": item.state, "what": entry.what}
    sizes = {"bytes": item.bytes, "download": item.download}
    origin = {"licence": entry.licence, "terms": entry.terms, "source": entry.source}
    files = [{"path": state.file.path, "state": state.state} for state in item.files]
    return {**facts, **sizes, **origin, "files": files}


def _by_hand_row(name: str) -> dict[str, Any]:
    """Return the row of a dataset that its publishers hand out, named with or without parameters."""
    from bench.assets import catalogue
    from bench.plugins import syntax

    entry = catalogue.by_hand(name)
    assert entry is not None
    path = str(syntax.parse(name).values.get("path", ""))
    state = "folder here" if catalogue.place_of(entry, path).is_dir() else "by hand"
    facts = {"name": entry.name, "kind": "dataset", "state": state, "what": entry.what}
    return {**facts, "licence": entry.licence, "how": entry.how}


def _size(size: int, download: int) -> str:
    shown = f"{size / 1e6:.1f} MB" if size else "not stated"
    return f"{shown} (download {download / 1e6:.1f} MB)" if download else shown
