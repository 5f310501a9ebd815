"""Whether a tracker's weights are later than every surrogate's, as far as dates of publication tell."""

from calendar import monthrange
from copy import copy
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.integrity.audit import wrong_marks
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.run.folder import RunFolder
from bench.run.model_time import NO_SURROGATES, NOT_RECORDED, model_time
from bench.run.resolve import resolve
from bench.run.spec import Cell, make_spec
from bench.run.threat import CellThreat, Threats

CELL = Cell("pgd:surrogates=tiny-b|tiny-c", "none", "tiny-a", "nn", 0)

DAYS = st.dates(date(2014, 1, 1), date(2027, 12, 31))
FORMS = st.sampled_from(["%Y", "%Y-%m", "%Y-%m-%d"])
RELEASED = st.one_of(st.just(""), st.builds(lambda day, form: day.strftime(form), DAYS, FORMS))


def days(released):
    """Return the first and the last day that a date may mean."""
    parts = [int(part) for part in released.split("-")]
    month_first, month_last = (parts[1], parts[1]) if len(parts) > 1 else (1, 12)
    last = parts[2] if len(parts) > 2 else monthrange(parts[0], month_last)[1]
    return date(parts[0], month_first, parts[2] if len(parts) > 2 else 1), date(parts[0], month_last, last)


@given(RELEASED, st.lists(RELEASED, min_size=1, max_size=4))
def test_it_is_said_where_every_reading_of_the_dates_agrees(tracker, surrogates):
    value, reason = model_time("t", tracker, {f"s{i}": each for i, each in enumerate(surrogates)})
    assert (value == "") == bool(reason)
    known = [days(each) for each in surrogates if each]
    if value == "later":
        assert len(known) == len(surrogates)
        assert all(days(tracker)[0] > last for _, last in known)
    elif value == "not-later":
        assert any(days(tracker)[1] <= first for first, _ in known)
    elif tracker and len(known) == len(surrogates):  # coarse dates: some reading says later, some does not
        assert any(days(tracker)[0] <= last for _, last in known)
        assert all(days(tracker)[1] > first for first, _ in known)
    else:
        assert "no date of publication is known of" in reason
        assert (tracker == "") == ("of t" in reason)


@pytest.mark.parametrize(
    ("tracker", "surrogates", "value"),
    [
        ("2021-09-22", {"a": "2021-09-21"}, "later"),
        ("2021-09-22", {"a": "2021-09-22"}, "not-later"),
        ("2022", {"a": "2021", "b": "2021-12-31"}, "later"),
        ("2021", {"a": "2022-01"}, "not-later"),
        ("2021", {"a": "2021"}, ""),
        ("2021-02", {"a": "2021"}, ""),
        ("2021", {"a": "2030", "b": ""}, "not-later"),
    ],
)
def test_examples(tracker, surrogates, value):
    assert model_time("t", tracker, surrogates)[0] == value


def dated(**released):
    """Return the threat models of a run whose tiny backbones have dates."""
    run = resolve(make_spec({"dataset": "tiny", "attacks": (CELL.attack,), "backbones": ("tiny-a",)}))
    threats = Threats(run)
    original = threats.backbone

    def backbone(name):
        found = copy(original(name))
        found.card = found.card.model_copy(update={"released": released.get(name.replace("-", "_"), "")})
        return found

    threats.backbone = backbone
    return threats


def test_a_row_says_it_by_the_cards(tiny):
    del tiny
    threats = dated(tiny_a="2024", tiny_b="2021-09-22", tiny_c="2018")
    assert threats.of(CELL).model_time == "later"
    assert threats.of(CELL._replace(attack="none")).model_time_reason == NO_SURROGATES
    assert threats._model_time(("tiny-b", "tiny-c"), "tiny-a") == ("later", "")
    assert threats._model_time(("tiny-a", "tiny-b"), "tiny-c") == ("not-later", "")
    assert threats._model_time(("tiny-a",), "tiny-a") == (
        "not-later",
        "",
    )  # the same weights, whatever their date
    assert threats._model_time((), "tiny-a") == ("", NO_SURROGATES)


def test_the_backbones_of_the_default_pools_have_no_date():
    for pool in ("synthetic-iresnet", "mobilefacenet-relu6", "mobileface-v2"):
        assert factory.backbone(pool).card.released == ""


def test_every_row_has_it_or_the_reason(evaluate):
    prepared = evaluate(attacks=("pgd:steps=1",), backbones=("tiny-a", "tiny-b"))
    table = build(RunFolder(prepared.folder.path))
    assert set(table["model_time"]) == {""}
    assert set(table.loc[table["attack"] == "none", "model_time_reason"]) == {NO_SURROGATES}
    cloaked = table.loc[table["attack"] != "none", "model_time_reason"]
    assert cloaked.str.startswith("no date of publication is known of tiny-").all()


def test_runs_of_earlier_versions_are_no_difference():
    now = CellThreat(
        surrogates="a",
        extractors="",
        access="black-box",
        related=False,
        extractors_are_surrogates=False,
        attack_seen_by_defense="not-trained",
        attack_adapts_to_defense=False,
        identity_overlap="no",
        model_time="later",
        model_time_reason="",
    )
    written = now.model_dump()
    older = CellThreat.model_validate({k: v for k, v in written.items() if not k.startswith("model_time")})
    assert (older.model_time, older.model_time_reason) == ("", NOT_RECORDED)
    assert wrong_marks(older, now) == []
    assert wrong_marks(now.model_copy(update={"model_time": "not-later"}), now) == [
        "model_time is 'not-later', found is 'later'"
    ]
