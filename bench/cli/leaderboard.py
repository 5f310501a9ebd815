"""`bench leaderboard`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.leaderboard.merge import Merged

_EPILOG = """\b
Examples:
  bench leaderboard runs/3f2a --csv table.csv
  bench leaderboard runs/3f2a runs/77c0 --html board.html --latex board.tex
  bench leaderboard results/leaderboard --html site.html
"""

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog=_EPILOG)
@click.argument("runs", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--csv", "csv_file", type=_FILE, help="Write all columns here. [default: print them]")
@click.option("--html", "html_file", type=_FILE, help="Write a page that sorts and filters here.")
@click.option("--latex", "latex_file", type=_FILE, help="Write the short form for a paper here (booktabs).")
@click.option("--md", "md_file", type=_FILE, help="Write the short form as Markdown here.")
@click.option("--json", "as_json", is_flag=True, help="Print all columns as JSON, and nothing else.")
@click.option(
    "--keep-both",
    is_flag=True,
    help="Keep both rows of a cell that two runs answer differently. [default: refuse]",
)
@click.option("--columns", is_flag=True, help="Print what each column means, and nothing else.")
def leaderboard(
    runs: tuple[Path, ...],
    csv_file: Path | None,
    html_file: Path | None,
    latex_file: Path | None,
    md_file: Path | None,
    as_json: bool,
    keep_both: bool,
    columns: bool,
) -> None:
    """Write the leaderboard of finished runs: one row a cell, rates in [0, 1].

    RUN is the folder of a finished run, a leaderboard's CSV, or a folder of submissions. Several become one
    leaderboard: a cell that two have with the same results is there once. Runs of the same identities, photos and
    protocol are ranked over all their cells.

    Exit code 0: written; 2: not a run, other benchmark versions, or a cell with two results.
    """
    from bench.leaderboard import as_csv
    from bench.leaderboard import columns as leaderboard_columns

    if columns:
        for name, meaning in leaderboard_columns.COLUMNS.items():
            click.echo(f"{name}: {meaning}")
        return
    if not runs:
        raise click.UsageError(
            "give a finished run's folder, a leaderboard's CSV, or a folder of submissions."
        )
    from bench.leaderboard.merge import merge, read_sources

    files = {"csv": csv_file, "html": html_file, "latex": latex_file, "md": md_file}
    wanted = {form: path for form, path in files.items() if path is not None}
    merged = merge(read_sources(runs), keep_both=keep_both)
    if as_json:
        click.echo(merged.leaderboard.to_json(orient="records", indent=1))
    elif not wanted:
        click.echo(as_csv.to_csv(merged.leaderboard), nl=False)
    _write(merged, wanted, silent=as_json)


def _write(merged: "Merged", wanted: "Mapping[str, Path]", *, silent: bool) -> None:
    """Write every file that was requested, once all of them are made."""
    from bench.cli.options import is_quiet
    from bench.files import write_atomically

    made = {form: _FORMS[form](merged) for form in wanted}
    for form, text in made.items():
        write_atomically(wanted[form], text.encode(), f"--{form}")
        if not (silent or is_quiet()):
            click.echo(f"{len(merged.leaderboard)} rows written to {wanted[form]}")


def _csv(merged: "Merged") -> str:
    from bench.leaderboard.as_csv import to_csv

    return to_csv(merged.leaderboard)


def _html(merged: "Merged") -> str:
    from bench.publish.page import page

    return page(merged)


def _latex(merged: "Merged") -> str:
    from bench.leaderboard.as_latex import latex

    return latex(merged.leaderboard)


def _md(merged: "Merged") -> str:
    from bench.leaderboard.as_markdown import markdown

    return markdown(merged.leaderboard)


_FORMS: "Mapping[str, Callable[[Merged], str]]" = {"csv": _csv, "html": _html, "latex": _latex, "md": _md}
