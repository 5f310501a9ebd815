"""A planned run: every name resolved, every node known, and all checked that can be known before work starts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from bench.contracts import Backbone, Binding
from bench.errors import DataError
from bench.files import check_writable
from bench.plugins.process import calling
from bench.quality.lpips import Unavailable
from bench.run import graph, resolve
from bench.run.code_hashes import looked_at_once
from bench.run.device import Machine, make_machine, usable_cores
from bench.run.digest import digest
from bench.run.engine import Engine
from bench.run.folder import RunFacts, RunFolder, describe_machine
from bench.run.graph import Node
from bench.run.limits import DEFAULT, Limits
from bench.run.pipeline import Pipeline
from bench.run.precision import Precision
from bench.run.progress import Step
from bench.run.provenance import MadeWith, check_files_are_there, describe_methods
from bench.run.resolve import Resolved
from bench.run.spec import Cell, RunSpec
from bench.run.store import Store, default_folder
from bench.run.task import task_of
from bench.run.threat import CellThreat, Threats
from bench.run.timings import declared_seconds, history


@dataclass(frozen=True)
class Options:
    """How to execute; none of it changes what is requested.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: None for every core this process may use.
        batch_size: images handed to a method per call.
        precision: what trackers embed in.
        store: folder of artefacts; None for the default.
        out: the run's folder; None for ``runs/<run>``.
        lpips_trunk: AlexNet's weights for LPIPS; None to look where ``CLOAKBENCH_LPIPS_TRUNK`` says, then in the data
            folder, then in torchvision's cache.
        limits: of time and memory, within which each stage of each cell must be made.
        command: the command line, recorded in the run's folder.
        engine: computes what is missing; None: this process.
        progress: True: bars on standard error, or lines where that is no terminal; or what is called with every
            `bench.run.progress.Step`.
    """

    device: str = "auto"
    threads: int | None = None
    batch_size: int = 64
    precision: Precision = "float32"
    store: Path | None = None
    out: Path | None = None
    lpips_trunk: Path | None = None
    limits: Limits = DEFAULT
    command: str = ""
    engine: Engine | None = None
    progress: bool | Callable[[Step], None] = False


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
    photo_probes: tuple[Node, ...]
    cloak_detections: tuple[Node, ...]
    natural_detections: tuple[Node, ...]

    @property
    def detections(self) -> tuple[Node, ...]:
        """What the defence's detector was asked about."""
        return (*self.cloak_detections, *self.natural_detections)

    def all(self) -> tuple[Node, ...]:
        """Every node of the cell."""
        restored = (*self.restored_measures.values(), *self.restored_to_cloak_measures.values())
        probes = (self.attack_probes, self.purifier_probes, self.photo_probes, self.detections)
        groups = (self.cloak_measures, self.purified_measures, *restored, *probes)
        return (self.decision, *(node for nodes in groups for node in nodes))


@dataclass(frozen=True)
class Group:
    """Artefacts of one stage and method: a line of the plan and of the progress display.

    Attributes:
        stage: the stage.
        label: the method with its helpers.
        missing: artefacts to compute.
        images: images in them, each counted where it is computed.
        size: bytes they will take, about.
        seconds: about how long they take.
        timed: whether that is by earlier runs on this store; else by what the methods declare, which is rough.
    """

    stage: str
    label: str
    missing: int
    images: int
    size: int
    seconds: float
    timed: bool


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
    facts: RunFacts = field(repr=False)

    @property
    def targets(self) -> list[Node]:
        """The artefacts that the cells need, not those that these are made from."""
        return [node for cell in self.nodes.values() for node in cell.all()]

    @cached_property
    def artefacts(self) -> list[Node]:
        """Every artefact of the run, each once."""
        return graph.every_node(self.targets)

    @cached_property
    def made_with(self) -> MadeWith:
        """What decides its artefacts besides what is requested."""
        return MadeWith(
            environment=self.artefacts[0].environment,
            stages={node.stage: node.key["code"] for node in self.artefacts},
            methods=self.facts.methods,
            photos=self.facts.fingerprint,
        )

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.options.out or Path("runs") / self.run.digest)

    @cached_property
    def missing(self) -> list[Node]:
        """The artefacts that are not in the store, in the order they will be computed."""
        return graph.missing(self.store, self.targets)

    def groups(self) -> list[Group]:
        """Return what is to be computed, by stage and method, with estimates."""
        paces = history(self.store)
        found: dict[tuple[str, str], list[Node]] = {}
        for node in self.missing:
            found.setdefault(node.group, []).append(node)
        groups = []
        for key, nodes in found.items():
            images, size = sum(node.work for node in nodes), sum(node.size for node in nodes)
            seconds = paces[key] * images if key in paces else declared_seconds(nodes, self.machine.threads)
            groups.append(Group(*key, len(nodes), images, size, seconds, key in paces))
        return groups

    def begin(self) -> None:
        """Write what is requested into the run's folder, and remove what killed runs left in the store.

        Raises:
            UsageError: the folder cannot be written, or the store, which lacks something.
        """
        if self.missing:
            check_writable(self.store.folder, "--store")
        check_writable(self.folder.path, "--out")
        self.store.sweep()
        machine = describe_machine(str(self.machine.device), self.machine.threads, self.machine.precision)
        self.folder.write_facts(self.facts, self.run.split, machine)

    def lines(self) -> Iterator[str]:
        """Yield what is to be done, for the log."""
        yield f"run {self.run.digest}: {len(self.run.cells)} cells, {self.cached_cells()} cached"
        for group in self.groups():
            about = f"{group.seconds:.0f} s{'' if group.timed else ' by rough estimate'}"
            work = f"{group.missing} artefacts, {group.images} images, about {about}"
            yield f"to compute {group.stage} {group.label}: {work}"
        yield from (f"to decide {node.label}" for node in self.missing if node.stage == "decide")

    def cached_cells(self) -> int:
        """Return how many cells need no work at all."""
        todo = {node.address for node in self.missing}
        return sum(all(node.address not in todo for node in cell.all()) for cell in self.nodes.values())


def prepare(requested: RunSpec, options: Options, machine: Machine | None = None) -> Prepared:
    """Resolve a specification and check all that can be known before work starts.

    Args:
        requested: the matrix.
        options: how to execute it.
        machine: where; None: as the options say.

    Raises:
        UsageError: unknown names, values out of range, empty pools, too few photos, no fitting weights.
        DataError: data or weights that are missing or corrupt.
    """
    run = resolve.resolve(requested)
    threads = options.threads
    if threads is None and options.engine is not None:
        threads = options.engine.threads(usable_cores())
    machine = machine or make_machine(
        options.device, threads, options.batch_size, options.lpips_trunk, options.limits, options.precision
    )
    pipeline = Pipeline(run, machine)
    _check_weights(run)
    threats = Threats(run)
    threats.check()
    nodes = {cell: _cell_nodes(pipeline, cell) for cell in run.cells}
    with looked_at_once():
        for cell in nodes.values():
            for node in cell.all():
                _ = node.address  # computing the key looks at every file that decides it
    store = Store(options.store or default_folder())
    of_cells = {cell: threats.of(cell) for cell in run.cells}
    facts = _facts(run, machine, options.command)
    prepared = Prepared(run, machine, pipeline, store, options, nodes, of_cells, facts)
    if any(node.stage == "faces" for node in prepared.missing):
        with calling(f"dataset '{run.dataset.name}'"):
            run.dataset.check()
    return prepared


def _facts(run: Resolved, machine: Machine, command: str) -> RunFacts:
    lpips = machine.lpips
    return RunFacts(
        run=run.digest,
        requested=run.requested,
        spec=run.spec,
        task=task_of(run.dataset, run.protocol, run.spec.split),
        given_targets=digest(dict(aims)) if (aims := run.given_targets) else "",
        dataset_note=run.dataset.note,
        lpips_trunk="" if isinstance(lpips, Unavailable) else lpips.trunk_sha256,
        lpips_reason=lpips.reason if isinstance(lpips, Unavailable) else "",
        command=command,
        fingerprint=run.fingerprint,
        methods=describe_methods(run),
        device=str(machine.device),
        threads=machine.threads,
        batch_size=machine.batch_size,
        precision=machine.precision,
    )


def _check_weights(run: Resolved) -> None:
    wanted = {*run.spec.backbones, *run.substitutes}
    for attack in run.attacks.values():
        for tracker in run.spec.backbones:
            wanted |= set(run.helpers(attack, tracker))
    for name in sorted(wanted):
        backbone: Backbone = run.plugin("backbones", name).method
        backbone.files(Binding(run.spec.dataset, run.dataset.domain, (), name))


def _cell_nodes(pipeline: Pipeline, cell: Cell) -> CellNodes:
    cloaked = (cell.attack, cell.backbone, cell.seed)
    defended = (cell.attack, cell.defense, cell.backbone, cell.seed)
    of_cloaks, of_photos = pipeline.detections(*defended)
    return CellNodes(
        cloak_measures=pipeline.cloak_measures(*cloaked),
        purified_measures=pipeline.purified_measures(*defended),
        restored_measures=pipeline.restored_measures(*cloaked, "photo"),
        restored_to_cloak_measures=pipeline.restored_measures(*cloaked, "cloak"),
        attack_probes=pipeline.attack_probes(*cloaked),
        purifier_probes=pipeline.purifier_probes(*defended),
        photo_probes=pipeline.photo_probes(),
        cloak_detections=of_cloaks,
        natural_detections=of_photos,
        decision=pipeline.decision(cell),
    )


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
    as_then = replace(
        options, device=device, threads=threads, batch_size=batch_size, precision=facts.precision
    )
    prepared = prepare(facts.requested, as_then)
    if prepared.run.digest != facts.run:
        raise DataError(
            f"{folder.path} is run {facts.run}; the same specification is run {prepared.run.digest} now, as the photos "
            f"({facts.spec.dataset}) or the benchmark's version (then {facts.benchmark_version}) are others."
        )
    return prepared
