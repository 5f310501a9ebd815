"""A tracker that takes a newer backbone: the very tracker of that backbone, refused where it is not the newer one."""

import logging

import pandas as pd
import pytest

from bench.authoring.checks import run_checks
from bench.errors import UsageError
from bench.integrity.audit import audit
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.run.folder import RunFolder
from bench.run.planning import Options, prepare
from bench.run.resolve import resolve
from bench.run.spec import Cell, make_spec
from bench.run.threat import Threats
from bench.run.trained import trained_parts

LATER = "later:backbone=tiny-b"


def test_it_is_written_with_the_backbone(tiny):
    made = factory.defense(LATER)
    assert factory.canonical(made) == LATER
    assert [each.name for each in made.parts()] == ["tiny-b"]
    assert [each.name for each in made.embeds_with(factory.backbone("tiny-a"))] == ["tiny-b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("later:backbone=tiny-d", "unknown backbone 'tiny-d'"),
        (f"{LATER} + jpeg", "changes the tracker itself, so it comes last"),
    ],
)
def test_what_is_no_later_tracker_is_refused_with_the_fix(tiny, text, message):
    with pytest.raises(UsageError) as caught:
        factory.defense(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", [LATER, f"jpeg + {LATER}"])
def test_it_keeps_the_contract(tiny, text):
    assert [finding for finding in run_checks(factory.defense(text)) if not finding.passed] == []


# -- which of two is the later one -----------------------------------------------------------------------------------


@pytest.fixture
def dated(tiny):
    """Return a function that gives the threat models of a run whose backbones have dates."""
    del tiny

    def run_of(defense=LATER, attacks=("none",), digest="", **released):
        fields = {"dataset": "tiny", "backbones": ("tiny-a",), "defenses": (defense,), "attacks": attacks}
        run = resolve(make_spec(fields))

        def dates(backbone):
            own = {"released": released.get(backbone.name[-1], ""), "sha256": digest}
            backbone.card = backbone.card.model_copy(update=own)
            return backbone

        for part in run.defenses[defense].hardening.parts():
            dates(part)
        threats = Threats(run)
        original = threats.backbone
        threats.backbone = lambda name: dates(original(name))
        return threats

    return run_of


@pytest.mark.parametrize(
    ("a", "b"), [("2022", "2021"), ("2021-03-01", "2021-03-01"), ("2021-06", "2021-05-31")]
)
def test_a_backbone_that_is_not_later_is_refused(dated, a, b):
    with pytest.raises(UsageError) as caught:
        dated(a=a, b=b).check()
    assert str(caught.value).startswith(
        f"{LATER} is no defence of tracker tiny-a: tiny-b was published {b}, tiny-a {a}, so it is not the later one."
    )
    with pytest.raises(UsageError, match="is not the later one"):
        dated(f"jpeg + {LATER}", a=a, b=b).check()


def test_without_a_backbone_it_says_what_to_name(dated):
    with pytest.raises(
        UsageError, match=r"later is no defence of tracker tiny-a: it names no backbone\. Name a newer"
    ):
        dated("later").check()


def test_the_trackers_own_backbone_is_refused_by_name_and_by_weights(dated):
    with pytest.raises(UsageError, match=r"tiny-a is the tracker's own backbone\. Name one"):
        dated("later:backbone=tiny-a").check()
    with pytest.raises(UsageError, match=r"tiny-b is the tracker's own backbone"):
        dated(digest="0" * 64, a="2020", b="2024").check()


def test_a_later_backbone_is_taken_without_a_word(dated, caplog):
    with caplog.at_level(logging.WARNING, "bench"):
        dated(a="2018-04", b="2021").check()
    assert not caplog.records


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ("", "2021", "no date of publication is known of tiny-a"),
        ("2021", "", "no date of publication is known of tiny-b"),
        ("2021", "2021-07", "too coarse to say which is later"),
    ],
)
def test_where_dates_do_not_tell_it_says_so(dated, caplog, a, b, reason):
    with caplog.at_level(logging.WARNING, "bench"):
        dated(a=a, b=b).check()
    (record,) = caplog.records
    assert f"{LATER} on tracker tiny-a: whether it is later is unknown: " in record.getMessage()
    assert reason in record.getMessage()


# -- what its rows say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("surrogate", "access", "time"),
    [
        ("tiny-a", "black-box", "later"),
        ("tiny-b", "white-box", "not-later"),
        ("tiny-c", "black-box", "not-later"),
    ],
)
def test_access_and_time_are_of_the_backbone_that_embeds(dated, surrogate, access, time):
    attack = f"pgd:surrogates={surrogate}"
    threats = dated(attacks=(attack,), a="2018", b="2021", c="2023")
    row = threats.of(Cell(attack, LATER, "tiny-a", "nn", 0))
    assert (row.access, row.model_time) == (access, time)
    assert (row.attack_knows, row.extractors, row.attack_seen_by_defense) == ("", "", "not-trained")
    assert threats.of(Cell(attack, "none", "tiny-a", "nn", 0)).access == (
        "white-box" if surrogate == "tiny-a" else "black-box"
    )


def test_who_knows_the_newer_backbone_has_its_weights(dated):
    attack = f"adaptive:attack=pgd:surrogates=tiny-c,defense={LATER}"
    threats = dated(attacks=(attack,), a="2018", b="2021", c="2023")
    threats.check()  # no surrogate need be older than it
    row = threats.of(Cell(attack, LATER, "tiny-a", "nn", 0))
    assert (row.access, row.attack_knows, row.model_time) == ("white-box", "weights", "not-later")


# -- runs ------------------------------------------------------------------------------------------------------------


def test_its_rates_are_those_of_a_tracker_of_that_backbone(evaluate):
    fields = {
        "attacks": ("tiny-noise",),
        "heads": ("nn", "linear", "finetune"),
        "protocol": "tracker:finetune_epochs=1,folds=3",
        "identities": 4,
    }
    mine = evaluate(defenses=(LATER, f"tiny-negative + {LATER}"), backbones=("tiny-a",), **fields)
    theirs = evaluate(defenses=("tiny-negative",), backbones=("tiny-b",), **fields)
    found, expected = (
        build(each.folder).set_index(["attack", "defense", "backbone", "head"]) for each in (mine, theirs)
    )
    assert set(found["status"]) == {"ok"}
    for head in fields["heads"]:
        for attack in ("none", "tiny-noise"):
            for before, after in (("none", LATER), ("tiny-negative", f"tiny-negative + {LATER}")):
                row = found.loc[(attack, after, "tiny-a", head)]
                own = expected.loc[(attack, before, "tiny-b", head)]
                assert (row["asr"], row["normal_accuracy"]) == (own["asr"], own["normal_accuracy"])
    assert audit(RunFolder(mine.folder.path)).unmarked == ()
    assert trained_parts(mine.run, Cell("tiny-noise", LATER, "tiny-a", "nn", 0)) == {}


def test_after_a_run_of_that_backbone_nothing_is_embedded(evaluate, tmp_path):
    store = tmp_path / "store"
    evaluate(store=store, attacks=("tiny-noise",), backbones=("tiny-b",), identities=4)
    requested = {"dataset": "tiny", "backbones": ("tiny-a",), "identities": 4, "defenses": (LATER,)}
    plan = prepare(make_spec(requested), Options(threads=1, store=store, out=tmp_path / "run"))
    embedding = {node.tracker.label for node in plan.missing if node.stage == "embed"}
    assert embedding == {"tiny-a"}  # of the undefended reference


def test_the_command_runs_it_on_the_embedded_dataset_and_says_what_no_date_tells(command, tmp_path):
    defense = "later:backbone=synthetic-mobilefacenet-wide"
    attack = "pgd:steps=1,surrogates=synthetic-mobilefacenet"
    options = (
        *("--attack", attack, "--backbone", "synthetic-mobilefacenet", "--identities", 4, "--threads", 1),
        *("--defense", defense, "--store", tmp_path / "store"),
    )
    done = command("run", *options, "--out", tmp_path / "run", "--csv", tmp_path / "rows.csv")
    assert done.returncode == 0, done.stderr
    assert "whether it is later is unknown" in done.stderr
    rows = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False).set_index(["attack", "defense"])
    assert set(rows["status"]) == {"ok"}
    assert rows.loc[(attack, defense), "access"] == "black-box"
    assert rows.loc[(attack, "none"), "access"] == "white-box"
    shown = command("list", "later")
    assert shown.returncode == 0, shown.stderr
    assert "a backbone" in shown.stdout
