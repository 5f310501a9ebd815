"""What the schemas say is true of every table and record of this repository, and false of what is none."""

import json
from pathlib import Path

import jsonschema
import pytest

from bench.leaderboard.as_csv import read_csv
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.json_schema import row_schema, submission_schema

RESULTS = Path(__file__).parents[2] / "results"
TABLES = sorted(
    path for path in RESULTS.glob("*.csv") if path.read_text(encoding="utf-8").startswith("rank_low")
)
RECORDS = sorted((RESULTS / "leaderboard").glob("*.json"))


@pytest.mark.parametrize("make", [row_schema, submission_schema])
def test_they_are_schemas(make):
    jsonschema.Draft202012Validator.check_schema(make())


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_row_is_one(path):
    check = jsonschema.Draft202012Validator(row_schema())
    rows = json.loads(read_csv(path).to_json(orient="records"))
    assert rows
    for row in rows[:: max(1, len(rows) // 40)]:
        check.validate(row)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_is_one(path):
    schema = submission_schema()
    # Records of version 0.1 name one check otherwise (`bench.leaderboard.merge`).
    schema["properties"]["checks"]["required"].remove("enough identities")
    jsonschema.validate(json.loads(path.read_bytes()), schema)


def test_what_is_none_is_refused():
    row = json.loads(read_csv(TABLES[0]).to_json(orient="records"))[0]
    for change in ({"asr": 1.2}, {"attack": None}, {"external": "no"}, {"weather": 1}, {"seed": 0.5}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**row, **change}, row_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"leaderboard_sha256": "f" * 64}, submission_schema())


def test_the_command_prints_them(cli):
    code, out, err = cli("leaderboard", "--schema", "row")
    assert (code, err) == (0, "")
    assert list(json.loads(out)["properties"]) == list(COLUMNS)
    code, out, _ = cli("leaderboard", "--schema", "submission")
    assert (code, json.loads(out)) == (0, submission_schema())
