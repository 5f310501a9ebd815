"""`bench audit`."""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import json_option
from bench.cli.output import begin_reading, counting, print_json

if TYPE_CHECKING:
    from bench.integrity.audit import Audit, Leak


@click.command(epilog="Example: bench audit runs/3f2a --csv findings.csv")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--no-images", is_flag=True, help="Do not look for near-duplicate photos.")
@click.option("--all-images", is_flag=True, help="Look among all photos of the dataset, not only the run's.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write the findings here too.")
@json_option
def audit(run: Path, no_images: bool, all_images: bool, csv_file: Path | None, as_json: bool) -> None:
    """List every leakage that can be found in the finished run in folder RUN, and whether its rows say so.

    Exit code 0: every leak found is marked in its rows; 1: one is not; 2: the folder cannot be read, or
    weights, training identities or photos could not be looked up at all. Single things that could not be
    checked are listed and do not change the exit code.
    """
    if not no_images:
        begin_reading(run)
    from bench.files import write_atomically
    from bench.integrity import audit as auditing
    from bench.run.folder import RunFolder

    found = auditing.audit(RunFolder(run), images=not no_images, all_images=all_images, counting=counting)
    if csv_file:
        write_atomically(csv_file, _csv(found).encode(), "--csv")
    if as_json:
        print_json({**asdict(found), "unmarked": len(found.unmarked)})
    else:
        _print(found)
    if found.exit_code:
        click.get_current_context().exit(found.exit_code)  # the findings are the command's output


def _status(finding: "Leak") -> str:
    if finding.severity == "notice":
        return "notice"
    return "marked" if finding.marked else "UNMARKED"


def _csv(found: "Audit") -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(("status", "kind", "column", "cells", "evidence"))
    for each in found.findings:
        writer.writerow((_status(each), each.kind, each.column, "; ".join(each.cells), each.evidence))
    for missed in found.unchecked:
        writer.writerow(("not checked", missed.what, "", "", missed.reason))
    return sink.getvalue()


def _print(found: "Audit") -> None:
    for each in found.findings:
        where = f"{len(each.cells)} cells, e.g. {each.cells[0]}" if each.cells else "the whole run"
        click.echo(f"{_status(each)}: {each.kind}")
        click.echo(f"    {each.evidence}")
        click.echo(f"    {where}; {'marked by' if each.marked else 'would be marked by'} {each.column}")
    for missed in found.unchecked:
        click.echo(f"not checked: {missed.what}")
        click.echo(f"    {missed.reason}")
    if found.photos:
        click.echo(f"near-duplicates: looked for among {found.photos}")
    leaks = [each for each in found.findings if each.severity == "leak"]
    click.echo(
        f"{'' if not found.blind else 'NOT AUDITED: ' + '; '.join(missed.what for missed in found.blind) + '. '}"
        f"{len(leaks)} leaks, {len(found.unmarked)} of them unmarked; "
        f"{len(found.findings) - len(leaks)} notices; {len(found.unchecked)} things not checked."
    )
