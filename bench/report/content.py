"""What a report holds, section by section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.analysis import warning_rules
from bench.errors import BenchError
from bench.figures import FigureOptions
from bench.integrity.audit import Audit, audit
from bench.leaderboard.groups import read_groups
from bench.leaderboard.names import labels, methods_of
from bench.leaderboard.summary import references_last
from bench.leaderboard.view import RunView
from bench.report import made_with, phrases, tables
from bench.report.document import (
    Block,
    Bullets,
    Code,
    Column,
    Facts,
    Folded,
    LeaderboardBlock,
    Paragraph,
    Report,
    Section,
    Table,
    with_texts,
)
from bench.report.drawings import figures, photos
from bench.report.groups import groups_section
from bench.report.key_results import real
from bench.report.summary import summary
from bench.report.wording import count, percent, sentence
from bench.run.folder import MANIFEST
from bench.run.privacy import Paths


@dataclass(frozen=True)
class ReportOptions:
    """What a report of a run is to hold.

    Attributes:
        photos: whether to show photos of identities.
        store: folder of artefacts the photos come from; None for the default.
        threads: threads torch computes with, for photos that are decoded.
        names: METHOD=LABEL texts: what methods are called in matrix, figures and leaderboard.
        groups: CSV of identities and their groups, for a section of who is protected less; None for none.
    """

    photos: bool = True
    store: Path | None = None
    threads: int | None = None
    names: tuple[str, ...] = ()
    groups: Path | None = None


def collect(view: RunView, options: ReportOptions | None = None) -> Report:
    """Return the report of a finished run, with no absolute path in any of its texts.

    Args:
        view: of the run.
        options: what to hold; default: everything.

    Raises:
        DataError: a file of the run, or that of the groups, is missing or damaged.
        UsageError: a name is given to a method that the run has not, or is not its own.
    """
    wanted = options or ReportOptions()
    names = labels(wanted.names, methods_of(view.results))
    known = None if wanted.groups is None else read_groups(wanted.groups)
    checked, why_unchecked = _audited(view)
    report = Report(
        title=_title(view),
        subtitle=_subtitle(view),
        sections=(
            summary(view, checked, names),
            figures(view, names),
            photos(
                view, wanted.photos, FigureOptions(store=wanted.store, threads=wanted.threads, names=names)
            ),
            _leaderboard(view, names),
            _significance(view),
            *([] if known is None else [groups_section(view, known, names)]),
            _warnings_and_leaks(view, checked, why_unchecked),
            *made_with.literature_section(view),
            _reading(view),
            made_with.methods_section(view),
            made_with.threat_section(view),
            made_with.environment_section(view),
            _again(view),
        ),
    )
    return with_texts(report, Paths.of(view.facts).shortened)


def _audited(view: RunView) -> tuple[Audit | None, str]:
    try:
        return audit(view.folder, images=False), ""
    except BenchError as error:
        return None, str(error)


def _title(view: RunView) -> str:
    attacks, defenses = real(view.results, "attack"), real(view.results, "defense")
    sides = [_side("attack", attacks), _side("defence", defenses)]
    return f"{' against '.join(sides)} on {view.facts.spec.dataset}"


def _side(noun: str, names: Sequence[str]) -> str:
    short = len(names) in (1, 2) and sum(map(len, names)) <= 40
    return " and ".join(names) if short else count(len(names), noun)


def _subtitle(view: RunView) -> str:
    facts = view.facts
    parts = [
        f"Run {facts.run}",
        *([] if facts.spec.split == "evaluation" else [f"{facts.spec.split} split"]),
        f"protocol {facts.spec.protocol}",
        f"benchmark version {facts.benchmark_version}",
    ]
    return " · ".join(parts)


# -- leaderboard --------------------------------------------------------------------------------------------


def _leaderboard(view: RunView, names: Mapping[str, str]) -> Section:
    note = view.facts.caution
    blocks: list[Block] = [Paragraph(sentence(note), "warning")] if note else []
    text = phrases.LEADERBOARD.format(
        condition=" and condition" if len(view.results.conditions()) > 1 else "",
        rows=count(len(view.leaderboard), "row"),
    )
    blocks += [Paragraph(text, "note"), LeaderboardBlock(references_last(view.leaderboard), names)]
    return Section("leaderboard", "Leaderboard", tuple(blocks), wide=True)


# -- significance -------------------------------------------------------------------------------------------


def _significance(view: RunView) -> Section:
    parts = []
    for axis, word in (("defense", "Defences"), ("attack", "Attacks")):
        folds = tables.comparisons(view, axis)  # type: ignore[arg-type]  # mypy takes the literals for str
        if folds:
            parts.append(Section(f"rank-{axis}", f"{word}, ranked and compared", tuple(folds)))
    kept, seeds = tables.accuracy_kept(view), tables.seeds(view)
    if kept:
        parts.append(Section("accuracy-kept", "Normal accuracy kept", _folded_if_long(kept)))
    if seeds:
        parts.append(Section("seeds", "Seeds", _folded_if_long(seeds)))
    notes = [phrases.SIGNIFICANCE if parts else phrases.NOTHING_TO_COMPARE]
    if (pairs := tables.pairs_in(view)) > tables.MOST_PAIRS:
        notes.append(phrases.PAIRS_LEFT_OUT.format(pairs=f"{pairs:,}"))
    blocks = tuple(Paragraph(note, "note") for note in notes)
    return Section("significance", "Significance", blocks, tuple(parts))


def _folded_if_long(table: Table) -> tuple[Block, ...]:
    if len(table.rows) <= 12:
        return (table,)
    return (Folded(f"{count(len(table.rows), 'row')}", (table,)),)


# -- warnings -------------------------------------------------------------------------------------------------


def _warnings_and_leaks(view: RunView, checked: Audit | None, why_unchecked: str) -> Section:
    parts = [
        Section("failed", "Cells that failed", _failed(view)),
        Section("warnings", "Warnings", _warnings(view)),
        Section("leaks", "Leaks", _leaks(checked, why_unchecked)),
    ]
    return Section("warnings-and-leaks", "Warnings and leaks", (), tuple(parts))


def _failed(view: RunView) -> tuple[Block, ...]:
    failed = [cell for cell in view.results.cells.values() if cell.status != "ok"]
    if not failed:
        return (Paragraph(phrases.NO_FAILURE),)
    by_reason: dict[str, list[str]] = {}
    for cell in failed:
        name = " × ".join((cell.attack, cell.defense, cell.backbone, cell.head, f"seed {cell.seed}"))
        by_reason.setdefault(cell.reason, []).append(name)
    rows = tuple((reason, str(len(names)), names[0]) for reason, names in by_reason.items())
    caption = f"{len(failed)} of {count(len(view.results.cells), 'cell')} failed."
    columns = (Column("Reason"), Column("Cells", numeric=True), Column("The first"))
    return (Table(caption, columns, rows),)


def _warnings(view: RunView) -> tuple[Block, ...]:
    found: dict[str, dict[str, list[str]]] = {}
    columns_read = ["attack", "defense", "backbone", "head", "warnings"]
    for *cell, warnings in view.leaderboard[columns_read].itertuples(index=False, name=None):
        place = " × ".join(map(str, cell))
        for warning in warnings:
            found.setdefault(warning.code, {}).setdefault(warning.sentence, []).append(place)
    if not found:
        return (Paragraph(phrases.NO_WARNING),)
    blocks: list[Block] = [Paragraph(phrases.WARNINGS, "note")]
    columns = (Column("What was found"), Column("Rows", numeric=True), Column("The first"))
    for code, meaning in warning_rules.RULES.items():
        if code in found:
            rows = tuple((text, str(len(places)), places[0]) for text, places in found[code].items())
            blocks.append(Table(f"`{code}`: {meaning}.", columns, rows))
    return tuple(blocks)


def _leaks(checked: Audit | None, why_unchecked: str) -> tuple[Block, ...]:
    if checked is None:
        return (Paragraph(phrases.NOT_AUDITED.format(reason=why_unchecked), "warning"),)
    blocks: list[Block] = [Paragraph(phrases.AUDITED, "note")]
    if not checked.findings:
        blocks.append(Paragraph("No leak was found."))
    else:
        blocks.append(_findings(checked))
    missed: dict[str, list[str]] = {}
    for one in checked.unchecked:
        if one.what != "near-duplicate photos":
            missed.setdefault(one.reason, []).append(one.what)
    if missed:
        rows = tuple((", ".join(what), reason) for reason, what in missed.items())
        columns = (Column("Not checked"), Column("Why"))
        shown = Table(phrases.NOT_CHECKED, columns, rows)
        blocks.append(Folded(f"{count(sum(map(len, missed.values())), 'thing')} not checked", (shown,)))
    return tuple(blocks)


def _findings(checked: Audit) -> Table:
    rows = []
    for one in checked.findings:
        status = "notice" if one.severity == "notice" else "marked" if one.marked else "NOT MARKED"
        cells = "all" if not one.cells else str(len(one.cells))
        rows.append((status, one.kind, one.evidence, cells, one.column))
    unmarked = len(checked.unmarked)
    caption = f"{count(len(checked.findings), 'finding')}; leaks that no row states: {unmarked}."
    columns = (
        Column(
            "Status", "marked: its rows say so; NOT MARKED: they do not; notice: too small to move a rate"
        ),
        Column("What leaks"),
        Column("Evidence"),
        Column("Cells", numeric=True),
        Column("Stated by", "the column of the leaderboard that says so, or would"),
    )
    return Table(caption, columns, tuple(rows))


# -- reading ------------------------------------------------------------------------------------------------


def _reading(view: RunView) -> Section:
    errors = view.leaderboard["baseline_error"].dropna()
    ends = {"low": percent(errors.min()), "high": percent(errors.max())} if len(errors) else {}
    spread = phrases.BASELINE_SPREAD.format(**ends) if ends else ""
    items = tuple(item.format(baseline=spread) for item in phrases.READING)
    return Section("reading", "How to read it", (Bullets(items),))


# -- again --------------------------------------------------------------------------------------------------


def _again(view: RunView) -> Section:
    facts = view.facts
    digests = [("Run (digest of what was requested)", facts.run)]
    manifest = view.folder.path / MANIFEST
    if manifest.is_file():
        digests.append(("Folder (SHA-256 of its manifest)", sha256(manifest.read_bytes()).hexdigest()))
    if facts.fingerprint:
        digests.append(("Photos (fingerprint)", facts.fingerprint))
    blocks = (
        Paragraph(phrases.AGAIN),
        Code(("bench verify RUN --rerun", "bench verify RUN")),
        Paragraph(phrases.FROM_NOTHING),
        Code((run_command(view),)),
        Paragraph(phrases.THIS_REPORT),
        Code(("bench report RUN",)),
        Facts(tuple(digests)),
    )
    return Section("again", "Make it again", blocks)


def run_command(view: RunView) -> str:
    """Return the command that asks for the same run, without folders and other things that change no number."""
    from shlex import quote

    requested = view.facts.requested
    several: Mapping[str, Sequence[Any]] = {
        "attack": requested.attacks,
        "defense": requested.defenses,
        "backbone": requested.backbones,
        "head": requested.heads,
        "seed": requested.seeds if requested.seeds != (0,) else (),
    }
    words = ["bench run", f"--dataset {quote(requested.dataset)}"]
    words += [f"--protocol {quote(requested.protocol)}"] if requested.protocol != "tracker" else []
    words += [f"--{name} {quote(str(value))}" for name, values in several.items() for value in values]
    words += [] if requested.split == "evaluation" else [f"--split {requested.split}"]
    words += [f"--split-seed {requested.split_seed}"] if requested.split_seed else []
    words += [f"--identities {requested.identities}"] if requested.identities else []
    words += [f"--threads {view.facts.threads}"] if view.facts.threads else []
    return " ".join(words)
