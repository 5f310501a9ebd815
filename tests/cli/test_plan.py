"""`bench plan`, `--dry-run` and suite files: what a run would do, with nothing done."""

import json
import re

import pytest

SUITE = """\
dataset = "tiny"
attacks = ["tiny-noise", "pgd:steps=2,eps=32"]
defenses = ["jpeg:quality=20"]
backbones = ["tiny-a"]
heads = ["nn", "linear"]
"""


def test_a_plan_on_an_empty_store_counts_all_and_writes_nothing(command, matrix, tmp_path):
    process = command("plan", *matrix, "--store", tmp_path / "store", "--out", tmp_path / "run", "--json")
    assert (process.returncode, process.stderr) == (0, "")
    plan = json.loads(process.stdout)
    assert (plan["cells"], plan["cells_requested"], plan["cells_cached"]) == (12, 4, 0)
    images = dict.fromkeys(("faces", "cloak", "purify", "measure", "diagnose", "embed", "decide"), 0)
    for group in plan["groups"]:
        images[group["stage"]] += group["images"]
    # 24 gallery photos and 12 probes; two attacks; purified are the photos and both attacks' cloaks. Only pgd
    # has surrogates to ask; a purifier is looked at on both attacks' cloaks and on natural photos; all photos are
    # compared once.
    assert images == {
        "faces": 36,
        "cloak": 48,
        "purify": 72,
        "measure": 48 + 72,
        "diagnose": 24 + 72 + 36,
        "embed": 36 + 48 + 72,
        "decide": 12,
    }
    assert plan["bytes"] > (36 + 48 + 72) * 3 * 112 * 112
    assert len(plan["untimed"]) == len(plan["groups"])
    assert plan["seconds"] > 0
    assert all(group["seconds"] > 0 and not group["timed"] for group in plan["groups"])
    process = command("plan", *matrix, "--store", tmp_path / "store", "--out", tmp_path / "run")
    assert "roughly" in process.stdout
    assert "a factor of two or three is usual" in " ".join(process.stdout.split())
    assert not list(tmp_path.iterdir())


def test_a_plan_after_the_run_says_all_is_cached(cli, matrix, finished, stored, tmp_path):
    before = stored(finished.store)
    code, out, err = cli("plan", *matrix, "--store", finished.store, "--json")
    assert (code, err) == (0, "")
    plan = json.loads(out)
    assert (plan["cells"], plan["cells_cached"], plan["groups"], plan["bytes"], plan["seconds"]) == (
        12,
        12,
        [],
        0,
        0,
    )
    code, out, _ = cli("run", *matrix, "--store", finished.store, "--out", tmp_path / "run", "--dry-run")
    assert code == 0
    assert "12 cells (8 of them added as references), 12 cached; about 0 s" in " ".join(out.split())
    assert stored(finished.store) == before
    assert not list(tmp_path.iterdir())


def test_a_plan_with_one_more_defence_names_only_that(cli, matrix, finished, tmp_path):
    options = ("--defense", "gaussian", "--store", finished.store, "--out", tmp_path / "run")
    code, out, _ = cli("plan", *matrix, *options)
    assert code == 0
    assert "12 cached" in " ".join(out.split())
    methods = re.findall(r"│ (?:purify|measure) +│ (.*?) +│", out)
    assert len(methods) == 1 + 3
    assert all("gaussian" in method for method in methods)
    assert re.findall(r"│ decide +│ cells +│ (\d+)", out) == ["6"]


def test_a_suite_file_asks_for_the_same_as_options(cli, matrix, finished, tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    same = ("--store", finished.store, "--threads", "1", "--json")
    name = json.loads((finished.run / "spec.json").read_text())["run"]
    plan = json.loads(cli("plan", "--config", suite, *same)[1])
    assert (plan["run"], plan["cells_cached"], plan["folder"]) == (name, 12, f"runs/{name}")
    overridden = json.loads(cli("plan", "--config", suite, "--head", "nn", *same)[1])
    assert (overridden["cells"], overridden["cells_cached"]) == (6, 6)
    assert overridden["run"] != name


PLUGIN = '''\
"""A plugin by path."""
import pytest

from bench.contracts import Attack, ThreatModel


class Darker(Attack):
    """Darkens."""

    name = "darker"
    threat = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        # {comment}
        return dict(zip(faces.ids, faces.images * {factor}))
'''


@pytest.mark.slow
def test_changed_code_recomputes_and_a_changed_comment_does_not(command, tmp_path):
    plugin = tmp_path / "mine.py"
    options = (
        "--dataset", "tiny", "--backbone", "tiny-a", "--attack", f"{plugin}:Darker", "--threads", "1",
        "--store", tmp_path / "store", "--out", tmp_path / "run",
    )  # fmt: skip

    def stages_to_compute(**source):
        plugin.write_text(PLUGIN.format(**source))
        process = command("plan", *options, "--json")
        assert process.returncode == 0, process.stderr
        return {group["stage"] for group in json.loads(process.stdout)["groups"]}

    plugin.write_text(PLUGIN.format(comment="half", factor="0.5"))
    assert command("run", *options, "--quiet").returncode == 0
    assert stages_to_compute(comment="one half", factor="0.5") == set()
    assert stages_to_compute(comment="half", factor="0.25") == {"cloak", "measure", "embed", "decide"}


def test_names_with_brackets_are_shown_as_they_are(cli, tmp_path):
    """Rich would take [jpeg] for a style."""
    attack = "adaptive:attack=[pgd:eps=9,steps=1],defense=[jpeg & median]"
    code, out, _ = cli(
        "plan", "--dataset", "tiny", "--backbone", "tiny-a", "--attack", attack, "--store", tmp_path
    )
    assert code == 0
    assert "attack=[pgd:eps=9,steps=1]" in "".join(out.replace("│", " ").split())
