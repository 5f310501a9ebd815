"""`bench table`: tables of a finished run besides its leaderboard."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.cli.options import intervals_option, json_option
from bench.cli.output import (
    check_files,
    number,
    percent,
    print_columns,
    print_json,
    print_table,
    rows_of,
    say_split,
)

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.results import Results
    from bench.leaderboard.as_text import TextColumn

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)

_EXAMPLES = """\b
Examples:
  bench table significance runs/3f2a
  bench table means runs/3f2a --attack fawkes --csv means.csv
  bench table years runs/3f2a
  bench table erasure runs/3f2a --latex erasure.tex
"""


@click.group(epilog=_EXAMPLES)
def table() -> None:
    """Write a table of a finished run besides its leaderboard: rankings with tests, means, years, groups or erasure."""


def _results(run: Path) -> "Results":
    from bench.analysis.results import Results
    from bench.run.folder import RunFolder

    results = Results.of(RunFolder(run))
    say_split(results.facts)
    return results


def _table_options(command: Command) -> Command:
    """Add the options of where a table goes: those that `_give` takes."""
    for option in (
        click.option("--columns", is_flag=True, help="Explain the columns and do nothing else."),
        intervals_option,
        json_option,
        click.option("--latex", type=_FILE, help="Write it for a paper here (booktabs)."),
        click.option("--md", type=_FILE, help="Write it as Markdown here."),
        click.option("--csv", type=_FILE, help="Write every column here."),
    ):
        command = option(command)
    return command


def _of_some(command: Command) -> Command:
    """Add the options of which attacks and trackers are averaged."""
    for name, what in (("backbone", "tracker"), ("attack", "attack")):
        help_text = f"Only this {what}. May be repeated. [default: all]"
        option = click.option(f"--{name}", f"{name}s", multiple=True, metavar="METHOD", help=help_text)
        command = option(command)
    return command


def _give(
    make: "Callable[[], pd.DataFrame]",
    meanings: Mapping[str, str],
    show: "Callable[..., None]",
    *,
    intervals: bool,
    as_json: bool,
    columns: bool,
    **files: Path | None,
) -> None:
    """Make a table, write it to files and print it; or explain its columns.

    Args:
        make: returns the table.
        meanings: column → what it means.
        show: prints the table for a reader; takes ``full``, whether as much as there is.
        intervals: print it in full.
        as_json: print it as JSON instead.
        columns: explain the columns and do nothing else.
        files: option without its dashes → file, None where it was not given.

    Raises:
        UsageError: a folder cannot be written.
        StoreError: a file cannot be written.
    """
    if columns:
        print_columns(meanings, as_json=as_json)
        return
    from bench.files import write_atomically
    from bench.leaderboard.significance_tables import FORMS

    wanted = check_files({f"--{form}": path for form, path in files.items()})
    found = make()
    for option, path in wanted.items():
        form = FORMS["tex" if option == "--latex" else option[2:]]
        write_atomically(path, form(found).encode(), option)
    if as_json:
        print_json(json.loads(found.to_json(orient="records")))
        return
    show(found, full=intervals)
    for path in wanted.values():
        click.echo(f"{path} written")


# -- significance --------------------------------------------------------------------------------------------


@table.command(epilog="Example: bench table significance runs/3f2a --out tables")
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
    from bench.files import write_atomically
    from bench.leaderboard import significance_tables as tables

    results = _results(run)
    ranked = [*tables.ranked_groups(results), *tables.ranked_by_worst_case(results)]
    found = {
        "rankings": tables.rankings(ranked),
        "pairs": tables.pairs(ranked),
        "accuracy-kept": tables.accuracy_kept(results),
        "seeds": tables.seeds(results),
    }
    if as_json:
        print_json({name: json.loads(table.to_json(orient="records")) for name, table in found.items()})
        return
    folder = out or run / "significance"
    for name, table in found.items():
        for ending, form in tables.FORMS.items():
            write_atomically(folder / f"{name}.{ending}", form(table).encode())
    _show_rankings(found["rankings"])
    _show_accuracy_kept(found["accuracy-kept"])
    click.echo(f"Tables: {', '.join(str(folder / f'{name}.csv') for name in found)} (and .md, .tex)")


def _show_rankings(rankings: "pd.DataFrame") -> None:
    for names, rows in rankings.groupby(["ranked", "against", "head", "condition", "access"], sort=False):
        ranked, against, *where = map(str, names)
        word = "Defences against" if ranked == "defense" else "Attacks under"
        first, *others = rows_of(rows)
        identities = f"{first['n_identities']} identities"
        click.echo(f"{word} {against} (head {', '.join(filter(None, where))}; {identities})")
        if first["reason"]:
            click.echo(f"  {first['reason']}")
        for row in (first, *others):
            click.echo(f"  {_ranked(row)}")
        if rows["minimum_detectable_difference"].notna().all():
            least = percent(first["minimum_detectable_difference"])
            click.echo(f"  minimum detectable difference of a pair at 80 % power: {least} points")


def _ranked(row: dict[str, Any]) -> str:
    text = "ASR    NA  " if row["asr"] is None else f"ASR {100 * row['asr']:5.1f} %"
    low, high = row["rank_low"], row["rank_high"]
    if low is None:
        return f"{text}  {row['method']}"
    place = f"{low:.0f}" if low == high else f"{low:.0f}-{high:.0f}"
    return f"{text}  rank {place:<5} {row['tie_group']:<4} {row['method']}"


def _show_accuracy_kept(kept: "pd.DataFrame") -> None:
    from bench.analysis.comparison_groups import EVERY

    kept = kept[kept["against"] != EVERY]
    if len(kept):
        shown = int(kept["not_worse"].eq(True).sum())
        click.echo(
            f"Normal accuracy: {shown} of {len(kept)} combinations of defence and attack are non-inferior at a margin "
            f"of {100 * kept['margin'].iloc[0]:.0f} point; see accuracy-kept."
        )


# -- means ---------------------------------------------------------------------------------------------------


@table.command(
    epilog="""\b
Examples:
  bench table means runs/3f2a
  bench table means runs/3f2a --attack fawkes --attack lowkey --csv results/headline.csv
"""
)
@click.argument("run", type=click.Path(path_type=Path))
@_of_some
@_table_options
def means(run: Path, attacks: tuple[str, ...], backbones: tuple[str, ...], **form: Any) -> None:
    """Average the finished run in folder RUN over attacks and trackers, within each identity first.

    One row a head, defence and attack, and one for the mean of all attacks: ASR with its interval over
    identities, beside it undefended and without attack; normal accuracy, and whether it is non-inferior at a
    margin of one point; image quality of defence and cloaks. Black-box and white-box cells are never averaged.
    """
    from bench.leaderboard import means as averages

    def make() -> "pd.DataFrame":
        return averages.table(averages.means(_results(run), attacks, backbones))

    _give(make, averages.COLUMNS, _show_means, **form)


def _show_means(found: "pd.DataFrame", *, full: bool) -> None:
    from bench.leaderboard.worst_case import sentences

    for (head, condition, access), rows in found.groupby(["head", "condition", "access"], sort=False):
        first = rows.iloc[0]
        where = ", ".join(filter(None, [f"head {head}", str(condition), str(access)]))
        trackers = first["backbones"].replace("|", ", ")
        print_table(_means(rows_of(rows)), f"{where}; mean over {trackers}", full=full)
        click.echo(f"{first['n_identities']} identities.")
        for sentence in sentences(rows):
            click.echo(sentence)
        for reason in sorted(set(rows["asr_reason"]) - {""}):
            click.echo(f"Without ASR or interval: {reason}.")


def _means(rows: list[dict[str, Any]]) -> "tuple[TextColumn, ...]":
    """Return the columns of the printed table; `--columns` explains them all."""
    from bench.leaderboard.as_text import TextColumn, texts
    from bench.leaderboard.summary import measured, worst_case

    def rate(name: str, of: str, heading: str, *, sign: int = 1, **more: Any) -> TextColumn:
        show = measured(of, factor=sign * 100, interval="ends" in more)
        return TextColumn(name, heading, tuple(map(show, rows)), numeric=True, unit=" %", **more)

    def decibels(name: str, of: str, heading: str, unit: str = " dB") -> TextColumn:
        return TextColumn(name, heading, tuple(map(measured(of), rows)), numeric=True, unit=unit)

    words = {True: "yes", False: "not shown", None: ""}
    return (
        TextColumn("attack", "attack", texts(row["against"] for row in rows), says="always"),
        TextColumn("defence", "defence", texts(row["defense"] for row in rows), says="always"),
        TextColumn(
            "worst case",
            "worst\ncase %",
            tuple(map(worst_case, rows)),
            numeric=True,
            says="always",
            unit=" %",
            ends=1,
        ),
        rate("ASR", "asr", "ASR %", says="always", ends=1),
        rate("undefended ASR", "undefended_asr", "unde-\nfended"),
        rate("ASR without cloak", "baseline_error", "without\ncloak %"),
        rate("normal accuracy", "normal_accuracy", "normal\nacc. %"),
        rate("accuracy lost", "accuracy_difference", "lost", sign=-1),
        TextColumn("loss < 1 point", "< 1\npoint", texts(words[row["not_worse"]] for row in rows)),
        decibels("PSNR of natural photos", "natural_psnr", "natural\ndB"),
        decibels("cloak PSNR", "cloak_psnr", "cloak\ndB"),
        decibels("cloak L∞", "cloak_linf_max", "cloak\nL∞", unit=""),
    )


# -- years ---------------------------------------------------------------------------------------------------


@table.command(epilog="Example: bench table years runs/3f2a --attack fawkes --csv years.csv")
@click.argument("run", type=click.Path(path_type=Path))
@_of_some
@_table_options
def years(run: Path, attacks: tuple[str, ...], backbones: tuple[str, ...], **form: Any) -> None:
    """Tabulate the means of the finished run in folder RUN by the year in which the trackers' weights were published.

    The rows of `bench table means` over the trackers of each year, with whether these are later than every surrogate:
    a cloak posted today meets the networks of tomorrow. Dates are those of the backbones' cards.
    """
    from bench.leaderboard import years as by_year

    def make() -> "pd.DataFrame":
        return by_year.table(_results(run), attacks, backbones)

    _give(make, by_year.COLUMNS, _show_years, **form)


def _show_years(found: "pd.DataFrame", *, full: bool) -> None:
    from bench.leaderboard.as_text import TextColumn, texts

    for (head, condition, access), part in found.groupby(["head", "condition", "access"], sort=False):
        rows = rows_of(part)
        time = (
            TextColumn("year", "year", texts(row["year"] or "?" for row in rows), says="always"),
            TextColumn("tracker", "tracker", texts(row["model_time"] for row in rows), says="always"),
        )
        where = ", ".join(filter(None, [f"head {head}", str(condition), str(access)]))
        print_table((*time, *_means(rows)), where, full=full)
        for year, own in part.groupby("year", sort=False):
            heading = str(year) or "Without a date"
            click.echo(f"{heading}: {own['backbones'].iloc[0].replace('|', ', ')}.")


# -- groups --------------------------------------------------------------------------------------------------


@table.command(
    epilog="""\b
Examples:
  bench table groups runs/3f2a --groups groups.csv
  bench table groups runs/3f2a --groups groups.csv --csv groups-of-3f2a.csv
"""
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--groups",
    required=True,
    type=_FILE,
    help="CSV with the columns identity and group. Nobody is put into a group by a face.",
)
@_table_options
def groups(run: Path, groups: Path, **form: Any) -> None:
    """Tabulate who is protected less in the finished run in folder RUN: rates of groups of identities.

    ASR and normal accuracy of each group in each cell with their intervals, beside those of all other groups; the
    difference with its interval, its test, and the difference that so many identities could show.
    """
    from bench.leaderboard import groups as by_group

    def make() -> "pd.DataFrame":
        results, known = _results(run), by_group.read_groups(groups)
        found = by_group.table(results, known)
        if without := by_group.left_out(results, known):
            click.echo(f"{without} evaluated identities have no group and are left out.", err=True)
        return found

    _give(make, by_group.COLUMNS, _show_groups, **form)


def _show_groups(found: "pd.DataFrame", *, full: bool) -> None:
    from bench.leaderboard.groups import sentences

    for (head, condition), rows in found.groupby(["head", "condition"], sort=False):
        print_table(
            _groups(rows_of(rows)), ", ".join(filter(None, [f"head {head}", str(condition)])), full=full
        )
    for sentence in sentences(found):
        click.echo(sentence)


def _groups(rows: list[dict[str, Any]]) -> "tuple[TextColumn, ...]":
    from bench.leaderboard.as_text import TextColumn, texts
    from bench.leaderboard.summary import measured

    def rate(name: str, of: str, heading: str, **more: Any) -> TextColumn:
        show = measured(of, factor=100, interval="ends" in more)
        return TextColumn(name, heading, tuple(map(show, rows)), numeric=True, unit=" %", **more)

    words = {"asr": "ASR", "normal_accuracy": "normal accuracy"}
    return (
        *(
            TextColumn(axis, axis, texts(row[axis] for row in rows), says="always")
            for axis in ("attack", "defense", "backbone")
        ),
        TextColumn("seed", "seed", texts(str(row["seed"]) for row in rows), numeric=True),
        TextColumn("measure", "measure", texts(words[row["measure"]] for row in rows), says="always"),
        TextColumn("group", "group", texts(row["group"] for row in rows), says="always"),
        TextColumn(
            "identities", "n", texts(str(row["n_identities"]) for row in rows), numeric=True, says="always"
        ),
        rate("rate", "rate", "%", says="always", ends=1),
        rate("others", "others", "others\n%"),
        rate("difference", "difference", "differ-\nence", ends=1),
        TextColumn(
            "p",
            "p\n(Holm)",
            texts("NA" if row["p_holm"] is None else f"{row['p_holm']:.2g}" for row in rows),
            numeric=True,
        ),
        rate("minimum detectable difference", "minimum_detectable_difference", "detect-\nable"),
    )


# -- erasure -------------------------------------------------------------------------------------------------


@table.command(
    epilog="""\b
Examples:
  bench table erasure runs/3f2a
  bench table erasure runs/3f2a --csv results/erasure.csv
"""
)
@click.argument("run", type=click.Path(path_type=Path))
@_table_options
def erasure(run: Path, **form: Any) -> None:
    """Tabulate the finished run of protocol erasure in folder RUN: which share of protected pairs is accepted again.

    Per attack and tracker: the share of pairs that the cloak protects, and which share of these is accepted again with
    the right key, a wrong one, none, and behind each defence of the run, with what that defence was trained on;
    with intervals over identities, and PSNRs.
    """
    from bench.leaderboard import erasure as erasures

    _give(lambda: erasures.table(_results(run)), erasures.COLUMNS, _show_erasure, **form)


def _show_erasure(found: "pd.DataFrame", *, full: bool) -> None:
    for (attack, backbone, _), rows in found.groupby(["attack", "backbone", "head"], sort=False):
        records = rows_of(rows)
        first = records[0]
        title = ", ".join(filter(None, [f"{attack} on {backbone}", str(first["access"])]))
        if first["surrogates"]:
            title += f" (made with {first['surrogates']})"
        print_table(_erasure(records), title, full=full)
        click.echo(_protection(first))
        for reason in sorted(
            {text for name in ("undone_reason", "psnr_reason") for text in rows[name]} - {""}
        ):
            click.echo(f"Without number or interval: {reason}.")


def _erasure(rows: list[dict[str, Any]]) -> "tuple[TextColumn, ...]":
    from bench.leaderboard.as_text import TextColumn, texts
    from bench.leaderboard.summary import measured

    again = tuple(map(measured("undone", factor=100, interval=True), rows))
    to_cloak = (
        "unchanged" if row["to_cloak_unchanged"] == 1 else number(row["to_cloak_psnr"], "NA") for row in rows
    )
    return (
        TextColumn("eraser", "eraser", texts(row["eraser"] for row in rows), says="always"),
        TextColumn("accepted again", "accepted\nagain %", again, numeric=True, says="always", ends=1),
        TextColumn(
            "PSNR to the original", "to orig-\ninal dB", tuple(map(measured("psnr"), rows)), numeric=True
        ),
        TextColumn("PSNR to the cloak", "to\ncloak dB", texts(to_cloak), numeric=True),
        TextColumn("what it learnt from", "what it learnt from", texts(map(learnt_from, rows))),
    )


def _protection(row: dict[str, Any]) -> str:
    if row["protected"] is None:
        return f"No share of protected pairs: {row['protected_reason']}."
    return (
        f"{percent(row['protected'], row['protected_low'], row['protected_high'])} % of {row['n_pairs']} pairs of "
        f"{row['n_identities']} identities are protected: {row['protected_pairs']} pairs of "
        f"{row['protected_identities']} identities. Cloaks: {number(row['cloak_psnr'], 'NA')} dB."
    )


def learnt_from(row: dict[str, Any]) -> str:
    """Return what an eraser knew before it met the cloak, and which identities it may have known."""
    seen = {
        "seen": "this attack",
        "seen-with-other-parameters": "this attack, other parameters",
        "unseen": "other attacks",
    }
    known = [seen[mark] for mark in row["attack_seen_by_defense"].split("|") if mark in seen]
    if row["extractors"]:
        known.append(row["extractors"] + (" (the tracker's)" if row["extractor_is_tracker"] else ""))
    overlap = {"yes": "evaluated identities", "unknown": "identities unknown"}
    if row["kind"] == "defence" and row["identity_overlap"] in overlap:
        known.append(overlap[row["identity_overlap"]])
    return "; ".join(known)
