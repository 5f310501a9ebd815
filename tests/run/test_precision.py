"""bfloat16 is asked for by name, decides embeddings and nothing before them, and is recorded with what it made."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from bench.leaderboard.merge import read_source
from bench.plugins import factory
from bench.run.folder import RunFolder
from bench.run.planning import Options, prepare, prepare_again
from bench.run.precision import multiplying_in
from bench.run.spec import make_spec
from bench.run.stages.embed import embed
from tests.run.test_stages import pixels

CPU = torch.device("cpu")


def planned(tmp_path, precision):
    spec = make_spec(
        {
            "attacks": ("pgd:steps=1",),
            "defenses": ("jpeg",),
            "dataset": "synthetic:identities=3",
            "identities": 3,
        }
    )
    return prepare(spec, Options(threads=1, store=tmp_path, precision=precision))


def addresses(prepared):
    found = {}
    for node in prepared.artefacts:
        found.setdefault(node.stage, set()).add(node.address)
    return found


def test_only_embeddings_and_what_follows_have_other_addresses(tmp_path):
    plain, half = (addresses(planned(tmp_path, name)) for name in ("float32", "bfloat16"))
    assert {stage for stage in plain if plain[stage] != half[stage]} == {"embed", "decide"}
    assert not plain["embed"] & half["embed"]


def test_a_run_records_its_precision_and_is_made_again_with_it(cli, tmp_path):
    words = (
        "run",
        "--dataset",
        "synthetic:identities=4,photos=4",
        "--attack",
        "pgd:steps=1",
        "--threads",
        "1",
        "--quiet",
    )
    out, store = tmp_path / "run", tmp_path / "store"
    code, _, err = cli(*words, "--precision", "bfloat16", "--out", out, "--store", store)
    assert code == 0, err
    assert json.loads((out / "environment.json").read_text())["dtype"] == "float32, bfloat16 in embedding"
    again = prepare_again(RunFolder(out), Options(store=store))
    assert again.machine.precision == "bfloat16"
    assert not again.missing
    assert (
        pd.read_csv(out / "leaderboard.csv")["dataset_note"].str.endswith("Trackers embed in bfloat16.").all()
    )
    code, _, err = cli("verify", out, "--store", store, "--quiet")
    assert code == 0, err


def test_rows_of_two_precisions_are_not_ranked_together(cli, tmp_path):
    words = (
        "run",
        "--dataset",
        "synthetic:identities=4,photos=4",
        "--attack",
        "pgd:steps=1",
        "--threads",
        "1",
        "--quiet",
    )
    for name in ("float32", "bfloat16"):
        code, _, err = cli(
            *words, "--precision", name, "--out", tmp_path / name, "--store", tmp_path / "store"
        )
        assert code == 0, err
    one, other = (read_source(tmp_path / name)[0] for name in ("float32", "bfloat16"))
    assert one.ground != other.ground


def test_an_unknown_precision_is_refused_by_name(cli):
    code, _, err = cli("run", "--attack", "pgd", "--precision", "float8")
    assert code == 2
    assert "float8" in err
    assert "bfloat16" in err


def test_bfloat16_moves_scores_little_and_what_is_stored_is_float32():
    backbone = factory.backbone("synthetic-mobilefacenet")
    backbone.load(CPU)
    faces = pixels(5)
    plain, half = (
        embed(backbone, faces, CPU, lambda _n: None, name).vectors for name in ("float32", "bfloat16")
    )
    assert half.dtype == np.float32
    assert not np.array_equal(plain, half)
    cosines = (plain * half).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(half, axis=1)
    assert cosines.min() > 0.99


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_made_in_the_precision_that_is_asked_for(precision):
    a = torch.rand(3, 3)
    with multiplying_in(precision, CPU):
        assert (a @ a).dtype == getattr(torch, precision)
    assert (a @ a).dtype == torch.float32
