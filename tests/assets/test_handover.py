"""Crops out, cloaks in: what is written, what is refused, and that a run sees the very cloaks, marked external."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from attacks.precomputed import Precomputed
from bench.assets.handover import MANIFEST, Declared, export_crops, import_cloaks, read_manifest
from bench.contracts import Binding, Context, Faces
from bench.data.cloak_cards import CARD, read_card
from bench.errors import DataError, UsageError
from bench.faces.alignment import TEMPLATE
from bench.run.resolve import resolve
from bench.run.spec import make_spec


def silent(_done, _total):
    """Report nothing."""


@pytest.fixture(scope="module")
def run():
    return resolve(make_spec({"dataset": "synthetic:identities=6,photos=4", "identities": 4}))


@pytest.fixture(scope="module")
def crops(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("crops") / "out"
    export_crops(run, out, silent)
    return out


@pytest.fixture
def cloaks(crops, tmp_path):
    """Return a folder with a cloak of every gallery photo: 9 levels brighter in every second column."""
    folder = tmp_path / "mine"
    for entry in read_manifest(crops).photos.values():
        if entry.role == "gallery":
            image = np.asarray(Image.open(crops / entry.file)).astype(int)
            image[:, ::2] += 9
            save(folder / entry.file, image.clip(0, 255))
    return folder


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def first_of(folder):
    return min(folder.rglob("*.png"))


# --- out --------------------------------------------------------------------------------------------------------


def test_every_photo_of_the_split_is_written_as_the_run_sees_it(run, crops):
    manifest = read_manifest(crops)
    split = run.split
    assert set(manifest.photos) == {
        image for part in (split.gallery, split.probes) for p in part.values() for image in p
    }
    assert {manifest.photos[image].role for photos in split.probes.values() for image in photos} == {"probe"}
    for image, entry in manifest.photos.items():
        written = np.asarray(Image.open(crops / entry.file))
        assert np.array_equal(written, run.dataset.crops([image])[0].permute(1, 2, 0).numpy())
        assert image in {*split.gallery[entry.identity], *split.probes[entry.identity]}
        assert entry.fold == split.fold[entry.identity]
    assert (manifest.dataset, manifest.dataset_fingerprint) == (run.spec.dataset, run.fingerprint)
    np.testing.assert_allclose(manifest.landmarks, TEMPLATE)
    files = [path.relative_to(crops).as_posix() for path in crops.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([MANIFEST, *(entry.file for entry in manifest.photos.values())])
    assert all(file.replace("/", "").removesuffix(".png").isdigit() for file in files if file != MANIFEST)


def test_a_folder_that_holds_something_is_refused(run, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there and not empty"):
        export_crops(run, tmp_path, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


# --- in ---------------------------------------------------------------------------------------------------------


def test_the_card_has_what_is_declared_and_what_was_measured_is_told(crops, cloaks):
    declared = Declared("waves", "A, B (2026)", ("irse50", "facenet"), "none", "two columns", 9)
    found = import_cloaks(cloaks, crops, declared, silent)
    card = read_card(cloaks)
    assert card == found.card
    assert (card.method, card.surrogates, card.max_linf) == ("waves", ("irse50", "facenet"), 9)
    manifest = read_manifest(crops)
    assert set(card.cloaks) == {image for image, entry in manifest.photos.items() if entry.role == "gallery"}
    assert (found.linf, found.unchanged, found.unknown) == (9, 0, ("irse50", "facenet"))
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / (9**2 / 2)), abs=0.1)


def test_probes_may_be_cloaked_too(crops, cloaks):
    probes = [entry for entry in read_manifest(crops).photos.values() if entry.role == "probe"]
    shutil.copy(crops / probes[0].file, cloaks / probes[0].file)
    with pytest.raises(DataError, match=rf"{len(probes) - 1} of .* cloaks are missing .* all probes or none"):
        import_cloaks(cloaks, crops, Declared("m"), silent)
    for entry in probes:
        shutil.copy(crops / entry.file, cloaks / entry.file)
    found = import_cloaks(cloaks, crops, Declared("m"), silent)
    assert (len(found.card.cloaks), found.unchanged) == (len(read_manifest(crops).photos), len(probes))


def _link(folder):
    path = first_of(folder)
    path.rename(folder.parent / "elsewhere.png")
    path.symlink_to(folder.parent / "elsewhere.png")


def _lose(folder):
    first_of(folder).unlink()


def _add(folder):
    save(folder / "extra.png", np.zeros((112, 112, 3)))


def _shrink(folder):
    save(first_of(folder), np.zeros((100, 112, 3)))


def _as_jpeg(folder):
    Image.fromarray(np.zeros((112, 112, 3), dtype=np.uint8)).save(first_of(folder), "JPEG")


def _cut(folder):
    path = first_of(folder)
    path.write_bytes(path.read_bytes()[:200])


def _overdo(folder):
    save(first_of(folder), np.zeros((112, 112, 3)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_lose, r"1 of \d+ cloaks are missing in .*00000/0000\.png"),
        (_add, r"1 files in .* are no crop's, first 'extra\.png'"),
        (_shrink, r"is 112×100 pixels, its crop is 112×112"),
        (_as_jpeg, r"is no PNG\. A run makes its own losses"),
        (_cut, r"cannot be decoded"),
        (_link, r"is a link\. Put the file itself there"),
        (_overdo, r"changes a pixel by \d+ grey levels, and 9 are declared"),
    ],
)
def test_what_is_no_cloak_of_these_crops_is_refused_and_no_card_is_written(crops, cloaks, spoil, said):
    spoil(cloaks)
    with pytest.raises(DataError, match=said):
        import_cloaks(cloaks, crops, Declared("m", max_linf=9), silent)
    assert not (cloaks / CARD).exists()


def test_crops_that_were_changed_are_refused(crops, cloaks, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(crops, own)
    save(first_of(own), np.zeros((112, 112, 3)))
    with pytest.raises(DataError, match="is not what was exported"):
        import_cloaks(cloaks, own, Declared("m"), silent)
    (own / MANIFEST).write_text('{"format": 2}')
    with pytest.raises(DataError, match="is not what it should be: format"):
        import_cloaks(cloaks, own, Declared("m"), silent)
    with pytest.raises(UsageError, match="is no folder"):
        import_cloaks(tmp_path / "nowhere", crops, Declared("m"), silent)
    with pytest.raises(DataError, match=f"has no {MANIFEST}"):
        import_cloaks(cloaks, cloaks, Declared("m"), silent)


# --- the attack ---------------------------------------------------------------------------------------------------


@pytest.fixture
def imported(crops, cloaks):
    import_cloaks(
        cloaks, crops, Declared("waves", surrogates=("synthetic-iresnet", "irse50"), max_linf=9), silent
    )
    return cloaks


def handed(folder, images):
    faces = Faces(torch.zeros(len(images), 3, 112, 112), tuple(images), tuple(images))
    return Precomputed(Precomputed.Params(path=str(folder))).cloak(faces, Context())


def test_it_hands_out_the_pixels_of_the_files(imported):
    card = read_card(imported)
    made = handed(imported, list(card.cloaks))
    for image, entry in card.cloaks.items():
        pixels = torch.from_numpy(np.asarray(Image.open(imported / entry.file)).copy()).permute(2, 0, 1)
        assert torch.equal(made[image].mul(255).round().to(torch.uint8), pixels)


def test_it_is_what_its_card_declares(imported):
    attack = Precomputed(Precomputed.Params(path=str(imported)))
    assert attack.made_elsewhere.surrogates == ("synthetic-iresnet", "irse50")
    assert (attack.threat.max_linf, attack.threat.goal) == (9, "untargeted")
    assert attack.training_identities(Binding("", "", (), "")) == "unknown"


def test_what_it_refuses(imported, tmp_path):
    card = read_card(imported)
    image, entry = next(iter(card.cloaks.items()))
    with pytest.raises(UsageError, match=r"1 of 1 photos have no cloak .* first 'somebody/0'"):
        handed(imported, ["somebody/0"])
    attack = Precomputed(Precomputed.Params(path=str(imported)))
    with pytest.raises(
        UsageError, match=r"are of dataset 'synthetic:identities=6,photos=4', and this is 'lfw'"
    ):
        attack.files(Binding("lfw", "real", (), ""))
    with pytest.raises(UsageError, match="needs the folder"):
        _ = Precomputed().folder
    with pytest.raises(DataError, match=rf"has no {CARD}"):
        handed(tmp_path / "nowhere", [image])
    save(imported / entry.file, np.zeros((112, 112, 3)))
    with pytest.raises(DataError, match="and its card says"):
        handed(imported, [image])
    (imported / entry.file).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        handed(imported, [image])
    content = json.loads((imported / CARD).read_text())
    content["cloaks"][image]["file"] = "../outside.png"
    (imported / CARD).write_text(json.dumps(content))
    with pytest.raises(DataError, match="is not in the folder"):
        handed(imported, [image])
    (imported / CARD).write_text("{}")
    with pytest.raises(DataError, match="is not what it should be: method"):
        handed(imported, [image])


def test_cloaks_of_other_crops_are_refused_though_the_name_is_the_same(imported, cli, tmp_path):
    content = json.loads((imported / CARD).read_text())
    (imported / CARD).write_text(json.dumps({**content, "dataset_fingerprint": "another"}))
    code, out, err = cli(
        "run", "--dataset", "synthetic:identities=6,photos=4", "--identities", 4, "--attack", f"precomputed:{imported}",
        "--backbone", "synthetic-mobilefacenet", "--store", tmp_path / "store",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert "were made of other photos or other crops" in err
    assert not (tmp_path / "store").exists()


# --- the commands and a run -----------------------------------------------------------------------------------------


def test_from_crops_to_rows_that_are_marked_external(cli, imported, crops, tmp_path):
    again = tmp_path / "crops"
    dataset = "synthetic:identities=6,photos=4"
    code, out, _ = cli("export", "crops", "--dataset", dataset, "--identities", 4, "--out", again, "--json")
    assert code == 0
    assert json.loads(out)["photos"] == {"gallery": len(read_card(imported).cloaks), "probe": 8}
    assert (again / MANIFEST).read_bytes() == (crops / MANIFEST).read_bytes()
    code, out, _ = cli(
        "import", "cloaks", imported, "--crops", again, "--method", "waves", "--surrogate", "synthetic-iresnet",
        "--surrogate", "irse50", "--training-identities", "none", "--max-linf", 9, "--json",
    )  # fmt: skip
    assert (code, json.loads(out)["linf"]) == (0, 9)
    run = tmp_path / "run"
    code, _, err = cli(
        "run", "--dataset", dataset, "--identities", 4, "--attack", f"precomputed:{imported}", "--backbone",
        "synthetic-mobilefacenet", "--backbone", "synthetic-iresnet", "--threads", 1, "--store", tmp_path / "store",
        "--out", run, "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    board = pd.read_csv(run / "leaderboard.csv", keep_default_na=False).set_index(["attack", "backbone"])
    assert set(board.index.levels[0]) == {"none", "precomputed:path=mine"}
    rows = board.loc["precomputed:path=mine"]
    assert rows["external"].all()
    assert set(rows["surrogates"]) == {"synthetic-iresnet|irse50"}
    assert rows["access"].to_dict() == {
        "synthetic-mobilefacenet": "black-box",
        "synthetic-iresnet": "white-box",
    }
    assert rows["cloak_linf"].astype(float).round(3).eq(9).all()
    assert not board.loc["none"]["external"].any()
    assert str(tmp_path) not in (run / "leaderboard.csv").read_text()


PAIRS = (
    "--dataset",
    "synthetic:identities=6,photos=4",
    "--identities",
    4,
    "--protocol",
    "pairs:far=0.1,targets=2",
)


@pytest.fixture
def aimed(cli, tmp_path):
    """Return crops whose manifest says whom each photo is to imitate, and cloaks that are photos of them."""
    crops, folder = tmp_path / "aimed", tmp_path / "swapped"
    code, out, _ = cli("export", "crops", *PAIRS, "--out", crops)
    assert code == 0
    assert "Each is to imitate one of 2 identities" in out
    manifest = read_manifest(crops)
    for entry in manifest.photos.values():
        if entry.role == "gallery":
            (folder / entry.file).parent.mkdir(parents=True)
            shutil.copy(crops / manifest.targets[entry.target][0], folder / entry.file)
    return crops, folder


def test_targeted_cloaks_are_held_to_whom_the_protocol_says(cli, aimed, tmp_path):
    crops, folder = aimed
    manifest = read_manifest(crops)
    assert [len(files) for files in manifest.targets.values()] == [4, 4]
    assert {entry.target for entry in manifest.photos.values()} == set(manifest.targets)
    code, _, _ = cli("import", "cloaks", folder, "--crops", crops, "--method", "swap", "--targeted")
    assert code == 0
    backbone = (
        "--backbone",
        "synthetic-mobilefacenet",
        "--threads",
        1,
        "--store",
        tmp_path / "store",
        "--quiet",
    )
    run = tmp_path / "run"
    code, _, err = cli("run", *PAIRS, "--attack", f"precomputed:{folder}", *backbone, "--out", run)
    assert (code, err) == (0, "")
    rows = pd.read_csv(run / "leaderboard.csv").set_index(["attack", "condition"])
    row = rows.loc[("precomputed:path=swapped", "impersonation, FAR 10 %")]
    assert row["asr"] > 0.7 > row["baseline_error"]
    code, _, err = cli(
        "run",
        *PAIRS,
        "--split-seed",
        1,
        "--attack",
        f"precomputed:{folder}",
        *backbone,
        "--out",
        tmp_path / "other",
    )
    assert code != 0
    assert "and this run has it imitate" in err or "have no cloak" in err


def test_targets_are_those_of_the_crops_or_none(crops, cloaks, tmp_path):
    with pytest.raises(UsageError, match=r"--targeted\): its protocol was 'tracker'.*e.g. --protocol pairs"):
        import_cloaks(cloaks, crops, Declared("m", targeted=True), silent)
    import_cloaks(cloaks, crops, Declared("m"), silent)
    attack = Precomputed(Precomputed.Params(path=str(cloaks)))
    assert (attack.threat.goal, attack.threat.needs_targets, attack.card.targets) == ("untargeted", False, {})
