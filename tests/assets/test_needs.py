"""What a run wants of the catalogue, and how the command line says so."""

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


def test_a_data_set_that_publishers_hand_out_is_named_apart():
    needs = needs_of(make_spec({"dataset": "celeba", "attacks": ("none",), "backbones": ("mobileface-v2",)}))
    assert [entry.name for entry in needs.by_hand] == ["celeba"]


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


def test_nothing_named_is_told_what_may_be(cli):
    code, out, err = cli("fetch")
    assert (code, out) == (2, "")
    assert "name what to fetch, e.g. `bench fetch lfw lpips`; `bench fetch --list`" in err
