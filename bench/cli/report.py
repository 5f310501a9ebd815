"""`bench report`."""

from pathlib import Path

import click

from bench.cli.labels import name_option


@click.command(
    epilog="Examples:\n\n\b\n  bench report runs/3f2a\n  bench report runs/3f2a --no-photos --out report.html\n"
    "  bench report runs/3f2a --format md --out report.md\n"
    "  bench report runs/3f2a --groups groups.csv\n"
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
@click.option(
    "--groups",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV with the columns identity and group: adds who is protected less.",
)
@name_option
def report(
    run: Path,
    out: Path | None,
    form: str,
    no_photos: bool,
    store: Path | None,
    threads: int | None,
    groups: Path | None,
    names: tuple[str, ...],
) -> None:
    """Write a report of the finished run in folder RUN: key results, tables, figures, threat models, cautions.

    html is one file that needs nothing else and loads nothing. md puts the figures beside the file, in FILE_files.
    A report of real photos shows real people unless --no-photos is given.
    """
    from bench.files import check_writable, write_atomically
    from bench.leaderboard.view import RunView
    from bench.report.content import ReportOptions, collect
    from bench.report.html import to_html
    from bench.report.markdown import to_markdown

    file = out or Path(f"report.{form}")
    check_writable(file.parent, "--out")
    wanted = ReportOptions(photos=not no_photos, store=store, threads=threads, names=names, groups=groups)
    found = collect(RunView.of(run), wanted)
    beside = file.with_name(f"{file.name}_files")
    text, figures = (to_html(found), {}) if form == "html" else to_markdown(found, beside.name)
    for name, payload in figures.items():
        write_atomically(beside / name, payload)
    write_atomically(file, text.encode())
    more = f" with {len(figures)} files beside it" if figures else ""
    size = len(text.encode()) + sum(map(len, figures.values()))
    click.echo(f"{file} written{more}, {size / 1e6:.1f} MB")
