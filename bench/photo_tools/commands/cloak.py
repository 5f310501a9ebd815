"""Protect the photos of a folder.

`bench cloak`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from bench.cli.options import device_option, json_option, store_option, threads_option

if TYPE_CHECKING:
    from bench.photo_tools.cloaking import Cloaked, CloakPlan
    from bench.photo_tools.face_editing import Written
    from bench.photo_tools.photo_files import Format
    from bench.photo_tools.photo_folders import Photo, Refusal
    from bench.photo_tools.records import MadeRecord

Command = TypeVar("Command", bound=Callable[..., None])

_EXAMPLES = """\b
Examples:
  bench cloak PHOTOS CLOAKED --attack fawkes:mode=mid
  bench cloak me.jpg CLOAKED --attack lowkey --format png
  bench cloak PHOTOS CLOAKED --attack erasablemask --key my.key
  bench cloak PHOTOS CLOAKED --attack pgd:eps=12 --backbone mobileface-v2 --backbone mobileface-v3
"""

_WRITING = (
    click.option(
        "--format",
        "files",
        type=click.Choice(["keep", "png", "jpeg"]),
        help="Format of what is written. keep: JPEG, PNG and WebP as they are, HEIC and AVIF as JPEG, others as PNG. "
        "[default: keep; png for an erasable attack]",
    ),
    click.option(
        "--crops", is_flag=True, help="Write only the largest face, as an aligned 112x112 crop (PNG)."
    ),
    click.option(
        "--strip-location", is_flag=True, help="Take the place (GPS) out of EXIF; it is kept otherwise."
    ),
)

_WORKING = (
    device_option,
    threads_option,
    store_option,
    click.option("--dry-run", is_flag=True, help="Only say what would be done."),
    json_option,
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
)


def _with(options: Sequence[Callable[[Any], Any]]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


writing = _with(_WRITING)
"""Options of how photos are written."""

working = _with(_WORKING)
"""Options of how a command works."""


@click.command(epilog=_EXAMPLES)
@click.argument("photos", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--attack", required=True, metavar="METHOD", help="What protects, e.g. fawkes:mode=mid.")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="Key file of an erasable attack. Made if it does not exist; only its holder can erase.",
)
@writing
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME",
    help="Surrogate the attack works with. May be repeated. [default: first of the dataset's pool it has weights "
    "for]",
)
@click.option(
    "--dataset",
    default="",
    metavar="METHOD",
    help="Whose pool counts, and whose training people are imitated. [default: lfw if it is there, else synthetic]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the attack's randomness.")
@working
def cloak(
    photos: Path,
    out: Path,
    attack: str,
    key: Path | None,
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
    """Protect every face in PHOTOS, a folder or one photo, and write the photos into folder OUT.

    PHOTOS is flat or has one subfolder a person. Photos keep size, orientation, colour profile and EXIF (without its
    thumbnail); only the faces change. A photo of 112x112 pixels is taken for an aligned face. A photo without a face
    is copied as it is, and named. No file of yours is written over, and a command that was interrupted goes on when
    it is given again. OUT/cloaks.json says what was made of what.

    Exit code 0: every photo is protected or shows no face; 1: some could not be, they are named and not written;
    2: what was requested cannot be done.
    """
    from bench.cli.progress import counting
    from bench.photo_tools import cloaking
    from bench.photo_tools.applied import MethodRequest
    from bench.photo_tools.changing import PhotosRequest

    requested = MethodRequest(attack, backbones, dataset, seed, device, threads, store)
    erasable = _is_erasable(attack)
    how = how_written(files or ("png" if erasable else "keep"), crops, strip_location)
    planned = cloaking.plan(PhotosRequest(photos, out, requested, how, key))
    if not quiet:
        applied = planned.applied
        announce(applied.name, applied.backbones, applied.note)
    if dry_run:
        _say_plan(planned, as_json)
        return
    with counting("photos", len(planned.pending), hidden=quiet) as advance:
        done = cloaking.cloak(planned, advance)
    _say_outcome(planned, done, as_json)
    if done.refused:
        click.get_current_context().exit(1)


def _is_erasable(attack: str) -> bool:
    from bench.plugins import factory

    return factory.attack(attack).erasable


def how_written(files: str, crops: bool, strip_location: bool) -> "Written":
    """Return how photos are written.

    Raises:
        UsageError: crops are PNG without EXIF, and something else was requested.
    """
    from bench.errors import UsageError
    from bench.photo_tools.face_editing import Written

    if crops and (files == "jpeg" or strip_location):
        raise UsageError("--crops writes PNG without EXIF: leave out --format jpeg and --strip-location.")
    if crops:
        return Written("crops", "png")
    return Written("photos", cast("Format", files), strip_location)


def announce(name: str, helpers: tuple[str, ...], note: str) -> None:
    """Say on stderr what a method works with."""
    if helpers:
        click.echo(f"{name} against {', '.join(helpers)}.", err=True)
    if note:
        click.echo(f"Note: {note}", err=True)


UNPROTECTED = "in which no face was found, copied as they are: NOT protected if there is one"


def _say_plan(planned: "CloakPlan", as_json: bool) -> None:
    from bench.photo_tools.face_editing import copies

    request = planned.request
    if as_json:
        print_json(
            {
                "attack": planned.applied.name,
                "dry_run": True,
                "pending": names(planned.pending),
                "there_already": names(planned.done),
                "failed": named_reasons(planned.refused),
            }
        )
        return
    click.echo(
        f"{count(len(planned.pending))} would be protected by {planned.applied.name} and written into {request.out}; "
        f"{len(planned.done)} are there already."
    )
    if planned.makes_key:
        click.echo(f"A new key would be written to {request.key}.")
    elif planned.key:
        click.echo(f"Key: {planned.key.fingerprint}.")
    name_photos(UNPROTECTED, copies(planned.done, planned.record))
    name_all("cannot be read", planned.refused)
    click.echo("Nothing was written.")


def _say_outcome(planned: "CloakPlan", done: "Cloaked", as_json: bool) -> None:
    from bench.photo_tools.records import WEAK

    request = planned.request
    if as_json:
        from bench.photo_tools.records import CLOAKS, CloakRecord

        record = CloakRecord.read(request.out / CLOAKS) or planned.record
        print_json(
            {
                "attack": planned.applied.name,
                "surrogates": list(planned.applied.backbones),
                "key_fingerprint": done.fingerprint,
                "protected": written(done.changed, record),
                "copied": names(done.copied),
                "weak": named_reasons(done.weak),
                "there_already": names(planned.done),
                "failed": named_reasons(done.refused),
            }
        )
        return
    there = f"; {len(planned.done)} were there already" if planned.done else ""
    click.echo(f"{count(len(done.changed))} protected by {planned.applied.name} in {request.out}{there}.")
    if done.detected:
        click.echo(
            f"{done.detected} of them are the aligned 112x112 face cut out of the photo, not the whole photo."
        )
    if planned.makes_key and planned.pending:
        click.echo(
            f"New key {done.fingerprint} in {request.key}. Keep it: without it nobody can erase these cloaks."
        )
    elif done.fingerprint:
        click.echo(f"Key: {done.fingerprint}.")
    name_photos(UNPROTECTED, done.copied)
    name_all(f"protected WEAKLY: less than {WEAK:.0%} of the cloak is left in a face", done.weak)
    name_all("changed in something else too", done.noted)
    name_all("NOT protected and not written", done.refused)


def print_json(value: dict[str, Any]) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=1))


def names(photos: "Sequence[Photo]") -> list[str]:
    """Return the names of photos."""
    return [photo.name for photo in photos]


def named_reasons(refusals: "Sequence[Refusal]") -> list[dict[str, str]]:
    """Return files with their reasons."""
    return [{"photo": refusal.name, "reason": refusal.reason} for refusal in refusals]


def written(photos: "Sequence[Photo]", record: "MadeRecord") -> list[dict[str, Any]]:
    """Return what the record says of photos that were written."""
    keys = {"output", "width", "height", "notes", "faces"}
    return [
        {"photo": photo.name, **record.photos[photo.name].model_dump(mode="json", include=keys)}
        for photo in photos
    ]


def count(photos: int) -> str:
    """Return a number of photos in words."""
    return f"{photos} photo{'' if photos == 1 else 's'}"


def name_all(what: str, refusals: "Sequence[Refusal]") -> None:
    """Print files with their reasons to stderr, under one heading."""
    if refusals:
        click.echo(f"{count(len(refusals))} {what}:", err=True)
    for refusal in refusals:
        click.echo(f"  {on_one_line(refusal.name)}: {on_one_line(refusal.reason)}", err=True)


def name_photos(what: str, photos: "Sequence[Photo]") -> None:
    """Print photos to stderr, under one heading."""
    if photos:
        click.echo(f"{count(len(photos))} {what}:", err=True)
    for photo in photos:
        click.echo(f"  {on_one_line(photo.name)}", err=True)


def on_one_line(text: str) -> str:
    """Return a text, which may be a file's odd name, without what would move the cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
