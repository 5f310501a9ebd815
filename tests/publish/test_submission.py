"""What a run must be to be submitted, one fault at a time, and that a submission is written whole or not at all."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256

import pytest

from bench.errors import DataError, UsageError
from bench.files import StoreError
from bench.integrity import audit
from bench.leaderboard.as_csv import to_csv
from bench.leaderboard.merge import read_source
from bench.leaderboard.table import build
from bench.publish import submission
from bench.publish.page import environment_words, requested_command, shown_path
from bench.publish.submission import LEAST_IDENTITIES, Requirement, Submission, examine, publish
from bench.run.folder import RunFolder
from bench.run.spec import make_spec

CHECKS = [
    "complete matrix", "run of its specification", "benchmark version", "packages recorded", "code recorded",
    "files as written", "rows from decisions", "threat models", "audit clean", "enough identities", "licences stated",
    "no names, no paths",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(submittable):
    return submittable


@pytest.fixture
def copy(run, tmp_path):
    """A copy of it that may be broken."""
    shutil.copytree(run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def no_photos(monkeypatch):
    """Leave the search for near-duplicate photos out, which one test makes whole."""
    whole = audit.audit
    monkeypatch.setattr(audit, "audit", lambda folder, **_: whole(folder, images=False))


def change(folder, name, edit):
    """Edit one of a run's JSON files, and write the manifest anew so that only the content is wrong."""
    value = json.loads((folder.path / name).read_text())
    edit(value)
    folder.write_json(name, value)
    folder.write_manifest()


def failed(found):
    return {check.name: check for check in found.checks if not check.passed}


def test_a_run_that_is_whole_passes_every_check(run, tmp_path):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    found = examine(run, by="Example Lab")
    assert [check.name for check in found.checks] == CHECKS
    assert failed(found) == {}
    assert not any(check.fix for check in found.checks)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert publish(found, tmp_path / "new/board") == "written"
    table, record = sorted((tmp_path / "new/board").iterdir())
    assert (table.name, record.name) == (f"{found.run}.csv", f"{found.run}.json")
    assert table.read_bytes() == (run.path / "leaderboard.csv").read_bytes()
    said = json.loads(record.read_text())
    assert said["by"] == "Example Lab"
    assert said["leaderboard_sha256"] == sha256(table.read_bytes()).hexdigest()
    assert said["folder_sha256"] == sha256((run.path / "manifest.json").read_bytes()).hexdigest()
    assert said["licences"]["tiny-a"] == "Apache-2.0"
    assert {method["foreign"] for method in said["methods"]} == {""}
    assert said["checks"]["enough identities"] == "20 identities"
    assert (
        make_spec({k: tuple(v) if isinstance(v, list) else v for k, v in said["requested"].items()})
        == run.facts().requested
    )
    assert publish(found, tmp_path / "new/board") == "there"
    (source,) = read_source(tmp_path / "new/board")
    assert len(source.leaderboard) == 4


@pytest.mark.usefixtures("no_photos")
class TestOneFaultEach:
    """Each fault fails the check it belongs to."""

    def test_a_failed_cell(self, copy):
        change(
            copy,
            "cells.json",
            lambda cells: cells[-1].update(status="failed", reason="it broke", decisions=""),
        )
        check = failed(examine(copy))["complete matrix"]
        assert "1 cells failed" in check.found
        assert "it broke" in check.found
        assert "again" in check.fix

    def test_a_cell_that_is_not_there(self, copy):
        change(copy, "cells.json", lambda cells: cells.pop(0))
        assert (
            "1 cells are not there, e.g. none × none × tiny-a"
            in failed(examine(copy))["complete matrix"].found
        )

    def test_a_defence_taken_out_everywhere(self, copy):
        def without(spec):
            for part in ("requested", "spec"):
                spec[part]["defenses"] = ["none"]

        cells = json.loads((copy.path / "cells.json").read_text())
        left = [cell for cell in cells if cell["defense"] == "none"]
        assert 0 < len(left) < len(cells)
        copy.write_json("cells.json", left)
        change(copy, "spec.json", without)
        copy.write_bytes("leaderboard.csv", to_csv(build(copy)).encode())
        copy.write_manifest()
        said = failed(examine(copy))
        assert "complete matrix" not in said
        assert (
            f"the folder says run {copy.facts().run}, and what was requested"
            in said["run of its specification"].found
        )

    def test_a_cell_that_was_not_asked_for(self, copy):
        def add(cells):
            cells.append(cells[-1] | {"seed": 7, "status": "failed", "decisions": ""})

        change(copy, "cells.json", add)
        found = examine(copy)
        assert "1 cells are not those of the matrix" in failed(found)["run of its specification"].found

    def test_a_canonical_form_that_is_not_what_was_asked(self, copy):
        change(copy, "spec.json", lambda spec: spec["spec"].update(heads=["nn", "linear"]))
        assert "canonical form" in failed(examine(copy))["run of its specification"].found

    @pytest.mark.parametrize(
        ("mark", "value"),
        [
            ("surrogates", "none-such"),
            ("access", "black-box"),
            ("attack_adapts_to_defense", True),
        ],
    )
    def test_a_threat_model_that_is_made_up(self, copy, mark, value):
        change(copy, "cells.json", lambda cells: cells[-1]["threat"].update({mark: value}))
        said = failed(examine(copy))["threat models"].found
        assert f"{mark} is {value!r}, found is " in said

    def test_no_table(self, copy):
        (copy.path / "leaderboard.csv").unlink()
        copy.write_manifest()
        said = failed(examine(copy))
        assert list(said) == ["rows from decisions"]
        assert "no leaderboard.csv" in said["rows from decisions"].found

    def test_where_nothing_can_be_compared_it_is_not_held_against_the_run(self, copy, monkeypatch):
        def nothing(_requested):
            raise DataError("no photos in '/somewhere/of/mine'")

        monkeypatch.setattr(submission, "resolve", nothing)
        found = examine(copy)
        said = failed(found)
        for name in ("run of its specification", "code recorded", "threat models"):
            assert said[name].found.startswith("not compared")
            assert "CLOAKBENCH_DATA" in said[name].fix
        assert {method["foreign"] for method in found.record["methods"]} == {""}
        assert "no names, no paths" not in said

    def test_weights_that_are_not_here_are_not_compared(self, copy, monkeypatch):
        def missing(_run):
            raise DataError("weights of tiny-a are not at '/somewhere/of/mine'")

        monkeypatch.setattr(submission, "describe_methods", missing)
        found = examine(copy)
        assert list(failed(found)) == ["code recorded"]
        assert failed(found)["code recorded"].found.startswith("not compared with this tree: weights")
        assert {method["foreign"] for method in found.record["methods"]} == {""}

    def test_another_version(self, copy):
        change(copy, "spec.json", lambda spec: spec.update(benchmark_version="0"))
        assert failed(examine(copy))["benchmark version"].found == "the run has version 0, the leaderboard 1"

    def test_no_versions_of_packages(self, copy):
        change(copy, "environment.json", lambda machine: machine["packages"].pop("torch"))
        assert failed(examine(copy))["packages recorded"].found == "no version of torch in environment.json"

    def test_no_digest_of_code(self, copy):
        change(copy, "spec.json", lambda spec: spec.update(methods=spec["methods"][1:]))
        assert "no digest of the code of tiny-noise" in failed(examine(copy))["code recorded"].found

    def test_foreign_code_passes_and_is_named(self, copy):
        change(copy, "spec.json", lambda spec: spec["methods"][0].update(source="0" * 64))
        found = examine(copy)
        assert failed(found) == {}
        assert "1 are foreign, not as in this tree: tiny-noise" in found.record["checks"]["code recorded"]
        foreign = {method["name"]: method["foreign"] for method in found.record["methods"]}
        assert foreign.pop("tiny-noise") == "other code"
        assert set(foreign.values()) == {""}

    def test_a_changed_file(self, copy):
        with (copy.path / "timings.csv").open("a") as file:
            file.write("more\n")
        assert "timings.csv: SHA-256" in failed(examine(copy))["files as written"].found

    def test_a_damaged_file(self, copy):
        measures = next((copy.path / "images").iterdir())
        measures.write_bytes(b"no Parquet")
        with pytest.raises(DataError, match="is not what the run wrote"):
            examine(copy)

    def test_no_manifest(self, copy):
        (copy.path / "manifest.json").unlink()
        assert "files as written" in failed(examine(copy))

    def test_a_table_that_says_something_else(self, copy):
        path = copy.path / "leaderboard.csv"
        lines = path.read_text().splitlines()
        asr = build(copy)["asr"].iloc[-1]
        assert f"{asr:.6f}" in lines[-1]
        lines[-1] = lines[-1].replace(f"{asr:.6f}", "0.987654", 1)
        path.write_text("\n".join(lines) + "\n")
        copy.write_manifest()
        said = failed(examine(copy))
        assert list(said) == ["rows from decisions"]
        assert "0.987654" in said["rows from decisions"].found

    def test_a_table_of_fewer_columns_is_no_fault(self, copy):
        leaderboard = build(copy).drop(columns=["restored_to_cloak_psnr", "minimum_detectable_difference"])
        copy.write_bytes("leaderboard.csv", to_csv(leaderboard).encode())
        copy.write_manifest()
        assert failed(examine(copy)) == {}

    def test_a_leak_that_no_row_speaks_of(self, copy):
        def unmark(cells):
            for cell in cells:
                cell["threat"]["surrogates"] = cell["backbone"]
                cell["threat"]["access"] = "black-box"

        change(copy, "cells.json", unmark)
        check = failed(examine(copy))["audit clean"]
        assert "surrogate is the tracker" in check.found
        assert "access = white-box" in check.fix

    def test_photos_that_are_not_the_runs_cannot_be_audited(self, copy):
        change(copy, "spec.json", lambda spec: spec.update(fingerprint="0" * 64))
        assert failed(examine(copy))["audit clean"].found.startswith(
            "not audited: training identities and photos"
        )

    def test_too_few_people(self, evaluate, copy_of):
        folder = copy_of(evaluate(attacks=("tiny-noise",), defenses=("none",), heads=("nn",)).folder)
        folder.write_manifest()
        assert (
            failed(examine(folder))["enough identities"].found
            == f"6 identities, fewer than {LEAST_IDENTITIES}"
        )

    def test_no_licence(self, copy, monkeypatch):
        tiny = submission.factory.backbone("tiny-a")
        monkeypatch.setattr(type(tiny), "card", tiny.card.model_copy(update={"licence": " "}), raising=False)
        whole = submission.resolve

        def resolve(requested):
            found = whole(requested)
            for one in found.backbones.values():
                one.card = one.card.model_copy(update={"licence": " "})
            return found

        monkeypatch.setattr(submission, "resolve", resolve)
        assert "none is known of tiny-a" in failed(examine(copy))["licences stated"].found

    @pytest.mark.parametrize("by", ["me, in /home/me/runs", "C:\\Users\\me", "box-4711"])
    def test_what_tells_whose_machine_it_is(self, copy, monkeypatch, by):
        monkeypatch.setattr(submission.socket, "gethostname", lambda: "box-4711")
        check = failed(examine(copy, by=by))
        assert list(check) == ["no names, no paths"]
        assert "1 texts would tell" in check["no names, no paths"].found

    def test_the_command_as_it_was_typed_is_not_published(self, copy):
        change(copy, "spec.json", lambda spec: spec.update(command="bench run --out /home/somebody/x"))
        found = examine(copy)
        assert failed(found) == {}
        assert b"/home/somebody" not in b"".join(found.files().values())


def passing(**record):
    return Submission("0123456789ab", (Requirement("all", True, "fine"),), "a,b\n", record)


def test_what_failed_is_not_published(tmp_path):
    bad = replace(passing(), checks=(Requirement("all", False, "bad", "fix it"),))
    with pytest.raises(UsageError, match="does not pass every check"):
        publish(bad, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["0123456789ab.csv", "0123456789ab.json"])
def test_nothing_is_written_over(tmp_path, there):
    (tmp_path / there).write_text("other")
    with pytest.raises(UsageError, match="is there already, with other content"):
        publish(passing(), tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["other"]


def test_both_files_or_none(tmp_path, monkeypatch):
    whole = submission.write_atomically

    def full_disk(path, content, option):
        if path.suffix == ".json":
            raise StoreError("cannot write: no space left")
        whole(path, content, option)

    monkeypatch.setattr(submission, "write_atomically", full_disk)
    with pytest.raises(StoreError):
        publish(passing(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(DataError, match="is not a finished run"):
        examine(RunFolder(tmp_path))


def test_the_command_of_a_specification():
    requested = make_spec(
        {"attacks": ("fawkes", "pgd:eps=15"), "dataset": "lfw", "heads": ("nn",), "identities": 40}
    )
    assert requested_command(requested) == (
        "bench run --dataset lfw --attack fawkes --attack pgd:eps=15 --defense none --head nn --identities 40"
    )
    more = make_spec(
        {"protocol": "verification", "seeds": (1, 2), "split_seed": 3, "defenses": ("jpeg + median",)}
    )
    assert requested_command(more) == (
        "bench run --dataset synthetic --protocol verification --attack none --defense 'jpeg + median' --seed 1 "
        "--seed 2 --split-seed 3"
    )


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("runs/a", "runs/a"),
        ("/home/me/runs/a", "a"),
        ("~/a", "a"),
        ("C:\\me\\a", "C:\\me\\a"),
        ("./a", "./a"),
    ],
)
def test_a_path_that_may_be_published(path, shown):
    assert shown_path(path) == (shown if "\\" not in path else "a")


def test_the_machine_in_a_few_words():
    machine = {
        "packages": {"torch": "2.15.0", "numpy": "2"},
        "python": "3.11.7",
        "cpu_model": "AMD",
        "cuda_device": "",
    }
    assert environment_words(machine) == "torch 2.15.0, Python 3.11.7, AMD"
    assert environment_words({}) == "Python unknown"
