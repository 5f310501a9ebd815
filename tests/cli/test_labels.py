"""``--name METHOD=LABEL`` on the commands that take it."""


def test_a_leaderboard_is_printed_under_labels_and_its_csv_is_not(cli, finished, tmp_path):
    files = {form: tmp_path / f"table.{form}" for form in ("csv", "md", "html")}
    options = [part for form, path in files.items() for part in (f"--{form}", path)]
    code, _, err = cli("leaderboard", finished.run, "--name", "jpeg:quality=20=JPEG at 20", *options)
    assert code == 0, err
    assert "JPEG at 20" not in files["csv"].read_text()
    for form in ("md", "html"):
        assert "JPEG at 20" in files[form].read_text()
        assert "no cloak" in files[form].read_text()


def test_a_label_of_nothing_is_refused_before_anything_is_drawn(cli, finished, tmp_path):
    code, _, err = cli(
        "plot", finished.run, "heatmap", "--name", "tiny-nois=Noise", "--out", tmp_path / "map.png"
    )
    assert code == 2
    assert "unknown method 'tiny-nois'. Did you mean 'tiny-noise'" in err
    assert not list(tmp_path.iterdir())
