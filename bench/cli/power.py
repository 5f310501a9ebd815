"""`bench power`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import json_option
from bench.errors import DataError, UsageError

if TYPE_CHECKING:
    from bench.run.folder import CellResult, RunFolder
    from bench.stats.power import Assumptions

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_IDENTITIES = (20, 50, 100, 158, 300, 500, 1000)


@click.command(epilog="Example: bench power --difference 0.05 --identities 158 --rate 0.3")
@click.option("--difference", type=_SHARE, default=0.05, show_default=True, help="Difference to be found.")
@click.option(
    "--identities", type=click.IntRange(min=2), default=158, show_default=True, help="Identities of a run."
)
@click.option(
    "--probes",
    type=click.FloatRange(min=1),
    default=5.35,
    show_default=True,
    help="Probes per identity (harmonic mean).",
)
@click.option("--rate", type=_SHARE, default=0.3, show_default=True, help="Mean rate of one of the cells.")
@click.option(
    "--intraclass",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Correlation between two probes of one identity.",
)
@click.option(
    "--correlation",
    type=click.FloatRange(-1, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Correlation between an identity's rates in the two cells.",
)
@click.option("--alpha", type=_SHARE, default=0.05, show_default=True, help="Two-sided level.")
@click.option(
    "--tests",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Comparisons of the table it will stand in; the level is divided by them, as Holm's first step does.",
)
@click.option("--power", "wanted", type=_SHARE, default=0.8, show_default=True, help="Chance to find it.")
@click.option(
    "--run",
    "runs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="RUN",
    help="Take identities and spread from the cells of this finished run, each against its reference.",
)
@json_option
def power(
    difference: float,
    identities: int,
    probes: float,
    rate: float,
    intraclass: float,
    correlation: float,
    alpha: float,
    tests: int,
    wanted: float,
    runs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Say, before a run, which difference it could show and how many identities a wanted one needs.

    The difference is between two cells' mean rates over the same identities, by a paired t test. Without a run,
    the spread between identities follows from the rate, the probes and the two correlations.
    """
    alpha /= tests
    if alpha >= wanted:
        raise UsageError(
            f"--power {wanted:g} must be above --alpha {alpha:g}: a test finds so much by chance."
        )
    if runs:
        rows = [row for run in runs for row in _observed(run, difference, alpha, wanted)]
        document: Any = {"difference": difference, "alpha": alpha, "power": wanted, "cells": rows}
        click.echo(json.dumps(document, indent=1)) if as_json else _print_observed(document)
        return
    assumed = _assumed(rate, difference, probes, intraclass, correlation)
    document = _plan(assumed, identities, alpha, wanted)
    click.echo(json.dumps(document, indent=1)) if as_json else _print_plan(document)


def _assumed(
    rate: float, difference: float, probes: float, intraclass: float, correlation: float
) -> "Assumptions":
    from bench.stats.power import Assumptions

    if rate + difference > 1 and difference > rate:
        raise UsageError(
            f"no rate is {difference:g} above or below --rate {rate:g}. Give a smaller --difference."
        )
    return Assumptions(
        rate=rate,
        difference=difference if rate + difference <= 1 else -difference,
        probes=probes,
        intraclass=intraclass,
        correlation=correlation,
    )


def _plan(assumed: "Assumptions", identities: int, alpha: float, wanted: float) -> dict[str, Any]:
    from bench.stats.power import identities_needed, minimum_detectable_difference

    sd = assumed.sd_of_differences()
    table = {
        n: minimum_detectable_difference(sd, n, alpha, wanted) for n in sorted({*_IDENTITIES, identities})
    }
    return {
        "assumptions": assumed.model_dump(),
        "alpha": alpha,
        "power": wanted,
        "sd_of_differences": sd,
        "identities": identities,
        "minimum_detectable_difference": table[identities],
        "identities_needed": identities_needed(assumed.difference, sd, alpha, wanted),
        "by_identities": table,
    }


def _print_plan(document: dict[str, Any]) -> None:
    assumed = document["assumptions"]
    click.echo(
        f"With {document['identities']} identities, {assumed['probes']:g} probes each and a rate of "
        f"{100 * assumed['rate']:g} %, a run finds a difference of "
        f"{100 * document['minimum_detectable_difference']:.1f} points with power {100 * document['power']:g} % "
        f"at level {100 * document['alpha']:.2g} %; a difference of {100 * abs(assumed['difference']):g} points "
        f"needs {document['identities_needed']} identities."
    )
    click.echo(
        f"Assumed: correlation {assumed['intraclass']:g} between two probes of an identity and "
        f"{assumed['correlation']:g} between an identity's two rates, so that differences have a standard "
        f"deviation of {100 * document['sd_of_differences']:.1f} points."
    )
    click.echo("\npeople  smallest difference, points")
    for n, least in document["by_identities"].items():
        click.echo(f"{n:6}  {100 * least:.1f}")


def _observed(path: Path, difference: float, alpha: float, wanted: float) -> list[dict[str, Any]]:
    """Return what each cell of a run could have shown against its reference.

    Raises:
        DataError: not a finished run, or none of its cells has a reference.
    """
    import numpy as np

    from bench.run.folder import RunFolder
    from bench.stats import rates as measures
    from bench.stats.power import identities_needed, minimum_detectable_difference

    folder = RunFolder(path)
    cells = {(c.attack, c.defense, c.backbone, c.head, c.seed): c for c in folder.cells() if c.decisions}
    found = []
    for key, cell in cells.items():
        attack, defense = key[:2]
        reference = cells.get(((attack if defense != "none" else "none"), "none", *key[2:]))
        if reference is None or reference is cell:
            continue
        theirs = _rates(folder, reference)
        for condition, rates in _rates(folder, cell).items():
            if condition not in theirs:
                continue
            one, two = measures.paired(rates, theirs[condition]).T
            known = np.isfinite(one) & np.isfinite(two)
            n = int(known.sum())
            sd = float((one - two)[known].std(ddof=1)) if n > 1 else 0.0
            found.append(
                {
                    "run": path.name,
                    **dict(zip(("attack", "defense", "backbone", "head", "seed"), key, strict=True)),
                    "condition": condition,
                    "identities": n,
                    "sd_of_differences": sd,
                    "minimum_detectable_difference": minimum_detectable_difference(sd, n, alpha, wanted)
                    if sd
                    else None,
                    "identities_needed": identities_needed(difference, sd, alpha, wanted) if sd else None,
                }
            )
    if not found:
        raise DataError(f"no cell of '{path}' has decisions and a reference to compare them with.")
    return found


def _rates(folder: "RunFolder", cell: "CellResult") -> dict[str, Any]:
    """Return the identities' rates of a cell by condition."""
    from bench.run import decisions
    from bench.stats import rates as measures

    rows = decisions.read(folder.path / cell.decisions).rows
    return {name: measures.per_identity(some)["asr"] for name, some in rows.groupby("condition", sort=False)}


def _print_observed(document: dict[str, Any]) -> None:
    click.echo(
        f"Each cell against its reference (defence none; for defence none, attack none): the smallest "
        f"difference found with power {100 * document['power']:g} % at level {100 * document['alpha']:.2g} %, "
        f"and the identities a difference of {100 * document['difference']:g} points needs."
    )
    for row in document["cells"]:
        least = row["minimum_detectable_difference"]
        figures = (
            "NA (nobody differs, so nothing tells of the spread)"
            if least is None
            else f"{100 * least:.1f} points with {row['identities']} identities; {row['identities_needed']} identities"
        )
        place = f"{row['attack']} × {row['defense']}, {row['backbone']}, {row['head']}, seed {row['seed']}"
        condition = f", {row['condition']}" if row["condition"] else ""
        click.echo(f"  {place}{condition}: {figures}")
