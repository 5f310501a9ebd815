"""Two folders of one run: what counts as a difference, and what does not."""

import pandas as pd
import pytest

from benchmarks import same_numbers


def run_folder(path, *, asr="0.5", reason="", correct=True, **renamed):
    (path / "decisions").mkdir(parents=True)
    row = {"attack": "a", "defense": "d", "backbone": "b", "head": "nn", "asr": asr, "normal_accuracy": "1.0"}
    pd.DataFrame([row | {"recovery": "", "reason": reason, "run": path.name} | renamed]).to_csv(
        path / "leaderboard.csv", index=False
    )
    pd.DataFrame({"correct": [correct]}).to_parquet(path / "decisions/cell.parquet")
    return path


@pytest.mark.parametrize(
    ("changed", "code"),
    [({}, 0), ({"reason": "said otherwise"}, 0), ({"asr": "0.6"}, 1), ({"correct": False}, 1)],
)
def test_numbers_and_decisions_count_and_texts_and_names_do_not(tmp_path, monkeypatch, capsys, changed, code):
    before = run_folder(tmp_path / "before", mdd="0.1")
    after = run_folder(tmp_path / "after", minimum_detectable_difference="0.1", **changed)
    monkeypatch.setattr("sys.argv", ["same_numbers", str(before), str(after), "--markdown"])
    assert same_numbers.main() == code
    printed = capsys.readouterr().out
    assert f"50.0 → {100 * float(changed.get('asr', '0.5')):.1f}" in printed
    assert ("reason" in printed) == ("reason" in changed)
