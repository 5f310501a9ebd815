"""Protect the photos of a folder.

`bench cloak`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from bench.photo_tools.cloaking import Cloaked, CloakPlan

_EXAMPLES = """\b
Examples:
  bench cloak PHOTOS CLOAKED --attack fawkes:mode=mid
  bench cloak me.jpg CLOAKED --attack lowkey --format png
  bench cloak PHOTOS CLOAKED --attack erasablemask --key my.key
  bench cloak PHOTOS CLOAKED --attack opom --masks my.masks
  bench cloak LATER CLOAKED2 --attack opom --masks my.masks
  bench cloak PHOTOS CLOAKED --attack pgd:eps=12 --backbone mobileface-v2 --backbone mobileface-v3
"""


@click.command(epilog=_EXAMPLES)
@click.argument("photos", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--attack", required=True, metavar="METHOD", help="What protects, e.g. fawkes:mode=mid.")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="Key file of an erasable attack. Made if it does not exist; only its holder can erase.",
)
@click.option(
    "--masks",
    type=click.Path(path_type=Path),
    help="File of the masks that an attack learns, one a person: a subfolder of PHOTOS, or all photos in none. Made if "
    "it does not exist; by it later photos in a subfolder of that name get the same mask.",
)
@change_options("the attack", "Surrogate", "Whose pool counts, and whose training people are imitated.")
def cloak(
    photos: Path,
    out: Path,
    attack: str,
    key: Path | None,
    masks: Path | None,
    dry_run: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Protect every face in PHOTOS, a folder or one photo, and write the photos into folder OUT.

    PHOTOS is flat or has one subfolder a person. Photos keep size, orientation, colour profile and EXIF (without its
    thumbnail); only the faces change. A photo of 112x112 pixels is taken for an aligned face. A photo without a face
    is copied as it is, and named. No file of yours is written over, and a command that was interrupted goes on when
    it is given again. OUT/cloaks.json says what was made of what.

    Exit code 0: every photo is protected or shows no face; 1: some could not be, they are named and not written;
    2: what was requested cannot be done.
    """
    from bench.photo_tools import cloaking

    planned = cloaking.plan(request(photos, out, attack, key, masks, **how))
    announce(planned)
    if dry_run:
        _say_plan(planned, as_json)
        return
    with counting("photos", len(planned.pending)) as advance:
        done = cloaking.cloak(planned, advance)
    _say_outcome(planned, done, as_json)
    if done.refused:
        click.get_current_context().exit(1)


def _masks(number: int) -> str:
    return "1 mask" if number == 1 else f"{number} masks"


def _say_known(planned: "CloakPlan") -> None:
    """Say whose mask was there: a person is who has the same subfolder, or none, and nothing else tells them apart."""
    if planned.known:
        click.echo(f"Under the mask that was there for this subfolder: {', '.join(planned.known)}.")


UNPROTECTED = "in which no face was found, copied as they are: NOT protected if there is one"


def _say_plan(planned: "CloakPlan", as_json: bool) -> None:
    from bench.photo_tools.face_editing import copies

    name, asked = planned.applied.name, planned.request
    if as_json:
        print_json({"attack": name, **plan_document(planned)})
        return
    click.echo(
        f"{count(planned.pending)} would be protected by {name} and written into {asked.out}; "
        f"{len(planned.done)} are there already."
    )
    if planned.makes_key:
        click.echo(f"A new key would be written to {asked.key}.")
    elif planned.key:
        click.echo(f"Key: {planned.key.fingerprint}.")
    if planned.masks:
        click.echo(f"{_masks(len(planned.masks.masks))} in {asked.masks}; other people's would be learnt.")
        _say_known(planned)
    name_all(UNPROTECTED, copies(planned.done, planned.record))
    name_all("cannot be read", planned.refused)
    click.echo("Nothing was written.")


def _say_outcome(planned: "CloakPlan", done: "Cloaked", as_json: bool) -> None:
    from bench.photo_tools.records import WEAK

    applied, asked = planned.applied, planned.request
    if as_json:
        method = {"attack": applied.name, "surrogates": list(applied.backbones)}
        outcome = outcome_document(done, planned, "protected")
        print_json({**method, "key_fingerprint": done.fingerprint, **outcome})
        return
    click.echo(
        f"{count(done.changed)} protected by {applied.name} in {asked.out}{there_already(planned.done)}."
    )
    if done.detected:
        click.echo(
            f"{done.detected} of them are the aligned 112x112 face cut out of the photo, not the whole photo."
        )
    if planned.makes_key and planned.pending:
        click.echo(
            f"New key {done.fingerprint} in {asked.key}. Keep it: without it nobody can erase these cloaks."
        )
    elif planned.masks:
        click.echo(
            f"{_masks(done.learnt)} learnt, file {done.fingerprint} in {asked.masks}. Keep it: by it later photos in a "
            "subfolder of the same name get the same mask."
        )
        _say_known(planned)
    elif done.fingerprint:
        click.echo(f"Key: {done.fingerprint}.")
    name_all(UNPROTECTED, done.copied)
    name_all(f"protected WEAKLY: less than {WEAK:.0%} of the cloak is left in a face", done.weak)
    name_all("changed in something else too", done.noted)
    name_all("NOT protected and not written", done.refused)
