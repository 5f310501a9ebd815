"""`bench plan`, which is `bench run --dry-run`."""

from typing import TYPE_CHECKING, Any

import click

from bench.cli.matrix import EXAMPLES, matrix_options, prepare
from bench.cli.options import json_option
from bench.cli.output import console, duration, print_json

if TYPE_CHECKING:
    from bench.run.planning import Prepared


@click.command(epilog=EXAMPLES)
@matrix_options
@json_option
def plan(as_json: bool, **values: Any) -> None:
    """Show what a run would compute: cells, what is cached, about how long and how much disk.

    Describes what `bench run` would do with the same options: where environment and settings file say
    nothing for `bench plan`, what they say for `bench run` counts.
    """
    show_plan(prepare(values), as_json)


def show_plan(prepared: "Prepared", as_json: bool) -> None:
    """Print what a run would compute: a table, or one JSON document."""
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
            "cells_requested": len(prepared.run.cells_requested),
            "cells_cached": prepared.cached_cells(),
            "seconds": known,
            "untimed": untimed,
            "bytes": size,
            "groups": [vars(group) for group in groups],
        }
        print_json(document)
        return
    from rich.table import Table

    table = Table("stage", "method", "images", "about", title=f"To compute for run {prepared.run.digest}")
    for group in groups:
        time = "not timed yet" if group.seconds is None else duration(group.seconds)
        table.add_row(group.stage, group.label, str(group.images), time)
    screen = console()
    if groups:
        screen.print(table)
    screen.print(
        f"{len(cells)} cells ({len(cells) - len(prepared.run.cells_requested)} of them added as references), "
        f"{prepared.cached_cells()} cached; {duration(known)} for what was timed before on this store"
        + (f", {len(untimed)} groups never timed" if untimed else "")
        + f"; about {size / 1e6:.0f} MB in {prepared.store.folder}."
    )
