"""`bench leaderboard` on a finished run."""

import json

import pytest

from bench.leaderboard.columns import COLUMNS


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
    assert dict(line.split(maxsplit=1) for line in out.splitlines()) == dict(COLUMNS)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_is_no_run(cli, tmp_path, made):
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    code, out, err = cli("leaderboard", folder, "--csv", tmp_path / "table.csv")
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: '{folder}' is not a finished run")
    assert not (tmp_path / "table.csv").exists()


def test_several_forms_at_once(cli, finished, tmp_path):
    files = {form: tmp_path / f"board.{form}" for form in ("csv", "html", "latex", "md")}
    options = [word for form, file in files.items() for word in (f"--{form}", file)]
    code, out, err = cli("leaderboard", finished.run, *options)
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"12 rows written to {file}" for file in files.values()]
    starts = {form: file.read_text(encoding="utf-8")[:15] for form, file in files.items()}
    assert starts["csv"] == "rank_low,rank_h"
    assert starts["html"] == "<!doctype html>"
    assert starts["latex"].startswith("% needs \\usepac")
    assert starts["md"].startswith("| Rank | Attack")


def test_a_run_and_its_table_are_merged(cli, finished):
    code, out, err = cli("leaderboard", finished.run, finished.run / "leaderboard.csv")
    assert (code, out, err) == (0, (finished.run / "leaderboard.csv").read_text(), "")


def test_two_answers_to_one_cell_write_nothing(cli, finished, tmp_path):
    table = tmp_path / "other.csv"
    lines = (finished.run / "leaderboard.csv").read_text().splitlines()
    last = json.loads(cli("leaderboard", finished.run, "--json")[1])[-1]
    # The worst case of the row's defence stands before its own rate and may be the same number.
    changed = lines[-1].replace(
        f",{last['asr']:.6f},{last['asr_low']:.6f}", f",0.123456,{last['asr_low']:.6f}"
    )
    table.write_text(f"{lines[0]}\n{changed}\n")
    code, out, err = cli("leaderboard", finished.run, table, "--keep-both")
    assert (code, out) == (2, "")
    assert f"{finished.run} and {table} are both run {last['run']}" in err
    table.write_text(f"{lines[0]}\n{changed.replace(last['run'], 'another')}\n")
    code, out, err = cli("leaderboard", finished.run, table, "--md", tmp_path / "board.md")
    assert (code, out) == (2, "")
    assert f"{finished.run} and {table} have the same cell with different results" in err
    assert not (tmp_path / "board.md").exists()
    code, out, _ = cli("leaderboard", finished.run, table, "--keep-both", "--json")
    assert (code, len(json.loads(out))) == (0, 13)


def test_it_wants_a_run(cli):
    code, out, err = cli("leaderboard")
    assert (code, out) == (2, "")
    assert "give a finished run's folder" in err
