"""Catalogue, fetching from a folder and over loopback, and the user's own folders. No network is used."""

import hashlib
import json
import shutil
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from bench.assets import catalogue
from bench.assets.catalogue import add, fetch, listing
from bench.contracts import AssetEntry, AssetFile, Recipe, Source
from bench.data.files import VARIABLE
from bench.data.folders import registered
from bench.datasets.folder import Folder
from bench.errors import DataError, UsageError
from bench.plugins import factory, registry

CONTENT = {"toy/a.bin": b"first" * 5000, "toy/b.bin": b"second"}


def pinned(path: str, url: str = "") -> AssetFile:
    content = CONTENT[path]
    recipes = (Recipe(sources=(Source(name=path.rpartition("/")[2], url=url),)),) if url else ()
    return AssetFile(
        path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), recipes=recipes
    )


def toy(*files: AssetFile) -> AssetEntry:
    return AssetEntry(name="toy", kind="dataset", what="w", licence="l", files=files, how="Ask a friend.")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    monkeypatch.setattr(catalogue, "DATASETS", (toy(*map(pinned, CONTENT)),))
    return tmp_path / "data"


@pytest.fixture
def mirror(tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / "mirror" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mirror" / name).write_bytes(content)
    return tmp_path / "mirror"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass

    def do_GET(self):
        if self.path.endswith("cut.bin") or "/broken/" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
        else:
            super().do_GET()


@pytest.fixture
def server(mirror):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(mirror))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def contents(data):
    return {p.relative_to(data).as_posix(): p.read_bytes() for p in data.rglob("*") if p.is_file()}


def state():
    (only,) = listing("dataset")
    return only.state, [f.state for f in only.files]


def test_listing_tells_present_absent_and_corrupt(data, mirror):
    assert state() == ("absent", ["absent", "absent"])
    shutil.copytree(mirror, data)
    assert state() == ("present", ["present", "present"])
    (data / "toy/b.bin").write_bytes(b"sEcond")
    assert state() == ("corrupt", ["present", "corrupt"])


@pytest.mark.parametrize("kind", ["folder", "flat folder", "file url", "http", "flat http"])
def test_fetch_from_every_kind_of_source(data, mirror, server, kind):
    source = {
        "folder": str(mirror),
        "flat folder": str(mirror / "toy"),
        "file url": mirror.as_uri(),
        "http": server + "/",
        "flat http": server + "/toy",
    }[kind]
    told = []
    written = fetch("toy", source, report=lambda *step: told.append(step))
    assert written == (data / "toy/a.bin", data / "toy/b.bin")
    assert contents(data) == CONTENT
    assert told == [("toy/a.bin", 0, 2), ("toy/b.bin", 1, 2)]
    assert fetch("toy", source) == ()


def test_a_corrupt_file_is_fetched_again_and_a_whole_one_left_alone(data, mirror):
    shutil.copytree(mirror, data)
    (data / "toy/a.bin").write_bytes(b"rotten")
    assert fetch("toy", str(mirror)) == (data / "toy/a.bin",)
    assert contents(data) == CONTENT


def test_what_has_a_public_url_is_fetched_before_the_rest_is_asked_for(data, server, monkeypatch):
    entry = toy(pinned("toy/a.bin"), pinned("toy/b.bin", f"{server}/toy/b.bin"))
    monkeypatch.setattr(catalogue, "DATASETS", (entry,))
    with pytest.raises(UsageError, match=r"no public source is known for toy/a\.bin\. Ask a friend\."):
        fetch("toy")
    assert contents(data) == {"toy/b.bin": CONTENT["toy/b.bin"]}


def test_wrong_bytes_are_not_kept(data, mirror):
    (mirror / "toy/a.bin").write_bytes(b"other")
    with pytest.raises(DataError, match=r"toy/a\.bin has SHA-256 [0-9a-f]{64}, toy/a\.bin must have"):
        fetch("toy", str(mirror))
    assert contents(data) == {}
    assert not list((data / "toy").iterdir())


def test_wrong_bytes_do_not_replace_what_is_there(data, mirror):
    shutil.copytree(mirror, data)
    (data / "toy/a.bin").write_bytes(b"rotten")
    (mirror / "toy/a.bin").write_bytes(b"other")
    with pytest.raises(DataError, match="Nothing was kept"):
        fetch("toy", str(mirror))
    assert contents(data)["toy/a.bin"] == b"rotten"


def test_a_server_without_the_file_says_404(data, server):
    with pytest.raises(DataError, match=r"/nowhere/a\.bin answers 404.*--from"):
        fetch("toy", f"{server}/nowhere")
    assert contents(data) == {}


def test_a_broken_connection_leaves_no_half_file(data, server):
    with pytest.raises(DataError, match=r"cannot be reached.*--from"):
        fetch("toy", f"{server}/broken")
    assert not list((data / "toy").iterdir())


def test_an_unreachable_server_is_a_clear_error(data):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        with pytest.raises(DataError, match=r"cannot be reached \(ConnectionError\).*--from URL_OR_FOLDER"):
            fetch("toy", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert contents(data) == {}


def test_a_full_disk_is_told_before_anything_is_fetched(data, mirror, monkeypatch):
    usage = shutil.disk_usage(mirror)
    monkeypatch.setattr(catalogue.shutil, "disk_usage", lambda _p: usage._replace(free=10))
    with pytest.raises(DataError, match=r"has 10 bytes free, toy/a\.bin needs 25,000"):
        fetch("toy", str(mirror))
    assert not list((data / "toy").iterdir())


def test_a_disk_that_fills_up_leaves_no_half_file(data, mirror, monkeypatch):
    def fail(_source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(catalogue.shutil, "copyfile", fail)
    with pytest.raises(DataError, match=r"No space left on device.*CLOAKBENCH_DATA"):
        fetch("toy", str(mirror))
    assert not list((data / "toy").iterdir())


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("s3://bucket", UsageError, r"'s3://bucket' cannot be read; valid: http"),
        ("/no/such/folder", DataError, r"has neither toy/a\.bin nor a\.bin"),
    ],
)
def test_a_source_that_is_none_is_refused(data, source, error, message):
    with pytest.raises(error, match=message):
        fetch("toy", source)


def test_an_unknown_name_suggests_the_nearest(data):
    with pytest.raises(UsageError, match="Did you mean 'toy'"):
        fetch("tay", kind="dataset")
    with pytest.raises(UsageError, match="unknown weights 'toy'"):
        fetch("toy", kind="weights")


def test_weights_come_from_the_cards(data, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/mobilefacenet-relu6.onnx").write_bytes(b"not these weights")
    with pytest.raises(DataError, match=r"weights/fr/mobilefacenet-relu6\.onnx must have 965a80ba"):
        fetch("mobilefacenet-relu6", str(tmp_path / "m"), kind="weights")
    with pytest.raises(
        UsageError, match=r"no public source is known for weights/fr/mobilefacenet-relu6\.onnx"
    ):
        fetch("mobilefacenet-relu6")
    with pytest.raises(UsageError, match="nothing is to be fetched for 'onnx'"):
        fetch("onnx")


def test_every_entry_is_pinned_and_says_how_to_get_it():
    for entry in catalogue.DATASETS:
        assert entry.how
        assert entry.licence
        assert all(f.sha256 and f.bytes for f in entry.files)


@pytest.mark.real_data
def test_the_real_data_is_present_and_whole():
    if not (catalogue.data_folder() / "lfw").exists():
        pytest.skip("CLOAKBENCH_DATA has no lfw")
    (lfw,) = listing("dataset")
    assert lfw.state == "present"
    assert all(f.path.stat().st_size == f.file.bytes for f in lfw.files)


@pytest.fixture
def photos(tmp_path):
    for identity in ("ann", "ben"):
        for number in range(3):
            file = tmp_path / "mine" / identity / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number + len(identity)).integers(
                0, 256, (112, 112, 3), dtype=np.uint8
            )
            pixels[0, 0] = ord(identity[0])
            Image.fromarray(pixels).save(file)
    return tmp_path / "mine"


def test_an_added_folder_goes_by_its_name(data, photos):
    assert registered() == {}
    assert add("ours", photos) == {"ours": photos}
    assert add("again", photos) == {"again": photos, "ours": photos}
    assert json.loads((data / "folders.json").read_text()) == {"again": str(photos), "ours": str(photos)}
    by_name = Folder(Folder.Params(path="ours", aligned=True))
    by_path = Folder(Folder.Params(path=str(photos), aligned=True))
    assert by_name.identities() == by_path.identities()
    assert by_name.fingerprint() == by_path.fingerprint()


def test_a_taken_name_is_refused_and_the_same_folder_is_not(data, photos, tmp_path):
    add("ours", photos)
    assert add("ours", photos) == {"ours": photos}
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match=r"'ours' is .*mine already"):
        add("ours", tmp_path / "other")


@pytest.mark.parametrize("name", ["", "Ours", "a b", "../x", "-x"])
def test_a_name_that_cannot_be_typed_is_refused(data, photos, name):
    with pytest.raises(UsageError, match="cannot name a folder"):
        add(name, photos)


def test_a_broken_folder_is_not_recorded(data, photos, tmp_path):
    (photos / "ann/0.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"0\.png is not an image"):
        add("ours", photos)
    with pytest.raises(DataError, match="nowhere is not a folder"):
        add("ours", tmp_path / "nowhere")
    assert registered() == {}


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 3}'])
def test_a_broken_record_is_named(data, text):
    data.mkdir()
    (data / "folders.json").write_text(text)
    with pytest.raises(DataError, match=r"folders\.json is broken"):
        registered()


@pytest.mark.parametrize("entry", catalogue.BY_HAND, ids=lambda entry: entry.name)
def test_what_publishers_hand_out_is_refused_with_where_and_how(data, entry):
    with pytest.raises(
        UsageError, match=rf"{entry.name} is handed out by its publishers only\..*https?://"
    ) as refusal:
        fetch(entry.name, kind="dataset")
    text = str(refusal.value)
    assert f"{data / entry.name}" in text
    assert f"{entry.name}:path=FOLDER" in text
    assert entry.licence in text
    reader = registry.DATASETS.load(entry.name)
    assert reader.note
    with pytest.raises(DataError, match=rf"{entry.name} is not a folder\. .*bench data fetch {entry.name}"):
        factory.dataset(entry.name).identities()


def test_a_name_nearly_right_suggests_a_dataset_of_a_publisher(data):
    with pytest.raises(UsageError, match="Did you mean 'celeba'"):
        fetch("celebb", kind="dataset")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("adaface", "weights/adaface/adaface_ir50_ms1mv2.ckpt"),
        ("adaface:depth=101,data=webface12m", "weights/adaface/adaface_ir101_webface12m.ckpt"),
    ],
)
def test_weights_of_a_publisher_say_where_they_are(data, tmp_path, name, file):
    with pytest.raises(
        UsageError, match=rf"^{name} is not fetched: .*no digest .*get .*https://github\.com/"
    ) as refusal:
        fetch(name, kind="weights")
    assert str(refusal.value).endswith(f"The place is {data / file}.")
    with pytest.raises(UsageError, match=r"not pinned by a SHA-256 .*Put it at .*data/weights/.* yourself"):
        fetch(name, str(tmp_path))
    with pytest.raises(UsageError, match="your own"):
        fetch(f"{name}{',' if ':' in name else ':'}weights=x.ckpt", kind="weights")
