"""Entries fall: a stronger attack of another run raises a worst case, and maintainers' marks stand in the table."""

import json
from hashlib import sha256

import pandas as pd
import pytest

from bench.errors import DataError, UsageError
from bench.leaderboard.as_csv import to_csv
from bench.leaderboard.as_markdown import markdown
from bench.leaderboard.merge import CHECKS, merge, read_sources, read_submission
from bench.leaderboard.table import build
from bench.publish import submission

PLACE = ["defense", "backbone", "head"]


BLACK = '''
"""Posts a black photo."""
from bench.contracts import Attack, ThreatModel


class Black(Attack):
    name = "black"
    threat = ThreatModel(goal="untargeted", constraint="none")

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        return {name: 0 * image for name, image in zip(faces.ids, faces.images)}
'''


@pytest.fixture(scope="module")
def runs(evaluate, tmp_path_factory):
    """Return the folder of a run with a weak attack, of one with a strong one, and of one on fewer identities."""
    path = tmp_path_factory.mktemp("plugins") / "black.py"
    path.write_text(BLACK)
    black = f"{path}:Black"
    made = {"dataset": "tiny:identities=20", "defenses": ("jpeg:quality=20",), "heads": ("nn",)}
    return [
        evaluate(attacks=(attack,), **made, **more).folder
        for attack, more in (("tiny-noise", {}), (black, {}), (black, {"identities": 4}))
    ]


@pytest.fixture
def submit(tmp_path):
    """Return a function that writes a run as a submission, as `bench submit` does, and gives its record."""

    def write(folder, **more):
        facts, table = folder.facts(), to_csv(build(folder))
        (tmp_path / f"{facts.run}.csv").write_text(table)
        record = {
            "run": facts.run,
            "leaderboard_sha256": sha256(table.encode()).hexdigest(),
            "checks": dict.fromkeys(CHECKS, "fine"),
            "spec": facts.spec.model_dump(mode="json"),
            "fingerprint": facts.fingerprint,
            **more,
        }
        path = tmp_path / f"{facts.run}.json"
        path.write_text(json.dumps(record))
        return path

    return write


def worst(leaderboard, run):
    own = leaderboard[(leaderboard["run"] == run) & (leaderboard["defense"] != "none")]
    return own.set_index("attack")


def test_a_stronger_attack_lowers_the_entry_and_both_runs_are_named(runs, submit, tmp_path):
    weak, strong, _ = (folder.facts().run for folder in runs)
    submit(runs[0])
    alone = merge(read_sources([tmp_path])).leaderboard
    submit(runs[1], against=weak)
    both = merge(read_sources([tmp_path])).leaderboard
    theirs = worst(both, strong).iloc[0]
    before, after = (worst(table, weak).loc["tiny-noise"] for table in (alone, both))
    assert before["asr_worst"] < theirs["asr_worst"] == after["asr_worst"]
    assert "black" in after["worst_attack"].lower()
    assert after["worst_over"] < after["worst_of"]  # a bound: nobody knows the worst case over both attacks
    assert after["asr_worst_low"] == theirs["asr_worst_low"]
    assert after["asr_worst_reason"].startswith(f"at least: run {strong}, submitted against run {weak}")
    assert after["asr"] == before["asr"]
    assert after["footnote"] == f"its worst case is run {strong}'s in 2 rows"
    undefended = both[(both["run"] == weak) & (both["defense"] == "none")]
    assert "at least" not in " ".join(undefended["asr_worst_reason"])
    assert theirs["footnote"] == f"submitted against entry {weak}"
    assert f"Run {weak}: its worst case is run {strong}" in markdown(both)


def test_an_entry_keeps_its_rows_where_the_other_run_has_them_too(runs, submit, evaluate, tmp_path):
    attack = runs[1].facts().requested.attacks[0]
    whole = evaluate(
        dataset="tiny:identities=20",
        attacks=("tiny-noise", attack),
        defenses=("jpeg:quality=20",),
        heads=("nn",),
    ).folder
    weak = runs[0].facts().run
    submit(runs[0])
    alone = merge(read_sources([tmp_path])).leaderboard
    submit(whole, against=weak)
    for both in (merge(sources) for sources in (read_sources([tmp_path]), read_sources([tmp_path])[::-1])):
        table = both.leaderboard
        assert len(table[table["run"] == weak]) == len(alone)
        lowered = worst(table, weak).loc["tiny-noise"]
        # That run's worst case is over all attacks of both, so that it is none of a part of them.
        assert lowered["worst_over"] == lowered["worst_of"] == 2


def test_the_strongest_of_several_counts_and_a_table_keeps_its_footnotes(runs, submit, evaluate, tmp_path):
    weak, strong, _ = (folder.facts().run for folder in runs)
    middling = evaluate(
        dataset="tiny:identities=20",
        attacks=("tiny-identity-mean",),
        defenses=("jpeg:quality=20",),
        heads=("nn",),
    ).folder
    submit(runs[0])
    submit(runs[1], against=weak)
    submit(middling, against=weak)
    merged = merge(read_sources([tmp_path])).leaderboard
    assert set(merged.loc[merged["run"] == weak, "footnote"]) == {
        f"its worst case is run {strong}'s in 2 rows"
    }
    table = tmp_path / "elsewhere" / "all.csv"
    table.parent.mkdir()
    table.write_text(to_csv(merged))
    again = merge(read_sources([table])).leaderboard
    assert again["footnote"].tolist() == merged["footnote"].tolist()


def test_who_is_called_unreliable_lowers_nobody(runs, submit, tmp_path):
    weak, strong, _ = (folder.facts().run for folder in runs)
    submit(runs[0])
    alone = merge(read_sources([tmp_path])).leaderboard
    record = submit(runs[1], against=weak)
    submission.mark(record, {"unreliable": "its cloaks were made of the probes", "footnote": "see the issue"})
    both = merge(read_sources([tmp_path])).leaderboard
    pd.testing.assert_series_equal(worst(both, weak)["asr_worst"], worst(alone, weak)["asr_worst"])
    (said,) = set(worst(both, strong)["footnote"])
    assert said.startswith("unreliable: its cloaks were made of the probes; see the issue; submitted against")
    assert said.endswith("lowers nobody: it is called unreliable")
    submission.mark(record, {"unreliable": ""})
    assert "unreliable" not in json.loads(record.read_bytes())
    fallen = merge(read_sources([tmp_path])).leaderboard
    assert (worst(fallen, weak)["asr_worst"] >= worst(alone, weak)["asr_worst"]).all()


def test_other_identities_lower_nobody(runs, submit, tmp_path):
    weak, _, fewer = (folder.facts().run for folder in runs)
    submit(runs[0])
    alone = merge(read_sources([tmp_path])).leaderboard
    submit(runs[2], against=weak)
    both = merge(read_sources([tmp_path]), keep_both=True).leaderboard
    assert worst(both, weak)["asr_worst"].tolist() == worst(alone, weak)["asr_worst"].tolist()
    assert "lowers nobody: it is of other photos" in worst(both, fewer)["footnote"].iloc[0]


def test_an_entry_that_is_not_there_is_said(runs, submit, tmp_path):
    submit(runs[1], against="0123456789ab")
    alone = merge(read_sources([tmp_path])).leaderboard
    assert "lowers nobody: the entry is not in this table" in alone["footnote"].iloc[0]


def test_what_falls_is_told_before_submitting(runs, submit, tmp_path):
    weak, strong, fewer = runs
    entry = weak.facts().run
    submit(weak)
    (said, *_) = submission.falls(strong, entry, tmp_path)
    assert said.startswith("jpeg:quality=20 on tiny-a, nn: worst case ")
    assert "black" in said.lower()
    with pytest.raises(UsageError, match="has no entry 'nobody'; there are: "):
        submission.falls(strong, "nobody", tmp_path)
    with pytest.raises(UsageError, match=r"cannot be held against .* it is of other photos"):
        submission.falls(fewer, entry, tmp_path)
    submit(strong)
    with pytest.raises(UsageError, match=r"nothing falls\. Submit it without --against"):
        submission.falls(weak, strong.facts().run, tmp_path)


def test_marks_are_one_line(runs, submit):
    record = submit(runs[0])
    with pytest.raises(UsageError, match="takes one line of at most 1000 characters"):
        submission.mark(record, {"footnote": "two\nlines"})
    said = json.loads(record.read_bytes())
    record.write_text(json.dumps({**said, "footnote": "two\nlines"}))
    with pytest.raises(DataError, match="has a footnote that is no text of one line"):
        read_submission(record)


def test_the_command_marks_and_refuses_what_makes_a_submission(runs, submit, cli):
    record = submit(runs[0])
    code, out, err = cli("submit", record, "--footnote", "see the issue")
    assert (code, err, out) == (0, "", f"{record}: footnote is now 'see the issue'.\n")
    code, out, err = cli("submit", record, "--footnote", "", "--unreliable", "x", "--json")
    assert (code, json.loads(out)["unreliable"], err) == (0, "x", "")
    code, _, err = cli("submit", record, "--footnote", "x", "--by", "me")
    assert (code, "leave --by out" in err) == (2, True)
    code, _, err = cli("submit", record, "--check", record, "--unreliable", "x")
    assert (code, "leave --unreliable out" in err) == (2, True)


def test_two_versions_of_a_task_are_not_one_table(runs, submit, tmp_path):
    first, second = read_sources([folder.path for folder in runs[:2]])
    newer = type(second)(second.name, second.leaderboard.assign(task="tiny-tracker-v2"))
    with pytest.raises(
        UsageError, match=r"two versions of a task .* is of tiny-tracker-v1, .* of tiny-tracker-v2"
    ):
        merge([first, newer])
    older = type(second)(second.name, second.leaderboard.assign(task=""))
    assert set(merge([first, older]).leaderboard["task"]) == {"tiny-tracker-v1", ""}
