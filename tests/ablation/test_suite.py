"""`bench ablate`: the file, what levels share, and that its table says what was measured."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.ablation import figure as ablation_figure
from bench.ablation import suite as ablation
from bench.ablation import table as ablation_table
from bench.ablation.suite import load, plan
from bench.analysis.comparison_groups import EVERY
from bench.errors import MethodError, UsageError
from bench.leaderboard import as_csv
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.run import decisions
from bench.run.planning import Options

TINY_TRAINER = "puface:steps=2,batch=4,cloaks=6,naturals=6,holdout=1,width=4,depth=2,evaluate_every=2"

FILE = f"""
[base]
dataset = "tiny"
attacks = ["tiny-noise", "tiny-sometimes"]
backbones = ["tiny-a"]
heads = ["nn"]
protocol = "tracker:folds=3"
defense = "puface:features=tiny-b|tiny-c,weights={{weights}}"
trainer = "{TINY_TRAINER}"
trainer_attacks = ["tiny-noise"]
trainer_backbones = ["tiny-c", "tiny-b"]

[[level]]
factor = "width"
name = "4"

[[level]]
factor = "width"
name = "6"
trainer = "{TINY_TRAINER.replace("width=4", "width=6")}"

[[level]]
factor = "written otherwise"
name = "4"
trainer = "{TINY_TRAINER.replace("steps=2,batch=4", "batch=4,steps=2")}"

[[level]]
factor = "who"
name = "oracle"
protocol = "tracker:folds=3,defended=cloaked"

[[level]]
factor = "who"
name = "nobody"
defense = "tiny-negative"

[[level]]
factor = "trackers"
name = "two"
backbones = ["tiny-a", "tiny-b"]
"""


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a file of ablations with a part replaced."""

    def write(old="", new="", text=FILE):
        assert old in text
        path = tmp_path / "ablations.toml"
        path.write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
        return path

    return write


SUMMARY_COLUMNS = FILE.replace(FILE[FILE.index('[[level]]\nfactor = "trackers"') :], "")


# -- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "protocol =",
            "protocl =",
            r"unknown key of \[base\] in ablations.toml 'protocl'. Did you mean 'protocol'",
        ),
        (
            'name = "6"\ntrainer =',
            'name = "6"\ntrianer =',
            r"unknown key of .*number 2.*'trianer'. .*'trainer'",
        ),
        ("[base]", "[bse]", r"unknown table in ablations.toml 'bse'. Did you mean 'base'"),
        (
            'factor = "who"\nname = "oracle"',
            'name = "oracle"',
            r"number 4 of ablations.toml has no factor: write",
        ),
        ('name = "oracle"\n', "", r"number 4 of ablations.toml has no name: write"),
        ('name = "oracle"', "name = 4", r"number 4 of ablations.toml has no name: write name = .* in quotes"),
        ('name = "6"', 'name = "4"', r"level '4' of factor 'width' is there twice"),
        (f'trainer = "{TINY_TRAINER}"\n', "", r"\[base\]: defense = .*asks for trained weights.*no trainer"),
        ('attacks = ["tiny-noise", "tiny-sometimes"]\n', "", r"\[base\] has no attacks"),
        ('heads = ["nn"]', "heads = 3", r"\[base\]: heads cannot be 3"),
        ("[base]", "[base", r"is not valid TOML"),
        (
            "[base]\n",
            "[base]\ntrainer_seed = [1, 1]\n",
            r"\[base\]: trainer_seed cannot be .*a seed is there twice",
        ),
        ("[base]\n", "[base]\ntrainer_seed = []\n", r"\[base\]: trainer_seed cannot be \[\]"),
    ],
)
def test_a_bad_file_is_one_sentence_with_the_mend(written, old, new, message):
    with pytest.raises(UsageError, match=message):
        load(written(old, new))


def test_a_file_needs_a_base_and_levels(written, tmp_path):
    with pytest.raises(UsageError, match=r"one table \[base\] and at least one table"):
        load(written(text='[base]\nattacks = ["pgd"]\ndefense = "jpeg"\n'))
    with pytest.raises(UsageError, match="does not exist"):
        load(tmp_path / "nowhere.toml")


def test_a_level_is_the_base_but_for_what_it_overrides(written):
    suite = load(written())
    same, wider, _, oracle, nobody, _ = suite.levels
    assert same.settings == suite.base
    assert wider.settings == suite.base.model_copy(update={"trainer": wider.settings.trainer})
    assert "width=6" in wider.settings.trainer
    assert oracle.settings.protocol == "tracker:folds=3,defended=cloaked"
    assert nobody.settings.defense == "tiny-negative"


# -- what levels share -------------------------------------------------------------------------------------------


@pytest.fixture
def requested(written, tmp_path, tiny):
    del tiny
    return plan(load(written(text=SUMMARY_COLUMNS)), tmp_path / "out")


def test_levels_share_weights_and_runs(requested):
    same, wider, otherwise, oracle, nobody = requested.places
    assert len(requested.trainings) == 2
    assert same.trainings == otherwise.trainings == oracle.trainings == requested.base.trainings
    assert wider.trainings != same.trainings
    assert nobody.trainings == ()
    # The oracle is another protocol, so another run; all else differs in the defence alone.
    assert len(requested.matrices) == 2
    assert {place.matrix for place in (same, wider, otherwise, nobody)} == {requested.base.matrix}
    assert oracle.matrix != requested.base.matrix
    spec = requested.matrices[requested.base.matrix].resolved.spec
    assert len(spec.defenses) == 3
    assert nobody.defenses == ("tiny-negative",)
    assert [level.factor for level in requested.users(*same.trainings)] == [
        "width",
        "written otherwise",
        "who",
    ]


def test_what_decides_weights_names_them(requested):
    (training, *_) = requested.trainings
    others = [
        replace(training, seed=1),
        replace(training, attacks=("pgd",)),
        replace(training, backbones=training.backbones[::-1]),
        replace(training, weights=("0" * 64, "1" * 64)),
        replace(training, fingerprint="other photos"),
        replace(training, trainer="puface:steps=3"),
    ]
    assert len({training.digest, *(other.digest for other in others)}) == 7
    assert replace(training, folder=Path("elsewhere")).digest == training.digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width=6", "widht=6", "unknown parameter of puface 'widht'. Did you mean 'width'"),
        ('"tiny-sometimes"]', '"tiny-somtimes"]', "unknown attack 'tiny-somtimes'"),
        ('trainer_attacks = ["tiny-noise"]', "trainer_attacks = []", "needs trainer_attacks"),
        ("defended=cloaked", "defended=cloakd", "'cloakd'"),
        ("features=tiny-b", "featurs=tiny-b", "unknown parameter of puface 'featurs'"),
        ('heads = ["nn"]', 'heads = ["n"]', "unknown head of protocol tracker 'n'"),
        ('dataset = "tiny"', 'dataset = "tiny"\nidentities = 7', "more than the 6 evaluated"),
    ],
)
def test_bad_names_are_found_before_any_work(written, tmp_path, tiny, old, new, message):
    del tiny
    with pytest.raises(UsageError, match=message):
        plan(load(written(old, new, SUMMARY_COLUMNS)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_committed_file_varies_one_thing_a_level_and_has_the_base_in_every_factor_but_the_oracles():
    suite = load(Path(__file__).parents[2] / "results" / "ablations.toml")
    bases = {level.factor for level in suite.levels if level.settings == suite.base}
    assert bases == {level.factor for level in suite.levels}
    assert len(bases) == 11
    changed = [
        {
            key
            for key in type(suite.base).model_fields
            if getattr(level.settings, key) != getattr(suite.base, key)
        }
        for level in suite.levels
    ]
    # A level may be measured on fewer attacks than the base: ten photos of LowKey an identity take long.
    assert {len(keys - {"attacks"}) for keys in changed} == {0, 1}
    assert all(set(level.settings.attacks) <= set(suite.base.attacks) for level in suite.levels)


def test_every_text_of_the_committed_file_is_a_method():
    suite = load(Path(__file__).parents[2] / "results" / "ablations.toml")
    trainers = {}
    for level in suite.levels:
        settings = level.settings
        trainer = factory.trainer(settings.trainer)
        assert factory.protocol(settings.protocol).heads
        assert factory.defense(settings.defense).name == "puface"
        for text in (*settings.attacks, *settings.trainer_attacks):
            assert factory.attack(text).name in ("pgd", "lowkey", "fawkes")
        trainers[level.factor, level.name] = trainer.params
    assert trainers["stride", "4"].stride == 4
    assert trainers["amplification k", "8"].k_min == trainers["amplification k", "8"].k_max == (8,)
    assert trainers["loss", "feature only"].image_weight == 0
    assert trainers["width", "16"].width == 16
    assert trainers["recipe", "autoencoder"].feature_weight == 0


# -- trained and measured ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    """Carry a small suite out once; gives plan, outcome, table, options."""
    del tiny
    root = tmp_path_factory.mktemp("ablation")
    file = root / "ablations.toml"
    file.write_text(SUMMARY_COLUMNS, encoding="utf-8")
    requested = plan(load(file), root / "out")
    options = Options(threads=1, store=root / "store", device="cpu")
    before = ablation.missing(requested, options)
    outcome = ablation.execute(requested, options)
    return requested, outcome, ablation_table.table(requested, outcome), options, before, file


def test_everything_is_trained_once_and_measured(done):
    requested, outcome, table, options, before, _ = done
    assert outcome.failures == ()
    assert [training.card()["file"] for training in requested.trainings] == [
        f"{training.digest}.safetensors" for training in requested.trainings
    ]
    assert sum(one.cells - one.cached for one in before) == sum(one.cells for one in before) > 0
    assert [one.untrained for one in before] == [2, 1]
    after = ablation.missing(requested, options)
    assert all(one.cells == one.cached and not one.untrained for one in after)
    assert len(table) == 5 * 3  # levels; two attacks and their mean
    assert list(table.columns) == list(ablation_table.COLUMNS)
    assert len(list((requested.folder / "cloaks").iterdir())) > 0


def test_rates_are_those_of_the_leaderboard(done):
    requested, outcome, table, *_ = done
    leaderboards = [build(folder) for folder in outcome.folders]
    compared = 0
    for place in requested.places:
        leaderboard = leaderboards[place.matrix].set_index(["attack", "defense"])
        level = table[(table["factor"] == place.level.factor) & (table["level"] == place.level.name)]
        for row in level[level["attack"] != EVERY].to_dict("records"):
            cell, plain = (
                leaderboard.loc[(row["attack"], *place.defenses)],
                leaderboard.loc[(row["attack"], "none")],
            )
            for name in ("asr", "asr_low", "asr_high", "normal_accuracy", "baseline_error", "purified_psnr"):
                assert row[name] == pytest.approx(cell[name]), name
            assert row["undefended_asr"] == pytest.approx(plain["asr"])
            assert row["undefended_accuracy"] == pytest.approx(plain["normal_accuracy"])
            assert row["natural_psnr"] == pytest.approx(
                leaderboard.loc[("none", *place.defenses)]["purified_psnr"]
            )
            compared += 1
    assert compared == 10


def test_levels_are_compared_with_the_base_over_people(done):
    requested, outcome, table, *_ = done
    base = table[table["is_base"]]
    assert set(base["factor"]) == {"width", "written otherwise"}
    assert base["difference"].isna().all()
    assert set(base["p_reason"]) == {"the row is the base itself"}
    cells = {(cell.attack, cell.defense): cell for cell in outcome.folders[0].cells()}

    def missed(attack, defense):
        rows = decisions.read(outcome.folders[0].path / cells[attack, defense].decisions).rows
        return 1 - rows[rows["protected"]].groupby("identity")["correct"].mean()

    ours, theirs = (missed("tiny-noise", name) for name in ("tiny-negative", *requested.base.defenses))
    row = table[(table["level"] == "nobody") & (table["attack"] == "tiny-noise")].iloc[0]
    assert row["difference"] == pytest.approx(np.mean(ours - theirs))
    assert pd.isna(row["p"]) == bool(row["p_reason"])
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_rows_say_what_was_trained_and_never_how_long(done):
    requested, _, table, *_ = done
    wider = table[(table["factor"] == "width") & (table["level"] == "6")].iloc[0]
    card = requested.places[1].trainings[0].card()
    assert wider["parameters"] == card["parameters"]
    assert wider["weights_sha256"] == card["sha256"]
    assert "width=6" in wider["trainer"]
    assert table[table["level"] == "nobody"]["trainer"].isna().all()
    assert not [name for name in table.columns if "second" in name or "time" in name]


def test_the_same_command_again_trains_and_computes_nothing(done, monkeypatch):
    requested, _, table, options, *_ = done
    monkeypatch.setattr(factory, "trainer", lambda _text: pytest.fail("trained again"))
    files = {path: path.stat().st_mtime_ns for path in (requested.folder / "weights").iterdir()}
    again = ablation_table.table(requested, ablation.execute(requested, options))
    pd.testing.assert_frame_equal(again, table)
    assert {path: path.stat().st_mtime_ns for path in (requested.folder / "weights").iterdir()} == files


def test_weights_without_a_whole_card_are_not_there(done):
    training = done[0].trainings[0]
    path = training.file.with_suffix(".json")
    card = path.read_text()
    try:
        path.write_text(card[:40])
        assert training.card() is None
    finally:
        path.write_text(card)
    assert training.card() == json.loads(card)


def test_a_training_that_fails_leaves_its_reason_and_the_others_go_on(done, monkeypatch):
    requested, _, table, options, *_ = done
    (lost,) = requested.places[1].trainings
    real = ablation.train

    def failing(training, *rest):
        if training == lost:
            raise MethodError("the loss is nan")
        return real(training, *rest)

    monkeypatch.setattr(ablation, "train", failing)
    outcome = ablation.execute(requested, options)
    assert outcome.failures == ("training failed: the loss is nan",)
    found = ablation_table.table(requested, outcome)
    rows = found[found["level"] == "6"]
    assert list(rows["attack"]) == ["tiny-noise", "tiny-sometimes"]
    assert rows["asr"].isna().all()
    assert set(rows["asr_reason"]) == {"training failed: the loss is nan"}
    others = [frame[frame["level"] != "6"]["asr"].tolist() for frame in (found, table)]
    assert others[0] == others[1]


# -- figure and command ------------------------------------------------------------------------------------------


def test_the_figure_shows_every_factor_and_is_the_same_every_time(done, tmp_path):
    table = done[2]
    figure = ablation_figure.draw(table)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["width", "written otherwise", "who"]
    assert [tick.get_text() for tick in figure.axes[5].get_xticklabels()] == ["oracle", "nobody"]
    (width, *_) = figure.axes
    drawn = sorted(y for container in width.containers for y in container.lines[0].get_ydata())
    rates = table[(table["factor"] == "width") & (table["attack"] != EVERY)]["asr"]
    assert drawn == pytest.approx(sorted(100 * rates))
    for name in ("one.svg", "two.svg"):
        ablation_figure.ablation_figure(table, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    with pytest.raises(UsageError, match=r"cannot be written as 'one\.gif'"):
        ablation_figure.ablation_figure(table, tmp_path / "one.gif")
    with pytest.raises(UsageError, match="without rows"):
        ablation_figure.draw(table.iloc[:0])


def test_a_level_that_failed_is_named_in_the_figure(done):
    table = done[2].copy()
    rates = [name for name in table.columns if name.startswith(("asr", "normal_accuracy"))]
    table.loc[table["level"] == "6", rates] = np.nan
    (width, *_) = ablation_figure.draw(table).axes
    assert [text.get_text() for text in width.texts] == ["failed: 6"]


def test_the_command_plans_without_work_then_writes_table_and_figure(done, cli, tmp_path):
    requested, _, table, options, _, file = done
    where = ("--out", requested.folder, "--store", options.store, "--threads", "1", "--device", "cpu")
    code, out, err = cli(
        "ablate", file, "--out", tmp_path / "new", "--store", tmp_path / "store", "--dry-run"
    )
    assert (code, err) == (0, "")
    assert "5 levels; 2 sets of weights, 2 to be trained" in out
    assert "for width 4, written otherwise 4, who oracle" in out
    assert "2 defences wait for their weights" in out
    assert not (tmp_path / "new").exists()
    code, out, err = cli(
        "ablate", file, *where, "--csv", tmp_path / "t.csv", "--figure", tmp_path / "f.png", "-q"
    )
    assert (code, err) == (0, "")
    assert (tmp_path / "t.csv").read_text() == as_csv.to_csv(table)
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = cli("ablate", file, *where, "--dry-run")
    assert "0 to be trained" in out
    assert "\n0 of " in out
    code, _, err = cli("ablate", tmp_path / "none.toml")
    assert code == 2
    assert "does not exist" in err


def test_the_page_shows_a_file_that_loads(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    text = page[page.index("```toml") + 7 :]
    text = text[: text.index("```")]
    assert tomllib.loads(text)
    (tmp_path / "page.toml").write_text(text, encoding="utf-8")
    assert [level.factor for level in load(tmp_path / "page.toml").levels] == [
        "width",
        "width",
        "gallery photos",
    ]
    for name in ablation_table.COLUMNS:
        assert any(part in page for part in (name, name.rpartition("_")[0])), name


# -- several trainings of a level --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thrice(tiny, tmp_path_factory):
    """Carry out a suite whose weights are trained under three seeds; gives plan and table."""
    del tiny
    root = tmp_path_factory.mktemp("thrice")
    file = root / "ablations.toml"
    text = SUMMARY_COLUMNS.replace("[base]\n", "[base]\ntrainer_seed = [0, 1, 2]\n", 1)
    file.write_text(text, encoding="utf-8")
    requested = plan(load(file), root / "out")
    options = Options(threads=1, store=root / "store", device="cpu")
    outcome = ablation.execute(requested, options)
    assert outcome.failures == ()
    return requested, outcome, ablation_table.table(requested, outcome)


def test_a_level_is_the_mean_over_its_trainings(thrice):
    requested, outcome, table = thrice
    assert [training.seed for training in requested.base.trainings] == [0, 1, 2]
    assert len(requested.trainings) == 6
    wider = table[(table["factor"] == "width") & (table["level"] == "6")]
    assert set(wider["trainer_seed"]) == {"0|1|2"}
    assert set(wider["training_seeds"]) == {3}
    assert wider["weights_sha256"].iloc[0].count("|") == 2
    assert len(table) == 5 * 3
    place = requested.places[1]
    leaderboard = build(outcome.folders[place.matrix]).set_index(["attack", "defense"])
    cells = [leaderboard.loc[("tiny-noise", name)] for name in place.defenses]
    row = wider[wider["attack"] == "tiny-noise"].iloc[0]
    for name in ("asr", "normal_accuracy", "purified_psnr"):
        assert row[name] == pytest.approx(np.mean([cell[name] for cell in cells])), name
    assert row["asr_low"] <= row["asr"] <= row["asr_high"]


def test_a_claim_from_one_training_says_so_and_from_three_does_not(thrice, done):
    few, many = (
        table[(table["factor"] == "width") & (table["level"] == "6")] for table in (done[2], thrice[2])
    )
    assert few["caution"].str.startswith("trained the level '6' once, the base once: a claim about").all()
    assert not many["caution"].astype(str).str.contains("trained").any()
    nobody = done[2][done[2]["level"] == "nobody"]
    assert nobody["caution"].str.startswith("trained the base once").all()
    # Both sides have the same weights: the factor is another than the training.
    same = done[2][done[2]["level"] == "oracle"]
    assert not same["caution"].fillna("").str.contains("trained").any()
