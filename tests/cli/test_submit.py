"""`bench submit` on a finished run."""

import json

import pytest

from bench.publish import submission


def test_a_run_that_fails_a_check_is_not_written(cli, finished, tmp_path):
    code, out, err = cli("submit", finished.run, "--to", tmp_path / "board", "-q")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert [line[:4] for line in lines].count("FAIL") == 1
    at = next(i for i, line in enumerate(lines) if line.startswith("FAIL"))
    assert lines[at] == "FAIL  enough identities: 6 identities, fewer than 20"
    assert lines[at + 1].startswith("      fix: make the run with more identities")
    assert lines[-1] == "1 of 12 checks failed; nothing is written."
    assert not (tmp_path / "board").exists()


@pytest.fixture
def enough(monkeypatch):
    monkeypatch.setattr(submission, "LEAST_IDENTITIES", 6)


@pytest.mark.usefixtures("enough")
def test_it_checks_writes_finds_it_there_and_the_page_is_made(cli, finished, tmp_path):
    to = tmp_path / "board"
    code, out, err = cli("submit", finished.run, "--to", to, "--dry-run", "-q")
    assert (code, err) == (0, "")
    assert "Every check passed; nothing is written (--dry-run). It would write" in out
    assert not to.exists()
    states = []
    for _ in range(2):
        code, out, err = cli("submit", finished.run, "--to", to, "--by", "Example Lab", "--json")
        assert (code, err) == (0, "")
        states.append(json.loads(out)["state"])
    assert states == ["written", "there"]
    code, _, err = cli("submit", finished.run, "--to", to, "--by", "Somebody else", "-q")
    assert code == 2
    assert "is there already, with other content" in err
    code, _, err = cli("leaderboard", to, "--html", tmp_path / "site.html")
    assert (code, err) == (0, "")
    text = (tmp_path / "site.html").read_text(encoding="utf-8")
    assert "submitted by Example Lab" in text
    assert "bench run --dataset tiny --attack tiny-noise" in text


def test_a_folder_that_is_no_run(cli, tmp_path):
    code, out, err = cli("submit", tmp_path, "--to", tmp_path / "board")
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: '{tmp_path}' is not a finished run")
