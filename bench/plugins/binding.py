"""Which helper backbones a method gets in one cell: its surrogates or extractors, resolved before any work."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.contracts import Attack, Backbone, BackbonePool, Binding, Defense, Hardening, Method, Substitution
from bench.errors import MethodError, UsageError, unknown
from bench.plugins import registry
from bench.plugins.factory import canonical


def helpers(method: Method, pool: BackbonePool, tracker: str) -> tuple[str, ...]:
    """Return the names of a method's surrogates or extractors for one tracker, sorted.

    A method of parts that wants none of its own has those of its parts of its own kind: the purifier that an
    attack works against has extractors, which are no surrogates. A defence has those of every part: the surrogates
    of an attack whose cloaks it was trained on trained it too.

    Args:
        method: its `Method.pool` says what it wants.
        pool: the dataset's pool, which ``auto`` stands for.
        tracker: name of the tracker's backbone.

    Raises:
        UsageError: nothing is left of the pool, or too few for the method.
    """
    wanted = method.pool()
    if wanted is None:
        kind = Attack if isinstance(method, Attack) else Method
        own = [part for part in method.parts() if isinstance(part, kind)]
        return tuple(sorted({name for part in own for name in helpers(part, pool, tracker)}))
    if wanted == "auto":
        names = pool.helpers(tracker)
    elif wanted in registry.POOLS.entries():
        names = registry.POOLS.load(wanted).helpers(tracker)
    else:
        names = tuple(sorted(set(filter(None, wanted.split("|")))))
    if not names:
        raise UsageError(
            f"the pool '{wanted}' leaves no helper backbone for {canonical(method)} on tracker {tracker}; "
            "name some, joined by '|'."
        )
    known = registry.BACKBONES.entries()
    for name in names:
        if name not in known:
            raise unknown("backbone", name, known)
    if isinstance(method, Attack) and len(names) < method.threat.surrogates:
        raise UsageError(
            f"{canonical(method)} needs {method.threat.surrogates} surrogates, "
            f"tracker {tracker} leaves {len(names)} ({', '.join(names)})."
        )
    return names


def bind(method: Method, dataset: str, domain: str, pool: BackbonePool, tracker: str) -> Binding:
    """Return what a plan resolves for a method, and for all that it is made of, in one cell.

    Args and errors are those of `helpers`, with the dataset's canonical name and its kind of faces.
    """
    parts = tuple(bind(part, dataset, domain, pool, tracker) for part in method.parts())
    return Binding(dataset, domain, helpers(method, pool, tracker), tracker, parts)


def embedders(defense: Defense, tracker: Backbone) -> tuple[str, ...]:
    """Return the names of the backbones that a tracker embeds with under a defence: its own, unless others are named.

    Args:
        defense: of a cell, or a hardening that an attack knows.
        tracker: the cell's, or a surrogate.

    Raises:
        MethodError: a substitution names none, or one twice.
    """
    hardening = defense.hardening
    if not isinstance(hardening, Substitution):
        return (canonical(tracker),)
    names = tuple(map(canonical, hardening.embeds_with(tracker)))
    if not names or len(set(names)) < len(names):
        raise MethodError(
            f"{canonical(hardening)} embeds with {' & '.join(names) or 'no backbone'} on {canonical(tracker)}; it must "
            "be one backbone or more, none of them twice."
        )
    return names


@dataclass(frozen=True)
class KnownHardening:
    """A hardening whose recipe an attack has.

    Attributes:
        path: where it stands: the index among the parts of the method, among the parts of that part, and so on.
        method: the hardening.
        surrogates: names of the attack's surrogates, each of which is hardened by it.
    """

    path: tuple[int, ...]
    method: Hardening
    surrogates: tuple[str, ...]


def known_hardenings(method: Method, binding: Binding) -> Iterator[KnownHardening]:
    """Yield the hardenings that an attack is made of, directly or inside a defence; those of the nearest attack above.

    What is inside a hardening is its own affair, and is looked at where it is trained.

    Args:
        method: an attack, or a defence that has attacks among its parts.
        binding: as `bind` returned it for the method.
    """
    yield from _known_hardenings(method, binding, (), None)


def _known_hardenings(
    method: Method, binding: Binding, path: tuple[int, ...], surrogates: tuple[str, ...] | None
) -> Iterator[KnownHardening]:
    """Yield as `known_hardenings` does; `surrogates` are those of the nearest attack above, None without any."""
    if isinstance(method, Attack):
        surrogates = binding.backbones
    for index, (part, own) in enumerate(zip(method.parts(), binding.parts, strict=True)):
        if surrogates is not None and isinstance(part, Hardening):
            yield KnownHardening((*path, index), part, surrogates)
        else:
            yield from _known_hardenings(part, own, (*path, index), surrogates)
