"""Is a run what its folder says? Digests of files and artefacts, and a random sample made again.

Nothing here changes a run's folder or its store.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import pandas as pd

from bench import decisions, leaderboard, run_folder
from bench.errors import BenchError, DataError
from bench.graph import STAGES, Executor, Node, NodeError
from bench.provenance import changed_code, describe_methods, environment_differences
from bench.randomness import numpy_generator
from bench.run_folder import RunFolder
from bench.runner import Options, Prepared, every_node, history, prepare
from bench.spec import Cell
from bench.store import Store

Advance = Callable[[Node, int], None]


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        kind: file, leaderboard, artefact, cell, or recomputed artefact.
        name: which.
        state: same, differs, or absent (not in this store, so that there was nothing to check).
        detail: how it differs.
    """

    kind: str
    name: str
    state: Literal["same", "differs", "absent"]
    detail: str = ""


def check_files(folder: RunFolder) -> list[Check]:
    """Compare every file of a run's folder with the manifest.

    Raises:
        DataError: not a finished run, or one without a manifest.
    """
    folder.facts()
    wanted, found = folder.manifest(), folder.entries()
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
    return checks


def check_leaderboard(folder: RunFolder) -> Check:
    """Make the leaderboard again from decisions and image measures and compare it byte for byte."""
    path = folder.path / "leaderboard.csv"
    if not path.is_file():
        return Check("leaderboard", path.name, "absent", "the run was made from Python, which writes none")
    try:
        made = leaderboard.to_csv(leaderboard.build(folder))
    except (BenchError, ValueError, KeyError, OSError) as error:
        return Check("leaderboard", path.name, "differs", f"it cannot be made from the folder: {error}")
    there = path.read_bytes()
    if made.encode() == there:
        return Check("leaderboard", path.name, "same")
    lines = zip(made.splitlines(), there.decode(errors="replace").splitlines(), strict=False)
    first = next((i for i, (one, other) in enumerate(lines, start=1) if one != other), "the last")
    return Check("leaderboard", path.name, "differs", f"decisions and measures give another line {first}")


def prepare_again(folder: RunFolder, options: Options) -> Prepared:
    """Prepare the run of a folder as it was made: same specification, same threads, nothing written.

    Args:
        folder: a finished run.
        options: device and threads where they are to be others than the run's; store; LPIPS trunk.

    Raises:
        DataError: the photos or the benchmark's version are others now.
        UsageError: a method is not installed, or a device not there.
    """
    facts, machine = folder.facts(), folder.machine()
    device = machine.get("device", "auto") if options.device == "auto" else options.device
    threads = options.threads or facts.threads or machine.get("threads")
    batch_size = facts.batch_size or options.batch_size
    prepared = prepare(facts.asked, replace(options, device=device, threads=threads, batch_size=batch_size))
    if prepared.run.digest != facts.run:
        raise DataError(
            f"{folder.path} is run {facts.run}; the same specification is run {prepared.run.digest} now, as the photos "
            f"({facts.spec.dataset}) or the benchmark's version (then {facts.benchmark_version}) are others."
        )
    return prepared


def differences_of_environment(folder: RunFolder, prepared: Prepared) -> list[str]:
    """Return in what machine, LPIPS trunk and code differ from the run's, one sentence each."""
    machine = prepared.machine
    now = run_folder.describe_machine(str(machine.device), machine.threads)
    found = environment_differences(folder.machine(), now)
    facts = folder.facts()
    trunk = getattr(machine.lpips, "trunk_sha256", "")
    if trunk != facts.lpips_trunk:
        found.append(f"LPIPS trunk: {facts.lpips_trunk or 'none'} then, {trunk or 'none'} now")
    changed = changed_code(facts.methods, describe_methods(prepared.run))
    return found + [f"code of {name} is another than then" for name in changed]


def check_artefacts(folder: RunFolder, prepared: Prepared) -> list[Check]:
    """Check the digest of every artefact the run's cells need, and that the folder holds what the store holds."""
    nodes = every_node(cell.all() for cell in prepared.nodes.values())
    found = [_artefact_state(prepared.store, node) for node in nodes]
    return found + _decisions_in_store(folder, prepared)


def _artefact_state(store: Store, node: Node) -> Check:
    name = f"{node.stage} {node.label} {node.address[:12]}"
    state = store.state(node.stage, node.address)
    if state == "whole":
        return Check("artefact", name, "same")
    if state == "absent":
        return Check("artefact", name, "absent", "not in this store")
    return Check("artefact", name, "differs", "its bytes are not those that were written")


def _decisions_in_store(folder: RunFolder, prepared: Prepared) -> list[Check]:
    found = []
    for cell, file in _decision_files(folder).items():
        node = prepared.nodes[cell].decision
        record = prepared.store.record(node.stage, node.address)
        path = folder.path / file
        if record is None or not path.is_file():
            continue  # said by the other checks
        same = sha256(path.read_bytes()).hexdigest() == record.sha256
        detail = "" if same else "the folder's decisions are not those of the store"
        found.append(Check("cell", called(cell), "same" if same else "differs", detail))
    return found


def _decision_files(folder: RunFolder) -> dict[Cell, str]:
    return {
        Cell(c.attack, c.defense, c.backbone, c.head, c.seed): c.decisions
        for c in folder.cells()
        if c.decisions
    }


def called(cell: Cell) -> str:
    """Return a cell as a person reads it."""
    return f"{cell.attack} × {cell.defense} × {cell.backbone} × {cell.head} × seed {cell.seed}"


def sample_cells(folder: RunFolder, count: int, seed: int) -> list[Cell]:
    """Return `count` finished cells of a run, drawn by `seed`; all where it has fewer."""
    cells = sorted(_decision_files(folder))
    drawn = numpy_generator(seed, "verify", "cells").permutation(len(cells))[:count]
    return [cells[i] for i in sorted(drawn)]


def work_of_cells(prepared: Prepared, cells: Iterable[Cell]) -> list[Node]:
    """Return the nodes that making cells from nothing computes."""
    return every_node([(prepared.nodes[cell].decision,) for cell in cells])


def expected_seconds(prepared: Prepared, nodes: Sequence[Node]) -> tuple[float, int]:
    """Return the seconds that nodes took before on this store, and how many of them were never timed."""
    paces = history(prepared.store)
    known = [paces[node.group] * node.images for node in nodes if node.group in paces]
    return sum(known), len(nodes) - len(known)


def recompute_cells(
    folder: RunFolder, prepared: Prepared, cells: Sequence[Cell], advance: Advance = lambda _node, _n: None
) -> list[Check]:
    """Make cells again from nothing, in a store of their own that is thrown away, and compare their decisions."""
    files = _decision_files(folder)
    with tempfile.TemporaryDirectory(prefix="cloakbench-verify-") as temporary:
        executor = Executor(Store(Path(temporary)), advance)
        return [
            _recompute(folder, files[cell], prepared.nodes[cell].decision, cell, executor) for cell in cells
        ]


def _recompute(folder: RunFolder, file: str, node: Node, cell: Cell, executor: Executor) -> Check:
    name = called(cell)
    try:
        made = executor.fetch(node)
    except NodeError as error:
        return Check("recomputed cell", name, "differs", f"it failed: {error}")
    try:
        there = (folder.path / file).read_bytes()
        if there == made:
            return Check("recomputed cell", name, "same")
        detail = _compare_decisions(decisions.read(folder.path / file).rows, decisions.from_bytes(made).rows)
    except (DataError, OSError) as error:
        detail = f"{file} cannot be read: {error}"
    return Check("recomputed cell", name, "differs", detail)


def _compare_decisions(there: pd.DataFrame, made: pd.DataFrame) -> str:
    """Say by how many decisions two files of one cell differ."""
    key = list(decisions.KEY)
    one, other = (rows.astype(dict.fromkeys(key, object)).fillna({"reference": ""}) for rows in (there, made))
    both = one.merge(other, on=key, how="outer", suffixes=("", "_made"), indicator=True)
    matched = both[both["_merge"] == "both"]
    answers = matched["predicted"].astype(object).fillna("") != matched["predicted_made"].astype(
        object
    ).fillna("")
    answers |= matched["correct"].astype(bool) != matched["correct_made"].astype(bool)
    scores = (matched["score"] - matched["score_made"]).abs()
    parts = [f"{int(answers.sum())} of {len(both)} decisions differ"]
    if len(matched) < len(both):
        parts.append(f"{len(both) - len(matched)} are in one of the two only")
    parts.append(f"scores differ by at most {float(scores.max()) if scores.notna().any() else 0:.2g}")
    return ", ".join(parts)


def sample_artefacts(prepared: Prepared, count: int, seed: int) -> list[Node]:
    """Return `count` artefacts of each stage, drawn by `seed` among those that lie in the store with their inputs."""
    store = prepared.store
    nodes = every_node(cell.all() for cell in prepared.nodes.values())
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
    return [_recompute_artefact(prepared.store, node, advance) for node in nodes]


def _recompute_artefact(store: Store, node: Node, advance: Advance) -> Check:
    kind, name = "recomputed artefact", f"{node.stage} {node.label} {node.address[:12]}"
    if any(store.state(each.stage, each.address) != "whole" for each in (node, *node.inputs)):
        return Check(kind, name, "differs", "it, or something it is made from, is corrupt in the store")
    try:
        inputs = [store.read(source.stage, source.address) or b"" for source in node.inputs]
        made = node.work(inputs, lambda n: advance(node, n))
    except Exception as error:  # a plugin may fail in any way
        return Check(kind, name, "differs", f"it failed: {type(error).__name__}: {error}")
    record = store.record(node.stage, node.address)
    found = sha256(made).hexdigest()
    if record is not None and record.sha256 == found:
        return Check(kind, name, "same")
    then = record.sha256[:16] if record else "none"
    return Check(kind, name, "differs", f"SHA-256 {found[:16]}… now, {then}… in the store")
