"""Three sentences on a run: what was measured, what was found, what it costs and what to warning.

Every number comes from the tables a reader finds below it; a sentence never says more than a test does: what is not
significantly different is not ranked, what could not be tested says why.
"""

from collections.abc import Sequence

from bench.analysis.row_warnings import split_warnings
from bench.integrity.audit import Audit
from bench.leaderboard.view import RunView
from bench.plugins import syntax
from bench.report.finding import found, named_erasers
from bench.report.focus import Focus, choose_focus, order, real
from bench.report.knowledge import knowledge
from bench.report.wording import (
    agreeing_digits,
    count,
    is_missing,
    listing,
    percent,
    points,
    quoted,
    sentence,
)

NAMED = 3
"""Names a sentence lists; of more it gives the number."""


def summary(view: RunView, audit: Audit | None = None) -> tuple[str, str, str]:
    """Return three sentences: what was measured, the main finding, its cost with what to warning.

    Args:
        view: of a finished run.
        audit: what `bench.integrity.audit` found; None where it was not asked, so that nothing is said of leaks.

    Raises:
        DataError: a file of the run is missing or damaged.
    """
    focus = choose_focus(view)
    return measured(view), found(view, focus), flagged(view, focus, audit)


# -- what was measured --------------------------------------------------------------------------------------


def measured(view: RunView) -> str:
    """Return the sentence on attacks, defences, trackers, identities, dataset, protocol and cells."""
    results, spec, split = view.results, view.facts.spec, view.folder.split()
    probes = sum(len(photos) for photos in split.probes.values())
    parts = [
        f"{_matrix(view)}, by {_named('tracker', results.values('backbone'))} with "
        f"{_named('head', results.values('head'))}"
    ]
    under = [
        count(number, noun)
        for number, noun in ((len(results.values("seed")), "seed"), (len(results.conditions()), "condition"))
        if number > 1
    ]
    parts += [f"under {listing(under)}"] if under else []
    cells = results.cells.values()
    references = sum(not cell.requested for cell in cells)
    added = f", {references} of them references that the plan added" if references else ""
    return sentence(
        f"This run measures {', '.join(parts)}, on {count(len(split.probes), 'identity', 'identities')} "
        f"({count(probes, 'probe photo')}) of dataset {quoted(spec.dataset)} under protocol {quoted(spec.protocol)}: "
        f"{count(len(cells), 'cell')}{added}"
    )


def _matrix(view: RunView) -> str:
    attacks, defenses = real(view.results, "attack"), real(view.results, "defense")
    if not attacks and not defenses:
        return "no attack and no defence, only photos as they are"
    if not attacks:
        return f"no attack, only photos as they are, behind {_named('defence', defenses)}"
    if not defenses:
        return f"{_named('attack', attacks)} against no defence"
    return f"{_named('attack', attacks)} against {_named('defence', defenses)} and against none"


def _named(noun: str, names: Sequence[str]) -> str:
    """Return how many there are, with their names where these are few."""
    said = count(len(names), noun)
    return said if len(names) > NAMED else f"{said} ({listing([quoted(name) for name in names])})"


# -- cost and warning -----------------------------------------------------------------------------------------


def flagged(view: RunView, focus: Focus | None, audit: Audit | None) -> str:
    """Return the sentence on what the finding costs and why it may be flagged."""
    clauses = [*_cost(view, focus), _failures(view), _warnings(view), *_leaks(audit), *_cautions(view)]
    return sentence("; ".join(clauses))


def _cost(view: RunView, focus: Focus | None) -> list[str]:
    if focus is None:
        return []
    if (
        syntax.parse(view.facts.spec.protocol).name == "erasure"
    ):  # whom they saw stands in the second sentence
        return [_accuracy(focus, name) for name in named_erasers(view) if name in focus.rows]
    names = order(focus.ranking("defense", focus.against)) or list(focus.rows)
    best = next((name for name in names if name != "none"), None)
    if best is None:
        psnr = focus.any_row["cloak_psnr"]
        return (
            []
            if is_missing(psnr)
            else [f"cloaks have a PSNR of {psnr:.1f} dB against the photos in the mean"]
        )
    known = knowledge(list(view.results.cells.values()), best)
    return [_accuracy(focus, best), *([known] if known else [])]


def _accuracy(focus: Focus, defense: str) -> str:
    """Say how a defence changes normal accuracy, and whether it is shown to keep it."""
    row = focus.rows[defense]
    if is_missing(row["accuracy_difference"]):
        reason = row["not_worse_reason"] or row["normal_accuracy_reason"] or "not measured"
        return f"what {quoted(defense)} costs in normal accuracy is not known ({reason})"
    before, after = float(row["undefended_accuracy"]), float(row["normal_accuracy"])
    digits = agreeing_digits(before, after)
    if before == after:
        change = f"leaves normal accuracy at {percent(after)}"
    else:
        moved = f"{percent(before, digits=digits)} to {percent(after, digits=digits)}"
        verb = "adds" if after > before else "costs"
        change = f"{verb} {points(after - before, digits)} of normal accuracy ({moved})"
    margin = points(row["margin"])
    if is_missing(row["not_worse"]):
        reason = row["not_worse_reason"] or "no test was made"
        return f"{quoted(defense)} {change}; whether it loses less than {margin} was not tested ({reason})"
    shown = "and is" if row["not_worse"] else "but is not" if after >= before else "and is not"
    return f"{quoted(defense)} {change} {shown} shown to lose less than {margin}"


def _failures(view: RunView) -> str:
    cells = view.results.cells.values()
    failed = sum(cell.status != "ok" for cell in cells)
    return f"of {count(len(cells), 'cell')} {failed} failed" if failed else "no cell failed"


def _warnings(view: RunView) -> str:
    flagged_rows = [found for text in view.leaderboard["warnings"] if (found := split_warnings(text))]
    if not flagged_rows:
        return "no row carries a warning"
    codes = dict.fromkeys(code for found in flagged_rows for code, _ in found)
    carried = "carries" if len(flagged_rows) == 1 else "carry"
    rows = count(len(view.leaderboard), "row")
    return f"of {rows} {len(flagged_rows)} {carried} warnings ({', '.join(codes)})"


def _leaks(audit: Audit | None) -> list[str]:
    if audit is None:
        return []
    leaks = [one for one in audit.findings if one.severity == "leak"]
    if not leaks:
        return [f"the audit finds no leak{' in what it could look up' if audit.unchecked else ''}"]
    unmarked = len(audit.unmarked)
    said = f"{unmarked} of them not marked in the rows" if unmarked else "marked in the rows"
    return [f"the audit finds {count(len(leaks), 'leak')}, {said}"]


def _cautions(view: RunView) -> list[str]:
    leaderboard = view.leaderboard
    unknown, white = (
        (leaderboard["identity_overlap"] == "unknown").sum(),
        (leaderboard["access"] == "white-box").sum(),
    )
    found_here = []
    if unknown:
        rows = (
            "every row" if unknown == len(leaderboard) else f"{unknown} of {count(len(leaderboard), 'row')}"
        )
        found_here.append(f"in {rows} it is unknown whether a part was trained on evaluated identities")
    if white:
        found_here.append(f"{count(int(white), 'row')} {'is' if white == 1 else 'are'} white-box")
    return [*found_here, view.facts.dataset_note or "the numbers hold for this dataset and these trackers"]
