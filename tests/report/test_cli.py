"""`bench report`."""

import pytest

from bench.figures import KINDS


def test_it_writes_one_file(command, finished, tmp_path):
    process = command(
        "report", finished.run, "--out", tmp_path / "r.html", "--no-photos", "--store", finished.store
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(f"{tmp_path / 'r.html'} written, 0.")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_other_forms_have_figures_beside_them(cli, finished, tmp_path):
    file = tmp_path / "r.md"
    code, out, err = cli("report", finished.run, "--format", "md", "--out", file, "--no-photos")
    assert (code, err) == (0, "")
    beside = sorted((tmp_path / "r.md_files").iterdir())
    assert beside
    assert f"written with {len(beside)} files beside it" in out
    text = file.read_text(encoding="utf-8")
    assert all(f"r.md_files/{path.name}" in text for path in beside)


@pytest.mark.slow
def test_no_photo_lies_beside_the_file_where_none_is_wanted(cli, finished, tmp_path):
    photos = {name for name, kind in KINDS.items() if kind.shows_photos}
    for option, some in (("--photos", True), ("--no-photos", False)):
        file = tmp_path / option.strip("-") / "r.txt"
        file.parent.mkdir()
        more = () if some else (option,)
        code, _, err = cli(
            "report", finished.run, "--format", "md", "--out", file, "--store", finished.store, *more
        )
        assert (code, err) == (0, "")
        there = {path.stem for path in file.with_name("r.txt_files").iterdir()}
        assert bool(there & photos) == some


@pytest.mark.parametrize(("more", "name"), [((), "report.html"), (("--format", "md"), "report.md")])
def test_the_default_name_has_the_form_s_ending(cli, finished, tmp_path, monkeypatch, more, name):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("report", finished.run, "--no-photos", *more)
    assert (code, err) == (0, "")
    assert (tmp_path / name).is_file()


def test_a_form_that_is_none_is_refused_with_the_valid_ones(cli, finished):
    code, _, err = cli("report", finished.run, "--format", "latex")
    assert code == 2
    assert "'html', 'md'" in err


def test_a_folder_that_is_no_run(cli, tmp_path):
    code, out, err = cli("report", tmp_path, "--out", tmp_path / "r.html")
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: '{tmp_path}' is not a finished run")
    assert not (tmp_path / "r.html").exists()


def test_a_place_that_cannot_be_written_is_said_before_work(cli, finished, tmp_path):
    (tmp_path / "file").write_text("x")
    code, out, err = cli("report", finished.run, "--out", tmp_path / "file" / "r.html")
    assert (code, out) == (2, "")
    assert "--out" in err
