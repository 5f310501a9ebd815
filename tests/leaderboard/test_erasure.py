"""The erasure table: by hand, against a plain loop over a whole run, and from the command line."""

import json
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from bench.analysis.results import Results
from bench.cli.table import learnt_from
from bench.contracts import ConditionFacts, Decided
from bench.errors import UsageError
from bench.leaderboard import erasure
from bench.leaderboard.erasure import COLUMNS, KEYS, NOBODY_PROTECTED, table
from bench.quality import per_image
from bench.run.folder import CellResult, RunFacts, RunFolder
from bench.run.spec import Cell, RunSpec
from bench.run.threat import CellThreat
from bench.stats.intervals import rate_interval

PATTERN = f"{Path(__file__).parents[1] / 'plugins' / 'erasable.py'}:KeyedPattern"
PAGE = Path(__file__).parents[2] / "docs" / "protocols" / "erasure.md"
THREAT = CellThreat(
    surrogates="", extractors="", access="", related=False, extractors_are_surrogates=False,
    attack_seen_by_defense="not-trained", attack_adapts_to_defense=False, identity_overlap="no",
)  # fmt: skip

# identity → pair → accepted: natural, posted, right key, wrong key, no key, behind the purifier
STORY = {
    "a": {"a0": (1, 0, 1, 0, 0, 1), "a1": (1, 0, 1, 0, 0, 0), "a2": (1, 1, 1, 1, 1, 1)},
    "b": {"b0": (1, 0, 0, 1, 0, 0), "b1": (0, 0, 1, 1, 1, 1)},
    "c": {"c0": (0, 0, 1, 1, 1, 1)},
}
PLACES = {"cloaked": 1, "right key": 2, "wrong key": 3, "no key": 4}


def decisions_of(story, places, conditions=None):
    """Build a cell's rows; the natural answers are those of the story under every condition."""
    rows = [
        {
            "condition": condition, "fold": fold, "identity": identity, "image": f"{identity}-probe",
            "reference": pair, "protected": fold == 0, "correct": bool(results[place if fold == 0 else 0]),
            "score": 0.5,
        }
        for condition, place in places.items()
        for identity, pairs in story.items()
        for pair, results in pairs.items()
        for fold in (0, 1)
    ]  # fmt: skip
    facts = dict.fromkeys(places, ConditionFacts(threshold=0.5)) if conditions is None else conditions
    return Decided(pd.DataFrame(rows), facts)


def measured(tmp_path, name, psnr):
    rows = pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(len(psnr))], "psnr": psnr, "ssim": 0.5, "dssim": 0.25, "linf": 3.0,
            "lpips": 0.1, "changed": [value != float("inf") for value in psnr],
        }
    )  # fmt: skip
    (tmp_path / name).write_bytes(per_image.to_bytes(rows[list(per_image.COLUMNS)]))
    return name


def results_of(tmp_path, cells, protocol="erasure"):
    """Build the answers of a run from {(attack, defence, seed): (decisions, fields of the cell)}."""
    spec = RunSpec(
        protocol=protocol, attacks=("mask",), defenses=("none", "wash", "blur"), backbones=("net",)
    )
    results, read = {}, {}
    for (attack, defense, seed), (decided, fields) in cells.items():
        point = Cell(attack, defense, "net", "pair", seed)
        status = "ok" if decided is not None else "failed"
        results[point] = CellResult(
            **point._asdict(),
            requested=True,
            status=status,
            decisions="d" if decided else "",
            **{"threat": THREAT} | fields,
        )
        if decided is not None:
            read[point] = decided
    return Results(RunFolder(tmp_path), RunFacts(run="r", requested=spec, spec=spec), results, read)


@pytest.fixture
def run(tmp_path):
    def made(story=STORY, **fields):
        plain = decisions_of(story, PLACES)
        washed = decisions_of(story, {**PLACES, "cloaked": 5})
        return results_of(
            tmp_path,
            {
                ("none", "none", 0): (plain, {}),
                ("mask", "none", 0): (plain, fields),
                ("mask", "wash", 0): (washed, {}),
            },
        )

    return made


def test_shares_of_protected_pairs_by_hand(run):
    found = table(run()).set_index("eraser")
    assert list(found.index) == [*KEYS, "wash"]
    assert list(found["kind"]) == ["key", "key", "key", "defence"]
    assert set(found["n_identities"]) == {3}
    assert set(found["n_pairs"]) == {6}
    assert found["recognised"].iloc[0] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["protected"].iloc[0] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert set(found["protected_pairs"]) == {3}
    assert set(found["protected_identities"]) == {2}
    # Of a's pairs a0 and a1 count and of b's b0 alone: what was never recognised, or never hidden, does not.
    assert found["undone"].to_dict() == pytest.approx(
        {"right key": (1 + 0) / 2, "wrong key": (0 + 1) / 2, "no key": 0.0, "wash": (0.5 + 0) / 2}
    )
    assert (found["undone_low"] <= found["undone"]).all()
    assert (found["undone"] <= found["undone_high"]).all()
    exact = rate_interval([0.0, 0.0], 3)  # nobody differs: the bootstrap has nothing to say
    assert found.loc["no key", ["undone_low", "undone_high"]].tolist() == [exact.low, exact.high]


def test_a_photo_that_a_defence_dropped_is_not_undone(tmp_path):
    everyone = {identity: dict.fromkeys(pairs, (1, 0, 1, 1, 1, 1)) for identity, pairs in STORY.items()}
    dropped = {**everyone, "a": {"a0": (1, 0, 1, 1, 1, 1)}}
    washed = decisions_of(dropped, {**PLACES, "cloaked": 5})
    washed.rows.loc[washed.rows["identity"] == "c", "reference"] = None
    cells = {
        ("mask", "none", 0): (decisions_of(everyone, PLACES), {}),
        ("mask", "wash", 0): (washed, {}),
    }
    found = table(results_of(tmp_path, cells)).set_index("eraser")
    assert found.loc["wash", "undone"] == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert found.loc["no key", "undone"] == 1


def test_where_nobody_is_protected_there_is_no_share_but_a_reason(run):
    found = table(run({identity: dict.fromkeys(pairs, (1,) * 6) for identity, pairs in STORY.items()}))
    assert found["undone"].isna().all()
    assert set(found["undone_reason"]) == {NOBODY_PROTECTED}
    assert set(found["protected"]) == {0.0}
    assert found["protected_high"].iloc[0] > 0
    assert set(found["protected_pairs"]) == {0}


def test_a_failed_cell_and_a_condition_without_threshold_say_why(tmp_path):
    few = ConditionFacts(reason="too few impostors")
    lacking = decisions_of(
        STORY, {"cloaked": 1, "right key": 2}, {"cloaked": ConditionFacts(), "right key": few}
    )
    lacking = Decided(lacking.rows[lacking.rows["condition"] == "cloaked"], lacking.conditions)
    cells = {
        ("mask", "none", 0): (lacking, {}),
        ("mask", "wash", 0): (None, {"reason": "wash exploded"}),
    }
    found = table(results_of(tmp_path, cells)).set_index("eraser")
    assert found.loc["right key", "undone_reason"] == "too few impostors"
    assert found.loc["wash", "undone_reason"] == "wash exploded"
    assert found["undone"].isna().all()
    assert found["protected"].notna().all()
    failed = {("mask", "none", 0): (None, {"reason": "mask exploded"})}
    found = table(results_of(tmp_path, failed))
    assert set(found["protected_reason"]) == set(found["undone_reason"]) == {"mask exploded"}


def test_pairs_count_once_a_seed(tmp_path):
    other = {identity: dict.fromkeys(pairs, (1, 0, 0, 0, 0, 0)) for identity, pairs in STORY.items()}
    cells = {
        ("mask", "none", seed): (decisions_of(story, PLACES), {}) for seed, story in enumerate((STORY, other))
    }
    cells["mask", "wash", 0] = (decisions_of(STORY, {**PLACES, "cloaked": 5}), {})
    found = table(results_of(tmp_path, cells)).set_index("eraser")
    assert set(found["n_pairs"]) == {12}
    assert found.loc["right key", "undone"] == pytest.approx((2 / 5 + 0 / 3 + 0) / 3)
    assert found.loc["wash", "undone_reason"] == "the defence was not run with every seed"


def test_every_eraser_has_the_marks_of_its_own_cells(tmp_path):
    def threat(**marks):
        return {"threat": THREAT.model_copy(update={"surrogates": "x|y", "access": "black-box"} | marks)}

    washed = decisions_of(STORY, {**PLACES, "cloaked": 5})
    cells = {
        ("mask", "none", 0): (decisions_of(STORY, PLACES), threat()),
        ("mask", "none", 1): (decisions_of(STORY, PLACES), threat()),
        ("mask", "wash", 0): (washed, threat(attack_seen_by_defense="seen", extractors="e")),
        ("mask", "wash", 1): (
            washed,
            threat(
                attack_seen_by_defense="seen",
                extractors="e|f",
                extractor_is_tracker=True,
                identity_overlap="yes",
            ),
        ),
        ("mask", "blur", 0): (washed, threat(identity_overlap="unknown")),
        ("mask", "blur", 1): (washed, threat()),
    }
    found = table(results_of(tmp_path, cells)).set_index("eraser")
    marks = ["attack_seen_by_defense", "extractors", "extractor_is_tracker", "identity_overlap"]
    assert {name: tuple(found.loc[name, marks]) for name in found.index} == {
        **dict.fromkeys(KEYS, ("", "", False, "no")),
        "wash": ("seen", "e|f", True, "yes"),
        "blur": ("not-trained", "", False, "unknown"),
    }
    assert set(found["surrogates"]) == {"x|y"}
    assert set(found["access"]) == {"black-box"}
    told = {row["eraser"]: learnt_from(row) for row in found.reset_index().to_dict("records")}
    assert told == {
        **dict.fromkeys(KEYS, ""),
        "wash": "this attack; e|f (the tracker's); evaluated identities",
        "blur": "identities unknown",
    }


def test_image_measures_are_means_over_what_differs(run, tmp_path):
    made = run(
        cloak_measures=measured(tmp_path, "cloak", [30.0, 34.0]),
        restored_measures={"right key": measured(tmp_path, "right", [40.0, float("inf")])},
        restored_to_cloak_measures={
            "right key": measured(tmp_path, "right-cloak", [31.0, 33.0]),
            "no key": measured(tmp_path, "no-cloak", [float("inf")] * 2),
        },
    )
    found = table(made).set_index("eraser")
    assert set(found["cloak_psnr"]) == {32.0}
    assert found.loc["right key", ["psnr", "to_cloak_psnr", "to_cloak_unchanged"]].tolist() == [
        40.0,
        32.0,
        0.0,
    ]
    assert found.loc["right key", "psnr_reason"] == ""
    assert pd.isna(found.loc["no key", "to_cloak_psnr"])
    assert found.loc["no key", "to_cloak_unchanged"] == 1
    assert "to_cloak_psnr: no image was changed" in found.loc["no key", "psnr_reason"]
    assert "psnr: not measured" in found.loc["wrong key", "psnr_reason"]


def test_another_protocol_and_a_run_without_attack_are_refused(tmp_path):
    cell = (decisions_of(STORY, PLACES), {})
    with pytest.raises(
        UsageError, match=r"run of protocol verification:far=0\.1, and this table is of protocol erasure"
    ):
        table(results_of(tmp_path, {("mask", "none", 0): cell}, "verification:far=0.1"))
    with pytest.raises(UsageError, match="no attack but none"):
        table(results_of(tmp_path, {("none", "none", 0): cell}))


# --- a whole run --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(evaluate):
    return evaluate(
        dataset="tiny:training_identities=160,training_photos=1", attacks=(PATTERN,), heads=("pair",),
        protocol="erasure:far=0.05", defenses=("median", "tiny-negative"), seeds=(0, 1),
    ).folder  # fmt: skip


def looped(folder):
    """Count protected pairs and those that come back, pair by pair."""
    told = defaultdict(dict)
    for cell in folder.cells():
        if cell.attack == "none":
            continue
        for row in pd.read_parquet(folder.path / cell.decisions).to_dict("records"):
            pair = (cell.seed, row["identity"], row["image"], row["reference"])
            who = "natural" if not row["protected"] else row["condition"]
            if cell.defense != "none":
                if row["protected"] and row["condition"] == "cloaked":
                    told[pair][cell.defense] = row["correct"]
            elif who != "natural" or row["condition"] == "cloaked":
                told[pair][who] = row["correct"]
    protected = {pair: one for pair, one in told.items() if one["natural"] and not one["cloaked"]}
    shares = {}
    for eraser in (*KEYS, "median", "tiny-negative"):
        identities = defaultdict(list)
        for pair, one in protected.items():
            identities[pair[1]].append(one[eraser])
        shares[eraser] = sum(sum(hits) / len(hits) for hits in identities.values()) / len(identities)
    return len(told), len(protected), shares


def test_a_run_gives_what_a_loop_over_its_decisions_gives(finished):
    pairs, protected, shares = looped(finished)
    found = table(Results.of(finished)).set_index("eraser")
    assert protected > 10
    assert set(found["n_pairs"]) == {pairs}
    assert set(found["protected_pairs"]) == {protected}
    assert found["undone"].to_dict() == pytest.approx(shares)
    assert found.loc["right key", "undone"] > found.loc["no key", "undone"] == 0
    assert found.loc["right key", "psnr"] > found.loc["median", "psnr"]
    assert found.loc["no key", "to_cloak_unchanged"] == 1


def test_the_command_prints_and_writes_the_table(finished, cli, tmp_path):
    code, out, err = cli("table", "erasure", finished.path, "--csv", tmp_path / "t.csv")
    assert (code, err) == (0, "")
    assert "keyed-pattern on tiny-a" in out
    for text in ("right key", "median", "unchanged", "identities are protected"):
        assert text in out
    written = pd.read_csv(tmp_path / "t.csv")
    assert list(written.columns) == list(COLUMNS)
    code, out, _ = cli("table", "erasure", finished.path, "--json")
    assert [row["eraser"] for row in json.loads(out)] == list(written["eraser"])
    code, out, _ = cli("table", "erasure", finished.path, "--columns")
    assert [line.split()[0] for line in out.splitlines()] == list(COLUMNS)
    assert cli("table", "erasure", tmp_path)[0] == 2


def test_the_page_documents_every_column():
    text = PAGE.read_text(encoding="utf-8")
    for name, meaning in erasure.COLUMNS.items():
        assert f"| `{name}` | {meaning} |" in text
    assert "one right and one wrong key a seed" in text
