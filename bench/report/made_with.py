"""What a run was made with, and what papers report of the same methods: methods, threat models, machine, literature."""

import re
from collections.abc import Iterator
from typing import Any

from bench.contracts import Attack, Method
from bench.errors import BenchError, DataError
from bench.leaderboard.adaptation import WORDS, in_a_word
from bench.leaderboard.view import RunView
from bench.plugins import factory, syntax
from bench.report import literature
from bench.report.document import Block, Column, Facts, Folded, Paragraph, Section, Table
from bench.report.key_results import real
from bench.report.literature import PublishedNumber
from bench.report.wording import count
from bench.run.folder import CellResult
from bench.run.provenance import MethodFacts

SHOWN_DIGEST = 12
"""Characters of a SHA-256 that are shown; all are in the run's ``spec.json``."""

_KIND_NAMES = {
    "attacks": "attack",
    "defenses": "defence",
    "backbones": "backbone",
    "datasets": "dataset",
    "protocols": "protocol",
}
_KINDS = tuple(_KIND_NAMES)
_ENVIRONMENT = {
    "device": "Device",
    "cuda_device": "GPU",
    "cuda": "CUDA",
    "cuda_driver": "GPU driver",
    "cudnn": "cuDNN",
    "cpu_model": "Processor",
    "cpu_cores": "Cores",
    "cpu_kernels": "Kernels",
    "machine": "Architecture",
    "system": "System",
    "byte_order": "Byte order",
    "python": "Python",
    "threads": "Threads",
    "dtype": "Numbers",
    "deterministic_algorithms": "Deterministic algorithms",
    "cudnn_deterministic": "cuDNN deterministic",
    "cudnn_benchmark": "cuDNN benchmark",
    "tf32_matmul": "TF32 in products",
    "tf32_cudnn": "TF32 in cuDNN",
}


# -- methods ------------------------------------------------------------------------------------------------


def methods_section(view: RunView) -> Section:
    """Return every method with its paper, all its parameters, and the digests of its code and files."""
    facts = sorted(
        view.facts.methods, key=lambda one: _KINDS.index(one.kind) if one.kind in _KINDS else len(_KINDS)
    )
    if not facts:
        text = "The run did not record its methods; their names are in the leaderboard."
        return Section("methods", "Methods", (Paragraph(text),))
    columns = (
        Column("Kind"),
        Column("Method"),
        Column("Paper"),
        Column("Parameters", "all of them, those left at their defaults too"),
        Column("Code", "digest of its code and of the project code it imports"),
    )
    rows = tuple(
        (_KIND_NAMES.get(f.kind, f.kind), f.name, *_described(f), f.source[:SHOWN_DIGEST]) for f in facts
    )
    files = tuple((f.name, file, sha256[:SHOWN_DIGEST]) for f in facts for file, sha256 in f.files)
    blocks: list[Block] = [
        Table(
            "Methods of the run. Papers and parameters are those of the methods installed here.",
            columns,
            rows,
        )
    ]
    if files:
        named = (Column("Method"), Column("File"), Column("SHA-256"))
        table = Table("Files and weights that decide the results.", named, files)
        blocks.append(Folded(count(len(files), "file"), (table,)))
    return Section("methods", "Methods", tuple(blocks))


def _described(facts: MethodFacts) -> tuple[str, str]:
    """Return paper and parameters of a method."""
    method = _installed(facts)
    if method is None:
        return "", "not installed here"
    return method.paper, ", ".join(_parameters(method)) or "none"


def _installed(facts: MethodFacts) -> Method | None:
    try:
        return factory.create(facts.kind, facts.text)
    except (BenchError, OSError):
        return None


def _parameters(method: Method) -> Iterator[str]:
    for name, info in type(method.params).model_fields.items():
        extra = info.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        value = factory.as_text(getattr(method.params, name))
        yield f"{name}={value}{f' {unit}' if unit else ''}"


# -- threat models ------------------------------------------------------------------------------------------


def threat_section(view: RunView) -> Section:
    """Return who knew what: attacks and their surrogates, defences and what trained them, overlap of identities."""
    cells = list(view.results.cells.values())
    blocks = [table for table in (_attacks(view, cells), _defenses(cells), _overlaps(cells)) if table.rows]
    if not blocks:
        return Section("threat", "Threat models", (Paragraph("The run has no attack and no defence."),))
    return Section("threat", "Threat models", tuple(blocks))


def _grouped(rows: Iterator[tuple[tuple[str, ...], str]]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for key, name in rows:
        found.setdefault(key, {})[name] = None
    return ((key, list(names)) for key, names in found.items())


def _attacks(view: RunView, cells: list[CellResult]) -> Table:
    installed = {f.name: _installed(f) for f in view.facts.methods if f.kind == "attacks"}
    grouped = _grouped(
        ((c.attack, c.threat.access or "no surrogates", c.threat.surrogates), c.backbone)
        for c in cells
        if c.attack != "none"
    )
    rows = []
    for (attack, access, surrogates), trackers in grouped:
        method = installed.get(attack)
        goal, budget = (
            (method.threat.goal, method.threat.constraint)
            if isinstance(method, Attack)
            else ("not installed here", "")
        )
        rows.append((attack, goal, budget, access, surrogates.replace("|", ", "), ", ".join(trackers)))
    columns = (
        Column("Attack"),
        Column("Goal"),
        Column("Budget"),
        Column("Access", "white-box: the tracker's backbone is a surrogate"),
        Column("Surrogates"),
        Column("Against trackers"),
    )
    return Table("What the attacks knew.", columns, tuple(rows))


def _defenses(cells: list[CellResult]) -> Table:
    grouped = _grouped(
        (
            (
                c.defense,
                c.threat.attack_seen_by_defense,
                c.threat.extractors,
                "yes" if c.threat.extractor_is_tracker else "no",
                in_a_word(c.threat),
            ),
            f"{c.attack} on {c.backbone}",
        )
        for c in cells
        if c.defense != "none" and c.attack != "none"
    )
    rows = []
    for (defense, seen, extractors, own, adaptive), where in grouped:
        attacks = list(dict.fromkeys(one.partition(" on ")[0] for one in where))
        trackers = list(dict.fromkeys(one.partition(" on ")[2] for one in where))
        rows.append(
            (
                defense,
                seen,
                ", ".join(attacks),
                extractors.replace("|", ", "),
                own,
                adaptive,
                ", ".join(trackers),
            )
        )
    columns = (
        Column("Defence"),
        Column("This attack", "seen: the defence was trained on it; not-trained: the defence does not learn"),
        Column("Attacks"),
        Column("Trained with", "backbones whose features it was trained with"),
        Column("Tracker's own", "the tracker's backbone is one of these"),
        Column(
            "Adapted",
            f"exact: the attack is {WORDS['exact']}; partial: {WORDS['partial']}; recipe: it knows how trackers are "
            "hardened, not the weights",
        ),
        Column("Trackers"),
    )
    return Table("What the defences knew.", columns, tuple(rows))


def _overlaps(cells: list[CellResult]) -> Table:
    found: dict[tuple[str, str], int] = {}
    for cell in cells:
        key = (cell.threat.identity_overlap, cell.threat.identity_overlap_detail)
        found[key] = found.get(key, 0) + 1
    rows = tuple((overlap, detail, str(number)) for (overlap, detail), number in found.items())
    columns = (Column("Overlap"), Column("Detail"), Column("Cells", numeric=True))
    return Table(
        "Whether an evaluated identity's photos trained the tracker, the defence or the attack.",
        columns,
        rows,
    )


# -- machine ------------------------------------------------------------------------------------------------


def environment_section(view: RunView) -> Section:
    """Return on what the run was made; names no host and no user, as the run's folder has none."""
    machine = view.folder.machine()
    pairs = tuple(
        (title, _plain(machine[key]))
        for key, title in _ENVIRONMENT.items()
        if machine.get(key) not in (None, "")
    )
    packages = machine.get("packages")
    if isinstance(packages, dict):
        listed = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
        pairs = (*pairs, ("Packages", listed))
    if view.facts.lpips_trunk:
        pairs = (*pairs, ("LPIPS", f"AlexNet, SHA-256 {view.facts.lpips_trunk[:SHOWN_DIGEST]}"))
    elif view.facts.lpips_reason:
        pairs = (*pairs, ("LPIPS", f"NA: {view.facts.lpips_reason}"))
    return Section("environment", "Environment", (Facts(pairs),))


def _plain(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


# -- literature ---------------------------------------------------------------------------------------------


def literature_section(view: RunView) -> tuple[Section, ...]:
    """Return what papers report of the run's methods under the nearest protocol, () where there is nothing."""
    try:
        published = literature.load()
    except DataError:
        return ()  # an installed package has no results/; a report made there has no such section
    methods = {
        _bare(syntax.parse(name).name) for axis in ("attack", "defense") for name in real(view.results, axis)
    }
    protocol = syntax.parse(view.facts.spec.protocol).name
    numbers = [
        number
        for number in published
        if number.protocol == protocol
        and any(name in _bare(f"{number.paper} {number.attack} {number.defense}") for name in methods if name)
    ]
    if not numbers:
        return ()
    columns = (
        Column("Paper"),
        Column("Of what"),
        Column("Measured"),
        Column("Value", numeric=True),
        Column("How it differs from ours"),
        Column("Read in"),
    )
    note = (
        "Others measured these on other identities, against other trackers, mostly without an interval. None of them "
        "enters a rank, a test or a mean here, and that one of ours is lower or higher shows nothing by itself."
    )
    table = Table("Published numbers of the same methods.", columns, tuple(map(_published, numbers)))
    fold = Folded(count(len(numbers), "published number"), (table,))
    return (Section("literature", "What papers report", (Paragraph(note, "note"), fold)),)


def _published(number: PublishedNumber) -> tuple[str, ...]:
    return (
        f"{number.paper} ({number.year})",
        f"attack: {number.attack}; defence: {number.defense}; tracker: {number.tracker}",
        f"{number.metric}; {number.condition}",
        number.text,
        number.differs_from_ours,
        f"{number.quoted_from}{'' if number.checked else ', not read in the source'}",
    )


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
