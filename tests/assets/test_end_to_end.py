"""The whole way on an empty data folder: publishers' files over HTTP, converted, found by a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from publishers import REWRITING

from bench.assets import catalogue
from bench.assets.needs import needs_of
from bench.data.files import VARIABLE, data_folder
from bench.datasets import _lfw_source as lfw
from bench.quality.lpips import TRUNK_PATH
from bench.run.spec import load_suite, make_spec

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
from lfw_site import pack_site

HEADLINE = Path(__file__).parents[2] / "results/headline.toml"


def names(values):
    return list(needs_of(make_spec(values)).entries)


def test_a_suite_wants_its_data_set_backbones_helpers_and_parts():
    values = {
        "dataset": "lfw",
        "attacks": ("pgd",),
        "defenses": ("dncnn + jpeg",),
        "backbones": ("mobileface-v2",),
    }
    assert names(values) == [
        "lfw",
        "mobilefacenet-casia",
        "mobilefacenet-relu6",
        "dncnn",
        "mobileface-v2",
        "lpips",
    ]


def test_parameters_are_part_of_a_name_where_they_decide_the_file():
    values = {
        "dataset": "lfw:min_photos=20",
        "attacks": ("none",),
        "backbones": ("adaface:depth=101,data=webface12m",),
    }
    assert names(values) == ["lfw", "adaface:data=webface12m,depth=101", "lpips"]


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


@pytest.fixture
def upstream():
    folder = data_folder() / "upstream"
    if not folder.is_dir() or not (data_folder() / "lfw").is_dir():
        pytest.skip("CLOAKBENCH_DATA has no upstream files")
    return folder


@pytest.mark.slow
@pytest.mark.real_data
def test_everything_that_the_headline_needs_comes_from_its_publishers(upstream, publishers, tmp_path):
    """AlexNet's 233 MB are not in the data pack: that server answers 404, and the trunk comes from a mirror."""
    for entry in needs_of(make_spec(load_suite(HEADLINE))).entries.values():
        for source in {
            source for file in entry.files for recipe in file.recipes for source in recipe.sources
        }:
            if (upstream / source.name).is_file():
                publishers.add(source.url, upstream / source.name)
    publishers.add(lfw.ARCHIVE.url, pack_site(data_folder() / "lfw", tmp_path / lfw.ARCHIVE.name))
    own = os.environ | {
        VARIABLE: str(tmp_path / "data"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "PYTHONPATH": str(REWRITING),
        "TEST_PUBLISHERS": publishers.base,
        "OMP_NUM_THREADS": "1",
    }

    def bench(*arguments):
        command = [sys.executable, "-m", "bench", *arguments]
        return subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, check=False)

    first = bench("fetch", "--for", str(HEADLINE))
    assert first.returncode == 2
    (error,) = [line for line in first.stderr.splitlines() if line.startswith("Error: ")]
    assert error.startswith(
        "Error: lpips: https://download.pytorch.org/models/alexnet-owt-7be5be79.pth answers 404"
    )
    assert first.stdout.count("\n") == len(lfw.ENTRY.files) + 4, first.stderr
    trunk = bench("fetch", "lpips", "--from", str(data_folder()))
    assert (trunk.returncode, trunk.stdout) == (0, f"{tmp_path / 'data' / TRUNK_PATH}\n")
    again = bench("fetch", "--for", str(HEADLINE))
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr.count("is here and whole.") == 6
    assert [path for path in (tmp_path / "data/downloads").iterdir() if path.suffix != ".lock"] == []
    plan = bench("plan", "--config", str(HEADLINE), "--identities", "2", "--store", str(tmp_path / "store"))
    assert plan.returncode == 0, plan.stderr
