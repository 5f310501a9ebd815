"""`bench cloak --masks` and `bench erase --masks`: a person's mask is learnt once and laid on later photos."""

import json
import shutil
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
    code, out, err = erase("--masks", "my.masks")
    assert code == 0, err
    assert f"3 photos erased with masks {masks.read(home / 'my.masks').fingerprint}" in out
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
    refused(erase("--masks", "my.masks", "--key", "my.key"), "leave out the other")
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


def test_a_mask_that_is_there_serves_any_seed_and_a_new_one_only_its_own(cloak, home):
    cloak("--masks", "my.masks")
    code, _, err = cloak("--masks", "my.masks", "--seed", 3, photos="later", out="new")
    assert code == 0, err
    save(home / "later/carl/00.png", photo(9))
    refused(
        cloak("--masks", "my.masks", "--seed", 3, photos="later", out="newer"),
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
        masks.new(home / "m", "opom", "x").check_attack("chameleon")


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


def test_a_folder_of_which_no_mask_came_goes_on_under_the_same_file(cloak, home):
    (home / "bad/anna").mkdir(parents=True)
    (home / "bad/anna/00.png").write_bytes(b"not a photo")
    assert cloak("--masks", "my.masks", photos="bad")[0] == 1
    fingerprint = masks.read(home / "my.masks").fingerprint
    save(home / "bad/anna/01.png", photo(3))
    code, out, _ = cloak("--masks", "my.masks", photos="bad")
    assert code == 1
    assert "1 mask learnt" in out
    assert masks.read(home / "my.masks").fingerprint == fingerprint


def test_a_lost_file_is_named(cloak, home):
    cloak("--masks", "my.masks")
    (home / "my.masks").unlink()
    refused(cloak("--masks", "my.masks"), "out holds cloaks under the masks", "my.masks does not exist")


def test_whose_mask_was_there_is_said(cloak, home):
    cloak("--masks", "my.masks")
    for more in ((), ("--dry-run",)):
        code, out, err = cloak("--masks", "my.masks", *more, photos="later", out=f"out{len(more)}")
        assert code == 0, err
        assert "Under the mask that was there for this subfolder: anna." in out
    save(home / "flat/a.png", photo(4))
    assert "Under the mask" not in cloak("--masks", "my.masks", photos="flat", out="flat1")[1]
    assert "for this subfolder: .." in cloak("--masks", "my.masks", photos="flat", out="flat2")[1]


def test_a_new_photo_leaves_the_others_of_its_person_alone(cloak, home):
    cloak("--masks", "my.masks")
    before = {path: path.stat().st_mtime_ns for path in (home / "out").rglob("*.png")}
    save(home / "photos/anna/02.png", photo(8))
    code, out, _ = cloak("--masks", "my.masks")
    assert code == 0
    assert "1 photos protected" in out or "1 photo protected" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_masks_of_another_attack_take_nothing_off(cloak, erase, home):
    cloak("--masks", "my.masks")
    (home / "out/cloaks.json").unlink()
    refused(
        erase("--masks", "my.masks", "--attack", "chameleon", "--dataset", "tiny"), "made by another attack"
    )
    code, _, err = erase("--masks", "my.masks", "--dataset", "tiny")  # the file knows its attack
    assert code == 0, err


def test_photos_that_were_moved_are_still_their_persons(cloak, erase, home):
    cloak("--masks", "my.masks")
    (home / "flat").mkdir()
    for name in ("anna/00.png", "ben/00.png"):
        (home / "out" / name).rename(home / "flat" / name.replace("/", "-"))
    shutil.copy(home / "out/cloaks.json", home / "flat/cloaks.json")
    code, _, err = erase("--masks", "my.masks", photos="flat")
    assert code == 0, err
    shutil.rmtree(home / "back")
    (home / "flat/cloaks.json").unlink()
    code, _, err = erase("--masks", "my.masks", "--dataset", "tiny", photos="flat")
    assert code == 1
    assert "the file has no mask for this subfolder" in err + _


def test_two_commands_add_to_one_file(home):
    one = masks.new(home / "m", "tiny-mask", "x")
    one.write()
    other = masks.read(home / "m")
    mask = {"noise": torch.zeros(3, 14, 14)}
    assert set(one.with_mask("anna", mask).masks) == {"anna"}
    both = other.with_mask("ben", mask).with_mask("anna", {"noise": torch.ones(3, 14, 14)})
    assert set(both.masks) == set(masks.read(home / "m").masks) == {"anna", "ben"}
    assert not both.masks["anna"]["noise"].any()  # who has one keeps it
    masks.new(home / "m", "tiny-mask", "x").write()
    with pytest.raises(DataError, match="replaced by another file"):
        other.with_mask("carl", mask)


def test_a_folder_in_place_of_the_file_is_named(home):
    (home / "m").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        masks.read(home / "m")
