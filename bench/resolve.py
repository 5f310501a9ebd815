"""From a specification as text to plugins, with every name checked before any work starts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from bench import methods, registry
from bench.contracts import Attack, Backbone, BackbonePool, Binding, Dataset, Defense, Method, Protocol, Split
from bench.digest import digest
from bench.errors import UsageError, unknown
from bench.randomness import numpy_generator
from bench.spec import BENCHMARK_VERSION, Cell, RunSpec, cells

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Resolved:
    """A run's plugins by canonical name.

    Attributes:
        asked: the specification as it was given.
        spec: the same in canonical form.
        dataset: where the faces come from.
        protocol: how the tracker is asked.
        attacks: canonical name → attack, ``none`` included.
        defenses: canonical name → defence, ``none`` included.
        backbones: canonical name → tracker's backbone.
        pool: the dataset's pool of helper backbones.
    """

    asked: RunSpec
    spec: RunSpec
    dataset: Dataset
    protocol: Protocol
    attacks: Mapping[str, Attack]
    defenses: Mapping[str, Defense]
    backbones: Mapping[str, Backbone]
    pool: BackbonePool

    @cached_property
    def digest(self) -> str:
        """The run's name: 12 hex digits over canonical specification, photos and benchmark version.

        The order in which methods were named does not count.
        """
        asked = {
            k: sorted(v) if isinstance(v, list) else v for k, v in self.spec.model_dump(mode="json").items()
        }
        facts = {"spec": asked, "photos": self.dataset.fingerprint(), "benchmark": BENCHMARK_VERSION}
        return digest(facts)[:12]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, reference cells included."""
        return cells(self.spec)[0]

    @cached_property
    def cells_asked(self) -> frozenset[Cell]:
        """The cells that were asked for."""
        return cells(self.spec)[1]

    @cached_property
    def split(self) -> Split:
        """Who is evaluated, on which photos, protected in which rotation."""
        people = [person for person in self.dataset.identities() if person.role == "evaluation"]
        wanted = self.spec.identities
        if wanted is not None and wanted > len(people):
            raise UsageError(
                f"--identities {wanted} is more than the {len(people)} evaluated identities of "
                f"{self.spec.dataset}; ask for 2 … {len(people)}."
            )
        if len(people) < 2:
            raise UsageError(
                f"{self.spec.dataset} has {len(people)} evaluated identities; a tracker needs at least 2."
            )
        if wanted is not None:
            rng = numpy_generator(self.spec.split_seed, "identities")
            people = [people[i] for i in sorted(rng.permutation(len(people))[:wanted])]
        return self.protocol.split(people, self.spec.split_seed)

    @cached_property
    def background(self) -> Mapping[str, tuple[str, ...]]:
        """Photos of people who are not evaluated, as the protocol deals them."""
        people = [person for person in self.dataset.identities() if person.role == "training"]
        return self.protocol.background(people, self.spec.split_seed)

    def helpers(self, method: Method, tracker: str) -> tuple[str, ...]:
        """Return the names of a method's surrogates or extractors for one tracker, sorted.

        A method of parts that wants none of its own has those of its parts of its own kind: the purifier that an
        attack works against has extractors, which are no surrogates.

        Raises:
            UsageError: nothing is left of the pool, or too few for the method.
        """
        wanted = method.pool()
        if wanted is None:
            kind = Attack if isinstance(method, Attack) else Defense
            own = [part for part in method.parts() if isinstance(part, kind)]
            return tuple(sorted({name for part in own for name in self.helpers(part, tracker)}))
        if wanted == "auto":
            names = self.pool.helpers(tracker)
        elif wanted in registry.entries("pools"):
            names = registry.pool(wanted).helpers(tracker)
        else:
            names = tuple(sorted(set(filter(None, wanted.split("|")))))
        if not names:
            raise UsageError(
                f"the pool '{wanted}' leaves no helper backbone for {methods.canonical(method)} on tracker "
                f"{tracker}; name some, joined by '|'."
            )
        known = registry.entries("backbones")
        for name in names:
            if name not in known:
                raise unknown("backbone", name, known)
        if isinstance(method, Attack) and len(names) < method.threat.surrogates:
            raise UsageError(
                f"{methods.canonical(method)} needs {method.threat.surrogates} surrogates, "
                f"tracker {tracker} leaves {len(names)} ({', '.join(names)})."
            )
        return names

    def binding(self, method: Method, tracker: str) -> Binding:
        """Return what the plan resolved for a method, and for all that it is made of, on one tracker."""
        return Binding(
            self.spec.dataset,
            self.dataset.domain,
            self.helpers(method, tracker),
            tracker,
            tuple(self.binding(part, tracker) for part in method.parts()),
        )


def resolve(asked: RunSpec) -> Resolved:
    """Load every plugin of a specification and bring the specification to its canonical form.

    Raises:
        UsageError: an unknown method, parameter, head or suite of names.
    """
    dataset = registry.dataset(asked.dataset)
    protocol = registry.protocol(asked.protocol)
    for head in asked.heads:
        if head not in protocol.heads:
            raise unknown(f"head of protocol {protocol.name}", head, protocol.heads)
    pool = registry.pool(dataset.default_pool)
    trackers = asked.backbones or pool.groups[0]
    attacks = _by_name("attacks", asked.attacks, registry.attack)
    defenses = _by_name("defenses", asked.defenses, registry.defense)
    backbones = _by_name("backbones", trackers, registry.backbone)
    spec = asked.model_copy(
        update={
            "dataset": methods.canonical(dataset),
            "protocol": methods.canonical(protocol),
            "attacks": tuple(attacks),
            "defenses": tuple(defenses),
            "backbones": tuple(backbones),
            "heads": tuple(dict.fromkeys(asked.heads or protocol.heads[:1])),
            "seeds": tuple(dict.fromkeys(asked.seeds)),
        }
    )
    attacks.setdefault("none", registry.attack("none"))
    defenses.setdefault("none", registry.defense("none"))
    _check_combinations(protocol, attacks, defenses)
    return Resolved(asked, spec, dataset, protocol, attacks, defenses, backbones, pool)


def _check_combinations(
    protocol: Protocol, attacks: Mapping[str, Attack], defenses: Mapping[str, Defense]
) -> None:
    for name, attack in attacks.items():
        for other, defense in defenses.items():
            if reason := protocol.refuse(attack, defense):
                raise UsageError(f"protocol {protocol.name} cannot measure {name} × {other}: {reason}")


def _by_name(kind: str, texts: Iterable[str], create: Callable[[str], M]) -> dict[str, M]:
    found: dict[str, M] = {}
    for text in texts:
        method = create(text)
        name = methods.canonical(method)
        other = found.get(name)
        if other is not None and type(other) is not type(method):
            raise UsageError(
                f"two {kind} of this run are called '{name}': {_qualified(other)} and {_qualified(method)}. "
                "Give one another name."
            )
        if other is not None and other.params != method.params:
            raise UsageError(
                f"two {kind} of this run are both called '{name}', as tables show the file's name only. "
                "Rename one of the files."
            )
        found.setdefault(name, method)
    return found


def _qualified(method: Method) -> str:
    return f"{type(method).__module__}.{type(method).__name__}"
