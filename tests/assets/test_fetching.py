"""What `bench fetch` does with publishers' files: over a real connection, from mirrors, and by recipes."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from publishers import REWRITING, cut, held, redirect, status, trickle

from bench.assets import catalogue, downloads, fetching
from bench.assets.downloads import Patience
from bench.assets.fetching import Fetcher, failed
from bench.assets.mirrors import Mirror
from bench.contracts import AssetEntry, AssetFile, Recipe, Source
from bench.data.files import VARIABLE
from bench.errors import DataError, UsageError

RAW = "https://raw.publisher.example/repo/commit/model.raw"
RAW_CONTENT = bytes(range(256)) * 3000
MADE = RAW_CONTENT[::-1]
TOY_SCRIPT = Path(__file__).with_name("toy_fetch.py")


def sha(content):
    return hashlib.sha256(content).hexdigest()


def backwards(sources, target):
    (source,) = sources
    target.write_bytes(source.read_bytes()[::-1])


def raw(**changes):
    return Source(
        **{"name": "model.raw", "url": RAW, "sha256": sha(RAW_CONTENT), "bytes": len(RAW_CONTENT)} | changes
    )


def made(*recipes, **changes):
    recipes = recipes or (Recipe(sources=(raw(),), convert=backwards),)
    fields = {"path": "weights/toy/model.bin", "sha256": sha(MADE), "bytes": len(MADE), "recipes": recipes}
    return AssetFile(**fields | changes)


def entry(*files, **changes):
    fields = {"name": "toy", "kind": "weights", "what": "w", "licence": "l", "files": files or (made(),)}
    return AssetEntry(**fields | {"how": "Ask a friend."} | changes)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def fetcher(data, publishers):
    publishers.add(RAW, RAW_CONTENT)
    return Fetcher(patience=Patience(pause_s=0.01))


def contents(folder):
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.endswith(".lock")}


def test_a_file_is_made_of_its_source_and_nothing_else_stays(fetcher, data):
    told, said = [], []
    fetcher.report, fetcher.say = lambda *step: told.append(step), said.append
    done = fetcher.fetch(entry())
    assert done.written == (data / "weights/toy/model.bin",)
    assert done.notes == ()
    assert contents(data) == {"weights/toy/model.bin": MADE}
    assert told[-1] == ("model.raw", len(RAW_CONTENT), len(RAW_CONTENT))
    assert said == ["Making weights/toy/model.bin …"]


def test_what_is_here_is_left_alone_even_in_a_folder_nobody_may_write(fetcher, data, publishers):
    fetcher.fetch(entry())
    before = (data / "weights/toy/model.bin").stat().st_mtime_ns
    shutil.rmtree(data / "downloads")
    assert fetcher.fetch(entry()).written == ()
    assert (data / "weights/toy/model.bin").stat().st_mtime_ns == before
    assert not (data / "downloads").exists()
    assert len(publishers.asked(RAW)) == 1


def test_an_equal_file_of_another_program_counts_as_here(fetcher, data):
    other = made(equivalents=(sha(b"other program"),))
    (data / "weights/toy").mkdir(parents=True)
    (data / "weights/toy/model.bin").write_bytes(b"other program")
    assert fetcher.fetch(entry(other)).written == ()


def test_but_no_converter_may_make_it(fetcher, data):
    def other(_sources, target):
        target.write_bytes(b"other program")

    file = made(Recipe(sources=(raw(),), convert=other), equivalents=(sha(b"other program"),))
    with pytest.raises(
        DataError, match=rf"made of model\.raw has SHA-256 .* must have {sha(MADE)}\. Nothing was kept"
    ):
        fetcher.fetch(entry(file))
    assert contents(data).keys() == {"downloads/toy/model.raw"}


def test_a_broken_file_is_replaced_once_the_whole_one_is_here(fetcher, data, publishers):
    (data / "weights/toy").mkdir(parents=True)
    (data / "weights/toy/model.bin").write_bytes(b"rotten")
    publishers.fault(RAW, status(404))
    with pytest.raises(DataError, match="answers 404"):
        fetcher.fetch(entry())
    assert contents(data) == {"weights/toy/model.bin": b"rotten"}
    fetcher.fetch(entry())
    assert contents(data) == {"weights/toy/model.bin": MADE}


def test_sources_are_kept_where_wanted_and_used_again(data, publishers):
    publishers.add(RAW, RAW_CONTENT)
    done = Fetcher(keep=True).fetch(entry())
    assert done.notes == (f"The publishers' files are kept in {data / 'downloads/toy'}.",)
    assert (data / "downloads/toy/model.raw").read_bytes() == RAW_CONTENT
    (data / "weights/toy/model.bin").unlink()
    Fetcher().fetch(entry())
    assert len(publishers.asked(RAW)) == 1
    assert contents(data) == {"weights/toy/model.bin": MADE}


@pytest.mark.parametrize("digits", [8, 64])
def test_a_kept_source_that_rotted_is_downloaded_again(fetcher, data, digits):
    (data / "downloads/toy").mkdir(parents=True)
    (data / "downloads/toy/model.raw").write_bytes(b"rotten")
    fetcher.fetch(entry(made(Recipe(sources=(raw(sha256=sha(RAW_CONTENT)[:digits]),), convert=backwards))))
    assert contents(data) == {"weights/toy/model.bin": MADE}


def test_one_source_of_several_files_is_downloaded_once(fetcher, data, publishers):
    def forwards(sources, target):
        shutil.copyfile(sources[0], target)

    second = made(
        Recipe(sources=(raw(),), convert=forwards), path="weights/toy/second.bin", sha256=sha(RAW_CONTENT)
    )
    fetcher.fetch(entry(made(), second))
    assert contents(data) == {"weights/toy/model.bin": MADE, "weights/toy/second.bin": RAW_CONTENT}
    assert len(publishers.asked(RAW)) == 1


def test_a_published_file_is_taken_as_it_is(fetcher, data):
    file = made(Recipe(sources=(raw(),)), sha256=sha(RAW_CONTENT))
    fetcher.fetch(entry(file))
    assert contents(data) == {"weights/toy/model.bin": RAW_CONTENT}


def test_the_next_way_is_tried_where_a_source_is_gone_or_another(fetcher, data, publishers):
    gone = Recipe(sources=(raw(url="https://gone.example/model.raw"),), convert=backwards)
    other = Recipe(sources=(raw(url="https://changed.example/model.raw"),), convert=backwards)
    publishers.add("https://changed.example/model.raw", b"changed")
    fetcher.fetch(entry(made(gone, other, Recipe(sources=(raw(),), convert=backwards))))
    assert contents(data) == {"weights/toy/model.bin": MADE}
    with pytest.raises(DataError, match=r"changed\.example/model\.raw has SHA-256"):
        fetcher.fetch(entry(made(gone, other, path="weights/toy/x.bin")))


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "site/toy_package_of_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def test_an_installed_package_saves_the_download_and_is_not_imported(fetcher, data, publishers, package):
    (package / "model.raw").write_bytes(RAW_CONTENT)
    inside = raw(url="", package="toy_package_of_weights:model.raw")
    both = made(*(Recipe(sources=(source,), convert=backwards) for source in (raw(), inside)))
    done = fetcher.fetch(entry(both))
    assert contents(data) == {"weights/toy/model.bin": MADE}
    assert done.notes == ("model.raw was taken from the installed package toy_package_of_weights.",)
    assert publishers.seen == []


def test_a_package_of_another_version_is_passed_over(fetcher, data, publishers, package):
    (package / "model.raw").write_bytes(b"another version")
    fetcher.fetch(
        entry(made(Recipe(sources=(raw(package="toy_package_of_weights:model.raw"),), convert=backwards)))
    )
    assert contents(data) == {"weights/toy/model.bin": MADE}
    inside = raw(url="", package="toy_package_of_weights:model.raw")
    nowhere = entry(made(Recipe(sources=(inside,), convert=backwards), path="weights/toy/x.bin"))
    with pytest.raises(
        UsageError, match=r"no public source is known for weights/toy/x\.bin\. Ask a friend\. The place is"
    ):
        fetcher.fetch(nowhere)


# -- mirrors -------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path):
    (tmp_path / "mirror").mkdir()
    return tmp_path / "mirror"


@pytest.mark.parametrize("name", ["model.raw", "model.bin", "weights/toy/model.bin"])
@pytest.mark.parametrize("kind", ["folder", "file", "http"])
def test_a_mirror_has_sources_by_name_and_finished_files(data, publishers, mirror, kind, name):
    content = RAW_CONTENT if name.endswith("raw") else MADE
    (mirror / name).parent.mkdir(parents=True, exist_ok=True)
    (mirror / name).write_bytes(content)
    publishers.add(f"https://mirror.example/pub/{name}", content)
    text = {"folder": str(mirror), "file": mirror.as_uri(), "http": "https://mirror.example/pub/"}[kind]
    Fetcher(Mirror.at(text)).fetch(entry())
    assert contents(data) == {"weights/toy/model.bin": MADE}
    assert publishers.asked(RAW) == []


def test_a_mirror_may_have_an_equal_file(data, mirror):
    (mirror / "model.bin").write_bytes(b"other program")
    Fetcher(Mirror.at(str(mirror))).fetch(entry(made(equivalents=(sha(b"other program"),))))
    assert contents(data) == {"weights/toy/model.bin": b"other program"}


def test_a_wrong_finished_file_of_a_mirror_does_not_hide_its_source(data, mirror):
    (mirror / "model.bin").write_bytes(b"wrong")
    with pytest.raises(
        DataError, match=rf"mirror/model\.bin has SHA-256 {sha(b'wrong')}, weights/toy/model\.bin must"
    ):
        Fetcher(Mirror.at(str(mirror))).fetch(entry())
    (mirror / "model.raw").write_bytes(RAW_CONTENT)
    Fetcher(Mirror.at(str(mirror))).fetch(entry())
    assert contents(data) == {"weights/toy/model.bin": MADE}


def test_a_wrong_source_of_a_mirror_is_refused_with_both_digests(data, mirror):
    (mirror / "model.raw").write_bytes(b"wrong")
    with pytest.raises(
        DataError, match=rf"model\.raw has SHA-256 {sha(b'wrong')}, expected {sha(RAW_CONTENT)}"
    ):
        Fetcher(Mirror.at(str(mirror))).fetch(entry())


def test_a_mirror_that_lacks_a_file_is_not_mixed_with_the_publisher(fetcher, data, publishers, mirror):
    fetcher.mirror = Mirror.at(str(mirror))
    with pytest.raises(UsageError, match=rf"{mirror} lacks weights/toy/model\.bin"):
        fetcher.fetch(entry())
    fetcher.mirror = Mirror.at("https://mirror.example/empty")
    with pytest.raises(DataError, match=r"mirror\.example/empty/model\.raw answers 404"):
        fetcher.fetch(entry())
    assert publishers.asked(RAW) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("s3://bucket", r"'s3://bucket' cannot be read; valid: http"), ("/no/such/folder", "is not a folder")],
)
def test_a_mirror_that_is_none_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        Mirror.at(text)


# -- publishers that state no digest --------------------------------------------------------------------------


def test_the_first_digest_is_noted_and_another_refused(fetcher, data, publishers):
    file = made(Recipe(sources=(raw(sha256=""),)), sha256="", bytes=0)
    done = fetcher.fetch(entry(file))
    assert done.notes == (
        "The publisher of weights/toy/model.bin states no digest: the SHA-256 of this first download "
        f"({sha(RAW_CONTENT)}) was noted in {data / 'first-digests.json'}, and another will be refused.",
    )
    noted = {"weights/toy/model.bin": sha(RAW_CONTENT)}
    assert json.loads((data / "first-digests.json").read_text()) == noted
    (data / "weights/toy/model.bin").write_bytes(b"rotten")
    assert catalogue.state_of(entry(file)).state == "corrupt"
    publishers.add(RAW, b"changed")
    with pytest.raises(
        DataError, match=rf"{sha(b'changed')}; the first download had {sha(RAW_CONTENT)} \(noted in"
    ):
        fetcher.fetch(entry(file))
    assert (data / "weights/toy/model.bin").read_bytes() == b"rotten"
    publishers.add(RAW, RAW_CONTENT)
    assert fetcher.fetch(entry(file)).notes == ()
    assert catalogue.state_of(entry(file)).state == "present"


def test_a_source_that_cannot_be_checked_and_cannot_be_converted_is_not_kept(fetcher, data, publishers):
    def refuses(_sources, _target):
        raise DataError("model.raw is cut off.")

    with pytest.raises(DataError, match="cut off"):
        fetcher.fetch(entry(made(Recipe(sources=(raw(sha256=""),), convert=refuses))))
    assert contents(data) == {}


def test_nor_where_its_converter_breaks_down(fetcher, data, publishers):
    """A parser's own error is no reason to try the same bytes again."""

    def breaks(_sources, _target):
        raise RecursionError("headers without end")

    with pytest.raises(RecursionError):
        fetcher.fetch(entry(made(Recipe(sources=(raw(sha256=""),), convert=breaks))))
    assert contents(data) == {}


def test_but_it_is_kept_where_only_the_disk_is_full(fetcher, data):
    def full(_sources, target):
        raise OSError(28, "No space left on device", str(target))

    with pytest.raises(fetching.DiskFullError, match="what was downloaded is kept"):
        fetcher.fetch(entry(made(Recipe(sources=(raw(sha256=""),), convert=full))))
    assert contents(data) == {"downloads/toy/model.raw": RAW_CONTENT}


def test_the_size_that_is_stated_bounds_sources_and_finished_files(fetcher, data, publishers):
    publishers.add(RAW, RAW_CONTENT + b"x")
    longer = rf"model\.raw gives more bytes than the {len(RAW_CONTENT):,} that the file has"
    with pytest.raises(DataError, match=longer):
        fetcher.fetch(entry())
    publishers.add("https://mirror.example/weights/toy/model.bin", MADE + b"x")
    fetcher.mirror = Mirror.at("https://mirror.example")
    with pytest.raises(DataError, match=rf"model\.bin gives more bytes than the {len(MADE):,} that the file"):
        fetcher.fetch(entry())
    assert contents(data) == {}


# -- several at once, and ends ---------------------------------------------------------------------------------


def test_what_fails_does_not_keep_the_others(fetcher, data, publishers):
    lost = entry(
        made(Recipe(sources=(raw(url="https://gone.example/a"),), convert=backwards), path="x/a"), name="lost"
    )
    fetched, failures = fetcher.fetch_all([lost, entry()])
    assert [one.entry.name for one in fetched] == ["toy"]
    assert str(failed(failures)).startswith("lost: https://gone.example/a answers 404")


def test_hosts_that_are_silent_are_one_sentence_and_asked_once(data, monkeypatch):
    import requests

    asked = []

    def refuse(_session, url, **_options):
        asked.append(url)
        raise requests.exceptions.ConnectionError("no route")

    monkeypatch.setattr(requests.Session, "get", refuse)
    fetcher = Fetcher(patience=Patience(pause_s=0.0))
    names = ("one", "two", "three")
    urls = ("https://a.example/x", "https://a.example/y", "https://b.example/z")
    entries = [
        entry(made(Recipe(sources=(raw(url=url),), convert=backwards), path=f"x/{name}"), name=name)
        for name, url in zip(names, urls, strict=True)
    ]
    _, failures = fetcher.fetch_all(entries)
    assert str(failed(failures)) == (
        "one, two, three: a.example and b.example cannot be reached (ConnectionError). Check the network, name a proxy "
        "(HTTPS_PROXY), or give a copy with --from URL_OR_FOLDER."
    )
    assert asked == [urls[0]] * 3 + [urls[2]] * 3


def test_a_disk_that_fills_up_ends_everything_in_a_sentence(fetcher, data, monkeypatch):
    def full(_sources, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(target))

    first = entry(made(Recipe(sources=(raw(),), convert=full)))
    fetched, failures = fetcher.fetch_all([first, entry(made(path="x/second"), name="second")])
    assert fetched == []
    assert len(failures) == 1
    assert (
        "is full (No space left on device). Nothing half is left; what was downloaded is kept. Free some"
        in str(failed(failures))
    )
    assert contents(data) == {"downloads/toy/model.raw": RAW_CONTENT}


def test_a_disk_that_fills_up_while_a_file_arrives_keeps_what_arrived(fetcher, data, publishers, monkeypatch):
    """As the system's own answer to a write: the 21st block is refused."""
    pieces = downloads._pieces

    def until_full(response):
        for number, piece in enumerate(pieces(response)):
            if number == 2:
                raise OSError(28, "No space left on device")
            yield piece

    monkeypatch.setattr(downloads, "_pieces", until_full)
    with pytest.raises(fetching.DiskFullError, match="Nothing half is left; what was downloaded is kept"):
        fetcher.fetch(entry())
    kept = len(contents(data)["downloads/toy/model.raw.part"])
    assert 0 < kept < len(RAW_CONTENT)
    monkeypatch.setattr(downloads, "_pieces", pieces)
    fetcher.fetch(entry())
    assert publishers.asked(RAW) == ["", f"bytes={kept}-"]
    assert contents(data) == {"weights/toy/model.bin": MADE}


def test_a_folder_that_cannot_be_made_is_a_sentence(fetcher, data):
    data.write_text("a file where the data folder should be")
    with pytest.raises(DataError, match=r"toy is not fetched: .*data.* cannot be written"):
        fetcher.fetch(entry())


def test_what_has_no_way_leaves_nothing_behind(fetcher, data):
    nowhere = entry(made(recipes=()), made(recipes=(), path="weights/toy/second.bin"))
    with pytest.raises(
        UsageError, match=r"no public source is known for weights/toy/model\.bin, weights/toy/s"
    ):
        fetcher.fetch(nowhere)
    assert not data.exists()


def test_what_has_a_way_comes_though_another_file_has_none(fetcher, data):
    with pytest.raises(UsageError, match=r"no public source is known for weights/toy/second\.bin"):
        fetcher.fetch(entry(made(), made(recipes=(), path="weights/toy/second.bin")))
    assert contents(data)["weights/toy/model.bin"] == MADE


def test_too_small_a_disk_is_told_before_the_download_and_ends_everything(
    fetcher, data, publishers, monkeypatch
):
    usage = shutil.disk_usage(data.parent)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _path: usage._replace(free=10))
    fetched, failures = fetcher.fetch_all([entry(), entry(made(path="x/second"), name="second")])
    assert (fetched, [one.name for one in failures]) == ([], ["toy"])
    assert f"has 10 bytes free, model.raw needs {len(RAW_CONTENT):,}" in str(failed(failures))
    assert publishers.seen == []


# -- processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(data, publishers, tmp_path):
    """Return a function that starts ``bench …`` with the toy entry in its catalogue and our server for the net."""
    publishers.add(RAW, RAW_CONTENT)
    paths = os.pathsep.join([str(REWRITING), str(Path(__file__).parent)])
    own = {key: value for key, value in os.environ.items() if not key.startswith("CLOAKBENCH_")}
    own |= {
        VARIABLE: str(data),
        "PYTHONPATH": paths,
        "TEST_PUBLISHERS": publishers.base,
        "OMP_NUM_THREADS": "1",
    }

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, str(TOY_SCRIPT), *arguments],
            env=own,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def wait_for(path, size):
    until = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size >= size):
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.01)


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


ENDED = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}
"""Signal → exit code of a command that it ended."""


@pytest.mark.system
def test_the_command_fetches_and_says_where(bench, data):
    code, out, err = finish(bench("fetch", "toy"))
    assert (code, out) == (0, f"{data / 'weights/toy/model.bin'}\n"), err
    assert err.splitlines() == [
        "model.raw: 0.0 of 0.8 MB (0%)",
        "model.raw: 0.8 of 0.8 MB (100%)",
        "Making weights/toy/model.bin …",
    ]
    code, out, err = finish(bench("fetch", "toy", "--json"))
    assert (code, err) == (0, "")
    assert json.loads(out) == [{"name": "toy", "files": [], "notes": []}]


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_killed_leaves_no_file_and_the_next_goes_on(bench, data, publishers, number):
    gate = threading.Event()
    publishers.fault(RAW, held(60_000, gate))
    first = bench("fetch", "toy")
    part = data / "downloads/toy/model.raw.part"
    wait_for(part, 60_000)
    first.send_signal(number)
    code, out, err = finish(first)
    gate.set()
    assert out == ""
    if number == signal.SIGINT:
        assert (code, err.splitlines()[-1]) == (
            130,
            "Interrupted. What was computed is kept; the same command goes on from there.",
        )
    assert [path for path in (data / "weights").rglob("*") if path.is_file()] == []
    kept = part.stat().st_size
    code, out, err = finish(bench("fetch", "toy"))
    assert code == 0, err
    assert publishers.asked(RAW) == ["", f"bytes={kept}-"]
    assert contents(data) == {"weights/toy/model.bin": MADE}


@pytest.mark.system
@pytest.mark.parametrize(
    ("number", "kills"),
    [
        (signal.SIGKILL, 2),
        *(
            pytest.param(number, 100, marks=pytest.mark.slow)
            for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
        ),
    ],
)
def test_killed_anywhere_again_and_again_it_fetches_the_same_file(bench, data, publishers, number, kills):
    """At moments that a seed draws; whenever one command came to its end the next begins with nothing."""
    publishers.fault(RAW, *[trickle(40_000, 0.02)] * (2 * kills + 2))
    draw = random.Random(kills)
    start = time.monotonic()
    assert finish(bench("fetch", "toy"))[0] == 0
    took = time.monotonic() - start
    for _ in range(kills):
        if (data / "weights/toy/model.bin").exists():
            shutil.rmtree(data)
        process = bench("fetch", "toy")
        if number != signal.SIGKILL:  # before it heeds signals, Python's own answer is a traceback
            wait_for(data / "downloads/toy", 0)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=draw.uniform(0.1, 1.1) * took)
        process.send_signal(number)
        code, out, err = finish(process)
        made = (data / "weights/toy/model.bin").exists()
        assert not made or contents(data)["weights/toy/model.bin"] == MADE
        assert "Traceback" not in err, err
        # At its very end Python leaves signals to the system again.
        assert code in (0, ENDED[number], -number), err
        assert made or not out
    code, _, err = finish(bench("fetch", "toy"))
    assert code == 0, err
    assert contents(data) == {"weights/toy/model.bin": MADE}


@pytest.mark.system
def test_a_command_killed_while_it_converts_leaves_nothing_for_the_next(bench, data):
    first = bench("fetch", "toy-slow")
    beside = data / "weights/toy/.fetch-slow.bin/slow.bin"
    wait_for(beside, 1)
    first.kill()
    finish(first)
    assert not (data / "weights/toy/slow.bin").exists()
    code, _, err = finish(bench("fetch", "toy-slow"))
    assert code == 0, err
    assert contents(data) == {"weights/toy/slow.bin": MADE}
    assert not beside.parent.exists()


@pytest.mark.system
def test_two_commands_for_one_file_take_turns_and_both_end_well(bench, data, publishers):
    gate = threading.Event()
    publishers.fault(RAW, held(60_000, gate))
    first = bench("fetch", "toy")
    wait_for(data / "downloads/toy/model.raw.part", 1)
    second = bench("fetch", "toy")
    assert second.stderr.readline() == "Another command fetches toy; this one waits for it.\n"
    gate.set()
    (code, _, err), (other_code, other_out, other_err) = finish(first), finish(second)
    assert (code, other_code) == (0, 0), (err, other_err)
    assert (other_out, other_err) == ("", "toy is here and whole.\n")
    assert publishers.asked(RAW) == [""]
    assert contents(data) == {"weights/toy/model.bin": MADE}


@pytest.mark.system
def test_terms_need_a_yes(bench, data):
    code, out, err = finish(bench("fetch", "toy-terms"))
    assert (code, out) == (2, "")
    assert "the publisher of toy-terms asks: for research only. Say --yes if you agree to that." in err
    assert finish(bench("fetch", "toy-terms", "--yes"))[0] == 0


@pytest.mark.system
def test_the_command_says_in_one_line_what_went_wrong(bench, publishers):
    publishers.fault(RAW, redirect("https://elsewhere.example/model.raw"))
    publishers.add("https://elsewhere.example/model.raw", b"wrong")
    code, out, err = finish(bench("fetch", "toy"))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(
        f"Error: toy: {RAW} has SHA-256 {sha(b'wrong')}, expected {sha(RAW_CONTENT)}."
    )


@pytest.mark.system
def test_a_cut_connection_is_not_even_noticed(bench, publishers):
    publishers.fault(RAW, cut(100_000))
    assert finish(bench("fetch", "toy"))[0] == 0
    assert publishers.asked(RAW) == ["", "bytes=100000-"]
