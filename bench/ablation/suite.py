"""One factor at a time: what each choice in a defence, its training and its measurement is worth.

A file names a base and levels that differ from it in one factor each. What is missing is trained, then every
level is measured; levels that ask for the same faces, attacks and trackers are one run, so that what they share
is computed once. ``docs/ablations.md`` has the file's keys and the table's columns.

What lives here: the file, what it takes, and doing it. What must not: training (`bench.contracts.Trainer`), runs
(`bench.run.runner`) and the table (`bench.ablation.table`).
"""

import json
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, field_validator

from bench.contracts import Frozen, TrainRequest
from bench.errors import MethodError, UsageError, unknown
from bench.plugins import factory
from bench.plugins import factory as methods
from bench.run import planning, resolve, runner
from bench.run.code_hashes import code_digest
from bench.run.device import use_device
from bench.run.digest import digest
from bench.run.folder import RunFolder
from bench.run.resolve import Resolved
from bench.run.roles import for_training
from bench.run.spec import RunSpec, SplitName, make_spec

if TYPE_CHECKING:
    from bench.run.graph import Node
    from bench.run.planning import Options, Prepared

WEIGHTS = "{weights}"
"""Stands in a defence's text for the file its level's trainer writes."""

Report = Callable[[str, int, int], None]


class Settings(Frozen):
    """What one level measures."""

    dataset: str = Field("synthetic", description="dataset; its training identities train")
    identities: int | None = Field(None, ge=2, description="evaluate this many identities")
    split: SplitName = Field(
        "evaluation", description="whom to measure; development: training identities, to make choices on"
    )
    split_seed: int = Field(0, ge=0, description="seed of splits, folds and of the choice of identities")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="seeds of the methods' randomness")
    attacks: tuple[str, ...] = Field(min_length=1, description="attacks that are measured")
    backbones: tuple[str, ...] = Field(
        (), description="trackers; empty: the first group of the dataset's pool"
    )
    heads: tuple[str, ...] = Field((), description="heads; empty: the protocol's first")
    protocol: str = Field("tracker", description="protocol")
    defense: str = Field(description=f"defence; {WEIGHTS} stands for the trained file")
    trainer: str = Field("", description="trainer with its parameters; empty: nothing is trained")
    trainer_attacks: tuple[str, ...] = Field((), description="attacks it trains against")
    trainer_backbones: tuple[str, ...] = Field((), description="its surrogates and feature extractors")
    trainer_seed: tuple[int, ...] = Field(
        (0,),
        min_length=1,
        description="seeds of the training, one or several; a claim about it needs three or more",
    )

    @field_validator("trainer_seed", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("trainer_seed")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is there twice")
        return value


class Level(Frozen):
    """One level of one factor: the base's settings but for what it overrides."""

    factor: str = Field(min_length=1, description="what varies")
    name: str = Field(min_length=1, description="the level")
    settings: Settings


class Suite(Frozen):
    """A file of ablations."""

    base: Settings
    levels: tuple[Level, ...] = Field(min_length=1)


def load(path: Path) -> Suite:
    """Read a file of ablations (TOML: ``[base]`` and ``[[level]]`` tables).

    Raises:
        UsageError: not a file, not TOML, an unknown key, a level without factor or name, or named twice, or
            ``{weights}`` without a trainer.
    """
    document = _read(path)
    _check_keys(f"table in {path.name}", document, ("base", "level"))
    base = document.get("base")
    tables = document.get("level")
    if (
        not isinstance(base, dict)
        or not isinstance(tables, list)
        or not all(isinstance(t, dict) for t in tables)
    ):
        raise UsageError(f"{path.name} needs one table [base] and at least one table [[level]].")
    _check_keys(f"key of [base] in {path.name}", base, Settings.model_fields)
    settings = _settings(base, "[base]")
    levels: dict[tuple[str, str], Level] = {}
    for number, values in enumerate(tables, start=1):
        level = _level(base, values, number, path.name)
        key = (level.factor, level.name)
        if key in levels:
            raise UsageError(
                f"{path.name}: level '{level.name}' of factor '{level.factor}' is there twice. Rename one of them."
            )
        levels[key] = level
    if not levels:
        raise UsageError(f"{path.name} has no level; write one [[level]] table for each.")
    return Suite(base=settings, levels=tuple(levels.values()))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the file of ablations '{path}' does not exist.") from None
    except OSError as error:
        raise UsageError(f"the file of ablations '{path}' cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of ablations '{path}' is not valid TOML: {error}.") from None


def _check_keys(kind: str, values: Mapping[str, Any], valid: Iterable[str]) -> None:
    known = list(valid)
    for key in values:
        if key not in known:
            raise unknown(kind, key, known)


def _level(base: Mapping[str, Any], values: Mapping[str, Any], number: int, file: str) -> Level:
    where = f"[[level]] number {number} of {file}"
    _check_keys(f"key of {where}", values, ("factor", "name", *Settings.model_fields))
    named = {}
    for key, example in (("factor", "k"), ("name", "2")):
        text = values.get(key, "")
        if not isinstance(text, str) or not text.strip():
            raise UsageError(f'{where} has no {key}: write {key} = "{example}", in quotes.')
        named[key] = text.strip()
    overrides = {key: value for key, value in values.items() if key not in ("factor", "name")}
    level = f"level '{named['name']}' of factor '{named['factor']}'"
    return Level(**named, settings=_settings({**base, **overrides}, level))


def _settings(values: Mapping[str, Any], where: str) -> Settings:
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise UsageError(f"{where} has no {key}.") from None
        raise UsageError(f"{where}: {key} cannot be {first['input']!r}: {first['msg'].lower()}.") from None
    if WEIGHTS in settings.defense and not settings.trainer:
        raise UsageError(
            f'{where}: defense = "{settings.defense}" asks for trained weights, and there is no trainer. '
            'Say trainer = "NAME:parameter=value" (`bench list trainers`), or name a file.'
        )
    return settings


# -- what is to be done ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """A training's methods as the file has them, with the folders of their files."""

    dataset: str
    trainer: str
    attacks: tuple[str, ...]
    backbones: tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """Weights that levels share, and all that decides them.

    Attributes:
        dataset: canonical.
        fingerprint: of the dataset's crops.
        trainer: canonical.
        attacks: canonical, in the order given: parameters may be one an attack.
        backbones: canonical, in the order given.
        weights: SHA-256 of the backbones' weights as their cards have them.
        seed: of the training.
        folder: where the weights go.
        code: digest of the code of trainer, attacks and backbones.
        given: the methods as they were given; what they are called is `dataset` to `backbones`.
    """

    dataset: str
    fingerprint: str
    trainer: str
    attacks: tuple[str, ...]
    backbones: tuple[str, ...]
    weights: tuple[str, ...]
    seed: int
    folder: Path
    code: str = ""
    given: Given | None = field(default=None, compare=False)

    @cached_property
    def digest(self) -> str:
        """12 hex digits over everything but the folder and how it was written; the file's name."""
        return digest(
            [
                self.dataset,
                self.fingerprint,
                self.trainer,
                self.attacks,
                self.backbones,
                self.weights,
                self.seed,
                self.code,
            ]
        )[:12]

    @property
    def file(self) -> Path:
        """The weights."""
        return self.folder / f"{self.digest}.safetensors"

    def card(self) -> dict[str, Any] | None:
        """Return the card of the finished weights, None where they are not there or their card is not whole."""
        try:
            found = json.loads(self.file.with_suffix(".json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and self.file.is_file() else None


@dataclass(frozen=True)
class Matrix:
    """One run for all levels that differ in the defence alone.

    Attributes:
        resolved: the run.
        needs: canonical defence → the weights it is made with.
    """

    resolved: Resolved
    needs: Mapping[str, Training]


@dataclass(frozen=True)
class MeasuredLevel:
    """Where a level is measured.

    Attributes:
        level: the level.
        matrix: number of its run in the plan.
        defenses: canonical names in that run, one a training seed.
        trainings: their weights in the same order; none where nothing is trained.
    """

    level: Level
    matrix: int
    defenses: tuple[str, ...]
    trainings: tuple[Training, ...]


@dataclass(frozen=True)
class Plan:
    """What a suite takes.

    Attributes:
        folder: where weights, training cloaks and runs go.
        trainings: each set of weights once.
        matrices: each run once.
        places: one a level, in the file's order.
        base: the base's.
    """

    folder: Path
    trainings: tuple[Training, ...]
    matrices: tuple[Matrix, ...]
    places: tuple[MeasuredLevel, ...]
    base: MeasuredLevel

    def users(self, training: Training) -> list[Level]:
        """Return the levels that use some weights."""
        return [place.level for place in self.places if training in place.trainings]


def plan(suite: Suite, folder: Path) -> Plan:
    """Resolve a suite: every name is checked, and what levels share is found.

    Args:
        suite: what is requested.
        folder: where weights, training cloaks and runs go.

    Raises:
        UsageError: an unknown name or parameter, or identities, photos or heads that are not there.
    """
    levels = (Level(factor="base", name="base", settings=suite.base), *suite.levels)
    trainings = [_trainings(level.settings, folder) for level in levels]
    texts = [_texts(level.settings, own) for level, own in zip(levels, trainings, strict=True)]
    groups: dict[str, list[int]] = {}
    for number, level in enumerate(levels):
        groups.setdefault(_matrix_key(level.settings), []).append(number)
    matrices: list[Matrix] = []
    numbers: dict[int, int] = {}
    for members in groups.values():
        requested = [text for number in members for text in texts[number]]
        resolved = resolve.resolve(_spec(levels[members[0]].settings, requested))
        _ = resolved.split  # too few identities or photos are known now
        needs = {
            _name(text): training
            for number in members
            if trainings[number]
            for text, training in zip(texts[number], trainings[number], strict=True)
        }
        numbers |= dict.fromkeys(members, len(matrices))
        matrices.append(Matrix(resolved, needs))
    places = [
        MeasuredLevel(level, numbers[number], tuple(map(_name, texts[number])), trainings[number])
        for number, level in enumerate(levels)
    ]
    used = dict.fromkeys(training for matrix in matrices for training in matrix.needs.values())
    return Plan(folder, tuple(used), tuple(matrices), tuple(places[1:]), places[0])


def _texts(settings: Settings, trainings: Sequence[Training]) -> tuple[str, ...]:
    """Return a level's defence, with each training's file where it stands for one."""
    files = [str(training.file) for training in trainings]
    return tuple(settings.defense.replace(WEIGHTS, file) for file in files) or (settings.defense,)


def _trainings(settings: Settings, folder: Path) -> tuple[Training, ...]:
    """Return the trainings of a level, one a seed; none where nothing is trained for it."""
    if not settings.trainer or WEIGHTS not in settings.defense:
        return ()
    trainer = factory.trainer(settings.trainer)
    for needed, key in (
        (trainer.needs_attacks, "trainer_attacks"),
        (trainer.needs_backbones, "trainer_backbones"),
    ):
        if needed and not getattr(settings, key):
            raise UsageError(f"trainer {settings.trainer} needs {key}; name at least one.")
    dataset = factory.dataset(settings.dataset)
    attacks = [factory.attack(text) for text in settings.trainer_attacks]
    backbones = [factory.backbone(text) for text in settings.trainer_backbones]
    first = Training(
        dataset=methods.canonical(dataset),
        fingerprint=dataset.fingerprint(),
        trainer=methods.canonical(trainer),
        attacks=tuple(methods.canonical(attack) for attack in attacks),
        backbones=tuple(methods.canonical(backbone) for backbone in backbones),
        weights=tuple(backbone.card.sha256 for backbone in backbones),
        seed=settings.trainer_seed[0],
        folder=folder / "weights",
        code=code_digest(type(trainer), *map(type, attacks), *map(type, backbones)),
        given=Given(settings.dataset, settings.trainer, settings.trainer_attacks, settings.trainer_backbones),
    )
    return tuple(replace(first, seed=seed) for seed in settings.trainer_seed)


def _matrix_key(settings: Settings) -> str:
    """Return what levels of one run share: all that is measured but the defence."""
    fields = set(RunSpec.model_fields) - {"defenses"}
    return json.dumps(settings.model_dump(mode="json", include=fields), sort_keys=True)


def _spec(settings: Settings, defenses: Iterable[str]) -> RunSpec:
    fields = set(RunSpec.model_fields) - {"defenses"}
    return make_spec({**settings.model_dump(include=fields), "defenses": tuple(dict.fromkeys(defenses))})


def _name(defense: str) -> str:
    return methods.canonical(factory.defense(defense))


# -- doing it ----------------------------------------------------------------------------------------------------


def train(training: Training, cloaks: Path, options: "Options", report: Report) -> Mapping[str, Any]:
    """Train weights unless they are there; one that was killed goes on. Returns the card.

    Args:
        training: what to train.
        cloaks: folder of training cloaks that all trainings share.
        options: device and threads.
        report: called with (what, done, in all).

    Raises:
        UsageError: too few identities or the like.
        MethodError: the training failed.
    """
    if (card := training.card()) is not None:
        return card
    device, _ = use_device(options.device, options.threads)
    # As they were given: canonical texts have lost the folders of their files.
    given = training.given or Given(training.dataset, training.trainer, training.attacks, training.backbones)
    backbones = tuple(factory.backbone(text) for text in given.backbones)
    for backbone in backbones:
        backbone.load(device)
    training.folder.mkdir(parents=True, exist_ok=True)
    dataset = factory.dataset(given.dataset)
    return factory.trainer(given.trainer).train(
        TrainRequest(
            dataset=dataset,
            out=training.file,
            attacks=tuple(factory.attack(text) for text in given.attacks),
            backbones=backbones,
            seed=training.seed,
            device=device,
            report=report,
            cloaks=cloaks,
            learnt_from=for_training(dataset, training.dataset),
        )
    )


@dataclass(frozen=True)
class Missing:
    """What one run lacks.

    Attributes:
        run: its digest.
        cells: in all.
        cached: those that need no work.
        untrained: defences whose weights are not trained yet; their cells are all missing.
    """

    run: str
    cells: int
    cached: int
    untrained: int


def missing(requested: Plan, options: "Options") -> list[Missing]:
    """Say of each run how much is to be computed, without any work.

    Raises:
        UsageError: as `bench.run.planning.prepare`.
        DataError: as there.
    """
    found = []
    for matrix in requested.matrices:
        absent = {training.digest for training in matrix.needs.values() if training.card() is None}
        prepared = prepare(requested, matrix, options, absent)
        cells = len(matrix.resolved.cells)
        found.append(Missing(matrix.resolved.digest, cells, prepared.cached_cells(), len(absent)))
    return found


def prepare(requested: Plan, matrix: Matrix, options: "Options", without: Collection[str] = ()) -> "Prepared":
    """Return a run of a plan that can be started; its folder is ``runs/<run>`` in the plan's.

    Args:
        requested: the plan.
        matrix: one of its runs.
        options: how to execute.
        without: digests of trainings that gave no weights; their defences are left out.

    Raises:
        UsageError: as `bench.run.planning.prepare`.
        DataError: as there.
    """
    spec = matrix.resolved.requested
    absent = {name for name, training in matrix.needs.items() if training.digest in without}
    ready = tuple(text for text in spec.defenses if _name(text) not in absent) or ("none",)
    prepared = planning.prepare(
        spec.model_copy(update={"defenses": ready}), replace(options, out=requested.folder)
    )
    folder = requested.folder / "runs" / prepared.run.digest
    return replace(prepared, options=replace(prepared.options, out=folder))


@dataclass(frozen=True)
class SuiteOutcome:
    """What became of a plan.

    Attributes:
        folders: the finished run of each of the plan's matrices.
        untrained: digest of a training → why it has no weights.
        failures: why trainings or cells failed, each reason once.
    """

    folders: tuple[RunFolder, ...]
    untrained: Mapping[str, str]
    failures: tuple[str, ...]


def _silent(_what: str, _done: int, _total: int) -> None:
    return None


def execute(
    requested: Plan,
    options: "Options",
    *,
    report: Callable[[Training], Report] = lambda _training: _silent,
    watch: Callable[["Prepared"], AbstractContextManager[Callable[["Node", int], None]]] | None = None,
) -> SuiteOutcome:
    """Train what is missing and measure every level.

    A training or a cell that fails leaves its reason, and the others go on. Interrupted, the same call goes on.

    Args:
        requested: the plan.
        options: device, threads, store.
        report: gives the function a training tells its progress.
        watch: gives a context with the function a run tells its progress.

    Raises:
        UsageError: what was requested cannot be done.
        DataError: data or weights are missing or corrupt.
    """
    failed: dict[str, str] = {}
    for training in requested.trainings:
        try:
            train(training, requested.folder / "cloaks", options, report(training))
        except MethodError as error:
            failed[training.digest] = f"training failed: {error}"
    folders, reasons = [], list(failed.values())
    for matrix in requested.matrices:
        prepared = prepare(requested, matrix, options, failed)
        with watch(prepared) if watch else nullcontext(lambda _node, _count: None) as advance:
            results = runner.execute(prepared, advance)
        reasons += [result.reason for result in results if result.status != "ok"]
        folders.append(prepared.folder)
    return SuiteOutcome(tuple(folders), failed, tuple(dict.fromkeys(reasons)))
