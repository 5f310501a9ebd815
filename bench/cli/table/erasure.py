"""`bench table erasure`."""

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
  bench table erasure runs/3f2a
  bench table erasure runs/3f2a --csv results/erasure.csv
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@table_options
def erasure(
    run: Path,
    csv_file: Path | None,
    md_file: Path | None,
    latex_file: Path | None,
    as_json: bool,
    columns: bool,
) -> None:
    """Tabulate the finished run of protocol erasure in folder RUN: which share of protected pairs is accepted again.

    Per attack and tracker: the share of pairs that the cloak protects, and which share of these is accepted again with
    the right key, a wrong one, none, and behind each defence of the run, with what that defence was trained on;
    with intervals over identities, and PSNRs.
    """
    from bench.analysis.results import Results
    from bench.leaderboard import erasure as erasure_table
    from bench.run.folder import RunFolder

    if columns:
        print_columns(erasure_table.COLUMNS, as_json=as_json)
        return
    files = check_files({"--csv": csv_file, "--md": md_file, "--latex": latex_file})
    found = erasure_table.table(Results.of(RunFolder(run)))
    give(found, files, _show, as_json=as_json)


def _show(found: "pd.DataFrame") -> None:
    from rich.table import Table

    screen = console(width=None if sys.stdout.isatty() else 200)
    plain = found.astype(object).where(found.notna(), None)
    for (attack, backbone, _), rows in plain.groupby(["attack", "backbone", "head"], sort=False):
        first = rows.iloc[0]
        title = ", ".join(filter(None, [f"{attack} on {backbone}", str(first["access"])]))
        if first["surrogates"]:
            title += f" (made with {first['surrogates']})"
        shown = Table("eraser", "what it learnt from", title=title)
        for heading in ("accepted again %", "to original dB", "to cloak dB"):
            shown.add_column(heading, justify="right")
        for row in rows.to_dict("records"):
            shown.add_row(str(row["eraser"]), learnt_from(row), *_texts(row))
        screen.print(shown)
        screen.print(_protection(dict(first)))
        for reason in sorted(
            {text for name in ("undone_reason", "psnr_reason") for text in rows[name]} - {""}
        ):
            screen.print(f"Without number or interval: {reason}.")


def _protection(row: dict[Any, Any]) -> str:
    if row["protected"] is None:
        return f"No share of protected pairs: {row['protected_reason']}."
    return (
        f"{rate(row, 'protected')} % of {row['n_pairs']} pairs of {row['n_identities']} identities are protected: "
        f"{row['protected_pairs']} pairs of {row['protected_identities']} identities. Cloaks: "
        f"{number(row['cloak_psnr'])} dB."
    )


def _texts(row: dict[Any, Any]) -> tuple[str, ...]:
    to_cloak = "unchanged" if row["to_cloak_unchanged"] == 1 else number(row["to_cloak_psnr"])
    return rate(row, "undone"), number(row["psnr"]), to_cloak


def learnt_from(row: dict[Any, Any]) -> str:
    """Return what an eraser knew before it met the cloak, and which identities it may have known."""
    seen = {
        "seen": "this attack",
        "seen-with-other-parameters": "this attack, other parameters",
        "unseen": "other attacks",
    }
    told = [seen[mark] for mark in row["attack_seen_by_defense"].split("|") if mark in seen]
    if row["extractors"]:
        told.append(row["extractors"] + (" (the tracker's)" if row["extractor_is_tracker"] else ""))
    overlap = {"yes": "evaluated identities", "unknown": "identities unknown"}
    if row["kind"] == "defence" and row["identity_overlap"] in overlap:
        told.append(overlap[row["identity_overlap"]])
    return "; ".join(told)


def rate(row: dict[Any, Any], name: str) -> str:
    """Return a share with its interval in per cent."""
    if row[name] is None:
        return "NA"
    value = f"{100 * row[name]:.1f}"
    if row[f"{name}_low"] is None:
        return value
    return f"{value} [{100 * row[f'{name}_low']:.1f}, {100 * row[f'{name}_high']:.1f}]"


def number(value: float | None) -> str:
    """Return decibels, NA where there are none."""
    return "NA" if value is None else f"{value:.1f}"
