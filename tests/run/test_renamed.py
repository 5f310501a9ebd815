"""Runs and tables of earlier versions, whose fields had other names, stay readable."""

import json
import logging
import shutil

import pytest

from bench.errors import DataError
from bench.integrity import verify
from bench.leaderboard.as_csv import from_csv, to_csv
from bench.leaderboard.table import build
from bench.run.folder import RunFolder
from bench.run.renamed import RENAMED

FORMER = {new: old for old, new in RENAMED.items()}
ADDED = ["ranked_over"]
"""Columns that version 0.1 did not have."""


def former(value):
    """Return what a JSON file holds under the names of version 0.1."""
    if isinstance(value, dict):
        return {FORMER.get(name, name): former(one) for name, one in value.items()}
    return [former(one) for one in value] if isinstance(value, list) else value


def former_csv(leaderboard):
    return to_csv(leaderboard.drop(columns=ADDED).rename(columns=FORMER))


@pytest.fixture(scope="module")
def earlier(evaluate, tmp_path_factory):
    """A finished run as version 0.1 would have left it, and its leaderboard."""
    made = evaluate(attacks=("tiny-noise",), defenses=("tiny-negative",)).folder
    folder = RunFolder(shutil.copytree(made.path, tmp_path_factory.mktemp("earlier") / "run"))
    leaderboard = build(folder)
    for name in ("spec.json", "cells.json"):
        folder.write_json(name, former(json.loads((folder.path / name).read_bytes())))
    folder.write_bytes("leaderboard.csv", former_csv(leaderboard).encode())
    folder.write_manifest()
    return folder.path, leaderboard


def test_a_run_of_an_earlier_version_gives_the_same_rows(earlier):
    path, leaderboard = earlier
    assert '"asked"' in (path / "spec.json").read_text()
    assert '"background_overlap"' in (path / "cells.json").read_text()
    assert to_csv(build(RunFolder(path))) == to_csv(leaderboard)


def test_its_table_is_still_the_one_of_its_decisions(earlier):
    path, _ = earlier
    assert verify.check_leaderboard(RunFolder(path)).state == "same"
    table = path / "leaderboard.csv"
    written = table.read_text()
    try:
        table.write_text(written.replace("tiny-noise", "tiny-other", 1))
        assert verify.check_leaderboard(RunFolder(path)).state == "differs"
    finally:
        table.write_text(written)


def test_a_table_of_an_earlier_version_is_read_under_todays_names(earlier, caplog):
    _, leaderboard = earlier
    with caplog.at_level(logging.INFO, "bench"):
        read = from_csv(former_csv(leaderboard), "old.csv")
    assert to_csv(read) == to_csv(leaderboard)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("old.csv has the names of an earlier version: asked is now requested, ")
    caplog.clear()
    from_csv(to_csv(leaderboard), "new.csv")
    assert not caplog.records


def test_a_column_under_both_names_is_refused(earlier):
    _, leaderboard = earlier
    both = to_csv(leaderboard.assign(asked=True))
    with pytest.raises(DataError, match="a column twice"):
        from_csv(both, "both.csv")
