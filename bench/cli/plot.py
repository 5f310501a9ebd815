"""`bench plot`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.labels import name_option

if TYPE_CHECKING:
    from bench.figures import Drawing, FigureOptions
    from bench.leaderboard.view import RunView


class _Plot(click.Command):
    """The command, whose help lists the kinds."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the kinds, then examples."""
        from bench.figures import KINDS

        with formatter.section("Kinds"):
            formatter.write_dl([(name, kind.summary) for name, kind in KINDS.items()])
        super().format_epilog(ctx, formatter)


@click.command(
    cls=_Plot,
    epilog="Example: bench plot runs/3f2a heatmap --width column --out figures/heatmap.pdf",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("kind")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to write (.png, .svg, .pdf), or its name without an ending for one file a format; with kind all a "
    "folder. [default: the kind's name; figures]",
)
@click.option(
    "--format",
    "formats",
    help="Formats, joined by commas. [default: png,svg,pdf, or that of --out]",
    metavar="LIST",
)
@click.option(
    "--width",
    type=click.Choice(["column", "page"]),
    default="page",
    show_default=True,
    help="One column (3.5 inches) or both (7.2 inches) of a two-column paper.",
)
@click.option("--attack", metavar="METHOD", help="Draw this attack. [default: all; grid: the first]")
@click.option(
    "--defense", metavar="METHOD", help="Draw this defence beside none. [default: all; grid: the first]"
)
@click.option(
    "--backbone", metavar="METHOD", help="Draw this tracker's backbone. [default: the mean over all]"
)
@click.option(
    "--head", help="Draw this head of the tracker. [default: all, or the first where a figure shows one]"
)
@click.option("--condition", help="Which of the protocol's questions. [default: the first that is ranked]")
@click.option(
    "--identities",
    "n_identities",
    type=click.IntRange(1, 50),
    default=6,
    show_default=True,
    help="grid: rows.",
)
@click.option(
    "--identity", "identities", multiple=True, metavar="ID", help="grid: show this identity; may be repeated."
)
@click.option(
    "--store", type=click.Path(path_type=Path), help="grid: folder of artefacts. [default: as for run]"
)
@click.option(
    "--threads", type=click.IntRange(1), help="grid: threads torch computes with. [default: the run's]"
)
@name_option
def plot(
    run: Path, kind: str, out: Path | None, formats: str | None, names: tuple[str, ...], **chosen: Any
) -> None:
    """Draw figure KIND of the finished run in folder RUN, or all kinds it has.

    Figures are sized for a paper, are readable without colour, and are the same bytes each time. The caption and
    a text for those who cannot see the figure are printed.

    A grid shows photos: mind who may see it. With kind all it is drawn only where --store is given.
    """
    from bench import figures
    from bench.figures import files
    from bench.files import check_writable
    from bench.leaderboard.names import labels, methods_of
    from bench.leaderboard.view import RunView

    every = kind == "all"
    if not every:
        figures.kind(kind)
    kinds = list(figures.KINDS) if every else [kind]
    requested = _formats(formats, None if every else out)
    stem = out or Path("figures" if every else kind)
    check_writable(stem if every else stem.parent, "--out")
    view = RunView.of(run)
    called = labels(names, methods_of(view.results))
    options = figures.FigureOptions(progress=_computing, names=called, **chosen)
    drawn = 0
    for name in kinds:
        drawing = _drawn(view, name, options, skips=every)
        if drawing is None:
            continue
        written = files.paths(stem / name if every else stem, requested)
        for path in written:
            files.save(drawing, path)
        drawn += 1
        click.echo(f"{', '.join(map(str, written))} written")
        click.echo(f"  Caption: {drawing.caption}")
        click.echo(f"  Text: {drawing.alt}\n")
    if not drawn:
        raise figures.NotDrawableError(f"{run} has nothing to draw; the reasons are above.")


def _drawn(view: RunView, name: str, options: FigureOptions, *, skips: bool) -> Drawing | None:
    """Return a figure; None where it is one of all and cannot, or may not, be drawn, which is said.

    Raises:
        NotDrawableError: it was requested by its name and cannot be drawn.
    """
    from bench import figures

    if skips and figures.KINDS[name].shows_photos and options.store is None:
        click.echo(f"{name}: not drawn; it shows photos. Give --store, or draw it by its name.\n")
        return None
    try:
        return figures.KINDS[name].draw(view, options)
    except figures.NotDrawableError as reason:
        if not skips:
            raise
        click.echo(f"{name}: not drawn; {reason}\n")
        return None


def _formats(text: str | None, out: Path | None) -> tuple[str, ...]:
    """Return the formats requested.

    Raises:
        UsageError: one is not known, or --out has the ending of another.
    """
    from bench.errors import UsageError, unknown
    from bench.figures.files import FORMATS, check_suffix

    ending = "" if out is None else out.suffix[1:]
    if text is None:
        # A name such as lfw.v2 has no ending of a format; one such as heatmap.jpg asks for what there is not.
        if out is not None and ending in ("jpg", "jpeg", "gif", "eps", "tif", "tiff", "webp"):
            check_suffix(out)
        return FORMATS
    requested = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for one in requested:
        if one not in FORMATS:
            raise unknown("format", one, FORMATS)
    if not requested:
        raise UsageError(f"--format names no format. Valid: {', '.join(FORMATS)}, joined by commas.")
    if ending in FORMATS and requested != (ending,):
        raise UsageError(
            f"--out {out} is one file, and --format asks for {', '.join(requested)}. Leave out the ending or --format."
        )
    return requested


def _computing(images: int) -> AbstractContextManager[Callable[[int], None]]:
    """Say what the store lacks before it is computed, which takes minutes, and show how far it is."""
    from bench.cli.output import counting, is_quiet

    if images and not is_quiet():
        click.echo(
            f"{images} images (crops, cloaks, purified) are not in the store; computing them now.", err=True
        )
    return counting("photos", images)
