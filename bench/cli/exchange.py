"""`bench export` and `bench import`: what leaves for methods that run elsewhere, and what comes back of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.cli.options import json_option
from bench.cli.output import print_json, reporting

Command = Callable[..., Any]

_folder = click.Path(file_okay=False, path_type=Path)


def _of_a_task(command: Command) -> Command:
    """Add the options that say whose photos a run deals."""
    for option in (
        click.option(
            "--split-seed", type=click.IntRange(min=0), default=0, show_default=True, help="As of the run."
        ),
        click.option(
            "--split",
            type=click.Choice(["evaluation", "development"]),
            default="evaluation",
            show_default=True,
            help="Whom a run evaluates.",
        ),
        click.option("--dataset", default="synthetic", show_default=True, help="Whose photos."),
    ):
        command = option(command)
    return command


@click.group("export", epilog="Example: bench export crops --dataset lfw --out crops")
def export_group() -> None:
    """Write what a method needs that runs elsewhere."""


@click.group(
    "import", epilog="Example: bench import cloaks amt-gan --crops crops --method AMT-GAN --surrogate irse50"
)
def import_group() -> None:
    """Take in what a method made elsewhere."""


@export_group.command(
    epilog="""\b
Examples:
  bench export crops --dataset lfw --out crops
  bench export crops --dataset lfw --identities 12 --protocol tracker:max_gallery=5 --out crops
"""
)
@_of_a_task
@click.option("--identities", type=click.IntRange(min=2), help="As of the run. [default: all]")
@click.option("--protocol", default="tracker", show_default=True, help="Deals gallery, probes and folds.")
@click.option("--out", required=True, type=_folder, help="A new folder.")
@json_option
def crops(out: Path, as_json: bool, **values: Any) -> None:
    """Write the aligned crops of a run's gallery and probes as PNG, with a manifest of ids, roles and digests.

    File names are numbers. A method cloaks the files of role gallery (and the probes, for protocols that cloak
    queries) and leaves PNG files of the same names in a folder of its own, which `bench import cloaks` takes in.
    Where the protocol says whom cloaks imitate (pairs), the manifest names each photo's target, and targets/ has the
    photos that a method may know of it.
    """
    from bench.assets.handover import MANIFEST, export_crops
    from bench.run.resolve import resolve
    from bench.run.spec import make_spec

    run = resolve(make_spec({name: value for name, value in values.items() if value is not None}))
    with reporting() as report:
        manifest = export_crops(run, out, lambda done, total: report("write crops", done, total))
    roles = [photo.role for photo in manifest.photos.values()]
    counts = {role: roles.count(role) for role in ("gallery", "probe")}
    if as_json:
        print_json({"folder": str(out), "manifest": str(out / MANIFEST), "photos": counts})
        return
    people = len(run.split.gallery)
    if manifest.targets:
        click.echo(
            f"Each is to imitate one of {len(manifest.targets)} identities: {MANIFEST} says whom, and targets/ has "
            "photos of these."
        )
    click.echo(
        f"{counts['gallery']} gallery photos and {counts['probe']} probes of {people} identities are in {out}; "
        f"{MANIFEST} says which is which."
    )
    click.echo(
        f"Next: cloak them into a folder of the same names, then bench import cloaks FOLDER --crops {out} --method NAME"
    )


@export_group.command(
    epilog="""\b
Examples:
  bench export run runs/3f2a --to hf-dataset --out 3f2a-dataset
  bench export run runs/3f2a --to mlflow
"""
)
@click.argument("run", type=_folder)
@click.option(
    "--to",
    type=click.Choice(["hf-dataset", "mlflow", "wandb"]),
    required=True,
    help="A folder for the Hugging Face hub; a run of MLflow; a run of Weights & Biases.",
)
@click.option("--out", type=_folder, help="For hf-dataset: a new folder.")
@json_option
def run(run: Path, to: str, out: Path | None, as_json: bool) -> None:
    """Hand the finished run in folder RUN to another tool: its table and specification, no photo and no decision.

    MLflow and Weights & Biases log where they are set to (MLFLOW_TRACKING_URI, WANDB_MODE), and nothing is uploaded for
    hf-dataset. They are extras: pip install 'cloakbench[mlflow]' or 'cloakbench[wandb]'.
    """
    if (out is None) == (to == "hf-dataset"):
        raise click.UsageError(
            "--out names the folder that --to hf-dataset writes, and goes with nothing else."
        )
    from bench.publish.elsewhere import Exported, to_hf_dataset, to_mlflow, to_wandb
    from bench.run.folder import RunFolder

    exported = Exported(RunFolder(run))
    if out is not None:
        files = to_hf_dataset(exported, out)
        said: dict[str, Any] = {"folder": str(out), "files": list(files)}
        text = f"{', '.join(files)} are in {out}; upload the folder as a dataset."
    else:
        number = {"mlflow": to_mlflow, "wandb": to_wandb}[to](exported)
        said, text = {"to": to, "id": number}, f"logged by {to} as run {number}."
    print_json(said) if as_json else click.echo(text)


@export_group.command(
    epilog="""\b
Examples:
  bench export task --dataset lfw --out lfw-tracker
  bench export task --dataset lfw --protocol pairs --split development --out lfw-pairs-development
"""
)
@_of_a_task
@click.option("--protocol", default="tracker", show_default=True, help="Deals photos and decides.")
@click.option("--out", required=True, type=_folder, help="A new folder.")
@json_option
def task(out: Path, as_json: bool, **values: Any) -> None:
    """Write which photos a task deals to what (photos.csv, ids only), and its Croissant card (croissant.json).

    A task is a dataset, a protocol and a split, with a version: lfw-tracker-v1. Every row of a table names its task,
    and no table mixes two versions of one.
    """
    from bench.assets.task_card import CARD, PHOTOS, task_card
    from bench.run.resolve import resolve
    from bench.run.spec import make_spec

    made = task_card(resolve(make_spec(values)))
    made.write(out)
    count = made.photos.count("\n") - 1
    if as_json:
        print_json({"task": made.task, "card": str(out / CARD), "photos": str(out / PHOTOS), "listed": count})
        return
    click.echo(
        f"{made.task}: {count} photos are listed in {out / PHOTOS}, and {out / CARD} describes the list."
    )


@import_group.command(
    epilog="""\b
Examples:
  bench import cloaks amt-gan --crops crops --method AMT-GAN --surrogate irse50 --surrogate facenet
  bench import cloaks mine --crops crops --method mine --max-linf 8 --training-identities none
  bench run --dataset lfw --attack precomputed:amt-gan --defense jpeg
"""
)
@click.argument("folder", type=_folder)
@click.option("--crops", required=True, type=_folder, help="The folder that `bench export crops` wrote.")
@click.option("--method", required=True, help="What made the cloaks, as its authors call it.")
@click.option("--paper", default="", help="Citation.")
@click.option(
    "--surrogate",
    "surrogates",
    multiple=True,
    help="A recognition network that took part, by the harness' name where it has it. Once for each.",
)
@click.option(
    "--training-identities",
    default="unknown",
    show_default=True,
    help="On whose photos the method was trained: none, unknown, or as here, e.g. lfw/training.",
)
@click.option("--constraint", default="", help="The visibility budget, in words.")
@click.option(
    "--max-linf",
    type=click.FloatRange(0, 255, min_open=True),
    help="Largest change of a pixel, grey levels; is checked.",
)
@click.option(
    "--targeted",
    is_flag=True,
    help="Each cloak imitates whom the manifest of the crops says (--protocol pairs).",
)
@json_option
def cloaks(folder: Path, crops: Path, as_json: bool, **declared: Any) -> None:
    """Check the cloaks in FOLDER against the crops they were made of, and write their card (card.json).

    Every gallery photo has to have a cloak, the probes all or none of them. The card declares what the harness cannot
    know; a run with --attack precomputed:FOLDER marks its rows external.
    """
    from bench.assets.handover import Declared, import_cloaks
    from bench.data.cloak_cards import CARD

    with reporting() as report:
        found = import_cloaks(
            folder, crops, Declared(**declared), lambda done, total: report("check cloaks", done, total)
        )
    count = len(found.card.cloaks)
    if found.unknown:
        click.echo(
            f"No backbone here is called {', '.join(found.unknown)}: that none of them is a tracker is taken from you.",
            err=True,
        )
    if as_json:
        psnr = round(found.psnr, 2) if found.psnr == found.psnr else None
        print_json(
            {
                "card": str(folder / CARD),
                "cloaks": count,
                "unchanged": found.unchanged,
                "linf": found.linf,
                "psnr": psnr,
            }
        )
        return
    of_changed = (
        f"{found.psnr:.1f} dB in the mean of the others"
        if count > found.unchanged
        else "no cloak changes anything"
    )
    click.echo(
        f"{count} cloaks, {found.unchanged} of them the photo itself; {of_changed}, largest change {found.linf} levels."
    )
    click.echo(
        f"{folder / CARD} written. How a run takes it: the last example of bench import cloaks --help."
    )
