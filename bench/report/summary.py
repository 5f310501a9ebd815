"""The summary of a report: headline, attack × defence matrix, key results, and the run at a glance with its cautions.

Every number comes from the tables a reader finds below it; nothing is claimed that a test does not show.
"""

from collections.abc import Iterator, Mapping

import pandas as pd

from bench.integrity.audit import Audit
from bench.leaderboard.summary import development, without_effect
from bench.leaderboard.view import RunView
from bench.report import phrases
from bench.report.document import Block, Facts, Paragraph, Section, Table
from bench.report.key_results import COLUMNS, focus_of, key_results, place_text, real
from bench.report.matrix import matrices
from bench.report.wording import count, names, records, sentence

Pairs = Iterator[tuple[str, str]]


def summary(view: RunView, audit: Audit | None = None, called: Mapping[str, str] | None = None) -> Section:
    """Return the section at the top of a report.

    Args:
        view: of a finished run.
        audit: what `bench.integrity.audit` found; None where the run could not be audited.
        called: canonical name of a method → its label, where the user gave one.

    Raises:
        DataError: a file of the run is missing or damaged.
    """
    focus = focus_of(view)
    found = key_results(view, focus)
    # Whom it is of comes first. Of an attack that does nothing no defence can be judged: before what defences do.
    lead = " ".join(
        (*development(view.leaderboard), *without_effect(view.leaderboard, quote="`"), found.headline)
    )
    blocks: list[Block] = [Paragraph(lead, "lead"), *matrices(view, focus, called or {})]
    if found.rows:
        caption = phrases.KEY_RESULTS.format(where=_common(view, focus))
        blocks.append(Table(caption, COLUMNS, tuple(found.rows)))
    blocks.append(Facts((*measured(view), *found.read_with, *cautions(view, audit))))
    return Section("summary", "Summary", tuple(blocks))


def _common(view: RunView, focus: pd.DataFrame) -> str:
    """Return what all key results have in common: head, condition, access, trackers and sample."""
    if focus.empty:
        return f"protocol {view.facts.spec.protocol}"
    row = records(focus)[0]
    sample = count(int(row["n_identities"]), "identity", "identities")
    trackers = f"mean over trackers {names(row['backbones'].split('|'))}"
    return f"{place_text(row)}, {trackers}, {sample}"


def measured(view: RunView) -> Pairs:
    """Yield what was measured: methods, sample, protocol and cells."""
    results, spec, split = view.results, view.facts.spec, view.folder.split()
    yield "Attacks", names(real(results, "attack"))
    yield "Defences", names(real(results, "defense"))
    yield "Trackers", f"{names(results.values('backbone'))}; heads: {names(results.values('head'))}"
    for label, values in (("Seeds", results.values("seed")), ("Conditions", results.conditions())):
        if len(values) > 1:
            yield label, names(values)
    probes = count(sum(len(photos) for photos in split.probes.values()), "probe photo")
    identities = count(len(split.probes), "identity", "identities")
    yield "Sample", f"{identities}, {probes} of dataset `{spec.dataset}`, protocol `{spec.protocol}`"
    cells = results.cells.values()
    failed, added = sum(c.status != "ok" for c in cells), sum(not c.requested for c in cells)
    yield "Cells", f"{len(cells)}; failed: {failed}; references that the plan added: {added}"


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
    if view.facts.caution:
        yield "Caution", sentence(view.facts.caution)


def _leaks(audit: Audit | None) -> str:
    if audit is None:
        return phrases.UNAUDITED
    leaks = sum(one.severity == "leak" for one in audit.findings)
    if leaks:
        return phrases.LEAKS.format(leaks=leaks, unmarked=len(audit.unmarked))
    return phrases.NO_LEAK_IN_PART if audit.unchecked else phrases.NO_LEAK
