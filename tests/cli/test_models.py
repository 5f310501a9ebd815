"""`bench models` and `bench data` on what users bring."""

import json

import cv2
import torch
from safetensors.torch import load_file

from bench.plugins import factory


def test_list_says_what_is_here_what_is_fetched_and_what_is_brought_by_hand(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    broken = tmp_path / "weights" / "uniface" / "sphere20.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no graph")
    code, out, err = cli("models", "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert [heading.partition(":")[0] for heading in headings] == ["Here", "Broken", "Absent", "By hand"]

    def group_of(name):
        place = next(i for i, line in enumerate(lines) if line.startswith(f"  {name}: "))
        return max((h for h in headings if lines.index(h) < place), key=lines.index), lines[place : place + 4]

    assert group_of("synthetic-iresnet")[0] == "Here"
    assert group_of("uniface-sphere20")[0].startswith("Broken")
    heading, shown = group_of("uniface-edgeface-s")
    assert heading.startswith("Absent: `bench fetch NAME`")
    assert shown[0] == (
        "  uniface-edgeface-s: 512-D, family edgeface, LFW 99.78 % (stated), asks you to agree to its terms"
    )
    heading, shown = group_of("adaface")
    assert heading.startswith("By hand")
    assert shown[0] == "  adaface: 512-D, family adaface, released 2022, LFW 99.82 % (stated)"
    assert "MS1MV2" in shown[1]
    assert shown[2].strip().startswith("untested on the real file; the stated accuracy is of a photo's")
    assert shown[3].startswith("      'weights/adaface/adaface_ir50_ms1mv2.ckpt' is not in the data folder")


def test_list_as_json_has_state_card_and_terms(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    rows = {row["name"]: row for row in json.loads(cli("models", "list", "--json")[1])}
    assert "onnx" not in rows
    assert rows["magface"]["note"] == "untested on the real file"
    assert rows["magface"]["weights"] == "by hand"
    assert rows["magface"]["released"] == "2021-03-12"
    assert "https://github.com/IrvingMeng/MagFace" in rows["magface"]["fix"]
    assert rows["uniface-mobilenetv2"]["weights"] == "absent"
    assert "bench fetch uniface-mobilenetv2" in rows["uniface-mobilenetv2"]["fix"]
    assert "non-commercial" in rows["insightface-buffalo-l"]["terms"]
    assert rows["synthetic-iresnet"]["weights"] == "here"


def photos_of(folder, identities):
    """Write two crops of each of some drawn identities."""
    faces = factory.dataset("synthetic")
    for number, identity in enumerate(faces.identities()[:identities]):
        (folder / f"{number:03d}").mkdir(parents=True)
        for row, crop in enumerate(faces.crops(identity.photos[:2]).permute(0, 2, 3, 1).numpy()):
            assert cv2.imwrite(str(folder / f"{number:03d}" / f"{row}.png"), crop[:, :, ::-1])
    return folder


def test_calibrate_takes_everybody_of_a_folder_and_leaves_out_rates_it_is_too_small_for(cli, tmp_path):
    photos = photos_of(tmp_path / "photos", 50)
    where = f"folder:{photos},aligned=true,min_photos=2"
    code, out, err = cli("models", "calibrate", "synthetic-iresnet", "--dataset", where, "--json")
    assert code == 0, err
    (row,) = json.loads(out)
    assert (row["far"], row["pairs"]) == (0.1, 50 * 49 // 2)
    assert row["source"].startswith("bench models calibrate synthetic-iresnet --dataset folder:")
    assert str(tmp_path) not in row["source"]
    assert "'folder' keeps nobody apart for calibration, so all 50 identities are used" in err
    assert (
        "FAR 1 % is left out: a threshold for a false-accept rate of 0.01 needs 10000 impostor pairs" in err
    )
    assert "FAR 0.1 % is left out" in err


def test_calibrate_on_too_few_for_any_rate_is_refused(cli, tmp_path):
    photos = photos_of(tmp_path / "photos", 4)
    where = f"folder:{photos},aligned=true,min_photos=2"
    code, out, err = cli("models", "calibrate", "synthetic-iresnet", "--dataset", where)
    assert (code, out) == (2, "")
    assert "4 identities give 6: the identities of 'folder' to calibrate on are too few" in err


def test_convert_keeps_tensors_and_says_what_it_left_out(cli, tmp_path):
    source, target = tmp_path / "a.ckpt", tmp_path / "a.safetensors"
    torch.save({"state_dict": {"model.x": torch.ones(3)}, "callback": torch.nn.Linear}, source)
    code, out, err = cli("models", "convert", str(source), str(target))
    assert (code, out) == (0, f"{target}\n")
    assert err == "Left out: torch.nn.modules.linear.Linear.\n"
    assert torch.equal(load_file(target)["model.x"], torch.ones(3))
    code, out, err = cli("models", "convert", str(source), str(target))
    assert (code, out) == (2, "")
    assert "exists. Remove it or give another name." in err


def test_data_list_says_where_datasets_of_publishers_are(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    (tmp_path / "ffhq").mkdir()
    code, out, _ = cli("data", "list")
    assert code == 0
    assert "ffhq: folder here; FFHQ: 70,000 photos without identity labels" in out
    assert "celeba: absent; CelebA" in out
    assert "mmlab.ie.cuhk.edu.hk/projects/CelebA.html" in out
