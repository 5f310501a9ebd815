"""From a specification as text to plugins, with every name checked before any work starts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, TypeVar

from bench.contracts import (
    Attack,
    Backbone,
    BackbonePool,
    Binding,
    Dataset,
    Defense,
    Method,
    Protocol,
    Split,
    Substitution,
)  # fmt: skip
from bench.errors import UsageError, unknown
from bench.plugins import binding, factory, registry
from bench.randomness import numpy_generator
from bench.run import calls
from bench.run.bound import Plugin
from bench.run.digest import digest
from bench.run.photo_sets import target_identities
from bench.run.roles import Roles, roles
from bench.run.spec import BENCHMARK_VERSION, Cell, RunSpec, cells

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Resolved:
    """A run's plugins by canonical name.

    Attributes:
        requested: the specification as it was given.
        spec: the same in canonical form.
        dataset: where the faces come from.
        protocol: how the tracker is trained and tested.
        attacks: canonical name → attack, ``none`` included.
        defenses: canonical name → defence as the protocol deploys it (`Protocol.deployed`), ``none`` included.
        backbones: canonical name → tracker's backbone.
        pool: the dataset's pool of helper backbones.
        substitutes: canonical name → backbone that a defence puts in the place of a tracker's, where it is none itself.
        texts: (kind, canonical name) → the text a method was built from, where it is another.
    """

    requested: RunSpec
    spec: RunSpec
    dataset: Dataset
    protocol: Protocol
    attacks: Mapping[str, Attack]
    defenses: Mapping[str, Defense]
    backbones: Mapping[str, Backbone]
    pool: BackbonePool
    substitutes: Mapping[str, Backbone] = field(default_factory=dict)
    texts: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)

    def plugin(self, kind: str, name: str) -> Plugin[Any]:
        """Return a method of the run, or a helper backbone, with the text it was built from."""
        own: Mapping[str, Mapping[str, Method]] = {
            "attacks": self.attacks,
            "defenses": self.defenses,
            "backbones": {**self.substitutes, **self.backbones},
            "datasets": {self.spec.dataset: self.dataset},
            "protocols": {self.spec.protocol: self.protocol},
        }
        text = self.texts.get((kind, name), name)
        return Plugin(kind, text, own[kind][name]) if name in own[kind] else Plugin.of(kind, text)

    @cached_property
    def fingerprint(self) -> str:
        """The dataset's digest of everything that decides its crops."""
        return calls.fingerprint(self.dataset)

    @cached_property
    def digest(self) -> str:
        """The run's name: 12 hex digits over canonical specification, photos and benchmark version.

        The order in which methods were named does not count.
        """
        fields = self.spec.model_dump(mode="json").items()
        requested = {k: sorted(v) if isinstance(v, list) else v for k, v in fields}
        facts = {"spec": requested, "photos": self.fingerprint, "benchmark": BENCHMARK_VERSION}
        return digest(facts)[:12]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, reference cells included."""
        return cells(self.spec)[0]

    @cached_property
    def cells_requested(self) -> frozenset[Cell]:
        """The cells that were requested."""
        return cells(self.spec)[1]

    @cached_property
    def roles(self) -> Roles:
        """Who is evaluated, and who gives all that is learnt, imitated or calibrated on."""
        return roles(self.dataset, self.spec.split)

    @cached_property
    def split(self) -> Split:
        """Who is evaluated, on which photos, protected in which rotation."""
        identities = list(self.roles.evaluated)
        wanted = self.spec.identities
        if wanted is not None and wanted > len(identities):
            raise UsageError(
                f"--identities {wanted} is more than the {len(identities)} evaluated identities of "
                f"{self.spec.dataset}{'' if self.spec.split == 'evaluation' else ', split development'}; ask for "
                f"2 … {len(identities)}."
            )
        if len(identities) < 2:
            raise UsageError(
                f"{self.spec.dataset} has {len(identities)} evaluated identities; a tracker needs at least 2."
            )
        if wanted is not None:
            rng = numpy_generator(self.spec.split_seed, "identities")
            identities = [identities[i] for i in sorted(rng.permutation(len(identities))[:wanted])]
        return calls.split(self.protocol, identities, self.spec.split_seed)

    @cached_property
    def impostors(self) -> Mapping[str, tuple[str, ...]]:
        """Photos of identities that are not evaluated, as the protocol deals them."""
        return calls.impostors(self.protocol, list(self.roles.others), self.spec.split_seed)

    @cached_property
    def given_targets(self) -> Mapping[str, str]:
        """Whom cloaks imitate where the protocol says so: identity id → identity id."""
        split_seed = self.spec.split_seed
        able = target_identities(self.roles.others, split_seed, most=None)
        pool = [identity.id for identity in able if len(identity.photos) > 1]
        return calls.given_targets(
            self.protocol, self.split, self.impostors, self.roles.others, pool, split_seed
        )

    def helpers(self, method: Method, tracker: str) -> tuple[str, ...]:
        """Return the names of a method's surrogates or extractors for one tracker (`bench.plugins.binding.helpers`).

        Raises:
            UsageError: nothing is left of the pool, or too few for the method.
        """
        return binding.helpers(method, self.pool, tracker)

    def binding(self, method: Method, tracker: str) -> Binding:
        """Return what the plan resolved for a method, and for all that it is made of, on one tracker."""
        return binding.bind(method, self.spec.dataset, self.dataset.domain, self.pool, tracker)


def resolve(requested: RunSpec) -> Resolved:
    """Load every plugin of a specification and bring the specification to its canonical form.

    Raises:
        UsageError: an unknown method, parameter, head or suite of names.
    """
    dataset = factory.dataset(requested.dataset)
    protocol = factory.protocol(requested.protocol)
    for head in requested.heads:
        if head not in protocol.heads:
            raise unknown(f"head of protocol {protocol.name}", head, protocol.heads)
    pool = registry.POOLS.load(dataset.default_pool)
    trackers = requested.backbones or pool.groups[0]
    texts: dict[tuple[str, str], str] = {}
    attacks = _by_name("attacks", requested.attacks, factory.attack, texts)
    defenses = _by_name("defenses", requested.defenses, factory.defense, texts)
    backbones = _by_name("backbones", trackers, factory.backbone, texts)
    substitutes = _substitutes((*attacks.values(), *defenses.values()))
    known = _by_name("backbones", (*trackers, *substitutes), factory.backbone, texts)
    spec = requested.model_copy(
        update={
            "dataset": factory.canonical(dataset),
            "protocol": factory.canonical(protocol),
            "attacks": tuple(attacks),
            "defenses": tuple(defenses),
            "backbones": tuple(backbones),
            "heads": tuple(dict.fromkeys(requested.heads or protocol.heads[:1])),
            "seeds": tuple(dict.fromkeys(requested.seeds)),
        }
    )
    texts["datasets", spec.dataset] = requested.dataset
    texts["protocols", spec.protocol] = requested.protocol
    attacks.setdefault("none", factory.attack("none"))
    defenses.setdefault("none", factory.defense("none"))
    for (name, attack), (other, defense) in product(attacks.items(), defenses.items()):
        refused = (
            protocol.refuse(attack, defense)
            or _refuse_views(protocol, defense)
            or _refuse_decoys(protocol, attack)
        )
        if reason := refused or _refuse_public_cloaks(protocol, defense, spec.heads):
            raise UsageError(f"protocol {protocol.name} cannot measure {name} × {other}: {reason}")
    for name, defense in defenses.items():
        deployed = protocol.deployed(defense)
        if deployed is not defense:
            defenses[name], texts["defenses", name] = deployed, factory.text_of(deployed)
    others = {name: backbone for name, backbone in known.items() if name not in backbones}
    return Resolved(requested, spec, dataset, protocol, attacks, defenses, backbones, pool, others, texts)


def _substitutes(methods: Iterable[Method]) -> Iterator[str]:
    """Yield the texts of the backbones that methods, or what they are made of, put in the place of a tracker's."""
    for method in methods:
        if isinstance(method, Substitution):
            yield from (factory.text_of(part) for part in method.parts() if isinstance(part, Backbone))
        else:
            yield from _substitutes(method.parts())


def _refuse_views(protocol: Protocol, defense: Defense) -> str:
    """Say why a protocol cannot have a defence that keeps several views of a photo, or return ""."""
    count = len(defense.purifiers)
    if count < 2:
        return ""
    if not protocol.several_views:
        every = registry.PROTOCOLS.entries()
        fitting = ", ".join(name for name in every if registry.PROTOCOLS.load(name).several_views)
        return (
            f"the defence keeps {count} views of each gallery photo, and the protocol compares single photos. Use "
            f"one of the protocols {fitting}, or one of the views as a defence of its own."
        )
    if any(view.defended and view.photos in ("probes", "targets") for view in protocol.views.values()):
        return (
            f"the defence would make {count} images of each probe, and a probe is one. Keep it away from probes (see "
            f"the parameters of {protocol.name}), or use one of the views as a defence of its own."
        )
    return ""


def _refuse_decoys(protocol: Protocol, attack: Attack) -> str:
    """Say why a protocol cannot have an attack that edits others' photos, or return ""."""
    if inside := [factory.canonical(part) for part in _attacks_inside(attack) if part.edits_others]:
        return (
            f"{inside[0]} makes decoys of other identities' photos, and is no attack to adapt. Name another."
        )
    if not attack.edits_others or _shows_decoys(protocol):
        return ""
    every = registry.PROTOCOLS.entries()
    fitting = [name for name in every if _shows_decoys(factory.protocol(name))]
    if protocol.name in fitting:
        return (
            "the attack makes decoys of other identities' photos, and under these parameters the protocol has none in "
            "its gallery that are not evaluated. Raise distractors."
        )
    return (
        "the attack makes decoys of other identities' photos, and the protocol has none in its gallery that are not "
        f"evaluated. Use one of the protocols {', '.join(fitting)}."
    )


def _attacks_inside(method: Method) -> Iterator[Attack]:
    """Yield the attacks that a method is made of, at any depth."""
    for part in method.parts():
        if isinstance(part, Attack):
            yield part
        yield from _attacks_inside(part)


def _shows_decoys(protocol: Protocol) -> bool:
    return any(view.photos == "impostors" and view.state == "cloaked" for view in protocol.views.values())


def _refuse_public_cloaks(protocol: Protocol, defense: Defense, heads: Iterable[str]) -> str:
    """Say why a protocol or its heads cannot learn from cloaks that the tracker makes, or return ""."""
    if defense.public_cloaks is None:
        return ""
    if not protocol.end_to_end_heads:
        every = registry.PROTOCOLS.entries()
        fitting = ", ".join(name for name in every if registry.PROTOCOLS.load(name).end_to_end_heads)
        return (
            "the defence trains the whole network on the gallery, and the protocol has no head that does. Use one of "
            f"the protocols {fitting}."
        )
    wrong = [head for head in heads if head not in protocol.end_to_end_heads]
    if wrong:
        return (
            f"the defence trains the whole network on the gallery, and head '{wrong[0]}' keeps the network as it is. "
            f"Use --head {protocol.end_to_end_heads[0]}, and other heads in a run without this defence."
        )
    return ""


def _by_name(
    kind: str, requested: Iterable[str], create: Callable[[str], M], texts: dict[tuple[str, str], str]
) -> dict[str, M]:
    """Return canonical name → method, and note in `texts` what each was built from."""
    found: dict[str, M] = {}
    for text in requested:
        method = create(text)
        name = factory.canonical(method)
        other = found.setdefault(name, method)
        if type(other) is not type(method):
            raise UsageError(
                f"two {kind} of this run are called '{name}': {_qualified(other)} and {_qualified(method)}. "
                "Give one another name."
            )
        if other.params != method.params:
            raise UsageError(
                f"two {kind} of this run are both called '{name}', and tables would not tell them apart. Rename one "
                "of the files, or give it a name of its own (label=NAME) where it takes one."
            )
        texts.setdefault((kind, name), text)
    return found


def _qualified(method: Method) -> str:
    return f"{type(method).__module__}.{type(method).__name__}"
