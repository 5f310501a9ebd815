"""`bench cloak` and `bench erase`: photos protected and given back; what is wrong is named and nothing is lost."""

import errno
import io
import json
import os
import shutil
import stat
import tarfile
import textwrap
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.files import VARIABLE, data_folder
from bench.datasets.lfw import ARCHIVE
from bench.faces import detection
from bench.faces.alignment import TEMPLATE, Landmarks
from bench.photo_tools import erasing, keys, records
from bench.plugins import factory, registry

REAL = data_folder()
"""As it is before a test keeps the user's data out."""

PATTERN = f"{Path(__file__).parents[1] / 'plugins' / 'erasable.py'}:KeyedPattern"


def photo(seed, size=112):
    """Return a soft grey-scale-free photo that no pattern clips."""
    return np.random.default_rng(seed).integers(60, 196, (size, size, 3)).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a working folder with photos of two people, two each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOAKBENCH_STORE", str(tmp_path / "store"))
    for seed, name in enumerate(("anna/00", "anna/01", "ben/00", "ben/01")):
        save(tmp_path / "photos" / f"{name}.png", photo(seed))
    return tmp_path


@pytest.fixture
def cloak(cli, home):
    del home

    def run(*more, photos="photos", out="out", attack=PATTERN, dataset="tiny"):
        return cli(
            "cloak", photos, out, "--attack", attack, "--dataset", dataset, "--threads", 1, "--quiet", *more
        )

    return run


@pytest.fixture
def erase(cli, home):
    del home

    def run(*more, photos="out", out="back", attack=PATTERN):
        named = ("--attack", attack) if attack else ()
        return cli("erase", photos, out, "--threads", 1, "--quiet", *named, *more)

    return run


def files(folder):
    """Return what lies in a folder: path inside it → content."""
    found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def everywhere(home):
    return {name: data for name, data in files(home).items() if not name.startswith("store/")}


# --- the way there and back -------------------------------------------------------------------------------------


def test_photos_are_protected_and_given_back_by_processes_of_their_own(command, home):
    before = files("photos")
    cloaked = command("cloak", home / "photos", home / "out", "--attack", PATTERN, "--key", home / "my.key")
    assert (cloaked.returncode, "Traceback" in cloaked.stderr) == (0, False), cloaked.stderr
    key = keys.read(home / "my.key")
    assert f"New key {key.fingerprint}" in cloaked.stdout
    assert "Keep it" in cloaked.stdout
    assert stat.S_IMODE((home / "my.key").stat().st_mode) == 0o600
    erased = command("erase", home / "out", home / "back", "--key", home / "my.key", "--attack", PATTERN)
    assert erased.returncode == 0, erased.stderr
    names = {"anna/00.png", "anna/01.png", "ben/00.png", "ben/01.png"}
    assert set(files("out")) == names | {"cloaks.json"}
    assert set(files("back")) == names | {"erased.json"}
    for name in names:
        original, posted, back = (pixels_of(home / folder / name) for folder in ("photos", "out", "back"))
        assert (np.abs(posted.astype(int) - original) == 48).all()
        assert (back == original).all()
    assert files("photos") == before
    # The secret is in its file and nowhere else.
    said = cloaked.stdout + cloaked.stderr + erased.stdout + erased.stderr
    secret = key.secret.hex()
    rest = b"".join(data for name, data in files(home).items() if name != "my.key")
    assert secret not in said
    assert secret.encode() not in rest
    assert key.secret not in rest


def test_the_record_says_what_was_made_of_what_and_the_key_only_by_its_fingerprint(cloak, home):
    assert cloak("--key", "my.key", attack=f"{PATTERN}:amplitude=20")[0] == 0
    record = json.loads((home / "out/cloaks.json").read_text())
    assert record["attack"] == "keyed-pattern:amplitude=20"
    assert record["key_fingerprint"] == keys.read(home / "my.key").fingerprint
    assert (record["format"], record["weights"], record["surrogates"], record["size"]) == (1, [], [], 112)
    made, given = files("out"), files("photos")
    assert {name: photo["protected"] for name, photo in record["photos"].items()} == dict.fromkeys(
        given, True
    )
    for name, entry in record["photos"].items():
        assert entry["source_sha256"] == sha256(given[name]).hexdigest()
        assert entry["output_sha256"] == sha256(made[entry["output"]]).hexdigest()


def test_the_same_command_again_computes_and_changes_nothing(cloak, erase, home):
    cloak("--key", "my.key")
    erase("--key", "my.key")
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    code, out, _ = cloak("--key", "my.key")
    assert code == 0
    assert "0 photos protected by keyed-pattern in out; 4 were there already." in out
    code, out, _ = erase("--key", "my.key")
    assert code == 0
    assert "in back; 4 were there already." in out
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(cloak, erase, home):
    before = everywhere(home)
    code, out, _ = cloak("--key", "my.key", "--dry-run")
    assert code == 0
    assert "4 photos would be protected by keyed-pattern and written into out; 0 are there already." in out
    assert "A new key would be written to my.key." in out
    assert everywhere(home) == before
    cloak("--key", "my.key")
    before = everywhere(home)
    code, out, _ = erase("--key", "my.key", "--dry-run")
    assert (code, "4 photos would be erased" in out, "Nothing was written." in out) == (0, True, True)
    assert everywhere(home) == before


def test_a_flat_folder_is_one_person_and_names_that_meet_are_kept_apart(cloak, erase, home):
    for name in ("a.png", "b.bmp", "B.png"):
        save(home / "flat" / name, photo(len(files("flat")) if (home / "flat").exists() else 9))
    code, _, _ = cloak("--key", "my.key", photos="flat")
    assert code == 0
    assert set(files("out")) == {"a.png", "b.bmp.png", "B.png.png", "cloaks.json"}
    assert erase("--key", "my.key")[0] == 0
    assert (pixels_of(home / "back/b.bmp.png") == pixels_of(home / "flat/b.bmp")).all()


# --- keys -------------------------------------------------------------------------------------------------------


def refused(answer, *parts):
    """Check that a command was refused in one sentence that has these parts."""
    code, out, err = answer
    assert (code, out) == (2, ""), err
    assert err.startswith("Error: "), err
    assert err.count("\n") == 1, err
    for part in parts:
        assert part in err


def test_a_wrong_key_is_refused_before_anything_is_written_unless_forced(cloak, erase, home):
    cloak("--key", "my.key")
    other = keys.create(home / "other.key")
    before = everywhere(home)
    mine = keys.read(home / "my.key")
    refused(erase("--key", "other.key"), "wrong key", mine.fingerprint, other.fingerprint, "--force")
    assert everywhere(home) == before
    code, _, err = erase("--key", "other.key", "--force")
    assert code == 0
    assert "wrong key" in err
    wrecked = pixels_of(home / "back/anna/00.png").astype(int) - pixels_of(home / "photos/anna/00.png")
    assert np.abs(wrecked).mean() > 30
    # What was erased with one key is not written over with another.
    refused(erase("--key", "my.key"), "back holds what was erased with key", other.fingerprint)
    assert other.secret.hex() not in err


@pytest.mark.parametrize(
    ("mode", "text", "parts"),
    [
        (None, None, ("lost.key does not exist", "nobody can erase")),
        (0o644, None, ("can be read or written by others", "chmod 600 lost.key")),
        (0o600, "cloakbench-key 1\nsecret 00", ("truncated",)),
        (0o600, "my secret", ("is no key file",)),
        (0o600, "cloakbench-key 9\n", ("another version",)),
    ],
)
def test_a_key_file_that_cannot_be_used_is_refused_by_both(cloak, erase, home, mode, text, parts):
    cloak("--key", "my.key")
    if mode is not None:
        (home / "lost.key").write_text((home / "my.key").read_text() if text is None else text)
        (home / "lost.key").chmod(mode)
    before = everywhere(home)
    refused(erase("--key", "lost.key"), *parts)
    if mode is None:
        refused(cloak("--key", "lost.key"), "out holds cloaks under key", "lost.key does not exist")
    else:
        refused(cloak("--key", "lost.key", out="new"), *parts)
    assert everywhere(home) == before


def test_keys_are_asked_for_where_they_are_needed_and_only_there(cloak, erase, home):
    before = everywhere(home)
    refused(cloak(), "keyed-pattern' is erasable and needs --key FILE")
    refused(cloak("--key", "my.key", attack="tiny-noise"), "tiny-noise' cannot be erased", "leave out --key")
    refused(cloak("--key", "out/my.key"), "would lie among the photos to post")
    refused(cloak("--key", "absent/my.key"), "its folder does not exist")
    assert everywhere(home) == before
    cloak("--key", "my.key")
    refused(erase(), "needs --key FILE")


def test_what_cannot_be_erased_is_refused_with_the_names_of_what_can(cloak, erase, home, monkeypatch):
    assert cloak(attack="tiny-noise")[0] == 0
    keys.create(home / "my.key")
    monkeypatch.setattr(erasing, "erasable_attacks", lambda: ("keyed-pattern",))
    refused(
        erase("--key", "my.key", "--force", attack=""),
        "tiny-noise' cannot be erased",
        "Those that can: keyed-pattern",
    )


def test_erasable_attacks_are_those_registered_as_such(tiny):
    del tiny
    found = erasing.erasable_attacks()
    assert set(found) == {name for name in registry.ATTACKS.entries() if registry.ATTACKS.load(name).erasable}
    assert "tiny-noise" not in found


# --- what must not be written over --------------------------------------------------------------------------------


def test_no_file_of_somebody_elses_is_written_over(cloak, erase, home):
    save(home / "out/ben/01.png", photo(99))
    before = everywhere(home)
    refused(cloak("--key", "my.key"), "ben/01.png was not made by this command and would be written over")
    assert everywhere(home) == before
    (home / "out/ben/01.png").unlink()
    cloak("--key", "my.key")
    save(home / "out/anna/00.png", photo(98))
    before = everywhere(home)
    refused(cloak("--key", "my.key"), "anna/00.png was changed since it was made")
    save(home / "back/anna/01.png", photo(97))
    before = everywhere(home)
    refused(erase("--key", "my.key"), "anna/01.png was not made by this command")
    assert everywhere(home) == before


def test_no_input_is_written_over(cloak, erase, home):
    before = everywhere(home)
    for out in ("photos", "photos/anna", "photos/new", "."):
        refused(cloak("--key", "my.key", out=out), "one folder or one lies inside the other")
    (home / "link").symlink_to(home / "photos")
    refused(cloak("--key", "my.key", out="link"), "one folder or one lies inside the other")
    (home / "link").unlink()
    (home / "file").write_text("x")
    refused(cloak("--key", "my.key", out="file"), "file is a file")
    refused(cloak("--key", "my.key", photos="nowhere"), "nowhere is not a folder")
    (home / "file").unlink()
    assert everywhere(home) == before
    cloak("--key", "my.key")
    refused(erase("--key", "my.key", out="out"), "one folder or one lies inside the other")
    refused(cloak("--key", "my.key", photos="out", out="twice"), "Cloak the originals")


def test_cloaks_of_another_attack_or_key_are_not_mixed_into_a_folder(cloak, home):
    cloak("--key", "my.key")
    keys.create(home / "other.key")
    before = everywhere(home)
    refused(
        cloak("--key", "my.key", attack=f"{PATTERN}:amplitude=9"), "by attack keyed-pattern", "amplitude=9"
    )
    refused(cloak("--key", "other.key"), "under key")
    refused(cloak("--key", "my.key", "--seed", 3), "with seed 0, and this is 3")
    assert everywhere(home) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "\x00"])
def test_a_damaged_record_is_refused(cloak, erase, home, text):
    cloak("--key", "my.key")
    (home / "out/cloaks.json").write_text(text)
    before = everywhere(home)
    refused(cloak("--key", "my.key"), "cloaks.json is damaged")
    refused(erase("--key", "my.key"), "cloaks.json is damaged")
    assert everywhere(home) == before


def test_a_record_of_another_version_is_refused(cloak, erase, home):
    cloak("--key", "my.key")
    record = json.loads((home / "out/cloaks.json").read_text())
    (home / "out/cloaks.json").write_text(json.dumps({**record, "format": 2, "news": 1}))
    refused(erase("--key", "my.key"), "is of version 2, and this CloakBench reads version 1")


# --- photos that cannot be used -----------------------------------------------------------------------------------


def test_what_cannot_be_read_is_named_and_the_others_go_on(cloak, home):
    (home / "photos/anna/broken.png").write_bytes((home / "photos/anna/00.png").read_bytes()[:3000])
    (home / "photos/anna/words.jpg").write_text("not a photo")
    (home / "photos/ben/notes.txt").write_text("hello")
    (home / "photos/ben/deep").mkdir()
    (home / "photos/.hidden").write_text("x")
    code, out, err = cloak("--key", "my.key")
    assert code == 1
    assert "4 photos protected" in out
    assert "4 photos NOT protected and not written:" in err
    for name in (
        "anna/broken.png: it cannot be decoded",
        "anna/words.jpg: it is not an image",
        "ben/notes.txt: not a",
    ):
        assert name in err
    assert set(files("out")) == {
        *(name for name in files("photos") if name[-6:-4] in {"00", "01"}),
        "cloaks.json",
    }
    record = json.loads((home / "out/cloaks.json").read_text())["photos"]
    assert record["anna/broken.png"]["protected"] is False
    assert record["anna/broken.png"]["output"] == ""
    assert "cannot be decoded" in record["anna/broken.png"]["reason"]
    # Mended, it is the only one that is left to do.
    save(home / "photos/anna/broken.png", photo(50))
    _, out, _ = cloak("--key", "my.key")
    assert "1 photo protected by keyed-pattern in out; 4 were there already." in out


def test_crops_are_cut_out_of_photos_that_are_none_where_asked(cloak, erase, home, monkeypatch):
    class Seeing:
        def detect(self, pixels):
            return Landmarks(TEMPLATE + 50.0) if pixels[0, 0, 0] else None

    monkeypatch.setattr(detection, "detector", Seeing)
    upright = photo(5, 250)
    upright[0, 0] = 255
    faceless = photo(6, 250)
    faceless[0, 0] = 0
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    save(home / "photos/anna/large.png", upright[::-1, ::-1].copy(), exif=exif)
    save(home / "photos/anna/nobody.png", faceless)
    code, out, err = cloak("--key", "my.key", "--crops")
    assert code == 1
    assert "1 of them are the aligned 112x112 face cut out of the photo, not the whole photo" in out
    assert "anna/nobody.png: it shows no face that the detector finds" in err
    assert not (home / "out/anna/nobody.png").exists()
    erase("--key", "my.key")
    assert (pixels_of(home / "back/anna/large.png") == upright[50:162, 50:162]).all()


def test_without_the_detector_crops_are_taken_and_other_photos_refused_before_any_work(
    cloak, home, monkeypatch
):
    def lacking():
        raise detection.UsageError("not installed")

    monkeypatch.setattr(detection, "detector", lacking)
    assert cloak("--key", "my.key")[0] == 0
    save(home / "photos/anna/large.png", photo(5, 250))
    before = everywhere(home)
    refused(cloak("--key", "my.key"), "pip install 'cloakbench[detector]'")
    assert everywhere(home) == before


def test_a_photo_that_the_attack_left_as_it_is_is_not_written_as_protected(cloak, home):
    code, out, err = cloak(attack="tiny-sometimes")
    assert code == 1
    assert "2 photos protected" in out
    assert "anna/01.png: the attack left it as it is" in err
    assert set(files("out")) == {"anna/00.png", "ben/00.png", "cloaks.json"}


def test_an_attack_that_fails_leaves_nothing_behind_that_looks_protected(cloak, home):
    code, out, err = cloak(attack="tiny-failing")
    assert code == 1
    assert "0 photos protected" in out
    assert "ben/01.png: tiny-failing failed on it: RuntimeError: no cloak for ben/01" in err
    code, _, err = cloak(attack="tiny-breaking:rule=range", out="other")
    assert code == 1
    assert "not in [0, 1]" in err
    assert set(files("out")) | set(files("other")) == {"cloaks.json"}
    refused(cloak(attack="none", out="third"), "changes no photo")


# --- interruption -------------------------------------------------------------------------------------------------


@pytest.fixture
def stoppable(home):
    """Return the text of an attack that is interrupted after as many photos as a file says."""
    (home / "stoppable.py").write_text(
        textwrap.dedent(
            """
            import signal
            from pathlib import Path
            from bench.contracts import Attack, ThreatModel

            class Stoppable(Attack):
                name = "stoppable"
                threat = ThreatModel(goal="untargeted")
                left = None

                def cloak(self, faces, ctx):
                    counter = Path(__file__).with_name("left")
                    left = int(counter.read_text())
                    if left < len(faces):
                        signal.raise_signal(signal.SIGINT)
                    counter.write_text(str(left - len(faces)))
                    return {name: 1 - image for name, image in zip(faces.ids, faces.images)}
            """
        )
    )
    return f"{home / 'stoppable.py'}:Stoppable"


def test_an_interrupted_command_goes_on_where_it_was(cloak, home, stoppable):
    for number in range(20):
        save(home / f"photos/carl/{number:02d}.png", photo(100 + number))
    (home / "left").write_text("16")
    code, _, err = cloak(attack=stoppable)
    assert code == 130
    assert "the same command goes on from there" in err
    there = {path: path.stat().st_mtime_ns for path in (home / "out").rglob("*.png")}
    assert len(there) == 16
    assert not list((home / "out").rglob("*.tmp"))
    (home / "left").write_text("8")
    code, out, _ = cloak(attack=stoppable)
    assert code == 0
    assert "8 photos protected by stoppable in out; 16 were there already." in out
    assert {path: path.stat().st_mtime_ns for path in there} == there
    for name in files("photos"):
        assert (pixels_of(home / "out" / name) == 255 - pixels_of(home / "photos" / name)).all()


def test_a_photo_recorded_and_not_written_is_made_again(cloak, home):
    """A command killed between the two leaves that."""
    cloak("--key", "my.key")
    whole = files("out")
    (home / "out/ben/00.png").unlink()
    _, out, _ = cloak("--key", "my.key")
    assert "1 photo protected" in out
    assert files("out") == whole


def test_a_source_that_was_replaced_is_protected_anew_and_its_first_cloak_stays(cloak, erase, home):
    cloak("--key", "my.key")
    first, before = files("out")["ben/00.png"], pixels_of(home / "photos/ben/00.png")
    source = save(home / "photos/ben/00.png", photo(77)).read_bytes()
    again = f"ben/00-{sha256(source).hexdigest()[:8]}.png"
    for number in range(2):
        code, out, _ = cloak("--key", "my.key")
        assert (code, f"{1 - number} photo" in out) == (0, True)
        assert files("out")["ben/00.png"] == first
        assert (np.abs(pixels_of(home / "out" / again).astype(int) - photo(77)) == 48).all()
    code, out, err = erase("--key", "my.key")
    assert (code, "5 photos erased" in out) == (0, True), err
    assert (pixels_of(home / "back/ben/00.png") == before).all()
    assert (pixels_of(home / "back" / again) == photo(77)).all()
    # The photo as it was has its cloak there.
    save(home / "photos/ben/00.png", before)
    assert "4 were there already" in cloak("--key", "my.key")[1]


def test_photos_of_two_folders_with_one_name_are_both_in_the_folder_and_both_come_back(cloak, erase, home):
    save(home / "more/ben/00.png", photo(55))
    cloak("--key", "my.key")
    code, out, err = cloak("--key", "my.key", photos="more")
    assert (code, "1 photo protected" in out) == (0, True), err
    assert len(files("out")) == 6
    assert erase("--key", "my.key")[0] == 0
    back = [pixels_of(path) for path in (home / "back/ben").glob("00*.png")]
    assert len(back) == 2
    for original in (home / "photos/ben/00.png", home / "more/ben/00.png"):
        assert any((image == pixels_of(original)).all() for image in back)
    assert "4 were there already" in cloak("--key", "my.key")[1]
    assert "1 were there already" in cloak("--key", "my.key", photos="more")[1]


def test_a_photo_that_cannot_be_read_any_more_keeps_its_earlier_cloak(cloak, erase, home):
    cloak("--key", "my.key")
    before = files("out")
    source = home / "photos/ben/00.png"
    whole = source.read_bytes()
    source.write_bytes(whole[:500])
    for _ in range(2):
        code, out, err = cloak("--key", "my.key")
        assert (code, "0 photos protected" in out) == (1, True)
        assert "out/ben/00.png stays, the cloak of an earlier state of the photo" in err
        assert files("out") | {"cloaks.json": b""} == before | {"cloaks.json": b""}
    record = json.loads((home / "out/cloaks.json").read_text())["photos"]["ben/00.png"]
    assert (record["protected"], record["source_sha256"]) == (True, sha256(whole).hexdigest())
    assert "an earlier state of the photo" in record["reason"]
    assert erase("--key", "my.key")[0] == 0
    source.write_bytes(whole)
    assert "4 were there already" in cloak("--key", "my.key")[1]


def test_a_persons_earlier_cloaks_stay_where_the_attack_fails_on_a_new_photo(cloak, home):
    (home / "shy.py").write_text(
        textwrap.dedent(
            """
            from bench.contracts import Attack, ThreatModel

            class Shy(Attack):
                name = "shy"
                scope = "identity"
                threat = ThreatModel(goal="untargeted")
                def cloak(self, faces, ctx):
                    if len(faces) == 3:
                        raise RuntimeError("three are a crowd")
                    return {name: 1 - image for name, image in zip(faces.ids, faces.images)}
            """
        )
    )
    assert cloak(attack="./shy.py:Shy")[0] == 0
    before = files("out")
    save(home / "photos/anna/02.png", photo(60))
    code, _, err = cloak(attack="./shy.py:Shy")
    assert code == 1
    assert "out/anna/00.png stays, the cloak of this photo" in err
    assert "anna/02.png: shy failed on it: RuntimeError: three are a crowd\n" in err
    assert files("out") | {"cloaks.json": b""} == before | {"cloaks.json": b""}


def full_at(monkeypatch, part):
    """Let the disk be full where a photo is put into its place."""
    link = os.link

    def full(temporary, target):
        if part in Path(target).name:
            raise OSError(28, "No space left on device")
        return link(temporary, target)

    monkeypatch.setattr(records.os, "link", full)


def test_an_earlier_cloak_stays_and_nothing_is_called_protected_where_the_disk_is_full(
    cloak, home, monkeypatch
):
    cloak("--key", "my.key")
    before = files("out")
    save(home / "photos/ben/00.png", photo(77))
    with monkeypatch.context() as patch:
        full_at(patch, "00-")
        code, _, err = cloak("--key", "my.key")
        assert code == 1
        assert "name another folder to write to, then run the same command again" in err
    assert files("out") == before
    code, out, _ = cloak("--key", "my.key")
    assert (code, "1 photo protected" in out) == (0, True)
    assert files("out")["ben/00.png"] == before["ben/00.png"]


def test_what_comes_into_the_folder_while_the_command_works_is_not_written_over(cloak, home, monkeypatch):
    link = os.link

    def meanwhile(temporary, target):
        if Path(target).name == "01.png" and "anna" in str(target):
            Path(target).write_bytes(b"mine")
        return link(temporary, target)

    with monkeypatch.context() as patch:
        patch.setattr(records.os, "link", meanwhile)
        code, out, err = cloak("--key", "my.key")
    assert (code, "3 photos protected" in out) == (1, True)
    assert "anna/01.png: out/anna/01.png came to be, or was changed, while it was worked on" in err
    assert (home / "out/anna/01.png").read_bytes() == b"mine"
    record = json.loads((home / "out/cloaks.json").read_text())["photos"]["anna/01.png"]
    assert (record["protected"], record["output"]) == (False, "")
    assert not list((home / "out").rglob("*.tmp"))


def test_a_file_system_without_links_will_do(cloak, home, monkeypatch):
    def none(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    cloak("--key", "my.key", out="linked")
    monkeypatch.setattr(records.os, "link", none)
    assert cloak("--key", "my.key")[0] == 0
    assert files("out") == files("linked")


def test_a_long_name_will_do_and_a_longer_one_is_named(cloak, home):
    for seed, name in enumerate(("é" * 120, "z" * 250)):  # .png twice is too long for the second
        for ending in ("png", "bmp"):
            save(home / f"photos/anna/{name}.{ending}", photo(5 + seed))
    code, out, err = cloak("--key", "my.key")
    assert (code, "6 photos protected" in out) == (1, True), err
    assert "it would be written under a name of 258 bytes, and the most is 255; rename it" in err
    assert err.count("rename it") == 2


def test_other_code_adds_nothing_to_a_folder(cloak, home):
    cloak("--key", "my.key")
    record = json.loads((home / "out/cloaks.json").read_text())
    record["code"] = "0" * 64
    (home / "out/cloaks.json").write_text(json.dumps(record))
    assert cloak("--key", "my.key")[0] == 0
    save(home / "photos/ben/02.png", photo(41))
    refused(cloak("--key", "my.key"), "made with other code of this method (digest 000000000000, now")


def test_a_cloak_whose_photo_is_gone_is_not_taken_for_another_photos(cloak, erase, home):
    cloak("--key", "my.key")
    there = files("out")["anna/00.png"]
    (home / "photos/anna/00.png").unlink()
    save(home / "photos/anna/00.bmp", photo(31))
    for number in range(2):
        code, out, _ = cloak("--key", "my.key")
        assert (code, f"{1 - number} photo" in out) == (0, True)
        assert files("out")["anna/00.png"] == there
        assert (np.abs(pixels_of(home / "out/anna/00.bmp.png").astype(int) - photo(31)) == 48).all()
    photos = json.loads((home / "out/cloaks.json").read_text())["photos"]
    outputs = [record["output"] for record in photos.values()]
    assert len(set(outputs)) == len(outputs) == 5
    assert erase("--key", "my.key")[0] == 0
    assert (pixels_of(home / "back/anna/00.bmp.png") == photo(31)).all()
    # The photo that comes back has its cloak there.
    save(home / "photos/anna/00.png", photo(0))
    assert "5 were there already" in cloak("--key", "my.key")[1]


def test_a_full_disk_loses_nothing_and_leaves_nothing_half_written(cloak, home, monkeypatch):
    full_at(monkeypatch, "01.png")
    code, _, err = cloak("--key", "my.key")
    assert code == 1
    assert "No space left on device" in err
    assert set(files("out")) == {"anna/00.png", "cloaks.json"}
    record = json.loads((home / "out/cloaks.json").read_text())["photos"]
    assert {name: one["protected"] for name, one in record.items()} == {"anna/00.png": True}
    monkeypatch.undo()
    monkeypatch.chdir(home)
    monkeypatch.setenv("CLOAKBENCH_STORE", str(home / "store"))
    code, out, _ = cloak("--key", "my.key")
    assert (code, "3 photos protected by keyed-pattern in out; 1 were there already" in out) == (0, True)


# --- people, targets, surrogates ----------------------------------------------------------------------------------


def test_photos_of_one_folder_are_handed_over_together(cloak, home):
    assert cloak(attack="tiny-identity-mean")[0] == 0

    def mean(person):
        chosen = sorted((home / "photos" / person).iterdir())
        return torch.stack([torch.from_numpy(pixels_of(path).copy()).float() / 255 for path in chosen]).mean(
            0
        )

    for person in ("anna", "ben"):
        expected = (mean(person) * 255).round().to(torch.uint8).numpy()
        assert (pixels_of(home / f"out/{person}/00.png") == expected).all()
    # One photo more changes the person's cloaks, and nobody else's.
    there = (home / "out/ben/00.png").stat().st_mtime_ns
    save(home / "photos/anna/02.png", photo(60))
    _, out, _ = cloak(attack="tiny-identity-mean")
    assert "3 photos protected by tiny-identity-mean in out; 2 were there already." in out
    assert (pixels_of(home / "out/anna/00.png") == (mean("anna") * 255).round().to(torch.uint8).numpy()).all()
    assert (home / "out/ben/00.png").stat().st_mtime_ns == there


def test_targets_and_what_is_learnt_come_from_training_people_of_the_dataset(cloak, home):
    assert cloak(attack="tiny-imitating")[0] == 0
    target = pixels_of(home / "out/anna/00.png")
    people = [person for person in factory.dataset("tiny").identities() if person.role == "training"]
    crops = factory.dataset("tiny").crops([image for person in people for image in person.photos])
    assert any((crop.permute(1, 2, 0).numpy() == target).all() for crop in crops)
    assert cloak(attack="tiny-learning", out="learnt")[0] == 0
    mean = crops.float().mean(0).permute(1, 2, 0).numpy()
    expected = (pixels_of(home / "photos/anna/00.png") + mean) / 2
    assert np.abs(pixels_of(home / "learnt/anna/00.png") - expected).max() <= 1


def test_surrogates_are_the_pools_first_group_or_those_named(cli, home):
    base = (
        "cloak",
        "photos",
        "out",
        "--attack",
        "pgd:steps=2",
        "--dataset",
        "tiny",
        "--threads",
        1,
        "--dry-run",
    )
    assert "pgd:steps=2 against tiny-a." in cli(*base)[2]
    assert (
        "pgd:steps=2 against tiny-b, tiny-c." in cli(*base, "--backbone", "tiny-c", "--backbone", "tiny-b")[2]
    )
    assert "tiny: no figure says anything about faces" in cli(*base)[2]
    refused(cli(*base, "--backbone", "tiny-q"), "unknown backbone 'tiny-q'")
    pattern = [PATTERN if word == "pgd:steps=2" else word for word in base]
    refused(cli(*pattern, "--key", "k", "--backbone", "tiny-a"), "uses no surrogates, not tiny-a")
    assert not (home / "out").exists()


def test_surrogates_named_are_those_used(cloak, home):
    assert cloak("--backbone", "tiny-c", attack="pgd:steps=2")[0] == 0
    assert json.loads((home / "out/cloaks.json").read_text())["surrogates"] == ["tiny-c"]
    refused(cloak(attack="pgd:steps=2"), "with surrogates tiny-c, and this is tiny-a")


@pytest.mark.parametrize("attack", ["erasablemask", "apf"])
def test_shipped_weights_are_found_without_naming_surrogates(cli, home, attack):
    dataset = factory.dataset("synthetic:photos=4")
    person = next(person for person in dataset.identities() if person.role == "evaluation")
    crops = dataset.crops(person.photos).permute(0, 2, 3, 1).numpy()
    faces = list(zip(sorted(files("photos")), crops, strict=True))
    for name, pixels in faces:
        save(home / "photos" / name, pixels)
    key = ("--key", "my.key") if attack == "erasablemask" else ()
    code, out, err = cli("cloak", "photos", "out", "--attack", attack, *key, "--threads", 1)
    assert (code, "4 photos protected" in out) == (0, True), err
    used = json.loads((home / "out/cloaks.json").read_text())["surrogates"]
    assert f"{attack} against {', '.join(used)}." in err
    pool = registry.POOLS.load("synthetic")
    assert tuple(used) in {pool.helpers(group[0]) for group in pool.groups}
    if key:
        code, out, err = cli("erase", "out", "back", *key, "--threads", 1)
        assert (code, "4 photos erased" in out) == (0, True), err
        masked, erased = (
            np.mean([np.abs(pixels_of(home / folder / name).astype(int) - pixels) for name, pixels in faces])
            for folder in ("out", "back")
        )
        assert erased < masked / 2


def test_without_lfw_the_default_is_synthetic_and_says_what_that_is_worth(cli, home):
    _, _, err = cli("cloak", "photos", "out", "--attack", "pgd:steps=2", "--dry-run")
    assert "Note: synthetic is a smoke-sized stand-in" in err


# --- what can be wrong with cloaks ----------------------------------------------------------------------------------


def test_photos_that_changed_are_tried_and_named_and_strange_ones_left(cloak, erase, home):
    cloak("--key", "my.key")
    changed = pixels_of(home / "out/anna/00.png").copy()
    changed[0, 0] = 0
    save(home / "out/anna/00.png", changed)
    shutil.move(home / "out/anna/01.png", home / "out/anna/renamed.png")
    posted = Image.open(home / "out/ben/00.png")
    pattern = np.asarray(posted).astype(int) - pixels_of(home / "photos/ben/00.png")
    posted.save(home / "out/ben/00.jpg", quality=95)
    (home / "out/ben/00.png").unlink()
    Image.open(home / "out/ben/01.png").resize((224, 224)).save(home / "out/ben/01.png")
    save(home / "out/ben/strange.png", photo(3))
    code, out, err = erase("--key", "my.key")
    assert code == 1
    assert "3 photos erased" in out
    for line in (
        "2 photos tried all the same:",
        "anna/00.png: it was changed since it was cloaked",
        "ben/00.jpg: it was changed since it was cloaked",
        "2 photos not erased:",
        "ben/01.png: it is 224×224 pixels and the cloak was 112×112",
        "ben/strange.png: it is not among the cloaks of cloaks.json",
    ):
        assert line in err
    assert set(files("back")) == {"anna/00.png", "anna/renamed.png", "ben/00.png", "erased.json"}
    assert (pixels_of(home / "back/anna/renamed.png") == pixels_of(home / "photos/anna/01.png")).all()
    # The pattern that comes off is that of the photo's own name.
    came_back = pixels_of(home / "out/ben/00.jpg").astype(int) - pattern
    assert (pixels_of(home / "back/ben/00.png") == came_back.clip(0, 255)).all()


def test_without_the_record_the_attack_must_be_named(cloak, erase, home):
    cloak("--key", "my.key")
    (home / "out/cloaks.json").unlink()
    refused(erase("--key", "my.key", attack=""), "out has no cloaks.json", "--attack")
    assert erase("--key", "my.key")[0] == 0
    assert (pixels_of(home / "back/ben/01.png") == pixels_of(home / "photos/ben/01.png")).all()


def test_another_attack_than_the_records_is_refused(cloak, erase, home):
    cloak("--key", "my.key")
    refused(
        erase("--key", "my.key", attack=f"{PATTERN}:amplitude=9"),
        "holds cloaks of keyed-pattern, not of keyed-pattern:amplitude=9",
    )
    assert erase("--key", "my.key")[0] == 0


MARKED = """
from pathlib import Path
Path("it-ran").touch()
"""


@pytest.mark.parametrize("field", ["attack_text", "dataset", "surrogates"])
def test_no_code_is_run_because_a_record_names_it(cloak, erase, home, field):
    cloak("--key", "my.key")
    (home / "marked.py").write_text(MARKED)
    record = json.loads((home / "out/cloaks.json").read_text())
    named = "./marked.py:Marked"
    record[field] = [named] if field == "surrogates" else named
    (home / "out/cloaks.json").write_text(json.dumps(record))
    before = everywhere(home)
    refused(
        erase("--key", "my.key", attack="" if field == "attack_text" else PATTERN),
        f"'{named}', code in a file, which is not run because a record says so",
        {"attack_text": "with --attack", "dataset": "with --dataset", "surrogates": "with --backbone"}[field],
    )
    assert everywhere(home) == before


def test_a_wrong_key_is_refused_before_the_attack_is_made(cloak, erase, home):
    cloak("--key", "my.key")
    keys.create(home / "other.key")
    (home / "marked.py").write_text(MARKED)
    refused(erase("--key", "other.key", attack="./marked.py:Marked"), "wrong key")
    assert not (home / "it-ran").exists()


OPENING = """
from bench.contracts import Attack, ThreatModel

class Opening(Attack):
    name = "opening"
    erasable = True
    threat = ThreatModel(goal="targeted", needs_targets=True)

    def cloak(self, faces, ctx):
        assert len(ctx.targets) and ctx.key
        return {name: 1 - image for name, image in zip(faces.ids, faces.images)}

    def erase(self, faces, key, ctx):
        assert ctx.targets is None
        if "anna/01" in faces.ids:
            raise RuntimeError("no wish to")
        erased = 1 - faces.images
        for row, name in enumerate(faces.ids):
            if name == "ben/01":
                erased[row] = faces.images[row]
        return erased
"""


def test_what_does_not_come_off_is_named_and_not_written_as_erased(cloak, erase, home):
    (home / "opening.py").write_text(OPENING)
    assert cloak("--key", "my.key", attack=f"{home / 'opening.py'}:Opening")[0] == 0
    code, out, err = erase("--key", "my.key", attack=f"{home / 'opening.py'}:Opening")
    assert code == 1
    assert "2 photos erased" in out
    assert "anna/01.png: opening failed on it: RuntimeError: no wish to" in err
    assert "ben/01.png: nothing came off: to the attack it is no cloak under this key" in err
    assert set(files("back")) == {"anna/00.png", "ben/00.png", "erased.json"}


BOUND = """
from bench.contracts import Attack, ThreatModel
from bench.errors import UsageError

class Bound(Attack):
    name = "bound"
    erasable = True
    threat = ThreatModel(goal="untargeted", surrogates=1)

    def pool(self):
        return "auto"

    def files(self, binding):
        if binding.backbones != ("tiny-b", "tiny-c"):
            raise UsageError(f"no weights for {binding.backbones}")
        return ()

    def cloak(self, faces, ctx):
        assert [backbone.name for backbone in ctx.backbones] == ["tiny-b", "tiny-c"]
        return {name: 1 - image for name, image in zip(faces.ids, faces.images)}

    def erase(self, faces, key, ctx):
        assert [backbone.name for backbone in ctx.backbones] == ["tiny-b", "tiny-c"]
        return 1 - faces.images
"""


def test_erasing_works_with_the_surrogates_that_the_cloaks_were_made_with(cloak, erase, home):
    (home / "bound.py").write_text(BOUND)
    attack = f"{home / 'bound.py'}:Bound"
    refused(cloak("--key", "my.key", "--backbone", "tiny-a", attack=attack), "no weights for ('tiny-a',)")
    named = ("--backbone", "tiny-c", "--backbone", "tiny-b")
    assert cloak("--key", "my.key", *named, attack=attack)[0] == 0
    assert erase("--key", "my.key", attack=attack)[0] == 0
    assert (pixels_of(home / "back/ben/00.png") == pixels_of(home / "photos/ben/00.png")).all()


WEIGHED = """
from pathlib import Path
from pydantic import Field
from bench.contracts import Attack, MethodParams, ThreatModel

class Weighed(Attack):
    name = "weighed"
    erasable = True
    threat = ThreatModel(goal="untargeted")

    class Params(MethodParams):
        weights: str = Field("", description="file", json_schema_extra={"path": True})

    def files(self, binding):
        return (Path(self.params.weights),)

    def cloak(self, faces, ctx):
        return {name: 1 - image for name, image in zip(faces.ids, faces.images)}

    def erase(self, faces, key, ctx):
        assert ctx.key == b"" and key
        return 1 - faces.images
"""


def test_other_weights_are_refused_and_other_code_is_a_warning(cloak, erase, home):
    (home / "weighed.py").write_text(WEIGHED)
    (home / "w.bin").write_bytes(b"one")
    attack = f"{home / 'weighed.py'}:Weighed:weights={home / 'w.bin'}"
    assert cloak("--key", "my.key", attack=attack)[0] == 0
    record = json.loads((home / "out/cloaks.json").read_text())
    assert record["weights"] == [sha256(b"one").hexdigest()]
    assert record["attack"] == "weighed:weights=w.bin"
    (home / "w.bin").write_bytes(b"other")
    refused(
        erase("--key", "my.key", attack=attack),
        "the weights of weighed:weights=w.bin are others than those that made",
    )
    (home / "w.bin").write_bytes(b"one")
    (home / "out/cloaks.json").write_text(json.dumps({**record, "code": "0" * 64}))
    code, _, err = erase("--key", "my.key", attack=attack)
    assert code == 0
    assert "the code of weighed:weights=w.bin is another than when the cloaks were made" in err
    # Without the cloaks' record, what other weights erased is not taken for what these would.
    (home / "out/cloaks.json").unlink()
    (home / "w.bin").write_bytes(b"other")
    before = everywhere(home)
    refused(erase("--key", "my.key", attack=attack), "back holds what was erased with weights")
    assert everywhere(home) == before
    (home / "out/cloaks.json").write_text(json.dumps(record))
    gone = f"{home / 'gone.py'}:Weighed"
    refused(
        erase("--key", "my.key", out="again", attack=gone), "gone.py", "Say with --attack where it is now"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_photo_one_may_not_read_is_named(cloak, home):
    (home / "photos/anna/00.png").chmod(0)
    code, _, err = cloak("--key", "my.key")
    assert code == 1
    assert "anna/00.png: it cannot be read: Permission denied" in err


def test_what_is_written_is_png_that_keeps_every_value(cloak, home):
    save(home / "photos/anna/02.jpg", photo(8), quality=90)
    cloak("--key", "my.key")
    written = (home / "out/anna/02.png").read_bytes()
    assert Image.open(io.BytesIO(written)).format == "PNG"
    change = pixels_of(home / "out/anna/02.png").astype(int) - pixels_of(home / "photos/anna/02.jpg")
    assert np.abs(change).max() == 48


@pytest.mark.real_data
def test_a_real_photo_is_found_aligned_protected_and_given_back(cloak, erase, home, monkeypatch):
    if not (REAL / ARCHIVE).exists():
        pytest.skip(f"needs LFW; {VARIABLE} points to no folder that has it")
    monkeypatch.setenv(VARIABLE, str(REAL))
    shutil.rmtree(home / "photos")
    lfw = factory.dataset("lfw")
    chosen = [person.photos[0] for person in lfw.identities()[:2]]
    with tarfile.open(REAL / ARCHIVE) as archive:
        photos = [member for member in archive if member.name.endswith("_0001.jpg")]
        photos = sorted(photos, key=lambda member: member.name.split("/")[-2])[:2]
        for number, member in enumerate(photos):
            (home / "photos").mkdir(exist_ok=True)
            (home / f"photos/{number}.jpg").write_bytes(archive.extractfile(member).read())
    code, out, _ = cloak("--key", "my.key", "--crops", dataset="lfw")
    assert (code, "2 of them are the aligned 112x112 face" in out) == (0, True)
    assert erase("--key", "my.key")[0] == 0
    for number, crop in enumerate(lfw.crops(chosen)):
        back = pixels_of(home / f"back/{number}.png").astype(int)
        # The detector's landmarks are not to the bit those of the data pack, and the pattern clips black and white.
        assert np.abs(back - crop.permute(1, 2, 0).numpy()).mean() < 12


LEAKING = """
    from pathlib import Path
    from bench.contracts import Attack, ThreatModel
    from bench.errors import DataError, MethodError

    def shown(ctx, key):
        return f"{ctx} {key!r} {key.hex()} {bytes(key)!r} {list(key)} {bytes(key).decode('latin-1')}"

    class Leaking(Attack):
        name = "leaking"
        erasable = True
        threat = ThreatModel(goal="untargeted")
        def cloak(self, faces, ctx):
            if Path("works").exists():
                return {name: 1 - image for name, image in zip(faces.ids, faces.images)}
            raise ERROR(shown(ctx, ctx.key))
        def erase(self, faces, key, ctx):
            raise ERROR(shown(ctx, key))
"""


@pytest.mark.parametrize("error", ["RuntimeError", "MethodError", "DataError"])
def test_an_error_that_shows_context_and_key_does_not_show_the_secret(cloak, erase, home, caplog, error):
    attack = f"./{error}.py:Leaking"
    (home / f"{error}.py").write_text(textwrap.dedent(LEAKING).replace("ERROR", error))
    failed = cloak("--key", "my.key", attack=attack)
    (home / "works").touch()
    assert cloak("--key", "my.key", attack=attack)[0] == 0
    stuck = erase("--key", "my.key", attack=attack)
    texts = [caplog.text]
    for code, out, err in (failed, stuck):
        assert code == (2 if error == "DataError" else 1)
        assert "Secret(not shown)" in err
        assert "[secret]" in err
        texts += [out, err]
    texts += [
        path.read_text("latin-1") for path in home.rglob("*") if path.is_file() and path.suffix != ".key"
    ]
    secret = bytes(keys.read(home / "my.key").secret)
    for form in (secret.hex(), repr(secret)[2:-1], str(list(secret)), secret.decode("latin-1")):
        assert not [text for text in texts if form in text]
