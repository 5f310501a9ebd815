"""Is a finished run fit for the public leaderboard? The checks, and the files a submission is.

What lives here: what must be true of a run that others will read numbers from, and what is published of it. What must
not: leaks themselves (`bench.integrity.audit`) and digests of files (`bench.integrity.verify`).
"""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bench.analysis.warnings import RowWarnings
from bench.assets import catalogue
from bench.errors import BenchError, DataError, UsageError
from bench.files import StoreError, write_atomically
from bench.integrity import audit, verify
from bench.integrity.rerun import compare_leaderboards
from bench.leaderboard import as_csv, from_decisions, plausible, standing
from bench.leaderboard.merge import CHECKS, Source, read_submission
from bench.leaderboard.table import build
from bench.plugins import factory, syntax
from bench.printable import printable
from bench.publish.page import requested_command
from bench.run import spec
from bench.run.folder import MANIFEST, RunFolder
from bench.run.privacy import Paths
from bench.run.provenance import changed_code, changed_files, describe_methods
from bench.run.resolve import Resolved, resolve
from bench.run.threat import Threats

LEAST_IDENTITIES = 20
"""Least number of identities. With 20 the interval of a rate of 0 reaches 18 per cent; with 10, 34 per
cent, and the least p value of a sign-flip test is 0.002, which is not significant among 26 rows or more."""

NOT_COMPARED = (
    "install the run's methods here, and put its data where they are looked for (CLOAKBENCH_DATA); "
    "`bench doctor` tells what is missing"
)
"""The fix where nothing here could be compared with the run. It is no evidence against the run."""

NEEDED_PACKAGES = ("cloakbench", "numpy", "torch")

Counting = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Requirement:
    """One thing a submission must be.

    Attributes:
        name: what was checked, a few words.
        passed: whether it is so.
        found: what was found, one sentence or some.
        fix: what would make it pass; "" where it does.
    """

    name: str
    passed: bool
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Submission:
    """A run with its checks and what would be published of it.

    Attributes:
        run: digest of the specification; the files are named by it.
        checks: every check, in the order they are described in.
        table: the leaderboard as CSV.
        record: what the JSON file says.
        archive: the decisions, where they are to lie beside the record; else nothing.
    """

    run: str
    checks: tuple[Requirement, ...]
    table: str
    record: dict[str, Any]
    archive: bytes = b""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def files(self) -> dict[str, bytes]:
        """Return file name → content of what is published."""
        named = {f"{self.run}.csv": self.table.encode(), f"{self.run}.json": _as_record(self.record)}
        return {**named, f"{self.run}{from_decisions.ENDING}": self.archive} if self.archive else named


def examine(
    folder: RunFolder,
    by: str = "",
    counting: Counting = lambda _what, _n: nullcontext(lambda _n: None),
    *,
    decisions_url: str = "",
    with_decisions: bool = False,
    against: str = "",
) -> Submission:
    """Check a finished run for the public leaderboard. Nothing is written, here or in the run's folder.

    Args:
        folder: of the run.
        by: who submits it, as it is to be published; "" for nobody.
        counting: (what, photos in all) → context manager that gives the function to count photos with.
        decisions_url: where the run's decisions can be had, as it is to be published; "" for nowhere.
        with_decisions: whether they are to be published beside the record.
        against: the run of the entry that this one is submitted against; "" for none.

    Raises:
        UsageError: the run is on the development split; the address is none, or the decisions are of real people and
            may not lie beside the record.
        DataError: not a finished run's folder, or one of its files cannot be read.
    """
    if decisions_url and not plausible.is_address(decisions_url):
        raise UsageError(f"--decisions {decisions_url} is no {plausible.ADDRESS}.")
    examined = _Examined(folder, by, decisions_url, against)
    if examined.facts.spec.split != plausible.EVALUATED:
        raise UsageError(
            f"{folder.path} is a run on split {examined.facts.spec.split}: choices are made on it, and the leaderboard "
            "is of evaluated identities. Make the same run with --split evaluation and submit that."
        )
    checks = (
        examined.whole(),
        examined.specification(),
        examined.version(),
        examined.packages(),
        examined.code(),
        examined.files(),
        examined.table_of_run(),
        examined.threats(),
        examined.leaks(counting),
        examined.identities(),
        examined.licences(),
        examined.privacy(),
    )
    assert tuple(check.name for check in checks) == CHECKS
    record = {**examined.record, "checks": {check.name: check.found for check in checks}}
    archive = examined.archive() if with_decisions else b""
    return Submission(examined.facts.run, checks, examined.table, record, archive)


def falls(folder: RunFolder, against: str, to: Path) -> tuple[str, ...]:
    """Return which worst cases of an entry a run raises, a sentence each.

    Args:
        folder: of the run.
        against: the entry's run.
        to: folder of the submissions.

    Raises:
        UsageError: there is no such entry, the run cannot be held against it, or raises none of its worst cases.
    """
    record = to / f"{against}.json"
    if not record.is_file():
        there = ", ".join(sorted(path.stem for path in to.glob("*.json"))) or "none"
        raise UsageError(f"'{to}' has no entry '{against}'; there are: {there}.")
    entry = read_submission(record)
    found = tuple(standing.stronger(entry, Source(str(folder.path), build(folder), folder)))
    if not found:
        raise UsageError(
            f"no worst case of {against} is below this run's on the same tracker with the same defence, so that "
            "nothing falls. Submit it without --against."
        )
    return found


def mark(record: Path, marks: Mapping[str, str]) -> None:
    """Write what maintainers say of a submission into its record; its table stays as it is.

    Args:
        record: the JSON file.
        marks: ``unreliable`` or ``footnote`` → a line; "" takes it back.

    Raises:
        UsageError: a text is too long or of several lines.
        DataError: no record.
        StoreError: it cannot be written.
    """
    for name, text in marks.items():
        if len(text) > plausible.LONGEST_TEXT or text != printable(text, plausible.LONGEST_TEXT):
            raise UsageError(f"--{name} takes one line of at most {plausible.LONGEST_TEXT} characters.")
    said = {**plausible.read_record(record), **marks}
    kept = {name: value for name, value in said.items() if name not in marks or value}
    write_atomically(record, _as_record(kept))


def _as_record(said: Mapping[str, Any]) -> bytes:
    return (json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def publish(submission: Submission, to: Path) -> Literal["written", "there"]:
    """Write a submission that passed: all its files, or none.

    Returns:
        ``there`` where the same submission is there already.

    Raises:
        UsageError: a check failed, or another submission of the run is there.
        StoreError: the folder cannot be written.
    """
    if not submission.passed:
        raise UsageError(f"run {submission.run} does not pass every check; nothing is written.")
    files = {to / name: content for name, content in submission.files().items()}
    there = [path for path in files if path.exists()]
    if there:
        if all(path.is_file() and path.read_bytes() == content for path, content in files.items()):
            return "there"
        raise UsageError(
            f"{there[0]} is there already, with other content, and would be written over. Take it away first where "
            "this one is to replace it, or choose another folder with --to."
        )
    made: list[Path] = []
    try:
        for path, content in files.items():
            made.append(path)
            write_atomically(path, content, "--to")
    except (StoreError, KeyboardInterrupt):
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return "written"


@dataclass
class _Examined:
    """A run under examination; what several checks need is read once."""

    folder: RunFolder
    by: str
    decisions_url: str = ""
    against: str = ""
    _unresolved: str = ""
    foreign: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.facts = self.folder.facts()
        self.cells = self.folder.cells()

    @cached_property
    def resolved(self) -> Resolved | None:
        """The run as the plugins here resolve it, None where they cannot; the reason is in `_unresolved`."""
        try:
            return resolve(self.facts.requested)
        except BenchError as error:
            self._unresolved = str(error)
            return None

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        return build(self.folder)

    @cached_property
    def table(self) -> str:
        return as_csv.to_csv(self.leaderboard)

    @cached_property
    def licence_of(self) -> dict[str, str]:
        """Dataset and backbones → licence as stated by their source; those without are left out."""
        known = {entry.name: entry.licence for entry in catalogue.catalogue("dataset")}
        name = syntax.parse(self.facts.spec.dataset).name
        found = {self.facts.spec.dataset: known.get(name, "")}
        if self.resolved is not None:
            if self.resolved.dataset.domain == "synthetic":
                found[self.facts.spec.dataset] = "rendered by the project, Apache-2.0"
            own = {**self.resolved.backbones, **self.resolved.substitutes}
            found |= {name: one.card.licence for name, one in own.items()}
            helpers = {
                helper
                for method in (*self.resolved.attacks.values(), *self.resolved.defenses.values())
                for tracker in self.resolved.backbones
                for helper in self.resolved.helpers(method, tracker)
            }
            found |= {helper: factory.backbone(helper).card.licence for helper in sorted(helpers)}
        return {name: licence for name, licence in found.items() if licence.strip()}

    @cached_property
    def record(self) -> dict[str, Any]:
        """What is published beside the rows."""
        machine = self.folder.machine()
        kept = (
            "python",
            "packages",
            "system",
            "machine",
            "cpu_model",
            "device",
            "cuda",
            "cuda_device",
            "threads",
        )
        return {
            "run": self.facts.run,
            "by": self.by,
            "command": requested_command(self.facts.requested),
            "benchmark_version": self.facts.benchmark_version,
            "requested": self.facts.requested.model_dump(mode="json"),
            "spec": self.facts.spec.model_dump(mode="json"),
            "fingerprint": self.facts.fingerprint,
            "lpips_trunk": self.facts.lpips_trunk,
            "environment": {key: machine[key] for key in kept if key in machine},
            "methods": [
                {**method.model_dump(mode="json"), "foreign": self.foreign.get(method.name, "")}
                for method in self.facts.methods
            ],
            "licences": self.licence_of,
            "folder_sha256": _sha256(self.folder.path / MANIFEST),
            "leaderboard_sha256": sha256(self.table.encode()).hexdigest(),
            "decisions": from_decisions.digests(self.folder, self.cells),
            "decisions_url": self.decisions_url,
            **({"against": self.against} if self.against else {}),
            **({"given_targets": self.facts.given_targets} if self.facts.given_targets else {}),
        }

    def archive(self) -> bytes:
        """Return the decisions as one file; they say of each person on which photos they are recognised.

        Raises:
            UsageError: they are of real people, or it is not known of whom.
            DataError: they are too large.
        """
        if self.resolved is None or self.resolved.dataset.domain != "synthetic":
            why = self._unresolved or f"the faces of {self.facts.spec.dataset} are not drawn"
            raise UsageError(
                f"--with-decisions publishes decisions of drawn faces only: {why}. Those of real people are personal "
                "data, though ids stand for names. Put them where you may give access, and say where with --decisions."
            )
        return from_decisions.archive(self.folder, self.cells)

    # -- checks ----------------------------------------------------------------------------------------------------

    def whole(self) -> Requirement:
        """Every cell of the matrix is there and ok, reference cells included."""
        wanted, _ = spec.cells(self.facts.spec)
        there = {cell.cell: cell for cell in self.cells}
        lacking = [cell for cell in wanted if cell not in there]
        failed = [cell for cell in self.cells if cell.status != "ok"]
        name = "complete matrix"
        if not (lacking or failed):
            return Requirement(name, True, f"all {len(wanted)} cells are there, reference cells included")
        said = (
            [f"{len(failed)} cells failed, e.g. {_cell(failed[0].cell)}: {failed[0].reason}"]
            if failed
            else []
        )
        said += [f"{len(lacking)} cells are not there, e.g. {_cell(lacking[0])}"] if lacking else []
        return Requirement(
            name, False, "; ".join(said), "fix what failed and give the same `bench run` command again"
        )

    def specification(self) -> Requirement:
        """Name, canonical form and cells are what was requested gives, as the runner makes them."""
        name = "run of its specification"
        if self.resolved is None:
            return Requirement(name, False, f"not compared: {self._unresolved}", NOT_COMPARED)
        try:
            wrong = list(self._not_as_requested(self.resolved))
        except BenchError as error:
            return Requirement(name, False, f"not compared: {error}", NOT_COMPARED)
        if not wrong:
            return Requirement(name, True, f"what was requested gives run {self.facts.run} and its cells")
        fix = "take the files of the run back, or make the run again with the photos it names"
        return Requirement(name, False, "; ".join(wrong), fix)

    def _not_as_requested(self, run: Resolved) -> Iterator[str]:
        facts = self.facts
        if facts.spec != run.spec:
            yield "the canonical form in spec.json is not that of the specification as requested"
        if facts.run != run.digest:
            yield f"the folder says run {facts.run}, and what was requested is run {run.digest} with the photos here"
        times = Counter(cell.cell for cell in self.cells)
        requested = {cell.cell: cell.requested for cell in self.cells}
        wrong = [
            cell
            for cell, number in times.items()
            if number > 1 or cell not in run.cells or requested[cell] != (cell in run.cells_requested)
        ]
        if wrong:
            yield f"{len(wrong)} cells are not those of the matrix, e.g. {_cell(wrong[0])}"

    def version(self) -> Requirement:
        """The run was made with the benchmark's present version."""
        then, now = self.facts.benchmark_version, spec.BENCHMARK_VERSION
        if then == now:
            return Requirement("benchmark version", True, f"version {now}")
        found = f"the run has version {then}, the leaderboard {now}"
        return Requirement(
            "benchmark version", False, found, "make the run again with this version of CloakBench"
        )

    def packages(self) -> Requirement:
        """The versions of packages are recorded."""
        packages = self.folder.machine().get("packages") or {}
        lacking = [name for name in NEEDED_PACKAGES if not packages.get(name)]
        name = "packages recorded"
        if not lacking:
            said = ", ".join(f"{package} {packages[package]}" for package in NEEDED_PACKAGES)
            return Requirement(name, True, f"{len(packages)} packages, among them {said}")
        return Requirement(
            name, False, f"no version of {', '.join(lacking)} in environment.json", "make the run again"
        )

    def code(self) -> Requirement:
        """The code of every method is recorded; code that is not this tree's is named as foreign."""
        name, recorded = "code recorded", self.facts.methods
        texts = {("attacks", text) for text in self.facts.requested.attacks}
        texts |= {("defenses", text) for text in self.facts.requested.defenses}
        texts |= {("datasets", self.facts.requested.dataset), ("protocols", self.facts.requested.protocol)}
        lacking = sorted(text for kind, text in texts - {(m.kind, m.text) for m in recorded})
        if lacking or not all(re.fullmatch(r"[0-9a-f]{64}", method.source) for method in recorded):
            found = f"no digest of the code of {', '.join(lacking) or 'some methods'} in spec.json"
            return Requirement(name, False, found, "make the run again with this version of CloakBench")
        try:
            self.foreign = self._foreign()
        except BenchError as error:
            return Requirement(name, False, f"not compared with this tree: {error}", NOT_COMPARED)
        if not self.foreign:
            return Requirement(
                name, True, f"the code and files of {len(recorded)} methods are those of this tree"
            )
        said = f"{len(recorded)} methods, of which {len(self.foreign)} are foreign, not as in this tree: "
        return Requirement(name, True, said + ", ".join(self.foreign))

    def _foreign(self) -> dict[str, str]:
        """Return the methods that are not those of this tree, with what differs.

        Raises:
            BenchError: nothing can be compared, as a plugin, weights or data are not here.
        """
        if self.resolved is None:
            raise DataError(self._unresolved)
        recorded, now = self.facts.methods, describe_methods(self.resolved)
        files = changed_files(recorded, now)
        return dict.fromkeys(changed_code(recorded, now), "other code") | dict.fromkeys(files, "other files")

    def files(self) -> Requirement:
        """Every file of the folder is as the run wrote it."""
        name = "files as written"
        try:
            found = verify.check_files(self.folder)
        except DataError as error:
            return Requirement(
                name, False, str(error), "give the same `bench run` command again; it writes the manifest"
            )
        differ = [check for check in found if check.state == "differs"]
        if not differ:
            same = sum(check.state == "same" for check in found)
            return Requirement(name, True, f"{same} files have the digests of the manifest")
        said = f"{len(differ)} files differ from the manifest, e.g. {differ[0].name}: {differ[0].detail}"
        return Requirement(
            name, False, said, "take the files of the run back, or give the same `bench run` command again"
        )

    def table_of_run(self) -> Requirement:
        """The run's own leaderboard is what its decisions give; columns added since are no difference."""
        name, path = "rows from decisions", self.folder.path / "leaderboard.csv"
        if not path.is_file():
            return Requirement(
                name,
                False,
                "the folder has no leaderboard.csv to compare the decisions with",
                "give the same `bench run` command again; it writes the table",
            )
        try:
            there = as_csv.read_csv(path)
        except DataError as error:
            return Requirement(
                name, False, str(error), "give the same `bench run` command again; it writes the table"
            )
        written = as_csv.columns_in(path.read_text(encoding="utf-8"), str(path))
        made = as_csv.from_csv(self.table, "the rows")
        differ = compare_leaderboards(there[written], made[written])
        if not differ:
            return Requirement(name, True, f"{len(self.leaderboard)} rows, as in the run's own table")
        first = differ[0]
        said = f"{len(differ)} values are others in leaderboard.csv, e.g. {first.row}: {first.column or 'the row'}"
        return Requirement(
            name,
            False,
            f"{said}: {first.first!r}, and decisions and measures give {first.second!r}",
            "give the same `bench run` command again; it writes the table with this version's rules",
        )

    def threats(self) -> Requirement:
        """The threat model of every row is what the methods here give, or a stronger mark."""
        name = "threat models"
        if self.resolved is None:
            return Requirement(name, False, f"not compared: {self._unresolved}", NOT_COMPARED)
        split, there = self.folder.split(), frozenset(self.resolved.cells)
        known = Threats(self.resolved, frozenset({*split.gallery, *split.probes}))
        try:
            wrong = [
                f"{_cell(cell.cell)}: {said}"
                for cell in self.cells
                if cell.cell in there
                for said in audit.wrong_marks(cell.threat, known.of(cell.cell))
            ]
        except BenchError as error:
            return Requirement(name, False, f"not compared: {error}", NOT_COMPARED)
        if not wrong:
            return Requirement(name, True, f"those of {len(self.cells)} cells are what the methods here give")
        said = f"{len(wrong)} marks are not what the methods here give, e.g. {wrong[0]}"
        return Requirement(name, False, said, "take cells.json of the run back, or make the run again")

    def leaks(self, counting: Counting) -> Requirement:
        """The audit finds no unmarked leak, and no kind of leak that could not be checked at all."""
        name, found = "audit clean", audit.audit(self.folder, counting=counting)
        leaks = sum(finding.severity == "leak" for finding in found.findings)
        if found.unmarked:
            first = found.unmarked[0]
            said = f"{len(found.unmarked)} leaks are unmarked, e.g. {first.kind}: {first.evidence}"
            return Requirement(name, False, said, f"make the run again; its rows will say {first.column}")
        if found.blind:
            missed = found.blind[0]
            said = f"not audited: {missed.what}: {missed.reason}"
            return Requirement(
                name, False, said, "install the plugins and fetch the photos the run was made with"
            )
        marked = f"{leaks} leaks, each marked in its rows" if leaks else "no leak"
        return Requirement(name, True, f"{marked}; {len(found.unchecked)} things could not be looked up")

    def identities(self) -> Requirement:
        """Every row has enough identities for a usable interval and test power."""
        split = self.folder.split()
        count = len(split.probes)
        if count >= LEAST_IDENTITIES:
            return Requirement("enough identities", True, f"{count} identities")
        return Requirement(
            "enough identities",
            False,
            f"{count} identities, fewer than {LEAST_IDENTITIES}",
            "make the run with more identities (--identities); `bench power` says how many a question needs",
        )

    def licences(self) -> Requirement:
        """The licence of photos and backbones is stated, or it is stated that there is none."""
        name, known = "licences stated", self.licence_of
        lacking = [
            item for item in (self.facts.spec.dataset, *self.facts.spec.backbones) if item not in known
        ]
        if not lacking:
            return Requirement(name, True, f"of {len(known)} data sets and backbones")
        why = f" ({self._unresolved})" if self._unresolved else ""
        fix = "state it in the backbone's card, or use a data set of the catalogue (`bench data list`)"
        return Requirement(name, False, f"none is known of {', '.join(lacking)}{why}", fix)

    def privacy(self) -> Requirement:
        """Nothing that is published names the machine, its user or a folder of it."""
        name = "no names, no paths"
        told = list(self._told())
        if not told:
            return Requirement(name, True, "no absolute path and no name of this machine or its user")
        said = f"{len(told)} texts would tell where files lie or on whose machine, e.g. {told[0]!r}"
        fix = "make the run with paths relative to the folder it is started in, and --by without them"
        return Requirement(name, False, said, fix)

    def _told(self) -> Iterator[str]:
        paths, own = Paths.of(self.facts), _own_names()
        texts = {
            as_csv.as_text(value)
            for column in self.leaderboard.columns
            for value in self.leaderboard[column].unique()
            if isinstance(value, str | RowWarnings)
        }
        for text in sorted({*texts, *_strings(self.record)}):
            if paths.shortened(text) != text or any(own_name.search(text) for own_name in own):
                yield text


def _own_names() -> list[re.Pattern[str]]:
    """Return patterns of what names this machine and its user; names everybody has are no names."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without an entry
        user = ""
    common = {"", "root", "user", "admin", "localhost", "runner", "ubuntu", "debian"}
    names = {name for name in (user, socket.gethostname(), Path.home().name) if name.lower() not in common}
    return [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE) for name in names if len(name) > 3]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _cell(cell: spec.Cell) -> str:
    return " × ".join(str(part) for part in cell)


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
