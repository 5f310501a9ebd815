"""`bench cloak --masks` and `bench erase --masks`: a person's mask is learnt once and laid on later photos."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as save_tensors

from bench.contracts import Context, Faces
from bench.errors import DataError, UsageError
from bench.faces.pixels import Pixels
from bench.photo_tools import masks
from bench.plugins import factory

KEYED = f"{Path(__file__).parents[1] / 'plugins' / 'erasable.py'}:KeyedPattern"


def photo(seed):
    """Return a soft crop that no mask clips."""
    return np.random.default_rng(seed).integers(120, 136, (112, 112, 3)).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a working folder with photos of two people, and later ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOAKBENCH_STORE", str(tmp_path / "store"))
    for seed, name in enumerate(("photos/anna/00", "photos/anna/01", "photos/ben/00", "later/anna/07")):
        save(tmp_path / f"{name}.png", photo(seed))
    return tmp_path


@pytest.fixture
def cloak(cli, home):
    del home

    def run(*more, photos="photos", out="out", attack="tiny-mask"):
        given = ("--attack", attack, "--dataset", "tiny", "--threads", 1, "--quiet", *more)
        return cli("cloak", photos, out, *given)

    return run


@pytest.fixture
def erase(cli, home):
    del home
    return lambda *more, photos="out", out="back": cli("erase", photos, out, "--threads", 1, "--quiet", *more)


def change(folder, name, original):
    return pixels_of(Path(folder) / name) - pixels_of(Path(original) / name)


def refused(answer, *parts):
    code, out, err = answer
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1, err
    for part in parts:
        assert part in err


def test_a_later_photo_wears_the_mask_of_the_earlier_ones_and_nobody_elses(cloak, home):
    code, out, err = cloak("--masks", "my.masks")
    assert code == 0, err
    assert "2 masks learnt" in out
    assert "Keep it" in out
    assert stat.S_IMODE((home / "my.masks").stat().st_mode) == 0o600
    before = (home / "my.masks").read_bytes()
    code, out, err = cloak("--masks", "my.masks", photos="later", out="out2")
    assert code == 0, err
    assert "0 masks learnt" in out
    assert (home / "my.masks").read_bytes() == before
    first, second = (change("out", f"anna/0{n}.png", "photos") for n in (0, 1))
    later, ben = change("out2", "anna/07.png", "later"), change("out", "ben/00.png", "photos")
    assert (first == second).all()
    assert (later == first).all()
    assert (ben != first).mean() > 0.5
    record = json.loads((home / "out/cloaks.json").read_text())
    assert record["key_fingerprint"] == masks.read(home / "my.masks").fingerprint


def test_the_mask_is_the_one_that_the_attack_learns_from_all_photos_of_the_person(cloak, home):
    cloak("--masks", "my.masks")
    found = masks.read(home / "my.masks")
    # One of them was learnt from two photos and the other from one: what tiny-mask adds says so.
    people = {round(float(mask["noise"].mean()), 6): mask for mask in found.masks.values()}
    assert len(people) == 2
    assert found.attack == "tiny-mask"
    attack = factory.attack("tiny-mask")
    faces = Faces(torch.full((1, 3, 112, 112), 0.5), ("a",), ("x",))
    for mask in found.masks.values():
        assert attack.apply(faces, mask, None).shape == (1, 3, 112, 112)


def test_a_mask_takes_its_photos_back(cloak, erase, home):
    cloak("--masks", "my.masks")
    code, _, err = erase("--masks", "my.masks")
    assert code == 0, err
    for name in ("anna/00.png", "anna/01.png", "ben/00.png"):
        assert np.abs(pixels_of(home / "back" / name) - pixels_of(home / "photos" / name)).max() <= 1


def test_other_masks_are_refused_before_anything_is_written(cloak, erase, home):
    cloak("--masks", "my.masks")
    cloak("--masks", "other.masks", out="elsewhere")
    refused(erase("--masks", "other.masks"), "wrong key", "--force")
    assert not (home / "back").exists()
    refused(cloak("--masks", "other.masks"), "out holds cloaks made under key")


def test_a_killed_command_goes_on_with_the_mask_it_had(cloak, home):
    cloak("--masks", "my.masks")
    kept = (home / "my.masks").read_bytes()
    (home / "out/anna/01.png").unlink()
    assert cloak("--masks", "my.masks")[0] == 0
    assert (home / "my.masks").read_bytes() == kept
    assert (change("out", "anna/00.png", "photos") == change("out", "anna/01.png", "photos")).all()


def test_masks_are_asked_for_where_they_are_learnt_and_only_there(cloak, erase, home):
    refused(cloak(), "tiny-mask' learns a mask of each person and needs --masks FILE")
    refused(cloak("--masks", "my.masks", attack="tiny-noise"), "learns no masks", "leave out --masks")
    refused(cloak("--key", "my.key", "--masks", "m"), "takes its own masks off", "leave out --key")
    refused(cloak("--masks", "out/my.masks"), "would lie among the photos to post")
    assert not (home / "out").exists()
    cloak("--masks", "my.masks")
    refused(erase(), "needs --key FILE", "--masks FILE")
    refused(erase("--masks", "my.masks", "--key", "my.key"), "needs --key FILE")
    assert cloak("--key", "my.key", attack=KEYED, out="keyed")[0] == 0
    refused(
        erase("--masks", "my.masks", "--force", "--attack", KEYED, photos="keyed"),
        "is erased by --key FILE, not",
    )
    refused(erase("--key", "my.key", "--force"), "is erased by --masks FILE")


def test_a_dry_run_writes_nothing(cloak, home):
    code, out, _ = cloak("--masks", "my.masks", "--dry-run")
    assert code == 0
    assert "0 masks in my.masks" in out
    assert not (home / "my.masks").exists()


def test_masks_of_another_seed_are_refused(cloak, home):
    cloak("--masks", "my.masks")
    refused(
        cloak("--masks", "my.masks", "--seed", 3, out="new"),
        "by other code, weights, surrogates, dataset or seed",
    )


@pytest.mark.parametrize("damage", [b"", b"not masks", None, "other"])
def test_a_file_that_holds_no_masks_is_refused(cloak, home, damage):
    cloak("--masks", "my.masks")
    whole = (home / "my.masks").read_bytes()
    if damage == "other":
        damage = save_tensors({"noise": torch.zeros(3)})
    (home / "my.masks").write_bytes(whole[:-100] if damage is None else damage)
    refused(cloak("--masks", "my.masks", out="new"), "my.masks is no file of masks, or not whole")
    with pytest.raises(DataError, match="no file of masks"):
        masks.read(home / "my.masks")


def test_a_missing_file_is_named(home):
    with pytest.raises(DataError, match="does not exist"):
        masks.read(home / "nowhere.masks")


def test_masks_of_another_attack_are_refused(home):
    with pytest.raises(UsageError, match="another attack: opom, and this is chameleon"):
        masks.new(home / "m", "opom", "x").check("chameleon", "x")


def test_a_face_beside_the_persons_gets_a_mask_that_is_not_kept(home):
    given = masks.Masking(
        factory.attack("tiny-mask"), masks.new(home / "m", "tiny-mask", "x"), frozenset({"anna"})
    )
    faces = Pixels(torch.full((2, 3, 112, 112), 128, dtype=torch.uint8), ("a", "a//1"), ("anna", "somebody"))
    changed = given.cloak(faces, Context())
    assert set(given.file.masks) == {"anna"}
    assert (changed.images != faces.images).flatten(1).any(1).all()
    bare = masks.taking_off(given.attack, masks.read(home / "m"))(changed, Context())
    assert (bare.images[0].int() - 128).abs().max() <= 1
    assert torch.equal(bare.images[1], changed.images[1])
