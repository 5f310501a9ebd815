"""`bench cloak`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.cloaking import Cloaked, CloakPlan
    from bench.photo_folders import Refusal

_EXAMPLES = """\b
Examples:
  bench cloak PHOTOS CLOAKED --attack fawkes:mode=mid
  bench cloak PHOTOS CLOAKED --attack erasablemask --key my.key
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
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="Threads torch computes with. [default: all cores]")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Folder of artefacts (targets' faces, what the attack learnt). [env: CLOAKBENCH_STORE]",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def cloak(
    photos: Path,
    out: Path,
    attack: str,
    key: Path | None,
    backbones: tuple[str, ...],
    dataset: str,
    seed: int,
    device: str,
    threads: int | None,
    store: Path | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Protect the photos in folder PHOTOS and write them into folder OUT.

    PHOTOS is flat or has one subfolder a person. What is written is the protected face as an aligned 112x112
    crop, as PNG; a photo that is such a crop is taken as it is. No file of yours is written over, and a command
    that was interrupted goes on when it is given again. OUT/cloaks.json says what was made of what.

    Exit code 0: every photo is protected; 1: some could not be, they are named and not written; 2: what was asked
    for cannot be done.
    """
    from bench import cloaking
    from bench.applied_attacks import AttackRequest
    from bench.cli.progress import counting

    asked = AttackRequest(attack, backbones, dataset, seed, device, threads, store)
    planned = cloaking.plan(cloaking.CloakRequest(photos, out, asked, key))
    if not quiet:
        _announce(planned)
    if dry_run:
        _say_plan(planned)
        return
    with counting("photos", len(planned.pending), hidden=quiet) as advance:
        done = cloaking.cloak(planned, advance)
    _say_outcome(planned, done)
    if done.unprotected:
        click.get_current_context().exit(1)


def _announce(planned: "CloakPlan") -> None:
    applied = planned.applied
    if applied.surrogates:
        click.echo(f"{applied.name} against {', '.join(applied.surrogates)}.", err=True)
    if applied.note:
        click.echo(f"Note: {applied.note}", err=True)


def _say_plan(planned: "CloakPlan") -> None:
    request = planned.request
    click.echo(
        f"{count(len(planned.pending))} would be protected by {planned.applied.name} and written into {request.out}; "
        f"{len(planned.done)} are there already."
    )
    if planned.makes_key:
        click.echo(f"A new key would be written to {request.key}.")
    elif planned.key:
        click.echo(f"Key: {planned.key.fingerprint}.")
    name_all("cannot be read", planned.refused)
    click.echo("Nothing was written.")


def _say_outcome(planned: "CloakPlan", done: "Cloaked") -> None:
    request = planned.request
    there = f"; {len(planned.done)} were there already" if planned.done else ""
    click.echo(f"{count(len(done.protected))} protected by {planned.applied.name} in {request.out}{there}.")
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
    name_all("NOT protected and not written", done.unprotected)


def count(photos: int) -> str:
    """Return a number of photos in words."""
    return f"{photos} photo{'' if photos == 1 else 's'}"


def name_all(what: str, refusals: "tuple[Refusal, ...]") -> None:
    """Print files with their reasons to stderr, under one heading."""
    if refusals:
        click.echo(f"{count(len(refusals))} {what}:", err=True)
    for refusal in refusals:
        click.echo(f"  {refusal.name}: {refusal.reason}", err=True)
