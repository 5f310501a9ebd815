"""`bench new`: writes a package and says what to do with it."""

import json

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_the_package_and_says_how_to_go_on(cli, here):
    code, out, err = cli("new", "attack", "my_cloak")
    assert (code, err) == (0, "")
    assert (here / "my_cloak/src/my_cloak/__init__.py").is_file()
    steps = [line.strip() for line in out.splitlines() if line.startswith("    ")]
    assert steps[:4] == ["cd my_cloak", "pip install -e .", "bench check my-cloak", "python -m pytest"]
    assert steps[4] == "bench run --attack my-cloak --defense jpeg --identities 6"


def test_a_plugin_by_path_needs_no_installation(cli, here):
    assert cli("new", "defense", "my_filter", "--quiet") == (0, "", "")
    code, out, _ = cli("check", here / "my_filter/src/my_filter/__init__.py:MyFilter")
    assert code == 0, out
    assert "All 19 checks passed." in out


BAD = """
from bench.contracts import Attack, ThreatModel


class OutOfRange(Attack):
    name = "out-of-range"
    threat = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        return {name: image + 3 for name, image in zip(faces.ids, faces.images, strict=True)}
"""


def test_a_failed_check_is_exit_code_1(cli, here):
    (here / "bad.py").write_text(BAD)
    code, out, _ = cli("check", here / "bad.py:OutOfRange")
    assert "checks failed." in out
    assert code == 1


def test_as_json(cli, here):
    code, out, err = cli("new", "backbone", "my_net", "--out", here / "elsewhere", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["name"] == "my-net"
    assert all((here / "elsewhere" / file).is_file() for file in document["files"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("attack", "Fawkes!"), "'Fawkes!' cannot name a plugin"),
        (("attack", "pgd"), "an attack called 'pgd' already"),
        (("atack", "mine"), "'atack' is not one of 'attack', 'defense', 'backbone', 'protocol'"),
        (("attack", "taken"), "'taken' exists already and is left as it is"),
    ],
)
def test_refusals_are_one_sentence_and_write_nothing(cli, here, arguments, reason):
    (here / "taken").mkdir()
    code, out, err = cli("new", *arguments)
    assert (code, out) == (2, "")
    assert reason in err
    assert err.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["taken"]
