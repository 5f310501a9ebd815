"""Whole photos through `bench cloak`, `purify`, `erase` and `inspect`: faces change, and all else stays."""

import io
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from bench.data.files import VARIABLE, data_folder
from bench.datasets.lfw import ARCHIVE
from bench.faces import search
from bench.faces.alignment import TEMPLATE, Landmarks, align
from bench.faces.photos import read_photo
from bench.photo_tools import photo_files
from bench.photo_tools.records import CloakRecord
from bench.plugins import factory

REAL = data_folder()
PATTERN = f"{Path(__file__).parents[1] / 'plugins' / 'erasable.py'}:KeyedPattern"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def photo(seed=0, height=240, width=200):
    """Return a photo in which the drawn detector sees a face: it is not dark."""
    return np.random.default_rng(seed).integers(70, 186, (height, width, 3)).astype(np.uint8)


def points_of(pixels):
    height, width = pixels.shape[:2]
    return (TEMPLATE - 55.5) * min(height, width) / 224 + [width / 2, height / 2]


@pytest.fixture
def seeing(monkeypatch):
    """Let the detector see a face in the middle of what is not dark, and two in what is very bright."""

    def find(pixels):
        if pixels.mean() < 50:
            return ()
        middle = points_of(pixels)
        if pixels.mean() < 200:
            return (Landmarks(middle),)
        return tuple(Landmarks(middle + np.array([side, 0])) for side in (-45, 45))

    monkeypatch.setattr(search, "find_faces", find)


@pytest.fixture
def home(tmp_path, monkeypatch, seeing):
    del seeing
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOAKBENCH_STORE", str(tmp_path / "store"))
    (tmp_path / "photos").mkdir()
    return tmp_path


@pytest.fixture
def bench(cli, home):
    del home

    def run(name, *arguments):
        return cli(name, *arguments, "--threads", 1, "--quiet")

    return run


@pytest.fixture
def cloak(bench):
    def run(*more, photos="photos", out="out", attack=PATTERN, key=("--key", "my.key")):
        return bench("cloak", photos, out, "--attack", attack, "--dataset", "tiny", *key, *more)

    return run


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def image_of(path):
    return Image.open(io.BytesIO(Path(path).read_bytes()))


def files(folder):
    found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "camera"
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return exif.tobytes()


def test_the_face_changes_and_the_rest_of_the_photo_does_not(cloak, home):
    save(home / "photos/a.png", photo(), icc_profile=SRGB, exif=exif_of(1))
    code, out, err = cloak()
    assert (code, err) == (0, "")
    assert "1 photo protected by keyed-pattern in out." in out
    made = image_of(home / "out/a.png")
    assert made.info["icc_profile"] == SRGB
    assert made.getexif()[0x010F] == "camera"
    change = np.abs(np.asarray(made).astype(int) - photo())
    record = CloakRecord.read(home / "out/cloaks.json").photos["a.png"]
    assert (record.protected, record.width, record.height) == (True, 200, 240)
    (face,) = record.faces
    left, top, right, bottom = face.box
    outside = np.ones((240, 200), bool)
    outside[top:bottom, left:right] = False
    assert not change[outside].any()
    assert 40 <= change.max() <= 49  # the pattern's amplitude is 48
    assert face.kept > 0.7
    seen = align(np.asarray(made), points_of(photo())).astype(int) - align(photo(), points_of(photo()))
    assert np.abs(seen).mean() > 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_turned_photo_stays_turned_and_its_face_changes_where_it_is_seen(cloak, home, orientation, kind):
    source = save(home / f"photos/a.{kind}", photo(), exif=exif_of(orientation))
    assert cloak("--format", "png")[0] == 0
    made = (home / "out/a.png").read_bytes()
    assert Image.open(io.BytesIO(made)).getexif()[0x0112] == orientation
    before, after = read_photo(source), read_photo(made)
    change = np.abs(after.astype(int) - before).max(2)
    height, width = before.shape[:2]
    assert (change[height // 2 - 20 : height // 2 + 20, width // 2 - 20 : width // 2 + 20] > 0).mean() > 0.9
    assert not change[:30].any()
    assert not change[-30:].any()


def test_a_photo_without_a_face_is_copied_as_it_is_and_named(cloak, home):
    source = save(home / "photos/sky.jpg", photo() // 8, quality=70)
    save(home / "photos/me.png", photo())
    code, out, err = cloak()
    assert code == 0
    assert "1 photo protected" in out
    assert (
        "1 photo in which no face was found, copied as they are: NOT protected if there is one:\n  sky.jpg"
        in err
    )
    assert (home / "out/sky.jpg").read_bytes() == source.read_bytes()
    record = CloakRecord.read(home / "out/cloaks.json").photos["sky.jpg"]
    assert (record.protected, record.copied) == (False, True)
    _, out, err = cloak()
    assert "0 photos protected by keyed-pattern in out; 2 were there already." in out


def test_formats_are_kept_or_as_asked(cloak, home):
    for name in ("a.jpg", "b.JPEG", "c.webp", "d.bmp", "e.png", "f.gif"):
        save(home / "photos" / name, photo(3))
    assert cloak("--format", "keep")[0] == 0
    assert {name: image_of(home / "out" / name).format for name in files("out") if name != "cloaks.json"} == {
        "a.jpg": "JPEG", "b.JPEG": "JPEG", "c.webp": "WEBP", "d.png": "PNG", "e.png": "PNG", "f.png": "PNG",
    }  # fmt: skip
    quantized = image_of(home / "out/a.jpg")
    assert quantized.layers == 3
    assert [layer[1:3] for layer in quantized.layer] == [(1, 1)] * 3  # 4:4:4
    code, _, err = cloak("--format", "jpeg", out="jpegs")
    assert (code, err) == (0, "")
    assert {Path(name).suffix.lower() for name in files("jpegs")} == {".jpg", ".jpeg", ".json"}
    code, _, err = cloak("--format", "png")
    assert code == 2
    assert "made as --format keep, and this is png" in err
    assert cloak(out="default")[0] == 0  # an erasable attack's cloaks keep every value
    assert {Path(name).suffix for name in files("default")} == {".png", ".json"}


def test_the_place_is_taken_out_where_asked(cloak, home):
    save(home / "photos/a.jpg", photo(), exif=exif_of(1))
    cloak()
    assert image_of(home / "out/a.png").getexif().get_ifd(0x8825)
    cloak("--strip-location", out="stripped")
    exif = image_of(home / "stripped/a.png").getexif()
    assert (exif[0x010F], exif.get_ifd(0x8825)) == ("camera", {})


def test_transparency_grey_and_16_bits_stay(cloak, home):
    import cv2

    alpha = np.dstack([photo(), np.full((240, 200), 255, np.uint8)])
    alpha[:5, :, 3] = 77
    save(home / "photos/alpha.png", alpha)
    save(home / "photos/grey.png", photo()[..., 0])
    deep = photo(4).astype(np.uint16) * 257 + 1
    cv2.imwrite(str(home / "photos/deep.png"), deep)
    assert cloak()[0] == 0
    assert (np.asarray(image_of(home / "out/alpha.png"))[..., 3] == alpha[..., 3]).all()
    assert image_of(home / "out/grey.png").mode == "L"
    made = cv2.imread(str(home / "out/deep.png"), cv2.IMREAD_UNCHANGED)
    assert made.dtype == np.uint16
    assert (made[:30] == deep[:30]).all()
    assert (made != deep).any()


def test_every_face_is_changed_and_only_the_largest_is_the_folders_person(cloak, home):
    (home / "people.py").write_text(
        "from pathlib import Path\n"
        "from bench.contracts import Attack, ThreatModel\n"
        "class People(Attack):\n"
        "    name = 'people'\n"
        "    scope = 'identity'\n"
        "    threat = ThreatModel(goal='untargeted')\n"
        "    def cloak(self, faces, ctx):\n"
        "        with Path('seen').open('a') as file:\n"
        "            file.write(f'{sorted(faces.ids)} {len(set(faces.identities))}\\n')\n"
        "        return {name: 1 - image for name, image in zip(faces.ids, faces.images)}\n"
    )
    save(home / "photos/anna/1.png", photo(1))
    save(home / "photos/anna/both.png", np.full((240, 300, 3), 230, np.uint8))
    code, _, err = cloak(attack="./people.py:People", key=())
    assert (code, err) == (0, "")
    seen = (home / "seen").read_text().splitlines()
    assert seen == ["['anna/1', 'anna/both'] 1", "['anna/both//1'] 1"]
    record = CloakRecord.read(home / "out/cloaks.json").photos
    assert (len(record["anna/1.png"].faces), len(record["anna/both.png"].faces)) == (1, 2)


def test_a_second_face_is_never_put_into_another_photo(cloak, home):
    both = np.full((240, 300, 3), 230, np.uint8)
    save(home / "photos/col.png", both)
    save(home / "photos/col#1.png", photo(7))
    assert cloak()[0] == 0
    assert cloak(photos="photos/col#1.png", out="alone")[0] == 0
    assert files("out")["col#1.png"] == files("alone")["col#1.png"]
    assert cloak(photos="photos/col.png", out="col")[0] == 0
    assert files("out")["col.png"] == files("col")["col.png"]


FAINT = """
from bench.contracts import Attack, ThreatModel

class Faint(Attack):
    name = "faint"
    threat = ThreatModel(goal="untargeted")
    def cloak(self, faces, ctx):
        at = torch.arange(112) // GRAIN
        signs = (at[:, None] + at) % 2 * 2.0 - 1
        return {name: (image + AMPLITUDE / 255 * signs).clamp(0, 1) for name, image in zip(faces.ids, faces.images)}

import torch
"""


def test_what_shows_nothing_of_its_cloak_is_not_called_protected(cloak, home):
    (home / "faint.py").write_text(FAINT.replace("AMPLITUDE", "1").replace("GRAIN", "1"))
    save(home / "photos/a.jpg", photo())
    code, out, err = cloak("--format", "jpeg", attack="./faint.py:Faint", key=())
    assert (code, "0 photos protected" in out) == (1, True)
    assert "a.jpg: nothing of the cloak would be left in a face (a share of -" in err
    assert set(files("out")) == {"cloaks.json"}


def test_photos_that_show_little_of_their_cloak_are_named_every_time(cloak, home):
    (home / "faint.py").write_text(FAINT.replace("AMPLITUDE", "30").replace("GRAIN", "5"))
    save(home / "photos/small.png", photo(2, 60, 50))
    save(home / "photos/sky.jpg", photo() // 8)
    cmyk = Image.fromarray(photo(9)).convert("CMYK")
    save(home / "photos/print.jpg", cmyk)
    for number in range(2):
        code, out, err = cloak(attack="./faint.py:Faint", key=())
        assert (code, f"{2 * (1 - number)} photos protected" in out) == (0, True), err
        assert "1 photo protected WEAKLY: less than 30% of the cloak is left in a face:\n  small.png: " in err
        assert "copied as they are: NOT protected if there is one:\n  sky.jpg" in err
        assert "changed in something else too:\n  print.jpg: CMYK became sRGB" in err
    _, out, err = cloak("--dry-run", attack="./faint.py:Faint", key=())
    assert "copied as they are: NOT protected if there is one:\n  sky.jpg" in err
    assert [
        one["photo"] for one in json.loads(cloak("--json", attack="./faint.py:Faint", key=())[1])["weak"]
    ] == ["small.png"]


def test_a_copy_gives_no_place_away_where_that_was_asked(cloak, home):
    save(home / "photos/sky.jpg", photo() // 8, exif=exif_of(6))
    save(home / "photos/sky.png", photo() // 8, exif=exif_of(1))
    save(home / "photos/plain.tif", photo() // 8)
    save(home / "photos/told.tif", photo() // 8, exif=exif_of(1))
    code, _, err = cloak("--strip-location")
    assert code == 1
    assert (
        "told.tif: it shows no face and may say where it was taken, which is not taken out of TIFF files"
        in err
    )
    assert (home / "out/plain.tif").read_bytes() == (home / "photos/plain.tif").read_bytes()
    outputs = {one.output for one in CloakRecord.read(home / "out/cloaks.json").photos.values() if one.output}
    assert len(outputs) == 3
    for name in outputs - {"plain.tif"}:
        made = image_of(home / "out" / name)
        assert made.getexif().get_ifd(0x8825) == {}
        assert made.getexif()[0x0112] == (6 if name.endswith("jpg") else 1)
        source = image_of(home / "photos" / ("sky.jpg" if name.endswith("jpg") else "sky.png"))
        assert (np.asarray(made) == np.asarray(source)).all()


def test_the_uncloaked_copy_goes_when_the_photo_shows_a_face(cloak, home):
    save(home / "photos/a.jpg", photo() // 8)
    cloak()
    assert "a.jpg" in files("out")
    save(home / "photos/a.jpg", photo())
    assert cloak()[0] == 0
    assert set(files("out")) == {"a.png", "cloaks.json"}


def test_a_face_that_did_not_come_off_is_named_every_time(cloak, bench, home):
    (home / "half.py").write_text(
        "from bench.contracts import Attack, ThreatModel\n"
        "class Half(Attack):\n"
        "    name = 'half'\n"
        "    erasable = True\n"
        "    threat = ThreatModel(goal='untargeted')\n"
        "    def cloak(self, faces, ctx):\n"
        "        return {name: 1 - image for name, image in zip(faces.ids, faces.images)}\n"
        "    def erase(self, faces, key, ctx):\n"
        "        images = faces.images.clone()\n"
        "        for row, name in enumerate(faces.ids):\n"
        "            if '//' not in name:\n"
        "                images[row] = 1 - images[row]\n"
        "        return images\n"
    )
    save(home / "photos/both.png", np.full((240, 300, 3), 230, np.uint8))
    save(home / "photos/one.png", photo())
    assert cloak(attack="./half.py:Half")[0] == 0
    for number in range(2):
        code, out, err = bench("erase", "out", "back", "--key", "my.key", "--attack", "./half.py:Half")
        assert (code, f"{2 * (1 - number)} photos erased" in out) == (1, True), err
        assert "1 photo erased in part:\n  both.png: 1 of its 2 faces did not come off" in err


def test_two_photos_of_one_cloak_are_not_erased_into_one_another(cloak, bench, home):
    save(home / "photos/a.png", photo())
    cloak()
    (home / "out/b.png").write_bytes((home / "out/a.png").read_bytes())
    code, out, err = bench("erase", "out", "back", "--key", "my.key", "--attack", PATTERN)
    assert (code, "1 photo erased" in out) == (1, True)
    assert "b.png: it is the same cloak as a.png; erase it from a folder of its own" in err


def test_awkward_files_are_handled_or_named_one_by_one(cloak, home):
    save(home / "photos/good.png", photo())
    save(home / "photos/-dash ünï 名.png", photo(1))
    save(home / "photos/new\nline.png", photo(2))
    save(
        home / "photos/anim.gif",
        Image.fromarray(photo()),
        save_all=True,
        append_images=[Image.fromarray(photo(5))],
    )
    save(home / "photos/still.gif", photo(3))
    (home / "photos/zero.jpg").write_bytes(b"")
    (home / "photos/words.jpg").write_text("words")
    (home / "photos/cut.png").write_bytes((home / "photos/good.png").read_bytes()[:5000])
    (home / "photos/folder.jpg").mkdir()
    (home / "photos/folder.jpg/inner").mkdir()
    (home / "photos/broken.jpg").symlink_to("nowhere")
    os.mkfifo(home / "photos/pipe.jpg")
    (home / "photos/movie.mp4").write_text("x")
    (home / "photos/heic.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 30)
    before = files("photos") if not (home / "photos/pipe.jpg").is_file() else {}
    code, out, err = cloak()
    assert code == 1
    assert "4 photos protected" in out
    for line in (
        "anim.gif: it is animated (2 frames)",
        "zero.jpg: it is empty",
        "words.jpg: it is not an image",
        "cut.png: it cannot be decoded",
        "folder.jpg/inner: a folder inside a person's folder",
        "broken.jpg: a link to a file that is not there",
        "pipe.jpg: not a file but a device, pipe or socket",
        "movie.mp4: not a photo that is read",
        "heic.heic: it cannot be decoded",
    ):
        assert f"  {line}" in err
    assert "9 photos NOT protected and not written:" in err
    assert err.count("\n") == 10
    assert set(files("out")) == {"good.png", "-dash ünï 名.png", "new\nline.png", "still.png", "cloaks.json"}
    assert files("photos") == before


def test_a_name_that_is_no_text_is_named(cloak, home):
    save(home / "photos/good.png", photo())
    os.link(home / "photos/good.png", os.fsencode(home / "photos") + b"/bad\xff.png")
    code, _, err = cloak()
    assert code == 1
    assert "bad\\udcff.png: its name is no text" in err
    assert set(files("out")) == {"good.png", "cloaks.json"}


def test_a_single_photo_will_do(cloak, bench, home):
    save(home / "photos/me.jpg", photo(), quality=90)
    save(home / "photos/other.jpg", photo(1))
    assert cloak(photos="photos/me.jpg")[0] == 0
    assert set(files("out")) == {"me.png", "cloaks.json"}
    for out, part in (
        ("photos", "one folder or one lies inside the other"),
        ("new.jpg", "named like a photo"),
    ):
        code, _, err = cloak(photos="photos/me.jpg", out=out)
        assert (code, part in err) == (2, True), err
    code, out, _ = bench("inspect", "photos/me.jpg", "out/me.png", "--backbone", "tiny-a", "--json")
    assert (code, len(json.loads(out)["comparisons"])) == (0, 1)


def test_nothing_is_written_by_way_of_a_link(cloak, home):
    save(home / "photos/anna/a.jpg", photo())
    (home / "out").mkdir()
    (home / "out/anna").symlink_to(home / "photos/anna")
    before = files("photos")
    code, _, err = cloak()
    assert (code, "leads out of out" in err) == (2, True), err
    (home / "out/anna").unlink()
    (home / "photos/more").symlink_to(home / "out")
    save(home / "out/x.jpg", photo())
    code, _, err = cloak()
    assert (code, "by way of a link" in err) == (2, True), err
    (home / "photos/more").unlink()
    (home / "out/x.jpg").unlink()
    (home / "out/anna").mkdir()
    os.link(home / "photos/anna/a.jpg", home / "out/anna/a.png")  # what is written would be the photo itself
    code, _, err = cloak()
    assert (code, "was not made by this command" in err) == (2, True), err
    assert files("photos") == before


def test_whole_photos_are_erased_with_the_key(cloak, bench, home):
    save(home / "photos/anna/a.png", photo())
    save(home / "photos/anna/both.png", np.full((240, 300, 3), 220, np.uint8))
    save(home / "photos/anna/sky.jpg", photo() // 8)
    cloak()
    code, out, err = bench("erase", "out", "back", "--key", "my.key", "--attack", PATTERN)
    assert (code, "2 photos erased" in out) == (0, True), err
    assert "1 photo with nothing to erase: no face was found in them:\n  anna/sky.jpg" in err
    for name in ("a", "both"):
        original, posted, back = (
            np.asarray(image_of(home / folder / f"anna/{name}.png").convert("RGB")).astype(int)
            for folder in ("photos", "out", "back")
        )
        assert np.abs(back - original).mean() < 0.25 * np.abs(posted - original).mean()
    save(home / "out/anna/a.png", image_of(home / "out/anna/a.png").resize((100, 120)))
    code, _, err = bench("erase", "out", "again", "--key", "my.key", "--attack", PATTERN)
    assert "anna/a.png: it is 100×120 pixels and the cloak was 200×240" in err
    assert code == 1


def test_photos_are_purified_and_all_else_stays(cloak, bench, home):
    save(home / "photos/a.png", photo())
    save(home / "photos/sky.png", photo() // 8)
    (home / "photos/words.jpg").write_text("words")
    run = ("purify", "photos", "pure", "--defense", "gaussian + median", "--dataset", "tiny")
    code, out, err = bench(*run)
    assert code == 1
    assert "1 photo purified by gaussian + median in pure." in out
    assert "copied as they are:\n  sky.png" in err
    assert "words.jpg: it is not an image" in err
    before, after = photo().astype(int), np.asarray(image_of(home / "pure/a.png")).astype(int)
    assert (before[:30] == after[:30]).all()
    middle = np.s_[100:140, 80:120]
    assert after[middle].std() < 0.8 * before[middle].std()
    code, out, _ = bench(*run)
    assert "0 photos purified by gaussian + median in pure; 2 were there already." in out
    code, _, err = bench("purify", "photos", "pure", "--defense", "gaussian", "--dataset", "tiny")
    assert (code, "purified by gaussian + median, and this is gaussian" in err) == (2, True)
    code, _, err = bench("purify", "pure", "twice", "--defense", "gaussian")
    assert (code, "made by `bench purify`" in err) == (2, True)
    code, _, err = bench("purify", "photos", "none", "--defense", "none")
    assert (code, "changes no photo" in err) == (2, True)
    cloak()
    assert bench("purify", "out", "tracked", "--defense", "jpeg", "--dataset", "tiny")[0] == 0
    code, out, _ = bench(
        "purify", "photos", "dry", "--defense", "jpeg", "--dataset", "tiny", "--dry-run", "--json"
    )
    assert json.loads(out)["pending"] == ["a.png", "sky.png", "words.jpg"]
    assert not (home / "dry").exists()


def test_json_says_what_was_done(cloak, home):
    save(home / "photos/a.png", photo())
    save(home / "photos/sky.png", photo() // 8)
    (home / "photos/words.jpg").write_text("words")
    code, out, _ = cloak("--json")
    said = json.loads(out)
    assert code == 1
    assert (said["copied"], [one["photo"] for one in said["failed"]]) == (["sky.png"], ["words.jpg"])
    assert said["protected"][0]["output"] == "a.png"
    assert len(said["protected"][0]["faces"]) == 1


def test_inspect_says_nothing_moved_where_nothing_changed(bench, home):
    save(home / "photos/a.png", photo())
    save(home / "photos/b.png", np.full((240, 300, 3), 230, np.uint8))
    code, out, _ = bench(
        "inspect", "photos", "photos", "--json", "--backbone", "tiny-a", "--backbone", "tiny-b"
    )
    said = json.loads(out)
    assert (code, said["backbones"]) == (0, ["tiny-a", "tiny-b"])
    assert [len(one["faces"]) for one in said["comparisons"]] == [1, 2]
    for one in said["comparisons"]:
        for view in (one["whole"], *(face["visibility"] for face in one["faces"])):
            assert (view["identical"], view["linf"], view["psnr"]) == (True, 0, None)
            assert view["ssim"] == pytest.approx(1, abs=1e-6)
            assert view["lpips"] is None
            assert "AlexNet" in view["reasons"]["lpips"]
        assert all(move["distance"] == 0 for face in one["faces"] for move in face["movements"])


def test_inspect_agrees_with_independent_measures(cloak, bench, home):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    save(home / "photos/a.png", photo())
    cloak()
    code, out, _ = bench("inspect", "photos", "out", "--json", "--backbone", "tiny-a")
    assert code == 0
    (one,) = json.loads(out)["comparisons"]
    before, after = photo(), np.asarray(image_of(home / "out/a.png"))
    assert one["whole"]["linf"] == np.abs(before.astype(int) - after).max()
    assert one["whole"]["psnr"] == pytest.approx(peak_signal_noise_ratio(before, after))
    expected = structural_similarity(
        before,
        after,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1][5:-5, 5:-5].mean()
    assert one["whole"]["ssim"] == pytest.approx(expected, abs=1e-4)
    backbone = factory.backbone("tiny-a")
    import torch

    backbone.load(torch.device("cpu"))
    crops = [align(image, points_of(image)).transpose(2, 0, 1).copy() for image in (before, after)]
    a, b = (backbone.embed(torch.from_numpy(crop)[None].float() / 255)[0] for crop in crops)
    cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    move = one["faces"][0]["movements"][0]
    assert move["cosine"] == pytest.approx(cosine, abs=1e-5)
    assert [verdict["same_person"] for verdict in move["verdicts"]] == [None, None]
    assert "no threshold for FAR 1 %" in move["verdicts"][0]["reason"]
    code, out, _ = bench("inspect", "photos", "out", "--backbone", "tiny-a")
    assert "LPIPS NA" in out
    assert "NA: lpips: AlexNet's weights are not here" in out


def test_inspect_compares_no_photo_with_two(bench, home):
    save(home / "photos/a.png", photo(1))
    save(home / "photos/a.jpg", photo(2))
    save(home / "other/a.jpg", photo(2))
    code, out, _ = bench("inspect", "photos", "other", "--backbone", "tiny-a", "--json")
    (one,) = json.loads(out)["comparisons"]
    assert (code, one["name"]) == (1, "a.jpg")
    assert json.loads(out)["failed"] == [
        {"photo": "a.png", "reason": "other has no photo of this name that is not another's"}
    ]


def test_inspect_calls_identical_only_what_is_the_same_in_every_value(bench, home):
    import cv2

    deep = photo(4).astype(np.uint16) * 257
    for folder, pixels in (("photos", deep), ("other", deep + 1)):
        (home / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(home / folder / "deep.png"), pixels)
        cv2.imwrite(str(home / folder / "same.png"), deep)
    save(home / "photos/plain.png", photo(4))
    save(home / "other/plain.png", np.dstack([photo(4), np.full((240, 200), 255, np.uint8)]))
    _, out, _ = bench("inspect", "photos", "other", "--backbone", "tiny-a", "--json")
    said = {one["name"]: one["whole"] for one in json.loads(out)["comparisons"]}
    assert {name: one["identical"] for name, one in said.items()} == {
        "deep.png": False,
        "same.png": True,
        "plain.png": True,
    }
    assert "low byte of 16 bits" in said["deep.png"]["reasons"]["psnr"]


def test_inspect_names_what_it_cannot_compare(bench, home):
    save(home / "photos/a.png", photo())
    save(home / "photos/alone.png", photo())
    save(home / "other/a.jpg", photo(height=120, width=100))
    save(home / "other/new.png", photo())
    code, out, err = bench("inspect", "photos", "other", "--backbone", "tiny-a")
    assert code == 1
    assert "L∞ NA  PSNR NA  SSIM NA  LPIPS NA" in out
    assert "NA: linf: the photos are 200×240 and 100×120 pixels" in out
    assert "alone.png: other has no photo of this name" in err
    assert "new.png: photos has no photo of this name" in err
    for pair, part in (
        (("photos", "photos/a.png"), "one is a photo and the other a folder"),
        (("photos", "gone"), "gone is not there"),
        (("photos", "photos", "--backbone", "nobody"), "unknown backbone 'nobody'"),
    ):
        code, _, err = bench("inspect", *pair)
        assert (code, part in err) == (2, True), err


@pytest.fixture(scope="module")
def drawn():
    """Return photos of drawn faces, which the real detector finds."""
    pytest.importorskip("facenet_pytorch", reason="extra 'detector' is not installed")
    dataset = factory.dataset("synthetic")
    people = [person.photos[0] for person in dataset.identities()[:4]]
    photos = []
    for crop in dataset.crops(people).permute(0, 2, 3, 1).numpy():
        canvas = Image.new("RGB", (480, 400), (120, 130, 120))
        canvas.paste(Image.fromarray(crop).resize((260, 260), Image.Resampling.BICUBIC), (110, 70))
        photos.append(canvas)
    return photos


@pytest.mark.slow
def test_a_killed_command_leaves_whole_photos_and_goes_on(command, drawn, tmp_path):
    for number in range(12):
        save(tmp_path / f"photos/{number:02d}.png", drawn[number % 4])
    arguments = (
        "cloak",
        tmp_path / "photos",
        tmp_path / "out",
        "--attack",
        "tiny-noise",
        "--dataset",
        "tiny",
    )
    process = command(*arguments, wait=False, TINY_DELAY="0.1")
    deadline = time.monotonic() + 100
    while not list((tmp_path / "out").glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert there
    assert len(there) < 12
    record = CloakRecord.read(tmp_path / "out/cloaks.json").photos
    for name, payload in there.items():
        assert record[name].protected != record[name].unfinished
        photo_files.read(payload)
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "were there already" in done.stdout
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert len(made) == 12
    for name, payload in there.items():
        assert made[name] == payload
    record = CloakRecord.read(tmp_path / "out/cloaks.json").photos
    assert all(one.protected and not one.unfinished for one in record.values())


@pytest.mark.slow
@pytest.mark.real_data
def test_photos_of_people_are_protected_and_what_is_left_of_it_is_measured(bench, home, monkeypatch):
    if not (REAL / ARCHIVE).exists():
        pytest.skip(f"needs LFW; {VARIABLE} points to no folder that has it")
    monkeypatch.undo()
    monkeypatch.chdir(home)
    monkeypatch.setenv(VARIABLE, str(REAL))
    monkeypatch.setenv("CLOAKBENCH_STORE", str(home / "store"))
    lfw = factory.dataset("lfw")
    chosen = [person.photos[0] for person in lfw.identities()[:1500:300]]
    for number, name in enumerate(chosen):
        whole = Image.fromarray(lfw.photo(name)).resize((700, 700), Image.Resampling.LANCZOS)
        save(home / f"photos/{number}.png", whole)
    run = ("--attack", "pgd:steps=3", "--dataset", "lfw")
    assert bench("cloak", "photos", "out", *run)[0] == 0
    assert bench("cloak", "photos", "crops", "--crops", *run)[0] == 0
    moved = {}
    for folder in ("out", "crops"):
        code, out, _ = bench("inspect", "photos", folder, "--backbone", "mobilefacenet-casia", "--json")
        assert code == 0
        said = json.loads(out)["comparisons"]
        moved[folder] = np.mean([one["faces"][0]["movements"][0]["distance"] for one in said])
    assert moved["out"] > 0.7 * moved["crops"] > 0.1
    for one in CloakRecord.read(home / "out/cloaks.json").photos.values():
        assert one.faces[0].kept > 0.5
    assert bench("purify", "out", "pure", "--defense", "jpeg:quality=75 + puface", "--dataset", "lfw")[0] == 0
