"""A finished run for other tools: a folder for the Hugging Face hub, a run of MLflow, a run of Weights & Biases.

What lives here: which facts of a run go where. What must not: any rate or number of its own, and anything that is sent
without being asked for: the folder is written here, and MLflow and Weights & Biases go where these are set to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from bench.errors import UsageError
from bench.files import refuse_full, write_atomically
from bench.leaderboard.columns import TEXTS
from bench.leaderboard.table import build
from bench.publish.page import requested_command
from bench.run.folder import RunFacts, RunFolder
from bench.run.privacy import Paths

PROJECT = "cloakbench"
"""What MLflow calls the experiment, and Weights & Biases the project."""

AXES = ("attack", "defense", "backbone", "head", "condition", "seed")
ENDING = ("status", "reason")
METRICS = (
    "asr",
    "asr_low",
    "asr_high",
    "asr_worst",
    "normal_accuracy",
    "baseline_error",
    "cloak_psnr",
    "cloak_lpips",
)


@dataclass(frozen=True)
class Exported:
    """A finished run on its way out.

    Attributes:
        folder: of the run.
    """

    folder: RunFolder

    @cached_property
    def facts(self) -> RunFacts:
        """What was requested."""
        return self.folder.facts()

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """Every column, one row a cell, without the paths of this machine."""
        table = build(self.folder)
        shortened = {name: table[name].map(self._shortened) for name in table if name in TEXTS}
        return table.assign(**shortened, warnings=[self._shortened(str(each)) for each in table["warnings"]])

    @cached_property
    def _paths(self) -> Paths:
        return Paths.of(self.facts)

    @property
    def command(self) -> str:
        """What asks for the run."""
        return self._paths.shortened(requested_command(self.facts.requested))

    @property
    def spec(self) -> dict[str, Any]:
        """The specification, with what else makes rates comparable, without the paths of this machine."""
        facts = self.facts
        said = {
            "task": facts.task,
            "benchmark_version": facts.benchmark_version,
            "fingerprint": facts.fingerprint,
        }
        made: dict[str, Any] = self._shortened(facts.spec.model_dump(mode="json"))
        return made | said

    def _shortened(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._shortened(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._shortened(each) for each in value]
        return self._paths.shortened(value) if isinstance(value, str) else value

    def cells(self) -> Iterator[tuple[str, dict[str, str], dict[str, float]]]:
        """Yield the name of each row, what it is of and how it went, and the numbers it has."""
        for row in self.leaderboard.to_dict("records"):
            axes = {axis: str(row[axis]) for axis in AXES if str(row[axis])}
            ending = {name: str(row[name]) for name in ENDING if str(row[name])}
            numbers = {name: float(row[name]) for name in METRICS if pd.notna(row[name])}
            yield " × ".join(axes.values()), axes | ending, numbers


def to_hf_dataset(run: Exported, out: Path) -> tuple[str, ...]:
    """Write a folder as the Hugging Face hub takes it: a table as Parquet, the specification, and a card.

    Decisions stay: they say of each person who is recognised where.

    Args:
        run: what is exported.
        out: a folder that is empty or not there.

    Returns:
        the files, inside the folder.

    Raises:
        UsageError: the folder holds something.
        StoreError: it cannot be written.
    """
    import io

    refuse_full(out)
    out.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    run.leaderboard.to_parquet(stream, index=False)
    files = {
        "leaderboard.parquet": stream.getvalue(),
        "spec.json": (json.dumps(run.spec, indent=1, ensure_ascii=False) + "\n").encode(),
        "README.md": _card(run).encode(),
    }
    for name, content in files.items():
        write_atomically(out / name, content)
    return tuple(files)


def _card(run: Exported) -> str:
    facts, rows = run.facts, run.leaderboard
    caution = f"\n**{facts.caution}**\n" if facts.caution else ""
    return f"""---
pretty_name: CloakBench run {facts.run}
tags: [face-recognition, privacy, benchmark, cloakbench]
configs:
- config_name: leaderboard
  data_files: leaderboard.parquet
---

# CloakBench run {facts.run}
{caution}
{len(rows)} rows, one a cell: attacks × defences × trackers of task `{facts.task or "(of an earlier version)"}`. Rates
are in [0, 1], means over identities with 95 % intervals; `bench leaderboard --columns` says what each column means.
There is no photo and no name in it, and no decision on any person.

Made by

    {run.command}

with what `spec.json` says.
"""


def to_mlflow(run: Exported) -> str:
    """Log a run of MLflow with one nested run a row, where MLflow is set to log; returns its id.

    Raises:
        UsageError: MLflow is not installed.
    """
    mlflow = _module("mlflow")
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=run.facts.run) as parent:
        mlflow.log_dict(run.spec, "spec.json")
        mlflow.log_text(run.leaderboard.to_csv(index=False), "leaderboard.csv")
        for name, axes, numbers in run.cells():
            with mlflow.start_run(run_name=name, nested=True):
                mlflow.log_params(axes)
                mlflow.log_metrics(numbers)
    return str(parent.info.run_id)


def to_wandb(run: Exported) -> str:
    """Log a run of Weights & Biases with the leaderboard as a table, where it is set to log; returns its id.

    Raises:
        UsageError: it is not installed.
    """
    wandb = _module("wandb")
    shown = run.leaderboard[[*AXES, *METRICS, *ENDING]]
    with wandb.init(project=PROJECT, name=run.facts.run, config=run.spec) as logged:
        logged.log({"leaderboard": wandb.Table(dataframe=shown)})
        logged.summary.update(_summary(run))
        return str(logged.id)


def _summary(run: Exported) -> Mapping[str, float]:
    return {
        f"{name}/{metric}": value for name, _, numbers in run.cells() for metric, value in numbers.items()
    }


def _module(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"--to {name} needs the package {name}, which cannot be imported ({error}): pip install "
            f"'cloakbench[{name}]'."
        ) from error
