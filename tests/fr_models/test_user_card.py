"""The card beside a user's ONNX file, in either form."""

import json

import pytest

from bench.contracts import BackboneCard
from bench.data.files import data_folder
from bench.errors import DataError
from bench.plugins import factory
from fr_models._user_card import read_user_card, translated

ARCFACE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
SPHEREFACE = [[x - 8, y] for x, y in ARCFACE]

PACK = {
    "name": "theirs",
    "file": "theirs.onnx",
    "format": "ONNX, opset 17",
    "source_repo": "owner/repository",
    "source_commit": "0123abc",
    "source_path": "weights/net.params",
    "licence": "MIT",
    "bytes": 3,
    "input_height": 112,
    "input_width": 96,
    "channel_order": "BGR",
    "preprocessing": {
        "note": "not part of the network",
        "mean_255": 127.5,
        "scale_255": 0.0078125,
        "mean_01": 0.5,
        "std_01": 0.5019607843137255,
    },
    "embedding_dim": 128,
    "training_data": "not stated by the source",
    "alignment": {"template_name": "SphereFace 112 high x 96 wide", "template_xy": SPHEREFACE},
    "flip_averaging": False,
    "lfw_10fold_accuracy": 0.9885,
    "lfw_10fold_std": 0.003,
    "checks": {"anything": 1},
    "source_sha256": {"a": "b"},
}


def changed(**fields):
    return {**PACK, **fields}


def test_a_data_packs_fields_become_the_cards():
    card = BackboneCard.model_validate(translated(PACK))
    assert card.preprocessing.model_dump() == {
        "height": 112,
        "width": 96,
        "crop": (0, 8, 112, 96),
        "mean": 127.5,
        "scale": 0.0078125,
        "channels": "BGR",
    }
    assert (card.embedding_dim, card.lfw_accuracy, card.training_data) == (128, 0.9885, "unknown")
    assert card.source == "owner/repository @ 0123abc, weights/net.params"
    assert card.alignment == "arcface-112"


def test_a_card_of_the_fields_themselves_stays_as_it_is():
    own = {
        "licence": "MIT",
        "released": "2024-05",
        "thresholds": [],
        "preprocessing": {"mean": 0, "scale": 1},
    }
    assert translated(own) == own


def test_accuracy_of_two_fused_embeddings_is_not_taken_for_one_of_one():
    card = translated(changed(flip_averaging=True, note="kept"))
    assert "lfw_accuracy" not in card
    assert card["note"] == "kept; the stated accuracy is of a photo's embedding and its mirror image's, fused"


def preprocessed(**fields):
    return changed(preprocessing={**PACK["preprocessing"], **fields})


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (
            preprocessed(mean_01=0.4),
            r"'preprocessing\.mean' is 127\.5 and 'mean_01' is 102\.0, which are one thing",
        ),
        (preprocessed(scale=1 / 127.5), r"'preprocessing\.scale' is .* and 'scale_255' is 0\.0078125"),
        (preprocessed(height=224), r"'preprocessing\.height' is 224 and 'input_height' is 112"),
        (preprocessed(crop=[0, 0, 112, 96]), r"'preprocessing\.crop' is \[0, 0, 112, 96\] and 'alignment"),
        (preprocessed(std_01=0), r"field 'std_01' cannot be 0"),
        (preprocessed(mean_01=True), r"field 'mean_01' cannot be True"),
        (changed(preprocessing={"mean_01": 0.5}), "give mean_01 and std_01 together"),
        (changed(lfw_accuracy=0.9), r"'lfw_accuracy' is 0\.9 and 'lfw_10fold_accuracy' is 0\.9885"),
        (changed(alignment={"template_name": "own", "template_xy": [[0, 0]] * 5}), "its alignment is 'own'"),
        (changed(alignment={"template_xy": [[2 * x, 2 * y] for x, y in ARCFACE]}), "'not named'"),
        (
            changed(alignment={"template_xy": [[x - 0.5, y] for x, y in ARCFACE]}),
            "a part of it without scaling",
        ),
        (changed(alignment={}), "its alignment is 'not named'"),
    ],
)
def test_what_a_card_says_twice_must_agree(card, message):
    with pytest.raises(ValueError, match=message):
        translated(card)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"licence": "a", "licence": "b"}', "field 'licence' is there twice"),
        ('{"preprocessing": {"scale": Infinity}}', "Infinity is no number of JSON"),
        ('{"licence": "\\u001b[31mred"}', r"field 'licence' holds the sign U\+001B"),
        (
            '{"preprocessing": {"channels": "\\u202eBGR"}}',
            r"field 'preprocessing\.channels' holds the sign U\+202E",
        ),
        ("[1]", "must hold one JSON object"),
    ],
)
def test_a_card_that_steers_or_repeats_is_refused(tmp_path, text, message):
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"card\.json.*{message}"):
        read_user_card(path)


def test_line_breaks_become_spaces(tmp_path):
    path = tmp_path / "card.json"
    path.write_text(json.dumps({"note": "one\n two\tthree"}))
    assert read_user_card(path) == {"note": "one two three"}


@pytest.mark.real_data
@pytest.mark.skipif(
    not (data_folder() / "weights" / "fr").exists(), reason="CLOAKBENCH_DATA has no weights/fr folder"
)
@pytest.mark.parametrize(
    "name", ["mobileface-v2", "mobileface-v3", "mobilefacenet-casia", "mobilefacenet-relu6"]
)
def test_the_files_of_the_data_pack_are_backbones_as_they_are(name):
    path = data_folder() / "weights" / "fr" / f"{name}.onnx"
    card, registered = factory.backbone(str(path)).card, factory.backbone(name).card
    assert card.name.startswith(f"{name}@")
    assert card.preprocessing == registered.preprocessing
    assert card.sha256 in (registered.sha256, *registered.equivalents)
    assert (card.embedding_dim, card.lfw_accuracy) == (registered.embedding_dim, registered.lfw_accuracy)
