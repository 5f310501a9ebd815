"""Can a submitted table be what its record says? What can be told without the decisions it was made from.

A rate that is wrong in a way that looks right is told by its decisions alone: `bench submit` makes the rows from them
again, and so does whoever has them (`bench.leaderboard.from_decisions`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from bench.errors import DataError
from bench.printable import printable

FIELDS = frozenset(
    {
        *(
            "run",
            "by",
            "checks",
            "command",
            "benchmark_version",
            "requested",
            "spec",
            "fingerprint",
            "lpips_trunk",
        ),
        *("environment", "methods", "licences", "folder_sha256", "leaderboard_sha256"),
        *("decisions", "decisions_url"),
        *("against", "unreliable", "footnote", "given_targets"),
    }
)
"""What a record holds."""

LONGEST_TEXT = 1000
"""Characters of what is said of an entry."""

ADDRESS = "https address without a user's name in it, of printable ASCII"

EVALUATED = "evaluation"
"""The only split whose runs are submitted."""

_FILE = re.compile(r"[A-Za-z0-9.=+_-]{1,247}\.parquet")
"""A file of decisions, as `bench.run.folder.decisions_file` names it."""

_LARGEST = 4_000_000
"""Bytes of a record; the largest written so far has 30,000."""

RATES = (
    "asr",
    "asr_worst",
    "worst_attack_asr",
    "normal_accuracy",
    "baseline_error",
    "defended_baseline_error",
)
"""Columns of shares, some with ends of an interval beside them."""

_ESTIMATES = (*RATES, "recovery")
"""Columns with ends of an interval beside them; a defence can do harm, so that recovery may be any number."""

_SLACK = 2e-6
"""By how much a rate may lie outside its interval: both are written with six digits."""


def read_record(path: Path) -> dict[str, Any]:
    """Return a submission's record.

    Raises:
        DataError: it is none, too large, nested too deep, or holds what no record does.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        record = json.loads(path.read_bytes())
        _ = record["leaderboard_sha256"], record["checks"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"'{path}' is no record of `bench submit`. Submit the run again.") from None
    if strange := sorted(printable(name, 60) for name in record.keys() - FIELDS):
        raise DataError(
            f"'{path}' has fields that `bench submit` does not write: {', '.join(strange[:5])}. Submit the run again."
        )
    _check_decisions(path, record)
    for name in ("against", "unreliable", "footnote"):
        said = record.get(name, "")
        if not isinstance(said, str) or len(said) > LONGEST_TEXT or said != printable(said, LONGEST_TEXT):
            raise DataError(
                f"'{path}' has a {name} that is no text of one line and {LONGEST_TEXT} characters at most. Write it "
                "anew."
            )
    return dict(record)


def _check_decisions(path: Path, record: Mapping[str, Any]) -> None:
    """Refuse digests that are none, and an address that nothing can be had from; old records have neither."""
    named, url = record.get("decisions", {}), record.get("decisions_url", "")
    digests = named.items() if isinstance(named, dict) else [("decisions", named)]
    wrong = [
        name
        for name, digest in digests
        if not _FILE.fullmatch(name) or not re.fullmatch(r"[0-9a-f]{64}", str(digest))
    ]
    if wrong:
        raise DataError(
            f"'{path}' names decisions by no SHA-256: {printable(wrong[0], 200)}. Take the record that was submitted, "
            "or submit the run again."
        )
    if url and not (isinstance(url, str) and is_address(url)):
        raise DataError(
            f"'{path}' says that decisions are at {printable(str(url), 200)}, which is no {ADDRESS}."
        )


def is_address(url: str) -> bool:
    """Return whether a text is an address that may be published, as `ADDRESS` says."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.username is None and parts.password is None
    except ValueError:
        return False
    return parts.scheme == "https" and named and len(url) <= 2000 and not re.search(r"[^!-~]", url)


def check_rows(path: Path, record: Mapping[str, Any], leaderboard: pd.DataFrame) -> None:
    """Refuse a table that is not of the run its file and record are named after, or whose numbers cannot be.

    Args:
        path: the record's file; its name is the run's digest.
        record: what it holds.
        leaderboard: the table beside it.

    Raises:
        DataError: says what is wrong with which row.
    """
    spec = record.get("spec")
    splits = {
        *leaderboard["split"],
        str(spec.get("split", EVALUATED)) if isinstance(spec, dict) else EVALUATED,
    }
    if splits - {"", EVALUATED}:
        raise DataError(
            f"'{path}' is a submission of a run on the development split, whose rates are for making choices. Make the "
            "run on split evaluation and submit that."
        )
    named = {path.stem, str(record.get("run", path.stem)), *map(str, leaderboard["run"].unique())}
    if named != {path.stem}:
        raise DataError(
            f"'{path}' is a submission of run {path.stem} by its name, and its record or table is of "
            f"{', '.join(sorted(map(printable, named - {path.stem})))}. Put the files back under their own names."
        )
    for what in _impossible(leaderboard):
        raise DataError(
            f"'{path.with_suffix('.csv')}' cannot be a run's table: {what}. Submit the run again."
        )


def _impossible(leaderboard: pd.DataFrame) -> Iterator[str]:
    for name in _ESTIMATES:
        columns = [c for c in (name, f"{name}_low", f"{name}_high", f"{name}_pooled") if c in leaderboard]
        numbers = leaderboard[columns].apply(pd.to_numeric, errors="coerce")
        outside = ((numbers < 0) | (numbers > 1)).any(axis=1) & (name in RATES)
        yield from (f"{name} of {_row(leaderboard, i)} is no share" for i in leaderboard.index[outside])
        if f"{name}_low" in columns:
            low, value, high = (numbers[f"{name}{end}"] for end in ("_low", "", "_high"))
            apart = (value < low - _SLACK) | (value > high + _SLACK)
            yield from (
                f"{name} of {_row(leaderboard, i)} is {value[i]}, outside its own interval, {low[i]} to {high[i]}"
                for i in leaderboard.index[apart]
            )
    failed = leaderboard["status"].ne("ok") & pd.to_numeric(leaderboard["asr"], errors="coerce").notna()
    yield from (f"{_row(leaderboard, i)} failed and has an ASR" for i in leaderboard.index[failed])


def _row(leaderboard: pd.DataFrame, index: Any) -> str:
    parts = ("attack", "defense", "backbone", "head")
    return printable(" × ".join(str(leaderboard.loc[index, part]) for part in parts), 200)
