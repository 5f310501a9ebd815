"""What a leaderboard is of: the run's folder, what was requested, with which versions, and what must be read with it.

What lives here: facts of the whole run, as plain values. What must not: anything of a single row; that is a column.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.analysis.warnings import by_warning
from bench.leaderboard.summary import without_effect
from bench.leaderboard.worst_case import sentences
from bench.run.folder import RunFolder

ABOUT: Mapping[str, str] = {
    "run": "digest of the specification",
    "folder": "the run's folder",
    "command": "the command that made it; empty from Python",
    "benchmark_version": "version of the protocol's definitions; runs of two are never merged",
    "cells": "number of cells",
    "failed": "number of cells that failed",
    "notes": "what must be known of dataset and measures, a sentence each",
    "no_effect": "attacks that undefended do no more than no cloak, a sentence a kind",
    "worst_case": "which defences' worst cases may be higher still, a sentence a reason",
    "warnings": "each warning with `code`, `sentence` and `rows`, the rows that carry it (attack x defence x backbone)",
    "spec": "what was requested, in canonical form, by the names of a suite file",
    "options": "how it was computed: `device`, `threads`, `batch_size`, `precision`; none changes what is requested",
    "versions": "of Python and of packages",
}
"""Fact → what it is; the keys of `about`."""


def about(folder: RunFolder, leaderboard: pd.DataFrame) -> dict[str, Any]:
    """Return the facts of `ABOUT` of a finished run, as values that JSON has.

    Args:
        folder: of the run.
        leaderboard: its own, as `bench.leaderboard.table.build` makes it.

    Raises:
        DataError: a file of the run is missing or damaged.
    """
    facts, machine, cells = folder.facts(), folder.machine(), folder.cells()
    return {
        "run": facts.run,
        "folder": str(folder.path),
        "command": facts.command,
        "benchmark_version": facts.benchmark_version,
        "cells": len(cells),
        "failed": sum(cell.status != "ok" for cell in cells),
        "notes": notes(leaderboard),
        "no_effect": without_effect(leaderboard),
        "worst_case": sentences(leaderboard),
        "warnings": [
            {"code": warning.code, "sentence": warning.sentence, "rows": rows}
            for warning, rows in by_warning(leaderboard).items()
        ],
        "spec": facts.spec.model_dump(mode="json"),
        "options": {name: getattr(facts, name) for name in ("device", "threads", "batch_size", "precision")},
        "versions": {"python": machine["python"], **machine["packages"]},
    }


def notes(leaderboard: pd.DataFrame) -> list[str]:
    """Return what must be known of a leaderboard's dataset and measures, each once."""
    found = {
        "": leaderboard["dataset_note"],
        "LPIPS is NA: ": leaderboard["lpips_reason"],
    }
    return [
        f"{prefix}{text}" for prefix, texts in found.items() for text in dict.fromkeys(texts.dropna()) if text
    ]
