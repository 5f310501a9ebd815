"""`bench plot` as a process and in this one."""

import pytest

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def test_three_files_a_caption_and_a_text(command, finished, tmp_path):
    process = command("plot", finished.run, "heatmap", "--width", "column", "--out", tmp_path / "map")
    assert (process.returncode, process.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.pdf", "map.png", "map.svg"]
    for form, start in MAGIC.items():
        assert (tmp_path / f"map.{form}").read_bytes().startswith(start)
    first, caption, text, *_ = process.stdout.splitlines()
    assert first == ", ".join(str(tmp_path / f"map.{form}") for form in ("png", "svg", "pdf")) + " written"
    assert caption.startswith("  Caption: Attack success rate (ASR) in per cent")
    assert text.startswith("  Text: Heat map of 2 attacks by 2 defences.")


def test_an_ending_or_a_format_chooses(cli, finished, tmp_path):
    assert cli("plot", finished.run, "identities", "--out", tmp_path / "one.svg")[0] == 0
    assert cli("plot", finished.run, "identities", "--out", tmp_path / "v1.2", "--format", "pdf,png")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.svg", "v1.2.pdf", "v1.2.png"]


def test_all_draws_what_there_is_and_says_what_is_not(cli, finished, tmp_path):
    code, printed, err = cli(
        "plot", finished.run, "all", "--out", tmp_path / "all", "--format", "svg", "--head", "nn"
    )
    assert (code, err) == (0, "")
    drawn = {path.stem for path in (tmp_path / "all").iterdir()}
    assert drawn == {"heatmap", "slopes", "forest", "critical-difference", "quality", "identities", "cost"}
    assert "backbones: not drawn; the run has one backbone, tiny-a" in printed
    assert "robustness: not drawn; curves over channels need a run of protocol robustness" in printed
    assert "grid: not drawn; it shows photos. Give --store, or draw it by its name." in printed


def test_the_grid_of_a_finished_run(cli, finished, tmp_path):
    code, printed, err = cli(
        "plot", finished.run, "grid", "--attack", "tiny-noise", "--identities", 2, "--store", finished.store,
        "--out", tmp_path / "grid.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "cloaked by tiny-noise, purified by jpeg:quality=20" in printed
    assert (tmp_path / "grid.png").read_bytes().startswith(MAGIC["png"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("heat",), "unknown kind of figure 'heat'. Did you mean 'heatmap'"),
        (
            ("heatmap", "--out", "a.jpg"),
            "cannot be written as 'a.jpg'. Valid: files ending in .png, .svg, .pdf",
        ),
        (("heatmap", "--format", "gif"), "unknown format 'gif'"),
        (("heatmap", "--format", ","), "--format names no format"),
        (
            ("heatmap", "--out", "a.png", "--format", "pdf"),
            "--out a.png is one file, and --format asks for pdf",
        ),
        (("robustness",), "curves over channels need a run of protocol robustness"),
        (("heatmap", "--attack", "fawkes"), "unknown attack of this run 'fawkes'"),
        (("heatmap", "--head", "pair"), "unknown head of this run 'pair'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(cli, finished, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("plot", finished.run, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_refused(cli, tmp_path):
    code, _, err = cli("plot", tmp_path, "heatmap", "--out", tmp_path / "x")
    assert code == 2
    assert "is not a finished run" in err


def test_help_lists_every_kind(cli):
    from bench.figures import KINDS

    code, out, _ = cli("plot", "--help")
    assert code == 0
    for name, kind in KINDS.items():
        assert f"  {name} " in out
        assert kind.summary[:30] in out
    assert "Example: bench plot" in out
