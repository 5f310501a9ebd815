"""A run is what its folder says, or `bench verify` names what is not."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.errors import DataError
from bench.integrity import consistency, verify
from bench.quality import per_image
from bench.run import code_hashes, planning
from bench.run.folder import RunFolder
from bench.run.planning import Options

PLUGIN = """
from bench.contracts import Attack, ThreatModel


class Darker(Attack):
    name = "darker"
    threat = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        return {name: image * 0.5 for name, image in zip(faces.ids, faces.images, strict=True)}
"""


@pytest.fixture
def copy(tiny, finished, tmp_path):
    """A copy of the finished run and of its store, to be damaged; their methods are registered."""
    return SimpleNamespace(
        run=shutil.copytree(finished.run, tmp_path / "run"),
        store=shutil.copytree(finished.store, tmp_path / "store"),
    )


def change_a_byte(path, place=0.5):
    payload = bytearray(path.read_bytes())
    payload[int(len(payload) * place)] ^= 1
    path.write_bytes(payload)


def prepared(copy):
    return planning.prepare_again(RunFolder(copy.run), Options(store=copy.store, out=copy.run))


def forget_plugins():
    code_hashes.forget()
    for name in [
        name
        for name, module in sys.modules.items()
        if Path(str(getattr(module, "__file__", ""))).name == "darker.py"
    ]:
        del sys.modules[name]


def wrong(checks):
    return {(check.kind, check.name) for check in checks if check.state == "differs"}


def test_nothing_differs_in_a_run_that_nobody_touched(cli, finished, stored):
    before = stored(finished.store)
    code, out, err = cli("verify", finished.run, "--store", finished.store, "--artefacts", "1", "--quiet")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1] == "Nothing differs."
    counts = {line.partition(":")[0]: line.partition(": ")[2] for line in lines[:-1]}
    files = len([path for path in finished.run.rglob("*") if path.is_file()]) - 1
    assert counts["file"] == f"{files} of {files} the same"
    assert counts["leaderboard"] == "1 of 1 the same"
    assert counts["cell"] == counts["entry"] == "12 of 12 the same"
    assert counts["split"] == "1 of 1 the same"
    written = [len(list((finished.run / name).iterdir())) for name in ("images", "diagnoses")]
    assert [counts[name] for name in ("images", "diagnosis")] == [f"{n} of {n} the same" for n in written]
    assert min(written) > 1
    assert counts["recomputed cell"] == "1 of 1 the same"
    stages = {name.partition("/")[0] for name in before if name.endswith(".bin")}
    assert counts["recomputed artefact"] == f"{len(stages)} of {len(stages)} the same"
    artefacts = len([name for name in before if name.endswith(".bin")])
    assert counts["artefact"] == f"{artefacts} of {artefacts} the same"
    assert stored(finished.store) == before


@pytest.mark.parametrize("name", ["leaderboard.csv", "splits.json", "cells.json", "timings.csv"])
def test_a_changed_byte_of_a_file_is_named(copy, name):
    change_a_byte(copy.run / name, 0.3)
    assert wrong(verify.check_files(RunFolder(copy.run))) == {("file", name)}


def test_missing_and_added_files_are_named(copy):
    decisions = min((copy.run / "decisions").iterdir())
    decisions.unlink()
    (copy.run / "images/more.parquet").write_bytes(b"")
    found = {check.name: check.detail for check in verify.check_files(RunFolder(copy.run)) if check.detail}
    assert found == {
        f"decisions/{decisions.name}": "missing",
        "images/more.parquet": "not in the manifest: it was put there after the run",
    }


def test_a_leaderboard_that_the_decisions_do_not_give_is_named_though_the_manifest_agrees(copy):
    table = copy.run / "leaderboard.csv"
    lines = table.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace("0.", "1.", 1)
    table.write_text("".join(lines))
    folder = RunFolder(copy.run)
    folder.write_manifest()
    assert wrong(verify.check_files(folder)) == set()
    check = verify.check_leaderboard(folder)
    assert (check.state, check.detail) == ("differs", "decisions and measures give another line 5")


def test_decisions_that_were_made_up_are_found_by_making_them_again(cli, copy):
    folder = RunFolder(copy.run)
    cells = folder.cells()
    one, other = (
        cell for cell in cells if cell.head == "nn" and cell.defense == "none" and cell.attack != "none"
    )
    shutil.copyfile(copy.run / other.decisions, copy.run / one.decisions)
    folder.write_manifest()
    name = f"{one.attack} × none × tiny-a × nn × seed 0"
    run = prepared(copy)
    assert wrong(verify.check_artefacts(folder, run)) == {("cell", name)}
    chosen = [cell for cell in verify.sample_cells(folder, 99, 0) if cell[:2] == (one.attack, "none")]
    found = {check.name: check for check in verify.recompute_cells(folder, run, chosen)}
    assert found[name].state == "differs"
    assert " decisions differ, scores differ by at most " in found[name].detail
    assert sum(check.state == "same" for check in found.values()) == len(found) - 1

    code, out, _ = cli("verify", copy.run, "--store", copy.store, "--cells", "12", "--quiet", "--json")
    document = json.loads(out)
    assert code == 1
    kinds = {(finding["kind"], finding["state"]) for finding in document["findings"]}
    assert {("cell", "differs"), ("recomputed cell", "differs")} <= kinds
    assert len(document["recomputed"]) == 12


def test_a_changed_byte_of_an_artefact_is_named_and_left_alone(cli, copy):
    damaged = min(copy.store.glob("cloak/*/*.bin"))
    change_a_byte(damaged)
    payload = damaged.read_bytes()
    code, out, _ = cli(
        "verify", copy.run, "--store", copy.store, "--cells", "0", "--artefacts", "9", "--quiet"
    )
    assert code == 1
    (line,) = (
        line for line in out.splitlines() if line.startswith("  DIFFERS cloak") and "its bytes" in line
    )
    assert damaged.stem[:12] in line
    # What is made from it cannot be made again either.
    assert "it, or something it is made from, is corrupt in the store" in out
    assert damaged.read_bytes() == payload
    assert damaged.with_suffix(".json").is_file()


def test_files_that_the_artefacts_do_not_give_are_named_though_the_manifest_agrees(copy):
    folder = RunFolder(copy.run)
    cells = [cell for cell in folder.cells() if cell.cloak_measures]
    measures, diagnosis = copy.run / cells[0].cloak_measures, copy.run / cells[0].attack_diagnosis
    rows = per_image.from_bytes(measures.read_bytes())
    measures.write_bytes(per_image.to_bytes(rows.assign(psnr=rows["psnr"] + 1)))
    diagnosis.write_text(diagnosis.read_text().replace('"max_linf": ', '"max_linf": 1'))
    folder.write_manifest()
    run = prepared(copy)
    assert wrong(verify.check_files(folder)) == set()
    assert wrong(consistency.check_views(folder, run)) == {
        ("images", cells[0].cloak_measures),
        ("diagnosis", cells[0].attack_diagnosis),
    }
    measures.unlink()
    found = {check.name: check.detail for check in consistency.check_views(folder, run)}
    assert found[cells[0].cloak_measures].startswith("it cannot be read: ")


def test_the_same_rows_in_other_bytes_are_the_same(copy):
    folder = RunFolder(copy.run)
    name = next(cell.cloak_measures for cell in folder.cells() if cell.cloak_measures)
    rows = per_image.from_bytes((copy.run / name).read_bytes())
    before = (copy.run / name).read_bytes()
    rows.to_parquet(copy.run / name, index=False, compression="gzip")
    assert (copy.run / name).read_bytes() != before
    assert wrong(consistency.check_views(folder, prepared(copy))) == set()


def test_a_file_that_a_cell_does_not_name_is_missed(copy):
    folder = RunFolder(copy.run)
    cells = folder.cells()
    at = next(i for i, cell in enumerate(cells) if cell.cloak_measures)
    cells[at] = cells[at].model_copy(update={"cloak_measures": ""})
    folder.write_cells(cells)
    (check,) = (
        check for check in consistency.check_views(folder, prepared(copy)) if check.state == "differs"
    )
    assert (check.kind, check.detail) == ("images", "the cell has such file")


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"requested": False}, "requested is False, and the specification gives otherwise"),
        ({"threat": {"access": "white-box"}}, "access is 'white-box', found is 'black-box'"),
        ({"status": "failed"}, "its status is failed, and it names decisions/"),
    ],
)
def test_a_changed_entry_of_a_cell_is_named(copy, change, detail):
    path = copy.run / "cells.json"
    cells = json.loads(path.read_text())
    cell = next(cell for cell in cells if cell["attack"].startswith("pgd") and cell["requested"])
    cell.update({k: cell[k] | v if isinstance(v, dict) else v for k, v in change.items()})
    path.write_text(json.dumps(cells))
    folder = RunFolder(copy.run)
    folder.write_manifest()
    (check,) = (check for check in consistency.check_plan(folder, prepared(copy)) if check.state == "differs")
    assert check.kind == "entry"
    assert check.name.startswith(f"{cell['attack']} × {cell['defense']} × ")
    assert detail in check.detail


def test_cells_that_went_or_came_are_named_and_nothing_breaks(cli, copy):
    path = copy.run / "cells.json"
    cells = json.loads(path.read_text())
    gone, renamed, doubled = cells[3], cells[5], cells[7]
    name = "{attack} × {defense} × {backbone} × {head} × seed {seed}"
    wanted = {name.format(**cell) for cell in (gone, renamed, doubled, renamed | {"attack": "other"})}
    lost = name.format(**renamed)
    renamed["attack"] = "other"
    path.write_text(json.dumps([*(cell for cell in cells if cell is not gone), doubled]))
    folder = RunFolder(copy.run)
    folder.write_manifest()
    found = [check for check in consistency.check_plan(folder, prepared(copy)) if check.state == "differs"]
    assert {check.name for check in found} == wanted
    details = {check.name: check.detail for check in found}
    assert details[lost] == details[name.format(**gone)] == "cells.json lacks this cell of the run"
    assert details[name.format(**renamed)] == "the run has no such cell"
    assert details[name.format(**doubled)] == "cells.json has it 2 times"
    code, out, err = cli("verify", copy.run, "--store", copy.store, "--cells", "0", "--quiet")
    assert (code, err) == (1, "")
    assert f"  DIFFERS {lost}: cells.json lacks this cell of the run" in out


def test_another_split_is_named(copy):
    path = copy.run / "splits.json"
    split = json.loads(path.read_text())
    identity = min(split["probes"])
    split["probes"][identity] = split["probes"][identity][:-1]
    path.write_text(json.dumps(split))
    (check,) = (
        check
        for check in consistency.check_plan(RunFolder(copy.run), prepared(copy))
        if check.state == "differs"
    )
    assert (check.kind, check.detail) == ("split", "probes are not what the protocol gives")


def test_what_could_not_be_checked_is_no_success(cli, copy, tmp_path):
    code, out, _ = cli("verify", copy.run, "--store", tmp_path / "empty", "--cells", "0", "--quiet")
    assert code == 2
    assert out.splitlines()[-1].startswith("Nothing could be checked of the run's numbers")
    assert "Nothing differs" not in out
    assert not (tmp_path / "empty").exists()


def test_tables_made_from_a_run_are_extra(cli, copy):
    code, _, err = cli("significance", copy.run)
    assert code == 0, err
    code, out, _ = cli("verify", copy.run, "--store", copy.store, "--cells", "0", "--quiet")
    assert code == 0
    assert "extra: significance: no part of the run" in out.splitlines()
    assert out.splitlines()[-1] == "Nothing differs."
    # What the manifest has is no extra, wherever it lies.
    folder = RunFolder(copy.run)
    entries = folder.entries(["significance/pairs.csv"])
    folder.write_json("manifest.json", {name: entry.model_dump() for name, entry in entries.items()})
    assert wrong(verify.check_files(folder)) == set()
    (copy.run / "significance/pairs.csv").unlink()
    assert wrong(verify.check_files(folder)) == {("file", "significance/pairs.csv")}


def test_damaged_records_stay_where_they_are(cli, copy, stored):
    for stage in ("decide", "cloak", "measure"):
        min(copy.store.glob(f"{stage}/*/*.json")).write_text("{")
    before = stored(copy.store)
    code, out, _ = cli(
        "verify", copy.run, "--store", copy.store, "--cells", "0", "--artefacts", "9", "--quiet"
    )
    assert code == 1
    assert out.count("its bytes are not those that were written") == 3
    assert stored(copy.store) == before


def test_cells_of_changed_code_cannot_be_checked(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugin = Path("darker.py")
    plugin.write_text(PLUGIN)
    requested = (
        "run", "--dataset", "tiny:identities=3,photos=4", "--attack", "./darker.py:Darker", "--backbone", "tiny-a",
        "--attack", "tiny-failing", "--threads", "1", "--store", "store", "--out", "first", "--quiet",
    )  # fmt: skip
    cli(*requested)
    code, out, _ = cli("verify", "first", "--store", "store", "--cells", "0", "--quiet")
    assert code == 0
    assert out.splitlines()[-1].endswith(" 1 cells of the run failed, and have no numbers to check.")
    plugin.write_text(PLUGIN.replace("0.5", "0.25"))
    forget_plugins()  # as a process of its own would have
    code, out, _ = cli("verify", "first", "--store", "store", "--cells", "0", "--quiet")
    assert code == 2
    assert (
        "  CANNOT BE CHECKED darker × none × tiny-a × nn × seed 0: darker: the code or files are others"
        in out
    )
    assert "  code of darker is another than then" in out
    assert out.splitlines()[-1].startswith("1 cells cannot be checked; nothing differs in the others.")
    # Made again by the changed code, the cell is checked, and differs.
    code, out, _ = cli("verify", "first", "--store", "store", "--cells", "9", "--quiet", "--json")
    document = json.loads(out)
    assert (code, document["failed_cells"], document["counts"]["unchecked"]) == (1, 1, 0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = cli("verify", "../first", "--store", "../store", "--quiet")
    assert code == 2
    assert (
        "needs the file './darker.py', which is not here. Give the command in the folder the run was" in err
    )


def test_another_store_has_nothing_to_check(copy, tmp_path):
    copy.store = tmp_path / "empty"
    checks = verify.check_artefacts(RunFolder(copy.run), prepared(copy))
    assert {check.state for check in checks} == {"absent"}
    assert verify.sample_artefacts(prepared(copy), 3, 0) == []


def test_the_sample_is_drawn_by_its_seed(finished):
    folder = RunFolder(finished.run)
    draws = [tuple(verify.sample_cells(folder, 3, seed)) for seed in range(20)]
    assert draws[7] == tuple(verify.sample_cells(folder, 3, 7))
    assert len(set(draws)) > 10
    assert all(len(set(draw)) == 3 for draw in draws)
    assert len(verify.sample_cells(folder, 50, 0)) == 12


def test_time_is_told_from_what_was_timed(copy):
    run = prepared(copy)
    nodes = verify.work_of_cells(run, verify.sample_cells(RunFolder(copy.run), 2, 0))
    rows = [json.loads(line) for line in (copy.store / "timings.jsonl").read_text().splitlines()]
    pace = {(row["stage"], row["label"]): row["seconds"] / row["images"] for row in rows}
    seconds, untimed = verify.expected_seconds(run, nodes)
    assert untimed == 0
    assert seconds == pytest.approx(sum(pace[node.group] * node.images for node in nodes))
    (copy.store / "timings.jsonl").unlink()
    seconds, untimed = verify.expected_seconds(run, nodes)
    assert seconds > 0, "what the methods declare"
    assert untimed == len(nodes)


def test_another_machine_is_said_first(cli, copy):
    machine = json.loads((copy.run / "environment.json").read_text())
    machine["packages"]["numpy"] = "1.0"
    machine["cpu_kernels"] = "NEON"
    (copy.run / "environment.json").write_text(json.dumps(machine))
    RunFolder(copy.run).write_manifest()
    code, out, _ = cli("verify", copy.run, "--store", copy.store, "--cells", "0", "--quiet")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "This is not what the run was made on, so that bytes may differ:"
    assert lines[1].startswith("  cpu_kernels: NEON then, ")
    assert lines[2].startswith("  packages.numpy: 1.0 then, ")


def test_a_run_of_another_version_or_without_a_manifest_cannot_be_verified(cli, copy):
    spec = json.loads((copy.run / "spec.json").read_text())
    (copy.run / "spec.json").write_text(json.dumps(spec | {"run": "0" * 12}))
    with pytest.raises(DataError, match="is run 000000000000; the same specification is run"):
        prepared(copy)
    (copy.run / "manifest.json").unlink()
    code, out, err = cli("verify", copy.run, "--store", copy.store)
    assert (code, out) == (2, "")
    assert "it has no manifest.json" in err


def test_the_environment_of_a_run_says_what_can_change_a_number(finished):
    machine = json.loads((finished.run / "environment.json").read_text())
    assert {
        "python", "packages", "system", "machine", "cpu_model", "cpu_cores", "cpu_kernels", "threads", "device",
        "cuda_device", "cuda", "cudnn", "cuda_driver", "dtype", "deterministic_algorithms", "cudnn_deterministic",
        "cudnn_benchmark", "tf32_matmul", "tf32_cudnn", "byte_order",
    } == set(machine)  # fmt: skip
    facts = RunFolder(finished.run).facts()
    assert (facts.threads, facts.device, facts.batch_size) == (1, "cpu", 64)
    assert facts.command.startswith("bench run --dataset tiny")
    assert len(facts.fingerprint) == 64
    kinds = [(method.kind, method.name) for method in facts.methods]
    assert ("attacks", "pgd:eps=32,steps=2") in kinds
    assert {name for kind, name in kinds if kind == "backbones"} == {"tiny-a", "tiny-b", "tiny-c"}
    assert all(len(method.source) == 64 for method in facts.methods)
