"""Commands whose findings are their output leave with a code that says whether there were any."""

BAD = """
from bench.contracts import Attack, ThreatModel


class OutOfRange(Attack):
    name = "out-of-range"
    threat = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        return {name: image + 3 for name, image in zip(faces.ids, faces.images, strict=True)}
"""


def test_a_failed_check_is_exit_code_1(cli, tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    code, out, _ = cli("check", tmp_path / "bad.py:OutOfRange")
    assert "checks failed." in out
    assert code == 1


def test_help_is_exit_code_0(cli):
    assert cli("--help")[0] == 0
