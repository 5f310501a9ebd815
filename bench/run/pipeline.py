"""The stages of a run as a graph: faces → fit → cloak → purify → embed → decide; the others stand beside.

Everything here says what is made from what, and what decides it; `bench.run.stages` does the computing and
`bench.run.graph` the remembering.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from hashlib import sha256
from typing import Any, Literal, overload

import safetensors.torch
import torch
from threadpoolctl import threadpool_limits

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
from bench.data.files import sha256_of
from bench.errors import UsageError
from bench.faces import pixels as faces_pixels
from bench.plugins import factory
from bench.plugins import factory as methods
from bench.quality import diagnosis, per_image
from bench.quality.lpips import Lpips
from bench.randomness import numpy_generator, stream_seed
from bench.run import decisions, embeddings, stages
from bench.run.device import Machine
from bench.run.digest import code_digest, environment
from bench.run.graph import Node
from bench.run.resolve import Resolved
from bench.run.spec import Cell
from bench.run.targets import held_out_photos, shown_photos, target_identities

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
        self.target_assignment = cache(self._target_assignment)
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
            backbone = self.run.backbones.get(name) or factory.backbone(name)
            backbone.load(self.machine.device)
            self._loaded[name] = backbone
        return self._loaded[name]

    def _backbone_facts(self, name: str) -> dict[str, Any]:
        backbone = self.run.backbones.get(name) or factory.backbone(name)
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
        key_fields = {
            "method": methods.canonical(method),
            "params": method.params.model_dump(mode="json"),
            "source": code_digest(type(method), "bench.run.stages"),
            "files": [sha256_of(path) for path in method.files(binding)],
            "helpers": [self._backbone_facts(name) for name in binding.backbones],
            "seed": seed,
            "environment": self._environment,
        }
        if binding.parts:
            bound = zip(method.parts(), binding.parts, strict=True)
            key_fields["parts"] = [self._bound_facts(part, own, seed) for part, own in bound]
        return key_fields

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
        named = {"gallery": split.gallery, "probes": split.probes, "impostors": self.run.impostors}[photos]
        return tuple(self._faces_node(photos, shard) for shard in _shards(named))

    def _faces_node(self, label: str, photos: Sequence[tuple[str, str]]) -> Node:
        ids = tuple(image for image, _ in photos)
        identities = tuple(identity for _, identity in photos)
        dataset = self.run.dataset

        def work(_inputs: Payloads, advance: Advance) -> bytes:
            crops = dataset.crops(ids)
            advance(len(ids))
            return faces_pixels.encode_pixels(faces_pixels.Pixels(crops, ids, identities))

        key_fields = {
            "dataset": self.run.spec.dataset,
            "fingerprint": self._fingerprint,
            "ids": ids,
            "identities": identities,
            "source": code_digest(type(dataset), "bench.run.stages"),
            "environment": self._environment,
        }
        return Node("faces", label, key_fields, (), len(ids), len(ids) * _CROP_BYTES, work)

    def _make_training_faces(self, purpose: Literal["training", "targets", "held-out targets"]) -> Node:
        """Return photos of identities that are not evaluated: to learn from, to imitate, or to be measured against.

        Held-out photos are of the identities an attack may imitate; no attack sees them.
        """
        identities = [identity for identity in self.run.dataset.identities() if identity.role == "training"]
        if not identities:
            raise UsageError(
                f"{self.run.spec.dataset} has no training identities, and a method of this run learns from "
                "them. Use a dataset that has some, or another method."
            )
        if purpose == "training":
            rng = numpy_generator(self.run.spec.split_seed, "training")
            return self._faces_node(
                purpose, _some_photos([identities[i] for i in rng.permutation(len(identities))])
            )
        photos_of = shown_photos if purpose == "targets" else held_out_photos
        targets = target_identities(identities, self.run.spec.split_seed)
        return self._faces_node(purpose, [(image, who.id) for who in targets for image in photos_of(who)])

    # -- fit -------------------------------------------------------------------------------------------

    def _make_fitted(self, method: Attack | Defense, tracker: str, seed: int) -> Node:
        def work(inputs: Payloads, advance: Advance) -> bytes:
            faces = faces_pixels.decode_pixels(inputs[0]).faces(self.machine.device)
            ctx = self._context(method, tracker, seed, advance)
            if isinstance(method, Hardening):
                state = method.train(self.backbone(tracker), faces, ctx)
            else:
                state = method.fit(faces, ctx)
            return safetensors.torch.save({key: value.contiguous().cpu() for key, value in state.items()})

        key_fields = self._method_facts(method, tracker, seed)
        if isinstance(method, Hardening):
            key_fields["tracker"] = self._backbone_facts(tracker)
        source = self._training_faces("training")
        return Node("fit", self._label(method, tracker), key_fields, (source,), source.images, 1 << 20, work)

    # -- cloak -----------------------------------------------------------------------------------------

    def _cloaks(self, attack_name: str, tracker: str, seed: int, role: PhotoSet) -> tuple[Node, ...]:
        """Return, for each shard of photos, the images an attack changed when an identity is protected."""
        attack = self.run.attacks[attack_name]
        if not attack.changes_images:
            return ()
        if role == "probes" and attack.scope == "identity":
            raise UsageError(
                f"{attack_name} looks at all photos of an identity at once, and probes=cloaked would cloak gallery and "
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
        chosen = [name for name in source.key_fields["ids"] if name in wanted]
        extra = []
        if attack.threat.needs_targets:
            extra.append(self._training_faces("targets"))
        if attack.requires_fit:
            extra.append(self._fitted(attack, tracker, seed))

        def work(inputs: Payloads, advance: Advance) -> bytes:
            others = list(inputs[1:])
            targets = None
            if attack.threat.needs_targets:
                targets = faces_pixels.decode_pixels(others.pop(0)).faces(self.machine.device)
            ctx = self._context(attack, tracker, seed, advance, targets)
            if attack.requires_fit:
                ctx = _with_state(ctx, others.pop(0))
            pixels = faces_pixels.decode_pixels(inputs[0]).only(frozenset(chosen))
            return faces_pixels.encode_pixels(stages.cloak(attack, pixels, ctx, self.machine.batch_size))

        key_fields = {**self._method_facts(attack, tracker, seed), "chosen": chosen}
        size = len(chosen) * _CROP_BYTES
        return Node(
            "cloak", self._label(attack, tracker), key_fields, (source, *extra), len(chosen), size, work
        )

    def _target_assignment(self, attack_name: str, tracker: str, seed: int) -> tuple[Node, ...]:
        """Return, for each shard of cloaked gallery photos, whom the cloaks imitate; () if nobody."""
        attack = self.run.attacks[attack_name]
        if attack.threat.goal != "targeted":
            return ()
        wanted = frozenset(image for images in self.run.split.cloaked.values() for image in images)
        return tuple(
            self._target_assignment_node(attack, tracker, seed, node, wanted)
            for node in self.natural("gallery")
        )

    def _target_assignment_node(
        self, attack: Attack, tracker: str, seed: int, source: Node, wanted: frozenset[str]
    ) -> Node:
        chosen = frozenset(name for name in source.key_fields["ids"] if name in wanted)
        fitted = (self._fitted(attack, tracker, seed),) if attack.requires_fit else ()

        def work(inputs: Payloads, advance: Advance) -> bytes:
            targets = faces_pixels.decode_pixels(inputs[1]).faces(self.machine.device)
            ctx = self._context(attack, tracker, seed, _uncounted, targets)
            if fitted:
                ctx = _with_state(ctx, inputs[2])
            pixels = faces_pixels.decode_pixels(inputs[0]).only(chosen)
            target_assignment = stages.assign_targets(attack, pixels, ctx, self.machine.batch_size)
            advance(len(target_assignment))
            return json.dumps(target_assignment).encode()

        key_fields = {**self._method_facts(attack, tracker, seed), "chosen": sorted(chosen)}
        inputs = (source, self._training_faces("targets"), *fitted)
        return Node(
            "aim", self._label(attack, tracker), key_fields, inputs, len(chosen), 64 * len(chosen), work
        )

    def _erased(
        self, attack_name: str, tracker: str, seed: int, role: PhotoSet, key: str
    ) -> tuple[Node, ...]:
        """Return the shards of cloaks after the attack's `erase` with a key (see `View.key`)."""
        attack = self.run.attacks[attack_name]
        cloaks = self.cloaks(attack_name, tracker, seed, role)
        return tuple(self._erase_node(attack, tracker, seed, cloak, key) for cloak in cloaks)

    def _erase_node(self, attack: Attack, tracker: str, seed: int, source: Node, key: str) -> Node:
        fitted = (self._fitted(attack, tracker, seed),) if attack.requires_fit else ()

        def work(inputs: Payloads, advance: Advance) -> bytes:
            ctx = self._context(attack, tracker, seed, _uncounted, key=b"")
            if fitted:
                ctx = _with_state(ctx, inputs[1])
            cloaks = faces_pixels.decode_pixels(inputs[0])
            tried = secret(seed, KEY_OF[key]) if KEY_OF[key] else b""
            erased = stages.erase(attack, cloaks, tried, ctx, self.machine.batch_size)
            advance(len(erased.ids))
            return faces_pixels.encode_pixels(erased)

        key_fields = {**self._method_facts(attack, tracker, seed), "key": key}
        label = f"{self._label(attack, tracker)}, {key} key"
        return Node("erase", label, key_fields, (source, *fitted), source.images, source.size, work)

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
        extra = (self._fitted(defense, tracker, seed),) if defense.requires_fit else ()

        def work(inputs: Payloads, advance: Advance) -> bytes:
            ctx = self._context(defense, tracker, seed, advance)
            if defense.requires_fit:
                ctx = _with_state(ctx, inputs[1])
            pixels = faces_pixels.decode_pixels(inputs[0])
            return faces_pixels.encode_pixels(stages.purify(defense, pixels, ctx, self.machine.batch_size))

        key_fields = self._purifier_facts(defense, tracker, seed)
        return Node(
            "purify",
            self._label(defense, tracker),
            key_fields,
            (source, *extra),
            source.images,
            source.size,
            work,
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
        key_fields: dict[str, Any] = {
            "backbone": self._backbone_facts(tracker),
            "source": code_digest("bench.run.stages"),
            "environment": self._environment,
        }
        extra: tuple[Node, ...] = ()
        label = tracker
        if hardening is not None:
            extra = (self._fitted(hardening, tracker, seed),)
            key_fields["hardening"] = self._method_facts(hardening, tracker, seed)
            label = f"{tracker} hardened by {methods.canonical(hardening)}"
        if before:
            key_fields["before"] = [self._purifier_facts(purifier, tracker, seed) for purifier in before]
        learnt = tuple(self._fitted(p, tracker, seed) for p in before if p.requires_fit)

        def work(inputs: Payloads, advance: Advance) -> bytes:
            backbone = self.backbone(tracker)
            if hardening is not None:
                backbone = hardening.harden(backbone, safetensors.torch.load(inputs[1]))
            states = iter(inputs[1 + len(extra) :])
            pixels = faces_pixels.decode_pixels(inputs[0])
            for purifier in before:
                ctx = self._context(purifier, tracker, seed, _uncounted)
                if purifier.requires_fit:
                    ctx = _with_state(ctx, next(states))
                pixels = stages.purify(purifier, pixels, ctx, self.machine.batch_size)
            return embeddings.encode_embedded(stages.embed(backbone, pixels, self.machine.device, advance))

        dimension = (self.run.backbones.get(tracker) or factory.backbone(tracker)).card.embedding_dim
        size = source.images * dimension * 4
        return Node("embed", label, key_fields, (source, *extra, *learnt), source.images, size, work)

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
            method = factory.defense(part.strip())
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
        on_images = cell.head in protocol.end_to_end_heads
        views = {
            name: self._view_nodes(cell, view, as_images=on_images) for name, view in protocol.views.items()
        }
        wants_target_assignment = any(view.photos == "targets" for view in protocol.views.values())
        target_assignment = (
            self.target_assignment(cell.attack, cell.backbone, cell.seed) if wants_target_assignment else ()
        )
        defense = self.run.defenses[cell.defense]
        hardening = defense if on_images and isinstance(defense, Hardening) else None
        extra = (self._fitted(hardening, cell.backbone, cell.seed),) if hardening else ()

        def work(inputs: Payloads, advance: Advance) -> bytes:
            remaining = iter(inputs)
            seen = {name: self._see(protocol.views[name], nodes, remaining) for name, nodes in views.items()}
            aimed = {k: v for _ in target_assignment for k, v in json.loads(next(remaining)).items()}
            trial = Trial(
                split=split,
                head=cell.head,
                impostors=self.run.impostors,
                target_assignment=aimed,
                seed=cell.seed if on_images else 0,  # the key has it for those heads only
                faces={
                    k: v.faces(self.machine.device)
                    for k, v in seen.items()
                    if isinstance(v, faces_pixels.Pixels)
                },
                tracker=partial(self._tracker, cell.backbone, hardening, next(remaining, b"")),
                device=self.machine.device,
            )
            embedded = {k: v for k, v in seen.items() if isinstance(v, Embedded)}
            with threadpool_limits(self.machine.threads):
                decided = protocol.decide(embedded, trial)
            advance(1)
            return decisions.to_bytes(decided)

        key_fields: dict[str, Any] = {
            "protocol": self.run.spec.protocol,
            "params": protocol.params.model_dump(mode="json"),
            "source": code_digest(type(protocol), "bench.run.stages", "bench.run.decisions"),
            "head": cell.head,
            "views": {name: view.model_dump(mode="json") for name, view in protocol.views.items()},
            "groups": {name: [len(base), len(edits)] for name, (base, edits) in views.items()},
            "impostors": {key: list(v) for key, v in self.run.impostors.items()},
            "split": {
                "fold": dict(split.fold),
                "cloaked": {key: list(v) for key, v in split.cloaked.items()},
            },
            "environment": self._environment,
        }
        if on_images:
            key_fields |= {"seed": cell.seed, "backbone": self._backbone_facts(cell.backbone)}
            key_fields["hardening"] = hardening and self._method_facts(hardening, cell.backbone, cell.seed)
        inputs = tuple(node for base, edits in views.values() for node in (*base, *edits))
        size = sum(len(images) for images in split.probes.values()) * split.folds * 12
        label = f"{cell.attack} × {cell.defense} × {cell.backbone} × {cell.head}"
        return Node("decide", label, key_fields, (*inputs, *target_assignment, *extra), 1, size, work)

    def _tracker(self, name: str, hardening: Hardening | None, state: bytes) -> Backbone:
        backbone = self.backbone(name)
        return hardening.harden(backbone, safetensors.torch.load(state)) if hardening else backbone

    def _see(
        self, view: View, nodes: tuple[tuple[Node, ...], tuple[Node, ...]], payloads: Iterator[bytes]
    ) -> Embedded | faces_pixels.Pixels:
        """Return what a view shows: the natural photos, with the attack's edits laid over them where it has any."""
        base, edits = ([next(payloads) for _ in group] for group in nodes)
        split = self.run.split
        cloaked = split.cloaked if view.photos == "gallery" else split.probes
        wanted = frozenset(image for images in cloaked.values() for image in images)
        if any(node.stage == "embed" for node in nodes[0]):
            below = embeddings.join([embeddings.decode_embedded(payload) for payload in base])
            above = (
                embeddings.join([embeddings.decode_embedded(payload) for payload in edits]) if edits else None
            )
            return below if view.state == "natural" else embeddings.overlay(below, above, wanted)
        photos = faces_pixels.join_pixels([faces_pixels.decode_pixels(payload) for payload in base])
        changed = (
            faces_pixels.join_pixels([faces_pixels.decode_pixels(payload) for payload in edits])
            if edits
            else None
        )
        return photos if view.state == "natural" else faces_pixels.overlay_pixels(photos, changed, wanted)

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
            targets = faces_pixels.decode_pixels(fetch(self._training_faces("targets"))).faces(
                self.machine.device
            )
        ctx = self._context(attack, tracker, seed, _uncounted, targets, key or b"")
        return _with_state(ctx, fetch(self._fitted(attack, tracker, seed))) if attack.requires_fit else ctx

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
        return _with_state(ctx, fetch(self._fitted(defense, tracker, seed))) if defense.requires_fit else ctx

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
            before, after = (faces_pixels.decode_pixels(payload) for payload in inputs)
            after = _with_left_out(before, after, frozenset(chosen))
            rows = per_image.measure(before, after, lpips, self.machine.device)
            advance(len(rows))
            return per_image.to_bytes(rows)

        key_fields = {
            "source": code_digest("bench.quality.per_image"),
            "lpips_trunk": lpips.trunk_sha256 if lpips else "absent",
            "environment": self._environment,
            **({"left_out": "unchanged"} if fill else {}),
        }
        pairs = zip(originals, changed, strict=bool(changed))
        return tuple(
            Node(
                "measure",
                label,
                key_fields,
                (before, after),
                after.images,
                after.images * 64,
                partial(work, chosen=after.key_fields["chosen"] if fill else ()),
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
        chosen = diagnosis.sample([node.key_fields["chosen"] for node in cloaks])
        label = self._label(attack, tracker)
        return tuple(
            self._probe_node(label, originals[shard], cloaks[shard], ids, surrogates, seed)
            for shard, ids in chosen.items()
        )

    def _probe_node(
        self, label: str, before: Node, after: Node, chosen: Sequence[str], names: Sequence[str], seed: int
    ) -> Node:
        def work(inputs: Payloads, advance: Advance) -> bytes:
            originals, cloaks = (faces_pixels.decode_pixels(payload) for payload in inputs)
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

        key_fields = {
            "source": code_digest("bench.quality.diagnosis"),
            "surrogates": [self._backbone_facts(name) for name in names],
            "chosen": list(chosen),
            "seed": seed,
            "environment": self._environment,
        }
        size = 256 * len(chosen) * len(names)
        return Node("diagnose", label, key_fields, (before, after), len(chosen), size, work)

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
            shard = diagnosis.probe_purifier(*(faces_pixels.decode_pixels(payload) for payload in inputs))
            advance(len(shard.changes))
            return diagnosis.to_bytes(shard)

        key_fields = {"source": code_digest("bench.quality.diagnosis"), "environment": self._environment}
        return Node("diagnose", label, key_fields, (before, after), after.images, 32 * after.images, work)


def _uncounted(_images: int) -> None:
    """Take no notice of finished images, where the harness counts them itself."""


def secret(seed: int, stream: str) -> bytes:
    """Return the 32-byte secret of an erasable attack in a run, or another one for another stream."""
    return sha256(f"{seed}/{stream}".encode()).digest()


def _with_left_out(
    before: faces_pixels.Pixels, after: faces_pixels.Pixels, chosen: frozenset[str]
) -> faces_pixels.Pixels:
    """Return `after` with the photos of `chosen` it lacks, as they are in `before`."""
    left_out = before.only(chosen - frozenset(after.ids))
    if not left_out.ids:
        return after
    return faces_pixels.Pixels(
        torch.cat([after.images, left_out.images]),
        after.ids + left_out.ids,
        after.identities + left_out.identities,
    )


def _shards(photos: Mapping[str, tuple[str, ...]]) -> Iterator[list[tuple[str, str]]]:
    shard: list[tuple[str, str]] = []
    for identity in sorted(photos):
        shard += [(image, identity) for image in photos[identity]]
        if len(shard) >= SHARD_IMAGES:
            yield shard
            shard = []
    if shard:
        yield shard


def _some_photos(identities: Sequence[Identity]) -> list[tuple[str, str]]:
    photos = [(image, identity.id) for identity in identities for image in identity.photos]
    return photos[:TRAINING_IMAGES]


def _with_state(ctx: Context, payload: bytes) -> Context:
    return replace(
        ctx, state={key: value.to(ctx.device) for key, value in safetensors.torch.load(payload).items()}
    )
