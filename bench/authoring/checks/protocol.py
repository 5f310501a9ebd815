"""What a protocol must keep to: a split without overlap, and answers that do not depend on order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from bench.authoring.checks.given import SEED
from bench.authoring.checks.observation import disturbed, watched
from bench.authoring.checks.suite import Check, attempt
from bench.contracts import Decided, Embedded, Identity, Protocol, Split, Trial, View
from bench.randomness import numpy_generator
from bench.run import calls, decisions

SPLITS = "splits without an error"


class _Splitting:
    """A protocol dealing made-up identities, each step done once."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.identities = _identities((12, 20, 14, 13, 12, 16, 12))
        self.everyone = [*self.identities, *_identities((9, 9), "training")]

    @cached_property
    def split(self) -> Split:
        return self.protocol.split(self.everyone, SEED)

    def unrepeated(self) -> str:
        fresh = type(self.protocol)(self.protocol.params)
        return "" if fresh.split(self.everyone[::-1], SEED) == self.split else "the splits differ"

    def moved(self) -> str:
        photos = tuple(f"someone-else/{j:02d}" for j in range(15))
        more = self.protocol.split([*self.identities, Identity("someone-else", photos, "evaluation")], SEED)
        for name in self.split.gallery:
            if (self.split.gallery[name], self.split.probes[name]) != (more.gallery[name], more.probes[name]):
                return f"photos of '{name}' were dealt anew"
        return ""


def checks(protocol: Protocol) -> Iterator[Check]:
    """Yield the checks of a protocol; of its heads those that need no training of a network."""
    work = _Splitting(protocol)
    yield Check(
        "offers heads", lambda: "" if protocol.heads else "heads is empty", fix='heads = ("nn",) in the class'
    )
    yield Check(
        "says what it wants embedded",
        lambda: _wrong_views(protocol),
        fix='views = {"gallery": View(photos="gallery", state="cloaked"), "probes": View(photos="probes")}',
    )
    yield Check(
        SPLITS,
        attempt(lambda: work.split),
        fix="def split(self, identities, split_seed): … return Split(gallery, probes, fold, cloaked)",
    )
    yield Check(
        "deals every evaluated identity's own photos, and nobody else's",
        lambda: _wrong_owners(work.split, work.identities),
        SPLITS,
        fix="in split(), take identities of role evaluation, and of each its own photos",
    )
    yield Check(
        "gallery and probes are disjoint",
        lambda: _wrong_overlap(work.split),
        SPLITS,
        fix="in split(), photos[:n] for the gallery and photos[n:] for the probes",
    )
    yield Check(
        "everyone is protected in one fold, with cloaked photos of the gallery",
        lambda: _wrong_folds(work.split),
        SPLITS,
        fix="in split(), fold = {id: number}, numbers from 0 without a gap, and cloaked = {id: photos of its gallery}",
    )
    yield Check(
        "the same seed deals the same, in any order of identities",
        work.unrepeated,
        SPLITS,
        fix='in split(), sort the identities, and draw from numpy_generator(split_seed, "split", identity.id)',
    )
    yield Check(
        "another identity moves nobody's photos",
        work.moved,
        SPLITS,
        fix='in split(), a generator for each identity: numpy_generator(split_seed, "split", identity.id)',
    )
    yield Check(
        "says whom cloaks imitate of identities there are, or leaves it to the attack",
        lambda: _wrong_targets(protocol, work.split),
        SPLITS,
        fix="given_targets(split, impostors, pool, split_seed) returns evaluated → training identity for all or none, "
        "and where a view shows decoys impostor → evaluated identity",
    )
    for head in protocol.heads:
        if head not in protocol.end_to_end_heads:  # those train a network, which takes a run
            yield from _head_checks(_Deciding(work, head))


class _Deciding:
    """One head of a protocol deciding over made-up embeddings, in two orders."""

    def __init__(self, work: _Splitting, head: str) -> None:
        self.work, self.head = work, head

    @cached_property
    def twice(self) -> tuple[tuple[Decided, frozenset[str]], tuple[Decided, frozenset[str]]]:
        """The answers in either order, and the global state that changed meanwhile."""
        protocol, split = self.work.protocol, self.work.split
        cloaked = enumerate(sum(split.cloaked.values(), ()))
        targets = {image: f"target-{i % 5}" for i, image in cloaked}
        trial = Trial(split, self.head, protocol.impostors(_training_identities(), 0), targets)
        views = _seen(protocol, split)
        mirrored = {
            name: Embedded(one.vectors[::-1].copy(), one.ids[::-1], one.identities[::-1])
            for name, one in views.items()
        }
        first, second = (partial(protocol.decide, each, trial) for each in (views, mirrored))
        return watched(first), watched(second)

    @property
    def decided(self) -> Decided:
        return self.twice[0][0]

    def reordered(self) -> str:
        columns = [*decisions.KEY, "predicted"]
        tables = (decisions.to_table(decided.rows).to_pandas() for decided, _ in self.twice)
        one, other = (table[columns].astype(object).fillna("").to_numpy() for table in tables)
        return "" if np.array_equal(one, other) else "other identities are recognised"


def _head_checks(work: _Deciding) -> Iterator[Check]:
    head = f"head {work.head}"
    decides = f"{head}: decides without an error"
    yield Check(
        decides,
        attempt(lambda: work.twice),
        SPLITS,
        fix="def decide(self, views, trial): … return Decided(rows, conditions)",
    )
    yield Check(
        f"{head}: rows have the documented schema and facts",
        attempt(lambda: decisions.to_bytes(work.decided)),
        decides,
        fix="return a data frame with the columns of bench.run.decisions.SCHEMA as Decided.rows",
    )
    yield Check(
        f"{head}: decides every identity's probes",
        lambda: _wrong_rows(work.decided, work.work.split),
        decides,
        fix="in decide(), a row for each probe of each identity in trial.split.gallery, protected in its own fold",
    )
    yield Check(
        f"{head}: leaves global random state and settings alone",
        lambda: disturbed(*(changed for _, changed in work.twice)),
        decides,
        fix="set no global seed, dtype or thread count in decide()",
    )
    yield Check(
        f"{head}: answers do not depend on the order of embeddings",
        work.reordered,
        decides,
        fix="in decide(), find rows by Embedded.ids, and break ties by id",
    )


def _identities(counts: Sequence[int], role: Any = "evaluation") -> list[Identity]:
    return [
        Identity(f"{role}-{k:02d}", tuple(f"{role}-{k:02d}/{j:02d}" for j in range(count)), role)
        for k, count in enumerate(counts)
    ]


def _wrong_views(protocol: Protocol) -> str:
    if not protocol.views:
        return "views is empty"
    for name, view in protocol.views.items():
        decoys = view.photos == "impostors" and view.state == "cloaked"
        if view.state != "natural" and view.photos not in ("gallery", "probes") and not decoys:
            return f"view '{name}' is {view.state}, and nothing makes {view.photos} photos so"
    if unknown_views := set(protocol.restored.values()) - set(protocol.views):
        return f"restored names the view '{min(unknown_views)}', which is not there"
    return ""


def _wrong_targets(protocol: Protocol, split: Split) -> str:
    others = _training_identities()
    impostors = protocol.impostors(others, 0)
    pool = [identity.id for identity in others]
    given = calls.given_targets(protocol, split, impostors, others, pool, 0)
    decoys = [
        name for name, view in protocol.views.items() if (view.photos, view.state) == ("impostors", "cloaked")
    ]
    if decoys and not given.keys() & impostors.keys():
        return f"view '{decoys[0]}' shows decoys, and given_targets says of no impostor whom it protects"
    return ""


def _wrong_owners(split: Split, identities: Sequence[Identity]) -> str:
    names = {identity.id for identity in identities}
    for what, part in (("gallery", split.gallery), ("probes", split.probes), ("fold", split.fold)):
        if set(part) != names:
            return f"{what} has {len(part)} identities, {len(names)} are evaluated"
    for identity in identities:
        for what, photos in (("gallery", split.gallery[identity.id]), ("probes", split.probes[identity.id])):
            if not photos:
                return f"'{identity.id}' has an empty list of {what}"
            if not set(photos) <= set(identity.photos):
                return f"{what} of '{identity.id}' has photos of someone else"
    return ""


def _wrong_overlap(split: Split) -> str:
    for name, photos in split.gallery.items():
        if both := set(photos) & set(split.probes[name]):
            return f"'{min(both)}' is in both"
    return ""


def _wrong_folds(split: Split) -> str:
    if set(split.fold.values()) != set(range(split.folds)):
        return f"folds are {sorted(set(split.fold.values()))}, not 0 … {split.folds - 1}"
    for name, photos in split.gallery.items():
        cloaked = split.cloaked.get(name, ())
        if not cloaked or not set(cloaked) <= set(photos):
            return f"'{name}' has {len(cloaked)} cloaked photos, of the gallery or not"
    return ""


def _seen(protocol: Protocol, split: Split) -> dict[str, Embedded]:
    """Return made-up embeddings of every view: one direction an identity, noise a photo, cloaks half turned away."""

    def embed(photos: Mapping[str, Sequence[str]], turn: float) -> Embedded:
        named = [(image, name) for name, images in photos.items() for image in images]
        rows = [
            numpy_generator(SEED, "person", name).normal(size=16) * (1 - turn)
            + numpy_generator(SEED, "photo", image).normal(size=16) * (0.4 + turn)
            for image, name in named
        ]
        vectors = np.array(rows, dtype=np.float32).reshape(-1, 16)
        return Embedded(vectors, tuple(image for image, _ in named), tuple(name for _, name in named))

    def view(wanted: View) -> Embedded:
        cloaked = wanted.state == "cloaked"
        photos = {
            "gallery": split.cloaked if wanted.state != "natural" else split.gallery,
            "probes": split.probes,
            "impostors": protocol.impostors(_training_identities(), 0),
            "targets": {f"target-{i}": (f"target-{i}-a", f"target-{i}-b") for i in range(5)},
        }[wanted.photos]
        return embed(photos, 0.5 if cloaked else 0)

    return {name: view(wanted) for name, wanted in protocol.views.items()}


def _training_identities() -> tuple[Identity, ...]:
    """Return enough made-up identities for any protocol's background."""
    return tuple(
        Identity(f"other-{i:05d}", tuple(f"other-{i:05d}-{k}" for k in range(4)), "training")
        for i in range(3000)
    )


def _wrong_rows(decided: Decided, split: Split) -> str:
    rows = decided.rows
    if impostors := set(rows["identity"]) - set(split.gallery):
        return f"rows are of identities that are not evaluated, first '{min(impostors)}'"
    conditions = rows["condition"] if "condition" in rows else [""] * len(rows)
    without_rows = decided.conditions.keys() - set(conditions)
    if silent := sorted(name for name in without_rows if not decided.conditions[name].reason):
        return f"condition '{silent[0]}' has neither rows nor a reason"
    for condition, chosen in rows.groupby(np.array(conditions, dtype=object)):
        lacking = set(split.gallery) - set(chosen[chosen["protected"]]["identity"])
        if lacking:
            return f"'{min(lacking)}' is never protected under condition '{condition}'"
    return ""
