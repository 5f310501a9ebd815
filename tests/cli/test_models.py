"""`bench models` and `bench data` on what users bring."""

import json

import torch
from safetensors.torch import load_file


def test_list_marks_backbones_that_were_not_tried_on_the_real_file(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    code, out, err = cli("models", "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("adaface: "))
    assert lines[place] == "adaface: absent; D = 512, LFW 99.82 % (stated)"
    assert "MS1MV2" in lines[place + 1]
    assert (
        lines[place + 2].strip().startswith("untested on the real file; the stated accuracy is of a photo's")
    )
    assert lines[place + 3].startswith(
        "    'weights/adaface/adaface_ir50_ms1mv2.ckpt' is not in the data folder"
    )
    rows = {row["name"]: row for row in json.loads(cli("models", "list", "--json")[1])}
    assert rows["magface"]["note"] == "untested on the real file"
    assert rows["mobileface-v2"]["note"] == ""
    assert rows["magface"]["weights"] == "absent"
    assert "https://github.com/IrvingMeng/MagFace" in rows["magface"]["fix"]


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
