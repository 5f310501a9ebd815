"""`bench compare`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.comparison import RecoveryComparison
    from bench.statistics import Estimate


@click.command(epilog="Example: bench compare runs/3f2a puface jpeg --attack pgd:eps=15")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("first")
@click.argument("second")
@click.option("--attack", required=True, metavar="METHOD", help="The attack they are compared against.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def compare(run: Path, first: str, second: str, attack: str, as_json: bool) -> None:
    """Compare the recovery of defences FIRST and SECOND in the finished run in folder RUN.

    Recovery is the share of what the attack hid that a defence brings back; the difference is paired over
    people, with a 95 % bootstrap interval, for each backbone and head.
    """
    from bench.comparison import compare_defenses
    from bench.run_folder import RunFolder

    found = compare_defenses(RunFolder(run), attack, first, second)
    if as_json:
        click.echo(json.dumps([_document(item) for item in found], indent=1))
        return
    click.echo(f"Recovery against {attack}: {first} minus {second}, per cent [95 % over people]")
    for item in found:
        click.echo(
            f"  {item.backbone}, {item.head}, seed {item.seed}: {_percent(item.difference)} "
            f"({_percent(item.first)} and {_percent(item.second)}; "
            f"the attack raises the error by {_percent(item.gain)})"
        )


def _percent(estimate: "Estimate") -> str:
    if estimate.value is None:
        return f"NA ({estimate.reason})"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f}"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _document(item: "RecoveryComparison") -> dict[str, object]:
    estimates = {name: vars(getattr(item, name)) for name in ("gain", "first", "second", "difference")}
    return {"backbone": item.backbone, "head": item.head, "seed": item.seed, **estimates}
