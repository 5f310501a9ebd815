"""`bench compare`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import json_option
from bench.cli.output import percent, print_json, say_split

if TYPE_CHECKING:
    from bench.analysis.claims import Claim, RecoveryComparison
    from bench.stats.intervals import Estimate

_EXAMPLES = """\b
Examples:
  bench compare runs/3f2a puface jpeg
  bench compare runs/3f2a puface jpeg --attack pgd:eps=15 --backbone mobilefacenet-casia
  bench compare runs/3f2a fawkes pgd --defense puface
  bench compare runs/3f2a runs/91bc
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("what", nargs=-1, required=True, metavar="A B | OTHER_RUN")
@click.option("--kind", help="What A and B are where names leave a choice: attack, defense or backbone.")
@click.option("--attack", metavar="METHOD", help="Only against this attack. [default: mean of all]")
@click.option("--defense", metavar="METHOD", help="Only under this defence. [default: none]")
@click.option("--backbone", metavar="METHOD", help="Only on this tracker. [default: mean of all]")
@json_option
def compare(run: Path, what: tuple[str, ...], as_json: bool, **chosen: str | None) -> None:
    """Test whether A is significantly better than B in the finished run in folder RUN, over identities.

    A and B are two attacks (better: higher ASR), two defences or two trackers' backbones (better: lower ASR).
    With OTHER_RUN in their place, compares the cells that two runs have in common.
    """
    from bench.analysis import claims
    from bench.analysis.comparability import require_comparable
    from bench.analysis.results import Results
    from bench.errors import UsageError
    from bench.run.folder import RunFolder

    results = Results.of(RunFolder(run))
    say_split(results.facts)
    recoveries: list[RecoveryComparison] = []
    if len(what) == 1:
        if odd := [f"--{name}" for name, value in chosen.items() if value is not None]:
            raise UsageError(
                f"{', '.join(odd)} is for two methods of one run; two runs are compared as they are."
            )
        if not Path(what[0]).is_dir():
            raise UsageError(f"'{what[0]}' is no folder of a run; compare takes two methods, or another run.")
        other = Results.of(RunFolder(Path(what[0])))
        require_comparable(results.facts, other.facts)
        found = claims.compare_runs(results, other, (str(run), what[0]))
    elif len(what) == 2:
        found = claims.compare_methods(results, what[0], what[1], **chosen)
        if found and found[0].kind == "defense":
            given = chosen["attack"]
            attacks = (
                [name for name in results.values("attack") if name != "none"] if given is None else [given]
            )
            recoveries = [one for name in attacks for one in claims.compare_defenses(results, name, *what)]
    else:
        raise UsageError(f"compare takes two methods or one other run, got {len(what)}: {', '.join(what)}.")
    _print(found, recoveries, as_json=as_json)


def _print(claims: "list[Claim]", recoveries: "list[RecoveryComparison]", *, as_json: bool) -> None:
    if as_json:
        found = [
            {**asdict(claim), "verdict": claim.verdict, "sentence": claim.sentence()} for claim in claims
        ]
        print_json({"claims": found, "recovery": [asdict(one) for one in recoveries]})
        return
    for claim in claims:
        click.echo(claim.sentence())
    if recoveries:
        first, second = claims[0].first, claims[0].second
        click.echo(f"Recovery, {first} minus {second}, per cent [95 % over identities]:")
    for one in recoveries:
        where = f"{one.attack} on {one.backbone}, {one.head}, seed {one.seed}"
        click.echo(f"  {where}{one.condition and ', ' + one.condition}: {_recovery(one)}")


def _recovery(one: "RecoveryComparison") -> str:
    if one.difference.value is None:
        return f"NA ({one.difference.reason})"
    return (
        f"{_percent(one.difference)} ({_percent(one.first)} and {_percent(one.second)}; the attack raises the error by "
        f"{_percent(one.gain)})"
    )


def _percent(estimate: "Estimate") -> str:
    if estimate.value is None:
        return f"NA ({estimate.reason})"
    return percent(estimate.value, estimate.low, estimate.high)
