"""The summary of a report: a headline, the key results, and the run at a glance with its cautions.

Every number comes from the tables a reader finds below it; nothing is claimed that a test does not show.
"""

from collections.abc import Iterator

from bench.analysis.comparison_groups import EVERY
from bench.errors import BenchError
from bench.integrity.audit import Audit
from bench.leaderboard.view import RunView
from bench.plugins import factory
from bench.report import phrases
from bench.report.document import Block, Facts, Paragraph, Section
from bench.report.focus import Focus, Row, apart, choose_focus, helps, key_of, order, protocol_of, real
from bench.report.key_results import (
    best_defense,
    common_ground,
    erased_rows,
    key_results,
    strongest_erasers,
    table,
)
from bench.report.phrases import Case
from bench.report.wording import count, is_missing, names, p_text, percent, sentence
from bench.stats.rankings import Ranking

Pairs = Iterator[tuple[str, str]]


def summary(view: RunView, audit: Audit | None = None) -> Section:
    """Return the section at the top of a report.

    Args:
        view: of a finished run.
        audit: what `bench.integrity.audit` found; None where the run could not be audited.

    Raises:
        DataError: a file of the run is missing or damaged.
    """
    focus = choose_focus(view)
    found = key_results(view, focus)
    blocks: list[Block] = [Paragraph(headline(view, focus), "lead")]
    blocks += [table(found, common_ground(view, focus))] if found else []
    blocks.append(Facts((*measured(view), *read_with(view, focus), *cautions(view, audit))))
    return Section("summary", "Summary", tuple(blocks))


# -- headline -----------------------------------------------------------------------------------------------


def headline(view: RunView, focus: Focus | None) -> str:
    """Return the first sentence: which defence is best, else which attack is strongest, else why nothing is known.

    Args:
        view: of a finished run.
        focus: what `bench.report.focus.choose_focus` chose.
    """
    case, fields = _case(view, focus)
    return phrases.HEADLINES[case].format(**fields)


def _case(view: RunView, focus: Focus | None) -> tuple[Case, dict[str, str]]:
    cells = list(view.results.cells.values())
    if all(cell.status != "ok" for cell in cells):
        return "all failed", {"reason": sentence(cells[0].reason)}
    if focus is None:
        rates = view.leaderboard["asr"].dropna()
        if real(view.results, "attack") or rates.empty:
            return "no rate", {}
        return "no attack", {"low": percent(rates.min()), "high": percent(rates.max())}
    if protocol_of(view) == "erasure":
        return "erasure", {"attack": str(erased_rows(view)["attack"].iloc[0])}
    return _defense_case(focus) if len(focus.defenses) > 1 else _attack_case(focus)


def _defense_case(focus: Focus) -> tuple[Case, dict[str, str]]:
    ranking = focus.ranking("defense", focus.against)
    many = len(str(focus.any_row["attacks"]).split("|"))
    against = f"in the mean over {many} attacks" if focus.against == EVERY else f"against `{focus.against}`"
    best, first = best_defense(focus), next(iter(order(ranking)), None)
    if best is None or first is None or "none" not in focus.defenses:
        return "not ranked", {"against": against, "reason": ranking.reason or "not ranked"}
    pair = focus.pair("defense", focus.against, best, "none")
    tied = tied_with(ranking, best)
    fields = {
        "against": against,
        "best": best,
        "asr": _asr(focus, focus.against, best),
        "undefended": _asr(focus, focus.against, "none"),
        "test": _test(pair, ranking.reason),
        "tied": names(tied),
    }
    if first == "none":
        return "no defence is lower", fields
    if not helps(ranking, best):
        return "not significant", fields
    return ("lowest, tied" if tied else "best"), fields


def _test(pair: Row | None, reason: str) -> str:
    if pair is None or is_missing(pair["p_holm"]):
        return phrases.UNTESTED.format(reason=reason if pair is None else pair["reason"])
    return phrases.TESTED.format(p=p_text(pair["p_holm"]))


def _attack_case(focus: Focus) -> tuple[Case, dict[str, str]]:
    defense = focus.defenses[0]
    ranking = focus.ranking("attack", defense)
    under = "without a defence" if defense == "none" else f"behind `{defense}`"
    ranked = order(ranking)
    if len(focus.attacks) > 1 and not ranked:
        return "attacks not ranked", {"under": under, "reason": ranking.reason or "not ranked"}
    best = ranked[0] if ranked else focus.attacks[0]
    tied = tied_with(ranking, best)
    fields = {
        "under": under,
        "best": best,
        "asr": _asr(focus, best, defense),
        "baseline": percent(focus.any_row["baseline_error"]),
        "tied": names(tied),
    }
    if len(ranked) < 2:
        return "one attack", fields
    return ("highest, tied" if tied else "strongest"), fields


def tied_with(ranking: Ranking, best: str) -> list[str]:
    """Return the methods that are not significantly different from one, ``none`` left out."""
    others = [name for name in order(ranking) if name not in (best, "none")]
    return [name for name in others if not apart(ranking, best, name)]


def _asr(focus: Focus, attack: str, defense: str) -> str:
    row = focus.rows[attack, defense]
    return percent(row["asr"], row["asr_low"], row["asr_high"])


# -- the run at a glance ------------------------------------------------------------------------------------


def measured(view: RunView) -> Pairs:
    """Yield what was measured: methods, sample, protocol and cells."""
    results, spec, split = view.results, view.facts.spec, view.folder.split()
    yield "Attacks", names(real(results, "attack"))
    yield "Defences", names(real(results, "defense"))
    yield "Trackers", f"{names(results.values('backbone'))}; heads: {names(results.values('head'))}"
    if len(results.values("seed")) > 1:
        yield "Seeds", ", ".join(map(str, results.values("seed")))
    if len(results.conditions()) > 1:
        yield "Conditions", names(results.conditions())
    probes = count(sum(len(photos) for photos in split.probes.values()), "probe photo")
    identities = count(len(split.probes), "identity", "identities")
    yield "Sample", f"{identities}, {probes} of dataset `{spec.dataset}`, protocol `{spec.protocol}`"
    cells = results.cells.values()
    failed, added = sum(c.status != "ok" for c in cells), sum(not c.requested for c in cells)
    yield "Cells", f"{len(cells)}; failed: {failed}; references that the plan added: {added}"


# -- what the key results are to be read with ---------------------------------------------------------------


def read_with(view: RunView, focus: Focus | None) -> Pairs:
    """Yield what is tied, what does not help, what holds elsewhere, and what the best defences knew."""
    if focus is None:
        return
    if protocol_of(view) == "erasure":
        for name in strongest_erasers(erased_rows(view)):
            yield f"Training of `{name}`", knowledge(view, name)
        return
    best = best_defense(focus) if len(focus.defenses) > 1 else None
    if best is not None:
        ranking = focus.ranking("defense", focus.against)
        if ranking.methods:
            yield f"Not significantly different from `{best}`", names(tied_with(ranking, best))
            useless = [name for name in order(ranking) if name != "none" and not helps(ranking, name)]
            yield "Not significantly below no defence", names(useless)
        yield from _elsewhere(focus, best)
        yield f"Training of `{best}`", knowledge(view, best)
    targeted = _targeted(view, focus)
    if targeted:
        yield "Mean over attacks", phrases.MIXED_GOALS.format(targeted=names(targeted))


def _elsewhere(focus: Focus, best: str) -> Pairs:
    """Yield in how many of the run's other heads, conditions and accesses the same defence is best."""
    others = [
        ranking
        for one, ranking in focus.groups
        if (one.axis, one.opponent) == ("defense", focus.against)
        and key_of(one) != focus.key
        and len(ranking.methods) > 1
    ]
    if others:
        agree = sum(order(ranking)[0] == best and helps(ranking, best) for ranking in others)
        text = phrases.ELSEWHERE.format(agree=agree, others=len(others))
        yield f"`{best}` under other heads, conditions and accesses", text


def knowledge(view: RunView, defense: str) -> str:
    """Return which attacks, surrogates and trackers a defence was trained with, by the marks of its cells."""
    cells = [c for c in view.results.cells.values() if c.defense == defense and c.attack != "none"]
    found = {
        "seen": [c.attack for c in cells if c.threat.attack_seen_by_defense == "seen"],
        "seen-with-other-parameters": [
            c.attack for c in cells if c.threat.attack_seen_by_defense == "seen-with-other-parameters"
        ],
        "surrogates": [c.attack for c in cells if c.threat.extractors_are_surrogates],
        "tracker": [c.backbone for c in cells if c.threat.extractor_is_tracker],
        "adaptive": [c.attack for c in cells if c.threat.attack_adapts_to_defense],
    }
    marks = [
        phrases.TRAINED[mark].format(names(list(dict.fromkeys(known))))
        for mark, known in found.items()
        if known
    ]
    return "; ".join(marks) or phrases.UNTRAINED


def _targeted(view: RunView, focus: Focus) -> list[str]:
    """Return the attacks of a mean over dodging that aim at another face, where others of it do not."""
    if focus.against != EVERY or not focus.key[1].startswith("dodging"):
        return []
    goals = {name: _goal(view, name) for name in str(focus.any_row["attacks"]).split("|")}
    return [name for name in goals if goals[name] == "targeted"] if "untargeted" in goals.values() else []


def _goal(view: RunView, attack: str) -> str:
    """Return what an attack aims at, "" where it is not installed here."""
    texts = {one.name: one.text for one in view.facts.methods if one.kind == "attacks"}
    try:
        return factory.attack(texts.get(attack, attack)).threat.goal
    except (BenchError, OSError):
        return ""


# -- cautions -----------------------------------------------------------------------------------------------


def cautions(view: RunView, audit: Audit | None) -> Pairs:
    """Yield warnings, leaks, threat marks of the rows and the dataset's own caution."""
    board = view.leaderboard
    of_rows = f"of {count(len(board), 'row')}"
    flagged = [found for found in board["warnings"] if found]
    codes = dict.fromkeys(warning.code for found in flagged for warning in found)
    yield "Warnings", f"{len(flagged)} {of_rows}" + (f": {names(list(codes))}" if codes else "")
    yield "Leaks", _leaks(audit)
    yield "White-box rows", f"{(board['access'] == 'white-box').sum()} {of_rows}"
    unknown = (board["identity_overlap"] == "unknown").sum()
    yield "Overlap of identities with training data unknown", f"{unknown} {of_rows}"
    if view.facts.dataset_note:
        yield "Caution", sentence(view.facts.dataset_note)


def _leaks(audit: Audit | None) -> str:
    if audit is None:
        return phrases.UNAUDITED
    leaks = sum(one.severity == "leak" for one in audit.findings)
    if leaks:
        return phrases.LEAKS.format(leaks=leaks, unmarked=len(audit.unmarked))
    return phrases.NO_LEAK_IN_PART if audit.unchecked else phrases.NO_LEAK
