"""`bench grid`."""

from pathlib import Path

import click


@click.command(epilog="Example: bench grid runs/3f2a --attack fawkes --defense puface --out grid.png")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="File to write: .png, .svg or .pdf."
)
@click.option("--attack", metavar="METHOD", help="Whose cloaks. [default: the run's first]")
@click.option("--defense", metavar="METHOD", help="What purifies them. [default: the run's first]")
@click.option("--backbone", metavar="METHOD", help="The tracker's backbone. [default: the run's first]")
@click.option("--people", type=click.IntRange(1, 50), default=6, show_default=True, help="Rows.")
@click.option("--store", type=click.Path(path_type=Path), help="Folder of artefacts. [default: as for run]")
@click.option("--threads", type=click.IntRange(1), help="Threads torch computes with. [default: the run's]")
def grid(
    run: Path,
    out: Path,
    attack: str | None,
    defense: str | None,
    backbone: str | None,
    people: int,
    store: Path | None,
    threads: int | None,
) -> None:
    """Show photos of the finished run in folder RUN: original, cloak, difference, purified, erased.

    The photos are those of the run's store; what is no longer there is computed again. A grid of a dataset of real
    people shows real people: mind who may see it.
    """
    from bench.picture_grid import choose_cell, collect, save_grid
    from bench.robustness_figure import check_suffix
    from bench.run_folder import RunFolder
    from bench.runner import Options, check_writable
    from bench.verify import prepare_again

    check_suffix(out)
    check_writable(out.parent, "--out")
    prepared = prepare_again(RunFolder(run), Options(store=store, threads=threads))
    cell = choose_cell(
        prepared, *(_canonical(axis, text) for axis, text in _named(attack, defense, backbone))
    )
    save_grid(collect(prepared, cell, people, lambda: None), out)
    click.echo(f"{out} written: {cell.attack} × {cell.defense} × {cell.backbone}")


def _named(
    attack: str | None, defense: str | None, backbone: str | None
) -> tuple[tuple[str, str | None], ...]:
    return (("attacks", attack), ("defenses", defense), ("backbones", backbone))


def _canonical(kind: str, text: str | None) -> str | None:
    """Return a method's name in tables."""
    from bench import methods, registry

    return None if text is None else methods.canonical(registry.create(kind, text))
