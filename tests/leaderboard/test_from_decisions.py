"""A submission's rates are made again from the decisions its record names, and no others are taken for them."""

import json
import shutil
import zipfile
from hashlib import sha256

import pytest

from bench.errors import DataError, UsageError
from bench.leaderboard import from_decisions
from bench.leaderboard.as_csv import to_csv
from bench.leaderboard.merge import read_source, read_submission
from bench.leaderboard.plausible import is_address
from bench.leaderboard.table import build
from bench.publish import submission
from bench.publish.page import origin_of
from bench.publish.submission import LEAST_IDENTITIES, examine, publish
from bench.run import decision_files
from bench.run.folder import RunFolder

URL = "https://example.org/decisions.zip"


@pytest.fixture(scope="module")
def run(evaluate, tmp_path_factory):
    made = evaluate(
        dataset=f"tiny:identities={LEAST_IDENTITIES}",
        attacks=("tiny-noise",),
        defenses=("jpeg:quality=20",),
        heads=("nn",),
    ).folder
    folder = RunFolder(shutil.copytree(made.path, tmp_path_factory.mktemp("submitted") / "run"))
    folder.write_bytes("leaderboard.csv", to_csv(build(folder)).encode())
    folder.write_manifest()
    return folder


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    """The run submitted with its decisions."""
    board = tmp_path_factory.mktemp("board")
    found = examine(run, decisions_url=URL, with_decisions=True)
    assert publish(found, board) == "written"
    assert publish(found, board) == "there"
    return board


@pytest.fixture
def board(published, tmp_path):
    return shutil.copytree(published, tmp_path / "board")


def record_of(board):
    return next(board.glob("*.json"))


def edit(board, old, new):
    """Change a value of the table as its author can: the record's digest fits again."""
    record = record_of(board)
    table = record.with_suffix(".csv")
    lines = table.read_text().splitlines(keepends=True)
    assert old in lines[-1]
    lines[-1] = lines[-1].replace(old, new, 1)
    table.write_text("".join(lines))
    said = json.loads(record.read_text())
    said["leaderboard_sha256"] = sha256(table.read_bytes()).hexdigest()
    record.write_text(json.dumps(said))


def test_the_record_names_every_file_of_decisions_and_the_archive_holds_them(run, published):
    record = record_of(published)
    said = json.loads(record.read_text())
    files = {path.name: path.read_bytes() for path in (run.path / "decisions").iterdir()}
    assert said["decisions"] == {name: sha256(data).hexdigest() for name, data in files.items()}
    assert said["decisions_url"] == URL
    with zipfile.ZipFile(record.with_suffix(from_decisions.ENDING)) as whole:
        assert {name: whole.read(name) for name in whole.namelist()} == files
    (source,) = read_source(published)
    assert source.checked
    assert origin_of(source).standing.startswith("Checked")


@pytest.mark.parametrize("place", ["run", "decisions", "archive"])
def test_the_rates_are_what_the_decisions_give(run, published, place):
    where = {
        "run": run.path,
        "decisions": run.path / "decisions",
        "archive": next(published.glob("*.zip")),
    }
    source = read_submission(record_of(published))
    files = from_decisions.read_files(where[place], source.record)
    assert from_decisions.differences(source.record, source.leaderboard, files) == []


@pytest.mark.parametrize("column", ["asr", "normal_accuracy", "defended_baseline_error", "n_probes"])
def test_a_value_that_looks_right_and_is_not_is_refused(run, board, column):
    value = build(run)[column].iloc[-1]
    text, other = (f"{value:.6f}", f"{value - 0.001:.6f}") if column != "n_probes" else (str(value), "39")
    edit(board, f",{text},", f",{other},")
    with pytest.raises(
        DataError, match=r"is not what its decisions give: \d+ values are others, e.g. tiny-noise"
    ):
        read_source(board)
    next(board.glob("*.zip")).unlink()  # nothing is left that tells
    (source,) = read_source(board)
    assert not source.checked
    standing = origin_of(source).standing
    assert standing == (
        "Unchecked: the rows are their submitter's alone. The record names 4 files of decisions by digest, "
        f"to be had at {URL}."
    )


def test_a_submission_of_a_version_that_named_no_decisions_is_read_and_marked(board, run):
    record = record_of(board)
    said = json.loads(record.read_text())
    del said["decisions"], said["decisions_url"]
    record.write_text(json.dumps(said))
    with pytest.raises(DataError, match="names no decisions"):
        read_source(board)
    next(board.glob("*.zip")).unlink()
    (source,) = read_source(board)
    assert "Unchecked" in origin_of(source).standing
    assert "named no decisions" in origin_of(source).standing


def test_other_decisions_than_those_named_are_refused(board, run, tmp_path):
    source = read_submission(record_of(board))
    folder = shutil.copytree(run.path / "decisions", tmp_path / "decisions")
    first, second, *_ = sorted(folder.iterdir())
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match="is not what was submitted"):
        from_decisions.read_files(folder, source.record)
    first.unlink()
    with pytest.raises(DataError, match="lacks"):
        from_decisions.read_files(folder, source.record)
    archive = next(board.glob("*.zip"))
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match="is no archive of decisions"):
        read_source(board)


def test_decisions_that_a_record_names_under_another_cells_name_are_refused(board, run):
    source = read_submission(record_of(board))
    files = from_decisions.read_files(run.path, source.record)
    one, other = sorted(files)[:2]
    swapped = files | {one: files[other], other: files[one]}
    with pytest.raises(DataError, match="changed places"):
        from_decisions.differences(source.record, source.leaderboard, swapped)
    without = {name: data for name, data in files.items() if name != one}
    with pytest.raises(DataError, match="names no decisions of"):
        from_decisions.differences(source.record, source.leaderboard, without)


def test_an_archive_that_unfolds_to_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(from_decisions, "LARGEST", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr("a.parquet", b"\0" * 100_000)
    with pytest.raises(DataError, match="holds more than 1,000 bytes"):
        from_decisions.read_files(tmp_path / "a.zip", {"decisions": {"a.parquet": "0" * 64}})


def test_an_archive_without_its_record_is_named(board):
    record = record_of(board)
    shutil.copy(next(board.glob("*.zip")), board / f"other{from_decisions.ENDING}")
    with pytest.raises(DataError, match=r"other\.decisions\.zip has no other\.json"):
        read_source(board)
    assert record.exists()


def test_decisions_of_real_people_lie_beside_no_record(run, monkeypatch):
    whole = submission.resolve

    def resolve(requested):
        found = whole(requested)
        found.dataset.domain = "real"
        return found

    monkeypatch.setattr(submission, "resolve", resolve)
    with pytest.raises(UsageError, match="Those of real people are personal data"):
        submission._Examined(run, "").archive()


def test_a_run_whose_decisions_are_large_is_told_to_put_them_elsewhere(run, monkeypatch):
    monkeypatch.setattr(from_decisions, "LARGEST", 1000)
    with pytest.raises(DataError, match="say where with --decisions"):
        from_decisions.archive(run, run.cells())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.zip",
        "https://",
        "https://me:secret@example.org/a.zip",
        "https://example.org/a b.zip",
        "https://example.org/\u202ea.zip",
        "https://[::1/a.zip",
        "file:///home/me/a.zip",
        "https://example.org/" + "a" * 2000,
    ],
)
def test_what_is_no_address_is_refused(run, url):
    assert not is_address(url)
    with pytest.raises(UsageError, match="is no https address"):
        examine(run, decisions_url=url)


def test_an_address_may_be_published():
    assert is_address(URL)


@pytest.mark.parametrize(
    "change",
    [
        {"decisions": {"../a.parquet": "0" * 64}},
        {"decisions": {"a.parquet": "0"}},
        {"decisions": ["a.parquet"]},
        {"decisions_url": "http://example.org"},
        {"decisions_url": ["https://example.org"]},
    ],
)
def test_a_record_whose_decisions_are_none_is_refused(board, change):
    record = record_of(board)
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    with pytest.raises(DataError, match=r"names decisions by no SHA-256|says that decisions are at"):
        read_source(board)


def test_the_command_checks_a_submission(cli, run, board):
    record = record_of(board)
    code, out, err = cli("submit", record, "--check", run.path)
    assert (code, err) == (0, "")
    assert out == (
        f"4 rows of run {record.stem}, 4 files of decisions: every rate is what its decisions give.\n"
    )
    next(board.glob("*.zip")).unlink()
    asr = build(run)["asr"].iloc[-1]
    edit(board, f",{asr:.6f},", f",{asr - 0.01:.6f},")
    code, out, err = cli("submit", record, "--check", run.path / "decisions", "--json")
    assert (code, err) == (1, "")
    said = json.loads(out)
    assert said["state"] == "differs"
    (found,) = (one for one in said["differences"] if one["column"] == "asr")
    assert (found["submitted"], found["made"]) == (f"{asr - 0.01:.6f}", f"{asr:.6f}")
    code, _, err = cli("submit", record, "--check", run.path, "--by", "me")
    assert code == 2
    assert "--check reads a submission" in err


def test_names_inside_files_are_those_of_the_record(run, board):
    """A file of a run with another split is another cell's, however its rows look."""
    source = read_submission(record_of(board))
    files = from_decisions.read_files(run.path, source.record)
    cell = run.cells()[0]
    spec = run.facts().spec.model_copy(update={"split_seed": 5})
    name = next(file for file in files if cell.decisions.endswith(file))
    other = decision_files.to_bytes(files[name], decision_files.name_of(cell.cell, spec))
    with pytest.raises(DataError, match="faces"):
        from_decisions.differences(source.record, source.leaderboard, files | {name: other})
