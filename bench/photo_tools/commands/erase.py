"""Take the cloaks off the photos of a folder, with the key.

`bench erase`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import device_option, store_option, threads_option

if TYPE_CHECKING:
    from bench.photo_tools.photo_folders import Refusal

_EXAMPLES = """\b
Examples:
  bench erase CLOAKED ERASED --key my.key
  bench erase DOWNLOADED ERASED --key my.key --attack erasablemask
"""


@click.command(epilog=_EXAMPLES)
@click.argument("photos", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="The key file the photos were cloaked with.")
@click.option(
    "--attack",
    default="",
    metavar="METHOD",
    help="What the photos were cloaked by. [default: as PHOTOS/cloaks.json says, unless that is a file of code]",
)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME",
    help="Surrogate they were cloaked with. May be repeated. [default: likewise]",
)
@click.option(
    "--dataset", default="", metavar="METHOD", help="Dataset they were cloaked with. [default: likewise]"
)
@click.option("--force", is_flag=True, help="Try a key that is not the cloaks' key all the same.")
@device_option
@threads_option
@store_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def erase(
    photos: Path,
    out: Path,
    key: Path | None,
    attack: str,
    backbones: tuple[str, ...],
    dataset: str,
    force: bool,
    device: str,
    threads: int | None,
    store: Path | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Take the cloaks off the photos in folder PHOTOS, as `bench cloak` wrote it, and write them into folder OUT.

    PHOTOS/cloaks.json says by what and under which key they were cloaked, and where in a photo the faces lie: a wrong
    key is refused before anything is written. A photo that was changed since is tried all the same, and named; one that
    was resized is refused. What is written is PNG. No file of yours is written over.

    Exit code 0: every photo was erased; 1: some, or a face of some, could not be, they are named; 2: what was requested
    cannot be done.
    """
    from bench.cli.progress import counting
    from bench.photo_tools import erasing
    from bench.photo_tools.commands.cloak import count, name_all, name_photos

    requested = erasing.EraseRequest(
        photos, out, key, attack, force, device, threads, store, dataset, backbones
    )
    planned = erasing.plan(requested)
    for warning in planned.warnings:
        click.echo(f"Warning: {warning}", err=True)
    refused: Sequence[Refusal] = planned.refused
    partly: Sequence[Refusal] = ()
    if dry_run:
        click.echo(
            f"{count(len(planned.pending))} would be erased with key {planned.key.fingerprint} and written into {out}; "
            f"{len(planned.done)} are there already."
        )
    else:
        with counting("photos", len(planned.pending), hidden=quiet) as advance:
            done = erasing.erase(planned, advance)
        there = f"; {len(planned.done)} were there already" if planned.done else ""
        click.echo(f"{count(len(done.restored))} erased with key {planned.key.fingerprint} in {out}{there}.")
        refused = done.refused
        partly = done.partly
    name_all("tried all the same", planned.remarks)
    name_photos("with nothing to erase: no face was found in them", planned.uncloaked)
    name_all("erased in part", partly)
    name_all("not erased", refused)
    if dry_run:
        click.echo("Nothing was written.")
    elif refused or partly:
        click.get_current_context().exit(1)
