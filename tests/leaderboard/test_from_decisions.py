"""A submission's rates are made again from the decisions its record names, and no others are taken for them."""

import json
import shutil
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.errors import DataError, UsageError
from bench.leaderboard import as_csv, from_decisions
from bench.leaderboard.as_csv import to_csv
from bench.leaderboard.merge import RESULTS, read_as_submitted, read_source, read_submission
from bench.leaderboard.plausible import is_address
from bench.leaderboard.table import build
from bench.publish import submission
from bench.publish.page import origin_of
from bench.publish.submission import examine, publish
from bench.run import decision_files

URL = "https://example.org/decisions.zip"


@pytest.fixture(scope="module")
def run(submittable):
    return submittable


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
    sign(record)


def sign(record, **changes):
    """Write a record's digest of its table anew, as its author can."""
    said = json.loads(record.read_text()) | changes
    said["leaderboard_sha256"] = sha256(record.with_suffix(".csv").read_bytes()).hexdigest()
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
    before = ",none" if column == "asr" else ""  # the worst case may be the same number
    edit(board, f"{before},{text},", f"{before},{other},")
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


# -- archives of strangers -----------------------------------------------------------------------------------


ZEROS = bytes(5_000_000)
OF_ZEROS = {"decisions": {"a.parquet": sha256(ZEROS).hexdigest()}}


def packed(path, *names, content=ZEROS, how=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", how) as whole:
        for name in names:
            whole.writestr(name, content)
    return path


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["a.parquet", "decisions/a.parquet"])
def test_an_archive_of_the_folder_and_of_its_files_is_read(tmp_path, how, name):
    path = packed(tmp_path / "a.zip", "notes.txt", name, how=how)
    assert from_decisions.read_files(path, OF_ZEROS) == {"a.parquet": ZEROS}


@pytest.mark.parametrize("name", ["../a.parquet", "/a.parquet", "other/a.parquet", "decisions/../a.parquet"])
def test_a_file_elsewhere_in_an_archive_is_not_meant(tmp_path, name):
    with pytest.raises(DataError, match=r"lacks a\.parquet"):
        from_decisions.read_files(packed(tmp_path / "a.zip", name), OF_ZEROS)


def test_a_file_that_is_in_an_archive_twice_is_refused(tmp_path):
    path = packed(tmp_path / "a.zip", "a.parquet", "decisions/a.parquet")
    with pytest.raises(DataError, match=r"has a\.parquet twice"):
        from_decisions.read_files(path, OF_ZEROS)


def test_an_archive_that_unfolds_to_much_is_read_no_further(tmp_path, memory):
    path = packed(tmp_path / "a.zip", "a.parquet", content=bytes(80_000_000))
    path.write_bytes(path.read_bytes().replace((80_000_000).to_bytes(4, "little"), (9).to_bytes(4, "little")))
    with (
        memory(20_000_000),
        pytest.raises(DataError, match=r"is no archive of decisions \(Bad CRC"),
    ):
        from_decisions.read_files(path, OF_ZEROS, 5_000_000)
    path = packed(tmp_path / "b.zip", "a.parquet", content=bytes(80_000_000))
    with memory(20_000_000), pytest.raises(DataError, match="holds more than 5,000,000 bytes"):
        from_decisions.read_files(path, OF_ZEROS, 5_000_000)
    assert from_decisions.read_files(packed(path, "a.parquet"), OF_ZEROS, 5_000_000) == {"a.parquet": ZEROS}


@pytest.fixture
def memory():
    """Return a context in which Python may hold only so many bytes more."""

    @contextmanager
    def most(allowed):
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < allowed
        finally:
            tracemalloc.stop()

    return most


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_cannot_be_unfolded_piece_by_piece_is_refused(tmp_path, how):
    path = packed(tmp_path / "a.zip", "a.parquet", how=how)
    with pytest.raises(DataError, match=r"cannot be bounded\. Pack it again, stored or deflated"):
        from_decisions.read_files(path, OF_ZEROS)


def test_a_large_file_or_folder_is_not_opened(tmp_path):
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.truncate(from_decisions.LARGEST + 10_000_001)
    with pytest.raises(DataError, match="holds more than 25,000,000 bytes"):
        from_decisions.read_files(path, OF_ZEROS)
    with pytest.raises(DataError, match="is no archive of decisions"):  # it may be larger elsewhere
        from_decisions.read_files(path, OF_ZEROS, from_decisions.LARGEST_ELSEWHERE)
    path.rename(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="holds more than 25,000,000 bytes"):
        from_decisions.read_files(tmp_path, OF_ZEROS)


def test_a_list_of_very_many_files_is_not_read(tmp_path, memory):
    path = tmp_path / "a.zip"
    entries = 15_000_000
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, entries, 0, 0)
    path.write_bytes(bytes(entries) + end)
    with memory(15_000_000), pytest.raises(DataError, match="its list of entries is larger than"):
        from_decisions.read_files(path, OF_ZEROS)


# -- tables that lack something -----------------------------------------------------------------------------


def lines_of(table):
    header, *rows = table.read_text().splitlines(keepends=True)
    return header, rows


def checked(record, decisions):
    source = read_as_submitted(record)
    files = from_decisions.read_files(decisions, source.record)
    return [
        (found.row, found.column, found.submitted, found.made)
        for found in from_decisions.differences(source.record, source.leaderboard, files)
        if found.column in ("status", "decisions")
    ]


@pytest.mark.parametrize("gone", [0, -1])
def test_a_cell_that_was_deleted_from_the_table_is_named(board, run, gone):
    record = record_of(board)
    table = record.with_suffix(".csv")
    header, rows = lines_of(table)
    cell = " × ".join(map(str, run.cells()[gone].cell))
    rows.pop(gone)
    table.write_text(header + "".join(rows))
    sign(record)
    assert (cell, "status", "", "ok") in checked(record, run.path)
    with pytest.raises(DataError, match=r"is not what its decisions give: .* status is empty, and ok by"):
        read_source(board)


@pytest.mark.parametrize("drop", [True, False])
def test_a_cell_that_is_called_failed_is_named(board, run, drop):
    record = record_of(board)
    table = record.with_suffix(".csv")
    leaderboard = as_csv.read_csv(table)
    last = leaderboard.index[-1]
    blank = [name for name in RESULTS if name.startswith(("asr", "normal_accuracy"))]
    leaderboard.loc[last, blank] = np.nan
    leaderboard.loc[last, "status"] = "failed"
    table.write_text(to_csv(leaderboard))
    named = json.loads(record.read_text())["decisions"]
    cell = run.cells()[-1]
    if drop:
        del named[Path(cell.decisions).name]
    sign(record, decisions=named)
    assert checked(record, run.path) == [(" × ".join(map(str, cell.cell)), "status", "failed", "ok")]


def test_a_file_and_a_row_of_no_cell_of_the_specification_are_named(board, run):
    record = record_of(board)
    said = json.loads(record.read_text())
    name, digest = next(iter(said["decisions"].items()))
    folder = shutil.copytree(run.path / "decisions", board.parent / "more")
    shutil.copy(folder / name, folder / "other.parquet")
    sign(record, decisions={**said["decisions"], "other.parquet": digest})
    assert checked(record, folder) == [("other.parquet", "decisions", "", "a cell")]
    spec = said["spec"] | {"attacks": ["none"]}
    sign(record, spec=spec, decisions=said["decisions"])
    lacking = [" × ".join(map(str, cell.cell)) for cell in run.cells() if cell.attack != "none"]
    assert checked(record, folder) == [(cell, "status", "ok", "") for cell in lacking]


def test_a_specification_of_too_many_cells_is_not_listed(board, run):
    record = record_of(board)
    spec = json.loads(record.read_text())["spec"]
    sign(record, spec=spec | {"seeds": list(range(300_000))})
    with pytest.raises(DataError, match="more than 1,000,000 cells"):
        checked(record, run.path)


def test_decisions_that_unfold_to_too_many_rows_are_not_read(board, run, monkeypatch):
    rows = sum(pq.read_metadata(path).num_rows for path in (run.path / "decisions").iterdir())
    monkeypatch.setattr(decision_files, "MOST_ROWS", rows)
    assert read_source(board)
    monkeypatch.setattr(decision_files, "MOST_ROWS", rows - 1)
    with pytest.raises(
        DataError, match=rf"is too large: all decisions that are read here have {rows - 1:,} rows"
    ):
        read_source(board)


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
    with pytest.raises(
        DataError,
        match=r"names decisions by no SHA-256: .*Take the record that was|says that decisions are at",
    ):
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
    edit(board, f",none,{asr:.6f},", f",none,{asr - 0.01:.6f},")
    code, out, err = cli("submit", record, "--check", run.path / "decisions", "--json")
    assert (code, err) == (1, "")
    said = json.loads(out)
    assert said["state"] == "differs"
    (found,) = (one for one in said["differences"] if one["column"] == "asr")
    assert (found["submitted"], found["made"]) == (f"{asr - 0.01:.6f}", f"{asr:.6f}")


def test_the_check_tells_every_value_where_the_decisions_lie_beside_the_record_too(cli, run, board):
    record, asr = record_of(board), build(run)["asr"].iloc[-1]
    edit(board, f",none,{asr:.6f},", f",none,{asr - 0.01:.6f},")
    code, out, err = cli("submit", record, "--check", next(board.glob("*.zip")), "--json")
    assert (code, err) == (1, "")
    assert "asr" in {one["column"] for one in json.loads(out)["differences"]}


@pytest.mark.parametrize(
    "option", [("--by", "me"), ("--to", "results/leaderboard"), ("--dry-run",), ("--with-decisions",)]
)
def test_the_check_refuses_options_that_make_a_submission(cli, run, board, option):
    code, _, err = cli("submit", record_of(board), "--check", run.path, *option)
    assert code == 2
    assert f"--check reads a submission and writes nothing; leave {option[0]} out" in err


def test_a_record_without_its_table_is_named(cli, run, board):
    record = record_of(board)
    record.with_suffix(".csv").unlink()
    code, out, err = cli("submit", record, "--check", run.path)
    assert (code, out) == (2, "")
    assert err.startswith("Error: cannot read")
    assert "put the table beside its record" in err


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
