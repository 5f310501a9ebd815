"""A long run watched from outside: does it take more and more memory, or leave files open?

`python -m benchmarks.soak` runs 2,000 cells and more on the embedded default and prints one JSON document. Exit code 1
where the run failed, or where in the last quarter of its cells it holds over `MOST_GROWTH` times the memory, or over
`MOST_HANDLES` files more, than in the second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

MOST_GROWTH = 1.1
"""Times what is held in the second quarter of the cells that the last quarter may hold."""

MOST_HANDLES = 5
"""Open files more than in the second quarter."""

_EVERY_S = 0.5
_KILOBYTES = 1024


@dataclass(frozen=True)
class Sample:
    """What the run's processes hold at one moment.

    Attributes:
        done: artefacts of decisions in the store.
        memory: resident bytes.
        handles: open files.
    """

    done: int
    memory: int
    handles: int


@dataclass(frozen=True)
class Soaked:
    """What came of a long run; of the second and the last quarter of its cells the median is given."""

    cells: int
    seconds: float
    exit_code: int
    memory_second_quarter: float
    memory_last_quarter: float
    handles_second_quarter: float
    handles_last_quarter: float

    @property
    def is_flat(self) -> bool:
        """Whether it held no more at its end."""
        more_handles = self.handles_last_quarter - self.handles_second_quarter
        growth = self.memory_last_quarter / self.memory_second_quarter
        return growth <= MOST_GROWTH and more_handles <= MOST_HANDLES


def matrix(attacks: int, defenses: int, seeds: int) -> list[str]:
    """Return the options of a run of many cheap cells."""
    return [
        *("--dataset", "synthetic:identities=3,photos=4", "--threads", "1", "--quiet"),
        *(word for n in range(attacks) for word in ("--attack", f"pgd:steps=1,eps={n + 1}")),
        *(word for n in range(defenses) for word in ("--defense", f"jpeg:quality={95 - n}")),
        *("--backbone", "synthetic-mobilefacenet", "--backbone", "synthetic-iresnet", "--head", "nn"),
        *(word for n in range(seeds) for word in ("--seed", str(n))),
    ]


def soak(options: list[str], folder: Path) -> Soaked:
    """Run a matrix in an empty folder and watch it (Linux).

    Raises:
        ValueError: it ended before enough was seen of it.
    """
    command = [sys.executable, "-m", "bench", "run", *options]
    start = time.monotonic()
    process = subprocess.Popen(
        [*command, "--store", str(folder / "store"), "--out", str(folder / "run")], stdout=subprocess.DEVNULL
    )
    samples = list(_samples(process, folder / "store"))
    seconds = time.monotonic() - start
    cells = samples[-1].done if samples else 0
    second = [each for each in samples if cells / 4 <= each.done < cells / 2]
    last = [each for each in samples if 3 * cells / 4 <= each.done]
    if not (second and last):
        raise ValueError(f"the run ended with exit code {process.returncode} before much was seen of it")
    return Soaked(
        cells,
        round(seconds, 1),
        process.returncode,
        median(each.memory for each in second),
        median(each.memory for each in last),
        median(each.handles for each in second),
        median(each.handles for each in last),
    )


def _samples(process: subprocess.Popen[bytes], store: Path) -> Iterator[Sample]:
    """Yield what a process and its children hold, until it ends."""
    while process.poll() is None:
        time.sleep(_EVERY_S)
        done = sum(1 for _ in (store / "decide").glob("*/*.json"))
        held = [_held(number) for number in (process.pid, *_children(process.pid))]
        if done:
            yield Sample(done, sum(each[0] for each in held), sum(each[1] for each in held))


def _children(number: int) -> list[int]:
    try:
        listed = Path(f"/proc/{number}/task/{number}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(each) for each in listed.split()]


def _held(number: int) -> tuple[int, int]:
    """Return the resident bytes and open files of a process; none of one that has ended."""
    folder = Path(f"/proc/{number}")
    try:
        lines = (folder / "status").read_text(encoding="ascii", errors="replace").splitlines()
        handles = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        return 0, 0
    resident = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return _KILOBYTES * sum(resident), handles


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", type=int, default=24)
    parser.add_argument("--defenses", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soaked = soak(matrix(given.attacks, given.defenses, given.seeds), Path(folder))
    print(json.dumps({**asdict(soaked), "flat": soaked.is_flat}, indent=1))
    return 0 if soaked.is_flat and soaked.exit_code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
