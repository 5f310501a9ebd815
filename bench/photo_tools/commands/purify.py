"""Purify the photos of a folder, as a tracker would.

`bench purify`.
"""

from pathlib import Path
from typing import Any

import click

from bench.cli.output import counting, print_json
from bench.photo_tools.commands.changing import (
    announce,
    change_options,
    count,
    name_all,
    outcome_document,
    plan_document,
    request,
    there_already,
)

_EXAMPLES = """\b
Examples:
  bench purify CLOAKED PURIFIED --defense puface
  bench purify CLOAKED PURIFIED --defense "jpeg:quality=75 + median"
"""


@click.command(epilog=_EXAMPLES)
@click.argument("photos", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--defense",
    required=True,
    metavar="METHOD",
    help='The purifier, e.g. puface; several one after another as "jpeg:quality=75 + puface".',
)
@change_options("the defence", "Extractor", "Whose pool and training people count.")
def purify(photos: Path, out: Path, defense: str, dry_run: bool, as_json: bool, **how: Any) -> None:
    """Purify every face in PHOTOS, a folder or one photo, as a tracker would, and write the photos into folder OUT.

    Each face goes through the defence as an aligned 112x112 crop, which is what a tracker has, and what the defence
    changed goes back into the photo; all else stays. PHOTOS may be what `bench cloak` wrote. No file of yours is
    written over, and a command that was interrupted goes on when it is given again. OUT/purified.json says what was
    made of what.

    Exit code 0: every photo is purified or shows no face; 1: some could not be, they are named and not written;
    2: what was requested cannot be done.
    """
    from bench.photo_tools import purifying
    from bench.photo_tools.records import WEAK

    planned = purifying.plan(request(photos, out, defense, **how))
    applied = planned.applied
    announce(planned)
    if dry_run:
        if as_json:
            print_json({"defense": applied.name, **plan_document(planned)})
            return
        click.echo(
            f"{count(planned.pending)} would be purified by {applied.name} and written into {out}; "
            f"{len(planned.done)} are there already."
        )
        name_all("cannot be read", planned.refused)
        click.echo("Nothing was written.")
        return
    with counting("photos", len(planned.pending)) as advance:
        done = purifying.purify(planned, advance)
    if as_json:
        method = {"defense": applied.name, "extractors": list(applied.backbones)}
        print_json({**method, **outcome_document(done, planned, "purified")})
    else:
        click.echo(f"{count(done.changed)} purified by {applied.name} in {out}{there_already(planned.done)}.")
        name_all("in which no face was found, copied as they are", done.copied)
        name_all(f"purified weakly: less than {WEAK:.0%} of the change is left in a face", done.weak)
        name_all("changed in something else too", done.noted)
        name_all("not purified and not written", done.refused)
    if done.refused:
        click.get_current_context().exit(1)
