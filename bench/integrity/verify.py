"""Is a run what its folder says? Digests of files and artefacts, and a random sample made again.

Nothing here changes a run's folder or its store. `bench.integrity.consistency` has what is compared without digests.
"""

import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import pandas as pd

from bench.errors import DataError
from bench.integrity.consistency import Check, UntouchedStore, called, check_decisions
from bench.leaderboard import as_csv
from bench.leaderboard.table import build
from bench.randomness import numpy_generator
from bench.run import decision_files, decisions
from bench.run import folder as run_folder
from bench.run.device import Machine
from bench.run.folder import RunFolder
from bench.run.graph import STAGES, Executor, Node, NodeError, StoredPayloads, every_node
from bench.run.planning import Prepared
from bench.run.provenance import (
    changed_code,
    changed_files,
    describe_methods,
    environment_differences,
)
from bench.run.spec import Cell
from bench.run.store import Store
from bench.run.timings import declared_seconds, history

Advance = Callable[[Node, int], None]

NUMBERS = frozenset({"cell", "images", "recomputed cell", "recomputed artefact"})
"""Kinds of checks without any of which no number of a run was checked."""


def check_files(folder: RunFolder) -> list[Check]:
    """Compare every file of a run's folder with the manifest; what no run writes is listed as extra.

    Raises:
        DataError: not a finished run, or one without a manifest.
    """
    folder.facts()
    wanted = folder.manifest()
    found = folder.entries(wanted)
    checks = []
    for name in sorted({*wanted, *found}):
        if name not in found:
            checks.append(Check("file", name, "differs", "missing"))
        elif name not in wanted:
            checks.append(
                Check("file", name, "differs", "not in the manifest: it was put there after the run")
            )
        elif wanted[name].sha256 != found[name].sha256:
            detail = f"SHA-256 {found[name].sha256[:16]}…, the manifest says {wanted[name].sha256[:16]}…"
            checks.append(Check("file", name, "differs", detail))
        else:
            checks.append(Check("file", name, "same"))
    extras = {name: count for name, count in folder.extras().items() if name not in wanted}
    return checks + [
        Check("extra", name, "extra", f"{count} files that are no part of the run")
        for name, count in extras.items()
        if not any(listed.startswith(f"{name}/") for listed in wanted)
    ]


def check_leaderboard(folder: RunFolder) -> Check:
    """Make the leaderboard again from decisions and image measures and compare its text."""
    path = folder.path / "leaderboard.csv"
    if not path.is_file():
        return Check("leaderboard", path.name, "absent", "the run was made from Python, which writes none")
    try:
        leaderboard = build(folder)
        made = as_csv.to_csv(leaderboard)
    except Exception as error:  # a folder whose files contradict each other can fail anywhere
        detail = f"it cannot be made from the folder: {type(error).__name__}: {error}"
        return Check("leaderboard", path.name, "differs", detail)
    there = path.read_bytes().decode(errors="replace")
    try:
        if as_csv.holds(there, leaderboard, str(path)):
            return Check("leaderboard", path.name, "same")
    except DataError as error:
        return Check("leaderboard", path.name, "differs", str(error))
    lines = zip(made.splitlines(), there.splitlines(), strict=False)
    first = next((i for i, (one, other) in enumerate(lines, start=1) if one != other), "the last")
    return Check("leaderboard", path.name, "differs", f"decisions and measures give another line {first}")


def differences_of_environment(folder: RunFolder, prepared: Prepared) -> list[str]:
    """Return in what machine, LPIPS trunk and code differ from the run's, one sentence each."""
    machine = prepared.machine
    now = run_folder.describe_machine(str(machine.device), machine.threads, machine.precision)
    found = environment_differences(folder.machine(), now)
    facts = folder.facts()
    trunk = getattr(machine.lpips, "trunk_sha256", "")
    if trunk != facts.lpips_trunk:
        found.append(f"LPIPS trunk: {facts.lpips_trunk or 'none'} then, {trunk or 'none'} now")
    methods = describe_methods(prepared.run)
    found += [f"code of {name} is another than then" for name in changed_code(facts.methods, methods)]
    return found + list(changed_files(facts.methods, methods).values())


def check_artefacts(folder: RunFolder, prepared: Prepared) -> list[Check]:
    """Check the digest of every artefact the run's cells need, and that the folder holds what the store holds."""
    nodes = prepared.artefacts
    found = [_artefact_state(prepared.store, node) for node in nodes]
    return found + check_decisions(folder, prepared)


def _artefact_state(store: Store, node: Node) -> Check:
    name = f"{node.stage} {node.label} {node.address[:12]}"
    state = store.state(node.stage, node.address)
    if state == "whole":
        return Check("artefact", name, "same")
    if state == "absent":
        return Check("artefact", name, "absent", "not in this store")
    return Check("artefact", name, "differs", "its bytes are not those that were written")


def _decision_files(folder: RunFolder) -> dict[Cell, str]:
    return {result.cell: result.decisions for result in folder.cells() if result.decisions}


def sample_cells(
    folder: RunFolder, count: int, seed: int, among: Collection[Cell] | None = None
) -> list[Cell]:
    """Return `count` finished cells of a run, drawn by `seed`, of those in `among`; all where there are fewer."""
    cells = sorted(cell for cell in _decision_files(folder) if among is None or cell in among)
    drawn = numpy_generator(seed, "verify", "cells").permutation(len(cells))[:count]
    return [cells[i] for i in sorted(drawn)]


def work_of_cells(prepared: Prepared, cells: Iterable[Cell]) -> list[Node]:
    """Return the nodes that making cells from nothing computes."""
    return every_node(prepared.nodes[cell].decision for cell in cells)


def expected_seconds(prepared: Prepared, nodes: Sequence[Node]) -> tuple[float, int]:
    """Return about how many seconds nodes take, and how many of them were never timed on this store."""
    paces = history(prepared.store)
    known = [paces[node.group] * node.work for node in nodes if node.group in paces]
    others = [node for node in nodes if node.group not in paces]
    return sum(known) + declared_seconds(others, prepared.machine.threads), len(others)


def recompute_cells(
    folder: RunFolder, prepared: Prepared, cells: Sequence[Cell], advance: Advance = lambda _node, _n: None
) -> list[Check]:
    """Make cells again from nothing, in a store of their own that is thrown away, and compare their decisions."""
    files = _decision_files(folder)
    with tempfile.TemporaryDirectory(prefix="cloakbench-verify-") as temporary:
        executor = Executor(Store(Path(temporary)), prepared.machine, advance)
        return [_recompute(folder, files[cell], prepared, cell, executor) for cell in cells]


def _recompute(folder: RunFolder, file: str, prepared: Prepared, cell: Cell, executor: Executor) -> Check:
    name = called(cell)
    try:
        made = executor.fetch(prepared.nodes[cell].decision)
    except NodeError as error:
        return Check("recomputed cell", name, "differs", f"it failed: {error}")
    try:
        there = (folder.path / file).read_bytes()
        if decision_files.is_of(there, made, decision_files.name_of(cell, prepared.run.spec)):
            return Check("recomputed cell", name, "same")
        detail = _compare_decisions(decisions.from_bytes(there, file).rows, decisions.from_bytes(made).rows)
    except (DataError, OSError) as error:
        detail = f"{file} cannot be read: {error}"
    return Check("recomputed cell", name, "differs", detail)


def _compare_decisions(there: pd.DataFrame, made: pd.DataFrame) -> str:
    """Say by how many decisions two files of one cell differ."""
    key = list(decisions.KEY)
    one, other = (rows.astype(dict.fromkeys(key, object)).fillna({"reference": ""}) for rows in (there, made))
    both = one.merge(other, on=key, how="outer", suffixes=("", "_made"), indicator=True)
    matched = both[both["_merge"] == "both"]
    results = matched["predicted"].astype(object).fillna("") != matched["predicted_made"].astype(
        object
    ).fillna("")
    results |= matched["correct"].astype(bool) != matched["correct_made"].astype(bool)
    scores = (matched["score"] - matched["score_made"]).abs()
    parts = [f"{int(results.sum())} of {len(both)} decisions differ"]
    if len(matched) < len(both):
        parts.append(f"{len(both) - len(matched)} are in one of the two only")
    parts.append(f"scores differ by at most {float(scores.max()) if scores.notna().any() else 0:.2g}")
    return ", ".join(parts)


def sample_artefacts(prepared: Prepared, count: int, seed: int) -> list[Node]:
    """Return `count` artefacts of each stage, drawn by `seed` among those that lie in the store with their inputs."""
    store = UntouchedStore(prepared.store.folder)
    nodes = prepared.artefacts
    chosen: list[Node] = []
    for stage in STAGES:
        there = sorted(
            (
                node
                for node in nodes
                if node.stage == stage and all((n.stage, n.address) in store for n in (node, *node.inputs))
            ),
            key=lambda node: node.address,
        )
        drawn = numpy_generator(seed, "verify", stage).permutation(len(there))
        chosen += [there[i] for i in drawn[:count]]
    return chosen


def recompute_artefacts(
    prepared: Prepared, nodes: Sequence[Node], advance: Advance = lambda _node, _n: None
) -> list[Check]:
    """Make artefacts again from their stored inputs and compare digests."""
    store = UntouchedStore(prepared.store.folder)
    return [_recompute_artefact(store, node, prepared.machine, advance) for node in nodes]


def _recompute_artefact(store: Store, node: Node, machine: Machine, advance: Advance) -> Check:
    kind, name = "recomputed artefact", f"{node.stage} {node.label} {node.address[:12]}"
    if any(store.state(each.stage, each.address) != "whole" for each in (node, *node.inputs)):
        return Check(kind, name, "differs", "it, or something it is made from, is corrupt in the store")
    try:
        inputs = StoredPayloads(store, node.inputs)  # a cell is made from every shard there is
        made = node.run(inputs, machine, lambda n: advance(node, n))
    except Exception as error:  # a plugin may fail in any way
        return Check(kind, name, "differs", f"it failed: {type(error).__name__}: {error}")
    record = store.record(node.stage, node.address)
    found = sha256(made).hexdigest()
    if record is not None and record.sha256 == found:
        return Check(kind, name, "same")
    then = record.sha256[:16] if record else "none"
    return Check(kind, name, "differs", f"SHA-256 {found[:16]}… now, {then}… in the store")


def reconcile(found: Iterable[Check]) -> list[Check]:
    """Drop what is reported as unchecked of cells that were made again: making them was the check."""
    checks = list(found)
    made = {check.name for check in checks if check.kind == "recomputed cell"}
    return [check for check in checks if check.state != "unchecked" or check.name not in made]


def verdict(found: Sequence[Check], failed: int = 0) -> tuple[int, str]:
    """Return exit code and one sentence: 0 nothing differs, 1 something does, 2 not all could be checked.

    Args:
        found: every check.
        failed: number of cells of the run that failed.
    """
    count = {
        state: sum(check.state == state for check in found) for state in ("differs", "unchecked", "absent")
    }
    tail = f" {failed} cells of the run failed, and have no numbers to check." if failed else ""
    if count["differs"]:
        return 1, f"{count['differs']} differences.{tail}"
    if not any(check.kind in NUMBERS and check.state == "same" for check in found):
        return 2, (
            "Nothing could be checked of the run's numbers: this store holds none of its decisions, and no cell was "
            f"made again. Give the run's own --store, or --cells 1.{tail}"
        )
    if count["unchecked"]:
        return 2, f"{count['unchecked']} cells cannot be checked; nothing differs in the others.{tail}"
    if count["absent"]:
        return 0, (
            f"Nothing differs in what could be checked; {count['absent']} things are not here to be checked.{tail}"
        )
    return 0, f"Nothing differs.{tail}"
