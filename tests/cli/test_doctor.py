"""`bench doctor`: what it prints, and the settings it judges."""

import json

import pytest

from bench.assets import doctor


@pytest.fixture
def examined(monkeypatch, tmp_path):
    """Stand in for the examination of the machine, which has its own tests; give its findings."""
    findings = [
        doctor.Finding(area="machine", name="Python", state="ok", detail="here", needed=True),
        doctor.Finding(area="weights", name="a-net", state="missing", detail="not here", fix="fetch it"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: tuple(findings))
    monkeypatch.chdir(tmp_path)
    return findings


def test_it_says_what_is_missing_and_how_to_get_it(cli, examined):
    del examined
    code, out, err = cli("doctor")
    assert (code, err) == (0, "")
    assert "  missing  a-net" in out
    assert "→ fetch it" in out
    assert out.endswith("The embedded default can run: bench run --attack pgd\n")
    _, quiet, _ = cli("doctor", "-q")
    assert "Python" not in quiet
    assert "a-net" in quiet


def test_as_json_and_its_exit_code(cli, examined):
    code, out, _ = cli("doctor", "--json")
    document = json.loads(out)
    assert (code, document["can_run"]) == (0, True)
    assert document["findings"][1]["fix"] == "fetch it"
    examined[0] = examined[0].model_copy(update={"state": "broken", "fix": "fix it"})
    code, out, err = cli("doctor", "--json")
    assert (code, json.loads(out)["can_run"], err) == (1, False, "")
    assert "cannot run" in cli("doctor", "-q")[1]


def test_the_settings_file_and_variables_that_are_no_options(cli, examined, tmp_path, monkeypatch):
    del examined
    (tmp_path / "cloakbench.toml").write_text("[run]\nthreads = 1\n")
    monkeypatch.setenv("CLOAKBENCH_RUN_THREADZ", "2")
    monkeypatch.setenv("CLOAKBENCH_RUN_BATCH_SIZE", "2")
    found = {item["name"]: item for item in json.loads(cli("doctor", "--json")[1])["findings"]}
    assert found["file"]["detail"] == "cloakbench.toml sets options of run"
    assert found["CLOAKBENCH_RUN_BATCH_SIZE"]["state"] == "ok"
    assert found["CLOAKBENCH_DATA"]["state"] == "ok"
    assert found["CLOAKBENCH_RUN_THREADZ"]["fix"] == "Did you mean CLOAKBENCH_RUN_THREADS?"
    (tmp_path / "cloakbench.toml").write_text("[run]\nthreadz = 1\n")
    code, out, _ = cli("doctor", "--json")
    broken = next(item for item in json.loads(out)["findings"] if item["name"] == "file")
    assert code == 1
    assert "unknown option 'threadz'. Did you mean 'threads'?" in broken["detail"]
