"""`bench list`: of kinds of plugins, and of one plugin."""

import json

import pytest

from bench.plugins import registry

KINDS = ("attacks", "defenses", "backbones", "datasets", "protocols", "trainers", "pools", "channels")


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_every_plugin_of_a_kind_with_a_line(cli, kind):
    code, out, err = cli("list", kind)
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines() if line[2] != " "}  # the others are below one
    assert lines.keys() == registry.EVERY[kind].entries().keys()
    assert all(len(line.split()) > 3 for line in lines.values())
    assert "cannot be found" not in out


def test_list_without_a_kind_lists_all(cli):
    code, out, _ = cli("list")
    assert code == 0
    assert [line for line in out.splitlines() if not line.startswith(" ")] == list(KINDS)


def test_list_of_a_kind_by_its_option(cli):
    assert cli("list", "--kind", "attack") == cli("list", "attacks")


def test_what_is_unknown_is_answered_without_a_name_twice(cli):
    _, _, err = cli("list", "nosuch")
    names = err.partition("Valid: ")[2].partition(".")[0].split(", ")
    assert "none" in names  # of an attack and of a defence
    assert len(set(names)) == len(names)
    assert "Did you mean" not in err  # nothing is called alike


def test_list_as_json_says_which_package_brings_a_plugin(cli):
    (document,) = json.loads(cli("list", "attack", "--json")[1]).items()
    assert document[0] == "attacks"
    origin = {item["name"]: item["from"] for item in document[1]}
    assert origin["fawkes"] == origin["none"] == "cloakbench"
    assert origin["tiny-noise"] == "cloakbench-tiny"
    assert "[cloakbench-tiny]" in cli("list", "attacks")[1]


def test_list_of_an_unknown_kind(cli):
    code, out, err = cli("list", "atacks")
    assert (code, out) == (2, "")
    assert "Did you mean 'attacks'?" in err


def test_description_tells_parameters_threat_model_and_paper(cli):
    code, out, err = cli("list", "pgd")
    assert (code, err) == (0, "")
    assert "pgd (attack)" in out
    assert "Madry et al." in out
    assert "eps (float, > 0 … 255, grey levels; default 8)" in out
    assert "steps (int, 1 … 10000, steps; default 10)" in out
    assert "goal: untargeted" in out
    assert "surrogates: 1" in out


def test_description_as_json_reflects_the_parameters_given(cli):
    document = json.loads(cli("list", "pgd:steps=3", "--json")[1])
    assert (document["kind"], document["name"], document["canonical"]) == ("attack", "pgd", "pgd:steps=3")
    names = [item["name"] for item in document["parameters"]]
    assert names == [
        *("surrogates", "eps", "step", "steps", "goal", "momentum"),
        *("diversity", "resize", "smooth", "lgc", "dfanet", "targets"),
    ]
    assert all(item["description"] for item in document["parameters"])


def test_description_is_of_every_kind_of_that_name_or_the_one_asked_for(cli):
    _, out, _ = cli("list", "none")
    assert "none (attack)" in out
    assert "none (defense)" in out
    _, out, _ = cli("list", "none", "--kind", "defense")
    assert "none (attack)" not in out
    assert "none (defense)" in out


@pytest.mark.parametrize("name", ["tracker", "synthetic", "jpeg", "tiny-a", "puface", "fawkes"])
def test_description_works_for_each_kind(cli, name):
    code, out, err = cli("list", name)
    assert (code, err) == (0, "")
    assert out.startswith(f"{name} (")


def test_description_of_a_backbone_has_its_card(cli):
    card = json.loads(cli("list", "tiny-b", "--json")[1])["card"]
    assert (card["embedding_dim"], card["licence"]) == (24, "Apache-2.0")


def test_description_of_a_plugin_by_path(cli, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from bench.contracts import Purifier\n"
        "class Mine(Purifier):\n"
        '    """Gives back what it gets."""\n'
        '    name = "mine"\n'
        "    def purify(self, faces, ctx):\n"
        "        return faces.images\n"
    )
    code, out, _ = cli("list", f"{plugin}:Mine")
    assert code == 0
    assert out.startswith("mine (defense)\nGives back what it gets.")


def test_description_of_an_unknown_name(cli):
    code, out, err = cli("list", "fawks")
    assert (code, out) == (2, "")
    assert err.startswith("Error: unknown plugin 'fawks'. Did you mean 'fawkes'?")
    assert "bench list" in err


def test_list_of_pools_says_what_each_is_for_and_who_is_in_it(cli):
    code, out, _ = cli("list", "pools")
    assert code == 0
    lines = out.splitlines()
    at = {line.split()[0]: place for place, line in enumerate(lines) if line[2] != " "}
    assert {"real", "real-siblings", "synthetic"} <= set(at)
    assert len({lines[place].split(maxsplit=1)[1] for place in at.values()}) == len(at)
    assert (
        "synthetic-mobilefacenet | synthetic-iresnet | synthetic-mobilefacenet-wide"
        in lines[at["synthetic"] + 1]
    )
    (real, *_) = json.loads(cli("list", "pools", "--json")[1])["pools"]
    assert real["groups"][0] == ["mobilefacenet-relu6", "mobilefacenet-casia"]


def test_list_of_backbones_says_what_is_here(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    code, out, _ = cli("list", "backbones")
    assert code == 0
    state = {line.split()[0]: line for line in out.splitlines()}
    assert "here " in state["synthetic-iresnet"]
    assert "absent " in state["uniface-mobilenetv2"]
    assert "by hand " in state["adaface"]
    assert "MobileNetV3 small" in state["uniface-mobilenetv3-small"]
    assert "MobileNetV3 large" in state["uniface-mobilenetv3-large"]
    rows = {row["name"]: row for row in json.loads(cli("list", "backbones", "--json")[1])["backbones"]}
    assert rows["facenet-casia"]["weights"] == "absent"
    assert "weights" not in rows["onnx"]
