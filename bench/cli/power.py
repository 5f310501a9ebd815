"""`bench power`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import json_option
from bench.cli.output import print_json
from bench.errors import DataError, UsageError

if TYPE_CHECKING:
    from bench.analysis.results import Results
    from bench.run.spec import Cell

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_CORRELATION = click.FloatRange(-1, 1, min_open=True, max_open=True)
_IDENTITIES = (20, 50, 100, 158, 300, 500, 1000)


def _assumption(
    name: str, kind: Any, default: float, meaning: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, type=kind, default=default, show_default=True, help=meaning)


@click.command(epilog="Example: bench power --difference 0.05 --identities 158 --rate 0.3")
@_assumption("--difference", _SHARE, 0.05, "Difference to be found.")
@_assumption("--identities", click.IntRange(min=2), 158, "Identities of a run.")
@_assumption("--probes", click.FloatRange(min=1), 5.35, "Probes per identity (harmonic mean).")
@_assumption("--rate", _SHARE, 0.3, "Mean rate of one of the cells.")
@_assumption("--intraclass", click.FloatRange(0, 1), 0.3, "Correlation between two probes of one identity.")
@_assumption("--correlation", _CORRELATION, 0.5, "Correlation between an identity's rates in the two cells.")
@_assumption("--alpha", _SHARE, 0.05, "Two-sided level.")
@_assumption(
    "--tests",
    click.IntRange(1),
    1,
    "Comparisons of the table it will stand in; the level is divided by them, as Holm's first step does.",
)
@_assumption("--power", _SHARE, 0.8, "Chance to find it.")
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
    alpha: float,
    tests: int,
    power: float,
    runs: tuple[Path, ...],
    as_json: bool,
    **spread: float,
) -> None:
    """Power analysis before a run: the detectable effect, and the sample size that a given effect needs.

    The difference is between two cells' mean rates over the same identities, by a paired t test. Without a run,
    the spread between identities follows from the rate, the probes and the two correlations.
    """
    level = {"alpha": alpha / tests, "power": power}
    if level["alpha"] >= power:
        raise UsageError(
            f"--power {power:g} must be above --alpha {level['alpha']:g}: a test finds so much by chance."
        )
    if runs:
        rows = [row for run in runs for row in _observed(run, difference, level)]
        document = {"difference": difference, **level, "cells": rows}
        print_json(document) if as_json else _print_observed(document)
        return
    document = _plan(difference, identities, level, spread)
    print_json(document) if as_json else _print_plan(document)


def _plan(
    difference: float, identities: int, level: dict[str, float], spread: dict[str, float]
) -> dict[str, Any]:
    from bench.stats.power import Assumptions, identities_needed, minimum_detectable_difference

    rate = spread["rate"]
    above = rate + difference <= 1
    if not above and difference > rate:
        raise UsageError(
            f"no rate is {difference:g} above or below --rate {rate:g}. Give a smaller --difference."
        )
    assumed = Assumptions(difference=difference if above else -difference, **spread)
    sd = assumed.sd_of_differences()
    sizes = sorted({*_IDENTITIES, identities})
    table = {n: minimum_detectable_difference(sd, n, **level) for n in sizes}
    return {
        "assumptions": assumed.model_dump(),
        **level,
        "sd_of_differences": sd,
        "identities": identities,
        "minimum_detectable_difference": table[identities],
        "identities_needed": identities_needed(assumed.difference, sd, **level),
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
    click.echo("\nidentities  smallest difference, points")
    for n, least in document["by_identities"].items():
        click.echo(f"{n:10}  {100 * least:.1f}")


def _observed(path: Path, difference: float, level: dict[str, float]) -> list[dict[str, Any]]:
    """Return what each cell of a run could have shown against its reference.

    Raises:
        DataError: not a finished run, or none of its cells has a reference.
    """
    import numpy as np

    from bench.analysis.results import Results
    from bench.run.folder import RunFolder
    from bench.stats.power import identities_needed, minimum_detectable_difference
    from bench.stats.rates import paired

    results = Results.of(RunFolder(path))
    found = []
    for cell in results.cells:
        reference = cell._replace(attack=cell.attack if cell.defense != "none" else "none", defense="none")
        if reference == cell:
            continue
        own, theirs = _rates(results, cell), _rates(results, reference)
        for condition in [name for name in own if name in theirs]:
            one, two = paired(own[condition], theirs[condition]).T
            known = np.isfinite(one) & np.isfinite(two)
            n = int(known.sum())
            sd = float((one - two)[known].std(ddof=1)) if n > 1 else 0.0
            found.append(
                {
                    "run": path.name,
                    **cell._asdict(),
                    "condition": condition,
                    "identities": n,
                    "sd_of_differences": sd,
                    "minimum_detectable_difference": minimum_detectable_difference(sd, n, **level)
                    if sd
                    else None,
                    "identities_needed": identities_needed(difference, sd, **level) if sd else None,
                }
            )
    if not found:
        raise DataError(f"no cell of '{path}' has decisions and a reference to compare them with.")
    return found


def _rates(results: "Results", cell: "Cell") -> dict[str, Any]:
    """Return the identities' rates of a cell by condition; none where it has no decisions."""
    measured = {name: results.identities(cell, name) for name in sorted(results.facts_of(cell) or ())}
    return {name: one["asr"] for name, one in measured.items() if one is not None}


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
