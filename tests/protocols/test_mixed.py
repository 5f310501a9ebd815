"""Mixed galleries: which photos are cloaked, and that each mixture is protocol tracker's with that share."""

import numpy as np
import pytest

from bench.contracts import Embedded, Identity, Split, Trial
from bench.errors import UsageError
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.protocols.mixed import MixedProtocol
from bench.protocols.tracker import TrackerProtocol


def mixed(**params):
    return MixedProtocol(MixedProtocol.Params(**params))


def identities(n, photos=8):
    return [
        Identity(f"p{i:02d}", tuple(f"p{i:02d}-{k}" for k in range(photos)), "evaluation") for i in range(n)
    ]


def test_mixtures_are_nested_and_named():
    protocol = mixed(shares=(1, 0.5, 0.2), clean=(1, 3), max_gallery=5)
    split = protocol.split(identities(4), 0)
    found = dict(protocol.mixtures(split))
    sizes = {name: {len(photos) for photos in cloaked.values()} for name, cloaked in found.items()}
    assert sizes == {
        "100 % cloaked": {5}, "50 % cloaked": {3}, "20 % cloaked": {1}, "all but 1 cloaked": {4}, "all but 3 cloaked":
    {2}, }  # fmt: skip
    for name, own in found["20 % cloaked"].items():
        assert set(own) < set(found["50 % cloaked"][name]) < set(found["all but 1 cloaked"][name])
    few = Split({"a": ("a-0",)}, {"a": ("a-1",)}, {"a": 0}, {"a": ("a-0",)})
    assert dict(protocol.mixtures(few))["all but 1 cloaked"] == {"a": ()}
    assert dict(protocol.mixtures(few))["20 % cloaked"] == {"a": ("a-0",)}


def test_parameters_are_written_as_text():
    protocol = factory.protocol("mixed:shares=1|0.25,clean=")
    assert (protocol.params.shares, protocol.params.clean) == ((1.0, 0.25), ())
    for text, said in (
        ("shares=0", "above 0"), ("shares=1|1", "named once"), ("clean=0", "at least 1"), ("cloaked_share=0.5",
    "greater than or equal to 1"), ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            factory.protocol(f"mixed:{text}")


@pytest.mark.parametrize("head", MixedProtocol.heads)
def test_each_share_is_the_trackers_with_that_share(head):
    rng = np.random.default_rng(0)
    everyone = identities(6)
    ours = mixed(shares=(1, 0.5), clean=(), max_gallery=4, folds=3)
    split = ours.split(everyone, 0)

    def embedded(photos, shift):
        named = [(image, name) for name, images in photos.items() for image in images]
        rows = [rng.normal(size=8) + shift for _ in named]
        return Embedded(np.array(rows, dtype=np.float32), *zip(*named, strict=True))

    views = {
        "gallery": embedded(split.gallery, 0),
        "cloaked gallery": embedded(split.cloaked, 1),
        "probes": embedded(split.probes, 0),
    }
    rows = ours.decide(views, Trial(split, head)).rows
    for share, condition in ((1, "100 % cloaked"), (0.5, "50 % cloaked")):
        theirs = TrackerProtocol(TrackerProtocol.Params(cloaked_share=share, max_gallery=4, folds=3))
        same = theirs.split(everyone, 0)
        kept = {image for images in same.cloaked.values() for image in images}
        whole = views["cloaked gallery"]
        at = [row for row, image in enumerate(whole.ids) if image in kept]
        part = Embedded(
            whole.vectors[at], *(tuple(v[row] for row in at) for v in (whole.ids, whole.identities))
        )
        expected = theirs.decide({**views, "cloaked gallery": part}, Trial(same, head)).rows
        mine = rows[rows["condition"] == condition].drop(columns="condition").reset_index(drop=True)
        assert mine.equals(expected[mine.columns].reset_index(drop=True))


def test_a_run_has_a_row_for_every_mixture(evaluate):
    prepared = evaluate(
        protocol="mixed:folds=3", attacks=("tiny-identity-mean",), defenses=("jpeg",), heads=("nn",)
    )
    leaderboard = build(prepared.folder)
    assert set(leaderboard["status"]) == {"ok"}
    assert set(leaderboard["condition"]) == {"100 % cloaked", "50 % cloaked", "all but 1 cloaked"}
    asr = leaderboard[leaderboard["defense"] == "none"].set_index(["attack", "condition"])["asr"]
    assert asr["tiny-identity-mean", "100 % cloaked"] >= asr["tiny-identity-mean", "all but 1 cloaked"]
    assert asr["none", "100 % cloaked"] == asr["none", "50 % cloaked"]


def test_an_unknown_head_is_a_usage_error():
    split = mixed().split(identities(3), 0)
    with pytest.raises(UsageError, match="unknown head 'pair'"):
        mixed().decide({}, Trial(split, "pair"))
