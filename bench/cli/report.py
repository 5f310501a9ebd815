"""`bench report`."""

from pathlib import Path

import click


@click.command(
    epilog="Examples:\n\n\b\n  bench report runs/3f2a\n  bench report runs/3f2a --no-photos --out report.html\n"
    "  bench report runs/3f2a --format md --out report.md\n"
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write. [default: report.html or report.md]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("html", "md")),
    default="html",
    show_default=True,
    help="Its form.",
)
@click.option("--no-photos", is_flag=True, help="Show no photo of an identity.")
@click.option("--store", type=click.Path(path_type=Path), help="Folder of artefacts. [default: as for run]")
@click.option("--threads", type=click.IntRange(1), help="Threads torch computes with. [default: the run's]")
def report(
    run: Path, out: Path | None, form: str, no_photos: bool, store: Path | None, threads: int | None
) -> None:
    """Write a report of the finished run in folder RUN: key results, tables, figures, threat models, cautions.

    html is one file that needs nothing else and loads nothing. md puts the figures beside the file, in FILE_files.
    A report of a dataset of real identities shows real identities unless --no-photos is given.
    """
    from bench.leaderboard.view import RunView
    from bench.report.content import ReportOptions, collect
    from bench.report.writing import ENDINGS, write
    from bench.run.planning import check_writable

    file = out or Path(f"report{ENDINGS[form]}")
    check_writable(file.parent, "--out")
    found = collect(RunView.of(run), ReportOptions(photos=not no_photos, store=store, threads=threads))
    written = write(found, form, file)
    more = f" with {len(written) - 1} files beside it" if len(written) > 1 else ""
    click.echo(f"{file} written{more}, {sum(path.stat().st_size for path in written) / 1e6:.1f} MB")
