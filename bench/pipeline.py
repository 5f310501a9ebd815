"""The stages of a run as a graph: faces → fit → cloak → purify → embed → decide; the others stand beside.

Everything here says what is made from what, and what decides it; `bench.stages` does the computing and
`bench.graph` the remembering.
"""

import ctypes
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, overload

import safetensors.torch
import torch
from threadpoolctl import threadpool_limits

from bench import decisions, diagnosis, image_measures, methods, registry, stages
from bench.contracts import (
    CROP_SIZE,
    Attack,
    Backbone,
    Binding,
    Context,
    Defense,
    Embedded,
    Faces,
    Hardening,
    Identity,
    Method,
    PhotoSet,
    Purifier,
    Trial,
    View,
)
from bench.data_files import sha256_of
from bench.digest import code_digest, environment
from bench.errors import UsageError
from bench.graph import Node
from bench.lpips_distance import Lpips, Unavailable, load_lpips
from bench.randomness import numpy_generator, stream_seed
from bench.resolve import Resolved
from bench.spec import Cell
from bench.targets import held_out_photos, shown_photos, target_people

SHARD_IMAGES = 64
"""A shard takes whole identities until it has this many images: what a killed run may lose."""

TRAINING_IMAGES = 512
"""Photos of training identities that `fit` and `train` see, at most."""

DESCRIPTIVE = frozenset(
    {"licence", "source", "training_data", "domain", "family", "lfw_accuracy", "note", "thresholds"}
)
"""Fields of a card that say where weights come from; they decide marks in a row, not a byte of an embedding."""

KEY_OF = {"right": "key", "wrong": "another key", "none": ""}
"""View.key → the stream its secret is drawn from; none: the empty key."""

_CROP_BYTES = CROP_SIZE * CROP_SIZE * 3
Payloads = Sequence[bytes]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Machine:
    """How a run is executed; nothing here changes what is asked, `batch_size` not even a byte.

    Attributes:
        device: torch device.
        threads: threads torch computes with.
        batch_size: images handed to a method per call.
        lpips: the LPIPS measure, or why there is none.
    """

    device: torch.device
    threads: int
    batch_size: int
    lpips: Lpips | Unavailable


class Backbones(Sequence[Backbone]):
    """Helper backbones that are loaded when first looked at: a purifier with weights never looks."""

    def __init__(self, names: Sequence[str], load: Callable[[str], Backbone]) -> None:
        self.names = tuple(names)
        self._load = load

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Backbone: ...
    @overload
    def __getitem__(self, index: slice) -> "Backbones": ...
    def __getitem__(self, index: int | slice) -> "Backbone | Backbones":
        if isinstance(index, slice):
            return Backbones(self.names[index], self._load)
        return self._load(self.names[index])


class Pipeline:
    """Builds the nodes of a resolved run.

    Args:
        run: the plugins and the split.
        machine: device, threads, batch size, LPIPS.
    """

    def __init__(self, run: Resolved, machine: Machine) -> None:
        self.run = run
        self.machine = machine
        self._loaded: dict[str, Backbone] = {}
        # One node a set of arguments: cells share what they share.
        self.natural = cache(self._natural)
        self.cloaks = cache(self._cloaks)
        self.erased = cache(self._erased)
        self.aims = cache(self._aims)
        self.defended = cache(self._defended)
        self.embedded = cache(self._embedded)
        self.embedded_after_channel = cache(self._embedded_after_channel)
        self.decision = cache(self._decision)
        self.cloak_measures = cache(self._cloak_measures)
        self.purified_measures = cache(self._purified_measures)
        self.attack_probes = cache(self._attack_probes)
        self.purifier_probes = cache(self._purifier_probes)
        self._training_faces = cache(self._make_training_faces)
        self._fitted = cache(self._make_fitted)

    # -- what decides a result -----------------------------------------------------------------------

    @cached_property
    def _environment(self) -> Mapping[str, Any]:
        return environment(str(self.machine.device), self.machine.threads)

    @cached_property
    def _fingerprint(self) -> str:
        return self.run.dataset.fingerprint()

    def backbone(self, name: str) -> Backbone:
        """Return a backbone by name, loaded onto the machine's device, once."""
        if name not in self._loaded:
            backbone = self.run.backbones.get(name) or registry.backbone(name)
            backbone.load(self.machine.device)
            self._loaded[name] = backbone
        return self._loaded[name]

    def _backbone_facts(self, name: str) -> dict[str, Any]:
        backbone = self.run.backbones.get(name) or registry.backbone(name)
        weights = backbone.card.sha256 or [
            sha256_of(path)
            for path in backbone.files(Binding(self.run.spec.dataset, self.run.dataset.domain, (), name))
        ]
        return {
            "name": name,
            "card": backbone.card.model_dump(mode="json", exclude=set(DESCRIPTIVE)),
            "source": code_digest(type(backbone)),
            "weights": weights,
        }

    def _method_facts(self, method: Method, tracker: str, seed: int | None) -> dict[str, Any]:
        return self._bound_facts(method, self.run.binding(method, tracker), seed)

    def _bound_facts(self, method: Method, binding: Binding, seed: int | None) -> dict[str, Any]:
        facts = {
            "method": methods.canonical(method),
            "params": method.params.model_dump(mode="json"),
            "source": code_digest(type(method), "bench.stages"),
            "files": [sha256_of(path) for path in method.files(binding)],
            "helpers": [self._backbone_facts(name) for name in binding.backbones],
            "seed": seed,
            "environment": self._environment,
        }
        if binding.parts:
            bound = zip(method.parts(), binding.parts, strict=True)
            facts["parts"] = [self._bound_facts(part, own, seed) for part, own in bound]
        return facts

    def _context(
        self,
        method: Method,
        tracker: str,
        seed: int,
        advance: Advance,
        targets: Faces | None = None,
        key: bytes | None = None,
    ) -> Context:
        """Return a method's context; `key` is the secret it gets if it is erasable, None for the run's."""
        own = secret(seed, "key") if key is None else key
        return self._bound_context(method, self.run.binding(method, tracker), seed, advance, targets, own)

    def _bound_context(
        self,
        method: Method,
        binding: Binding,
        seed: int,
        advance: Advance,
        targets: Faces | None,
        key: bytes,
    ) -> Context:
        # A part has a stream of its own: two parts that draw must not draw the same, nor may an attack that tries
        # a random defence know what the tracker's will draw.
        parts = tuple(
            self._bound_context(part, own, stream_seed(seed, "part", str(index)), _uncounted, targets, key)
            for index, (part, own) in enumerate(zip(method.parts(), binding.parts, strict=True))
        )
        return Context(
            seed=seed,
            device=self.machine.device,
            backbones=Backbones(binding.backbones, self.backbone),
            targets=targets,
            files=method.files(binding),
            key=key if isinstance(method, Attack) and method.erasable else b"",
            advance=advance,
            parts=parts,
        )

    def _label(self, method: Method, tracker: str) -> str:
        helpers = "|".join(self.run.helpers(method, tracker))
        return f"{methods.canonical(method)} ({helpers})" if helpers else methods.canonical(method)

    # -- faces -----------------------------------------------------------------------------------------

    def _natural(self, photos: PhotoSet) -> tuple[Node, ...]:
        """Return the shards of aligned crops of a set of photos."""
        if photos == "targets":
            return (self._training_faces("held-out targets"),)
        split = self.run.split
        named = {"gallery": split.gallery, "probes": split.probes, "background": self.run.background}[photos]
        return tuple(self._faces_node(photos, shard) for shard in _shards(named))

    def _faces_node(self, label: str, photos: Sequence[tuple[str, str]]) -> Node:
        ids = tuple(image for image, _ in photos)
        people = tuple(person for _, person in photos)
        dataset = self.run.dataset

        def work(_inputs: Payloads, advance: Advance) -> bytes:
            crops = dataset.crops(ids)
            advance(len(ids))
            return stages.encode_pixels(stages.Pixels(crops, ids, people))

        facts = {
            "dataset": self.run.spec.dataset,
            "fingerprint": self._fingerprint,
            "ids": ids,
            "identities": people,
            "source": code_digest(type(dataset), "bench.stages"),
            "environment": self._environment,
        }
        return Node("faces", label, facts, (), len(ids), len(ids) * _CROP_BYTES, work)

    def _make_training_faces(self, purpose: Literal["training", "targets", "held-out targets"]) -> Node:
        """Return photos of people who are not evaluated: to learn from, to imitate, or to be measured against.

        Held-out photos are of the people an attack may imitate; no attack sees them.
        """
        people = [person for person in self.run.dataset.identities() if person.role == "training"]
        if not people:
            raise UsageError(
                f"{self.run.spec.dataset} has no training identities, and a method of this run learns from "
                "them. Use a dataset that has some, or another method."
            )
        if purpose == "training":
            rng = numpy_generator(self.run.spec.split_seed, "training")
            return self._faces_node(purpose, _some_photos([people[i] for i in rng.permutation(len(people))]))
        photos_of = shown_photos if purpose == "targets" else held_out_photos
        targets = target_people(people, self.run.spec.split_seed)
        return self._faces_node(purpose, [(image, who.id) for who in targets for image in photos_of(who)])

    # -- fit -------------------------------------------------------------------------------------------

    def _make_fitted(self, method: Attack | Defense, tracker: str, seed: int) -> Node:
        def work(inputs: Payloads, advance: Advance) -> bytes:
            faces = stages.decode_pixels(inputs[0]).faces(self.machine.device)
            ctx = self._context(method, tracker, seed, advance)
            if isinstance(method, Hardening):
                state = method.train(self.backbone(tracker), faces, ctx)
            else:
                state = method.fit(faces, ctx)
            return safetensors.torch.save({key: value.contiguous().cpu() for key, value in state.items()})

        facts = self._method_facts(method, tracker, seed)
        if isinstance(method, Hardening):
            facts["tracker"] = self._backbone_facts(tracker)
        source = self._training_faces("training")
        return Node("fit", self._label(method, tracker), facts, (source,), source.images, 1 << 20, work)

    # -- cloak -----------------------------------------------------------------------------------------

    def _cloaks(self, attack_name: str, tracker: str, seed: int, role: PhotoSet) -> tuple[Node, ...]:
        """Return, for each shard of photos, the images an attack changed when a person is protected."""
        attack = self.run.attacks[attack_name]
        if not attack.changes_images:
            return ()
        if role == "probes" and attack.scope == "identity":
            raise UsageError(
                f"{attack_name} looks at all photos of a person at once, and probes=cloaked would cloak gallery and "
                "probes apart. Use another attack or probes=clean."
            )
        photos = self.run.split.cloaked if role == "gallery" else self.run.split.probes
        wanted = frozenset(image for images in photos.values() for image in images)
        return tuple(
            self._cloak_node(attack_name, tracker, seed, source, wanted) for source in self.natural(role)
        )

    def _cloak_node(
        self, attack_name: str, tracker: str, seed: int, source: Node, wanted: frozenset[str]
    ) -> Node:
        attack = self.run.attacks[attack_name]
        chosen = [name for name in source.facts["ids"] if name in wanted]
        extra = []
        if attack.threat.needs_targets:
            extra.append(self._training_faces("targets"))
        if attack.learns:
            extra.append(self._fitted(attack, tracker, seed))

        def work(inputs: Payloads, advance: Advance) -> bytes:
            others = list(inputs[1:])
            targets = None
            if attack.threat.needs_targets:
                targets = stages.decode_pixels(others.pop(0)).faces(self.machine.device)
            ctx = self._context(attack, tracker, seed, advance, targets)
            if attack.learns:
                ctx = _with_state(ctx, others.pop(0))
            pixels = stages.decode_pixels(inputs[0]).only(frozenset(chosen))
            return stages.encode_pixels(stages.cloak(attack, pixels, ctx, self.machine.batch_size))

        facts = {**self._method_facts(attack, tracker, seed), "chosen": chosen}
        size = len(chosen) * _CROP_BYTES
        return Node("cloak", self._label(attack, tracker), facts, (source, *extra), len(chosen), size, work)

    def _aims(self, attack_name: str, tracker: str, seed: int) -> tuple[Node, ...]:
        """Return, for each shard of cloaked gallery photos, whom the cloaks imitate; () if nobody."""
        attack = self.run.attacks[attack_name]
        if attack.threat.goal != "targeted":
            return ()
        wanted = frozenset(image for images in self.run.split.cloaked.values() for image in images)
        return tuple(self._aim_node(attack, tracker, seed, node, wanted) for node in self.natural("gallery"))

    def _aim_node(
        self, attack: Attack, tracker: str, seed: int, source: Node, wanted: frozenset[str]
    ) -> Node:
        chosen = frozenset(name for name in source.facts["ids"] if name in wanted)
        fitted = (self._fitted(attack, tracker, seed),) if attack.learns else ()

        def work(inputs: Payloads, advance: Advance) -> bytes:
            targets = stages.decode_pixels(inputs[1]).faces(self.machine.device)
            ctx = self._context(attack, tracker, seed, _uncounted, targets)
            if fitted:
                ctx = _with_state(ctx, inputs[2])
            pixels = stages.decode_pixels(inputs[0]).only(chosen)
            aims = stages.aims(attack, pixels, ctx, self.machine.batch_size)
            advance(len(aims))
            return json.dumps(aims).encode()

        facts = {**self._method_facts(attack, tracker, seed), "chosen": sorted(chosen)}
        inputs = (source, self._training_faces("targets"), *fitted)
        return Node("aim", self._label(attack, tracker), facts, inputs, len(chosen), 64 * len(chosen), work)

    def _erased(
        self, attack_name: str, tracker: str, seed: int, role: PhotoSet, key: str
    ) -> tuple[Node, ...]:
        """Return the shards of cloaks after the attack's `erase` with a key (see `View.key`)."""
        attack = self.run.attacks[attack_name]
        cloaks = self.cloaks(attack_name, tracker, seed, role)
        return tuple(self._erase_node(attack, tracker, seed, cloak, key) for cloak in cloaks)

    def _erase_node(self, attack: Attack, tracker: str, seed: int, source: Node, key: str) -> Node:
        fitted = (self._fitted(attack, tracker, seed),) if attack.learns else ()

        def work(inputs: Payloads, advance: Advance) -> bytes:
            ctx = self._context(attack, tracker, seed, _uncounted, key=b"")
            if fitted:
                ctx = _with_state(ctx, inputs[1])
            cloaks = stages.decode_pixels(inputs[0])
            tried = secret(seed, KEY_OF[key]) if KEY_OF[key] else b""
            erased = stages.erase(attack, cloaks, tried, ctx, self.machine.batch_size)
            advance(len(erased.ids))
            return stages.encode_pixels(erased)

        facts = {**self._method_facts(attack, tracker, seed), "key": key}
        label = f"{self._label(attack, tracker)}, {key} key"
        return Node("erase", label, facts, (source, *fitted), source.images, source.size, work)

    # -- purify ----------------------------------------------------------------------------------------

    def _defended(
        self, defense_name: str, tracker: str, seed: int, sources: tuple[Node, ...]
    ) -> tuple[Node, ...]:
        """Return the shards as the tracker trains on them: purified, or as they are."""
        defense = self.run.defenses[defense_name]
        if not isinstance(defense, Purifier) or not defense.changes_images:
            return sources
        return tuple(self._purify_node(defense, tracker, seed, source) for source in sources)

    def _purify_node(self, defense: Purifier, tracker: str, seed: int, source: Node) -> Node:
        extra = (self._fitted(defense, tracker, seed),) if defense.learns else ()

        def work(inputs: Payloads, advance: Advance) -> bytes:
            ctx = self._context(defense, tracker, seed, advance)
            if defense.learns:
                ctx = _with_state(ctx, inputs[1])
            pixels = stages.decode_pixels(inputs[0])
            return stages.encode_pixels(stages.purify(defense, pixels, ctx, self.machine.batch_size))

        facts = self._purifier_facts(defense, tracker, seed)
        return Node(
            "purify", self._label(defense, tracker), facts, (source, *extra), source.images, source.size, work
        )

    def _purifier_facts(self, purifier: Purifier, tracker: str, seed: int) -> dict[str, Any]:
        return self._method_facts(purifier, tracker, None if purifier.deterministic else seed)

    # -- embed -----------------------------------------------------------------------------------------

    def _embedded(
        self, cell_defense: str, tracker: str, seed: int, sources: tuple[Node, ...]
    ) -> tuple[Node, ...]:
        """Return the shards' embeddings by the tracker's backbone, hardened where the defence does that."""
        defense = self.run.defenses[cell_defense]
        hardening = defense if isinstance(defense, Hardening) else None
        return tuple(self._embed_node(tracker, hardening, seed, source) for source in sources)

    def _embed_node(
        self,
        tracker: str,
        hardening: Hardening | None,
        seed: int,
        source: Node,
        before: tuple[Purifier, ...] = (),
    ) -> Node:
        """Return the embeddings of a shard, after the purifiers of `before` whose images nobody else needs."""
        facts: dict[str, Any] = {
            "backbone": self._backbone_facts(tracker),
            "source": code_digest("bench.stages"),
            "environment": self._environment,
        }
        extra: tuple[Node, ...] = ()
        label = tracker
        if hardening is not None:
            extra = (self._fitted(hardening, tracker, seed),)
            facts["hardening"] = self._method_facts(hardening, tracker, seed)
            label = f"{tracker} hardened by {methods.canonical(hardening)}"
        if before:
            facts["before"] = [self._purifier_facts(purifier, tracker, seed) for purifier in before]
        learnt = tuple(self._fitted(p, tracker, seed) for p in before if p.learns)

        def work(inputs: Payloads, advance: Advance) -> bytes:
            backbone = self.backbone(tracker)
            if hardening is not None:
                backbone = hardening.harden(backbone, safetensors.torch.load(inputs[1]))
            states = iter(inputs[1 + len(extra) :])
            pixels = stages.decode_pixels(inputs[0])
            for purifier in before:
                ctx = self._context(purifier, tracker, seed, _uncounted)
                if purifier.learns:
                    ctx = _with_state(ctx, next(states))
                pixels = stages.purify(purifier, pixels, ctx, self.machine.batch_size)
            return stages.encode_embedded(stages.embed(backbone, pixels, self.machine.device, advance))

        dimension = (self.run.backbones.get(tracker) or registry.backbone(tracker)).card.embedding_dim
        size = source.images * dimension * 4
        return Node("embed", label, facts, (source, *extra, *learnt), source.images, size, work)

    def _embedded_after_channel(
        self,
        cell_defense: str,
        tracker: str,
        seed: int,
        sources: tuple[Node, ...],
        channel: str,
        defended: bool,
    ) -> tuple[Node, ...]:
        """Return embeddings of photos that went through a channel, and the defence where the view says so.

        The images in between are not stored: a grid of channels would fill a disk with them.
        """
        defense = self.run.defenses[cell_defense]
        hardening = defense if isinstance(defense, Hardening) else None
        before = self._channel(channel)
        if defended and isinstance(defense, Purifier) and defense.changes_images:
            before = (*before, defense)
        return tuple(self._embed_node(tracker, hardening, seed, source, before) for source in sources)

    def _channel(self, text: str) -> tuple[Purifier, ...]:
        """Return the purifiers of a channel.

        Raises:
            UsageError: an unknown method, or one that is not a purifier.
        """
        chain = []
        for part in text.split("+"):
            method = registry.defense(part.strip())
            if not isinstance(method, Purifier):
                raise UsageError(
                    f"'{part.strip()}' in the channel '{text}' is not a purifier; see `bench list`."
                )
            chain.append(method)
        return tuple(chain)

    # -- decide ----------------------------------------------------------------------------------------

    def _decision(self, cell: Cell) -> Node:
        """Return the node of a cell's answers."""
        protocol, split = self.run.protocol, self.run.split
        on_images = cell.head in protocol.heads_on_images
        views = {
            name: self._view_nodes(cell, view, as_images=on_images) for name, view in protocol.views.items()
        }
        wants_aims = any(view.photos == "targets" for view in protocol.views.values())
        aims = self.aims(cell.attack, cell.backbone, cell.seed) if wants_aims else ()
        defense = self.run.defenses[cell.defense]
        hardening = defense if on_images and isinstance(defense, Hardening) else None
        extra = (self._fitted(hardening, cell.backbone, cell.seed),) if hardening else ()

        def work(inputs: Payloads, advance: Advance) -> bytes:
            remaining = iter(inputs)
            seen = {name: self._see(protocol.views[name], nodes, remaining) for name, nodes in views.items()}
            aimed = {k: v for _ in aims for k, v in json.loads(next(remaining)).items()}
            trial = Trial(
                split=split,
                head=cell.head,
                background=self.run.background,
                aims=aimed,
                seed=cell.seed if on_images else 0,  # the key has it for those heads only
                faces={
                    k: v.faces(self.machine.device) for k, v in seen.items() if isinstance(v, stages.Pixels)
                },
                tracker=partial(self._tracker, cell.backbone, hardening, next(remaining, b"")),
                device=self.machine.device,
            )
            embedded = {k: v for k, v in seen.items() if isinstance(v, Embedded)}
            with threadpool_limits(self.machine.threads):
                decided = protocol.decide(embedded, trial)
            advance(1)
            return decisions.to_bytes(decided)

        facts: dict[str, Any] = {
            "protocol": self.run.spec.protocol,
            "params": protocol.params.model_dump(mode="json"),
            "source": code_digest(type(protocol), "bench.stages", "bench.decisions"),
            "head": cell.head,
            "views": {name: view.model_dump(mode="json") for name, view in protocol.views.items()},
            "groups": {name: [len(base), len(edits)] for name, (base, edits) in views.items()},
            "background": {key: list(v) for key, v in self.run.background.items()},
            "split": {
                "fold": dict(split.fold),
                "cloaked": {key: list(v) for key, v in split.cloaked.items()},
            },
            "environment": self._environment,
        }
        if on_images:
            facts |= {"seed": cell.seed, "backbone": self._backbone_facts(cell.backbone)}
            facts["hardening"] = hardening and self._method_facts(hardening, cell.backbone, cell.seed)
        inputs = tuple(node for base, edits in views.values() for node in (*base, *edits))
        size = sum(len(images) for images in split.probes.values()) * split.folds * 12
        label = f"{cell.attack} × {cell.defense} × {cell.backbone} × {cell.head}"
        return Node("decide", label, facts, (*inputs, *aims, *extra), 1, size, work)

    def _tracker(self, name: str, hardening: Hardening | None, state: bytes) -> Backbone:
        backbone = self.backbone(name)
        return hardening.harden(backbone, safetensors.torch.load(state)) if hardening else backbone

    def _see(
        self, view: View, nodes: tuple[tuple[Node, ...], tuple[Node, ...]], payloads: Iterator[bytes]
    ) -> Embedded | stages.Pixels:
        """Return what a view shows: the natural photos, with the attack's edits laid over them where it has any."""
        base, edits = ([next(payloads) for _ in group] for group in nodes)
        split = self.run.split
        cloaked = split.cloaked if view.photos == "gallery" else split.probes
        wanted = frozenset(image for images in cloaked.values() for image in images)
        if any(node.stage == "embed" for node in nodes[0]):
            below = stages.join([stages.decode_embedded(payload) for payload in base])
            above = stages.join([stages.decode_embedded(payload) for payload in edits]) if edits else None
            return below if view.state == "natural" else stages.overlay(below, above, wanted)
        photos = stages.join_pixels([stages.decode_pixels(payload) for payload in base])
        changed = stages.join_pixels([stages.decode_pixels(payload) for payload in edits]) if edits else None
        return photos if view.state == "natural" else stages.overlay_pixels(photos, changed, wanted)

    def _view_nodes(
        self, cell: Cell, view: View, *, as_images: bool
    ) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        """Return the shards of a view's natural photos, and those of the edits laid over them."""
        base = self.natural(view.photos)
        edits = self.edits(cell.attack, cell.backbone, cell.seed, view)
        return self._seen_nodes(cell, view, base, as_images), self._seen_nodes(cell, view, edits, as_images)

    def edits(self, attack: str, tracker: str, seed: int, view: View) -> tuple[Node, ...]:
        """Return the images that a view shows in place of natural ones, shard by shard."""
        if view.state == "natural":
            return ()
        if view.state == "erased":
            return self.erased(attack, tracker, seed, view.photos, view.key)
        return self.cloaks(attack, tracker, seed, view.photos)

    def _seen_nodes(
        self, cell: Cell, view: View, sources: tuple[Node, ...], as_images: bool
    ) -> tuple[Node, ...]:
        point = (cell.defense, cell.backbone, cell.seed)
        if view.channel:
            return self.embedded_after_channel(*point, sources, view.channel, view.defended)
        shown = self.defended(*point, sources) if view.defended else sources
        return shown if as_images else self.embedded(*point, shown)

    # -- measure ---------------------------------------------------------------------------------------

    def _cloak_measures(self, attack: str, tracker: str, seed: int) -> tuple[Node, ...]:
        """Return how visible the cloaks are: cloak against original, shard by shard."""
        changed = self.cloaks(attack, tracker, seed, "gallery")
        label = f"cloak {self._label(self.run.attacks[attack], tracker)}"
        return self._measure_nodes(label, self.natural("gallery"), changed, fill=True)

    def _purified_measures(self, attack: str, defense: str, tracker: str, seed: int) -> tuple[Node, ...]:
        """Return what the defence costs: purified against original, of the cloaks or, without any, of the photos."""
        originals = self.natural("gallery")
        sources = self.cloaks(attack, tracker, seed, "gallery") or originals
        changed = self.defended(defense, tracker, seed, sources)
        if changed is sources:
            return ()
        label = f"purified {self._label(self.run.defenses[defense], tracker)} of {attack}"
        return self._measure_nodes(label, originals, changed)

    def restored_measures(self, attack: str, tracker: str, seed: int) -> dict[str, tuple[Node, ...]]:
        """Return, for each condition the protocol names, the view's photos against the originals."""
        found = {}
        for condition, name in self.run.protocol.restored.items():
            view = self.run.protocol.views[name]
            changed = self.edits(attack, tracker, seed, view)
            label = f"{condition} {self._label(self.run.attacks[attack], tracker)}"
            found[condition] = self._measure_nodes(label, self.natural(view.photos), changed)
        return found

    def restored_to_cloak_measures(self, attack: str, tracker: str, seed: int) -> dict[str, tuple[Node, ...]]:
        """Return, for each condition the protocol names, the view's photos against the cloaks as posted."""
        found = {}
        for condition, name in self.run.protocol.restored.items():
            view = self.run.protocol.views[name]
            changed = self.edits(attack, tracker, seed, view)
            label = f"{condition} to cloak {self._label(self.run.attacks[attack], tracker)}"
            posted = self.cloaks(attack, tracker, seed, view.photos)
            found[condition] = self._measure_nodes(label, posted, changed, with_lpips=False)
        return found

    def attack_context(
        self, attack_name: str, tracker: str, seed: int, fetch: Callable[[Node], bytes], key: bytes | None
    ) -> Context:
        """Return the context in which an attack of the run works on photos that are not the run's.

        Args:
            attack_name: canonical name of an attack of the run.
            tracker: name of the tracker's backbone; "" where nobody knows it.
            seed: of the method's randomness.
            fetch: gives an artefact's payload: the targets' faces, what the attack learnt.
            key: the secret to cloak with, empty where the attack has none; None to erase, which needs no targets.
        """
        attack = self.run.attacks[attack_name]
        targets = None
        if attack.threat.needs_targets and key is not None:
            targets = stages.decode_pixels(fetch(self._training_faces("targets"))).faces(self.machine.device)
        ctx = self._context(attack, tracker, seed, _uncounted, targets, key or b"")
        return _with_state(ctx, fetch(self._fitted(attack, tracker, seed))) if attack.learns else ctx

    def purifier_context(
        self, defense_name: str, tracker: str, seed: int, fetch: Callable[[Node], bytes]
    ) -> Context:
        """Return the context in which a purifier of the run works on photos that are not the run's.

        Args:
            defense_name: canonical name of a purifier of the run.
            tracker: name of the tracker's backbone; "" where nobody knows it.
            seed: of the method's randomness.
            fetch: gives an artefact's payload: what the purifier learnt.
        """
        defense = self.run.defenses[defense_name]
        ctx = self._context(defense, tracker, seed, _uncounted)
        return _with_state(ctx, fetch(self._fitted(defense, tracker, seed))) if defense.learns else ctx

    def _measure_nodes(
        self,
        label: str,
        originals: tuple[Node, ...],
        changed: tuple[Node, ...],
        *,
        fill: bool = False,
        with_lpips: bool = True,
    ) -> tuple[Node, ...]:
        """Return the measures of `changed`; with `fill`, photos an attack was given and left out are unchanged."""
        lpips = self.machine.lpips if with_lpips and isinstance(self.machine.lpips, Lpips) else None

        def work(inputs: Payloads, advance: Advance, chosen: Sequence[str]) -> bytes:
            before, after = (stages.decode_pixels(payload) for payload in inputs)
            after = _with_left_out(before, after, frozenset(chosen))
            rows = image_measures.measure(before, after, lpips, self.machine.device)
            advance(len(rows))
            return image_measures.to_bytes(rows)

        facts = {
            "source": code_digest("bench.image_measures"),
            "lpips_trunk": lpips.trunk_sha256 if lpips else "absent",
            "environment": self._environment,
            **({"left_out": "unchanged"} if fill else {}),
        }
        pairs = zip(originals, changed, strict=bool(changed))
        return tuple(
            Node(
                "measure",
                label,
                facts,
                (before, after),
                after.images,
                after.images * 64,
                partial(work, chosen=after.facts["chosen"] if fill else ()),
            )
            for before, after in pairs
        )

    # -- diagnose --------------------------------------------------------------------------------------

    def _attack_probes(self, attack_name: str, tracker: str, seed: int) -> tuple[Node, ...]:
        """Return what the attack's surrogates make of a sample of its cloaks; () where it has none."""
        attack = self.run.attacks[attack_name]
        surrogates = self.run.binding(attack, tracker).backbones
        if not surrogates:
            return ()
        cloaks = self.cloaks(attack_name, tracker, seed, "gallery")
        originals = self.natural("gallery")
        chosen = diagnosis.sample([node.facts["chosen"] for node in cloaks])
        label = self._label(attack, tracker)
        return tuple(
            self._probe_node(label, originals[shard], cloaks[shard], ids, surrogates, seed)
            for shard, ids in chosen.items()
        )

    def _probe_node(
        self, label: str, before: Node, after: Node, chosen: Sequence[str], names: Sequence[str], seed: int
    ) -> Node:
        def work(inputs: Payloads, advance: Advance) -> bytes:
            originals, cloaks = (stages.decode_pixels(payload) for payload in inputs)
            surrogates = [(name, self.backbone(name)) for name in names]
            return diagnosis.probes_to_bytes(
                diagnosis.probe_attack(
                    originals,
                    cloaks,
                    chosen,
                    surrogates,
                    seed=seed,
                    device=self.machine.device,
                    advance=advance,
                )
            )

        facts = {
            "source": code_digest("bench.diagnosis"),
            "surrogates": [self._backbone_facts(name) for name in names],
            "chosen": list(chosen),
            "seed": seed,
            "environment": self._environment,
        }
        size = 256 * len(chosen) * len(names)
        return Node("diagnose", label, facts, (before, after), len(chosen), size, work)

    def _purifier_probes(self, attack: str, defense_name: str, tracker: str, seed: int) -> tuple[Node, ...]:
        """Return what a purifier did to each cloak, or, without any, to each photo; () for other defences."""
        given = self.cloaks(attack, tracker, seed, "gallery") or self.natural("gallery")
        returned = self.defended(defense_name, tracker, seed, given)
        if returned is given:
            return ()
        label = f"{self._label(self.run.defenses[defense_name], tracker)} of {attack}"
        return tuple(
            self._purified_node(label, before, after) for before, after in zip(given, returned, strict=True)
        )

    def _purified_node(self, label: str, before: Node, after: Node) -> Node:
        def work(inputs: Payloads, advance: Advance) -> bytes:
            shard = diagnosis.probe_purifier(*(stages.decode_pixels(payload) for payload in inputs))
            advance(len(shard.changes))
            return diagnosis.to_bytes(shard)

        facts = {"source": code_digest("bench.diagnosis"), "environment": self._environment}
        return Node("diagnose", label, facts, (before, after), after.images, 32 * after.images, work)


def _uncounted(_images: int) -> None:
    """Take no notice of finished images, where the harness counts them itself."""


def secret(seed: int, stream: str) -> bytes:
    """Return the 32-byte secret of an erasable attack in a run, or another one for another stream."""
    return sha256(f"{seed}/{stream}".encode()).digest()


def _with_left_out(before: stages.Pixels, after: stages.Pixels, chosen: frozenset[str]) -> stages.Pixels:
    """Return `after` with the photos of `chosen` it lacks, as they are in `before`."""
    left_out = before.only(chosen - frozenset(after.ids))
    if not left_out.ids:
        return after
    return stages.Pixels(
        torch.cat([after.images, left_out.images]),
        after.ids + left_out.ids,
        after.identities + left_out.identities,
    )


def _shards(photos: Mapping[str, tuple[str, ...]]) -> Iterator[list[tuple[str, str]]]:
    shard: list[tuple[str, str]] = []
    for person in sorted(photos):
        shard += [(image, person) for image in photos[person]]
        if len(shard) >= SHARD_IMAGES:
            yield shard
            shard = []
    if shard:
        yield shard


def _some_photos(people: Sequence[Identity]) -> list[tuple[str, str]]:
    photos = [(image, person.id) for person in people for image in person.photos]
    return photos[:TRAINING_IMAGES]


def _with_state(ctx: Context, payload: bytes) -> Context:
    return replace(
        ctx, state={key: value.to(ctx.device) for key, value in safetensors.torch.load(payload).items()}
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: page faults are else about a quarter of a gradient's time on a CPU.

    A tensor above 128 KiB is by default mapped anew and unmapped each time. Does nothing elsewhere.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)


def _compute_the_same_each_time() -> None:
    """Have CUDA compute in full float32 and by the same algorithms in every run."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def use_device(device: str, threads: int | None) -> tuple[torch.device, int]:
    """Return the device and the number of threads, and set torch's threads.

    Args:
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: None for every core this process may use.

    Raises:
        UsageError: the device is unknown or not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device '{device}'. Valid: auto, cpu, cuda, cuda:N.") from None
    if chosen.type not in ("cpu", "cuda"):
        raise UsageError(f"device '{device}' is not supported. Valid: auto, cpu, cuda, cuda:N.")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen.type == "cuda" and (chosen.index or 0) >= there:
        raise UsageError(
            f"device '{device}' was asked for, but torch sees {there} CUDA devices. Use --device cpu."
        )
    if chosen.type == "cuda":
        _compute_the_same_each_time()
    count = threads or _usable_cores()
    torch.set_num_threads(count)
    keep_freed_memory()
    return chosen, count


def make_machine(device: str, threads: int | None, batch_size: int, lpips_trunk: Path | None) -> Machine:
    """Return the machine of a run and set torch's threads (see `use_device`).

    Args:
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: None for every core this process may use.
        batch_size: images handed to a method per call.
        lpips_trunk: file with AlexNet's weights, or None to look in torchvision's cache.
    """
    chosen, count = use_device(device, threads)
    return Machine(chosen, count, batch_size, load_lpips(lpips_trunk))
