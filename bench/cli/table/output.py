"""What the tables of one frame share: the files they are written to, and their printing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.cli.options import json_option

if TYPE_CHECKING:
    import pandas as pd

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)


def table_options(command: Command) -> Command:
    """Add the options of where a table goes: the parameters ``csv_file``, ``md_file``, ``latex_file``, ``as_json``."""
    for option in (
        click.option("--columns", is_flag=True, help="Explain the columns and do nothing else."),
        json_option,
        click.option("--latex", "latex_file", type=_FILE, help="Write it for a paper here (booktabs)."),
        click.option("--md", "md_file", type=_FILE, help="Write it as Markdown here."),
        click.option("--csv", "csv_file", type=_FILE, help="Write every column here."),
    ):
        command = option(command)
    return command


def check_files(files: Mapping[str, Path | None]) -> dict[str, Path]:
    """Return the files that were requested, by option, once it is known that each can be written.

    Raises:
        UsageError: a folder cannot be written.
    """
    from bench.run.planning import check_writable

    wanted = {option: path for option, path in files.items() if path is not None}
    for option, path in wanted.items():
        check_writable(path.absolute().parent, option)
    return wanted


def give(
    found: "pd.DataFrame", files: Mapping[str, Path], show: "Callable[[pd.DataFrame], None]", *, as_json: bool
) -> None:
    """Write a table to files, then print it.

    Args:
        found: the table.
        files: option → file, of `check_files`.
        show: prints it for a reader.
        as_json: print it as JSON instead.

    Raises:
        StoreError: a file cannot be written.
    """
    from bench.files import write_atomically
    from bench.leaderboard.as_csv import to_csv
    from bench.leaderboard.significance_tables import to_latex, to_markdown

    forms = {"--csv": to_csv, "--md": to_markdown, "--latex": to_latex}
    for option, path in files.items():
        write_atomically(path, forms[option](found).encode(), option)
    if as_json:
        click.echo(json.dumps(json.loads(found.to_json(orient="records")), indent=1))
        return
    show(found)
    for path in files.values():
        click.echo(f"{path} written")
