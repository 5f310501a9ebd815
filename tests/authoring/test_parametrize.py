"""The contract checks as cases of an author's own tests."""

import subprocess
import sys

AUTHOR = '''
import pytest
from bench.authoring import parametrize_with_checks
from bench.contracts import Attack, ThreatModel


class Darker(Attack):
    """A tenth darker."""

    name = "darker"
    threat = ThreatModel(goal="untargeted", constraint="a tenth darker")

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        return {name: image * 0.9 for name, image in zip(faces.ids, faces.images)}


class Silent(Darker):
    name = "silent"

    def cloak(self, faces, ctx):
        return dict(zip(faces.ids, faces.images))


@parametrize_with_checks([Darker(), pytest.param(Silent(), id="mute")])
def test_contract(plugin, check):
    check()
'''


def pytest_here(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_one_case_a_plugin_and_check(tmp_path):
    (tmp_path / "test_darker.py").write_text(AUTHOR)
    code, out = pytest_here(tmp_path, "-k", "advance or declares")
    assert code == 1
    assert "test_contract[mute-reports each image to advance() once]" in out
    assert "it reported 0 of 5 images" in out
    assert "1 failed, 9 passed" in out


def test_nothing_runs_while_tests_are_collected(tmp_path):
    author = AUTHOR.replace("ctx.advance(len(faces))", 'raise SystemExit("cloaked")')
    (tmp_path / "test_darker.py").write_text(author)
    code, out = pytest_here(tmp_path, "--collect-only")
    assert code == 0, out
    assert "test_contract[darker-same seed, same bytes]" in out
    assert "cloaked" not in out
