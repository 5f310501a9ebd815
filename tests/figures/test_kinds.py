"""Every kind: what is drawn is what the leaderboard and the tests say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.comparison_groups import EVERY
from bench.errors import UsageError
from bench.figures import KINDS, WIDTHS, FigureOptions, NotDrawableError, files, identities, robustness, style
from bench.figures.cost import seconds_per_image
from bench.figures.critical_difference import tie_groups
from bench.figures.quality import pareto
from bench.leaderboard import significance_tables
from bench.leaderboard.view import RunView

DRAWN = ["heatmap", "slopes", "forest", "critical-difference", "quality", "backbones", "identities", "cost"]


def draw(view, name, **options):
    return KINDS[name].draw(view, FigureOptions(**options))


def bars(axes):
    """Return label → (places, values, lower ends, upper ends) of every series with intervals."""
    found = {}
    for container in axes.containers:
        line, _, (segments,) = container
        ends = np.array([end if len(end) else np.full((2, 2), np.nan) for end in segments.get_segments()])
        along = 0 if np.ptp(ends[0][:, 1]) == 0 and np.ptp(ends[0][:, 0]) > 0 else 1
        found[container.get_label()] = (
            line.get_xdata(), line.get_ydata(), ends[:, 0, along], ends[:, 1, along]
        )  # fmt: skip
    return found


def lines(axes, label):
    return [line for line in axes.lines if line.get_label() == label]


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("width", ["column", "page"])
def test_every_kind_is_drawn_for_both_widths_and_says_what_it_shows(whole, name, width):
    drawn = draw(whole.view, name, width=width)
    assert drawn.figure.get_figwidth() == WIDTHS[width]
    assert drawn.figure.get_figheight() <= style.TALLEST
    for text in (drawn.caption, drawn.alt):
        assert text.endswith(".")
        assert "nan" not in text.lower()
        assert "  " not in text
    assert "6 identities of tiny" in drawn.caption
    assert "tiny-noise" in drawn.alt or "jpeg" in drawn.alt


@pytest.mark.parametrize("name", ["heatmap", "identities"])
def test_the_same_run_gives_the_same_bytes(whole, name):
    for form in files.FORMATS:
        one, other = (files.to_bytes(draw(whole.view, name).figure, form) for _ in range(2))
        assert one == other


def test_the_map_shows_means_over_trackers(whole):
    (axes,) = [a for a in draw(whole.view, "heatmap").figure.axes if a.get_visible()]
    leaderboard = whole.view.leaderboard
    texts = {(round(t.get_position()[0]), round(t.get_position()[1])): t.get_text() for t in axes.texts}
    for y, attack in enumerate(["none", "tiny-noise", "tiny-identity-mean"]):
        for x, defense in enumerate(["none", "jpeg:quality=20", "tiny-negative"]):
            own = leaderboard[(leaderboard["attack"] == attack) & (leaderboard["defense"] == defense)]
            assert len(own) == 2
            assert texts[x, y].rstrip("*†") == f"{100 * own['asr'].mean():.1f}"
    assert axes.get_yticklabels()[0].get_text() == "no cloak"


def test_marks_are_those_of_the_tested_pairs(whole, monkeypatch):
    pairs = whole.view.pairs.copy()
    lower = (pairs["ranked"] == "defense") & (pairs["against"] == "tiny-noise")
    with_none = lower & ((pairs["first"] == "none") | (pairs["second"] == "none"))
    pairs["significant"] = with_none
    for place, row in pairs[with_none].iterrows():
        other = row["second"] if row["first"] == "none" else row["first"]
        first = ("none", other) if other == "tiny-negative" else (other, "none")
        pairs.loc[place, ["first", "second"]] = first
    monkeypatch.setattr(significance_tables, "pairs", lambda _groups: pairs[lower])
    drawn = draw(whole.view, "heatmap")
    texts = [text.get_text() for text in drawn.figure.axes[0].texts]
    assert [text[-1] for text in texts[3:6]] == [texts[3][-1], "*", "†"]
    assert all(text[-1].isdigit() for text in texts[:4] + texts[6:])
    assert "*: lower than the same attack without a defence" in drawn.caption
    assert "†: higher than" in drawn.caption


def test_failed_cells_and_white_boxes_are_shown_as_such(torn):
    drawn = draw(torn.view, "heatmap", width="column")
    titles = [axes.get_title(loc="left") for axes in drawn.figure.axes]
    assert titles == ["head nn, black-box", "head nn, white-box"]
    black, white = ([text.get_text() for text in axes.texts] for axes in drawn.figure.axes)
    assert black[4:6] == ["failed", "failed"]
    assert white[2:6] == ["NA"] * 4
    leaderboard = torn.view.leaderboard
    known = leaderboard[(leaderboard["access"] == "white-box") & (leaderboard["defense"] == "none")]["asr"]
    assert white[6] == f"{100 * known.iloc[0]:.1f}"
    other = leaderboard[
        (leaderboard["attack"].str.startswith("pgd")) & (leaderboard["access"] == "black-box")
    ]["asr"]
    assert black[6] == f"{100 * other.iloc[0]:.1f}"
    assert "Hatched: failed or NA" in drawn.caption
    assert "never averaged" in drawn.caption


def test_slopes_lead_from_none_to_each_defence(whole):
    drawn = draw(whole.view, "slopes")
    means = whole.view.means.set_index(["against", "defense"])
    panels = [axes for axes in drawn.figure.axes if axes.get_visible()]
    for axes, defense in zip(panels, ["jpeg:quality=20", "tiny-negative"], strict=True):
        found = bars(axes)
        assert set(found) == {"tiny-noise", "tiny-identity-mean"}
        for attack, (_, values, low, high) in found.items():
            rows = means.loc[[(attack, "none"), (attack, defense)]]
            assert values == pytest.approx(100 * rows["asr"].to_numpy(dtype=float))
            assert low == pytest.approx(100 * rows["asr_low"].fillna(rows["asr"]).to_numpy(dtype=float))
            assert high == pytest.approx(100 * rows["asr_high"].fillna(rows["asr"]).to_numpy(dtype=float))
        (baseline,) = lines(axes, "none")
        expected = [means.loc["tiny-noise", name]["defended_baseline_error"] for name in ("none", defense)]
        assert baseline.get_ydata() == pytest.approx(100 * np.array(expected, dtype=float))


def test_a_failed_attack_has_no_slope_and_is_named(torn):
    first = draw(torn.view, "slopes").figure.axes[0]
    assert np.isnan(bars(first)["tiny-failing"][1]).all()
    assert "tiny-failing: failed" in first.texts[0].get_text()


def test_differences_are_those_of_the_pairs_with_their_sign(whole):
    (axes,) = [a for a in draw(whole.view, "forest").figure.axes if a.get_visible()]
    means = whole.view.means.set_index(["against", "defense"])["asr"].astype(float)
    pairs = whole.view.pairs[whole.view.pairs["ranked"] == "defense"]
    tested = {(row.against, frozenset((row.first, row.second))): row for row in pairs.itertuples(index=False)}
    filled = {c.get_label(): c[0].get_markerfacecolor() != "white" for c in axes.containers}
    found = bars(axes)
    assert len(found) == 4
    for label, (values, _, low, high) in found.items():
        attack, defense = label.split("|")
        assert values[0] == pytest.approx(100 * (means[attack, defense] - means[attack, "none"]))
        row = tested[attack, frozenset((defense, "none"))]
        assert filled[label] == row.significant
        assert low[0] <= values[0] <= high[0]
        if not np.isnan(row.difference_low):
            assert high[0] - low[0] == pytest.approx(100 * (row.difference_high - row.difference_low))


def test_ranks_and_bars_are_those_of_the_ranking(whole):
    drawn = draw(whole.view, "critical-difference")
    (axes,) = drawn.figure.axes
    (ranking,) = [
        ranking
        for one, ranking in whole.view.ranked
        if (one.axis, one.opponent, one.head) == ("defense", EVERY, "nn")
    ]
    texts = [text.get_text() for text in axes.texts]
    for method in ranking.methods:
        name = "no defence" if method.method == "none" else method.method
        assert f"{name} {method.mean_rank:.2f}" in texts
        assert len(lines(axes, method.method)) == 1
    assert len(lines(axes, "tied")) == len(tie_groups(ranking.methods))
    assert any(text.startswith("CD ") for text in texts)


def test_methods_that_share_a_letter_are_one_bar():
    named = {"a": "x", "b": "xy", "c": "y", "d": "z"}
    methods = [SimpleNamespace(method=name, tie_group=letters) for name, letters in named.items()]
    assert tie_groups(methods) == [("a", "b"), ("b", "c")]


def test_quality_is_the_boards_on_both_sides(whole):
    drawn = draw(whole.view, "quality")
    leaderboard, means = whole.view.leaderboard, whole.view.means.set_index(["against", "defense"])
    panels = {axes.get_xlabel(): bars(axes) for axes in drawn.figure.axes if axes.get_visible()}
    assert set(panels) == {
        "PSNR of the cloak, dB", "SSIM of the cloak", "PSNR of the purified image, dB", "SSIM of the purified image"
    }  # fmt: skip
    for label, side, measure in (
        ("PSNR of the cloak, dB", "cloak", "psnr"),
        ("SSIM of the purified image", "purified", "ssim"),
    ):
        for name, (places, values, *_) in panels[label].items():
            own = leaderboard[(leaderboard["attack"] == name) & (leaderboard["defense"] == "none")]
            expected = means.loc[name, "none"]["asr"] if side == "cloak" else means.loc[EVERY, name]["asr"]
            if side == "purified":
                own = leaderboard[(leaderboard["defense"] == name) & (leaderboard["attack"] != "none")]
            assert places[0] == pytest.approx(own[f"{side}_{measure}"].astype(float).mean())
            assert values[0] == pytest.approx(100 * expected)
    assert "LPIPS" in drawn.caption


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
)
def test_the_front_is_what_no_other_beats(points, more, higher):
    quality, rate = zip(*points, strict=True)
    front = pareto(quality, rate, more=more, higher=higher)
    signs = (1 if more else -1), (1 if higher else -1)
    gains = [(signs[0] * q, signs[1] * r) for q, r in points]
    beaten = {
        n
        for n, one in enumerate(gains)
        for other in gains
        if other != one and other[0] >= one[0] and other[1] >= one[1]
    }
    assert set(front) == set(range(len(points))) - beaten
    assert [gains[n][0] for n in front] == sorted(gains[n][0] for n in front)


def test_backbones_are_the_leaderboards_rows(torn):
    drawn = draw(torn.view, "backbones")
    leaderboard = torn.view.leaderboard
    panels = [axes for axes in drawn.figure.axes if axes.get_visible()]
    for axes, attack in zip(
        panels, dict.fromkeys(leaderboard[leaderboard["attack"] != "none"]["attack"]), strict=True
    ):
        own = leaderboard[(leaderboard["attack"] == attack) & leaderboard["asr"].notna()]
        shown = [
            (x, y) for c in axes.containers for x, y in zip(c[0].get_xdata(), c[0].get_ydata(), strict=True)
        ]
        assert sorted(round(y, 6) for _, y in shown) == sorted(round(100 * float(v), 6) for v in own["asr"])
        white = {
            round(x)
            for c in axes.containers
            if c[0].get_markerfacecolor() == "white"
            for x in c[0].get_xdata()
        }
        assert white == ({0} if attack.startswith("pgd") else set())
    assert "Hollow: white-box" in drawn.caption
    failed = panels[1].texts[0].get_text()
    assert failed.count("failed") == 4


def test_people_are_their_own_rates(whole):
    drawn = draw(whole.view, "identities")
    axes = drawn.figure.axes[0]
    for defense in ("none", "jpeg:quality=20", "tiny-negative"):
        points = [p for p in whole.view.results.cells if (p.attack, p.defense) == ("tiny-noise", defense)]
        rates = sum(whole.view.results.identities(p, "")["asr"] for p in points) / len(points)
        (dots,) = lines(axes, f"identities|{defense}")
        assert sorted(dots.get_ydata()) == pytest.approx(sorted(100 * rates))
        (mean,) = lines(axes, f"mean|{defense}")
        assert mean.get_ydata()[0] == pytest.approx(100 * rates.mean())
    assert all(identity.startswith("synthetic-eval") for identity in rates.index)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_no_dot_leaves_its_column_and_equal_ones_stand_apart(values):
    sides = identities.spread(np.array(values))
    assert np.abs(sides).max() <= 0.4 + 1e-9
    drawn = set(zip(np.round(sides, 9), values, strict=True))
    assert len(drawn) == len(values)


def test_costs_are_the_timings(whole):
    drawn = draw(whole.view, "cost")
    timings = pd.read_csv(whole.view.folder.path / "timings.csv")
    found = {}
    for axes in drawn.figure.axes:
        assert axes.get_xscale() == "log"
        found |= {label: float(x[0]) for label, (x, *_) in bars(axes).items()}
    assert set(found) == {"tiny-noise", "tiny-identity-mean", "jpeg:quality=20", "tiny-negative"}
    for name, seconds in found.items():
        rows = timings[(timings["method"] == name) & timings["stage"].isin(["cloak", "purify"])]
        assert seconds == pytest.approx(rows["seconds"].sum() / rows["images"].sum())


def test_one_attack_defence_tracker_or_head_can_be_asked_for(whole):
    drawn = draw(
        whole.view, "heatmap", attack="tiny-noise", defense="tiny-negative", backbone="tiny-b", head="nn"
    )
    texts = [text.get_text().rstrip("*†") for text in drawn.figure.axes[0].texts]
    leaderboard = whole.view.leaderboard[whole.view.leaderboard["backbone"] == "tiny-b"].set_index(
        ["attack", "defense"]
    )["asr"]
    assert texts == [
        f"{100 * leaderboard[a, d]:.1f}" for a in ("none", "tiny-noise") for d in ("none", "tiny-negative")
    ]
    assert "Tracker: tiny-b." in drawn.caption
    for axis, word in (
        ("attack", "attack"),
        ("backbone", "backbone"),
        ("head", "head"),
        ("condition", "condition"),
    ):
        with pytest.raises(UsageError, match=f"{word} of this run|unknown {word}"):
            draw(whole.view, "heatmap", **{axis: "nothing"})


@pytest.mark.parametrize("name", DRAWN)
def test_a_run_without_an_attack_is_refused(plain, name):
    with pytest.raises(NotDrawableError, match="no attack but none"):
        draw(plain.view, name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("slopes", "slopes lead from defence none to others"),
        ("forest", "no two defences"),
        ("critical-difference", "no ranking of two methods"),
        ("backbones", "one backbone, tiny-a"),
        ("robustness", "protocol robustness, this run has protocol tracker"),
    ],
)
def test_what_a_run_has_not_is_said(single, name, reason):
    with pytest.raises(NotDrawableError, match=reason):
        draw(single.view, name)


def test_a_run_without_timings_has_no_cost(single, copy_of):
    copy = copy_of(single.view.folder)
    (copy.path / "timings.csv").unlink()
    with pytest.raises(NotDrawableError, match=r"no timings\.csv"):
        draw(RunView.of(copy.path), "cost")


def test_channels_of_one_method_are_neighbours_of_one_curve():
    channels = [
        "no channel",
        "jpeg:quality=95",
        "jpeg",
        "resize",
        "resize:side=96+jpeg",
        "gamma:value=2",
        "gamma",
    ]
    assert robustness.families(channels) == [(1, 3), (5, 7)]


def test_robustness_curves_are_the_boards(evaluate):
    run = evaluate(
        attacks=("tiny-noise",), defenses=("none",), protocol="robustness:channels=none|jpeg:quality=30|jpeg"
    )
    view = RunView.of(run.folder.path)
    drawn = draw(view, "robustness", width="column")
    (axes,) = drawn.figure.axes
    leaderboard = view.leaderboard.set_index("condition")
    own = leaderboard[leaderboard["attack"] == "tiny-noise"]
    _, values, low, high = bars(axes)["tiny-noise|0"]
    assert values == pytest.approx(100 * own["asr"].to_numpy(dtype=float))
    assert low == pytest.approx(100 * own["asr_low"].to_numpy(dtype=float))
    assert high == pytest.approx(100 * own["asr_high"].to_numpy(dtype=float))
    (baseline,) = lines(axes, "none")
    assert baseline.get_ydata() == pytest.approx(
        100 * leaderboard[leaderboard["attack"] == "none"]["asr"].to_numpy(dtype=float)
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == list(own.index)
    with pytest.raises(NotDrawableError, match="2 channels or more"):
        draw(
            RunView.of(evaluate(attacks=("tiny-noise",), protocol="robustness:channels=none").folder.path),
            "robustness",
        )


def adapt(view, monkeypatch, *met, column="attack_adapts_to_defense"):
    """Say that these attacks are adapted to these defences, or by the other column to a part of them."""
    leaderboard = view.leaderboard.copy()
    pairs = set(met)
    adapts = [pair in pairs for pair in zip(leaderboard["attack"], leaderboard["defense"], strict=True)]
    monkeypatch.setitem(view.__dict__, "leaderboard", leaderboard.assign(**{column: adapts}))


def test_a_rate_of_an_attack_on_a_part_of_its_defence_has_another_mark(whole, monkeypatch):
    adapt(whole.view, monkeypatch, ("tiny-noise", "tiny-negative"), column="attack_adapts_in_part")
    drawn = {name: draw(whole.view, name) for name in ("heatmap", "slopes", "forest", "backbones")}
    for one in drawn.values():
        assert (
            "§: the attack is adapted to a part of this defence, or to a whole that shares one."
            in one.caption
        )
        assert "‡" not in one.caption
    assert [text.get_text()[-1] == "§" for text in drawn["heatmap"].figure.axes[0].texts].count(True) == 1
    assert "tiny-negative (in part)" in draw(whole.view, "critical-difference", attack="tiny-noise").caption


def test_a_rate_of_an_attack_made_against_its_defence_is_marked(whole, monkeypatch):
    adapt(whole.view, monkeypatch, ("tiny-noise", "tiny-negative"))
    drawn = {name: draw(whole.view, name) for name in ("heatmap", "slopes", "forest", "backbones")}
    assert all(
        "‡: the attack is adapted to this very defence." in one.caption and "§" not in one.caption
        for one in drawn.values()
    )
    marked = [text.get_text()[-1] == "‡" for text in drawn["heatmap"].figure.axes[0].texts]
    assert marked == [False] * 5 + [True] + [False] * 3
    assert [[t.get_text() for t in axes.texts] for axes in drawn["slopes"].figure.axes] == [[], ["‡"]]
    labels = [text.get_text().strip() for text in drawn["forest"].figure.axes[0].get_yticklabels()]
    assert [text for text in labels if text.endswith("‡")] == ["tiny-negative ‡"]
    assert labels.index("tiny-negative ‡") < labels.index("tiny-identity-mean")
    assert [len(axes.texts) for axes in drawn["backbones"].figure.axes] == [2, 0]


def test_defences_are_not_compared_over_attacks_made_against_them(whole, monkeypatch):
    adapt(whole.view, monkeypatch, ("tiny-noise", "tiny-negative"))
    means = whole.view.means.set_index(["against", "defense"])
    for name in ("quality", "cost"):
        drawn = draw(whole.view, name)
        assert "since adapted to one of them or a part of one: tiny-noise." in drawn.caption
        shown = {}
        for axes in drawn.figure.axes:
            if axes.get_visible() and ("purif" in axes.get_xlabel()):
                shown |= {label: values[0] for label, (_, values, *_) in bars(axes).items()}
        assert set(shown) == {"jpeg:quality=20", "tiny-negative"}
        for defense, rate in shown.items():
            assert rate == pytest.approx(100 * means.loc["tiny-identity-mean", defense]["asr"])
    ranks = draw(whole.view, "critical-difference")
    assert "against tiny-identity-mean" in ranks.caption
    assert "Left out of what" in ranks.caption
    adapt(whole.view, monkeypatch, ("tiny-noise", "tiny-negative"), ("tiny-identity-mean", "jpeg:quality=20"))
    with pytest.raises(NotDrawableError, match="every attack of the run is adapted to one of its defences"):
        draw(whole.view, "critical-difference")
    assert "over none" not in draw(whole.view, "quality").caption


def test_ranks_over_several_attacks_leave_the_adapted_one_out(torn, monkeypatch):
    adapt(torn.view, monkeypatch, ("tiny-failing", "jpeg:quality=20"))
    drawn = draw(torn.view, "critical-difference")
    assert "in the mean over the attacks tiny-noise and pgd" in drawn.caption


def test_ineffective_cloaks_are_on_no_front(whole, monkeypatch):
    drawn = draw(whole.view, "quality")
    names = {"tiny-noise", "tiny-identity-mean"}
    idle = {
        name
        for name in names
        if name in drawn.caption.partition("Not on the front")[2].partition("):")[2].partition(".")[0]
    }
    axes = next(a for a in drawn.figure.axes if a.get_xlabel().startswith("PSNR of the cloak"))
    (front,) = lines(axes, "front")
    shown = {label: (x[0], y[0]) for label, (x, y, *_) in bars(axes).items()}
    on_front = set(zip(front.get_xdata(), front.get_ydata(), strict=True))
    assert on_front.isdisjoint(shown[name] for name in idle)
    assert front.get_marker() == "o"
    monkeypatch.setattr("bench.figures.quality.effective_cloaks", lambda *_: frozenset())
    none = draw(whole.view, "quality")
    axes = next(a for a in none.figure.axes if a.get_xlabel().startswith("PSNR of the cloak"))
    assert not len(lines(axes, "front")[0].get_xdata())
    assert "tiny-noise and tiny-identity-mean." in none.caption


def test_seeds_stand_beside_each_other_with_the_error_of_their_defence(whole, monkeypatch):
    leaderboard = whole.view.leaderboard
    both = pd.concat([leaderboard, leaderboard.assign(seed=1)], ignore_index=True)
    monkeypatch.setitem(whole.view.__dict__, "leaderboard", both)
    drawn = draw(whole.view, "backbones")
    axes = drawn.figure.axes[0]
    places = [x for container in axes.containers for x in container[0].get_xdata()]
    assert len(set(np.round(places, 6))) == len(places) == 12
    ticks = {
        (round(float(np.mean(line.get_xdata())), 6), float(line.get_ydata()[0]))
        for line in axes.lines
        if str(line.get_label()).startswith("baseline|")
    }
    assert {x for x, _ in ticks} == set(np.round(places, 6))
    assert {round(y, 6) for _, y in ticks} == {
        round(100 * float(value), 6)
        for value in leaderboard[leaderboard["attack"] == "tiny-noise"]["defended_baseline_error"]
    }
    assert "(seed 1)" in drawn.alt


def test_people_are_counted_and_not_named(whole):
    drawn = draw(whole.view, "identities")
    assert "synthetic-eval" not in drawn.caption + drawn.alt
    said = drawn.caption.partition("From no defence to ")[2]
    numbers = [int(word) for word in said.split() if word.isdigit()]
    assert numbers[1] == 6 == numbers[0] + numbers[2] + numbers[3]


def test_a_mask_costs_what_learning_it_costs_and_what_laying_it_on_does():

    timings = pd.DataFrame(
        {
            "stage": ["mask", "mask", "cloak", "cloak"],
            "method": ["m (a|b)", "m (c|d)", "m (a|b)", "other"],
            "images": [100, 100, 400, 10],
            "seconds": [20.0, 40.0, 4.0, 5.0],
        }
    )
    assert seconds_per_image(timings, ("mask", "cloak"), "m") == pytest.approx(60 / 200 + 4 / 400)
    assert seconds_per_image(timings, ("mask", "cloak"), "other") == pytest.approx(0.5)
    assert seconds_per_image(timings, ("mask", "cloak"), "none") is None
