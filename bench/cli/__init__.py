"""The command line. Subcommands are imported when they are used, so that ``bench --help`` is quick.

Here: parsing, progress and tables. Not here: anything a Python caller would want; that is in `bench`.
"""

import errno
import gc
import os
import sys

import click

from bench.cli.commands import load_command, plugin_commands
from bench.cli.ending import NO_READER, heed_signals, judge, let_go
from bench.cli.names import COMMANDS
from bench.cli.options import Ending
from bench.cli.root import bench
from bench.cli.streams import forgive

_ALLOCATIONS = 50_000
"""Objects that come to be between two looks for garbage in cycles; Python's 2,000 or fewer look dozens of times while
packages are imported, a tenth of the time a command takes to start."""

__all__ = ["COMMANDS", "bench", "load_command", "main", "plugin_commands"]


def main() -> None:
    """Run the command line; every expected error is one sentence and a non-zero exit code."""
    from bench.errors import BenchError
    from bench.plugins import shadowing

    gc.set_threshold(_ALLOCATIONS)
    ending = Ending()
    forgive()
    heed_signals()
    try:
        shadowing.check()
        code = _run(ending)
    except (BenchError, click.ClickException, click.Abort, KeyboardInterrupt, OSError) as error:
        sentence, code = judge(error)
        if ending.tracebacks:
            import traceback

            traceback.print_exc()
        if sentence:
            click.echo(sentence, err=True)
    finally:
        let_go()
    if code:
        sys.exit(code)


def _run(ending: Ending) -> int:
    """Run the command named and return its exit code."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    output, plain = sys.stdout, False if os.environ.get("NO_COLOR") else None
    try:
        # Outside standalone mode click returns the code of `Context.exit` instead of leaving with it.
        code = bench.main(prog_name="bench", standalone_mode=False, color=plain, obj=ending)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except SystemExit:
        if sys.stdout is not output:  # click has wrapped it: nobody reads on
            return NO_READER
        raise
    sys.stdout.flush()  # here, where a full disk can still be reported
    return code if isinstance(code, int) else 0
