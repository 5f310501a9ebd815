"""Who knew what in a cell: the columns that keep unlike rows from being compared.

Black-box and white-box cells are never averaged; a defence that trained on the attack it is measured
against says so. All of it is known before work starts; what would be impossible or unfair is refused there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.contracts import (
    Attack,
    Backbone,
    Binding,
    Dataset,
    Defense,
    Frozen,
    Hardening,
    Identity,
    Method,
    Purifier,
    Substitution,
    with_parts,
)  # fmt: skip
from bench.data.files import sha256_of
from bench.errors import BenchError, DataError, UsageError
from bench.plugins import factory, registry, syntax
from bench.plugins.binding import KnownHardening, embedders, known_hardenings
from bench.run.model_time import NOT_RECORDED, ModelTime, model_time
from bench.run.roles import EVALUATION, REMAINING, TRAINING, identities_of, learnt_from
from bench.run.spec import Cell, SplitName

if TYPE_CHECKING:
    from bench.run.resolve import Resolved

Overlap = Literal["yes", "no", "unknown"]

SAMPLED_PHOTOS = 3
"""Photos by which two datasets of one plugin are found to mean the same identities by the same ids."""


class CellThreat(Frozen):
    """The threat model of one cell, as printed in its row."""

    surrogates: str = Field(description="backbones the attack used, joined by |; empty: none")
    extractors: str = Field(description="backbones the defence was trained with, joined by |; empty: none")
    access: str = Field(
        description="black-box, white-box (a backbone that the tracker embeds with is a surrogate, or served to make "
        "one), or empty without surrogates"
    )
    extractor_is_tracker: bool = Field(
        False,
        description="the tracker's backbone, by name or by its weights' SHA-256, trained the defence, or one that "
        "the attack works against",
    )
    related: bool = Field(description="a surrogate or extractor is of the tracker's family")
    extractors_are_surrogates: bool = Field(
        description="the attack's surrogates and the defence's extractors overlap"
    )
    attack_seen_by_defense: str = Field(
        description="seen, seen-with-other-parameters, unseen, or not-trained where the defence does not learn"
    )
    attack_adapts_to_defense: bool = Field(description="the attack was made against this very defence")
    attack_adapts_in_part: bool = Field(
        False,
        description="the attack was made against a part of this defence, or a whole that shares one; not against it",
    )
    attack_knows: Literal["weights", "recipe", ""] = Field(
        "",
        description="what the attack has of that defence or part: weights: the very purifier, or the very hardened "
        "tracker; recipe: how trackers are hardened, not the weights that come of it; empty: it adapts to nothing here",
    )
    identity_overlap: Overlap = Field(
        description="whether an evaluated identity's photos trained the tracker's backbone, the defence or the attack"
    )
    identity_overlap_detail: str = Field("", description="how many identities, or why it is unknown")
    impostor_overlap: str = Field(
        "",
        description="whether an evaluated identity is among those that thresholds and distractors come from: yes, no; "
        "empty where the protocol has none",
    )
    model_time: ModelTime = Field(
        "",
        description="later: the tracker's weights were published after every surrogate's; not-later; empty where dates "
        "do not tell",
    )
    model_time_reason: str = Field(NOT_RECORDED, description="why model_time is empty")
    external: bool = Field(
        False, description="somebody else made the cloaks: surrogates, budget and training are as declared"
    )


@dataclass(frozen=True)
class OverlapFinding:
    """Whether evaluated identities are among those a part was trained on.

    Attributes:
        overlap: yes, no or unknown.
        detail: how many identities, or why it is unknown; "" for no.
        identities: the evaluated identities found there, sorted.
    """

    overlap: Overlap
    detail: str = ""
    identities: tuple[str, ...] = ()


class Threats:
    """The threat models of a run's cells; what they share is looked up once.

    Args:
        run: the resolved run.
        evaluated: identity ids of the evaluated identities; None for those of the run's split.
    """

    def __init__(self, run: Resolved, evaluated: frozenset[str] | None = None) -> None:
        self.run = run
        self.evaluated = frozenset(run.split.gallery) if evaluated is None else evaluated
        # Cells share trackers and sources: each is looked up once.
        self.source_overlap = cache(self._source_overlap)
        self.weights = cache(self._weights)
        self.embedders = cache(self._embedders)
        self.backbone = cache(self._backbone)

    def of(self, cell: Cell) -> CellThreat:
        """Return the threat model of a cell."""
        run = self.run
        attack, defense = run.attacks[cell.attack], run.defenses[cell.defense]
        declared = None if attack.made_elsewhere is None else attack.made_elsewhere.surrogates
        surrogates = run.helpers(attack, cell.backbone) if declared is None else self._known(declared)
        binding = run.binding(defense, cell.backbone)
        trained_with = self.extractors(cell)
        overlap = self.identity_overlap(cell)
        exactly, in_part = self._adapts(cell)
        trackers = self.trackers(cell)
        known = (*surrogates, *self._substituted_surrogates(cell))
        time, why_no_time = self._model_times(known, trackers)
        used = (*known, *self._trained_surrogates(cell))
        return CellThreat(
            surrogates="|".join(surrogates if declared is None else declared),
            extractors="|".join(binding.backbones),
            access=self._access(
                used, trackers, unknown=declared is not None and len(declared) > len(surrogates)
            ),
            extractor_is_tracker=any(self.same_weights(trained_with, own) for own in trackers),
            related=any(self._related(name, own) for name in {*known, *trained_with} for own in trackers),
            extractors_are_surrogates=any(self.same_weights(binding.backbones, name) for name in surrogates),
            attack_seen_by_defense=_seen(attack, defense.trained_on(binding)),
            attack_adapts_to_defense=exactly,
            attack_adapts_in_part=in_part,
            attack_knows=self._knows(cell) if exactly or in_part else "",
            identity_overlap=overlap.overlap,
            identity_overlap_detail=overlap.detail,
            impostor_overlap=self.impostor_overlap.overlap if self.run.impostors else "",
            model_time=time if declared is None else "",
            model_time_reason=why_no_time if declared is None else "the cloaks were made elsewhere",
            external=declared is not None,
        )

    def extractors(self, cell: Cell) -> tuple[str, ...]:
        """Return the extractors of the cell's defence and of the defences its attack works against, sorted."""
        defense = self.run.defenses[cell.defense]
        own = self.run.binding(defense, cell.backbone).backbones
        inside = with_parts(*self._attack(cell))
        known = {name for part, bound in inside if isinstance(part, Purifier) for name in bound.backbones}
        return tuple(sorted({*own, *known, *self._trained_surrogates(cell)}))

    def trackers(self, cell: Cell) -> tuple[str, ...]:
        """Return the backbones that the cell's tracker embeds with: its own, unless a substitution says others."""
        return self.embedders(self.run.defenses[cell.defense], cell.backbone)

    def _embedders(self, defense: Defense, tracker: str) -> tuple[str, ...]:
        return embedders(defense, self.backbone(tracker))

    def _attack(self, cell: Cell) -> tuple[Attack, Binding]:
        """Return the cell's attack with its binding."""
        attack = self.run.attacks[cell.attack]
        return attack, self.run.binding(attack, cell.backbone)

    def _trained_surrogates(self, cell: Cell) -> tuple[str, ...]:
        """Return the backbones that served to train the attack's surrogates by the hardenings it knows."""
        trainings = _trainings(self.run, *self._attack(cell))
        return tuple(sorted({name for _, bound in trainings for name in bound.backbones}))

    def _substituted_surrogates(self, cell: Cell) -> tuple[str, ...]:
        """Return the backbones that the attack's surrogates embed with by the substitutions it knows, sorted."""
        known = known_hardenings(*self._attack(cell))
        held = (self._held(each) for each in known if isinstance(each.method, Substitution))
        return tuple(sorted(set().union(*held)))

    def _held(self, known: KnownHardening) -> set[str]:
        """Return the backbones that an attack's surrogates embed with under a hardening that it knows."""
        return {name for each in known.surrogates for name in self.embedders(known.method, each)}

    def _knows(self, cell: Cell) -> Literal["weights", "recipe"]:
        """Say whether the attack has all of the defence that it adapts to, or of some hardening the recipe only.

        A surrogate that is the tracker's backbone is hardened to the very weights of the hardened tracker: same
        recipe, same photos, same seed. Of several backbones it must have each.
        """
        attack, binding = self._attack(cell)
        hardenings = _hardenings(self.run.defenses[cell.defense]) & _known_names(attack)
        held: set[str] = set()
        for known in known_hardenings(attack, binding):
            if all(self.same_weights(self._held(known), own) for own in self.trackers(cell)):
                held.add(factory.canonical(known.method))
        return "weights" if hardenings <= held else "recipe"

    def _adapts(self, cell: Cell) -> tuple[bool, bool]:
        """Say whether the attack knows the very defence of the cell, and else whether what it knows shares a part."""
        attack, defense = self.run.attacks[cell.attack], self.run.defenses[cell.defense]
        if not attack.threat.adapts_to:
            return False, False
        if factory.canonical(defense) in attack.threat.adapts_to:
            return True, False
        return False, not _names(defense).isdisjoint(_known_names(attack))

    def check(self) -> None:
        """Refuse what no row could be read from.

        Raises:
            UsageError: the dataset gives a photo to two identities or to gallery and probes; or a pool that
                stands for other backbones than the tracker's holds the tracker's weights under another name, or would
                have the tracker train the surrogates of an attack that may not know it; or a substitution is none for a
                tracker.
        """
        _check_photos(self.run.dataset)
        _check_split(self.run)
        for tracker in self.run.backbones:
            for method in (*self.run.attacks.values(), *self.run.defenses.values()):
                self._check_pool(method, tracker)
            for attack in self.run.attacks.values():
                self._check_recipe(attack, tracker)
                self._check_photos_of(attack)
                self._check_targets_of(attack)
            for defense in self.run.defenses.values():
                self._check_substitution(defense, tracker)

    def _check_photos_of(self, attack: Attack) -> None:
        """Refuse cloaks that were made of other photos than the run's."""
        declared = attack.made_elsewhere
        if declared is not None and declared.dataset_fingerprint != self.run.fingerprint:
            raise UsageError(
                f"the cloaks of {factory.canonical(attack)} were made of other photos or other crops than those of "
                f"'{self.run.spec.dataset}' here, though the dataset's name is the same. Export the crops again, cloak "
                "these, and import them."
            )

    def _check_targets_of(self, attack: Attack) -> None:
        """Refuse cloaks that imitate others than the protocol says."""
        made_for = {} if attack.made_elsewhere is None else attack.made_elsewhere.targets
        aims = self.run.given_targets
        wrong = [
            (image, aims[name])
            for name, own in (self.run.split.cloaked.items() if made_for else ())
            for image in own
            if name in aims and made_for.get(image, aims[name]) != aims[name]
        ]
        if wrong:
            image, wanted = wrong[0]
            raise UsageError(
                f"the cloak of '{image}' by {factory.canonical(attack)} imitates '{made_for[image]}', and this run "
                f"has it imitate '{wanted}'; {len(wrong)} are so. Run with the protocol and split seed that the "
                "crops were exported with."
            )

    def _known(self, declared: Sequence[str]) -> tuple[str, ...]:
        """Return those of some names that a backbone here has: a registered one, or one of the run's."""
        here = {*registry.EVERY["backbones"].entries(), *self.run.backbones}
        return tuple(name for name in declared if name in here)

    def _check_substitution(self, defense: Defense, tracker: str) -> None:
        """Refuse what a substitution refuses; what an attack makes of its surrogates is its own affair."""
        hardening = defense.hardening
        reason = hardening.refuse(self.backbone(tracker)) if isinstance(hardening, Substitution) else ""
        if reason:
            raise UsageError(f"{factory.canonical(defense)} is no defence of tracker {tracker}: {reason}")

    def _check_recipe(self, attack: Attack, tracker: str) -> None:
        """Refuse the tracker's backbone among the helpers that a pool gives to the training of a surrogate."""
        binding = self.run.binding(attack, tracker)
        trainings = tuple(_trainings(self.run, attack, binding))
        if trainings and self.same_weights(binding.backbones, tracker):
            return  # white-box by name: nothing about the tracker is hidden from the attack
        for method, bound in trainings:
            same = self.same_weights(bound.backbones, tracker) if _from_pool(method) else ()
            if same:
                raise UsageError(
                    f"{factory.canonical(attack)} would train its surrogate {bound.tracker} by "
                    f"{factory.canonical(method)} with the backbone {same[0]}, which is the tracker's ({tracker}), as "
                    f"the pool '{method.pool()}' gives all but the surrogate's own group. Name the helpers in the "
                    "hardening one by one, joined by '|'."
                )

    def _check_pool(self, method: Method, tracker: str) -> None:
        for part in method.parts():
            self._check_pool(part, tracker)
        if not _from_pool(method):
            return  # named one by one: whoever names the tracker's backbone asks for it
        wanted = method.pool()
        same = self.same_weights(self.run.helpers(method, tracker), tracker)
        if same:
            raise UsageError(
                f"the pool '{wanted}' gives {factory.canonical(method)} the backbone {same[0]}, whose weights are the "
                f"tracker's ({tracker}), and a pool promises others than the tracker's. Name helpers one by one, "
                "joined by '|': the row then says that the tracker's own backbone was used."
            )

    # -- backbones -------------------------------------------------------------------------------------

    def same_weights(self, names: Iterable[str], tracker: str) -> tuple[str, ...]:
        """Return those of `names` that are the tracker's backbone, by name or by the weights' SHA-256."""
        own = self.weights(tracker)
        return tuple(name for name in names if name == tracker or own & self.weights(name))

    def _weights(self, name: str) -> frozenset[str]:
        """Return the SHA-256 of a backbone's weights, and of files that hold the same; empty where it has no file."""
        backbone = self.backbone(name)
        if backbone.card.sha256:
            return frozenset({backbone.card.sha256, *backbone.card.equivalents})
        run = self.run
        files = backbone.files(Binding(run.spec.dataset, run.dataset.domain, (), name))
        return frozenset(sha256_of(path) for path in files if path.suffix != ".json")

    def _backbone(self, name: str) -> Backbone:
        run = self.run
        return run.backbones.get(name) or run.substitutes.get(name) or factory.backbone(name)

    def _access(self, surrogates: tuple[str, ...], trackers: tuple[str, ...], *, unknown: bool) -> str:
        if any(self.same_weights(surrogates, each) for each in trackers):
            return "white-box"
        return "black-box" if surrogates or unknown else ""

    def _model_times(self, surrogates: tuple[str, ...], trackers: tuple[str, ...]) -> tuple[ModelTime, str]:
        """Return whether every backbone that a tracker embeds with is later than every surrogate."""
        each = [self._model_time(surrogates, tracker) for tracker in trackers]
        if any(value == "not-later" for value, _ in each):
            return "not-later", ""
        unknown = list(dict.fromkeys(reason for value, reason in each if not value))
        return ("", "; ".join(unknown)) if unknown else ("later", "")

    def _model_time(self, surrogates: tuple[str, ...], tracker: str) -> tuple[ModelTime, str]:
        if self.same_weights(surrogates, tracker):
            return "not-later", ""
        released = {name: self.backbone(name).card.released for name in surrogates}
        return model_time(tracker, self.backbone(tracker).card.released, released)

    def _related(self, name: str, tracker: str) -> bool:
        one, other = self.backbone(name).card, self.backbone(tracker).card
        return bool(self.same_weights((name,), tracker)) or (one.family != "" and one.family == other.family)

    # -- identities ----------------------------------------------------------------------------------------

    @cached_property
    def impostor_overlap(self) -> OverlapFinding:
        """Whether evaluated identities are among those that thresholds and distractors come from."""
        return _counted(self.evaluated, self.run.impostors, "the protocol's impostors")

    def identity_overlap(self, cell: Cell) -> OverlapFinding:
        """Return whether an evaluated identity's photos trained the tracker's backbone, the defence or the attack."""
        found = [(part, self.source_overlap(source)) for part, source in self.training_sources(cell)]
        details = dict.fromkeys(f"{part}: {each.detail}" for part, each in found if each.detail)
        results = {each.overlap for _, each in found}
        identities = tuple(sorted({identity for _, each in found for identity in each.identities}))
        overlap: Overlap = "yes" if "yes" in results else "unknown" if "unknown" in results else "no"
        return OverlapFinding(overlap, "; ".join(details), identities)

    def training_sources(self, cell: Cell) -> list[tuple[str, str]]:
        """Return (part, what it says of its training identities) for the parts of a cell that were trained.

        A method made of others was trained on what they were; what an attack knows of a defence is the attack's.
        """
        run = self.run
        attack, defense = run.attacks[cell.attack], run.defenses[cell.defense]
        found = [("tracker", self.backbone(name).card.training_data) for name in self.trackers(cell)]
        for role, whole in (("defence", defense), ("attack", attack)):
            for method, binding in with_parts(whole, run.binding(whole, cell.backbone)):
                if isinstance(method, Attack | Defense):
                    source = training_source(method, binding, run.spec.dataset, run.spec.split)
                    found.append((role, source))
        return [(part, source) for part, source in dict.fromkeys(found) if source != "none"]

    def _source_overlap(self, source: str) -> OverlapFinding:
        """Return whether evaluated identities are among those of a source.

        Args:
            source: ``<dataset>/`` and one of the ends in `bench.run.roles`, or any other text.
        """
        with suppress(BenchError):  # the dataset's files are not here any more
            reported = self.run.dataset.identities_in(source)
            if reported is not None:
                return _counted(self.evaluated, reported, f"'{source}'")
        try:
            dataset, identities = self.identities_of(source)
            why = self._why_other_identities(dataset)
        except BenchError as error:
            return OverlapFinding("unknown", str(error))
        if why is None:
            return _counted(self.evaluated, (identity.id for identity in identities), f"'{source}'")
        return OverlapFinding("no" if why == "" else "unknown", why)

    def identities_of(self, source: str) -> tuple[Dataset, tuple[Identity, ...]]:
        """Return the dataset a source names and the identities of the role it names.

        Raises:
            UsageError: it names no dataset and role.
            DataError: the dataset's files are not here.
        """
        text, _, role = source.rpartition("/")
        if role not in (TRAINING, EVALUATION, REMAINING) or not text:
            raise UsageError(f"'{source}' names no dataset that can be looked at")
        try:
            dataset = self._dataset(text)
            return dataset, identities_of(dataset, role)
        except BenchError as error:
            raise DataError(f"'{source}' cannot be looked at: {error}") from error

    def _dataset(self, text: str) -> Dataset:
        own = self.run.dataset
        if text == self.run.spec.dataset:
            return own
        parsed = syntax.parse(text)
        if parsed.name != own.name:
            return factory.dataset(text)
        made = factory.build(type(own), parsed)  # also where the class came from a file
        assert isinstance(made, Dataset)
        return made

    def _why_other_identities(self, dataset: Dataset) -> str | None:
        """Return None where ids mean the same identities in both, "" where none is in both, else why it is unknown."""
        own = self.run.dataset
        if dataset is own or (dataset.name == own.name and dataset.fingerprint() == own.fingerprint()):
            return None
        if dataset.domain != own.domain:
            return ""  # rendered identities are not photographed ones
        if dataset.name == own.name and _agree(dataset, own):
            return None
        return (
            f"nothing says whether identities of '{factory.canonical(dataset)}' are in '{self.run.spec.dataset}' under "
            "other ids"
        )


def training_source(
    method: Attack | Defense, binding: Binding, dataset: str, split: SplitName = "evaluation"
) -> str:
    """Return on whose photos a method was trained; one that learns in the run does so on the dataset's.

    Args:
        method: of a cell, or a part of one.
        binding: its own.
        dataset: canonical.
        split: of the run, whose evaluated identities are no part of what it learns from.
    """
    declared = method.training_identities(binding)
    if not (method.requires_fit or (isinstance(method, Hardening) and method.trains)):
        return declared
    # Without files nothing was trained before the run, whatever a method calls the photos that the run hands it.
    in_run = declared == "none" or (declared == f"{dataset}/{TRAINING}" and not method.files(binding))
    return learnt_from(dataset, split) if in_run else declared


def _counted(evaluated: frozenset[str], identities: Iterable[str], where: str) -> OverlapFinding:
    shared = tuple(sorted(evaluated.intersection(identities)))
    if not shared:
        return OverlapFinding("no")
    detail = f"{len(shared)} of {len(evaluated)} evaluated identities are among {where}"
    return OverlapFinding("yes", detail, shared)


def _agree(one: Dataset, other: Dataset) -> bool:
    """Say whether some photos that both datasets name alike are alike to the last byte."""
    ids = [
        {image for identity in dataset.identities() for image in identity.photos} for dataset in (one, other)
    ]
    common = sorted(ids[0] & ids[1])
    sample = [common[i * (len(common) - 1) // (SAMPLED_PHOTOS - 1)] for i in range(SAMPLED_PHOTOS) if common]
    return bool(sample) and bool((one.crops(sample) == other.crops(sample)).all())


def _check_photos(dataset: Dataset) -> None:
    owner: dict[str, str] = {}
    seen: set[str] = set()
    for identity in dataset.identities():
        if identity.id in seen:
            raise UsageError(
                f"dataset '{dataset.name}' lists identity '{identity.id}' twice; give each identity one."
            )
        seen.add(identity.id)
        for image in identity.photos:
            other = owner.setdefault(image, identity.id)
            if other != identity.id:
                raise UsageError(
                    f"dataset '{dataset.name}' gives photo '{image}' to both '{other}' and '{identity.id}'; a photo "
                    "belongs to one identity."
                )


def _check_split(run: Resolved) -> None:
    for identity, probes in run.split.probes.items():
        both = set(run.split.gallery.get(identity, ())) & set(probes)
        if both:
            raise UsageError(
                f"protocol {run.protocol.name} puts photo '{min(both)}' both into the gallery and among the probes; a "
                "tracker would be asked about a photo it has."
            )


def _from_pool(method: Method) -> bool:
    """Say whether a method has its helpers from a pool, not named one by one."""
    wanted = method.pool()
    return wanted is not None and (wanted == "auto" or wanted in registry.POOLS.entries())


def _trainings(run: Resolved, attack: Attack, binding: Binding) -> Iterator[tuple[Method, Binding]]:
    """Yield the hardenings that an attack knows, and their parts, as each is bound to train a surrogate."""
    for known in known_hardenings(attack, binding):
        for surrogate in known.surrogates:
            yield from with_parts(known.method, run.binding(known.method, surrogate))


def _hardenings(defense: Defense) -> set[str]:
    """Return the canonical names of the hardenings among a defence and the defences it is made of."""
    inside = (_hardenings(part) for part in defense.parts() if isinstance(part, Defense))
    own = {factory.canonical(defense)} if isinstance(defense, Hardening) else set()
    return own.union(*inside)


def _known_names(attack: Attack) -> set[str]:
    """Return the canonical names of the defences that an attack works against, and of what these are made of."""
    inside = (_names(part) for part in attack.parts() if isinstance(part, Defense))
    return {*attack.threat.adapts_to}.union(*inside)


def _names(defense: Defense) -> set[str]:
    """Return the canonical names of a defence and of the defences it is made of, without parts that do nothing."""
    parts = (part for part in defense.parts() if isinstance(part, Defense))
    acting = (part for part in parts if part.changes_images or part.hardening is not None)
    return {factory.canonical(defense)}.union(*map(_names, acting))


def _seen(attack: Attack, trained_on: tuple[str, ...]) -> str:
    name = factory.canonical(attack)
    if name == "none":
        return ""
    if not trained_on:
        return "not-trained"
    # Cloaks made against the finished defence are none it can have been trained on, whatever they are called.
    if name in trained_on and not attack.threat.adapts_to:
        return "seen"
    inside = {attack.name, *(part.name for part in attack.parts() if isinstance(part, Attack))}
    known = {syntax.parse(text).name for text in trained_on}
    return "seen-with-other-parameters" if inside & known else "unseen"
