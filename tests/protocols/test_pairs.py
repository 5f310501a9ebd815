"""Pairs: who imitates whom, by the draw and by a file, and through the whole pipeline."""

from collections import Counter

import pytest

from bench.contracts import Binding, Identity
from bench.errors import DataError, UsageError
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.protocols.pairs import PairsProtocol

TARGETED = '''
"""Posts a photo of whoever it is to imitate, and says in the shade of its corner of how many it could choose."""
from bench.contracts import Attack, ThreatModel


class Targeted(Attack):
    name = "targeted"
    threat = ThreatModel(goal="targeted", needs_targets=True)

    def assign_targets(self, faces, ctx):
        return dict.fromkeys(faces.ids, ctx.targets.identities[0])

    def cloak(self, faces, ctx):
        assert len(set(ctx.targets.identities)) == 1, "the protocol says whom"
        ctx.advance(len(faces))
        return dict.fromkeys(faces.ids, ctx.targets.images[0])
'''


def pairs(**params):
    return PairsProtocol(PairsProtocol.Params(**params))


def identities(n, prefix="p"):
    return [
        Identity(f"{prefix}{i:02d}", tuple(f"{prefix}{i:02d}-{k}" for k in range(4)), "evaluation")
        for i in range(n)
    ]


POOL = tuple(f"t{i:02d}" for i in range(50))


def test_one_photo_of_everyone_is_cloaked():
    split = pairs().split(identities(8), 0)
    assert {len(photos) for photos in split.gallery.values()} == {1}
    assert split.cloaked == split.gallery


@pytest.mark.parametrize(("people", "targets"), [(158, 4), (9, 4), (5, 20)])
def test_targets_are_drawn_from_the_pool_and_imitated_evenly(people, targets):
    protocol = pairs(targets=targets)
    split = protocol.split(identities(people), 0)
    given = protocol.given_targets(split, {}, POOL, 0)
    counts = Counter(given.values())
    assert set(given) == set(split.gallery)
    assert set(counts) <= set(POOL)
    assert len(counts) == min(people, targets)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert protocol.given_targets(split, {}, POOL, 0) == given
    assert protocol.given_targets(split, {}, POOL, 1) != given


def test_more_targets_than_the_usual_pool_are_drawn_where_there_are_some():
    protocol = pairs(targets=60)
    given = protocol.given_targets(
        protocol.split(identities(90), 0), {}, [f"t{i:03d}" for i in range(200)], 0
    )
    assert len(set(given.values())) == 60


def test_the_draw_does_not_follow_the_names():
    protocol = pairs(targets=2)
    given = protocol.given_targets(protocol.split(identities(40), 0), {}, POOL, 0)
    in_order = [given[name] for name in sorted(given)]
    assert in_order[::2] != in_order[:1] * 20


def test_too_small_a_pool_is_refused():
    protocol = pairs(targets=51)
    with pytest.raises(UsageError, match=r"targets=51 needs so many .* there are 50\. Lower targets"):
        protocol.given_targets(protocol.split(identities(4), 0), {}, POOL, 0)


def test_a_file_says_who_imitates_whom(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("identity,target\np00,t07\np01,t07\np02,t99\nelse,t01\n")
    protocol = factory.protocol(f"pairs:given={path}")
    assert protocol.files(Binding("tiny", "real", (), "a")) == (path,)
    given = protocol.given_targets(protocol.split(identities(3), 0), {}, POOL, 0)
    assert given == {"p00": "t07", "p01": "t07", "p02": "t99"}
    with pytest.raises(UsageError, match="names no target of 2 of 5 evaluated identities, first 'p03'"):
        protocol.given_targets(protocol.split(identities(5), 0), {}, POOL, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begin with nothing; the first line is identity,target"),
        ("identity,group\na,b\n", "begin with identity, group"),
        ("identity,target\na\n", "line 2"),
        ("identity,target\na,b\na,c\n", "'a' is in 'b' and 'c'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, said):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    protocol = pairs(given=str(path))
    with pytest.raises(DataError, match=said):
        protocol.given_targets(protocol.split(identities(3), 0), {}, POOL, 0)


def run(evaluate, tmp_path, protocol):
    if not (tmp_path / "targeted.py").exists():
        (tmp_path / "targeted.py").write_text(TARGETED)
    return evaluate(
        dataset="tiny:training_identities=150",
        protocol=f"pairs:far=0.2,impostors=150{protocol}",
        attacks=(f"{tmp_path / 'targeted.py'}:Targeted", "tiny-noise"),
        defenses=("jpeg",),
        heads=("pair",),
    )


def test_a_run_gives_each_attack_the_one_target(evaluate, tmp_path):
    prepared = run(evaluate, tmp_path, ",targets=2")
    leaderboard = build(prepared.folder)
    assert set(leaderboard["status"]) == {"ok"}
    rows = leaderboard[leaderboard["condition"] == "impersonation, FAR 20 %"].set_index(["attack", "defense"])
    name = next(attack for attack in leaderboard["attack"] if "argeted" in attack)
    # A photo of the target's own, against photos of the target that the attack has not seen.
    assert rows.loc[(name, "none"), "asr"] > rows.loc[(name, "none"), "baseline_error"]
    assert rows.loc[("tiny-noise", "none"), "condition_reason"].startswith("the attack imitates")
    given = prepared.run.given_targets
    assert len(set(given.values())) == 2


UNSAID = (
    TARGETED.replace('goal="targeted"', 'goal="untargeted"')
    .replace("Targeted", "Unsaid")
    .replace('"targeted"', '"unsaid"')
)


def test_an_untargeted_attack_that_needs_targets_is_asked_for_impersonation_too(evaluate, tmp_path):
    (tmp_path / "unsaid.py").write_text(UNSAID)
    prepared = evaluate(
        dataset="tiny:training_identities=150",
        protocol="pairs:far=0.2,impostors=150,targets=2",
        attacks=(f"{tmp_path / 'unsaid.py'}:Unsaid",),
        defenses=("jpeg",),
        heads=("pair",),
    )
    leaderboard = build(prepared.folder)
    rows = leaderboard[
        (leaderboard["condition"] == "impersonation, FAR 20 %") & (leaderboard["attack"] != "none")
    ]
    assert rows["asr"].notna().all()
    assert set(rows["condition_reason"]) == {""}


def test_who_imitates_whom_is_part_of_what_makes_runs_comparable(evaluate, tmp_path):
    one, two = (run(evaluate, tmp_path, f",targets={count}") for count in (1, 2))
    digests = {prepared.folder.facts().given_targets for prepared in (one, two)}
    assert len(digests) == 2
    assert "" not in digests
    assert evaluate().folder.facts().given_targets == ""


def test_decisions_claim_whom_the_file_names(evaluate, tmp_path):
    others = run(evaluate, tmp_path, ",targets=1")
    everyone = sorted(others.run.split.gallery)
    target = max(i.id for i in others.run.roles.others if len(i.photos) > 1)
    path = tmp_path / "pairs.csv"
    path.write_text("identity,target\n" + "".join(f"{name},{target}\n" for name in everyone))
    prepared = run(evaluate, tmp_path, f",given={path}")
    (result,) = (
        each for each in prepared.folder.cells() if "argeted" in each.attack and each.defense == "none"
    )
    rows = prepared.folder.decided(result, prepared.run.spec).rows
    impersonating = rows[rows["condition"].str.startswith("impersonation")]
    assert set(impersonating["predicted"].dropna()) == {target}
    assert {name.rsplit("/", 1)[0] for name in impersonating["reference"]} == {target}


def test_a_target_who_is_nobody_is_refused(evaluate, tmp_path):
    prepared = run(evaluate, tmp_path, ",targets=1")
    path = tmp_path / "pairs.csv"
    path.write_text("identity,target\n" + "".join(f"{name},nobody\n" for name in prepared.run.split.gallery))
    with pytest.raises(UsageError, match="imitate 'nobody', who is no training identity of this dataset"):
        run(evaluate, tmp_path, f",given={path}")
