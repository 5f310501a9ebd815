"""What a run wants of the catalogue, and how the command line says so."""

import json

from bench.assets import catalogue
from bench.assets.needs import needs_of
from bench.data.files import VARIABLE
from bench.run.spec import make_spec


def names(values):
    return list(needs_of(make_spec(values)).entries)


def test_a_suite_wants_its_data_set_backbones_helpers_and_parts():
    values = {
        "dataset": "lfw",
        "attacks": ("pgd",),
        "defenses": ("dncnn + jpeg",),
        "backbones": ("mobileface-v2",),
    }
    found = names(values)
    assert found[0] == "lfw"
    assert {*found} == {
        "lfw",
        "mobileface-v2",
        "mobilefacenet-casia",
        "mobilefacenet-relu6",
        "dncnn",
        "lpips",
    }


def test_parameters_are_part_of_a_name_where_they_decide_the_file():
    values = {
        "dataset": "lfw:min_photos=20",
        "attacks": ("none",),
        "backbones": ("adaface:depth=101,data=webface12m",),
    }
    assert {*names(values)} == {"lfw", "adaface:data=webface12m,depth=101", "lpips"}


def test_the_embedded_default_wants_lpips_only(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    needs = needs_of(make_spec({"attacks": ("fawkes",), "defenses": ("puface",)}))
    assert (list(needs.entries), needs.missing()) == (["lpips"], ("lpips",))


def handed_out(dataset):
    needs = needs_of(make_spec({"dataset": dataset, "attacks": ("none",), "backbones": ("mobileface-v2",)}))
    return [entry.name for entry in needs.by_hand]


def test_a_data_set_that_publishers_hand_out_is_named_apart_unless_its_folder_is_here(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    assert handed_out("celeba") == ["celeba"]
    assert handed_out(f"celeba:path={tmp_path / 'nowhere'}") == ["celeba"]
    assert handed_out(f"celeba:path={tmp_path}") == []
    (tmp_path / "data/celeba").mkdir(parents=True)
    assert handed_out("celeba") == []


def test_a_suite_with_a_folder_of_ones_own_has_nothing_to_be_fetched_for_it(cli, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    suite = tmp_path / "suite.toml"
    lines = ('attacks = ["none"]', 'defenses = ["none"]', 'backbones = ["mobileface-v2"]')
    suite.write_text("\n".join([f'dataset = "celeba:path={tmp_path}"', *lines]))
    code, out, err = cli("fetch", "--for", str(suite), "--from", str(tmp_path))
    assert "handed out" not in err
    assert "mobileface-v2" in err
    suite.write_text("\n".join(['dataset = "celeba"', *lines]))
    code, out, err = cli("fetch", "--for", str(suite), "--list", "--json")
    assert (code, err) == (0, "")
    assert [(row["name"], row["state"]) for row in json.loads(out)] == [
        ("mobileface-v2", "absent"),
        ("lpips", "absent"),
        ("celeba", "by hand"),
    ]


def test_a_run_that_lacks_things_names_the_one_command(cli, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    code, out, err = cli("plan", "--dataset", "lfw", "--attack", "none", "--backbone", "mobileface-v2")
    assert (code, out) == (2, "")
    assert err.endswith("All that this run lacks: `bench fetch lfw mobileface-v2 lpips`.\n")


def test_the_list_says_state_size_and_licence(cli, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    code, out, err = cli("fetch", "--list")
    assert (code, err) == (0, "")
    assert "128.9 MB" in out
    assert "BSD-3-Clause (torchvision)" in out
    assert out.count("by hand") == len(catalogue.BY_HAND)


def test_the_list_has_what_is_named_by_hand_too(cli, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    here = f"ffhq:path={tmp_path}"
    code, out, err = cli("fetch", "--list", "--json", "celeba", "lfw", here, "celeba")
    assert (code, err) == (0, "")
    assert [(row["name"], row["state"]) for row in json.loads(out)] == [
        ("lfw", "absent"),
        ("celeba", "by hand"),
        ("ffhq", "folder here"),
    ]
    code, out, err = cli("fetch", "celeba")
    assert (code, out) == (2, "")
    assert "celeba is handed out by its publishers only" in err


def test_nothing_named_is_told_what_may_be(cli):
    code, out, err = cli("fetch")
    assert (code, out) == (2, "")
    assert "name what to fetch, e.g. `bench fetch lfw lpips`; `bench fetch --list`" in err
