"""The map of attacks × defences: its numbers are means of the board's, and what is missing is not a number."""

import numpy as np
import pandas as pd
import pytest

from bench.errors import UsageError
from bench.matrix_figure import draw, matrix_figure, mean_rates


def board(heads=("nn",)):
    """A leaderboard's columns that the figure needs; every rate is told from every other."""
    rows = []
    for head in heads:
        for attack in ("none", "fawkes", "adaptive:attack=[pgd:eps=15],defense=puface"):
            for defense in ("none", "jpeg + puface"):
                for backbone in ("one", "two"):
                    rows.append(
                        {
                            "attack": attack,
                            "defense": defense,
                            "backbone": backbone,
                            "head": head,
                            "seed": 0,
                            "condition": "",
                            "access": "black-box" if attack != "none" else "",
                            "asr": 0.00313 * (len(rows) + 1),
                        }
                    )
    return pd.DataFrame(rows)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_each_pair_shows_its_mean_over_trackers():
    rows = board(heads=("nn", "linear"))
    figure = draw(rows)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["head nn", "head linear"]
    for axes, head in zip(figure.axes, ("nn", "linear"), strict=True):
        own = rows[rows["head"] == head]
        expected = [
            f"{100 * own[(own['attack'] == a) & (own['defense'] == d)]['asr'].mean():.1f}"
            for a in dict.fromkeys(own["attack"])
            for d in dict.fromkeys(own["defense"])
        ]
        assert texts(axes) == expected
    labels = [label.get_text().replace("\n", " ") for label in figure.axes[-1].get_xticklabels()]
    assert labels == ["none", "jpeg + puface"]


def test_a_pair_with_a_failed_cell_is_not_a_number():
    rows = board()
    rows.loc[(rows["attack"] == "fawkes") & (rows["backbone"] == "two"), "asr"] = np.nan
    rates = mean_rates(rows, ["none", "fawkes"], ["none", "jpeg + puface"])
    assert rates.loc["fawkes"].isna().all()
    assert rates.loc["none"].notna().all()
    assert texts(draw(rows).axes[0])[2:4] == ["NA", "NA"]


def test_white_box_and_black_box_are_not_averaged():
    rows = board()
    rows.loc[(rows["attack"] == "fawkes") & (rows["backbone"] == "two"), "access"] = "white-box"
    rates = mean_rates(rows, ["none", "fawkes"], ["none", "jpeg + puface"])
    assert rates.loc["fawkes"].isna().all()
    assert rates.loc["none"].notna().all()


def test_the_same_board_gives_the_same_bytes_and_several_conditions_are_refused(tmp_path):
    files = [tmp_path / name for name in ("a.svg", "b.svg")]
    for file in files:
        matrix_figure(board(), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(UsageError, match="one condition"):
        draw(board().assign(condition=["a", "b"] * 6))
