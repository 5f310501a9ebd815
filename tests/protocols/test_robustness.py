"""Channels as texts, the decisions after each, and whole runs."""

import numpy as np
import pandas as pd
import pytest

from bench.contracts import Embedded, Split, Trial
from bench.errors import UsageError
from bench.plugins import factory
from bench.plugins import factory as methods
from bench.protocols.robustness import NO_CHANNEL, RobustnessProtocol, canonical_chain, default_chains
from bench.protocols.tracker import TrackerProtocol
from bench.run import decisions
from bench.run.resolve import resolve
from bench.run.spec import load_suite, make_spec


def robustness(*channels):
    return RobustnessProtocol(RobustnessProtocol.Params(channels=channels))


# --- channels as texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"),
        ("jpeg:quality=75", "jpeg"),
        (" jpeg:quality = 30 + none", "jpeg:quality=30"),
        ("resize:side=96+jpeg:quality=71+jpeg:quality=71", "resize:side=96+jpeg:quality=71+jpeg:quality=71"),
        ("jpeg:subsampling=yuv444;quality=50+none", "jpeg:quality=50;subsampling=yuv444"),
        ("none+none", "none"),
        ("gaussian:sigma=2.0", "gaussian:sigma=2"),
    ],
)
def test_a_chain_has_one_form(text, canonical):
    assert canonical_chain(text) == canonical
    assert canonical_chain(canonical) == canonical


def test_the_default_grid_is_canonical_and_covers_the_issue():
    grid = default_chains()
    assert tuple(map(canonical_chain, grid)) == grid == RobustnessProtocol().params.channels
    qualities = [factory.defense(c).params.quality for c in grid if c.startswith("jpeg")]
    assert qualities == [95, 75, 50, 30]
    names = {step.partition(":")[0] for chain in grid for step in chain.split("+")}
    assert names == {"none", "jpeg", "resize", "crop", "gaussian", "noise", "gamma"}
    assert any(chain.count("+") == 2 for chain in grid)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("jepg", "unknown defense 'jepg'. Did you mean 'jpeg'"),
        ("jpeg:quality=200", "parameter 'quality' of 'jpeg' cannot be '200'"),
        ("jpeg++noise", "names no method"),
        ("puface", "is trained, which no service does"),
        ("noise:sigma=4+jpeg+noise:sigma=2", "a random purifier twice"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused_by_name(chain, message):
    with pytest.raises(UsageError) as refusal:
        factory.protocol(f"robustness:channels=none|{chain}")
    assert message in str(refusal.value)


def test_a_hardening_or_a_file_is_no_channel(tiny, tmp_path):
    with pytest.raises(UsageError, match="'tiny-centring' in the channel 'tiny-centring' is not a purifier"):
        canonical_chain("tiny-centring")
    (tmp_path / "mine.py").write_text(
        "from bench.contracts import Purifier\n\n\nclass Mine(Purifier):\n    name = 'mine'\n\n"
        "    def purify(self, faces, ctx):\n        return faces.images\n"
    )
    with pytest.raises(UsageError, match="'mine' cannot be part of a channel"):
        canonical_chain(f"{tmp_path}/mine.py:Mine")


def test_the_same_chain_twice_is_one_condition():
    assert robustness("jpeg", "none", "jpeg:quality=75", "none").params.channels == ("jpeg", "none")


TEXT = "robustness:channels=none|jpeg:quality=50;subsampling=yuv444+resize:side=80|noise,folds=3"


def test_the_text_round_trips_through_canonical_form_and_suite_file(tmp_path):
    protocol = factory.protocol(TEXT)
    assert protocol.params.channels == ("none", "jpeg:quality=50;subsampling=yuv444+resize:side=80", "noise")
    assert protocol.params.folds == 3
    again = factory.protocol(methods.canonical(protocol))
    assert again.params == protocol.params
    suite = tmp_path / "suite.toml"
    suite.write_text(f'protocol = "{TEXT}"\nattacks = ["pgd"]\n')
    resolved = resolve(make_spec(load_suite(suite)))
    assert resolved.protocol.params == protocol.params
    assert resolved.spec.protocol == methods.canonical(protocol)


def test_each_channel_has_a_view_of_the_gallery_in_both_states():
    views = factory.protocol(TEXT).views
    assert {name: (v.photos, v.state, v.channel, v.defended) for name, v in views.items()} == {
        "probes": ("probes", "natural", "", False),
        "gallery, none": ("gallery", "natural", "", True),
        "cloaked gallery, none": ("gallery", "cloaked", "", True),
        "gallery, jpeg:quality=50;subsampling=yuv444+resize:side=80": (
            "gallery", "natural", "jpeg:quality=50,subsampling=yuv444+resize:side=80", True,
        ),
        "cloaked gallery, jpeg:quality=50;subsampling=yuv444+resize:side=80": (
            "gallery", "cloaked", "jpeg:quality=50,subsampling=yuv444+resize:side=80", True,
        ),
        "gallery, noise": ("gallery", "natural", "noise", True),
        "cloaked gallery, noise": ("gallery", "cloaked", "noise", True),
    }  # fmt: skip


def test_a_random_defence_that_is_a_channel_too_is_refused():
    attack, noise, jpeg = factory.attack("none"), factory.defense("noise:sigma=2"), factory.defense("jpeg")
    assert "'noise:sigma=4' would draw the same random numbers" in RobustnessProtocol().refuse(attack, noise)
    assert RobustnessProtocol().refuse(attack, jpeg) == ""
    assert robustness("none", "jpeg").refuse(attack, noise) == ""


# --- decisions ----------------------------------------------------------------------------------------------


def embedded(rng, photos):
    named = [(image, identity) for identity, images in photos.items() for image in images]
    vectors = rng.normal(size=(len(named), 5)).astype(np.float32)
    return Embedded(vectors, tuple(i for i, _ in named), tuple(p for _, p in named))


@pytest.mark.parametrize("head", RobustnessProtocol.heads)
def test_each_condition_is_the_tracker_on_that_channels_photos(head):
    names = [f"p{k}" for k in range(6)]
    split = Split(
        gallery={n: (f"{n}-0", f"{n}-1") for n in names},
        probes={n: (f"{n}-2", f"{n}-3") for n in names},
        fold={n: k % 2 for k, n in enumerate(names)},
        cloaked={n: (f"{n}-0", f"{n}-1") for n in names},
    )
    protocol, rng = robustness("none", "jpeg", "noise"), np.random.default_rng(1)
    views = {
        name: embedded(rng, split.probes if view.photos == "probes" else split.gallery)
        for name, view in protocol.views.items()
    }
    decided = protocol.decide(views, Trial(split, head))
    assert list(decided.conditions) == [NO_CHANNEL, "jpeg", "noise"]
    assert len({tuple(rows["predicted"]) for _, rows in decided.rows.groupby("condition")}) == 3
    for condition, chain in ((NO_CHANNEL, "none"), ("jpeg", "jpeg"), ("noise", "noise")):
        alone = {
            "gallery": views[f"gallery, {chain}"],
            "cloaked gallery": views[f"cloaked gallery, {chain}"],
            "probes": views["probes"],
        }
        expected = TrackerProtocol().decide(alone, Trial(split, head)).rows
        rows = decided.rows[decided.rows["condition"] == condition].drop(columns="condition")
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), expected)


def test_an_unknown_head_is_refused():
    with pytest.raises(UsageError, match="unknown head 'linear'"):
        RobustnessProtocol().decide({}, Trial(Split({}, {}, {}, {}), "linear"))


# --- whole runs ---------------------------------------------------------------------------------------------


def results(prepared, attack, defense, condition=""):
    """Return who is recognised in a cell under a condition."""
    cells = prepared.folder.cells()
    (cell,) = (c for c in cells if (c.attack, c.defense, c.head) == (attack, defense, "nn"))
    rows = decisions.read(prepared.folder.path / cell.decisions).rows
    chosen = rows[rows["condition"] == condition].sort_values(["fold", "identity", "image"])
    return chosen[["fold", "identity", "image", "protected", "predicted", "score"]].reset_index(drop=True)


def test_a_channel_does_to_the_gallery_what_the_same_purifier_does_as_a_defence(evaluate):
    """The tracker protocol stores purified photos and embeds them; channels are applied on the way."""
    channels = "none|jpeg:quality=10|gamma:value=3|noise:sigma=60"
    through = evaluate(
        protocol=f"robustness:channels={channels}", attacks=("tiny-noise",), defenses=("gaussian:sigma=4",)
    )
    purified = evaluate(
        attacks=("tiny-noise",),
        defenses=("jpeg:quality=10", "gamma:value=3", "noise:sigma=60", "gaussian:sigma=4"),
    )
    for attack in ("none", "tiny-noise"):
        for chain in ("jpeg:quality=10", "gamma:value=3", "noise:sigma=60"):
            expected = results(purified, attack, chain)
            pd.testing.assert_frame_equal(results(through, attack, "none", chain), expected)
        expected = results(purified, attack, "gaussian:sigma=4")
        pd.testing.assert_frame_equal(results(through, attack, "gaussian:sigma=4", NO_CHANNEL), expected)


def test_a_chain_is_its_steps_in_order_and_then_the_defence(evaluate):
    chained, first, swapped = (
        evaluate(protocol=f"robustness:channels=none|{channel}", attacks=("tiny-noise",), defenses=(defense,))
        for channel, defense in (
            ("jpeg:quality=10+gamma:value=3", "none"),
            ("jpeg:quality=10", "gamma:value=3"),
            ("gamma:value=3+jpeg:quality=10", "none"),
        )
    )
    found = results(chained, "tiny-noise", "none", "jpeg:quality=10+gamma:value=3")
    expected = results(first, "tiny-noise", "gamma:value=3", "jpeg:quality=10")
    pd.testing.assert_frame_equal(found, expected)
    other = results(swapped, "tiny-noise", "none", "gamma:value=3+jpeg:quality=10")
    assert not np.allclose(found["score"], other["score"], atol=1e-4)


def test_a_run_and_its_figure(cli, pattern, tmp_path):
    run, out = tmp_path / "run", tmp_path / "figure.svg"
    code, _, err = cli(
        "run", "--dataset", "synthetic", "--identities", 4, "--attack", pattern, "--defense", "median",
        "--protocol", "robustness:channels=none|jpeg:quality=30|resize:side=96+jpeg:quality=71",
        "--backbone", "synthetic-mobilefacenet", "--threads", 1,
        "--store", tmp_path / "store", "--out", run, "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    leaderboard = pd.read_csv(run / "leaderboard.csv", keep_default_na=False)
    assert len(leaderboard) == 4 * 3
    for _, rows in leaderboard.groupby(["attack", "defense"]):
        assert tuple(rows["condition"]) == (NO_CHANNEL, "jpeg:quality=30", "resize:side=96+jpeg:quality=71")
    again = factory.protocol(leaderboard["protocol"][0]).params.channels
    assert again == ("none", "jpeg:quality=30", "resize:side=96+jpeg:quality=71")

    code, printed, err = cli("plot", run, "robustness", "--out", out)
    assert (code, err, printed.splitlines()[0]) == (0, "", f"{out} written")
    drawn = out.read_text()
    for text in (
        "no channel",
        "jpeg:quality=30",
        "keyed-pattern",
        "synthetic-mobilefacenet, head nn, median",
    ):
        assert f">{text}<" in drawn
    first = out.read_bytes()
    assert cli("plot", run, "robustness", "--out", out)[0] == 0
    assert out.read_bytes() == first


@pytest.mark.real_data
def test_real_faces(real_run, pattern):
    channels = "none|jpeg:quality=30|resize:side=28"
    leaderboard = real_run(
        protocol=f"robustness:channels={channels},folds=3,max_gallery=4,max_probes=3", attacks=(pattern,)
    )
    asr = leaderboard.set_index(["attack", "condition"])["asr"]
    assert asr["none", NO_CHANNEL] < 0.2
    assert asr["keyed-pattern", NO_CHANNEL] > asr["none", NO_CHANNEL]
    assert set(leaderboard["condition"]) == {NO_CHANNEL, "jpeg:quality=30", "resize:side=28"}
