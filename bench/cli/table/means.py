"""`bench table means`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import console, print_columns
from bench.cli.table.output import check_files, give, table_options

if TYPE_CHECKING:
    import pandas as pd

_EXAMPLES = """\b
Examples:
  bench table means runs/3f2a
  bench table means runs/3f2a --attack fawkes --attack lowkey --csv results/headline.csv
"""

_HEADINGS = (
    "ASR % [95 %]",
    "undefended",
    "no cloak",
    "accuracy %",
    "lost",
    "< 1 point",
    "natural dB",
    "cloak dB",
    "cloak L∞",
)
"""Of the printed table, after attack and defence; `--columns` explains them all."""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    metavar="METHOD",
    help="Only this attack. May be repeated. [default: all]",
)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="METHOD",
    help="Only this tracker. May be repeated. [default: all]",
)
@table_options
def means(
    run: Path,
    attacks: tuple[str, ...],
    backbones: tuple[str, ...],
    csv_file: Path | None,
    md_file: Path | None,
    latex_file: Path | None,
    as_json: bool,
    columns: bool,
) -> None:
    """Average the finished run in folder RUN over attacks and trackers, within each identity first.

    One row a head, defence and attack, and one for the mean of all attacks: ASR with its interval over
    identities, beside it undefended and without attack; normal accuracy, and whether it is non-inferior at a
    margin of one point; image quality of defence and cloaks. Black-box and white-box cells are never averaged.
    """
    from bench.analysis.results import Results
    from bench.leaderboard import means as averages
    from bench.run.folder import RunFolder

    if columns:
        print_columns(averages.COLUMNS, as_json=as_json)
        return
    files = check_files({"--csv": csv_file, "--md": md_file, "--latex": latex_file})
    found = averages.table(averages.means(Results.of(RunFolder(run)), attacks, backbones))
    give(found, files, _show, as_json=as_json)


def _show(found: "pd.DataFrame") -> None:
    from rich.table import Table

    screen = console(width=None if sys.stdout.isatty() else 200)
    for (head, condition, access), rows in found.groupby(["head", "condition", "access"], sort=False):
        first = rows.iloc[0]
        where = ", ".join(filter(None, [f"head {head}", str(condition), str(access)]))
        shown = Table(
            "attack", "defence", title=f"{where}; mean over {first['backbones'].replace('|', ', ')}"
        )
        for heading in _HEADINGS:
            shown.add_column(heading, justify="right")
        for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
            shown.add_row(str(row["against"]), str(row["defense"]), *_texts(row))
        screen.print(shown)
        screen.print(f"{first['n_identities']} identities.")
        for reason in sorted(set(rows["asr_reason"]) - {""}):
            screen.print(f"Without ASR or interval: {reason}.")


def _texts(row: dict[Any, Any]) -> tuple[str, ...]:
    lost = None if row["accuracy_difference"] is None else -row["accuracy_difference"]
    asr = _percent(row["asr"])
    if row["asr_low"] is not None:
        asr += f" [{_percent(row['asr_low'])}, {_percent(row['asr_high'])}]"
    return (
        asr,
        _percent(row["undefended_asr"]),
        _percent(row["baseline_error"]),
        _percent(row["normal_accuracy"]),
        _percent(lost),
        {True: "yes", False: "not shown", None: ""}[row["not_worse"]],
        _number(row["natural_psnr"]),
        _number(row["cloak_psnr"]),
        _number(row["cloak_linf_max"]),
    )


def _percent(value: float | None) -> str:
    return "NA" if value is None else f"{round(100 * value, 1) + 0.0:.1f}"  # not -0.0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
