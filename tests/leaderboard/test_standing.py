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


@pytest.fixture(scope="module")
def runs(evaluate):
    """Return the folder of a run with a weak attack, of one with a strong one, and of one on fewer identities."""
    made = {"defenses": ("jpeg:quality=20",), "heads": ("nn",)}
    return [
        evaluate(attacks=(attack,), **made, **more).folder
        for attack, more in (
            ("tiny-noise", {}),
            ("tiny-identity-mean", {}),
            ("tiny-identity-mean", {"identities": 4}),
        )
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
    theirs = worst(both, strong).loc["tiny-identity-mean"]
    before, after = (worst(table, weak).loc["tiny-noise"] for table in (alone, both))
    assert before["asr_worst"] < theirs["asr_worst"] == after["asr_worst"]
    assert after["worst_attack"] == "tiny-identity-mean"
    assert after["asr_worst_low"] == theirs["asr_worst_low"]
    assert after["asr_worst_reason"].startswith(f"at least: run {strong}, submitted against run {weak}")
    assert after["asr"] == before["asr"]
    assert after["footnote"].startswith(f"its worst case is run {strong}'s in ")
    assert theirs["footnote"] == f"submitted against entry {weak}"
    assert f"Run {weak}: its worst case is run {strong}" in markdown(both)


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
    assert said.endswith("lowers nobody, as it is called unreliable")
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
    assert "entry 0123456789ab is not in this table" in alone["footnote"].iloc[0]


def test_what_falls_is_told_before_submitting(runs, submit, tmp_path):
    weak, strong, fewer = runs
    entry = weak.facts().run
    submit(weak)
    (said, *_) = submission.falls(strong, entry, tmp_path)
    assert said.startswith("jpeg:quality=20 on tiny-a, nn: worst case ")
    assert said.endswith("by tiny-identity-mean")
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
    assert (code, "--by makes one" in err) == (2, True)


def test_two_versions_of_a_task_are_not_one_table(runs, submit, tmp_path):
    first, second = read_sources([folder.path for folder in runs[:2]])
    newer = type(second)(second.name, second.leaderboard.assign(task="tiny-tracker-v2"))
    with pytest.raises(
        UsageError, match=r"two versions of a task .* is of tiny-tracker-v1, .* of tiny-tracker-v2"
    ):
        merge([first, newer])
    older = type(second)(second.name, second.leaderboard.assign(task=""))
    assert set(merge([first, older]).leaderboard["task"]) == {"tiny-tracker-v1", ""}
