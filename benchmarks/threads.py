"""How far do results depend on threads, batch size and precision? One matrix made with each, against one thread.

    python -m benchmarks.threads [--dataset lfw] [--attack …] [--defense …] [--identities N] [--only bfloat16]

Prints a Markdown table: decisions that differ, the largest difference of a score, and of any error rate of a cell.
Every run has a store of its own: threads are part of every key, batch sizes are not, and must not change a byte.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.run.decisions import KEY

SETTINGS = (
    ("1 thread, batches of 64", ("--threads", "1")),
    ("2 threads", ("--threads", "2")),
    ("8 threads", ("--threads", "8")),
    ("1 thread, batches of 7", ("--threads", "1", "--batch-size", "7")),
    ("1 thread, one image at a time", ("--threads", "1", "--batch-size", "1")),
    ("1 thread, embeddings in bfloat16", ("--threads", "1", "--precision", "bfloat16")),
)
"""What is compared with the first."""


@dataclass(frozen=True)
class Difference:
    """How two runs of one matrix differ.

    Attributes:
        decisions: rows that are compared.
        others: those whose answer is another, or whose score is missing in one run only.
        score: largest difference of a score that both runs have.
        asr: largest difference of a cell's ASR, in points; infinite where one run only has none.
    """

    decisions: int
    others: int
    score: float
    asr: float


def compare(one: Path, other: Path) -> Difference:
    """Compare two folders of one run."""
    first, second = (_decisions(run) for run in (one, other))
    key = ["file", *KEY]
    both = first.merge(second, on=key, suffixes=("", "_other"), validate="one_to_one")
    assert len(both) == len(first) == len(second), "the runs decide different things"
    others = (both["predicted"] != both["predicted_other"]) | (both["correct"] != both["correct_other"])
    others |= both["score"].isna() != both["score_other"].isna()
    rates = [pd.read_csv(run / "leaderboard.csv")["asr"] for run in (one, other)]
    asr = math.inf if (rates[0].isna() != rates[1].isna()).any() else 100 * _largest(*rates)
    return Difference(len(both), int(others.sum()), _largest(both["score"], both["score_other"]), asr)


def _largest(one: pd.Series[Any], other: pd.Series[Any]) -> float:
    """Return the largest difference of values that both have; 0 where both have none."""
    return float((one - other).abs().max(skipna=True)) if (one.notna() & other.notna()).any() else 0.0


def _decisions(run: Path) -> pd.DataFrame:
    tables = [
        pd.read_parquet(path).assign(file=path.name) for path in sorted((run / "decisions").glob("*.parquet"))
    ]
    found = pd.concat(tables, ignore_index=True)
    names = {name: found[name].astype(object).fillna("") for name in (*KEY, "predicted") if name != "fold"}
    return found.assign(**names)


def main() -> int:
    """Run the matrix with each setting and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--attack", action="append")
    parser.add_argument("--defense", action="append")
    parser.add_argument("--backbone", action="append")
    parser.add_argument("--identities", type=int, default=12)
    parser.add_argument("--only", default="", help="settings whose name has this, and the first")
    given = parser.parse_args()
    methods = [word for each in given.attack or ["pgd"] for word in ("--attack", each)]
    methods += [word for each in given.defense or ["puface"] for word in ("--defense", each)]
    methods += [word for each in given.backbone or () for word in ("--backbone", each)]
    matrix = ["--dataset", given.dataset, "--identities", str(given.identities), *methods, "--quiet"]
    print(
        "| against 1 thread | decisions | other answers | largest difference of a score | of a cell's ASR |"
    )
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        settings = (SETTINGS[0], *(each for each in SETTINGS[1:] if given.only in each[0]))
        for number, (name, options) in enumerate(settings):
            run, store = Path(folder, f"run{number}"), Path(folder, f"store{number}")
            places = ("--store", str(store), "--out", str(run))
            command = [sys.executable, "-m", "bench", "run", *matrix, *options, *places]
            if code := subprocess.run(command, check=False).returncode:
                return code
            runs.append(run)
            found = compare(runs[0], run)
            answers = f"{found.others} ({100 * found.others / found.decisions:.2f} %)"
            print(
                f"| {name} | {found.decisions} | {answers} | {found.score:.1e} | {found.asr:.1f} points |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
