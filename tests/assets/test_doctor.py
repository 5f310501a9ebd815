"""What `bench doctor` says is so: it is compared with what was put there, or taken away."""

import shutil
import sys
from collections import namedtuple

import pytest

from bench.assets import doctor
from bench.contracts import HealthCheck
from bench.plugins import registry
from bench.quality import lpips as lpips_distance


@pytest.fixture
def found(tiny, tmp_path, monkeypatch):
    """Return a function that runs one check and gives its findings by name; data and store are empty folders."""
    del tiny
    for variable in ("CLOAKBENCH_DATA", "CLOAKBENCH_STORE"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.delenv("CLOAKBENCH_LPIPS_TRUNK", raising=False)

    def run(check):
        return {finding.name: finding for finding in doctor._guarded("area", check)}

    return run


def states(findings):
    return {name: finding.state for name, finding in findings.items()}


def test_here_the_default_can_run_and_every_gap_says_how_to_fill_it(found):
    del found
    findings = doctor.examine()
    assert doctor.can_run(findings)
    assert {"machine", "plugins", "default", "methods", "data", "weights", "extras", "store"} == {
        f.area for f in findings
    }
    for finding in findings:
        assert bool(finding.fix) == (finding.state != "ok"), finding
        assert finding.detail


def test_a_check_that_fails_is_a_finding(found):
    def _broken():
        raise ValueError("no such thing")

    (finding,) = found(_broken).values()
    assert (finding.name, finding.state, finding.detail) == ("broken", "broken", "ValueError: no such thing")


def test_what_is_needed_and_broken_stops_the_default():
    one = doctor.Finding(area="a", name="n", state="missing", detail="d")
    assert doctor.can_run([one])
    assert not doctor.can_run([one.model_copy(update={"needed": True})])


def test_a_torchvision_for_another_torch(found, monkeypatch):
    assert states(found(doctor._torch)) == {"torch": "ok", "torchvision": "ok"}
    monkeypatch.setattr(doctor.metadata, "requires", lambda _name: ["numpy", "torch==0.1"])
    finding = found(doctor._torch)["torchvision"]
    assert finding.state == "broken"
    assert "is made for torch==0.1" in finding.detail
    assert finding.fix.startswith("pip install")


def test_a_plugin_that_cannot_be_imported_is_named_with_its_package(found, monkeypatch):
    real = registry.entries_of
    broken = registry.Entry("sick", "nowhere.at.all:Sick", "sick-package")
    monkeypatch.setattr(
        registry,
        "entries_of",
        lambda kind: {**real(kind), "sick": broken} if kind == "attacks" else real(kind),
    )
    findings = found(doctor._plugins)
    assert findings["sick"].state == "broken"
    assert "nowhere.at.all" in findings["sick"].detail
    assert "sick-package" in findings["sick"].fix
    assert not findings["sick"].needed
    assert findings["attacks"].detail == f"{len(real('attacks'))} can be imported"


def test_methods_say_what_they_need_of_the_installation(found, monkeypatch):
    findings = found(doctor._methods)
    assert findings["PuFace"].needed
    assert findings["PuFace"].detail.startswith("puface-synthetic")
    assert findings["APF server"].detail == "for `bench apf serve`"
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    missing = HealthCheck.of_extra("APF server", "starlette", "serve", "`bench apf serve`")
    assert (missing.state, missing.fix) == ("missing", "pip install 'cloakbench[serve]'")


def test_files_of_the_data_folder_by_presence_and_size(found, tmp_path):
    from bench.assets import catalogue

    folder = tmp_path / "cloakbench_data"
    assert states(found(doctor._data))["data folder"] == "missing"
    entry = catalogue.catalogue("dataset")[0]
    for file in entry.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as sink:
            sink.truncate(file.bytes)
    assert states(found(doctor._data)) == {"data folder": "ok", entry.name: "ok"}
    last = next(file for file in reversed(entry.files) if file.bytes)
    (folder / last.path).write_bytes(b"short")
    finding = found(doctor._data)[entry.name]
    assert finding.state == "broken"
    assert f"{last.path} has 5 bytes, not {last.bytes}" in finding.detail
    (folder / last.path).unlink()
    finding = found(doctor._data)[entry.name]
    assert (finding.state, finding.detail) == ("missing", f"1 of {len(entry.files)} files are missing")
    assert finding.fix == f"`bench fetch {entry.name}`"


def test_weights_that_are_missing_say_how_to_get_them(found, tmp_path):
    from bench.assets import catalogue

    findings = found(doctor._weights)
    for entry in set(catalogue.catalogue("weights")) - set(catalogue.OWN):
        assert findings[entry.name].state == "missing"
        public = all(map(catalogue.is_public, entry.files))
        fix = findings[entry.name].fix
        if public:
            assert fix == f"`bench fetch {entry.name}`"
            continue
        assert str(tmp_path / "cloakbench_data" / entry.files[0].path) in fix
        assert "put it there" not in fix
        assert fix.count("--from") == fix.count(f"`bench fetch {entry.name} --from URL_OR_FOLDER`")


def test_the_trunk_of_lpips(found, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    finding = found(doctor._lpips)["LPIPS trunk"]
    assert (finding.state, "`bench fetch lpips`" in finding.fix) == ("missing", True)
    monkeypatch.setenv(lpips_distance.VARIABLE, str(tmp_path / "nowhere.pth"))
    finding = found(doctor._lpips)["LPIPS trunk"]
    assert (finding.state, "nowhere.pth" in finding.detail) == ("broken", True)
    (tmp_path / "nowhere.pth").touch()
    assert found(doctor._lpips)["LPIPS trunk"].state == "ok"


def test_extras_and_the_browser(found, monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "never", ("no_such_module_at_all", "never", "nothing"))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    findings = found(doctor._extras)
    assert (findings["never"].state, findings["never"].fix) == ("missing", "pip install 'cloakbench[never]'")
    assert findings["Chromium"].state == "missing"


def test_the_store_its_disk_and_what_is_left_in_it(found, tmp_path, monkeypatch):
    folder = tmp_path / "cloakbench_store"
    assert found(doctor._store)["contents"].detail == "0 artefacts, 0.00 GB"
    (folder / "embed/0a").mkdir(parents=True)
    for name in ("0a1.bin", "0a1.json", "0a2.corrupt", ".0a3.bin.ffff.tmp"):
        (folder / "embed/0a" / name).write_bytes(b"x")
    finding = found(doctor._store)["contents"]
    assert finding.state == "broken"
    assert "1 artefacts" in finding.detail
    assert "1 unfinished files" in finding.detail
    assert "1 artefacts that changed" in finding.detail
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10, 5, doctor.LEAST_FREE - 1))
    assert found(doctor._store)["disk"].state == "broken"
    monkeypatch.setattr(doctor, "WALK_S", -1.0)
    assert found(doctor._store)["contents"].detail.startswith("more than ")


def test_a_store_that_cannot_be_written(found, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLOAKBENCH_STORE", str(tmp_path / "file/store"))
    finding = found(doctor._store)["folder"]
    assert (finding.state, finding.needed) == ("broken", True)
    assert "--store" in finding.fix


def test_an_old_python(found, monkeypatch):
    assert states(found(doctor._python)) == {"Python": "ok"}
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (sys.version_info[0] + 1, 0))
    assert found(doctor._python)["Python"].state == "broken"
