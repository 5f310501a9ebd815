"""`bench figure`."""

from pathlib import Path

import click


@click.command(epilog="Example: bench figure runs/3f2a --out robustness.png")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="File to write: .png, .svg or .pdf."
)
def figure(run: Path, out: Path) -> None:
    """Draw the figure of the finished run in folder RUN.

    Of protocol tracker: a map of attacks × defences, attack success rate in the mean over trackers. Of
    protocol robustness: attack success rate after each channel, with intervals and baseline error, one panel a
    defence and backbone.
    """
    from bench import leaderboard, methods
    from bench.errors import UsageError
    from bench.matrix_figure import matrix_figure
    from bench.robustness_figure import check_suffix, robustness_figure
    from bench.run_folder import RunFolder
    from bench.runner import check_writable

    drawings = {"robustness": robustness_figure, "tracker": matrix_figure}
    check_suffix(out)
    folder = RunFolder(run)
    protocol = folder.facts().spec.protocol
    name = methods.parse(protocol).name
    if name not in drawings:
        raise UsageError(
            f"runs of protocol {name} have no figure. Protocols with one: {', '.join(drawings)}. "
            "`bench leaderboard` writes the table."
        )
    check_writable(out.parent, "--out")
    drawings[name](leaderboard.build(folder), out)
    click.echo(f"{out} written")
