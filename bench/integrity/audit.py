"""Which leakage a finished run has, and whether its rows say so.

Everything is looked up anew, from the run's folder and the plugins and photos installed here; the marks in the rows
are only compared with what was found. What cannot be looked up is listed as not checked, never as clean.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from bench.analysis.warning_rules import SAME_PHOTO_SHARE
from bench.contracts import Dataset, Defense, with_parts
from bench.errors import BenchError
from bench.integrity.consistency import called
from bench.plugins import factory
from bench.quality import near_duplicates
from bench.quality.near_duplicates import Fingerprints, NearDuplicate
from bench.run import calls, photo_sets, resolve
from bench.run.folder import CellResult, RunFolder, split_json
from bench.run.model_time import NOT_RECORDED
from bench.run.provenance import changed_code, changed_files, describe_methods
from bench.run.resolve import Resolved
from bench.run.roles import learnt_from
from bench.run.spec import Cell
from bench.run.threat import CellThreat, Threats

SHOWN_PAIRS = 5
"""Pairs of near-duplicates that evidence names; the number is always there."""

_STRONGER = {
    "attack_seen_by_defense": ("seen-with-other-parameters", "seen"),
    "identity_overlap": ("no", "unknown", "yes"),
}
"""Mark → its values, each a stronger caution than those before it."""

Counting = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Leak:
    """One leakage.

    Attributes:
        kind: what leaks.
        severity: leak, or notice where it is too small to move a rate by `SAME_PHOTO_SHARE`.
        marked: whether the rows of these cells say so.
        column: the column that says so, or that should, with the value that would.
        cells: the cells concerned, as read; empty: all of the run.
        evidence: what was found, by opaque ids only.
    """

    kind: str
    severity: Literal["leak", "notice"]
    marked: bool
    column: str
    cells: tuple[str, ...]
    evidence: str


@dataclass(frozen=True)
class Unchecked:
    """Something that could not be looked up.

    Attributes:
        what: what was not checked.
        reason: why.
        wholly: True where nothing of the kind could be looked up, for no cell.
    """

    what: str
    reason: str
    wholly: bool = False


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        findings: every leakage.
        unchecked: what could not be looked up.
        photos: which photos were compared with each other; "" where none were.
    """

    findings: tuple[Leak, ...]
    unchecked: tuple[Unchecked, ...]
    photos: str = ""

    @property
    def unmarked(self) -> tuple[Leak, ...]:
        """The leaks that no row is marked with."""
        return tuple(f for f in self.findings if f.severity == "leak" and not f.marked)

    @property
    def blind(self) -> tuple[Unchecked, ...]:
        """What could not be looked up for any cell, so that no finding is no evidence."""
        return tuple(missed for missed in self.unchecked if missed.wholly)

    @property
    def exit_code(self) -> int:
        """1: a leak is unmarked; 2: none is, but a whole kind could not be looked up; 0: neither."""
        return 1 if self.unmarked else 2 if self.blind else 0


def wrong_marks(recorded: CellThreat, now: CellThreat) -> list[str]:
    """Return in what a row's threat model differs from the one found now, one clause each.

    A stronger caution than what is found is no difference: it only warns of more.
    """
    # Reasons may be worded otherwise, and earlier versions had no dates.
    left_out = {"identity_overlap_detail", "model_time_reason"}
    left_out |= {"model_time"} if recorded.model_time_reason == NOT_RECORDED else set()
    then, found = recorded.model_dump(exclude=left_out), now.model_dump()
    return [
        f"{name} is {value!r}, found is {found[name]!r}"
        for name, value in then.items()
        if not _covers(name, value, found[name])
    ]


def _covers(name: str, recorded: object, found: object) -> bool:
    """Return whether a mark is what was found, or a stronger caution."""
    order = _STRONGER.get(name, ())
    return recorded == found or (
        recorded in order and found in order and order.index(recorded) > order.index(found)
    )


def audit(
    folder: RunFolder,
    *,
    images: bool = True,
    all_images: bool = False,
    counting: Counting = lambda _what, _n: nullcontext(lambda _n: None),
) -> Audit:
    """Return every leakage of a run that can be found.

    Args:
        folder: a finished run.
        images: whether to look for near-duplicate photos, which reads the photos that the run used.
        all_images: whether to look among all photos of the dataset instead.
        counting: (what, photos in all) → context manager that gives the function to count photos with.

    Raises:
        DataError: not a run's folder, or a file of it is damaged.
    """
    auditor = _Auditor(folder)
    auditor.names()
    if auditor.run is not None:
        auditor.backbones()
        auditor.attacks_seen()
        auditor.methods()
        if auditor.same_photos:
            auditor.training()
            auditor.impostors()
        if auditor.same_photos and images:
            auditor.photos(auditor.run, counting, everything=all_images)
    if not images:
        auditor.miss("near-duplicate photos", "left out by --no-images")
    return auditor.result()


@dataclass
class _Auditor:
    """Collects findings; those that differ in nothing but the cell become one."""

    folder: RunFolder
    cells: tuple[tuple[Cell, CellResult], ...] = ()
    known: tuple[tuple[Cell, CellResult], ...] = ()
    run: Resolved | None = None
    same_photos: bool = False
    looked_at: str = ""
    _found: dict[tuple[str, Literal["leak", "notice"], bool, str, str], list[str]] = field(
        default_factory=dict
    )
    _missed: dict[str, Unchecked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.facts, self.split = self.folder.facts(), self.folder.split()
        self.cells = tuple((result.cell, result) for result in self.folder.cells())
        self.evaluated = frozenset({*self.split.gallery, *self.split.probes})
        try:
            run = resolve.resolve(self.facts.requested)
            fingerprint = run.dataset.fingerprint()
            split = run.split
        except BenchError as error:
            self.miss("weights, training identities and photos", str(error), wholly=True)
            return
        self.same_photos = self.facts.fingerprint in ("", fingerprint)
        if not self.same_photos:
            reason = f"the photos here are not the run's: their fingerprint is {fingerprint[:16]}…, it was "
            self.miss(
                "training identities and photos", f"{reason}{self.facts.fingerprint[:16]}…", wholly=True
            )
        if split_json(split) != split_json(self.split):
            self.same_photos = False
            self.miss(
                "training identities and photos", "splits.json is not what the protocol gives", wholly=True
            )
        self.run, self.threats = run, Threats(run, self.evaluated)
        self._compare_cells(run)

    def _compare_cells(self, run: Resolved) -> None:
        """Leave out the cells that the run cannot have; `bench verify` judges the folder."""
        there = {cell for cell, _ in self.cells}
        for cell in sorted(there - {*run.cells}):
            self.miss(f"{called(cell)}", "cells.json has it, and it is no cell of the specification")
        for cell in run.cells:
            if cell not in there:
                self.miss(f"{called(cell)}", "cells.json lacks this cell of the run")
        self.known = tuple((cell, result) for cell, result in self.cells if cell in {*run.cells})
        if not self.known:
            self.miss("weights, training identities", "cells.json has no cell of the run", wholly=True)

    def miss(self, what: str, reason: str, *, wholly: bool = False) -> None:
        """Note something that could not be looked up."""
        self._missed.setdefault(what, Unchecked(what, reason, wholly))

    def methods(self) -> None:
        """Compare the installed methods with those of the run: what they declare is of the installed version."""
        then = self.facts.methods
        if not then:
            self.miss("whether methods are those of the run", "the run did not record their code")
            return
        try:
            now = describe_methods(self._run)
        except BenchError as error:
            self.miss("whether methods are those of the run", str(error))
            return
        for name in changed_code(then, now):
            self.miss(
                f"{name} as it was in the run",
                "its code is another now; surrogates, training identities and budgets are those it names now",
            )
        for name, sentence in changed_files(then, now).items():
            self.miss(f"files of {name} as they were in the run", sentence)

    def note(
        self,
        kind: str,
        evidence: str,
        *,
        marked: bool,
        column: str,
        cell: Cell | None = None,
        severity: Literal["leak", "notice"] = "leak",
    ) -> None:
        """Note a finding about one cell, or about the whole run."""
        cells = self._found.setdefault((kind, severity, marked, column, evidence), [])
        if cell is not None:
            cells.append(called(cell))

    def result(self) -> Audit:
        """Return what was noted: the unmarked first, then leaks, then notices."""
        found = [
            Leak(kind, severity, marked, column, tuple(cells), evidence)
            for (kind, severity, marked, column, evidence), cells in self._found.items()
        ]
        found.sort(key=lambda finding: (finding.severity != "leak", finding.marked, finding.kind))
        return Audit(tuple(found), tuple(self._missed.values()), self.looked_at)

    # -- backbones -------------------------------------------------------------------------------------

    def names(self) -> None:
        """Compare the names a row itself gives, which needs nothing installed."""
        for cell, result in self.cells:
            threat = result.threat
            for own in self._trackers(cell):
                if own in threat.surrogates.split("|"):
                    self._surrogate(cell, result, f"surrogate {own} has the tracker's name")
                if own in threat.extractors.split("|"):
                    self._extractor(cell, result, f"extractor {own} has the tracker's name")

    def _trackers(self, cell: Cell) -> tuple[str, ...]:
        """Return the backbones that the cell's tracker embeds with; the row's where its defence cannot be asked."""
        if self.run is None or cell.defense not in self.run.defenses:
            return (cell.backbone,)
        try:
            return self.threats.trackers(cell)
        except BenchError:
            return (cell.backbone,)

    def _surrogate(self, cell: Cell, result: CellResult, evidence: str) -> None:
        marked = result.threat.access == "white-box"
        self.note("surrogate is the tracker", evidence, marked=marked, column="access = white-box", cell=cell)

    def _extractor(self, cell: Cell, result: CellResult, evidence: str) -> None:
        self.note(
            "defence trained with the tracker's features",
            evidence,
            marked=result.threat.extractor_is_tracker,
            column="extractor_is_tracker = True",
            cell=cell,
        )

    def backbones(self) -> None:
        """Compare surrogates, extractors and tracker by name, weights and family."""
        for cell, result in self.known:
            try:
                self._backbones_of(cell, result)
            except BenchError as error:
                self.miss(f"backbones of {cell.attack} × {cell.defense} × {cell.backbone}", str(error))

    def _backbones_of(self, cell: Cell, result: CellResult) -> None:
        run, threats, marks = self._run, self.threats, result.threat
        surrogates = run.helpers(run.attacks[cell.attack], cell.backbone)
        extractors = threats.extractors(cell)
        for own in threats.trackers(cell):
            for name in threats.same_weights(surrogates, own):
                self._surrogate(cell, result, self._sameness("surrogate", name, own))
            for name in threats.same_weights(extractors, own):
                self._extractor(cell, result, self._sameness("extractor", name, own))
        if not any((surrogates, extractors)):
            return
        now = threats.of(cell)
        for kind, column, found, marked in (
            ("surrogate or extractor of the tracker's family", "related", now.related, marks.related),
            (
                "surrogates and extractors overlap",
                "extractors_are_surrogates",
                now.extractors_are_surrogates,
                marks.extractors_are_surrogates,
            ),
        ):
            if found:
                names = "|".join(dict.fromkeys((*surrogates, *extractors)))
                self.note(
                    kind,
                    f"{names} for tracker {cell.backbone}",
                    marked=marked,
                    column=f"{column} = True",
                    cell=cell,
                )

    def _sameness(self, role: str, name: str, tracker: str) -> str:
        if name == tracker:
            return f"{role} {name} has the tracker's name"
        shared = min(self.threats.weights(name) & self.threats.weights(tracker))
        return f"{role} {name} has the weights of tracker {tracker}, SHA-256 {shared[:16]}…"

    @cached_property
    def changed(self) -> frozenset[str]:
        """The methods whose code is another than the run's; none where that is unknown."""
        try:
            return frozenset(changed_code(self.facts.methods, describe_methods(self._run)))
        except BenchError:
            return frozenset()

    @property
    def _run(self) -> Resolved:
        assert self.run is not None
        return self.run

    # -- training --------------------------------------------------------------------------------------

    def attacks_seen(self) -> None:
        """Compare a cell's attack with those the defence saw, and whether it knows the defence."""
        for cell, result in self.known:
            try:
                self._seen_attack(cell, result)
            except BenchError as error:
                self.miss(f"attacks that trained {cell.defense}", str(error))

    def training(self) -> None:
        """Compare evaluated identities with those each part was trained on."""
        for cell, result in self.known:
            try:
                for part, source in self._sources(cell):
                    self._identities_of(cell, result, part, source)
            except BenchError as error:
                self.miss(f"training of {cell.attack} × {cell.defense} × {cell.backbone}", str(error))

    def _seen_attack(self, cell: Cell, result: CellResult) -> None:
        now = self.threats.of(cell)
        marks = result.threat
        seen = now.attack_seen_by_defense
        if seen in _STRONGER["attack_seen_by_defense"]:
            marked = _covers("attack_seen_by_defense", marks.attack_seen_by_defense, seen)
            if not marked and not self.changed.isdisjoint((cell.attack, cell.defense)):
                self.miss(
                    f"whether {cell.defense} saw {cell.attack} in training",
                    f"it cannot be compared: their code is another now; it is {seen} now, and the row says "
                    f"{marks.attack_seen_by_defense or 'nothing'}",
                )
            else:
                self._note_seen(cell, seen, marked=marked)
        if now.attack_adapts_to_defense:
            self.note(
                "attack made against this defence",
                f"{cell.attack} knows {cell.defense}",
                marked=marks.attack_adapts_to_defense,
                column="attack_adapts_to_defense = True",
                cell=cell,
            )
        if now.attack_adapts_in_part:
            self.note(
                "attack made against a part of this defence",
                f"{cell.attack} knows a part of {cell.defense}, or a whole that shares one",
                marked=marks.attack_adapts_in_part,
                column="attack_adapts_in_part = True",
                cell=cell,
            )

    def _note_seen(self, cell: Cell, seen: str, *, marked: bool) -> None:
        self.note(
            "defence trained on this attack",
            f"{cell.defense} saw {cell.attack} in training ({seen})",
            marked=marked,
            column=f"attack_seen_by_defense = {seen}",
            cell=cell,
        )

    def _sources(self, cell: Cell) -> Iterator[tuple[str, str]]:
        yield from self.threats.training_sources(cell)
        run = self._run
        attack = run.attacks[cell.attack]
        if (
            attack.threat.needs_targets and not attack.edits_others
        ):  # decoys imitate the identities that are evaluated
            yield "targets", learnt_from(run.spec.dataset, run.spec.split)
        defense = run.defenses[cell.defense]
        for part, binding in with_parts(defense, run.binding(defense, cell.backbone)):
            if not isinstance(part, Defense) or not part.files(binding):
                continue
            if part.training_identities(binding) == "none":
                self.miss(
                    f"identities that trained {factory.canonical(part)}",
                    "it has weights of its own and says that no photos trained it",
                )

    def _identities_of(self, cell: Cell, result: CellResult, part: str, source: str) -> None:
        found = self.threats.source_overlap(source)
        who = {"tracker": cell.backbone, "defence": cell.defense}.get(part, cell.attack)
        recorded = result.threat.identity_overlap
        if found.overlap == "yes":
            self.note(
                f"evaluated identities among the {part}'s"
                + ("" if part == "targets" else " training identities"),
                f"{who}: {found.detail}, e.g. {', '.join(found.identities[:SHOWN_PAIRS])}",
                marked=recorded == "yes",
                column="identity_overlap = yes",
                cell=cell,
            )
        elif found.overlap == "unknown":
            self.miss(f"identities that trained {part} {who}", found.detail)
            if recorded == "no":
                self.note(
                    "row marked no identity overlap where it is unknown",
                    f"{part} {who}: {found.detail}",
                    marked=False,
                    column="identity_overlap = unknown",
                    cell=cell,
                )

    def impostors(self) -> None:
        """Compare evaluated identities with those that thresholds and distractors come from."""
        try:
            identities = self._run.impostors
        except BenchError as error:
            self.miss("identities of thresholds and distractors", str(error))
            return
        shared = sorted(self.evaluated.intersection(identities))
        for cell, result in self.known if shared else ():
            self.note(
                "thresholds calibrated on evaluated identities",
                f"{len(shared)} of {len(identities)} identities behind thresholds and distractors are evaluated, e.g. "
                f"{', '.join(shared[:SHOWN_PAIRS])}",
                marked=result.threat.impostor_overlap == "yes",
                column="impostor_overlap = yes",
                cell=cell,
            )

    # -- photos ----------------------------------------------------------------------------------------

    def photos(self, run: Resolved, counting: Counting, *, everything: bool) -> None:
        """Look for near-duplicates between gallery and probes, and between evaluated and other identities' photos."""
        try:
            self._photos(run, counting, self._others(run) if everything else self._used(run))
        except BenchError as error:
            self.miss("near-duplicate photos", str(error))

    def _others(self, run: Resolved) -> list[str]:
        """Return the photos of all training identities."""
        training = calls.identities(run.dataset, "training")
        return [photo for who in training if who.id not in self.evaluated for photo in who.photos]

    def _used(self, run: Resolved) -> list[str]:
        """Return the photos of training identities that some stage of the run read."""
        attacks, defenses = run.attacks.values(), run.defenses.values()
        purposes: list[photo_sets.Purpose] = []
        purifiers = [purifier for each in defenses for purifier in each.purifiers]
        fitted = [each.requires_fit for each in attacks] + [each.requires_fit for each in purifiers]
        if any(fitted) or any(each.hardening is not None for each in defenses):
            purposes.append("training")
        asked = any(view.photos == "targets" for view in run.protocol.views.values())
        named = set(run.given_targets.values()) - run.split.gallery.keys()
        given = [
            (photo, one.id)
            for one in run.roles.others
            if one.id in named
            for photo in (*photo_sets.shown_photos(one), *photo_sets.held_out_photos(one))
        ]
        if not named and any(attack.threat.needs_targets and not attack.edits_others for attack in attacks):
            purposes.append("targets")
        if not named and asked:
            purposes.append("held-out targets")
        training = run.roles.others if purposes else ()
        drawn = [
            photo
            for each in purposes
            for photo in photo_sets.training_photos(training, each, run.spec.split_seed)
        ]
        impostors = [(photo, who) for who, photos in run.impostors.items() for photo in photos]
        return [
            photo for photo, who in dict.fromkeys((*impostors, *drawn, *given)) if who not in self.evaluated
        ]

    def _photos(self, run: Resolved, counting: Counting, others: Sequence[str]) -> None:
        gallery, probes = (_photos_of(part) for part in (self.split.gallery, self.split.probes))
        own = list(dict.fromkeys((*gallery, *probes)))
        left = len(self._others(run)) - len(others)
        self.looked_at = (
            f"{len(own)} photos of {len(self.evaluated)} evaluated identities, and {len(others)} of training identities"
            + (
                f"; {left} more of these, which no stage of the run read, were not looked at"
                if left > 0
                else ""
            )
        )
        with counting("photos", len(own) + len(others)) as advance:
            prints = near_duplicates.fingerprint_photos(run.dataset, [*own, *others], advance)
        evaluated = prints.subset(own)
        self._duplicates(
            "near-duplicates between gallery and probes",
            near_duplicates.near_duplicates(prints.subset(probes), prints.subset(gallery)),
            len(probes),
            "probes",
        )
        self._duplicates(
            "near-duplicates between evaluated identities and those of training, thresholds and targets",
            near_duplicates.near_duplicates(evaluated, prints.subset(others)),
            len(own),
            "photos of evaluated identities",
        )
        for source in sorted(self._sources_elsewhere()):
            self._duplicates_elsewhere(source, evaluated, counting)

    def _duplicates(self, kind: str, pairs: Sequence[NearDuplicate], among: int, unit: str) -> None:
        if not pairs:
            return
        touched = len({pair.first for pair in pairs})
        share = touched / among
        self.note(
            kind,
            f"{touched} of {among} {unit} ({100 * share:.2f} %), within {near_duplicates.MAX_HAMMING} of 64 bits and a "
            f"correlation of {near_duplicates.MIN_CORRELATION}: {_some(pairs)}",
            marked=near_duplicates.stated_in(self.facts.dataset_note) >= touched,
            column=f"dataset_note: holds {touched} near-duplicate photos",
            severity="leak" if share >= SAME_PHOTO_SHARE else "notice",
        )

    def _sources_elsewhere(self) -> set[str]:
        """Return the sources whose identities have other ids than this dataset's, so that only photos can tell."""
        found = set()
        for cell, _ in self.known:
            for _part, source in self.threats.training_sources(cell):
                if self.threats.source_overlap(source).overlap == "unknown":
                    found.add(source)
        return found

    def _duplicates_elsewhere(self, source: str, evaluated: Fingerprints, counting: Counting) -> None:
        try:
            dataset, identities = self.threats.identities_of(source)
        except BenchError:
            return  # reported where identities are compared
        photos = [photo for identity in identities for photo in identity.photos]
        pairs = near_duplicates.near_duplicates(evaluated, _hashed(dataset, photos, counting))
        for cell, result in self.known:
            if pairs and source in dict(self.threats.training_sources(cell)).values():
                self.note(
                    "photos of evaluated identities in training data",
                    f"{len({pair.first for pair in pairs})} photos are in '{source}' too: {_some(pairs)}",
                    marked=result.threat.identity_overlap == "yes",
                    column="identity_overlap = yes",
                    cell=cell,
                )


def _hashed(dataset: Dataset, photos: Sequence[str], counting: Counting) -> Fingerprints:
    with counting(f"photos of {factory.canonical(dataset)}", len(photos)) as advance:
        return near_duplicates.fingerprint_photos(dataset, photos, advance)


def _photos_of(identities: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [photo for photos in identities.values() for photo in photos]


def _some(pairs: Iterable[NearDuplicate]) -> str:
    ordered = sorted(pairs, key=lambda pair: -pair.correlation)
    shown = [
        f"{p.first} and {p.second} ({p.hamming} bits, {p.correlation:.3f})" for p in ordered[:SHOWN_PAIRS]
    ]
    rest = len(ordered) - len(shown)
    return "; ".join(shown) + (f"; and {rest} more pairs" if rest else "")
