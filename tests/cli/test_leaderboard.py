"""`bench leaderboard` on a finished run."""

import json

import pytest

from bench.leaderboard import COLUMNS


def test_the_csv_is_the_runs_byte_for_byte(command, finished, tmp_path):
    process = command("leaderboard", finished.run, "--csv", tmp_path / "table.csv")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == f"12 rows written to {tmp_path / 'table.csv'}\n"
    assert (tmp_path / "table.csv").read_bytes() == (finished.run / "leaderboard.csv").read_bytes()


def test_without_a_file_it_prints_the_csv(cli, finished):
    assert cli("leaderboard", finished.run) == (0, (finished.run / "leaderboard.csv").read_text(), "")


def test_json_is_a_list_of_rows(cli, finished):
    code, out, err = cli("leaderboard", finished.run, "--json")
    assert (code, err) == (0, "")
    assert [list(row) for row in json.loads(out)] == [list(COLUMNS)] * 12


def test_columns_explains_every_column(cli, finished):
    code, out, _ = cli("leaderboard", finished.run, "--columns")
    assert code == 0
    assert dict(line.split(": ", 1) for line in out.splitlines()) == dict(COLUMNS)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_is_no_run(cli, tmp_path, made):
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    code, out, err = cli("leaderboard", folder, "--csv", tmp_path / "table.csv")
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: '{folder}' is not a finished run")
    assert not (tmp_path / "table.csv").exists()
