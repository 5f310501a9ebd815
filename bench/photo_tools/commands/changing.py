"""What `bench cloak` and `bench purify` share: options, the request, and how photos are named in what is printed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.cli.options import device_option, json_option, store_option, threads_option
from bench.cli.output import is_quiet

if TYPE_CHECKING:
    from bench.photo_tools.changing import PhotosOutcome, PhotosPlan, PhotosRequest
    from bench.photo_tools.photo_folders import Photo, Refusal
    from bench.photo_tools.records import MadeRecord

Command = TypeVar("Command", bound=Callable[..., None])


def change_options(method: str, helper: str, dataset: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options which `request` takes.

    Args:
        method: what works, e.g. ``the attack``.
        helper: what ``--backbone`` is to it.
        dataset: what ``--dataset`` decides.
    """
    options = (
        click.option(
            "--format",
            "files",
            type=click.Choice(["keep", "png", "jpeg"]),
            help="Format of what is written. keep: JPEG, PNG and WebP as they are, HEIC and AVIF as JPEG, others as "
            "PNG. [default: keep; png for an erasable attack]",
        ),
        click.option(
            "--crops", is_flag=True, help="Write only the largest face, as an aligned 112x112 crop (PNG)."
        ),
        click.option(
            "--strip-location", is_flag=True, help="Take the place (GPS) out of EXIF; it is kept otherwise."
        ),
        click.option(
            "--backbone",
            "backbones",
            multiple=True,
            metavar="NAME",
            help=f"{helper} {method} works with. May be repeated. [default: first of the dataset's pool it has "
            "weights for]",
        ),
        click.option(
            "--dataset",
            default="",
            metavar="METHOD",
            help=f"{dataset} [default: lfw if it is there, else synthetic]",
        ),
        click.option(
            "--seed", type=int, default=0, show_default=True, help=f"Seed of {method}'s randomness."
        ),
        device_option,
        threads_option,
        store_option,
        click.option("--dry-run", is_flag=True, help="Only say what would be done."),
        json_option,
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def request(
    photos: Path,
    out: Path,
    method: str,
    key: Path | None = None,
    masks: Path | None = None,
    *,
    files: str | None,
    crops: bool,
    strip_location: bool,
    **how: Any,
) -> "PhotosRequest":
    """Return what the options ask for.

    Raises:
        UsageError: crops are PNG without EXIF, and something else was requested.
    """
    from bench.errors import UsageError
    from bench.photo_tools.applied import MethodRequest
    from bench.photo_tools.changing import PhotosRequest

    if crops and (files == "jpeg" or strip_location):
        raise UsageError("--crops writes PNG without EXIF: leave out --format jpeg and --strip-location.")
    mode: Any = "crops" if crops else "photos"
    form: Any = "png" if crops else files
    return PhotosRequest(photos, out, MethodRequest(method, **how), key, mode, form, strip_location, masks)


def announce(planned: "PhotosPlan[Any, Any]") -> None:
    """Say on stderr what a method works with."""
    applied = planned.applied
    if applied.backbones and not is_quiet():
        click.echo(f"{applied.name} against {', '.join(applied.backbones)}.", err=True)
    if applied.note and not is_quiet():
        click.echo(f"Note: {applied.note}", err=True)


def plan_document(planned: "PhotosPlan[Any, Any]") -> dict[str, Any]:
    """Return what would be done, for JSON."""
    return {
        "dry_run": True,
        "pending": names(planned.pending),
        "there_already": names(planned.done),
        "failed": named_reasons(planned.refused),
    }


def outcome_document(done: "PhotosOutcome", planned: "PhotosPlan[Any, Any]", changed: str) -> dict[str, Any]:
    """Return what was done, for JSON; the photos with what the record says of them under the word given."""
    keys = {"output", "width", "height", "notes", "faces"}
    record: MadeRecord = done.record
    photos = [(photo.name, record.photos[photo.name]) for photo in done.changed]
    return {
        changed: [{"photo": name, **one.model_dump(mode="json", include=keys)} for name, one in photos],
        "copied": names(done.copied),
        "weak": named_reasons(done.weak),
        "there_already": names(planned.done),
        "failed": named_reasons(done.refused),
    }


def names(photos: "Sequence[Photo]") -> list[str]:
    """Return the names of photos."""
    return [photo.name for photo in photos]


def named_reasons(refusals: "Sequence[Refusal]") -> list[dict[str, str]]:
    """Return files with their reasons."""
    return [{"photo": refusal.name, "reason": refusal.reason} for refusal in refusals]


def count(photos: "Sequence[object]") -> str:
    """Return a number of photos in words."""
    return f"{len(photos)} photo{'' if len(photos) == 1 else 's'}"


def there_already(photos: "Sequence[Photo]") -> str:
    """Return how many photos an earlier command did, as the rest of a sentence."""
    return f"; {len(photos)} were there already" if photos else ""


def name_all(what: str, files: "Sequence[Photo | Refusal]") -> None:
    """Print files to stderr under one heading, with their reasons where they have one."""
    from bench.photo_tools.photo_folders import Refusal

    if files:
        click.echo(f"{count(files)} {what}:", err=True)
    for file in files:
        reason = f": {on_one_line(file.reason)}" if isinstance(file, Refusal) else ""
        click.echo(f"  {on_one_line(file.name)}{reason}", err=True)


def on_one_line(text: str) -> str:
    """Return a text, which may be a file's odd name, without what would move the cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
