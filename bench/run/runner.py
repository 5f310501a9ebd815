"""Runs a matrix: plan, compute what is missing, write the run's folder.

`prepare` checks everything that can be known before work starts.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.contracts import Binding
from bench.errors import DataError, UsageError
from bench.plugins import factory
from bench.quality import diagnosis, per_image
from bench.quality.lpips import Unavailable
from bench.run import folder as run_folder
from bench.run import graph, resolve
from bench.run.device import Machine, make_machine
from bench.run.digest import digest
from bench.run.folder import CellResult, RunFacts, RunFolder
from bench.run.graph import Executor, Node, NodeError
from bench.run.pipeline import Pipeline
from bench.run.provenance import check_files_are_there, describe_methods
from bench.run.resolve import Resolved
from bench.run.spec import Cell, RunSpec
from bench.run.store import Store, default_folder
from bench.run.threat import CellThreat, Threats

log = logging.getLogger("bench")

HISTORY = "timings.jsonl"
"""Kept in the store: seconds per image of what was computed, by stage and method, for estimates."""


@dataclass(frozen=True)
class Options:
    """How to execute; none of it changes what is asked.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: None for every core this process may use.
        batch_size: images handed to a method per call.
        store: folder of artefacts; None for the default.
        out: the run's folder; None for ``runs/<run>``.
        lpips_trunk: AlexNet's weights for LPIPS; None to look in torchvision's cache.
        command: the command line, recorded in the run's folder.
    """

    device: str = "auto"
    threads: int | None = None
    batch_size: int = 64
    store: Path | None = None
    out: Path | None = None
    lpips_trunk: Path | None = None
    command: str = ""


@dataclass(frozen=True)
class CellNodes:
    """The artefacts one cell needs."""

    decision: Node
    cloak_measures: tuple[Node, ...]
    purified_measures: tuple[Node, ...]
    restored_measures: Mapping[str, tuple[Node, ...]]
    restored_to_cloak_measures: Mapping[str, tuple[Node, ...]]
    attack_probes: tuple[Node, ...]
    purifier_probes: tuple[Node, ...]

    def all(self) -> tuple[Node, ...]:
        """Every node of the cell."""
        both = (*self.restored_measures.values(), *self.restored_to_cloak_measures.values())
        restored = (node for nodes in both for node in nodes)
        probes = (*self.attack_probes, *self.purifier_probes)
        return (self.decision, *self.cloak_measures, *self.purified_measures, *restored, *probes)


@dataclass(frozen=True)
class Group:
    """Artefacts of one stage and method: a line of the plan and of the progress display.

    Attributes:
        stage: the stage.
        label: the method with its helpers.
        missing: artefacts to compute.
        images: images in them.
        size: bytes they will take, about.
        seconds: estimate from earlier runs on this store; None where there was none.
    """

    stage: str
    label: str
    missing: int
    images: int
    size: int
    seconds: float | None


@dataclass(frozen=True)
class Prepared:
    """A run that was checked and can be started."""

    run: Resolved
    machine: Machine
    pipeline: Pipeline
    store: Store
    options: Options
    nodes: Mapping[Cell, CellNodes] = field(repr=False)
    threats: Mapping[Cell, CellThreat] = field(repr=False)

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.options.out or Path("runs") / self.run.digest)

    @cached_property
    def missing(self) -> list[Node]:
        """The artefacts that are not in the store, in the order they will be computed."""
        return Executor(self.store).missing(node for cell in self.nodes.values() for node in cell.all())

    def groups(self) -> list[Group]:
        """Return what is to be computed, by stage and method, with estimates."""
        paces = history(self.store)
        found: dict[tuple[str, str], list[Node]] = {}
        for node in self.missing:
            found.setdefault(node.group, []).append(node)
        return [_group(key, nodes, paces.get(key)) for key, nodes in found.items()]

    def cached_cells(self) -> int:
        """Return how many cells need no work at all."""
        todo = {node.address for node in self.missing}
        return sum(all(node.address not in todo for node in cell.all()) for cell in self.nodes.values())


def check_writable(path: Path, option: str) -> None:
    """Check that a file or folder can be made at `path`.

    Raises:
        UsageError: something that is not a folder is in the way, or the folder cannot be written.
    """
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(f"{option} {path} cannot be written: {there} is not a folder one can write to.")


def prepare(requested: RunSpec, options: Options) -> Prepared:
    """Resolve a specification and check all that can be known before work starts.

    Raises:
        UsageError: unknown names, values out of range, empty pools, too few photos, no fitting weights.
        DataError: data or weights that are missing or corrupt.
    """
    run = resolve.resolve(requested)
    machine = make_machine(options.device, options.threads, options.batch_size, options.lpips_trunk)
    pipeline = Pipeline(run, machine)
    _check_weights(run)
    threats = Threats(run)
    threats.check()
    nodes = {cell: _cell_nodes(run, pipeline, cell) for cell in run.cells}
    for cell in nodes.values():
        for node in cell.all():
            _ = node.address  # computing the key looks at every file that decides it
    store = Store(options.store or default_folder())
    check_writable(store.folder, "--store")
    marks = {cell: threats.of(cell) for cell in run.cells}
    prepared = Prepared(run, machine, pipeline, store, options, nodes, marks)
    check_writable(prepared.folder.path, "--out")
    if any(node.stage == "faces" for node in prepared.missing):
        run.dataset.check()
    return prepared


def _check_weights(run: Resolved) -> None:
    wanted = set(run.spec.backbones)
    for attack in run.attacks.values():
        for tracker in run.spec.backbones:
            wanted |= set(run.helpers(attack, tracker))
    for name in sorted(wanted):
        backbone = run.backbones.get(name) or factory.backbone(name)
        backbone.files(Binding(run.spec.dataset, run.dataset.domain, (), name))


def _cell_nodes(run: Resolved, pipeline: Pipeline, cell: Cell) -> CellNodes:
    cloak = pipeline.cloak_measures(cell.attack, cell.backbone, cell.seed)
    purified = pipeline.purified_measures(cell.attack, cell.defense, cell.backbone, cell.seed)
    restored = pipeline.restored_measures(cell.attack, cell.backbone, cell.seed)
    to_cloak = pipeline.restored_to_cloak_measures(cell.attack, cell.backbone, cell.seed)
    attack_probes = pipeline.attack_probes(cell.attack, cell.backbone, cell.seed)
    purifier_probes = pipeline.purifier_probes(cell.attack, cell.defense, cell.backbone, cell.seed)
    decision = pipeline.decision(cell)
    return CellNodes(decision, cloak, purified, restored, to_cloak, attack_probes, purifier_probes)


def execute(
    prepared: Prepared, advance: Callable[[Node, int], None] = lambda _node, _n: None
) -> list[CellResult]:
    """Compute what is missing and write the run's folder; returns what became of each cell.

    Whatever is computed before an interruption is kept: the same command goes on from there.

    Raises:
        StoreError: the store or the run's folder cannot be written.
    """
    executor = Executor(prepared.store, advance)
    prepared.store.sweep()
    folder = prepared.folder
    folder.write_facts(_facts(prepared), prepared.run.split, _describe(prepared))
    with _log_to(folder.path / "run.log"), _timings(prepared, executor):
        _log_plan(prepared)
        for node in prepared.missing:
            # A failure is remembered by the executor and becomes the reason of every cell that needs it.
            _try(executor, node)
        written: set[str] = set()
        results = [_finish(prepared, executor, cell, written) for cell in prepared.run.cells]
        folder.write_cells(results)
        failed = sum(result.status != "ok" for result in results)
        log.info("%d cells done, %d failed", len(results) - failed, failed)
    folder.write_manifest()
    return results


def _try(executor: Executor, node: Node) -> bytes | None:
    try:
        return executor.fetch(node) if (node.stage, node.address) not in executor.store else None
    except NodeError:
        return None


def _finish(prepared: Prepared, executor: Executor, cell: Cell, written: set[str]) -> CellResult:
    nodes, folder = prepared.nodes[cell], prepared.folder
    files: dict[str, Any] = {}
    status, reason = "ok", ""
    try:
        payload = executor.fetch(nodes.decision)
        files["decisions"] = folder.write_bytes(f"decisions/{run_folder.file_stem(*cell)}.parquet", payload)
        for kind in ("cloak_measures", "purified_measures"):
            files[kind] = write_measures(folder, executor, kind, getattr(nodes, kind), written)
        for kind in ("restored", "restored_to_cloak"):
            files[f"{kind}_measures"] = {
                condition: write_measures(folder, executor, kind, shards, written)
                for condition, shards in getattr(nodes, f"{kind}_measures").items()
            }
        files |= write_diagnoses(prepared, executor, cell, written)
    except NodeError as error:
        status, reason = "failed", str(error)
        files = {}
    return CellResult(
        **cell._asdict(),
        requested=cell in prepared.run.cells_requested,
        status=status,
        reason=reason,
        threat=prepared.threats[cell],
        **files,
    )


def write_measures(
    folder: RunFolder, executor: Executor, kind: str, nodes: Sequence[Node], written: set[str]
) -> str:
    """Write the image measures of `nodes` to one file unless it is among those `written`; returns its name."""
    if not nodes:
        return ""
    import pandas as pd

    name = f"images/{run_folder.file_stem(kind, nodes[0].label)}-{_joint_address(nodes)}.parquet"
    if name in written:  # cells share it
        return name
    parts = [per_image.from_bytes(executor.fetch(node)) for node in nodes]
    folder.write_bytes(name, per_image.to_bytes(pd.concat(parts, ignore_index=True)))
    written.add(name)
    return name


def write_diagnoses(prepared: Prepared, executor: Executor, cell: Cell, written: set[str]) -> dict[str, str]:
    """Write what is known of a cell's attack and purifier; that it could not be found out fails no cell."""
    nodes, attack = prepared.nodes[cell], prepared.run.attacks[cell.attack]
    point = (cell.attack, cell.backbone, cell.seed)
    found: dict[str, tuple[str, Any]] = {}
    if attack.changes_images:
        payloads, reason = _fetch_all(executor, nodes.attack_probes)
        found["attack_diagnosis"] = (
            run_folder.file_stem("attack", *point),
            diagnosis.AttackDiagnosis(
                goal=attack.threat.goal,
                max_linf=attack.threat.max_linf,
                max_dssim=attack.threat.max_dssim,
                adapts_to=attack.threat.adapts_to,
                probes=tuple(one for part in payloads for one in diagnosis.probes_from_bytes(part)),
                reason=reason,
            ),
        )
    if nodes.purifier_probes:
        payloads, reason = _fetch_all(executor, nodes.purifier_probes)
        shards = tuple(diagnosis.shard_from_bytes(part) for part in payloads)
        found["purifier_diagnosis"] = (
            run_folder.file_stem("purifier", cell.defense, *point),
            diagnosis.PurifierDiagnosis(shards=shards, reason=reason),
        )
    files = {kind: f"diagnoses/{stem}.json" for kind, (stem, _) in found.items()}
    for kind, (_, content) in found.items():
        if files[kind] not in written:
            prepared.folder.write_bytes(files[kind], diagnosis.to_bytes(content))
            written.add(files[kind])
    return files


def _fetch_all(executor: Executor, nodes: Sequence[Node]) -> tuple[list[bytes], str]:
    """Return the payloads, or none and why."""
    try:
        return [executor.fetch(node) for node in nodes], ""
    except NodeError as error:
        return [], str(error)


def _joint_address(nodes: Sequence[Node]) -> str:
    return digest([node.address for node in nodes])[:8]


def _facts(prepared: Prepared) -> RunFacts:
    lpips = prepared.machine.lpips
    return RunFacts(
        run=prepared.run.digest,
        requested=prepared.run.requested,
        spec=prepared.run.spec,
        dataset_note=prepared.run.dataset.note,
        lpips_trunk="" if isinstance(lpips, Unavailable) else lpips.trunk_sha256,
        lpips_reason=lpips.reason if isinstance(lpips, Unavailable) else "",
        command=prepared.options.command,
        fingerprint=prepared.run.dataset.fingerprint(),
        methods=describe_methods(prepared.run),
        device=str(prepared.machine.device),
        threads=prepared.machine.threads,
        batch_size=prepared.machine.batch_size,
    )


def _describe(prepared: Prepared) -> Mapping[str, Any]:
    return run_folder.describe_machine(str(prepared.machine.device), prepared.machine.threads)


# -- timings and log -----------------------------------------------------------------------------------


def _group(key: tuple[str, str], nodes: list[Node], pace: float | None) -> Group:
    images = sum(node.images for node in nodes)
    size = sum(node.size for node in nodes)
    return Group(*key, len(nodes), images, size, None if pace is None else pace * images)


def history(store: Store) -> dict[tuple[str, str], float]:
    """Return the seconds an image took before on this store, by `Node.group`."""
    paces: dict[tuple[str, str], float] = {}
    try:
        lines = (store.folder / HISTORY).read_text(encoding="utf-8").splitlines()
    except OSError:
        return paces
    for line in lines:
        try:
            row = json.loads(line)
            paces[row["stage"], row["label"]] = row["seconds"] / max(row["images"], 1)
        except (ValueError, KeyError, TypeError):
            continue  # a line cut short by a kill costs an estimate, nothing else
    return paces


@contextmanager
def _timings(prepared: Prepared, executor: Executor) -> Iterator[None]:
    """Write what the work took, also when it is interrupted."""
    start = time.perf_counter()
    try:
        yield
    finally:
        tally = executor.tally
        rows = [
            {
                "stage": s,
                "label": label,
                "images": tally.images[s, label],
                "seconds": round(tally.seconds[s, label], 3),
            }
            for s, label in tally.computed
        ]
        for row in rows:
            log.info(
                "computed %s %s: %d images, %.1f s", row["stage"], row["label"], row["images"], row["seconds"]
            )
        log.info("run time %.1f s", time.perf_counter() - start)
        # A full disk has been reported by then; the history only serves estimates.
        with suppress(OSError), (prepared.store.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        _write_timings(prepared)


def _write_timings(prepared: Prepared) -> None:
    """Write seconds by stage and method over all artefacts of the run, whichever run computed them."""
    totals: dict[tuple[str, str], list[float]] = {}
    for node in every_node(cell.all() for cell in prepared.nodes.values()):
        record = prepared.store.record(node.stage, node.address)
        if record is not None:
            total = totals.setdefault(node.group, [0, 0, 0.0])
            total[0] += 1
            total[1] += record.images
            total[2] += record.seconds
    lines = ["stage,method,artefacts,images,seconds,seconds_per_image"]
    for (stage, label), (count, images, seconds) in sorted(
        totals.items(), key=lambda item: _stage_order(item[0])
    ):
        pace = seconds / images if images else 0
        lines.append(f'{stage},"{label}",{count:.0f},{images:.0f},{seconds:.3f},{pace:.5f}')
    prepared.folder.write_bytes("timings.csv", ("\n".join(lines) + "\n").encode())


def _stage_order(group: tuple[str, str]) -> tuple[int, str]:
    return graph.STAGES.index(group[0]), group[1]


def every_node(groups: Iterable[Sequence[Node]]) -> list[Node]:
    """Return the nodes of groups and all they are made from, each once."""
    found: dict[str, Node] = {}
    waiting = [node for group in groups for node in group]
    while waiting:
        node = waiting.pop()
        if node.address not in found:
            found[node.address] = node
            waiting += node.inputs
    return list(found.values())


def _log_plan(prepared: Prepared) -> None:
    run = prepared.run
    log.info("run %s: %d cells, %d cached", run.digest, len(run.cells), prepared.cached_cells())
    for group in prepared.groups():
        log.info(
            "to compute %s %s: %d artefacts, %d images", group.stage, group.label, group.missing, group.images
        )
    for node in prepared.missing:
        if node.stage == "decide":
            log.info("to decide %s", node.label)


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


# -- the Python face -----------------------------------------------------------------------------------


def prepare_again(folder: RunFolder, options: Options) -> Prepared:
    """Prepare the run of a folder as it was made: same specification, same threads, nothing written.

    Args:
        folder: a finished run.
        options: device and threads where they are to be others than the run's; store; LPIPS trunk.

    Raises:
        DataError: the photos or the benchmark's version are others now, or a file that a method is named by is missing.
        UsageError: a method is not installed, or a device not there.
    """
    facts, machine = folder.facts(), folder.machine()
    check_files_are_there(facts.methods, unchanged=False)
    device = machine.get("device", "auto") if options.device == "auto" else options.device
    threads = options.threads or facts.threads or machine.get("threads")
    batch_size = facts.batch_size or options.batch_size
    prepared = prepare(
        facts.requested, replace(options, device=device, threads=threads, batch_size=batch_size)
    )
    if prepared.run.digest != facts.run:
        raise DataError(
            f"{folder.path} is run {facts.run}; the same specification is run {prepared.run.digest} now, as the photos "
            f"({facts.spec.dataset}) or the benchmark's version (then {facts.benchmark_version}) are others."
        )
    return prepared
