"""`bench store export` and `import`: a colleague elsewhere has the run, computes nothing of it, and trusts no byte."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.errors import DataError
from bench.run.exports import Index
from bench.run.folder import ManifestEntry
from bench.run.store import Store
from bench.run.store_care import survey


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def digest_of(run):
    return json.loads((run / "spec.json").read_bytes())["run"]


@pytest.fixture
def forget_memory():
    fsspec = pytest.importorskip("fsspec", reason="the extra `cloud` is not installed")
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def taken_in(cli, finished, matrix, tmp_path, digests):
    """Return a function that takes an export in, elsewhere, and shows that all is there."""

    def take(place):
        store, out = tmp_path / "there" / "store", tmp_path / "there" / "runs"
        code, said, err = cli("store", "import", place, "--store", store, "--out", out)
        assert code == 0, err
        run = out / digest_of(finished.run)
        number = len(digests(finished.store))
        assert said == f"{run}: {number} artefacts, {number} of them new in the store\n"
        assert digests(store) == digests(finished.store)
        assert {item.state for item in survey(Store(store))} == {"whole"}
        assert files(run) == {
            name: content
            for name, content in files(finished.run).items()
            if name.as_posix()
            in {*json.loads((finished.run / "manifest.json").read_bytes()), "manifest.json"}
        }
        return store, run

    return take


@pytest.mark.parametrize("where", ["{}/given", "{}/given.zip", "file://{}/given", "memory://given/deep"])
def test_a_colleague_computes_nothing_and_makes_the_same_table(
    cli, finished, matrix, tmp_path, taken_in, forget_memory, where, digests
):
    place = where.format(tmp_path)
    code, out, err = cli("store", "export", finished.run, place, "--store", finished.store)
    assert code == 0, err
    assert out == f"1 run and {len(digests(finished.store))} artefacts in {place}\n"
    store, run = taken_in(place)
    code, _, err = cli("leaderboard", run, "--csv", tmp_path / "again.csv")
    assert code == 0, err
    assert (tmp_path / "again.csv").read_bytes() == finished.csv.read_bytes()
    code, _, err = cli("run", *matrix, "--store", store, "--out", tmp_path / "own")
    assert code == 0, err
    assert "nothing was computed" in err
    assert (tmp_path / "own/leaderboard.csv").read_bytes() == finished.csv.read_bytes()


def test_what_is_taken_in_already_is_not_copied_again(cli, finished, tmp_path, stored):
    given, store, out = tmp_path / "given", tmp_path / "store", tmp_path / "runs"
    for _ in range(2):
        assert cli("store", "export", finished.run, given, "--store", finished.store)[0] == 0
    assert cli("store", "import", given, "--store", store, "--out", out)[0] == 0
    before = stored(store), files(out)
    gone = next(store.glob("cloak/*/*.bin"))
    gone.unlink()
    code, said, err = cli("store", "import", given, "--store", store, "--out", out, "--json")
    assert code == 0, err
    (one,) = json.loads(said)["runs"]
    assert (one["copied"], one["kept"], one["faults"]) == (1, False, [])
    after = stored(store), files(out)
    assert after[1] == before[1]
    changed = {Path(name).stem for name, when in after[0].items() if before[0][name] != when}
    assert changed == {gone.stem}


def test_only_runs_that_are_asked_for(cli, finished, tmp_path):
    given, run = tmp_path / "given", digest_of(finished.run)
    assert cli("store", "export", finished.run, given, "--store", finished.store)[0] == 0
    where = ("--store", tmp_path / "store", "--out", tmp_path / "runs")
    assert cli("store", "import", given, "--run", run[:5], *where)[0] == 0
    code, _, err = cli("store", "import", given, "--run", "zzz", *where)
    assert code == 2
    assert err == f"Error: run 'zzz' is not exported at {given}. There: {run}.\n"


def test_a_run_that_was_made_here_too_keeps_its_folder(cli, finished, tmp_path):
    given, out = tmp_path / "given", tmp_path / "runs"
    assert cli("store", "export", finished.run, given, "--store", finished.store)[0] == 0
    own = shutil.copytree(finished.run, out / digest_of(finished.run))
    manifest = json.loads((own / "manifest.json").read_bytes())
    manifest["timings.csv"]["sha256"] = "0" * 64
    (own / "manifest.json").write_text(json.dumps(manifest))
    before = files(own)
    code, said, _ = cli("store", "import", given, "--store", tmp_path / "store", "--out", out)
    assert code == 0
    assert said.endswith(", left as it was: made here too\n")
    assert files(own) == before


def test_another_run_is_not_written_over(cli, finished, tmp_path):
    given, out = tmp_path / "given", tmp_path / "runs"
    assert cli("store", "export", finished.run, given, "--store", finished.store)[0] == 0
    own = out / digest_of(finished.run)
    own.mkdir(parents=True)
    (own / "spec.json").write_text('{"run": "another"}')
    code, _, err = cli("store", "import", given, "--store", tmp_path / "store", "--out", out)
    assert code == 2
    assert "holds run another" in err


# -- what is wrong there is named, and nothing of it is written ------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FAULTS = {
    "a bit of a payload": ("cloak/*/*.bin", flip, "it has another SHA-256"),
    "a payload cut short": ("embed/*/*.bin", lambda path: os.truncate(path, 7), "is 7 bytes long, and was"),
    "no payload": ("faces/*/*.bin", Path.unlink, "is missing"),
    "a record cut short": ("decide/*/*.json", lambda path: os.truncate(path, 40), "is damaged"),
    "another's record": (
        "purify/*/*.json",
        lambda path: path.write_text('{"key": {}, "sha256": "", "size": 0, "seconds": 0, "images": 0}'),
        "is damaged, or another artefact's",
    ),
    "no record": ("measure/*/*.json", Path.unlink, "is missing"),
    "a bit of a decision file": ("runs/*/decisions/*.parquet", flip, "it has another SHA-256"),
    "no list of cells": ("runs/*/cells.json", Path.unlink, "is missing"),
}
"""What can be wrong at a place → an object, how it comes about, what is said of it."""


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_damaged_there_is_named_and_the_rest_is_taken_in(
    cli, finished, tmp_path, taken_in, what, digests
):
    given, store, out = tmp_path / "given", tmp_path / "store", tmp_path / "runs"
    assert cli("store", "export", finished.run, given, "--store", finished.store)[0] == 0
    pattern, bring_about, said = FAULTS[what]
    path = min(given.glob(pattern))
    bring_about(path)
    code, _, err = cli("store", "import", given, "--store", store, "--out", out)
    assert code == 2
    assert f"1 objects at {given} are missing or damaged: " in err
    assert path.relative_to(given).as_posix() in err
    assert said in err
    assert {item.state for item in survey(Store(store))} == {"whole"}
    lost = path.is_relative_to(given / "runs")
    assert len(digests(store)) == len(digests(finished.store)) - (not lost)
    assert (out / digest_of(finished.run) / "manifest.json").exists() == (not lost)
    path.unlink(missing_ok=True)
    assert cli("store", "export", finished.run, given, "--store", finished.store)[0] == 0
    assert cli("store", "import", given, "--store", store, "--out", out)[0] == 0
    taken_in(given)


@pytest.mark.parametrize(
    "damage", [flip, lambda path: os.truncate(path, 100), lambda path: path.write_text("[]")]
)
def test_a_damaged_index_is_refused(cli, finished, tmp_path, damage):
    given = tmp_path / "given"
    assert cli("store", "export", finished.run, given, "--store", finished.store)[0] == 0
    (index,) = (given / "exports").iterdir()
    damage(index)
    code, _, err = cli("store", "import", given, "--store", tmp_path / "store", "--out", tmp_path / "runs")
    assert code == 2
    assert err.startswith(f"Error: {given}: exports/{index.name} is damaged")
    assert not (tmp_path / "store").exists()


def test_a_damaged_zip_names_what_is_damaged(cli, finished, tmp_path):
    given = tmp_path / "given.zip"
    assert cli("store", "export", finished.run, given, "--store", finished.store)[0] == 0
    where = ("--store", tmp_path / "store", "--out", tmp_path / "runs")
    content = given.read_bytes()
    payload = next(finished.store.glob("cloak/*/*.bin")).read_bytes()
    at = content.index(payload) + len(payload) // 2
    given.write_bytes(content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :])
    code, _, err = cli("store", "import", given, *where)
    assert code == 2
    assert re.search(r"cloak/../[0-9a-f]{64}\.bin of .*given.zip is damaged", err)
    given.write_bytes(content[:1000])
    code, _, err = cli("store", "import", given, *where)
    assert (code, "cannot be read as a zip file" in err) == (2, True)


ENTRY = ManifestEntry(sha256="0" * 64, size=1)


@pytest.mark.parametrize(
    "fields",
    [
        {"run": "../../elsewhere"},
        {"run": "0" * 12, "files": {"../spec.json": ENTRY}},
        {"run": "0" * 12, "files": {"decisions/../../x": ENTRY}},
        {"run": "0" * 12, "files": {"/etc/passwd": ENTRY}},
        {"run": "0" * 12, "files": {"decisions\\..\\x": ENTRY}},
        {"run": "0" * 12, "artefacts": {"cloak/../../x": ENTRY}},
        {"run": "0" * 12, "artefacts": {f"runs/{'0' * 64}": ENTRY}},
    ],
)
def test_a_strangers_index_leads_nowhere_else(fields):
    with pytest.raises(DataError, match=r"which is none|which no run has"):
        Index.read(Index(**fields).written(), "there")


# -- what cannot be done is said in one sentence ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("foo://bucket/x", "foo://bucket/x cannot be used: Protocol not known: foo."),
        ("memory://nothing", "there is no finished export at memory://nothing: no exports/RUN.json"),
        ("nowhere", "there is no folder or file at nowhere."),
        (__file__, "cannot be read as a zip file"),
    ],
)
def test_a_place_that_is_none_is_said(cli, tmp_path, place, said, forget_memory):
    code, _, err = cli("store", "import", place, "--store", tmp_path / "store", "--out", tmp_path / "runs")
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_without_the_extra_it_is_named(cli, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    code, _, err = cli("store", "import", "s3://bucket/x", "--store", tmp_path)
    assert code == 2
    assert (
        err == "Error: s3://bucket/x needs fsspec, which is not installed: pip install 'cloakbench[cloud]'.\n"
    )


def test_without_a_protocols_package_the_extra_is_named(cli, monkeypatch, tmp_path, forget_memory):
    def absent(_url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    code, _, err = cli("store", "import", "s3://bucket/x", "--store", tmp_path)
    assert code == 2
    assert "Install s3fs to access S3. For s3://: pip install 'cloakbench[cloud]'." in err


def test_an_unfinished_run_is_not_given_away(cli, finished, tmp_path):
    run = shutil.copytree(finished.run, tmp_path / "run")
    (run / "manifest.json").unlink()
    code, _, err = cli("store", "export", run, tmp_path / "given", "--store", finished.store)
    assert code == 2
    assert "is not a finished run" in err


def test_a_file_that_is_there_is_not_written_over(cli, finished, tmp_path):
    given = tmp_path / "given.zip"
    given.write_bytes(b"mine")
    code, _, err = cli("store", "export", finished.run, given, "--store", finished.store)
    assert code == 2
    assert "is there already. Give another name, or remove it first." in err
    assert given.read_bytes() == b"mine"


def test_a_zip_that_lacks_something_is_not_left(cli, finished, tmp_path):
    store = shutil.copytree(finished.store, tmp_path / "store")
    next(store.glob("cloak/*/*.json")).unlink()
    code, _, err = cli("store", "export", finished.run, tmp_path / "out" / "given.zip", "--store", store)
    assert code == 2
    assert "1 artefacts are not in" in err
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_that_was_interrupted_goes_on(
    cli, finished, tmp_path, monkeypatch, forget_memory, taken_in
):
    from fsspec.implementations.memory import MemoryFileSystem

    written, write = [], MemoryFileSystem.pipe_file

    def fail_at(most):
        def pipe_file(self, path, value, **options):
            if len(written) == most:
                raise PermissionError("the key has expired")
            written.append(path)
            return write(self, path, value, **options)

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)

    arguments = ("store", "export", finished.run, "memory://given", "--store", finished.store)
    fail_at(20)
    code, _, err = cli(*arguments)
    assert code == 1
    assert "cannot write memory://given/" in err
    assert ": the key has expired. Check the address, the credentials" in err
    where = ("--store", tmp_path / "no-store", "--out", tmp_path / "no-runs")
    code, _, err = cli("store", "import", "memory://given", *where)
    assert (code, "there is no finished export" in err) == (2, True)
    fail_at(None)
    assert cli(*arguments)[0] == 0
    assert len(written) == len(set(written)), "what is there is not written again"
    taken_in("memory://given")


# -- an object store, spoken to as one ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Start a server that speaks S3 on loopback; gives the environment by which it is found, and a client."""
    if missing := [name for name in ("moto", "flask", "flask_cors", "s3fs", "boto3") if not _is_here(name)]:
        pytest.skip(f"{missing[0]} is not installed: no object store on this machine")
    import boto3

    printed = tmp_path_factory.mktemp("moto") / "log"
    with printed.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=log,
            stderr=log,
        )
    until = time.monotonic() + 120
    while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", printed.read_text())):
        assert server.poll() is None, printed.read_text()
        assert time.monotonic() < until
        time.sleep(0.05)
    environment = {
        "AWS_ENDPOINT_URL": found[1],
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=found[1],
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="bucket")
    yield environment, client
    client.close()
    server.kill()
    server.wait()


def _is_here(name):
    return importlib.util.find_spec(name) is not None


def objects(client, prefix):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=f"{prefix}/")
    return {one["Key"]: one["LastModified"] for page in pages for one in page.get("Contents", ())}


def test_a_run_travels_through_an_object_store(command, finished, matrix, bucket, tmp_path, digests):
    environment, client = bucket
    url, store, out = "s3://bucket/whole", tmp_path / "store", tmp_path / "runs"
    done = command("store", "export", finished.run, url, "--store", finished.store, **environment)
    assert done.returncode == 0, done.stderr
    before = objects(client, "whole")
    damaged = min(name for name in before if name.startswith("whole/cloak/") and name.endswith(".bin"))
    content = client.get_object(Bucket="bucket", Key=damaged)["Body"].read()
    client.put_object(Bucket="bucket", Key=damaged, Body=content[:-1])
    where = ("--store", store, "--out", out)
    done = command("store", "import", url, *where, **environment)
    assert done.returncode == 2
    assert (
        f"{damaged.removeprefix('whole/')} is {len(content) - 1} bytes long, and was {len(content)}"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    done = command("store", "export", finished.run, url, "--store", finished.store, **environment)
    assert done.returncode == 0, done.stderr
    changed = [name for name, when in objects(client, "whole").items() if before[name] != when]
    assert {name for name in changed if not name.startswith("whole/exports/")} == {damaged}
    done = command("store", "import", url, *where, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 of them new in the store\n")
    assert digests(store) == digests(finished.store)
    done = command("run", *matrix, "--store", store, "--out", tmp_path / "own")
    assert done.returncode == 0, done.stderr
    assert "nothing was computed" in done.stderr
    assert (tmp_path / "own/leaderboard.csv").read_bytes() == finished.csv.read_bytes()


@pytest.mark.slow
def test_an_export_to_an_object_store_that_is_ended_goes_on(command, finished, bucket, tmp_path, digests):
    environment, client = bucket
    arguments = ("store", "export", finished.run, "s3://bucket/ended", "--store", finished.store)
    process = command(*arguments, wait=False, **environment)
    until = time.monotonic() + 120
    while not (begun := objects(client, "ended")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode in {0, 143}  # the last object may have been on its way
    assert "Traceback" not in err
    done = command(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    after = objects(client, "ended")
    assert {name: after[name] for name in begun} == begun
    where = ("--store", tmp_path / "store", "--out", tmp_path / "runs")
    done = command("store", "import", "s3://bucket/ended", *where, **environment)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "store") == digests(finished.store)


@pytest.mark.parametrize(
    ("url", "changed", "said"),
    [
        ("s3://none/x", {}, "The specified bucket does not exist"),
        ("s3://bucket/x", {"AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found"),
        pytest.param(
            "s3://bucket/x",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "Could not connect to the endpoint URL",
            marks=pytest.mark.slow,  # it is tried several times
        ),
    ],
)
def test_an_object_store_that_cannot_be_used_is_said(command, finished, bucket, url, changed, said):
    arguments = ("store", "export", finished.run, url, "--store", finished.store, "--quiet")
    done = command(*arguments, **bucket[0] | changed)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Check the address, the credentials" in done.stderr
    assert "Traceback" not in done.stderr
