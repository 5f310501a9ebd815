"""`bench store`: check, repair and clear the store of artefacts; give runs away with theirs, and take them in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import json_option, store_option
from bench.cli.output import counting, print_json

if TYPE_CHECKING:
    from bench.run.store import Store
    from bench.run.store_care import Item

_EXAMPLES = """\b
Examples:
  bench store check
  bench store repair
  bench store gc --keep runs/3f2a --older-than 30 --dry-run
  bench store export runs/3f2a s3://bucket/matrix
  bench store import s3://bucket/matrix
"""

_runs = click.Path(path_type=Path)


@click.group("store", epilog=_EXAMPLES)
def store_group() -> None:
    """Check, repair, clear and copy the store, in which runs keep what they computed.

    Nothing in it is the only copy of a result: whatever is removed is computed again when a run needs it. A finished
    run's folder holds its decisions and tables by itself.
    """


@store_group.command(epilog="Example: bench store check --store ~/store")
@store_option
@json_option
def check(store: Path | None, as_json: bool) -> None:
    """Read everything in the store and say what is not as it was written; changes nothing.

    Exit code 0: nothing is damaged; 1: something is. What killed runs leave is listed and is no damage.
    """
    from bench.run.store_care import HARMFUL

    found = _surveyed(_opened(store))
    _report(found, as_json)
    if any(item.state in HARMFUL for item in found):
        click.get_current_context().exit(1)


@store_group.command(epilog="Example: bench store repair")
@store_option
@json_option
def repair(store: Path | None, as_json: bool) -> None:
    """Remove whatever is not as it was written, so that the next run computes it again."""
    from bench.run import store_care

    removed = store_care.repair(_surveyed(_unused(_opened(store))))
    if as_json:
        print_json({"removed": [_row(item) for item in removed]})
        return
    for item in removed:
        click.echo(_line(item))
    click.echo(f"{_sum(removed)} removed; runs that need them compute them again.")


@store_group.command(epilog="Example: bench store gc --keep runs/3f2a --older-than 30 --dry-run")
@click.option(
    "--keep", "runs", multiple=True, type=_runs, help="A finished run whose artefacts stay; may be repeated."
)
@click.option(
    "--older-than", "days", type=click.FloatRange(min=0), default=0, help="Days; younger ones stay."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@store_option
@json_option
def gc(runs: tuple[Path, ...], days: float, dry_run: bool, store: Path | None, as_json: bool) -> None:
    """Remove the artefacts that no run named by --keep needs, and what jobs and workers of runs long gone left.

    Without --keep or --older-than it would remove everything, and is refused.
    """
    from bench.errors import UsageError
    from bench.run import store_care

    if not runs and not days:
        raise UsageError(
            "`bench store gc` would remove everything. Say what stays: --keep RUN or --older-than DAYS."
        )
    opened = _opened(store) if dry_run else _unused(_opened(store))
    wanted = _needed(runs, opened)
    if absent := [item for item in wanted if item not in opened]:
        raise UsageError(
            f"{len(absent)} of {len(wanted)} artefacts of the runs to keep are not in {opened.folder} under the names "
            f"that they have here, e.g. {absent[0][0]} {absent[0][1][:12]}: code, packages, weights or LPIPS' trunk "
            "are others than when they were made, so that it cannot be told which ones to keep. Nothing was removed. "
            "Go by age: --older-than DAYS."
        )
    needed = frozenset(address for _, address in wanted)
    chosen = store_care.removable(_surveyed(opened), needed, days * 86_400)
    folders = store_care.left_by_engines(opened, days * 86_400)
    if not dry_run:
        store_care.remove(chosen)
        store_care.remove_folders(folders)
    if as_json:
        left = [path.relative_to(opened.folder).as_posix() for path in folders]
        print_json({"removed": [_row(item) for item in chosen], "folders": left, "dry_run": dry_run})
        return
    stages = list(dict.fromkeys(item.stage for item in chosen))
    for stage in stages:
        click.echo(f"{stage}: {_sum([item for item in chosen if item.stage == stage])}")
    if folders:
        click.echo(f"what jobs and workers left: {len(folders)} folders")
    click.echo(f"{_sum(chosen)} {'would be removed' if dry_run else 'removed'}.")


@store_group.command(epilog="Example: bench store export runs/3f2a s3://bucket/matrix")
@click.argument("runs", nargs=-1, required=True, type=_runs)
@click.argument("to")
@store_option
@json_option
def export(runs: tuple[Path, ...], to: str, store: Path | None, as_json: bool) -> None:
    """Copy the finished runs RUNS, and all they are made from, to the place TO, to be kept or given away.

    TO is a folder, FILE.zip, or a URL such as s3://BUCKET/PREFIX (needs the extra `cloud`). There `bench store import`
    finds them; a folder can be given as --store too. What is there already is not copied again. Crops and embeddings
    identify people: see responsible use.
    """
    from bench.errors import DataError
    from bench.run import exports, places
    from bench.run.folder import RunFolder

    opened = _opened(store)
    chosen = [(RunFolder(run), _needed([run], opened)) for run in runs]
    with places.to_write(to) as place:
        total = sum(exports.steps(folder, artefacts) for folder, artefacts in chosen)
        with counting("copying artefacts and files", total) as advance:
            absent = [one for each in chosen for one in exports.export(opened, *each, place, advance)]
        if absent:
            raise DataError(
                f"{len(absent)} artefacts are not in {opened.folder}, e.g. {absent[0][0]} {absent[0][1][:12]}; without "
                "them the export is not finished. Run the run's command again to compute them, or give its own store "
                "with --store."
            )
    number = len({artefact for _, artefacts in chosen for artefact in artefacts})
    if as_json:
        print_json({"to": to, "runs": [folder.facts().run for folder, _ in chosen], "artefacts": number})
        return
    click.echo(f"{_runs_of(len(chosen))} and {number} artefacts in {to}")


@store_group.command("import", epilog="Example: bench store import s3://bucket/matrix --run 3f2a")
@click.argument("source", metavar="FROM")
@click.option(
    "--run", "runs", multiple=True, help="How a run's digest begins; may be repeated. [default: all there]"
)
@click.option(
    "--out", type=_runs, default="runs", show_default=True, help="Folder that gets a folder for each run."
)
@store_option
@json_option
def import_(source: str, runs: tuple[str, ...], out: Path, store: Path | None, as_json: bool) -> None:
    """Copy the runs that `bench store export` wrote to the place FROM into the store and the folder OUT.

    FROM is what was given there. Every object is checked against its digest before it is written; what is here already
    is not copied again. After it the command that made the run computes nothing, where code, packages and threads are
    those that made it.
    """
    from bench.run import exports, places

    place, opened = places.to_read(source), _opened(store)
    chosen = exports.indices(place, runs)
    total = sum(len(index.artefacts) + len(index.files) for index in chosen)
    with counting("checking and copying", total) as advance:
        taken = [exports.take(index, place, opened, out / index.run, advance) for index in chosen]
    exports.check(taken, place)
    if as_json:
        print_json(
            {"store": str(opened.folder), "runs": [vars(one) | {"folder": str(one.folder)} for one in taken]}
        )
        return
    for one in taken:
        kept = ", left as it was: made here too" if one.kept else ""
        click.echo(f"{one.folder}: {one.artefacts} artefacts, {one.copied} of them new in the store{kept}")


def _runs_of(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _opened(store: Path | None) -> "Store":
    from bench.run.store import Store, default_folder

    return Store(store or default_folder())


def _unused(opened: "Store") -> "Store":
    from bench.errors import UsageError

    if opened.is_in_use():
        raise UsageError(
            f"a run is computing in {opened.folder}. Wait for it, then give the same command again."
        )
    return opened


def _surveyed(opened: "Store") -> "list[Item]":
    from bench.run import store_care

    with counting("reading artefacts", store_care.count(opened)) as advance:
        return list(store_care.survey(opened, advance))


def _needed(runs: Sequence[Path], opened: "Store") -> list[tuple[str, str]]:
    """Return stage and address of all that runs are made from, each once."""
    from bench.run.folder import RunFolder
    from bench.run.planning import Options, prepare_again

    found: dict[tuple[str, str], None] = {}
    for run in runs:
        prepared = prepare_again(RunFolder(run), Options(store=opened.folder, out=run))
        found |= {(node.stage, node.address): None for node in prepared.artefacts}
    return list(found)


def _report(found: "list[Item]", as_json: bool) -> None:
    from bench.run import store_care

    counted = store_care.states(found)
    if as_json:
        bad = [_row(item) for item in found if item.state != "whole"]
        print_json({"states": counted, "bytes": sum(item.size for item in found), "not_whole": bad})
        return
    for item in found:
        if item.state != "whole":
            click.echo(_line(item))
    for state, number in counted.items():
        click.echo(f"{number} {state}: {store_care.MEANINGS[state]}")
    click.echo(f"{_sum(found)} in all.")
    if set(counted) - {"whole"}:
        click.echo("`bench store repair` removes what is not whole.")


def _row(item: "Item") -> dict[str, object]:
    return {"stage": item.stage, "address": item.address, "state": item.state, "bytes": item.size}


def _line(item: "Item") -> str:
    return f"{item.state}: {item.stage} {item.address[:12] or item.files[0].name}"


def _sum(items: "Sequence[Item]") -> str:
    return f"{len(items)} artefacts, {sum(item.size for item in items) / 1e6:,.1f} MB"
