"""Take the cloaks off the photos of a folder, with the key.

`bench erase`.
"""

from pathlib import Path
from typing import Any

import click

from bench.cli.options import device_option, store_option, threads_option
from bench.cli.output import counting
from bench.photo_tools.commands.changing import count, name_all, there_already

_EXAMPLES = """\b
Examples:
  bench erase CLOAKED ERASED --key my.key
  bench erase DOWNLOADED ERASED --key my.key --attack erasablemask
  bench erase CLOAKED ERASED --masks my.masks
"""


@click.command(epilog=_EXAMPLES)
@click.argument("photos", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="The key file the photos were cloaked with.")
@click.option(
    "--masks", type=click.Path(path_type=Path), help="The file of masks, where the attack learns masks."
)
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
def erase(
    photos: Path,
    out: Path,
    key: Path | None,
    masks: Path | None,
    attack: str,
    force: bool,
    dry_run: bool,
    **how: Any,
) -> None:
    """Take the cloaks off the photos in folder PHOTOS, as `bench cloak` wrote it, and write them into folder OUT.

    PHOTOS/cloaks.json says by what and under which key they were cloaked, and where in a photo the faces lie: a wrong
    key is refused before anything is written. A photo that was changed since is tried all the same, and named; one that
    was resized is refused. What is written is PNG. No file of yours is written over.

    Exit code 0: every photo was erased; 1: some, or a face of some, could not be, they are named; 2: what was requested
    cannot be done.
    """
    from bench.photo_tools import erasing
    from bench.photo_tools.applied import MethodRequest

    planned = erasing.plan(erasing.EraseRequest(photos, out, MethodRequest(attack, **how), key, force, masks))
    for warning in planned.warnings:
        click.echo(f"Warning: {warning}", err=True)
    done, by = erasing.Erased((), planned.refused), "key" if masks is None else "masks"
    if dry_run:
        click.echo(
            f"{count(planned.pending)} would be erased with {by} {planned.key.fingerprint} and written into {out}; "
            f"{len(planned.done)} are there already."
        )
    else:
        with counting("photos", len(planned.pending)) as advance:
            done = erasing.erase(planned, advance)
        there = there_already(planned.done)
        click.echo(f"{count(done.restored)} erased with {by} {planned.key.fingerprint} in {out}{there}.")
    name_all("tried all the same", planned.remarks)
    name_all("with nothing to erase: no face was found in them", planned.uncloaked)
    name_all("erased in part", done.partly)
    name_all("not erased", done.refused)
    if dry_run:
        click.echo("Nothing was written.")
    elif done.refused or done.partly:
        click.get_current_context().exit(1)
