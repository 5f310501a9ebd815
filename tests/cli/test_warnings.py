"""`bench run` with methods that are broken on purpose: each gives its own warning, sound ones give none."""

import json
import re

import pandas as pd
import pytest

from bench.leaderboard.table import build
from bench.plugins import registry
from bench.run.folder import RunFolder

ENTRY_POINTS = """\
[cloakbench.attacks]
broken-idle = broken_methods:Idle
broken-greedy = broken_methods:Greedy
broken-noise = broken_methods:Noise

[cloakbench.defenses]
broken-constant = broken_methods:Constant
broken-returning = broken_methods:Returning

[cloakbench.backbones]
broken-rounded = broken_methods:Rounded
"""

SOUND, WHITE = "pgd:eps=32,steps=3", "pgd:eps=32,steps=3,surrogates=tiny-a"
MASKED = "pgd:steps=1,surrogates=broken-rounded"


@pytest.fixture(scope="module")
def broken(tiny, tmp_path_factory):
    """Register the broken methods beside the tiny ones."""
    del tiny
    site = tmp_path_factory.mktemp("broken")
    info = site / "cloakbench_broken-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cloakbench-broken\nVersion: 0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        registry.forget()
        yield
    registry.forget()


def codes(warnings):
    return [warning.code for warning in warnings]


@pytest.fixture(scope="module")
def leaderboard(broken, evaluate):
    """Return (attack, defence) → warnings of every row."""
    del broken
    attacks = ("broken-idle", "broken-greedy", "broken-noise", MASKED, SOUND, WHITE)
    runs = [
        evaluate(attacks=attacks, defenses=("broken-returning",)),
        evaluate(attacks=(SOUND,), defenses=("broken-constant", "jpeg:quality=30")),
    ]
    rows = pd.concat([build(prepared.folder) for prepared in runs])
    assert set(rows["status"]) == {"ok"}
    rows = rows.drop_duplicates(["attack", "defense"])
    return rows.set_index(["attack", "defense"])["warnings"]


@pytest.mark.parametrize(
    ("attack", "code", "numbers"),
    [
        ("broken-idle", "unchanged", "24 of 24 photos"),
        ("broken-greedy", "over-budget", "16 of 8 grey levels"),
        ("broken-noise", "like-noise", r"^on tiny-b cloaks move [01]\.\d\d times as far"),
        (MASKED, "gradient-zero", "on broken-rounded the gradient is zero for 24 of 24 cloaks"),
    ],
)
def test_a_broken_attack_gives_exactly_its_warning(leaderboard, attack, code, numbers):
    (warning,) = leaderboard[attack, "none"]
    assert warning.code == code
    assert re.search(numbers, warning.sentence)


def test_a_broken_purifier_gives_exactly_its_warning(leaderboard):
    # Of one image for all follows one score for all.
    assert codes(leaderboard[SOUND, "broken-constant"]) == ["purifier-constant", "same-score"]
    assert codes(leaderboard["none", "broken-constant"]) == ["purifier-constant", "same-score"]
    assert codes(leaderboard[SOUND, "broken-returning"]) == ["purifier-identity"]
    assert "24 of 24 cloaks" in str(leaderboard[SOUND, "broken-returning"])
    assert leaderboard["none", "broken-returning"] == ()


def test_a_row_has_the_warnings_of_its_attack_and_of_its_defence(leaderboard):
    assert codes(leaderboard["broken-greedy", "broken-returning"]) == ["over-budget", "purifier-identity"]


def test_sound_methods_give_none(leaderboard):
    for row in (("none", "none"), (SOUND, "none"), (WHITE, "none"), (SOUND, "jpeg:quality=30")):
        assert leaderboard[row] == ()


def test_the_methods_that_come_with_it_give_none_on_the_embedded_faces(evaluate):
    prepared = evaluate(
        dataset="synthetic:identities=2,photos=3",
        backbones=("synthetic-iresnet",),
        attacks=("pgd:steps=1", "fawkes:mode=low"),
        defenses=("jpeg:quality=10",),
    )
    rows = build(prepared.folder)
    assert set(rows["status"]) == {"ok"}
    assert set(rows["warnings"]) == {()}


def test_the_warnings_are_printed_and_written(broken, cli, tmp_path):
    arguments = (
        "run", "--dataset", "tiny", "--backbone", "tiny-a", "--attack", "broken-idle", "--defense", "jpeg",
        "--threads", "1", "--store", tmp_path / "store", "--out", tmp_path / "run",
    )  # fmt: skip
    code, out, err = cli(*arguments)
    assert code == 0
    assert "broken-idle" in out
    sentence = "unchanged: the attack left 24 of 24 photos as they were"
    warning = f"Warning: {sentence} (2 cells, e.g. broken-idle x none x tiny-a)\n"
    assert warning in err
    assert cli(*arguments, "--quiet") == (0, "", warning)
    code, out, err = cli(*arguments, "--json")
    assert (code, err) == (0, warning)
    of_attack = {row["attack"]: row["warnings"] for row in json.loads(out)["rows"]}
    code, _, found = sentence.partition(": ")
    assert of_attack == {"none": [], "broken-idle": [{"code": code, "sentence": found}]}
    rows = pd.read_csv(tmp_path / "run/leaderboard.csv", keep_default_na=False).set_index("attack")
    assert set(rows.loc["broken-idle", "warnings"]) == {sentence}
    assert set(rows.loc["none", "warnings"]) == {""}


def test_a_surrogate_that_cannot_be_asked_fails_no_cell(broken, evaluate, monkeypatch, tmp_path):
    from bench.errors import MethodError
    from bench.quality import diagnosis

    def refuse(*_args, **_options):
        raise MethodError("no; never")

    with monkeypatch.context() as patch:
        patch.setattr(diagnosis, "probe_attack", refuse)
        prepared = evaluate(attacks=("pgd:steps=1",), store=tmp_path / "store")
    rows = build(prepared.folder)
    assert set(rows["status"]) == {"ok"}
    ((warning,),) = rows.loc[rows["attack"] == "pgd:steps=1", "warnings"]
    assert warning.code == "not-diagnosed"
    assert warning.sentence.endswith("no, never")


def test_a_run_of_before_says_that_it_was_not_diagnosed(evaluate, copy_of):
    folder = copy_of(evaluate(attacks=("tiny-noise",), defenses=("tiny-negative",)).folder)
    path = folder.path / "cells.json"
    cells = json.loads(path.read_text())
    for cell in cells:
        del cell["attack_diagnosis"], cell["purifier_diagnosis"]
    path.write_text(json.dumps(cells))
    folder.write_manifest()
    rows = build(RunFolder(folder.path)).set_index(["attack", "defense"])["warnings"]
    assert {place: codes(warnings) for place, warnings in rows.items()} == {
        ("none", "none"): [],
        ("none", "tiny-negative"): ["not-diagnosed"],
        ("tiny-noise", "none"): ["not-diagnosed"],
        ("tiny-noise", "tiny-negative"): ["not-diagnosed"],
    }
