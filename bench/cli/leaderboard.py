"""`bench leaderboard`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.labels import name_option
from bench.cli.options import intervals_option, json_option
from bench.cli.output import is_silent, print_columns, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

    from bench.leaderboard.merge import Merged

_EPILOG = """\b
Examples:
  bench leaderboard runs/3f2a --csv table.csv
  bench leaderboard runs/3f2a runs/77c0 --html leaderboard.html --latex leaderboard.tex
  bench leaderboard results/leaderboard --html site.html
"""

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog=_EPILOG)
@click.argument("runs", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--csv", type=_FILE, help="Write all columns here. [default: print them; on a terminal the summary table]"
)
@click.option("--html", type=_FILE, help="Write a page that sorts and filters here.")
@click.option("--latex", type=_FILE, help="Write the short form for a paper here (booktabs).")
@click.option("--md", type=_FILE, help="Write the short form as Markdown here.")
@intervals_option
@json_option
@click.option(
    "--keep-both",
    is_flag=True,
    help="Keep both rows of a cell that two runs answer differently. [default: refuse]",
)
@name_option
@click.option("--columns", is_flag=True, help="Print what each column means, and nothing else.")
@click.option(
    "--schema",
    type=click.Choice(["row", "submission"]),
    help="Print the JSON Schema of a row of --json, or of a submission's record, and nothing else.",
)
def leaderboard(
    runs: tuple[Path, ...],
    intervals: bool,
    as_json: bool,
    keep_both: bool,
    columns: bool,
    schema: str | None,
    names: tuple[str, ...],
    **files: Path | None,
) -> None:
    """Write the leaderboard of finished runs: one row a cell, rates in [0, 1].

    RUN is the folder of a finished run, a leaderboard's CSV, or a folder of submissions. Several become one
    leaderboard: a cell that two have with the same results is there once. Runs of the same identities, photos and
    protocol are ranked over all their cells.

    Exit code 0: written; 2: not a run, other benchmark versions or splits, or a cell with two results.
    """
    if columns:
        from bench.leaderboard.columns import COLUMNS

        print_columns(COLUMNS, as_json=as_json)
        return
    if schema:
        from bench.leaderboard.json_schema import row_schema, submission_schema

        print_json(row_schema() if schema == "row" else submission_schema())
        return
    if not runs:
        raise click.UsageError(
            "give a finished run's folder, a leaderboard's CSV, or a folder of submissions."
        )
    from bench.files import write_atomically
    from bench.leaderboard.merge import merge, read_sources
    from bench.leaderboard.names import labels
    from bench.leaderboard.summary import development

    merged = merge(read_sources(runs), keep_both=keep_both)
    called = labels(names, _methods(merged))
    made = {form: _as_text(merged, form, called) for form, path in files.items() if path is not None}
    if as_json:
        click.echo(merged.leaderboard.to_json(orient="records", indent=1))
    elif not made and (intervals or sys.stdout.isatty()):
        for sentence in development(merged.leaderboard):
            click.echo(click.style(sentence, bold=True))
        show_table(merged.leaderboard, full=intervals)
        _print_unchecked(merged)
    elif not made:
        click.echo(_as_text(merged, "csv", called), nl=False)
    for form, text in made.items():  # once all of them are made
        write_atomically(Path(str(files[form])), text.encode(), f"--{form}")
        if not is_silent():
            click.echo(f"{len(merged.leaderboard)} rows written to {files[form]}")


def show_table(leaderboard: "pd.DataFrame", title: str = "", *, full: bool = False) -> None:
    """Print a leaderboard for a reader, and what its numbers are means of.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
        title: a line above it.
        full: every column and interval, however wide.
    """
    from bench.leaderboard.as_text import of_leaderboard
    from bench.leaderboard.worst_case import READING, sentences

    shown = print_table(of_leaderboard(leaderboard), title, full=full)
    if leaderboard["n_identities"].notna().any():
        identities, probes = leaderboard["n_identities"].max(), leaderboard["n_probes"].max()
        click.echo(f"{identities} identities, {probes} probes; rates are means over identities.")
    if leaderboard["asr_worst"].notna().any():
        click.echo(READING)
    for sentence in sentences(leaderboard):
        click.echo(sentence)
    left_out = [*(["some intervals"] if shown.intervals else []), *shown.no_room]
    if left_out:
        click.echo(f"Not shown for want of room: {', '.join(left_out)}; `--intervals` shows all.")


def _print_unchecked(merged: "Merged") -> None:
    unchecked = [Path(one.name).stem for one in merged.sources if one.record and not one.checked]
    if unchecked:
        click.echo(
            f"Unchecked, as no decisions lie beside the record: {', '.join(unchecked)}; the rows are their submitters' "
            "alone."
        )


def _methods(merged: "Merged") -> list[str]:
    """Return the canonical names of all methods of a leaderboard."""
    from bench.leaderboard.names import AXES

    return list(dict.fromkeys(str(name) for axis in AXES for name in merged.leaderboard[axis]))


def _as_text(merged: "Merged", form: str, called: Mapping[str, str]) -> str:
    from bench.leaderboard import as_csv, as_latex, as_markdown

    if form == "html":
        from bench.publish.page import page

        return page(merged, labels=called)
    if form == "csv":  # for programs: canonical names stay
        return as_csv.to_csv(merged.leaderboard)
    forms = {"latex": as_latex.latex, "md": as_markdown.markdown}
    return forms[form](merged.leaderboard, called)
