"""The whole way on an empty data folder: publishers' files over HTTP, converted, and the headline's quick form made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from publishers import REWRITING

from bench.assets.needs import needs_of
from bench.data.files import VARIABLE, data_folder
from bench.datasets import _lfw_source as lfw
from bench.quality.lpips import TRUNK_PATH
from bench.run.spec import load_suite, make_spec

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
from lfw_site import pack_site

HEADLINE = Path(__file__).parents[2] / "results/headline.toml"


@pytest.fixture
def upstream():
    folder = data_folder() / "upstream"
    if not folder.is_dir() or not (data_folder() / "lfw").is_dir():
        pytest.skip("CLOAKBENCH_DATA has no upstream files")
    return folder


@pytest.mark.slow
@pytest.mark.real_data
def test_the_headline_is_made_again_from_what_its_publishers_serve(upstream, publishers, tmp_path):
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
    made = bench(
        "reproduce", "headline", "--quick", "--threads", "1", "--store", str(tmp_path / "store"), "--json"
    )
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found["reproduced"]
    assert {rate["state"] for rate in found["rates"]} <= {"same", "within"}
    assert len(found["rates"]) == 96
