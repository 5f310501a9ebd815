"""How long the command line takes to start, in units of an empty Python.

Commands and the empty interpreter run in turn, so only their ratio counts: it holds on another machine, seconds
do not. The ratio is the median over the rounds, of processor time of the whole process.

    python benchmarks/startup.py --rounds 15
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys

COMMANDS = ("--help", "--version", "list", "list attacks", "run --help", "models verify --help")


def seconds(*arguments: str, completing: str = "") -> float:
    """Return the processor time of one Python process with these arguments.

    Args:
        arguments: after the interpreter's name.
        completing: a line to complete, as zsh asks for it.
    """
    requested = {
        "_BENCH_COMPLETE": "zsh_complete",
        "COMP_WORDS": completing,
        "COMP_CWORD": str(len(completing.split()) - 1),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        check=False,
        env=os.environ | (requested if completing else {}),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print one line a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    line = "bench run --attack f"
    seconds("-m", "bench", "--help")  # compiles what is not compiled yet
    print(
        f"median of {rounds} rounds; processor time\ncommand                     seconds  times an empty Python"
    )
    for name in (*COMMANDS, "(completing a method)"):
        words = ("-m", "bench", *name.split()) if name in COMMANDS else ("-m", "bench")
        pairs = [
            (seconds(*words, completing="" if name in COMMANDS else line), seconds("-c", "pass"))
            for _ in range(rounds)
        ]
        own = statistics.median(pair[0] for pair in pairs)
        ratio = statistics.median(first / empty for first, empty in pairs)
        print(f"bench {name:22} {own:6.3f}  {ratio:5.1f}")


if __name__ == "__main__":
    main()
