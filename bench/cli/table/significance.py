"""`bench table significance`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import json_option

if TYPE_CHECKING:
    import pandas as pd


@click.command(epilog="Example: bench table significance runs/3f2a --out tables")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the tables. [default: RUN/significance]"
)
@json_option
def significance(run: Path, out: Path | None, as_json: bool) -> None:
    """Rank the methods of the finished run in folder RUN and test every pair of them, over identities.

    Writes rankings, pairs, accuracy-kept and seeds as CSV, Markdown and LaTeX, and prints the rankings. With
    --json all tables are printed and none is written.
    """
    from bench.analysis.results import Results
    from bench.files import write_atomically
    from bench.leaderboard import significance_tables as tables
    from bench.run.folder import RunFolder

    results = Results.of(RunFolder(run))
    ranked = tables.ranked_groups(results)
    found = {
        "rankings": tables.rankings(ranked),
        "pairs": tables.pairs(ranked),
        "accuracy-kept": tables.accuracy_kept(results),
        "seeds": tables.seeds(results),
    }
    if as_json:
        document = {name: json.loads(table.to_json(orient="records")) for name, table in found.items()}
        click.echo(json.dumps(document, indent=1))
        return
    folder = out or run / "significance"
    for name, table in found.items():
        for ending, form in tables.FORMS.items():
            write_atomically(folder / f"{name}.{ending}", form(table).encode())
    _show(found["rankings"], found["accuracy-kept"])
    click.echo(f"Tables: {', '.join(str(folder / f'{name}.csv') for name in found)} (and .md, .tex)")


def _show(rankings: "pd.DataFrame", kept: "pd.DataFrame") -> None:
    from bench.analysis.comparison_groups import EVERY

    keys = ["ranked", "against", "head", "condition", "access"]
    for names, rows in rankings.groupby(keys, sort=False):
        ranked, against, *where = map(str, names)
        word = "Defences against" if ranked == "defense" else "Attacks under"
        first = rows.iloc[0]
        identities = f"{first['n_identities']} identities"
        click.echo(f"{word} {against} (head {', '.join(filter(None, where))}; {identities})")
        if first["reason"]:
            click.echo(f"  {first['reason']}")
        ordered = rows.astype(object).where(rows.notna(), None)
        for row in ordered.itertuples(index=False):
            click.echo(f"  {_line(row)}")
        if rows["minimum_detectable_difference"].notna().all():
            click.echo(
                "  minimum detectable difference of a pair at 80 % power: "
                f"{100 * first['minimum_detectable_difference']:.1f} points"
            )
    kept = kept[kept["against"] != EVERY]
    if len(kept):
        shown = int(kept["not_worse"].eq(True).sum())
        click.echo(
            f"Normal accuracy: {shown} of {len(kept)} combinations of defence and attack are non-inferior at a margin "
            f"of {100 * kept['margin'].iloc[0]:.0f} point; see accuracy-kept."
        )


def _line(row: Any) -> str:
    text = "ASR    NA  " if row.asr is None else f"ASR {100 * row.asr:5.1f} %"
    if row.rank_low is None:
        return f"{text}  {row.method}"
    place = (
        f"{row.rank_low:.0f}" if row.rank_low == row.rank_high else f"{row.rank_low:.0f}-{row.rank_high:.0f}"
    )
    return f"{text}  rank {place:<5} {row.tie_group:<4} {row.method}"
