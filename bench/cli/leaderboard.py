"""`bench leaderboard`."""

from pathlib import Path

import click


@click.command(epilog="Example: bench leaderboard runs/3f2a --csv table.csv")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="File to write. [default: print]")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--columns", is_flag=True, help="Print what each column means, and nothing else.")
def leaderboard(run: Path, csv_file: Path | None, as_json: bool, columns: bool) -> None:
    """Write the leaderboard of the finished run in folder RUN: one row a cell, rates in [0, 1]."""
    from bench import leaderboard as board
    from bench.run_folder import RunFolder
    from bench.store import write_atomically

    if columns:
        for name, meaning in board.COLUMNS.items():
            click.echo(f"{name}: {meaning}")
        return
    rows = board.build(RunFolder(run))
    if as_json:
        click.echo(rows.to_json(orient="records", indent=1))
        return
    text = board.to_csv(rows)
    if csv_file is None:
        click.echo(text, nl=False)
        return
    write_atomically(csv_file, text.encode())
    click.echo(f"{len(rows)} rows written to {csv_file}")
