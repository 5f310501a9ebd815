"""A run handed to other tools: the folder as its readers read it, and the calls that MLflow and Weights & Biases "
"get."""

import json
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pandas as pd
import pytest

from bench.errors import UsageError
from bench.leaderboard.as_csv import to_csv
from bench.leaderboard.table import build
from bench.publish.elsewhere import METRICS, PROJECT, Exported, to_hf_dataset, to_mlflow, to_wandb


@pytest.fixture(scope="module")
def exported(submittable):
    return Exported(submittable)


def test_the_folder_is_a_dataset(exported, submittable, tmp_path):
    assert to_hf_dataset(exported, tmp_path / "out") == ("leaderboard.parquet", "spec.json", "README.md")
    table, made = pd.read_parquet(tmp_path / "out" / "leaderboard.parquet"), build(submittable)
    assert list(table.columns) == list(made.columns)
    assert to_csv(table.assign(warnings=made["warnings"]).astype(made.dtypes)) == to_csv(made)
    spec = json.loads((tmp_path / "out" / "spec.json").read_text())
    assert spec["task"] == "tiny-tracker-v1"
    card = (tmp_path / "out" / "README.md").read_text()
    front, body = card.split("---\n")[1:]
    assert "data_files: leaderboard.parquet" in front
    assert f"{len(made)} rows" in body
    assert str(tmp_path) not in card
    with pytest.raises(UsageError, match="is there and not empty"):
        to_hf_dataset(exported, tmp_path / "out")


def test_no_path_of_this_machine_leaves_it(evaluate, tmp_path):
    (tmp_path / "own.py").write_text(
        "from bench.contracts import Attack, ThreatModel\n\n\nclass Own(Attack):\n    name = 'own'\n"
        "    threat = ThreatModel(goal='untargeted', constraint='none')\n\n    def cloak(self, faces, ctx):\n"
        "        ctx.advance(len(faces))\n        return dict(zip(faces.ids, faces.images))\n"
    )
    folder = evaluate(attacks=(f"{tmp_path / 'own.py'}:Own",), defenses=("jpeg",), heads=("nn",)).folder
    to_hf_dataset(Exported(folder), tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_mlflow_gets_a_run_with_one_nested_a_row(exported, monkeypatch):
    said = []

    @contextmanager
    def start_run(run_name, nested=False):
        said.append(("run", run_name, nested))
        yield SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def noted(name):
        return lambda *args: said.append((name, *args))

    calls = ("set_experiment", "log_dict", "log_text", "log_params", "log_metrics")
    fake = SimpleNamespace(start_run=start_run, **{name: noted(name) for name in calls})
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert to_mlflow(exported) == "abc"
    assert said[:2] == [("set_experiment", PROJECT), ("run", exported.facts.run, False)]
    rows = [entry[1] for entry in said if entry[0] == "log_metrics"]
    assert len(rows) == len(exported.leaderboard)
    assert all(set(row) <= set(METRICS) and 0 <= row["asr"] <= 1 for row in rows)


def test_wandb_gets_the_table(exported, monkeypatch):
    logged = {}

    summary = {}

    class Run:
        id = "xyz"

        def __init__(self):
            self.summary = summary

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def log(self, values):
            logged.update(values)

    def init(**given):
        logged["init"] = given
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Table=lambda dataframe: dataframe))
    assert to_wandb(exported) == "xyz"
    assert len(logged["leaderboard"]) == len(exported.leaderboard)
    assert logged["init"]["config"]["task"] == "tiny-tracker-v1"
    assert len(summary) >= len(exported.leaderboard)


@pytest.mark.parametrize(("name", "export"), [("mlflow", to_mlflow), ("wandb", to_wandb)])
def test_what_is_not_installed_is_named_with_its_extra(exported, monkeypatch, name, export):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"pip install 'cloakbench\[{name}\]'"):
        export(exported)


def test_the_command(cli, submittable, tmp_path):
    code, out, err = cli(
        "export", "run", submittable.path, "--to", "hf-dataset", "--out", tmp_path / "out", "--json"
    )
    assert (code, err) == (0, "")
    assert json.loads(out)["files"][0] == "leaderboard.parquet"
    code, _, err = cli("export", "run", submittable.path, "--to", "hf-dataset")
    assert (code, "--out names the folder" in err) == (2, True)
