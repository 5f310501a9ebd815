"""The audit names every leak of runs that leak on purpose, marked or not."""

import csv
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.integrity import audit as audit_module
from bench.integrity.audit import audit, wrong_marks
from bench.quality.near_duplicates import stated_in
from bench.run.folder import RunFolder

LEAKY = Path(__file__).parents[1] / "plugins/leaky_methods.py"

WHITE_BOX = "pgd:steps=1,surrogates=tiny-a"
LEAKY_PURIFIER = "tiny-trained:attacks=pgd:steps=1,features=tiny-a,identities=leaky/evaluation"


@pytest.fixture(scope="module")
def leaky_run(evaluate):
    """A run whose attack and purifier know the tracker, whose purifier knows the identities."""
    prepared = evaluate(
        dataset=f"{LEAKY}:LeakyFaces",
        protocol=f"{LEAKY}:LeakyBackground",
        attacks=(WHITE_BOX,),
        defenses=(LEAKY_PURIFIER,),
    )
    return prepared.folder


@pytest.fixture
def unmarked(leaky_run, tmp_path):
    """Return a function that copies the run and takes marks from its rows."""

    def without(**marks):
        copy = RunFolder(shutil.copytree(leaky_run.path, tmp_path / "run"))
        cells = [
            cell.model_copy(update={"threat": cell.threat.model_copy(update=marks)}) for cell in copy.cells()
        ]
        copy.write_cells(cells)
        return copy

    return without


LEAKS = {
    "surrogate is the tracker": ("access", "black-box", 4),
    "defence trained with the tracker's features": ("extractor_is_tracker", False, 4),
    "evaluated identities among the defence's training identities": ("identity_overlap", "unknown", 2),
    "thresholds calibrated on evaluated identities": ("impostor_overlap", "no", 4),
    "surrogates and extractors overlap": ("extractors_are_surrogates", False, 1),
    "surrogate or extractor of the tracker's family": ("related", False, 3),
    "defence trained on this attack": ("attack_seen_by_defense", "unseen", 1),
}


def test_every_leak_is_found_and_marked(leaky_run):
    found = audit(leaky_run, images=False)
    kinds = {finding.kind for finding in found.findings}
    assert kinds == set(LEAKS)
    assert all(finding.marked for finding in found.findings)
    assert found.unmarked == ()
    evidence = " ".join(finding.evidence for finding in found.findings)
    for said in (
        "surrogate tiny-a has the tracker's name",
        "extractor tiny-a has the tracker's name",
        "8 of 8 evaluated identities are among 'leaky/evaluation'",
        "1 of 2 identities behind thresholds and distractors are evaluated, e.g. synthetic-eval-0007",
    ):
        assert said in evidence


@pytest.mark.parametrize(("kind", "mark"), LEAKS.items())
def test_each_leak_is_named_where_no_row_speaks_of_it(unmarked, kind, mark):
    column, value, _ = mark
    found = audit(unmarked(**{column: value}), images=False)
    assert {finding.kind for finding in found.unmarked} == {kind}
    for finding in found.unmarked:
        assert finding.column.startswith(column)
        assert finding.cells
    assert {finding.kind for finding in found.findings} == set(LEAKS)


SEEN = "attack_seen_by_defense"


def seen_with_other_parameters(monkeypatch):
    """Let the purifier say now that it was trained on the attack with other parameters."""
    of = audit_module.Threats.of

    def weaker(self, cell):
        found = of(self, cell)
        seen = getattr(found, SEEN) == "seen"
        return found.model_copy(update={SEEN: "seen-with-other-parameters"}) if seen else found

    monkeypatch.setattr(audit_module.Threats, "of", weaker)


def test_a_stronger_caution_than_what_is_found_marks_a_leak(leaky_run, unmarked, monkeypatch):
    seen_with_other_parameters(monkeypatch)
    found = next(f for f in audit(leaky_run, images=False).findings if SEEN in f.column)
    assert found.marked
    weaker = next(f for f in audit(unmarked(**{SEEN: "unseen"}), images=False).findings if SEEN in f.column)
    assert not weaker.marked


def test_code_that_is_another_now_is_not_compared(unmarked):
    copy = unmarked(**{SEEN: "unseen"})

    def other_code(spec):
        for method in spec["methods"]:
            method["source"] = "0" * 64

    edit(copy.path / "spec.json", other_code)
    found = audit(copy, images=False)
    assert not any(SEEN in finding.column for finding in found.findings)
    (missed,) = (one for one in found.unchecked if "saw" in one.what)
    assert missed.reason.startswith(
        "it cannot be compared: their code is another now; it is seen-with-other-parameters now, and the row"
    )


@pytest.mark.parametrize(
    ("mark", "said", "now", "right"),
    [
        (SEEN, "seen", "seen-with-other-parameters", True),
        (SEEN, "seen-with-other-parameters", "seen", False),
        (SEEN, "seen", "unseen", False),
        ("identity_overlap", "yes", "unknown", True),
        ("identity_overlap", "unknown", "no", True),
        ("identity_overlap", "no", "unknown", False),
        ("access", "white-box", "black-box", False),
        ("identity_overlap_detail", "one", "two", True),
    ],
)
def test_a_mark_is_what_is_found_or_a_stronger_caution(leaky_run, mark, said, now, right):
    threat = leaky_run.cells()[0].threat
    found = wrong_marks(threat.model_copy(update={mark: said}), threat.model_copy(update={mark: now}))
    assert found == ([] if right else [f"{mark} is {said!r}, found is {now!r}"])


def test_a_leak_names_the_cells_it_concerns(leaky_run):
    found = {f.kind: f for f in audit(leaky_run, images=False).findings}
    both = f"{WHITE_BOX} × {LEAKY_PURIFIER} × tiny-a × nn × seed 0"
    assert found["defence trained on this attack"].cells == (both,)
    identities = found["evaluated identities among the defence's training identities"].cells
    assert set(identities) == {both, f"none × {LEAKY_PURIFIER} × tiny-a × nn × seed 0"}


def test_a_row_that_claims_what_nobody_can_tell(evaluate, copy_of):
    folder = copy_of(evaluate(defenses=("tiny-trained:identities=unknown",)).folder)
    found = audit(folder, images=False)
    assert found.unmarked == ()
    (missed,) = (missed for missed in found.unchecked if "identities" in missed.what)
    assert missed.what == "identities that trained defence tiny-trained:identities=unknown"
    cells = folder.cells()
    claim = {"identity_overlap": "no"}
    folder.write_cells(
        [cell.model_copy(update={"threat": cell.threat.model_copy(update=claim)}) for cell in cells]
    )
    (finding,) = audit(folder, images=False).unmarked
    assert "where it is unknown" in finding.kind
    assert finding.cells == ("none × tiny-trained:identities=unknown × tiny-a × nn × seed 0",)


def test_a_renamed_copy_of_the_surrogate_is_found_by_its_weights(evaluate):
    prepared = evaluate(
        attacks=("pgd:steps=1,surrogates=synthetic-mobilefacenet",),
        backbones=(f"{LEAKY}:RenamedCopy",),
        dataset="tiny:identities=2,photos=4",
    )
    found = {finding.kind: finding for finding in audit(prepared.folder, images=False).findings}
    finding = found["surrogate is the tracker"]
    assert finding.marked
    sha256 = prepared.run.backbones["renamed-copy"].card.sha256
    assert f"has the weights of tracker renamed-copy, SHA-256 {sha256[:16]}…" in finding.evidence


@pytest.mark.parametrize(
    ("cls", "twins", "kind", "pairs", "marked"),
    [
        ("LeakyFaces", "identity", "near-duplicates between gallery and probes", 8 * 2 * 4, False),
        ("KnownLeakyFaces", "identity", "near-duplicates between gallery and probes", 8 * 2 * 4, True),
        (
            "LeakyFaces",
            "identities",
            "near-duplicates between evaluated identities and those of training",
            1,
            False,
        ),
    ],
)
def test_photos_that_are_there_twice(evaluate, cls, twins, kind, pairs, marked):
    folder = evaluate(dataset=f"{LEAKY}:{cls}:twins={twins}").folder
    totals, counted = {}, []

    @contextmanager
    def counting(what, total):
        totals[what] = total
        before = sum(counted)
        yield counted.append
        assert sum(counted) - before == total

    found = audit(folder, all_images=True, counting=counting)
    (finding,) = (finding for finding in found.findings if finding.kind.startswith(kind))
    assert (finding.severity, finding.marked) == ("leak", marked)
    named = finding.evidence.count(" and synthetic-")
    more = int(finding.evidence.rpartition("; and ")[2].split()[0]) if "more pairs" in finding.evidence else 0
    assert named + more == pairs
    # The tracker was trained on identities of another dataset, whose photos are looked at too.
    assert totals == {"photos": 8 * 6 + 2 * 2, "photos of tiny": 4 * 2}
    if twins == "identities":
        assert "synthetic-eval-0007/02 and synthetic-train-0000/00 (0 bits, 1.000)" in finding.evidence
        assert finding.evidence.startswith("1 of 48 photos of evaluated identities (2.08 %)")


def test_few_duplicates_are_a_notice(evaluate, monkeypatch):
    folder = evaluate(dataset=f"{LEAKY}:LeakyFaces:twins=identities").folder
    monkeypatch.setattr("bench.integrity.audit.SAME_PHOTO_SHARE", 0.03)
    found = audit(folder, all_images=True)
    assert [finding.severity for finding in found.findings] == ["notice"]
    assert found.unmarked == ()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"attacks": ("tiny-learning",)},
        {"attacks": ("tiny-imitating",)},
        {"protocol": "verification:impostors=2", "attacks": ("tiny-imitating",)},
    ],
)
def test_the_photos_that_are_read_are_those_the_run_read(evaluate, fields):
    run = evaluate(dataset=f"{LEAKY}:LeakyFaces:training_identities=9", identities=4, **fields)
    read = {photo for node in run.artefacts if node.stage == "faces" for photo in node.ids}
    totals = {}

    @contextmanager
    def counting(what, total):
        totals[what] = total
        yield lambda _n: None

    found = audit(run.folder, counting=counting)
    assert totals["photos"] == len(read)
    used = len(read) - 4 * 6
    left = (
        f"; {18 - used} more of these, which no stage of the run read, were not looked at"
        if used < 18
        else ""
    )
    assert found.photos == f"24 photos of 4 evaluated identities, and {used} of training identities{left}"


def test_photos_that_differ_are_no_duplicates(evaluate):
    assert audit(evaluate(dataset=f"{LEAKY}:LeakyFaces").folder).findings == ()


def test_without_the_plugins_the_names_in_the_rows_are_still_compared(unmarked):
    folder = unmarked(access="black-box")
    spec = json.loads((folder.path / "spec.json").read_text())
    spec["requested"]["dataset"] = "gone.py:Gone"
    (folder.path / "spec.json").write_text(json.dumps(spec))
    found = audit(folder)
    assert {finding.kind for finding in found.findings} == {
        "surrogate is the tracker",
        "defence trained with the tracker's features",
    }
    assert [finding.kind for finding in found.unmarked] == ["surrogate is the tracker"]
    (missed,) = found.unchecked
    assert missed.what == "weights, training identities and photos"
    assert "'gone.py' is not a file" in missed.reason
    assert found.blind == (missed,)


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture
def copied(leaky_run, tmp_path):
    return RunFolder(shutil.copytree(leaky_run.path, tmp_path / "copied"))


def test_finding_nothing_is_no_success_where_nothing_could_be_looked_up(cli, copied):
    edit(copied.path / "spec.json", lambda spec: spec["requested"].update(dataset="gone.py:Gone"))
    code, out, _ = cli("audit", copied.path)
    assert code == 2
    assert out.splitlines()[-1].startswith("NOT AUDITED: weights, training identities and photos. ")


def test_other_photos_are_not_compared(cli, copied):
    edit(copied.path / "spec.json", lambda spec: spec.update(fingerprint="0" * 64))
    found = audit(copied)
    kinds = {finding.kind for finding in found.findings}
    assert kinds == set(LEAKS) - {
        "evaluated identities among the defence's training identities",
        "thresholds calibrated on evaluated identities",
    }
    (missed,) = found.blind
    assert missed.what == "training identities and photos"
    assert missed.reason.startswith("the photos here are not the run's: their fingerprint is ")
    assert missed.reason.endswith("it was 0000000000000000…")
    assert cli("audit", copied.path)[0] == 2


def test_another_split_is_not_compared(copied):
    edit(copied.path / "splits.json", lambda split: split["probes"].update(nobody=["nobody/00"]))
    (missed,) = audit(copied).blind
    assert missed.reason == "splits.json is not what the protocol gives"


def test_a_cell_that_the_run_cannot_have_is_not_checked(cli, copied):
    edit(copied.path / "cells.json", lambda cells: cells[0].update(defense="other"))
    found = audit(copied, images=False)
    reasons = {missed.what: missed.reason for missed in found.unchecked}
    assert reasons["none × other × tiny-a × nn × seed 0"].startswith(
        "cells.json has it, and it is no cell of"
    )
    assert reasons["none × none × tiny-a × nn × seed 0"] == "cells.json lacks this cell of the run"
    assert {finding.kind for finding in found.findings} == set(LEAKS)
    assert cli("audit", copied.path, "--no-images")[0] == 0
    edit(copied.path / "cells.json", lambda cells: [cell.update(defense="other") for cell in cells])
    assert audit(copied, images=False).blind[0].reason == "cells.json has no cell of the run"


def test_methods_that_changed_since_are_named(copied):
    def change(spec):
        attack = next(method for method in spec["methods"] if method["kind"] == "attacks")
        attack["source"] = "0" * 64
        attack["files"] = [["weights.pt", "1" * 64]]

    edit(copied.path / "spec.json", change)
    reasons = {missed.what: missed.reason for missed in audit(copied, images=False).unchecked}
    assert reasons[f"{WHITE_BOX} as it was in the run"].startswith("its code is another now")
    assert "now it is absent" in reasons[f"files of {WHITE_BOX} as they were in the run"]


@pytest.mark.parametrize(
    ("note", "stated"),
    [
        ("", 0),
        ("no duplicates", 0),
        ("holds no near-duplicate photos", 0),
        ("removed 64 near-duplicate photos", 0),
        ("no longer holds 64 near-duplicate photos", 0),
        ("holds 64 near-duplicate photos", 64),
        ("rendered faces; holds 7 near-duplicate photos.", 7),
    ],
)
def test_a_note_marks_duplicates_only_by_their_number(note, stated):
    assert stated_in(note) == stated


def test_the_note_that_counts_is_the_run_s(evaluate, copy_of):
    folder = copy_of(evaluate(dataset=f"{LEAKY}:KnownLeakyFaces:twins=identity").folder)
    for note, marked in (("", False), ("holds 2 near-duplicate photos", False), (None, True)):
        if note is not None:
            kept = (folder.path / "spec.json").read_bytes()
            edit(folder.path / "spec.json", lambda spec, note=note: spec.update(dataset_note=note))
        (finding,) = (
            one for one in audit(folder).findings if one.kind.startswith("near-duplicates between g")
        )
        assert finding.marked == marked
        (folder.path / "spec.json").write_bytes(kept)


def test_the_command_says_what_is_marked_and_leaves_with_the_answer(cli, leaky_run, unmarked, tmp_path):
    code, out, err = cli("audit", leaky_run.path, "--no-images")
    assert (code, err) == (0, "")
    assert "marked: surrogate is the tracker" in out
    assert "not checked: near-duplicate photos\n    left out by --no-images" in out
    assert out.splitlines()[-1].endswith("0 of them unmarked; 0 notices; 2 things not checked.")

    folder = unmarked(extractor_is_tracker=False)
    code, out, _ = cli("audit", folder.path, "--no-images", "--csv", tmp_path / "found.csv")
    assert code == 1
    assert out.startswith("UNMARKED: defence trained with the tracker's features\n")
    assert "would be marked by extractor_is_tracker = True" in out
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["status"] == "UNMARKED"
    assert {row["status"] for row in rows} == {"UNMARKED", "marked", "not checked"}

    code, out, err = cli("audit", folder.path, "--no-images", "--json")
    document = json.loads(out)
    assert (code, err, document["unmarked"]) == (1, "", 1)
    assert {finding["kind"] for finding in document["findings"]} == set(LEAKS)


def test_a_folder_that_is_no_run(cli, tmp_path):
    code, out, err = cli("audit", tmp_path)
    assert (code, out) == (2, "")
    assert "is not a finished run" in err
