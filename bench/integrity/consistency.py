"""Is a run's folder what its specification and its artefacts give? Computes nothing that the store does not hold.

The manifest cannot tell that: whoever changes a file can write it anew.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, NoReturn

from bench.errors import DataError
from bench.quality import per_image
from bench.run import decision_files
from bench.run import folder as run_folder
from bench.run.folder import CellResult, RunFolder
from bench.run.graph import Executor, Node, NodeError
from bench.run.model_time import NOT_RECORDED
from bench.run.outputs import Outputs
from bench.run.planning import Prepared
from bench.run.provenance import changed_code, changed_files, describe_methods
from bench.run.spec import Cell
from bench.run.store import Record, Store, read_record

State = Literal["same", "differs", "absent", "unchecked", "extra"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        kind: file, extra, leaderboard, specification, split, entry, cell, images, diagnosis, artefact, recomputed cell
            or recomputed artefact.
        name: which.
        state: same, differs, absent (not in this store, so that there was nothing to check), unchecked (cannot be
            checked any more, as code has changed), or extra (no part of the run).
        detail: how it differs, or why it is not checked.
    """

    kind: str
    name: str
    state: State
    detail: str = ""


class UntouchedStore(Store):
    """A store that is only looked at: what is damaged stays where it is, and counts as absent."""

    def record(self, stage: str, address: str) -> Record | None:
        """Return what is known of an artefact, or None where there is none or its record is damaged."""
        try:
            return read_record(self.paths(stage, address)[1])
        except (OSError, ValueError, TypeError):
            return None

    def read(self, stage: str, address: str) -> bytes | None:
        """Return the payload, or None where there is none or it is not what was written."""
        record = self.record(stage, address)
        try:
            payload = self.paths(stage, address)[0].read_bytes()
        except OSError:
            return None
        return payload if record and sha256(payload).hexdigest() == record.sha256 else None

    def write(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse.

        Raises:
            PermissionError: always.
        """
        raise PermissionError(f"{self.folder} is only looked at")


class _Reader(Executor):
    """Gives what the store holds, and makes nothing."""

    def _compute(self, node: Node) -> NoReturn:
        raise NodeError(f"{node.stage} {node.label} is not in this store")

    def holds(self, nodes: Sequence[Node]) -> bool:
        return all(self.store.state(node.stage, node.address) == "whole" for node in nodes)


def called(cell: Cell) -> str:
    """Return a cell as reports name it."""
    return f"{cell.attack} × {cell.defense} × {cell.backbone} × {cell.head} × seed {cell.seed}"


def known_cells(folder: RunFolder, prepared: Prepared) -> dict[Cell, CellResult]:
    """Return the finished cells of a folder that its specification has."""
    return {
        result.cell: result
        for result in folder.cells()
        if result.status == "ok" and result.decisions and result.cell in prepared.nodes
    }


# -- what the specification gives ----------------------------------------------------------------------


def check_plan(folder: RunFolder, prepared: Prepared) -> list[Check]:
    """Compare what was planned with what the folder says: canonical specification, split, cells and their marks."""
    facts, run = folder.facts(), prepared.run
    found = []
    for name, then, now in (
        ("canonical form", facts.spec, run.spec),
        ("note of the dataset", facts.dataset_note, run.dataset.note),
        (
            "fingerprint of the photos",
            facts.fingerprint or run.dataset.fingerprint(),
            run.dataset.fingerprint(),
        ),
    ):
        same = then == now
        detail = "" if same else "it is not what the requested specification gives"
        found.append(Check("specification", name, "same" if same else "differs", detail))
    return [*found, _check_split(folder, prepared), *_check_entries(folder, prepared)]


def _check_split(folder: RunFolder, prepared: Prepared) -> Check:
    there, wanted = run_folder.split_json(folder.split()), run_folder.split_json(prepared.run.split)
    wrong = [name for name in wanted if there[name] != wanted[name]]
    detail = f"{', '.join(wrong)} are not what the protocol gives" if wrong else ""
    return Check("split", "splits.json", "differs" if wrong else "same", detail)


def _check_entries(folder: RunFolder, prepared: Prepared) -> Iterator[Check]:
    results = folder.cells()
    times = Counter(result.cell for result in results)
    for result in results:
        wrong = "; ".join(_wrong_in(result, prepared, times[result.cell]))
        yield Check("entry", called(result.cell), "differs" if wrong else "same", wrong)
    for cell in prepared.nodes:
        if cell not in times:
            yield Check("entry", called(cell), "differs", "cells.json lacks this cell of the run")


def _wrong_in(result: CellResult, prepared: Prepared, times: int) -> Iterator[str]:
    if result.cell not in prepared.nodes:
        yield "the run has no such cell"
        return
    if times > 1:
        yield f"cells.json has it {times} times"
    if result.requested != (result.cell in prepared.run.cells_requested):
        yield f"requested is {result.requested}, and the specification gives otherwise"
    if (result.status == "ok") != bool(result.decisions):
        yield f"its status is {result.status}, and it names {result.decisions or 'no decisions'}"
    # Earlier versions had no dates.
    left_out = (
        {"model_time", "model_time_reason"} if result.threat.model_time_reason == NOT_RECORDED else set()
    )
    then, now = (
        threat.model_dump(exclude=left_out) for threat in (result.threat, prepared.threats[result.cell])
    )
    yield from (
        f"{name} is {then[name]!r}, found is {now[name]!r}" for name in now if then[name] != now[name]
    )


# -- what the artefacts give ---------------------------------------------------------------------------


def changed_methods(folder: RunFolder, prepared: Prepared) -> tuple[str, ...]:
    """Return the names of methods whose code or files are others than when the run was made."""
    then, now = folder.facts().methods, describe_methods(prepared.run)
    return tuple(dict.fromkeys((*changed_code(then, now), *changed_files(then, now))))


def check_decisions(folder: RunFolder, prepared: Prepared) -> list[Check]:
    """Compare each finished cell's decisions with the store's.

    A cell whose artefacts are not there is unchecked, not absent, where a method it was made with has changed: its
    artefacts have other addresses now, whichever store is asked.
    """
    store, changed = UntouchedStore(prepared.store.folder), changed_methods(folder, prepared)
    found = []
    for cell, result in known_cells(folder, prepared).items():
        node = prepared.nodes[cell].decision
        made, path = store.read(node.stage, node.address), folder.path / result.decisions
        name = decision_files.name_of(cell, prepared.run.spec)
        others = _made_with(cell, result, prepared).intersection(changed)
        if made is None and others:
            reason = f"{', '.join(sorted(others))}: the code or files are others than when the run was made"
            found.append(Check("cell", called(cell), "unchecked", reason))
        elif made is None:
            found.append(Check("cell", called(cell), "absent", "its decisions are not whole in this store"))
        elif not path.is_file():
            found.append(Check("cell", called(cell), "differs", f"{result.decisions} is missing"))
        elif decision_files.is_of(path.read_bytes(), made, name):
            found.append(Check("cell", called(cell), "same"))
        else:
            detail = "the folder's decisions are not those of the store"
            found.append(Check("cell", called(cell), "differs", detail))
    return found


def _made_with(cell: Cell, result: CellResult, prepared: Prepared) -> set[str]:
    helpers = {*result.threat.surrogates.split("|"), *result.threat.extractors.split("|")}
    spec = prepared.run.spec
    return {cell.attack, cell.defense, cell.backbone, spec.dataset, spec.protocol, *helpers}


def check_views(folder: RunFolder, prepared: Prepared) -> list[Check]:
    """Make every file of image measures and every diagnosis again from the store's artefacts and compare it.

    A file whose artefacts are not all in the store is absent: nothing is computed.
    """
    found: dict[tuple[str, str], Check] = {}
    views = _Views(folder, prepared)
    for cell, result in known_cells(folder, prepared).items():
        for check in views.of(cell, result):
            known = found.get((check.kind, check.name))
            if known is None or check.state == "differs":  # cells share files
                found[check.kind, check.name] = check
    return list(found.values())


class _Views:
    """Makes the files of cells again, and writes none.

    Args:
        folder: the run's.
        prepared: the run.
    """

    def __init__(self, folder: RunFolder, prepared: Prepared) -> None:
        self.folder, self.prepared = folder, prepared
        self.reader = _Reader(UntouchedStore(prepared.store.folder), prepared.machine)
        self.outputs = Outputs(prepared, self.reader.fetch)
        self.made: dict[str, bytes] = {}

    def of(self, cell: Cell, result: CellResult) -> Iterator[Check]:
        """Check the files of one cell that there are or should be."""
        return (check for check in self._all(cell, result) if check is not None)

    def _all(self, cell: Cell, result: CellResult) -> Iterator[Check | None]:
        nodes = self.prepared.nodes[cell]
        yield self._measures("cloak_measures", nodes.cloak_measures, result.cloak_measures, cell)
        yield self._measures("purified_measures", nodes.purified_measures, result.purified_measures, cell)
        for kind in ("restored", "restored_to_cloak"):
            planned, there = (getattr(one, f"{kind}_measures") for one in (nodes, result))
            for condition in {**planned, **there}:
                yield self._measures(kind, planned.get(condition, ()), there.get(condition, ""), cell)
        rebuilt = self.outputs.diagnoses(cell, self.made)
        for kind, probes in (
            ("attack_diagnosis", nodes.attack_probes),
            ("purifier_diagnosis", nodes.purifier_probes),
            ("detection", nodes.detections),
            ("photo_diagnosis", nodes.photo_probes),
        ):
            name = getattr(result, kind)
            if kind == "photo_diagnosis" and not name:
                continue  # earlier versions wrote none
            yield self._compared("diagnosis", kind, name, rebuilt.get(kind, ""), probes, cell, bytes)

    def _measures(self, kind: str, nodes: Sequence[Node], name: str, cell: Cell) -> Check | None:
        made = ""
        if self.reader.holds(nodes):
            made = self.outputs.measures(kind, nodes, self.made)
        return self._compared("images", kind, name, made, nodes, cell, _rows)

    def _compared(
        self,
        kind: str,
        field: str,
        name: str,
        made: str,
        nodes: Sequence[Node],
        cell: Cell,
        content: Callable[[bytes], Any],
    ) -> Check | None:
        where = name or f"{field} of {called(cell)}"
        if not self.reader.holds(nodes):
            return Check(kind, where, "absent", "what it is made from is not all in this store")
        if bool(name) != bool(made):
            return Check(kind, where, "differs", f"the cell {'has' if made else 'has no'} such file")
        if not name:
            return None
        try:
            there, again = (self.folder.path / name).read_bytes(), self.made[made]
            same = there == again or content(there) == content(again)
        except (OSError, DataError) as error:
            return Check(kind, where, "differs", f"it cannot be read: {error}")
        detail = "" if same else "it is not what the store's artefacts give"
        return Check(kind, where, "same" if same else "differs", detail)


def _rows(payload: bytes) -> str:
    """Return image measures as text: other versions of the writer give other bytes for the same rows."""
    return per_image.from_bytes(payload).to_csv(index=False)
