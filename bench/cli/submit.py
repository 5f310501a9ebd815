"""`bench submit`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import json_option
from bench.cli.output import begin_reading, counting, print_json

if TYPE_CHECKING:
    from bench.publish.submission import Submission

_EPILOG = """\b
Examples:
  bench submit runs/3f2a --dry-run
  bench submit runs/3f2a --by "Example Lab"
"""


@click.command(epilog=_EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results/leaderboard"),
    show_default=True,
    help="Folder of the leaderboard's submissions.",
)
@click.option("--by", default="", metavar="TEXT", help="Who submits it; published. [default: nobody]")
@click.option("--dry-run", is_flag=True, help="Only check; write nothing.")
@json_option
def submit(run: Path, to: Path, by: str, dry_run: bool, as_json: bool) -> None:
    """Check the finished run in folder RUN for the public leaderboard, and add it where every check passes.

    Writes a table and a record, named by the run's digest, both or none. The run's folder stays as it is.

    Exit code 0: every check passed, and the files are written (not with --dry-run) or were there already; 1: a
    check failed, and nothing is written; 2: RUN is no finished run, or another submission of it is there.
    """
    begin_reading(run)
    from bench.publish import submission
    from bench.run.folder import RunFolder

    found = submission.examine(RunFolder(run), by, counting)
    state = "failed" if not found.passed else "passed" if dry_run else submission.publish(found, to)
    if as_json:
        checks = [asdict(check) for check in found.checks]
        files = [str(to / name) for name in found.files()]
        print_json({"run": found.run, "state": state, "files": files, "checks": checks})
    else:
        _print(found, state, to)
    if not found.passed:
        click.get_current_context().exit(1)  # the checks are the command's output


def _print(found: "Submission", state: str, to: Path) -> None:
    for check in found.checks:
        click.echo(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.found}")
        if check.fix:
            click.echo(f"      fix: {check.fix}")
    failed = sum(not check.passed for check in found.checks)
    names = " and ".join(str(to / name) for name in found.files())
    verdict = {
        "failed": f"{failed} of {len(found.checks)} checks failed; nothing is written.",
        "passed": f"Every check passed; nothing is written (--dry-run). It would write {names}.",
        "written": f"Every check passed; {names} written.",
        "there": f"Every check passed; {names} are there already, the same.",
    }
    click.echo(verdict[state])
