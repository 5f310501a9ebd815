"""The second sentence of a report: the main finding, with numbers, intervals and what tests say."""

from collections.abc import Sequence

import pandas as pd

from bench.analysis.comparison_groups import EVERY
from bench.errors import BenchError
from bench.leaderboard import erasure
from bench.leaderboard.view import RunView
from bench.plugins import factory, syntax
from bench.report.focus import Focus, apart, helps, key_of, order, rate, real, told
from bench.report.knowledge import knowledge
from bench.report.wording import count, few, is_missing, listing, p_value, percent, quoted, sentence
from bench.stats.rankings import Ranking
from bench.stats.significance import ALPHA

ASR = "attack success rate (ASR)"


def found(view: RunView, focus: Focus | None) -> str:
    """Return the main finding: which defence is best, else which attack is strongest, else why nothing can be said.

    Args:
        view: of a finished run.
        focus: what `bench.report.focus.choose_focus` chose.
    """
    cells = view.results.cells.values()
    if all(cell.status != "ok" for cell in cells):
        reasons = list(dict.fromkeys(cell.reason for cell in cells))
        more = f" (and {count(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else ""
        return sentence(f"Nothing was found, as every cell failed: {reasons[0].rstrip('.')}{more}")
    if focus is None:
        return _without_attack(view)
    if syntax.parse(view.facts.spec.protocol).name == "erasure":
        return _erased(view)
    if len(focus.rows) > 1:
        return _best_defense(view, focus)
    return _strongest_attack(view, focus)


def _without_attack(view: RunView) -> str:
    if real(view.results, "attack"):
        return "Nothing can be said of any attack: its cells failed, or have no identities in common."
    rates = view.leaderboard["asr"].dropna()
    if rates.empty:
        return "No attack was measured, and no cell has an error rate of its own."
    low, high = percent(rates.min()), percent(rates.max())
    share = low if low == high else f"between {low} and {high}"
    return f"No attack was measured: without any cloak, {share} of an identity's probes are not recognised."


def _place(view: RunView, focus: Focus) -> str:
    """Return under what the numbers hold: head, condition, trackers and access, with the sample."""
    head, condition, access = focus.key
    trackers = str(focus.any_row["backbones"]).split("|")
    parts = [f"head `{head}`"] if len(view.results.values("head")) > 1 else []
    parts += [condition] if condition else []
    mean = len(trackers) > 1
    parts += [f"mean of {count(len(trackers), 'tracker')}" if mean else f"tracker `{trackers[0]}`", access]
    identities = count(int(focus.any_row["n_identities"]), "identity", "identities")
    return f"{', '.join(parts)}; 95 % intervals over {identities}"


# -- defences -----------------------------------------------------------------------------------------------


def _best_defense(view: RunView, focus: Focus) -> str:
    ranking, place = focus.ranking("defense", focus.against), _place(view, focus)
    attacks = len(str(focus.any_row["attacks"]).split("|"))
    against = (
        f"in the mean of {count(attacks, 'attack')}"
        if focus.against == EVERY
        else f"against `{focus.against}`"
    )
    names = order(ranking)
    if not names:
        return sentence(f"Which defence is best {against} cannot be said: {ranking.reason} ({place})")
    best, rest = names[0], names[1:]
    tied = [name for name in rest if not apart(ranking, best, name)]
    if best == "none":
        return sentence(
            f"No defence lowers the {ASR} {against}: it is {focus.asr('none')} without one and "
            f"{focus.asr(rest[0])} with the lowest, `{rest[0]}` ({told(ranking, best, rest[0])}; {place})"
        )
    if "none" in tied:
        return sentence(
            f"No defence is shown to lower the {ASR} {against}: it is {focus.asr('none')} without one and "
            f"{focus.asr(best)} with the lowest, `{best}` ({told(ranking, best, 'none')}; {place})"
        )
    evidence = f"({told(ranking, best, 'none')}; {place})"
    lead = (
        f"the lowest {ASR} {against} is {focus.asr(best)} with `{best}`, where it is {focus.asr('none')} without a "
        f"defence {evidence}"
        if tied
        else f"the best defence {against} is `{best}`, which lowers the {ASR} from {focus.asr('none')} to "
        f"{focus.asr(best)} {evidence}"
    )
    clauses = [
        lead,
        *_other_defenses(ranking, best, tied),
        *_floor(focus),
        *_single_attacks(focus, best),
        *_mixed_goals(view, focus),
        *_elsewhere(focus, best),
    ]
    return sentence("; ".join(clauses))


def _floor(focus: Focus) -> list[str]:
    """Say which of the errors no cloak earned."""
    baseline = focus.any_row["baseline_error"]
    return [] if is_missing(baseline) else [f"without any cloak there are {percent(baseline)} errors"]


def _other_defenses(ranking: Ranking, best: str, tied: Sequence[str]) -> list[str]:
    """Say which defences are not significantly different from the best, and which not from none."""
    others = [name for name in order(ranking)[1:] if name not in ("none", *tied)]
    useless = [name for name in others if not helps(ranking, name)]
    clauses = [f"{few(tied, 'other defence')} are not significantly different from it"] if tied else []
    if useless:
        verb = "is" if len(useless) == 1 else "are"
        clauses.append(f"{few(useless, 'other defence')} {verb} not shown to help")
    return clauses


def _single_attacks(focus: Focus, best: str) -> list[str]:
    """Say what the mean hides: what the best defence leaves of the weakest and of the strongest attack."""
    left = {
        one.opponent: float(one.rates[best].mean())
        for one, _ in focus.comparison_groups("defense")
        if EVERY not in (one.opponent, *(() if focus.against == EVERY else (EVERY,)))
        and key_of(one) == focus.key
        and best in one.rates
        and not one.rates[best].isna().any()
    }
    if len(left) < 2:
        return []
    weak, strong = min(left, key=lambda name: left[name]), max(left, key=lambda name: left[name])
    if percent(left[weak]) == percent(left[strong]):
        return [f"of every single attack it leaves {percent(left[weak])}"]
    return [
        f"of single attacks it leaves between {percent(left[weak])} (`{weak}`) and {percent(left[strong])} (`{strong}`)"
    ]


def _mixed_goals(view: RunView, focus: Focus) -> list[str]:
    """Say where a mean over dodging takes in attacks that aim at another face, which is another question."""
    if focus.against != EVERY or not focus.key[1].startswith("dodging"):
        return []
    goals = {name: _goal(view, name) for name in str(focus.any_row["attacks"]).split("|")}
    aiming = [name for name, goal in goals.items() if goal == "targeted"]
    if not aiming or "untargeted" not in goals.values():
        return []
    verb = "aims" if len(aiming) == 1 else "aim"
    return [
        f"that mean mixes goals, as {few(aiming, 'attack')} {verb} at another face and not only away from the own"
    ]


def _goal(view: RunView, attack: str) -> str:
    """Return what an attack aims at, "" where it is not installed here."""
    text = next(
        (one.text for one in view.facts.methods if one.kind == "attacks" and one.name == attack), attack
    )
    try:
        return factory.attack(text).threat.goal
    except (BenchError, OSError):
        return ""


def _elsewhere(focus: Focus, best: str) -> list[str]:
    """Say in how many of the run's other heads, conditions and accesses the same defence comes first."""
    same = [
        (one, ranking) for one, ranking in focus.comparison_groups("defense") if one.opponent == focus.against
    ]
    keys = {key_of(one) for one, _ in focus.comparison_groups("defense")} - {focus.key}
    others = [ranking for one, ranking in same if key_of(one) != focus.key and len(ranking.methods) > 1]
    if not others:
        return []
    varied = [
        name
        for place, name in enumerate(("head", "condition", "access"))
        if len({key[place] for key in (*keys, focus.key)}) > 1
    ]
    what = varied[0] if varied in (["head"], ["condition"]) else "combination"
    agree = sum(order(ranking)[0] == best and helps(ranking, best) for ranking in others)
    if len(keys) == 1:
        first = order(others[0])[0]
        best_there = "the best is the same" if agree else f"the lowest ASR is that of {quoted(first)}"
        return [f"under the other {what} {best_there}"]
    kind = "mean" if focus.against == EVERY else "ranking"
    lacking = len(keys) - len(others)
    without = f" ({lacking} {'has' if lacking == 1 else 'have'} no such {kind})" if lacking else ""
    return [f"it is also best under {agree} of the {len(keys)} other {what}s{without}"]


# -- attacks ------------------------------------------------------------------------------------------------


def _strongest_attack(view: RunView, focus: Focus) -> str:
    defense = next(iter(focus.rows))
    ranking = focus.ranking("attack", defense)
    names = order(ranking)
    under = "without a defence" if defense == "none" else f"behind `{defense}`"
    if len(names) < 2 or not set(names) <= set(focus.attacks):
        attack = focus.against if focus.against != EVERY else str(focus.any_row["attacks"]).split("|")[0]
        clauses = [
            f"{under}, `{attack}` has an {ASR} of {focus.asr(defense)} ({_place(view, focus)})",
            *_floor(focus),
            *_above_baseline(view, focus, attack, defense),
            *_conditions(view, focus, attack, defense),
        ]
        if len(focus.attacks) > 1:
            clauses.append(f"attacks are {ranking.reason}")
        return sentence("; ".join(clauses))
    best, rest = names[0], names[1:]
    tied = [name for name in rest if not apart(ranking, best, name)]
    weaker = [f"`{name}` ({rate(focus.attacks[name])})" for name in rest if name not in tied]
    own = rate(focus.attacks[best])
    clauses = [
        f"the highest {ASR} {under} is {own}, with `{best}` ({_place(view, focus)})"
        if tied
        else f"the strongest attack {under} is `{best}`, with an {ASR} of {own} ({_place(view, focus)})",
        *([f"{few(tied, 'other attack')} are not significantly different from it"] if tied else []),
        *_floor(focus),
        *_above_baseline(view, focus, best, defense),
        *(
            [f"{listing(weaker)} {'is' if len(weaker) == 1 else 'are'} weaker"]
            if 0 < len(weaker) <= 3
            else []
        ),
        *(
            [f"it is significantly different from {count(len(weaker), 'weaker attack')}"]
            if len(weaker) > 3
            else []
        ),
        *_conditions(view, focus, best, defense),
    ]
    return sentence("; ".join(clauses))


def _above_baseline(view: RunView, focus: Focus, attack: str, defense: str) -> list[str]:
    """Say on how many trackers the attack is significantly different from no attack (`p_holm`)."""
    head, condition, access = focus.key
    leaderboard = view.leaderboard
    chosen = leaderboard["access"].replace("", "black-box") == access
    for column, value in (("attack", attack), ("defense", defense), ("head", head), ("condition", condition)):
        chosen &= leaderboard[column] == value
    rows = leaderboard[chosen]
    tested = rows[rows["p_holm"].notna()]
    if defense != "none" or rows.empty:
        return []
    if tested.empty:
        reason = next(
            (text for text in rows["p_holm_reason"] if isinstance(text, str) and text), "no test was made"
        )
        return [f"whether that is more than chance is not known ({reason})"]
    above = int(((tested["p_holm"] <= ALPHA) & (tested["asr"] > tested["baseline_error"])).sum())
    if len(tested) == 1:
        return [
            f"it is {'' if above else 'not '}significantly different from no attack "
            f"({p_value(tested['p_holm'].iloc[0])})"
        ]
    return [
        f"{quoted(attack)} is significantly different from no attack in {above} of {count(len(tested), 'row')}"
    ]


def _conditions(view: RunView, focus: Focus, attack: str, defense: str) -> list[str]:
    """Say between which conditions an attack's rate varies, where the protocol asks several questions."""
    head, _, access = focus.key
    rates = {
        one.condition: float(one.rates[attack].mean())
        for one, _ in focus.comparison_groups("attack")
        if (one.opponent, one.head, one.access) == (defense, head, access)
        and attack in one.rates
        and not one.rates[attack].isna().any()
        and view.results.recognises(one.condition)
    }
    if len(rates) < 2:
        return []
    low, high = min(rates, key=lambda name: rates[name]), max(rates, key=lambda name: rates[name])
    if percent(rates[low]) == percent(rates[high]):
        return [f"under each of {len(rates)} conditions the ASR of {quoted(attack)} is {percent(rates[low])}"]
    return [
        f"over {len(rates)} conditions the ASR of {quoted(attack)} is between {percent(rates[low])} ({low}) and "
        f"{percent(rates[high])} ({high})"
    ]


# -- erasure ------------------------------------------------------------------------------------------------


def _erased(view: RunView) -> str:
    rows = erasure.table(view.results)
    attack = str(rows["attack"].iloc[0])
    rows = rows[rows["attack"] == attack]
    own = rows.drop_duplicates(["backbone", "head"])
    keys = [
        f"{'erasing without a key' if eraser == 'no key' else f'the {eraser}'} undoes "
        f"{_span(rows[rows['eraser'] == eraser], 'undone')}"
        for eraser in erasure.KEYS
    ]
    clauses = [
        f"of the pairs of photos of one identity, `{attack}` protects {_span(own, 'protected')}: accepted with the "
        "natural photo and refused with the cloak",
        f"of these, {listing(keys)}",
    ]
    clauses += _erasers(view, rows, attack)
    several = len(set(rows["backbone"])) > 1
    clauses.append(
        "95 % intervals are over identities"
        + (
            f", and two numbers are the lowest and the highest of {len(set(rows['backbone']))} trackers"
            * several
        )
    )
    return sentence("; ".join(clauses))


def _erasers(view: RunView, rows: pd.DataFrame, attack: str) -> list[str]:
    """Say what the defences bring back: the highest mean, and the highest of those that have not seen the attack."""
    names = _strongest(rows)
    cells = [cell for cell in view.results.cells.values() if cell.attack == attack]
    tried = rows[(rows["kind"] == "defence") & rows["undone"].notna()]["eraser"].nunique()
    clauses = []
    for place, name in enumerate(names):
        most = _span(rows[rows["eraser"] == name], "undone")
        known = knowledge(cells, name)
        aside = f" ({known})" if known else ""
        if place:
            clauses.append(
                f"of those that have not seen the attack the highest is {most}, by {quoted(name)}{aside}"
            )
        else:
            highest = (
                f", the highest mean of {count(tried, 'defence')}, which was not tested" if tried > 1 else ""
            )
            clauses.append(f"a tracker without a key undoes {most} by {quoted(name)}{aside}{highest}")
    return clauses


def named_erasers(view: RunView) -> list[str]:
    """Return the defences that the finding of a run of protocol erasure names, the strongest first."""
    rows = erasure.table(view.results)
    return _strongest(rows[rows["attack"] == rows["attack"].iloc[0]])


def _strongest(rows: pd.DataFrame) -> list[str]:
    """Return the defence with the highest mean over trackers, and where it has seen the attack the highest unseen."""
    tried = rows[(rows["kind"] == "defence") & rows["undone"].notna()]
    if tried.empty:
        return []
    unseen = tried[~tried["attack_seen_by_defense"].str.startswith("seen")]
    best = [str(some.groupby("eraser")["undone"].mean().idxmax()) for some in (tried, unseen) if len(some)]
    return list(dict.fromkeys(best))


def _span(rows: pd.DataFrame, name: str) -> str:
    """Return the lowest and highest of a column over trackers, each with its interval."""
    known = rows[rows[name].notna()].sort_values(name, kind="stable")
    if known.empty:
        reason = next((text for text in rows[f"{name}_reason"] if text), "not measured")
        return f"NA ({reason})"
    low, high = (
        percent(row[name], row[f"{name}_low"], row[f"{name}_high"]) for row in (known.iloc[0], known.iloc[-1])
    )
    return low if low == high else f"{low} to {high}"
