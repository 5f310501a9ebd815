"""Purify the photos of a folder, as a tracker would.

`bench purify`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.photo_tools.commands.cloak import (
    announce,
    count,
    how_written,
    name_all,
    name_photos,
    named_reasons,
    names,
    print_json,
    working,
    writing,
    written,
)

if TYPE_CHECKING:
    from bench.photo_tools.changing import PhotosOutcome
    from bench.photo_tools.purifying import PurifyPlan

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
@writing
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME",
    help="Extractor the defence works with. May be repeated. [default: first of the dataset's pool it has weights "
    "for]",
)
@click.option(
    "--dataset",
    default="",
    metavar="METHOD",
    help="Whose pool and training people count. [default: lfw if it is there, else synthetic]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the defence's randomness.")
@working
def purify(
    photos: Path,
    out: Path,
    defense: str,
    files: str | None,
    crops: bool,
    strip_location: bool,
    backbones: tuple[str, ...],
    dataset: str,
    seed: int,
    device: str,
    threads: int | None,
    store: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Purify every face in PHOTOS, a folder or one photo, as a tracker would, and write the photos into folder OUT.

    Each face goes through the defence as an aligned 112x112 crop, which is what a tracker has, and what the defence
    changed goes back into the photo; all else stays. PHOTOS may be what `bench cloak` wrote. No file of yours is
    written over, and a command that was interrupted goes on when it is given again. OUT/purified.json says what was
    made of what.

    Exit code 0: every photo is purified or shows no face; 1: some could not be, they are named and not written;
    2: what was requested cannot be done.
    """
    from bench.cli.progress import counting
    from bench.photo_tools import purifying
    from bench.photo_tools.applied import MethodRequest
    from bench.photo_tools.changing import PhotosRequest

    how = how_written(files or "keep", crops, strip_location)
    requested = MethodRequest(defense, backbones, dataset, seed, device, threads, store)
    planned = purifying.plan(PhotosRequest(photos, out, requested, how))
    if not quiet:
        announce(planned.applied.name, planned.applied.backbones, planned.applied.note)
    if dry_run:
        _say_plan(planned, as_json)
        return
    with counting("photos", len(planned.pending), hidden=quiet) as advance:
        done = purifying.purify(planned, advance)
    _say_outcome(planned, done, as_json)
    if done.refused:
        click.get_current_context().exit(1)


def _say_plan(planned: "PurifyPlan", as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "defense": planned.applied.name,
                "dry_run": True,
                "pending": names(planned.pending),
                "there_already": names(planned.done),
                "failed": named_reasons(planned.refused),
            }
        )
        return
    click.echo(
        f"{count(len(planned.pending))} would be purified by {planned.applied.name} and written into "
        f"{planned.request.out}; {len(planned.done)} are there already."
    )
    name_all("cannot be read", planned.refused)
    click.echo("Nothing was written.")


def _say_outcome(planned: "PurifyPlan", done: "PhotosOutcome", as_json: bool) -> None:
    from bench.photo_tools.records import WEAK

    out = planned.request.out
    if as_json:
        from bench.photo_tools.records import PURIFIED, PurifyRecord

        record = PurifyRecord.read(out / PURIFIED) or planned.record
        print_json(
            {
                "defense": planned.applied.name,
                "extractors": list(planned.applied.backbones),
                "purified": written(done.changed, record),
                "copied": names(done.copied),
                "weak": named_reasons(done.weak),
                "there_already": names(planned.done),
                "failed": named_reasons(done.refused),
            }
        )
        return
    there = f"; {len(planned.done)} were there already" if planned.done else ""
    click.echo(f"{count(len(done.changed))} purified by {planned.applied.name} in {out}{there}.")
    name_photos("in which no face was found, copied as they are", done.copied)
    name_all(f"purified weakly: less than {WEAK:.0%} of the change is left in a face", done.weak)
    name_all("changed in something else too", done.noted)
    name_all("not purified and not written", done.refused)
