"""Which stages a cell needs, and what each is made from: faces → fit → cloak → purify → embed → decide.

Nothing is computed here. `bench.run.stages` says what each stage does and what decides it, `bench.run.graph` computes
and remembers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial, wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from bench.contracts import (
    TRAINING_PHOTOS,
    Attack,
    Binding,
    Dataset,
    Defense,
    Detector,
    Hardening,
    Identity,
    PersonMask,
    PhotoSet,
    Posting,
    Purifier,
    Substitution,
    View,
)
from bench.datasets import whole_photos
from bench.errors import UsageError
from bench.faces import posting as whole_photo_posting
from bench.plugins import factory
from bench.plugins.binding import KnownHardening, embedders, known_hardenings
from bench.quality import diagnosis
from bench.quality.lpips import Lpips
from bench.randomness import stream_seed
from bench.run.bound import BoundBackbone, BoundMethod, Plugin, Tracker, helper_names
from bench.run.device import Machine
from bench.run.digest import environment
from bench.run.graph import Node
from bench.run.hardened_surrogates import PartPlugin, RecipeAttack
from bench.run.photo_sets import (
    Photos,
    Purpose,
    held_out_photos,
    parts,
    publicly_cloaked,
    shards,
    shown_photos,
    training_photos,
)
from bench.run.resolve import Resolved
from bench.run.spec import Cell
from bench.run.stages.aimed_cloaks import AimedCloaks
from bench.run.stages.apply_masks import ApplyMasks
from bench.run.stages.attack_diagnosis import AttackDiagnosis
from bench.run.stages.cloak import Cloak
from bench.run.stages.decide import Dealt, Decide, Kept, Shown
from bench.run.stages.detection import Detection
from bench.run.stages.embed import Embed
from bench.run.stages.erase import Erase
from bench.run.stages.faces import Crops
from bench.run.stages.fit import Fit
from bench.run.stages.fuse import Fuse
from bench.run.stages.joined import JoinedCloaks
from bench.run.stages.learn_mask import LearnMask
from bench.run.stages.measure import Measure
from bench.run.stages.photo_diagnosis import PhotoDiagnosis
from bench.run.stages.photo_fingerprints import PhotoFingerprints
from bench.run.stages.posted import Posted, described
from bench.run.stages.purifier_diagnosis import PurifierDiagnosis
from bench.run.stages.purify import Purify
from bench.run.stages.take_off_masks import TakeOffMasks
from bench.run.stages.target_assignment import TargetAssignment
from bench.run.substitution import FusedTracker

Cloaks = Cloak | JoinedCloaks | AimedCloaks | ApplyMasks
"""The images of a shard that an attack changed."""

P = ParamSpec("P")
T = TypeVar("T")


def _once(make: Callable[Concatenate["Pipeline", P], T]) -> Callable[Concatenate["Pipeline", P], T]:
    """Make one thing for one set of arguments: cells share what they share."""

    @wraps(make)
    def made(self: "Pipeline", /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (make.__name__, *args, *kwargs.items())
        if key not in self._made:
            self._made[key] = make(self, *args, **kwargs)
        found: T = self._made[key]
        return found

    return made


class Pipeline:
    """Wires the nodes of a resolved run.

    Args:
        run: the plugins and the split.
        machine: device, threads, batch size, LPIPS.
    """

    def __init__(self, run: Resolved, machine: Machine) -> None:
        self.run = run
        self.machine = machine
        self._made: dict[tuple[Any, ...], Any] = {}

    @cached_property
    def _here(self) -> Mapping[str, Any]:
        return environment(str(self.machine.device), self.machine.threads)

    # -- methods ---------------------------------------------------------------------------------------

    @_once
    def backbone(self, name: str) -> BoundBackbone:
        """Return a backbone of the run, or one from a pool, by name."""
        plugin = self.run.plugin("backbones", name)
        return BoundBackbone(name, plugin, Binding(self.run.spec.dataset, self.run.dataset.domain, (), name))

    @_once
    def method(self, kind: str, name: str, tracker: str, seed: int) -> BoundMethod[Any]:
        """Return an attack or a defence of the run as it works against one tracker, with what it learns."""
        return self._bound(self.run.plugin(kind, name), tracker, seed)

    def _part(self, method: Defense, tracker: str, seed: int) -> BoundMethod[Any]:
        """Return a purifier or a hardening that a defence declares, as it works as a defence of its own."""
        return self._bound(Plugin("defenses", factory.text_of(method), method), tracker, seed)

    @_once
    def _bound(self, plugin: Plugin[Any], tracker: str, seed: int) -> BoundMethod[Any]:
        binding = self.run.binding(plugin.method, tracker)
        helpers = {name: self.backbone(name) for name in helper_names(binding)}
        bound = BoundMethod(plugin, binding, helpers, seed)
        trains = isinstance(plugin.method, Hardening) and plugin.method.trains
        trained = self.backbone(tracker) if trains else None
        known = tuple(known_hardenings(plugin.method, binding))
        if trained is None and not plugin.method.requires_fit:
            return self._with_recipes(bound, known) if known else bound
        if known:
            raise UsageError(
                f"{plugin.name} learns before the run makes any cloak, and would need surrogates hardened by "
                f"{factory.canonical(known[0].method)} for that, which only an attack that makes its cloaks photo by "
                "photo can have. Leave that hardening out of it."
            )
        faces = self.training_faces("training", plugin.method.training_photos)
        label = f"{bound.label} on {tracker}" if trained else bound.label
        return replace(bound, fitted=Fit(label, self._here, bound, faces, trained))

    def _with_recipes(self, bound: BoundMethod[Any], known: Sequence[KnownHardening]) -> RecipeAttack:
        """Return an attack with its surrogates trained by each hardening that it knows, as trackers train theirs.

        Under the attack's own seed: where the tracker's backbone is named as a surrogate (white-box), what comes of it
        are the very weights of the hardened tracker.
        """
        hardened = (
            (
                each.path,
                tuple(
                    self._hardened(PartPlugin.inside(bound.plugin, each.path), name, bound.seed)
                    for name in each.surrogates
                ),
            )
            for each in known
        )
        return RecipeAttack(
            bound.plugin, bound.binding, bound.backbones, bound.seed, hardened=tuple(hardened)
        )

    @_once
    def _hardened(self, hardening: Plugin[Any], backbone: str, seed: int) -> Tracker:
        """Return a backbone under a hardening: the very training it has where it is itself the tracker."""
        return self._under(self._bound(hardening, backbone, seed), backbone)

    def _under(self, hardening: BoundMethod[Hardening], backbone: str) -> Tracker:
        """Return what a tracker with a backbone embeds with under a hardening."""
        own = self.backbone(backbone)
        if not isinstance(hardening.method, Substitution):
            return Tracker(own, hardening)
        first, *others = map(self.backbone, embedders(hardening.method, own.plugin.method))
        return FusedTracker(first, hardening, tuple(others)) if others else Tracker(first)

    def _tracker(self, defense: str, tracker: str, seed: int) -> Tracker:
        """Return the tracker's backbone, hardened or others in its place where the defence does that."""
        hardening = self.run.defenses[defense].hardening
        if hardening is None:
            return Tracker(self.backbone(tracker))
        return self._under(self._part(hardening, tracker, seed), tracker)

    def _purifiers(self, defense: str) -> tuple[Purifier | None, ...]:
        """Return what makes each image that the tracker keeps of a photo; None where it keeps the photo as it is."""
        declared = self.run.defenses[defense].purifiers
        return tuple(each if each.changes_images else None for each in declared) or (None,)

    # -- faces -----------------------------------------------------------------------------------------

    @_once
    def natural(self, photos: PhotoSet) -> tuple[Crops, ...]:
        """Return the shards of aligned crops of a set of photos."""
        if photos == "targets":
            return (self._held_out_targets(),)
        split = self.run.split
        named = {"gallery": split.gallery, "probes": split.probes, "impostors": self.run.impostors}[photos]
        return tuple(self._crops(photos, shard) for shard in shards(named))

    @cached_property
    def _dataset(self) -> Plugin[Dataset]:
        return self.run.plugin("datasets", self.run.spec.dataset)

    def _crops(self, label: str, photos: Photos) -> Crops:
        ids, identities = (tuple(names[part] for names in photos) for part in (0, 1))
        return Crops(label, self._here, self._dataset, self.run.fingerprint, ids, identities)

    @_once
    def training_faces(self, purpose: Purpose, most: int = TRAINING_PHOTOS) -> Crops:
        """Return photos of identities that are not evaluated.

        Args:
            purpose: what they are for.
            most: photos to learn from.

        Raises:
            UsageError: there are none.
        """
        identities = self.run.roles.others
        if not identities:
            raise UsageError(
                f"{self.run.spec.dataset} has no training identities, and a method of this run learns from "
                "them. Use a dataset that has some, or another method."
            )
        return self._crops(purpose, training_photos(identities, purpose, self.run.spec.split_seed, most))

    @cached_property
    def _training_targets(self) -> Mapping[str, Identity]:
        """The training identities that the protocol has cloaks imitate, by id; none where attacks draw."""
        named = set(self.run.given_targets.values())
        return {identity.id: identity for identity in self.run.roles.others if identity.id in named}

    def _held_out_targets(self) -> Crops:
        """Return the photos of those who may be imitated that no attack sees."""
        given = self._training_targets
        if not given:
            return self.training_faces("held-out targets")
        photos = [(image, name) for name in sorted(given) for image in held_out_photos(given[name])]
        return self._crops("held-out targets", photos)

    @_once
    def _target(self, identity: str) -> Crops:
        """Return the photos by which an attack knows one identity that it is to imitate."""
        if identity in self._training_targets:
            photos = shown_photos(self._training_targets[identity])
        else:
            photos = self.run.split.gallery[identity]
        return self._crops("targets", [(image, identity) for image in photos])

    def _by_target(self, photos: Crops, chosen: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Crops]]:
        """Yield the chosen photos of a shard that imitate one identity, with that identity's photos."""
        identity_of = dict(zip(photos.ids, photos.identities, strict=True))
        own: dict[str, list[str]] = {}
        for image in chosen:
            own.setdefault(self.run.given_targets[identity_of[image]], []).append(image)
        for target, images in own.items():
            yield tuple(images), self._target(target)

    # -- cloaks ----------------------------------------------------------------------------------------

    @_once
    def cloaks(self, attack_name: str, tracker: str, seed: int, role: PhotoSet) -> tuple[Cloaks, ...]:
        """Return, for each shard of photos, the images an attack changed when an identity is protected."""
        attack = self.run.attacks[attack_name]
        if not attack.changes_images or attack.edits_others != (role == "impostors"):
            return ()
        if isinstance(attack, PersonMask):
            return tuple(self._masked(attack_name, tracker, seed, role))
        if role == "probes" and not attack.cloaks_later_photos:
            raise UsageError(
                f"{attack_name} looks at all photos of an identity at once, and probes=cloaked would cloak gallery and "
                "probes apart. Use another attack or probes=clean."
            )
        if attack.edits_others:
            self._check_decoys(attack_name)
        bound = self.method("attacks", attack_name, tracker, seed)
        if self._aims(attack):
            return tuple(self._aimed(bound, photos, chosen) for photos, chosen in self._protected(role))
        targets = self.training_faces("targets") if attack.threat.needs_targets else None
        return tuple(
            _in_parts(Cloak(bound.label, self._here, bound, photos, chosen, targets), photos)
            for photos, chosen in self._protected(role)
        )

    def _aims(self, attack: Attack) -> bool:
        """Return whether the protocol says whom an attack's cloaks imitate."""
        if not attack.threat.needs_targets:
            return False
        return attack.edits_others or bool(self._training_targets)

    def _check_decoys(self, attack: str) -> None:
        """Raise UsageError where somebody who is protected would have no decoy."""
        missing = sorted(set(self.run.split.gallery) - set(self.run.given_targets.values()))
        if missing:
            raise UsageError(
                f"{attack} makes decoys of the photos of identities that are not evaluated, and there are fewer of "
                f"these than identities to protect: '{missing[0]}' and {len(missing) - 1} others have none. Raise "
                f"distractors to {len(self.run.split.gallery)} or more, or evaluate fewer identities."
            )

    def _aimed(self, bound: BoundMethod[Attack], photos: Crops, chosen: tuple[str, ...]) -> Cloaks:
        """Return the cloaks of a shard of which each imitates whom the protocol says."""
        parts = tuple(
            _in_parts(Cloak(bound.label, self._here, bound, photos, images, target), photos)
            for images, target in self._by_target(photos, chosen)
        )
        if not parts:
            return Cloak(bound.label, self._here, bound, photos, ())
        return AimedCloaks(bound.label, self._here, chosen, parts)

    def _masked(self, attack: str, tracker: str, seed: int, role: PhotoSet) -> Iterator[ApplyMasks]:
        """Yield the shards of photos under the masks of their identities."""
        bound, masks = self.method("attacks", attack, tracker, seed), self.masks(attack, tracker, seed)
        for photos, chosen in self._protected(role):
            identity_of = dict(zip(photos.ids, photos.identities, strict=True))
            under = tuple(image for image in chosen if identity_of[image] in masks)
            own = tuple(masks[name] for name in dict.fromkeys(identity_of[image] for image in under))
            yield ApplyMasks(bound.label, self._here, bound, photos, under, own)

    @_once
    def masks(self, attack: str, tracker: str, seed: int) -> Mapping[str, LearnMask]:
        """Return the mask of each identity whose gallery photos are cloaked, learnt from these."""
        bound = self.method("attacks", attack, tracker, seed)
        drawn = self.training_faces("targets") if bound.method.threat.needs_targets else None
        aims = self._aims(bound.method)
        found = {}
        for photos, chosen in self._protected("gallery"):
            identity_of = dict(zip(photos.ids, photos.identities, strict=True))
            own: dict[str, list[str]] = {}
            for image in chosen:
                own.setdefault(identity_of[image], []).append(image)
            for who, images in own.items():
                targets = self._target(self.run.given_targets[who]) if aims else drawn
                found[who] = LearnMask(bound.label, self._here, bound, photos, who, tuple(images), targets)
        return found

    def _protected(self, role: PhotoSet) -> Iterator[tuple[Crops, tuple[str, ...]]]:
        """Yield the shards of a set of photos, each with those that are cloaked."""
        wanted = frozenset(image for images in self._cloaked(role).values() for image in images)
        for photos in self.natural(role):
            yield photos, tuple(image for image in photos.ids if image in wanted)

    def _cloaked(self, role: PhotoSet) -> Mapping[str, tuple[str, ...]]:
        """Return the photos of a set that an attack changes where it changes that set's: identity id → image ids."""
        if role == "impostors":
            return {name: own for name, own in self.run.impostors.items() if name in self.run.given_targets}
        return self.run.split.cloaked if role == "gallery" else self.run.split.probes

    @_once
    def public_cloaks(
        self, defense: str, tracker: str, seed: int
    ) -> tuple[tuple[Cloak | JoinedCloaks, ...], ...]:
        """Return the cloaks that the tracker itself makes of gallery photos, once for each attack, shard by shard.

        Each attack has the seed that a part has (`Context.parts`): the tracker does not know what an attacker draws.
        """
        declared = self.run.defenses[defense].public_cloaks
        if declared is None:
            return ()
        public = publicly_cloaked(self.run.split, declared.share, self.run.spec.split_seed)
        return tuple(
            self._cloaks_of(attack, tracker, stream_seed(seed, "part", str(index)), public)
            for index, attack in enumerate(declared.attacks)
        )

    def _cloaks_of(
        self, attack: Attack, tracker: str, seed: int, identities: frozenset[str]
    ) -> tuple[Cloak | JoinedCloaks, ...]:
        """Return the cloaks of all gallery photos of some identities, shard by shard, without empty ones."""
        bound = self._bound(Plugin("attacks", factory.text_of(attack), attack), tracker, seed)
        found = []
        for photos in self.natural("gallery"):
            pairs = zip(photos.ids, photos.identities, strict=True)
            chosen = tuple(image for image, identity in pairs if identity in identities)
            if chosen:
                whole = Cloak(f"{bound.label} by the tracker", self._here, bound, photos, chosen)
                found.append(_in_parts(whole, photos))
        return tuple(found)

    @_once
    def target_assignment(self, attack_name: str, tracker: str, seed: int) -> tuple[TargetAssignment, ...]:
        """Return, for each shard of cloaked gallery photos, whom the cloaks imitate; () if nobody."""
        attack = self.run.attacks[attack_name]
        if attack.threat.goal != "targeted" or attack.edits_others:
            return ()
        bound = self.method("attacks", attack_name, tracker, seed)
        assigned = partial(TargetAssignment, bound.label, self._here, bound)
        shown = self._protected("gallery")
        if self._aims(attack):
            return tuple(
                assigned(photos, images, target)
                for photos, chosen in shown
                for images, target in self._by_target(photos, chosen)
            )
        targets = self.training_faces("targets")
        return tuple(assigned(photos, chosen, targets) for photos, chosen in shown)

    @_once
    def erased(
        self, attack: str, tracker: str, seed: int, role: PhotoSet, key: str
    ) -> tuple[Erase | TakeOffMasks, ...]:
        """Return the shards of cloaks after the attack's `erase`, or `take_off`, with a key (see `View.key`)."""
        bound = self.method("attacks", attack, tracker, seed)
        label = f"{bound.label}, {key} key"
        if isinstance(bound.method, PersonMask):
            tried = self._tried(attack, tracker, seed, key)
            return tuple(
                TakeOffMasks(
                    label,
                    self._here,
                    bound,
                    cloaks,
                    {each.identity: tried[each.identity] for each in cloaks.masks if tried},
                )
                for cloaks in self._masked(attack, tracker, seed, role)
            )
        return tuple(
            Erase(label, self._here, bound, cloaks, key)
            for cloaks in self.cloaks(attack, tracker, seed, role)
        )

    def _tried(self, attack: str, tracker: str, seed: int, key: str) -> Mapping[str, LearnMask]:
        """Return the mask that is tried on each identity: its own, the next identity's, or none."""
        masks = self.masks(attack, tracker, seed)
        if key == "none":
            return {}
        if key == "right":
            return masks
        names = sorted(masks)
        if len(names) < 2:
            raise UsageError(
                "a wrong mask is another identity's, and only one identity is protected. Evaluate more."
            )
        return {name: masks[other] for name, other in zip(names, names[1:] + names[:1], strict=True)}

    def edits(self, attack: str, tracker: str, seed: int, view: View) -> tuple[Node, ...]:
        """Return the images that a view shows in place of natural ones, shard by shard."""
        if view.state == "natural":
            return ()
        if view.state == "erased":
            return self.erased(attack, tracker, seed, view.photos, view.key)
        return self.cloaks(attack, tracker, seed, view.photos)

    # -- whole photos ------------------------------------------------------------------------------------

    def _scraped(self, cell: Cell, view: View, posting: Posting) -> tuple[Node, ...]:
        """Return the crops that a tracker makes of a view's photos, shard by shard; cloaked views have no others.

        Raises:
            UsageError: the dataset has no whole photos, or the detector is not installed.
        """
        whole_photos.check(self.run.dataset)
        if posting.detected:
            whole_photo_posting.check_detector()
        cloaks: tuple[Cloaks, ...] = ()
        if view.state == "cloaked":
            cloaks = self.cloaks(cell.attack, cell.backbone, cell.seed, view.photos)
        return self._posted(self.natural(view.photos), posting, cloaks)

    @_once
    def _posted(
        self, photos: tuple[Crops, ...], posting: Posting, cloaks: tuple[Cloaks, ...]
    ) -> tuple[Posted, ...]:
        dataset, label = self._dataset, described(posting)
        if not cloaks:
            return tuple(Posted(label, self._here, dataset, shard, posting) for shard in photos)
        return tuple(
            Posted(f"{label}, of {made.label}", self._here, dataset, shard, posting, made, made.chosen)
            for shard, made in zip(photos, cloaks, strict=True)
        )

    # -- defences and embeddings -------------------------------------------------------------------------

    @_once
    def defended(
        self, defense: str, tracker: str, seed: int, sources: tuple[Node, ...]
    ) -> tuple[tuple[Node, ...], ...]:
        """Return the shards as the tracker trains on them, purified or as they are: once for each view it keeps."""
        return tuple(self._purified(each, tracker, seed, sources) for each in self._purifiers(defense))

    @_once
    def _purified(
        self, purifier: Purifier | None, tracker: str, seed: int, sources: tuple[Node, ...]
    ) -> tuple[Node, ...]:
        if purifier is None:
            return sources
        bound = self._part(purifier, tracker, seed)
        return tuple(Purify(bound.label, self._here, bound, source) for source in sources)

    @_once
    def embedded(
        self,
        defense: str,
        tracker: str,
        seed: int,
        sources: tuple[Node, ...],
        channel: tuple[BoundMethod[Purifier], ...] = (),
    ) -> tuple[Embed | Fuse, ...]:
        """Return the shards' embeddings by the tracker, after the purifiers of a channel."""
        own = self._tracker(defense, tracker, seed)
        if not isinstance(own, FusedTracker):
            return tuple(self._embed(own, source, channel) for source in sources)
        fuse = partial(Fuse, own.label, self._here, own.substitution)
        return tuple(fuse(tuple(self._embed(one, source, channel) for one in own.each)) for source in sources)

    def _embed(self, tracker: Tracker, source: Node, channel: tuple[BoundMethod[Purifier], ...]) -> Embed:
        return Embed(tracker.label, self._here, tracker, source, channel, self.machine.precision)

    @_once
    def _channels(
        self, defense: str, tracker: str, seed: int, view: View
    ) -> tuple[tuple[BoundMethod[Purifier], ...], ...]:
        """Return the purifiers of a view's channel, once for each view the tracker keeps of a photo.

        The purifier of that view comes last where the protocol's view goes through the defence.

        Raises:
            UsageError: an unknown method, or one that is not a purifier.
        """
        chain = []
        for part in (text.strip() for text in view.channel.split("+") if view.channel):
            plugin = Plugin.of("defenses", part)
            if not isinstance(plugin.method, Purifier):
                raise UsageError(
                    f"'{part}' in the channel '{view.channel}' is not a purifier; see `bench list`."
                )
            chain.append(self._bound(plugin, tracker, seed))
        last = self._purifiers(defense) if view.defended else (None,)
        return tuple((*chain, *([] if each is None else [self._part(each, tracker, seed)])) for each in last)

    # -- decisions ---------------------------------------------------------------------------------------

    @cached_property
    def _dealt(self) -> Dealt:
        return Dealt(self.run.split, self.run.impostors)

    @_once
    def decision(self, cell: Cell) -> Decide:
        """Return the node of a cell's answers."""
        protocol = self.run.protocol
        on_images = cell.head in protocol.end_to_end_heads
        wants_targets = any(view.photos == "targets" for view in protocol.views.values())
        point = (cell.attack, cell.backbone, cell.seed)
        return Decide(
            label=f"{cell.attack} × {cell.defense} × {cell.backbone} × {cell.head}",
            environment=self._here,
            protocol=self.run.plugin("protocols", self.run.spec.protocol),
            binding=Binding(self.run.spec.dataset, self.run.dataset.domain, (), cell.backbone),
            head=cell.head,
            dealt=self._dealt,
            views={name: self._shown(cell, view, on_images) for name, view in protocol.views.items()},
            assignments=self.target_assignment(*point) if wants_targets else (),
            given_targets=self._given(cell.attack) if wants_targets else {},
            tracker=self._tracker(cell.defense, cell.backbone, cell.seed) if on_images else None,
            seed=cell.seed if on_images else 0,
        )

    def _given(self, attack_name: str) -> Mapping[str, str]:
        """Return cloaked gallery photo → whom its cloak imitates, where the protocol says so."""
        attack = self.run.attacks[attack_name]
        if attack.edits_others or not self._aims(attack):
            return {}
        targets = self.run.given_targets
        return {image: targets[name] for name, own in self.run.split.cloaked.items() for image in own}

    def _shown(self, cell: Cell, view: View, on_images: bool) -> Shown:
        """Return the shards of a view's natural photos, and of the edits laid over them; scraped ones hold both."""
        edits = () if view.posting else self.edits(cell.attack, cell.backbone, cell.seed, view)
        natural = self._scraped(cell, view, view.posting) if view.posting else self.natural(view.photos)
        seen = [self._as_seen(cell, view, each, on_images) for each in (natural, edits)]
        kept = tuple(Kept(*both) for both in zip(*seen, strict=True))
        if view.photos == "gallery" and view.state == "natural" and on_images:
            # Not among cloaked views: of a protected identity the tracker has what was posted and nothing else.
            point = (cell.defense, cell.backbone, cell.seed)
            kept += tuple(Kept(cloaks, ()) for cloaks in self.public_cloaks(*point))
        return Shown(view, kept)

    def _as_seen(
        self, cell: Cell, view: View, sources: tuple[Node, ...], on_images: bool
    ) -> tuple[tuple[Node, ...], ...]:
        """Return the shards as the protocol gets them, once for each view the tracker keeps of a photo."""
        point = (cell.defense, cell.backbone, cell.seed)
        if view.channel or (view.posting and not on_images):  # many conditions; purified photos fill disks
            return tuple(self.embedded(*point, sources, chain) for chain in self._channels(*point, view))
        kept = self.defended(*point, sources) if view.defended else (sources,)
        return kept if on_images else tuple(self.embedded(*point, shown) for shown in kept)

    # -- measures and diagnoses ------------------------------------------------------------------------

    @_once
    def cloak_measures(self, attack: str, tracker: str, seed: int) -> tuple[Measure, ...]:
        """Return how visible the cloaks are: cloak against original, shard by shard."""
        edited = self.edited(attack)
        cloaks = self.cloaks(attack, tracker, seed, edited)
        label = f"cloak {self.method('attacks', attack, tracker, seed).label}"
        # Photos an attack was given and left out are unchanged.
        return self._measures(label, self.natural(edited), cloaks, [cloak.chosen for cloak in cloaks])

    def edited(self, attack: str) -> PhotoSet:
        """Return of which photos an attack makes what the tracker trains on."""
        return "impostors" if self.run.attacks[attack].edits_others else "gallery"

    @_once
    def purified_measures(self, attack: str, defense: str, tracker: str, seed: int) -> tuple[Measure, ...]:
        """Return what the defence costs: purified against original, of the cloaks or, without any, of the photos.

        Of several views: each that changes photos, one after another.
        """
        found: list[Measure] = []
        for label, _, returned in self._given_and_returned(attack, defense, tracker, seed):
            found += self._measures(f"purified {label}", self.natural(self.edited(attack)), returned)
        return tuple(found)

    def _given_and_returned(
        self, attack: str, defense: str, tracker: str, seed: int
    ) -> Iterator[tuple[str, tuple[Node, ...], tuple[Node, ...]]]:
        """Yield, for each purifier of a defence, its label, the cloaks or photos it is given, and what it returns."""
        edited = self.edited(attack)
        given = self.cloaks(attack, tracker, seed, edited) or self.natural(edited)
        for purifier in filter(None, self._purifiers(defense)):
            label = f"{self._part(purifier, tracker, seed).label} of {attack}"
            yield label, given, self._purified(purifier, tracker, seed, given)

    @_once
    def restored_measures(
        self, attack: str, tracker: str, seed: int, against: Literal["photo", "cloak"]
    ) -> Mapping[str, tuple[Measure, ...]]:
        """Return, for each condition the protocol names, the view's photos against the originals, or the cloaks."""
        own = self.method("attacks", attack, tracker, seed).label
        label = own if against == "photo" else f"to cloak {own}"
        found = {}
        for condition, name in self.run.protocol.restored.items():
            view = self.run.protocol.views[name]
            photos = self.natural(view.photos)
            originals = photos if against == "photo" else self.cloaks(attack, tracker, seed, view.photos)
            changed = self.edits(attack, tracker, seed, view)
            found[condition] = self._measures(
                f"{condition} {label}", originals, changed, with_lpips=against == "photo"
            )
        return found

    def _measures(
        self,
        label: str,
        originals: tuple[Node, ...],
        changed: tuple[Node, ...],
        given: Sequence[tuple[str, ...]] = (),
        *,
        with_lpips: bool = True,
    ) -> tuple[Measure, ...]:
        lpips = self.machine.lpips
        trunk = lpips.trunk_sha256 if with_lpips and isinstance(lpips, Lpips) else ""
        pairs = zip(originals, changed, given or [()] * len(changed), strict=bool(changed))
        return tuple(Measure(label, self._here, before, after, ids, trunk) for before, after, ids in pairs)

    @_once
    def attack_probes(self, attack: str, tracker: str, seed: int) -> tuple[AttackDiagnosis, ...]:
        """Return what the attack's surrogates make of a sample of its cloaks; () where it has none."""
        bound = self.method("attacks", attack, tracker, seed)
        surrogates = tuple(self.backbone(name) for name in bound.binding.backbones)
        if not surrogates:
            return ()
        edited = self.edited(attack)
        photos, cloaks = self.natural(edited), self.cloaks(attack, tracker, seed, edited)
        return tuple(
            AttackDiagnosis(bound.label, self._here, photos[shard], cloaks[shard], ids, surrogates, seed)
            for shard, ids in diagnosis.sample([cloak.chosen for cloak in cloaks]).items()
        )

    @_once
    def purifier_probes(
        self, attack: str, defense: str, tracker: str, seed: int
    ) -> tuple[PurifierDiagnosis, ...]:
        """Return what each purifier did to each cloak, or, without any, to each photo; () for other defences."""
        return tuple(
            PurifierDiagnosis(label, self._here, before, after)
            for label, given, returned in self._given_and_returned(attack, defense, tracker, seed)
            for before, after in zip(given, returned, strict=True)
        )

    @_once
    def detections(
        self, attack: str, defense: str, tracker: str, seed: int
    ) -> tuple[tuple[Detection, ...], tuple[Detection, ...]]:
        """Return what the defence's detector takes cloaks for, and natural photos; () where it has none, or several."""
        detectors = [each for each in self._purifiers(defense) if isinstance(each, Detector)]
        if len(detectors) != 1:
            return (), ()
        bound = self._part(detectors[0], tracker, seed)

        def seen(label: str, sources: tuple[Node, ...]) -> tuple[Detection, ...]:
            return tuple(Detection(label, self._here, bound, source) for source in sources)

        edited = self.edited(attack)
        cloaks = self.cloaks(attack, tracker, seed, edited)
        return seen(f"{bound.label} on {attack}", cloaks), seen(
            f"{bound.label} on photos", self.natural(edited)
        )

    @_once
    def photo_probes(self) -> tuple[PhotoDiagnosis, ...]:
        """Return which probes are gallery photos saved again; () where the protocol does not look at both."""
        seen = {view.photos for view in self.run.protocol.views.values()}
        if not {"gallery", "probes"} <= seen:
            return ()
        gallery, probes = self._fingerprints("gallery"), self._fingerprints("probes")
        return (PhotoDiagnosis("photos", self._here, gallery, probes),)

    def _fingerprints(self, photos: PhotoSet) -> tuple[PhotoFingerprints, ...]:
        return tuple(PhotoFingerprints("photos", self._here, shard) for shard in self.natural(photos))


def _in_parts(whole: Cloak, photos: Crops) -> Cloak | JoinedCloaks:
    """Return the cloaks of a shard as one node, or as the parts that a dear attack makes one after another."""
    identity_of = dict(zip(photos.ids, photos.identities, strict=True))
    chosen = [(image, identity_of[image]) for image in whole.chosen]
    dealt = list(parts(chosen, whole.attack.core_seconds, whole.attack.method.scope))
    if len(dealt) == 1:
        return whole
    return JoinedCloaks(
        whole.label,
        whole.environment,
        whole,
        tuple(replace(whole, chosen=tuple(image for image, _ in part)) for part in dealt),
    )
