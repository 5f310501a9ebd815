"""Bad input: exit code 2 before any work, one sentence that names the value and the fix, no traceback."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

BASE = ("run", "--dataset", "tiny", "--backbone", "tiny-a", "--threads", "1")


@pytest.fixture
def refused(cli, tmp_path, monkeypatch):
    """Return a function that runs a command line, checks how it is refused, and gives the sentence."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOAKBENCH_STORE", str(tmp_path / "store"))

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = cli(*arguments)
        assert (code, out) == (2, ""), err
        assert err.startswith("Error: "), err
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before
        return err

    return run


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--attack", "fawks"), ("unknown attack 'fawks'", "Did you mean 'fawkes'?", "bench list attacks")),
        (
            ("--attack", "zzz"),
            (
                "unknown attack 'zzz'",
                "Valid: adaptive, apf, chameleon, erasablemask, fawkes, foggysight, lowkey, none, opom, pgd",
            ),
        ),
        (("--defense", "jpg"), ("unknown defense 'jpg'", "'jpeg'")),
        (("--backbone", "tiny-z"), ("unknown backbone 'tiny-z'", "Valid:", "tiny-a")),
        (("--protocol", "trackr"), ("unknown protocol 'trackr'", "'tracker'")),
        (
            ("--head", "nearest"),
            ("unknown head of protocol tracker 'nearest'", "Valid: centroid, finetune, linear, nn"),
        ),
        (("--attack", "pgd:epsilon=8"), ("unknown parameter of pgd 'epsilon'", "'eps'", "bench list pgd")),
        (
            ("--attack", "pgd:eps=300"),
            ("'eps' of 'pgd' cannot be '300'", "> 0 … 255, grey levels", "default 8"),
        ),
        (("--attack", "pgd:eps=much"), ("'eps' of 'pgd' cannot be 'much'", "float")),
        (("--attack", "pgd:steps=2.5"), ("'steps' of 'pgd' cannot be '2.5'", "int, 1 … 10000")),
        (("--attack", "pgd:eps=1,eps=2"), ("parameter 'eps' is given twice",)),
        (("--attack", "pgd:8"), ("'8' in 'pgd:8'", "parameter=value")),
        (("--attack", ":eps=8"), ("':eps=8' names no method",)),
        (("--defense", "jpeg:quality=0"), ("'quality' of 'jpeg' cannot be '0'", "1 …")),
        (("--protocol", "tracker:folds=0"), ("'folds' of 'tracker' cannot be '0'", "1 … 32767")),
        (("--protocol", "tracker:probes=dirty"), ("cannot be 'dirty'", "clean", "cloaked", "purified")),
        (("--identities", "7"), ("--identities 7 is more than the 6 evaluated identities", "2 … 6")),
        (("--identities", "1"), ("identities cannot be 1",)),
        (("--device", "gpu"), ("unknown device 'gpu'", "auto, cpu, cuda")),
        (("--attack", "pgd:surrogates=tiny-q"), ("unknown backbone 'tiny-q'", "tiny-a")),
        (
            ("--attack", "tiny-noise", "--protocol", "tracker:min_probes=6"),
            ("too few photos", "lower min_probes"),
        ),
        (("--dataset", "synthetik"), ("unknown dataset 'synthetik'", "Did you mean 'synthetic'?")),
        (("--dataset", "tiny:identities=1"), ("'identities' of 'tiny' cannot be '1'",)),
        (("--dataset", "lfw"), ("lfw-deepfunneled.tar is missing", "bench fetch lfw")),
        (("--backbone", "mobileface-v2"), ("not in the data folder",)),
        (("--backbone", "missing.onnx"), ("missing.onnx",)),
        (("--lpips-trunk", "missing.pth"), ("missing.pth",)),
        (("--config", "missing.toml"), ("the suite file 'missing.toml' does not exist",)),
        (("--attack", "mine.py:Mine"), ("'mine.py' is not a file", "./mine.py:MyClass")),
    ],
)
def test_what_is_asked_for_is_not_there(refused, arguments, parts):
    message = refused(*BASE, *arguments)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("atacks = ['pgd']", ("unknown key in suite.toml 'atacks'", "Did you mean 'attacks'?")),
        ("attacks = [", ("'suite.toml' is not valid TOML",)),
        ("attacks = []", ("attacks cannot be []", "at least one")),
        ("seeds = ['one']", ("seeds.0 cannot be 'one'", "integer")),
        ("attacks = 'pgd'", ("attacks cannot be 'pgd'",)),
        ("identities = 1000", ("--identities 1000 is more than",)),
    ],
)
def test_a_suite_file_that_cannot_be_right(refused, tmp_path, text, parts):
    (tmp_path / "suite.toml").write_text(text)
    message = refused(*BASE, "--config", "suite.toml")
    for part in parts:
        assert part in message


def test_a_suite_that_is_no_text_file(refused, tmp_path):
    (tmp_path / "suite.toml").write_bytes(b"\xff\xfe\x00")
    assert "'suite.toml' is not valid TOML" in refused(*BASE, "--config", "suite.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "'folder.toml' cannot be read" in refused(*BASE, "--config", "folder.toml")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("class Mine(:", ("mine.py cannot be imported", "SyntaxError")),
        ("1 / 0", ("mine.py cannot be imported", "ZeroDivisionError")),
        ("class Other: pass", ("unknown class in mine.py 'Mine'", "Valid: Other")),
        ("class Mine: pass", ("'mine.py:Mine' is not one of the attacks", "bench.contracts.Attack")),
        (
            "from bench.contracts import Attack\nclass Mine(Attack):\n    name = 'mine'",
            ("lacks cloak, threat",),
        ),
    ],
)
def test_a_plugin_by_path_that_is_none(refused, tmp_path, source, parts):
    (tmp_path / "mine.py").write_text(source)
    message = refused(*BASE, "--attack", "mine.py:Mine")
    for part in parts:
        assert part in message


# --- folders of photos ------------------------------------------------------------------------------------


def picture(seed):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((112, 112), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for identity in range(3):
        (root / f"p{identity}").mkdir(parents=True)
        for number in range(4):
            picture(10 * identity + number).save(root / f"p{identity}/{number}.jpg")
    return root


def of_folder(root, *options):
    return (
        "run",
        "--dataset",
        ",".join([f"folder:path={root}", *options]),
        "--backbone",
        "tiny-a",
        "--threads",
        "1",
    )


def test_the_folder_is_good_when_nothing_is_spoilt(cli, photos, tmp_path):
    where = ("--store", tmp_path / "store", "--out", tmp_path / "run")
    code, out, err = cli(*of_folder(photos, "aligned=true"), *where, "--quiet")
    assert (code, out, err) == (0, "", "")


def test_an_empty_or_missing_folder(refused, tmp_path):
    assert f"{tmp_path / 'nowhere'} is not a folder" in refused(*of_folder(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'} is empty" in refused(*of_folder(tmp_path / "empty"))


def test_an_identity_with_one_photo(refused, photos):
    for number in range(1, 4):
        (photos / f"p1/{number}.jpg").unlink()
    message = refused(*of_folder(photos, "aligned=true"))
    assert f"{photos / 'p1'} has 1 photo" in message
    assert "skip_small=true" in message


def test_a_truncated_photo(refused, photos):
    file = photos / "p2/3.jpg"
    file.write_bytes(file.read_bytes()[:-600])
    assert str(file) in refused(*of_folder(photos, "aligned=true"))


def test_a_file_that_is_no_photo(refused, photos):
    (photos / "p2/3.jpg").write_text("not a photo")
    assert str(photos / "p2/3.jpg") in refused(*of_folder(photos, "aligned=true"))
    (photos / "p2/3.jpg").unlink()
    (photos / "p2/notes.txt").write_text("mine")
    message = refused(*of_folder(photos, "aligned=true"))
    assert f"{photos / 'p2/notes.txt'} is not a photo" in message
    assert "Remove or convert it" in message


@pytest.mark.skipif(
    importlib.util.find_spec("facenet_pytorch") is None,
    reason="needs the detector: pip install 'cloakbench[detector]'",
)
def test_photos_without_a_face(cli, photos, tmp_path):
    where = ("--store", tmp_path / "store", "--out", tmp_path / "run")
    code, out, err = cli(*of_folder(photos), *where, "--quiet")
    assert (code, out) == (2, "")
    assert f"{photos / 'p0'}" in err
    assert "shows no face" in err
    assert "on_bad=skip" in err
    assert "Traceback" not in err


def test_a_refusal_through_a_real_process(command, tmp_path):
    process = command(*BASE, "--attack", "fawks", "--store", tmp_path / "store", "--out", tmp_path / "run")
    assert (process.returncode, process.stdout) == (2, "")
    (line,) = process.stderr.splitlines()
    assert line.startswith("Error: unknown attack 'fawks'. Did you mean 'fawkes'?")
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_is_missing_is_told_before_the_weights_made_for_it(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    for command in ("run", "plan"):
        code, out, err = cli(command, "--dataset", "lfw", "--attack", "pgd", "--store", tmp_path / "store")
        assert (code, out) == (2, "")
        assert "LFW's archive" in err
        assert "`bench fetch lfw` gets it" in err


def test_another_runs_folder_is_refused_before_anything_is_shown(cli, tmp_path):
    base = (
        "run",
        "--dataset",
        "tiny",
        "--backbone",
        "tiny-a",
        "--threads",
        "1",
        "--store",
        tmp_path / "store",
    )
    assert cli(*base, "--attack", "none", "--out", tmp_path / "run", "-q") == (0, "", "")
    code, out, err = cli(*base, "--attack", "tiny-noise", "--out", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "which would be written over it. Choose another folder with --out" in err
