"""`bench table`: tables of a finished run besides its leaderboard."""

import click

from bench.cli.table.erasure import erasure
from bench.cli.table.means import means
from bench.cli.table.significance import significance

_EXAMPLES = """\b
Examples:
  bench table significance runs/3f2a
  bench table means runs/3f2a --attack fawkes --csv means.csv
  bench table erasure runs/3f2a --latex erasure.tex
"""


@click.group(epilog=_EXAMPLES)
def table() -> None:
    """Write a table of a finished run besides its leaderboard: rankings with tests, means, or erasure."""


for _kind in (significance, means, erasure):
    table.add_command(_kind)
