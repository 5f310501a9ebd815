"""The plugins that cost next to nothing: they obey the contract, and a run of them is one of the harness alone."""

import numpy as np
import pytest
import torch

from bench.api import Options, run
from bench.authoring import parametrize_with_checks
from bench.errors import UsageError
from bench.quality.near_duplicates import fingerprint_photos, near_duplicates
from benchmarks.stream_of_faces import CellMeans, DrawnCells, StreamOfFaces

FACES = StreamOfFaces(StreamOfFaces.Params(identities=4, photos=3))


@parametrize_with_checks([FACES, DrawnCells(), CellMeans()])
def test_they_obey_the_contract(plugin, check):
    del plugin
    check()


def test_a_photo_is_drawn_from_its_id_alone():
    ids = [photo for identity in FACES.identities() for photo in identity.photos]
    crops = FACES.crops(ids)
    assert torch.equal(FACES.crops(ids[::-1]).flip(0), crops)
    assert len({crop.numpy().tobytes() for crop in crops}) == len(ids) == 12


def test_photos_of_an_identity_are_alike_and_none_is_a_near_duplicate():
    ids = [photo for identity in FACES.identities() for photo in identity.photos]
    prints = fingerprint_photos(FACES, ids)
    assert near_duplicates(prints, prints) == []
    alike = prints.pictures @ prints.pictures.T
    same = np.kron(np.eye(4), np.ones((3, 3))) * (1 - np.eye(12))
    assert alike[same > 0].min() > alike[(same + np.eye(12)) == 0].max()


def test_a_photo_of_another_dataset_is_refused():
    with pytest.raises(UsageError, match="valid: drawn-000000/000"):
        FACES.crops(["somebody/000"])


def test_a_run_of_them_recognises_and_cloaks(tmp_path):
    file = "benchmarks/stream_of_faces.py"
    table = run(
        f"{file}:DrawnCells",
        backbones=f"{file}:CellMeans",
        dataset=f"{file}:StreamOfFaces:identities=20,photos=12",
        protocol="tracker:gallery_fraction=0.9",
        options=Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"),
    ).set_index("attack")
    assert set(table["status"]) == {"ok"}
    assert table.loc["none", "normal_accuracy"] > 0.95
    assert table.loc["drawn-cells", "cloak_psnr"] < 40
