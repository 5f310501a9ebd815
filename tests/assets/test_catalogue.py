"""What there is to fetch, in what state, and the user's own folders."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from bench.assets import catalogue
from bench.assets.catalogue import add, find, listing, state_of
from bench.contracts import AssetEntry, AssetFile
from bench.data.files import VARIABLE
from bench.data.folders import registered
from bench.datasets.folder import Folder
from bench.errors import DataError, UsageError
from bench.plugins import factory, registry

CONTENT = {"toy/a.bin": b"first" * 5000, "toy/b.bin": b"second"}


def pinned(path: str, **fields) -> AssetFile:
    content = CONTENT[path]
    return AssetFile(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), **fields)


TOY = AssetEntry(
    name="toy", kind="dataset", what="w", licence="l", files=tuple(map(pinned, CONTENT)), how="Ask a friend."
)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    monkeypatch.setattr(catalogue, "OWN", (*catalogue.OWN, TOY))
    return tmp_path / "data"


@pytest.fixture
def here(data):
    for name, content in CONTENT.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    return data


def state():
    found = state_of(TOY)
    return found.state, [f.state for f in found.files]


def test_listing_tells_present_absent_and_corrupt(data, here):
    assert state() == ("present", ["present", "present"])
    (here / "toy/b.bin").write_bytes(b"sEcond")
    assert state() == ("corrupt", ["present", "corrupt"])
    shutil.rmtree(here)
    assert state() == ("absent", ["absent", "absent"])


def test_sizes_are_those_of_files_that_are_here_else_as_stated(data):
    size = sum(map(len, CONTENT.values()))
    assert state_of(TOY).bytes == size
    file = pinned("toy/a.bin").model_copy(update={"bytes": 0})
    assert state_of(TOY.model_copy(update={"files": (file,)})).bytes == 0
    assert state_of(find("lfw")).bytes == 128_930_388
    assert state_of(find("lpips")).download == 244_408_911


def test_datasets_declare_what_they_need_like_other_methods(data):
    assert [entry.name for entry in catalogue.catalogue("dataset")] == ["lfw", "toy"]
    assert find("lfw:min_photos=5") == find("lfw")
    with pytest.raises(UsageError, match=r"nothing is to be fetched for 'lfw:path=x\.tar': .*your own"):
        find("lfw:path=x.tar")


def test_every_name_is_found_under_its_kind_only(data):
    for entry in catalogue.catalogue():
        assert find(entry.name).files == entry.files
        assert find(entry.name, entry.kind).name == entry.name
    with pytest.raises(UsageError, match="unknown weights 'lfw'"):
        find("lfw", "weights")


def test_an_unknown_name_suggests_the_nearest(data):
    with pytest.raises(UsageError, match=r"unknown data set or weights 'tay'\. Did you mean 'toy'"):
        find("tay")
    with pytest.raises(UsageError, match="unknown weights 'toy'"):
        find("toy", "weights")
    with pytest.raises(UsageError, match="nothing is to be fetched for 'onnx'"):
        find("onnx")


def test_every_dataset_is_pinned_and_says_how_to_get_it():
    for entry in catalogue.catalogue("dataset"):
        assert entry.how
        assert entry.licence
        assert all(f.sha256 and f.bytes and catalogue.is_public(f) for f in entry.files)


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
        find(entry.name)
    text = str(refusal.value)
    assert f"{data / entry.name}" in text
    assert f"{entry.name}:path=FOLDER" in text
    assert entry.licence in text
    reader = registry.DATASETS.load(entry.name)
    assert reader.note
    with pytest.raises(DataError, match=rf"{entry.name} is not a folder\. .*bench fetch {entry.name}"):
        factory.dataset(entry.name).identities()


def test_a_name_nearly_right_suggests_a_dataset_of_a_publisher(data):
    with pytest.raises(UsageError, match="Did you mean 'celeba'"):
        find("celebb")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("adaface", "weights/adaface/adaface_ir50_ms1mv2.ckpt"),
        ("adaface:depth=101,data=webface12m", "weights/adaface/adaface_ir101_webface12m.ckpt"),
    ],
)
def test_parameters_decide_what_is_fetched(data, name, file):
    assert [each.path for each in find(name).files] == [file]
    with pytest.raises(UsageError, match="your own"):
        find(f"{name}{',' if ':' in name else ':'}weights=x.ckpt")
