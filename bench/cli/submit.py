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
  bench submit runs/3f2a --by "Example Lab" --decisions https://example.org/3f2a.zip
  bench submit results/leaderboard/3f2a.json --check 3f2a.zip
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
@click.option(
    "--decisions",
    "url",
    default="",
    metavar="URL",
    help="Where its decisions can be had; published. [default: nowhere]",
)
@click.option(
    "--with-decisions", is_flag=True, help="Write the decisions beside the record; of drawn faces only."
)
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    help="RUN is a submission's record: make its rates again from the decisions here, archive or folder.",
)
@click.option(
    "--against",
    default="",
    metavar="ENTRY",
    help="A submission in --to whose defence this run's attack defeats: its worst case falls.",
)
@click.option(
    "--unreliable",
    metavar="TEXT",
    help='For maintainers: RUN is a submission\'s record; say why it is not relied on, or "" to take that back.',
)
@click.option("--footnote", metavar="TEXT", help="Likewise: what is said of it besides.")
@click.option("--dry-run", is_flag=True, help="Only check; write nothing.")
@json_option
def submit(
    run: Path,
    to: Path,
    by: str,
    url: str,
    with_decisions: bool,
    check: Path | None,
    against: str,
    unreliable: str | None,
    footnote: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Check the finished run in folder RUN for the public leaderboard, and add it where every check passes.

    Writes a table and a record, named by the run's digest, all or none. The run's folder stays as it is. The record
    names each cell's decisions by digest; whoever has them makes the rates again with --check.

    With --against the run has a stronger attack on a defence of another entry: in every table that has both, the
    entry's worst case is then at least this run's, and both are named.

    Exit code 0: every check passed, and the files are written (not with --dry-run) or were there already; with --check:
    the decisions give the table, and it lacks no cell; 1: a check failed, and nothing is written; 2: RUN is no finished
    run, or another submission of it is there; with --check: no record, or other decisions than it names.
    """
    if check is not None:
        _refuse_beside("--check", "reads a submission and writes nothing")
        _check_submission(run, check, as_json=as_json)
        return
    marks = {"unreliable": unreliable, "footnote": footnote}
    if any(text is not None for text in marks.values()):
        _refuse_beside("--unreliable or --footnote", "marks a submission that is there")
        _mark(run, {name: text for name, text in marks.items() if text is not None}, as_json=as_json)
        return
    begin_reading(run)
    from bench.publish import submission
    from bench.run.folder import RunFolder

    falls = submission.falls(RunFolder(run), against, to) if against else ()
    found = submission.examine(
        RunFolder(run), by, counting, decisions_url=url, with_decisions=with_decisions, against=against
    )
    state = "failed" if not found.passed else "passed" if dry_run else submission.publish(found, to)
    if as_json:
        checks = [asdict(check) for check in found.checks]
        files = [str(to / name) for name in found.files()]
        print_json({"run": found.run, "state": state, "files": files, "checks": checks, "falls": list(falls)})
    else:
        _print(found, state, to)
        for sentence in falls:
            click.echo(f"Entry {against} falls: {sentence}.")
    if not found.passed:
        click.get_current_context().exit(1)  # the checks are the command's output


def _refuse_beside(option: str, does: str) -> None:
    """Refuse options that make a submission beside one that does something else with it."""
    ctx = click.get_current_context()
    given = {
        parameter.opts[0]
        for parameter in ctx.command.params
        if ctx.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    }
    others = {"--to", "--by", "--decisions", "--with-decisions", "--dry-run", "--against"}
    others |= {"--unreliable", "--footnote"} if option == "--check" else {"--check"}
    if wrong := sorted(given & others):
        raise click.UsageError(f"{option} {does}; leave {', '.join(wrong)} out.")


def _mark(record: Path, marks: dict[str, str], *, as_json: bool) -> None:
    """Write what maintainers say of a submission into its record."""
    from bench.publish.submission import mark

    mark(record, marks)
    if as_json:
        print_json({"record": str(record), **marks})
        return
    for name, text in marks.items():
        click.echo(f"{record}: {name} is now {text!r}." if text else f"{record}: {name} is taken back.")


def _check_submission(record: Path, decisions: Path, *, as_json: bool) -> None:
    """Print every value of a submission's table that its decisions do not give; exit code 1 where there is one."""
    from bench.leaderboard.from_decisions import LARGEST_ELSEWHERE, differences, read_files
    from bench.leaderboard.merge import read_as_submitted

    source = read_as_submitted(record)
    files = read_files(decisions, source.record, LARGEST_ELSEWHERE)
    found = differences(source.record, source.leaderboard, files)
    if as_json:
        state = "differs" if found else "same"
        print_json({"run": record.stem, "state": state, "differences": [asdict(one) for one in found]})
    else:
        for one in found:
            given = one.made or "empty"
            click.echo(f"{one.row}: {one.column} is {one.submitted or 'empty'}, its decisions give {given}")
        rows = f"{len(source.leaderboard)} rows of run {record.stem}"
        verdict = f"{len(found)} values are others" if found else "every rate is what its decisions give"
        click.echo(f"{rows}, {len(files)} files of decisions: {verdict}.")
    if found:
        click.get_current_context().exit(1)  # the differences are the command's output


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
