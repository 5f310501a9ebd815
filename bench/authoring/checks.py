"""What every plugin of a kind must keep to, checked on one instance in seconds.

`bench check` and the tests run the same checks. Each returns findings and never raises: an exception of the
plugin is a finding too. Attacks and defences see a few rendered faces and fake backbones.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from bench.analysis.warning_rules import LINF_TOLERANCE
from bench.authoring.fakes import FakeBackbone
from bench.contracts import (
    CROP_SIZE,
    Attack,
    Backbone,
    BackboneCard,
    BackbonePool,
    Binding,
    Context,
    Dataset,
    Decided,
    Defense,
    Embedded,
    Faces,
    Hardening,
    Identity,
    Method,
    MethodParams,
    Protocol,
    Purifier,
    Split,
    ThreatModel,
    Trial,
    View,
)
from bench.errors import UsageError
from bench.plugins import factory, registry, syntax
from bench.plugins import factory as plugins_factory
from bench.randomness import numpy_generator, stream_seed, torch_generator
from bench.run import decisions

T = TypeVar("T")

SEED = 7
"""Seed handed to the plugins."""

KEY = b"the key of the contract checks"
"""Secret handed to erasable attacks."""

EMBED_TOLERANCE = 1e-3
"""Largest difference of `embed_batch` from `embed`, relative to the largest value."""

ROW_TOLERANCE = 1e-4
"""Largest difference of one image's embedding in another batch, relative to the largest value."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HEX = re.compile(r"[0-9a-f]{16,}")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what must hold, in words.
        passed: whether it does.
        detail: what was found instead; "" where it holds.
    """

    check: str
    passed: bool
    detail: str


class _Sheet:
    """Collects findings; a check returns what is wrong, "" when nothing is."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def check(self, name: str, run: Callable[[], str]) -> None:
        """Run a check and note its outcome."""
        self.value(name, lambda: (run(), None))

    def value(self, name: str, run: Callable[[], tuple[str, T]]) -> T | None:
        """Run a check that also yields a value; None where it raised."""
        result: T | None = None
        try:
            detail, result = run()
        except Exception as error:  # whatever a plugin raises is a finding
            detail = f"{type(error).__name__}: {error}"
        self.findings.append(Finding(name, not detail, detail))
        return result


def run_checks(kind: str, method: Method) -> tuple[Finding, ...]:
    """Check one plugin against the contract of its kind.

    Args:
        kind: one of `registry.EVERY` except ``pools``; of trainers only the declarations are checked.
        method: the plugin, with the parameters to check it under.
    """
    sheet = _Sheet()
    _check_declarations(sheet, method)
    if isinstance(method, Attack):
        _check_attack(sheet, method)
    elif isinstance(method, Purifier):
        _check_purifier(sheet, method)
    elif isinstance(method, Hardening):
        _check_hardening(sheet, method)
    elif isinstance(method, Backbone):
        _check_backbone(sheet, method)
    elif isinstance(method, Dataset):
        _check_dataset(sheet, method)
    elif isinstance(method, Protocol):
        _check_protocol(sheet, method)
    elif kind == "defenses":
        sheet.check("is a Purifier or a Hardening", lambda: "it subclasses Defense and neither of the two")
    return tuple(sheet.findings)


# -- declarations and parameters ---------------------------------------------------------------------------


def _check_declarations(sheet: _Sheet, method: Method) -> None:
    if method.joins:  # it has no name of its own
        sheet.check("its canonical name describes it again", lambda: _wrong_joint_name(method))
        return
    sheet.check("declares a name of letters, digits, '.', '_' and '-'", lambda: _wrong_name(method))
    sheet.check("declares its paper as text", lambda: _wrong_type("paper", method.paper, str))
    sheet.check("every parameter has a description and a default", lambda: _wrong_fields(method))
    sheet.check("its canonical name describes it again", lambda: _wrong_round_trip(method))


def _wrong_name(method: Method) -> str:
    name = getattr(method, "name", "")
    return "" if isinstance(name, str) and _NAME.fullmatch(name) else f"name is {name!r}"


def _wrong_type(what: str, value: object, expected: type) -> str:
    return "" if isinstance(value, expected) else f"{what} is {value!r}, not {expected.__name__}"


def _wrong_fields(method: Method) -> str:
    params: Any = method.Params
    if not (isinstance(params, type) and issubclass(params, MethodParams)):
        return f"Params is {method.Params!r}, not a bench.contracts.MethodParams"
    wrong = []
    for key, info in method.Params.model_fields.items():
        if not info.description:
            wrong.append(f"'{key}' has no description")
        if info.is_required():
            wrong.append(f"'{key}' has no default")
    return "; ".join(wrong)


def _wrong_joint_name(method: Method) -> str:
    written = factory.canonical(method)
    kind = "attacks" if isinstance(method, Attack) else "defenses"
    again = factory.canonical(plugins_factory.create(kind, written))
    return "" if again == written else f"'{written}' gives '{again}'"


def _wrong_round_trip(method: Method) -> str:
    written = factory.canonical(method)
    extras = {key: info.json_schema_extra for key, info in method.Params.model_fields.items()}
    paths = [key for key, extra in extras.items() if isinstance(extra, dict) and extra.get("path")]
    text = syntax.parse(written)
    # A path is written by its file name only, so that tables carry no path of the machine.
    full = {key: str(getattr(method.params, key)) for key in paths if key in text.values}
    for key, info in method.Params.model_fields.items():
        if factory.nested_kind(info) and key in text.values:
            value = getattr(method.params, key)
            full[key] = " & ".join(value) if isinstance(value, tuple) else str(value)
    again = factory.build(type(method), replace(text, values={**text.values, **full}))
    for key in method.Params.model_fields:
        found, given = getattr(again.params, key), getattr(method.params, key)
        if found != given:
            return f"'{written}' gives {key} = {found!r}, it was {given!r}"
    return ""


# -- what attacks and defences are given ---------------------------------------------------------------------


@cache
def _faces(role: str, photos: tuple[int, ...]) -> Faces:
    """Return rendered faces: `photos[k]` of the k-th identity of a role."""
    from bench.datasets.synthetic import Synthetic

    dataset = Synthetic()
    identities = [identity for identity in dataset.identities() if identity.role == role]
    named = [
        (image, identity.id)
        for identity, count in zip(identities, photos, strict=False)
        for image in identity.photos[:count]
    ]
    images = dataset.crops([image for image, _ in named]).float() / 255
    return Faces(images, tuple(image for image, _ in named), tuple(identity for _, identity in named))


def sample_faces() -> Faces:
    """Return 5 rendered faces of 3 identities, one of them with a single photo."""
    return _faces("evaluation", (2, 2, 1))


def training_faces() -> Faces:
    """Return 8 rendered faces of 4 other identities."""
    return _faces("training", (2, 2, 2, 2))


def fake_backbones(count: int = 2) -> tuple[FakeBackbone, ...]:
    """Return loaded fake backbones."""
    made = tuple(FakeBackbone(FakeBackbone.Params(seed=seed)) for seed in range(count))
    for backbone in made:
        backbone.load(torch.device("cpu"))
    return made


class _Watched(Sequence[Backbone]):
    """Backbones that remember whether anyone took one."""

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        self.backbones = backbones
        self.used = False

    def __len__(self) -> int:
        return len(self.backbones)

    @overload
    def __getitem__(self, index: int) -> Backbone: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Backbone]: ...
    def __getitem__(self, index: int | slice) -> Backbone | Sequence[Backbone]:
        self.used = True
        return self.backbones[index]


_STREAMS = ("torch's global random state", "NumPy's global random state", "Python's global random state")


def _global_state() -> dict[str, Any]:
    """Return everything global that a method could disturb, by name."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - the global stream is what is watched
    assert isinstance(legacy, dict)
    return {
        _STREAMS[0]: torch.get_rng_state().numpy().tobytes(),
        _STREAMS[1]: (legacy["state"]["key"].tobytes(), legacy["state"]["pos"], legacy["has_gauss"]),
        _STREAMS[2]: random.getstate(),
        "torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
    }


def _watched(call: Callable[[], T]) -> tuple[T, frozenset[str]]:
    """Return what a call returns and the names of the global state it changed."""
    before = _global_state()
    result = call()
    after = _global_state()
    return result, frozenset(name for name, value in before.items() if after[name] != value)


def _check_globals(sheet: _Sheet, first: frozenset[str], second: frozenset[str]) -> None:
    sheet.check("leaves global random state and settings alone", lambda: _disturbed(first, second))


def _disturbed(first: frozenset[str], second: frozenset[str]) -> str:
    """Say what two calls disturbed; the first may import packages, and those may draw random numbers."""
    changed = sorted(first.difference(_STREAMS) | second)
    return f"it changed {', '.join(changed)}" if changed else ""


@dataclass(frozen=True)
class _Observation:
    """What one call returned and what it did besides."""

    result: Any
    advanced: int
    disturbed: frozenset[str]
    input_changed: bool
    backbones_used: bool
    backbones_changed: bool


def _observe(call: Callable[[Faces, Context], Any], faces: Faces, ctx: Context) -> _Observation:
    """Call a method on its own copy of `faces` with the context's backbones, or fake ones, and watch."""
    helpers = tuple(ctx.backbones) or fake_backbones()
    fakes = [helper for helper in helpers if isinstance(helper, FakeBackbone)]
    before = [weight.clone() for fake in fakes for weight in fake.weights]
    watched = _Watched(helpers)
    steps: list[int] = []
    given = faces.with_images(faces.images.clone())
    used = replace(_looking_at(watched, ctx), advance=steps.append)
    result, disturbed = _watched(lambda: call(given, used))
    after = [weight for fake in fakes for weight in fake.weights]
    return _Observation(
        result=result,
        advanced=sum(steps),
        disturbed=disturbed,
        input_changed=not torch.equal(given.images, faces.images),
        backbones_used=watched.used,
        backbones_changed=not all(
            torch.equal(a, b) and b.grad is None for a, b in zip(before, after, strict=True)
        ),
    )


def _looking_at(backbones: _Watched, ctx: Context) -> Context:
    """Return a context, and those of its parts, with other backbones."""
    return replace(ctx, backbones=backbones, parts=tuple(_looking_at(backbones, part) for part in ctx.parts))


def _with_seed(ctx: Context, seed: int) -> Context:
    """Return a context, and those of its parts, as a run of another seed gives it."""
    parts = (_with_seed(part, stream_seed(seed, "part", str(i))) for i, part in enumerate(ctx.parts))
    return replace(ctx, seed=seed, parts=tuple(parts))


def _with_targets(ctx: Context, targets: Faces) -> Context:
    return replace(ctx, targets=targets, parts=tuple(_with_targets(part, targets) for part in ctx.parts))


def _pools(method: Method) -> list[str]:
    """Return what a method and its parts want of backbones."""
    own = method.pool()
    return [*([] if own is None else [own]), *(name for part in method.parts() for name in _pools(part))]


def _bindings(method: Method) -> Iterator[Binding]:
    """Yield cells a method may be requested: each dataset's pool, each group as the trackers."""
    if not _pools(method):
        yield _binding(method, "synthetic", "synthetic", None, "fake")
        return
    for name in sorted(registry.DATASETS.entries(), key=lambda name: (name != "synthetic", name)):
        dataset = registry.DATASETS.load(name)
        pool = registry.POOLS.load(dataset.default_pool)
        for tracker in (group[0] for group in pool.groups):
            yield _binding(method, name, dataset.domain, pool, tracker)


def _binding(
    method: Method, dataset: str, domain: str, default: BackbonePool | None, tracker: str
) -> Binding:
    """Return the binding of a method and its parts, as a plan would resolve it."""
    parts = tuple(_binding(part, dataset, domain, default, tracker) for part in method.parts())
    wanted = method.pool()
    names: tuple[str, ...] = ()
    if wanted is None:
        kind = Attack if isinstance(method, Attack) else Defense
        bound = zip(method.parts(), parts, strict=True)
        names = tuple(sorted({n for part, own in bound if isinstance(part, kind) for n in own.backbones}))
    elif wanted == "auto" and default is not None:
        names = default.helpers(tracker)
    elif wanted in registry.POOLS.entries():
        names = registry.POOLS.load(wanted).helpers(tracker)
    else:
        names = tuple(sorted(set(wanted.split("|"))))
    return Binding(dataset, domain, names, tracker, parts)


def _context(method: Method) -> Context:
    """Return a context with the files the method names for the first cell that it can serve."""
    refusal: UsageError | None = None
    for binding in _bindings(method):
        try:
            return _bound_context(method, binding, SEED)
        except UsageError as error:
            refusal = refusal or error
    raise refusal or UsageError("there is no pool of backbones to check it with")


def _bound_context(method: Method, binding: Binding, seed: int) -> Context:
    bound = zip(method.parts(), binding.parts, strict=True)
    parts = tuple(
        _bound_context(part, own, stream_seed(seed, "part", str(index)))
        for index, (part, own) in enumerate(bound)
    )
    files = method.files(binding)
    return Context(
        seed=seed,
        backbones=_made_for(method, files, binding),
        files=files,
        key=KEY if isinstance(method, Attack) and method.erasable else b"",
        parts=parts,
    )


def _made_for(method: Method, files: Sequence[Path], binding: Binding) -> tuple[Backbone, ...]:
    """Return the backbones an attack's weights were made against, loaded; () where fakes will do."""
    if not files or not isinstance(method, Attack):
        return ()
    backbones = tuple(plugins_factory.backbone(name) for name in binding.backbones)
    for backbone in backbones:
        backbone.load(torch.device("cpu"))
    return backbones


def _check_fit(sheet: _Sheet, method: Attack | Defense, ctx: Context) -> Context | None:
    """Return the context for use: with the state where the method learns, None where it cannot."""
    if not method.requires_fit:
        return ctx

    def fit() -> Mapping[str, Tensor]:
        return cast("Mapping[str, Tensor]", _observe(method.fit, training_faces(), ctx).result)

    state = _check_state(sheet, "fit", fit)
    return None if state is None else replace(ctx, state=state)


def _check_state(
    sheet: _Sheet, verb: str, learn: Callable[[], Mapping[str, Tensor]]
) -> Mapping[str, Tensor] | None:
    """Check that learning twice gives the same named tensors; return them as read back from the store."""
    first = sheet.value(f"{verb} returns named tensors that can be stored", lambda: ("", _stored(learn())))
    if first is None:
        return None
    sheet.check(
        f"{verb} learns the same again from the same seed", lambda: _difference(first, _stored(learn()))
    )
    return first


def _stored(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    payload = safetensors.torch.save({name: value.contiguous().cpu() for name, value in state.items()})
    return safetensors.torch.load(payload)


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Say where two mappings of tensors differ; "" where they are the same bytes."""
    if expected.keys() != found.keys():
        odd = sorted(expected.keys() ^ found.keys())
        return f"'{odd[0]}' is in one result only ({len(odd)} such)"
    for name, value in expected.items():
        if not torch.equal(value, found[name]):
            return f"'{name}' differs by up to {_largest(value, found[name]):.3g}"
    return ""


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max()) if a.shape == b.shape and a.numel() else float("nan")


def _wrong_images(images: object, shape: tuple[int, ...]) -> str:
    """Say what keeps a result from being images of `shape`, float32 in [0, 1]."""
    if not isinstance(images, Tensor):
        return f"{type(images).__name__} is not a tensor"
    if images.dtype != torch.float32 or tuple(images.shape) != shape:
        return f"{images.dtype} {tuple(images.shape)} is not torch.float32 {shape}"
    if not bool(images.isfinite().all()):
        return "values are not finite"
    low, high = (float(bound) for bound in images.detach().aminmax())
    return "" if low >= 0 and high <= 1 else f"values lie in [{low:.6g}, {high:.6g}], not in [0, 1]"


def _check_manners(sheet: _Sheet, method: Method, seen: _Observation, count: int) -> None:
    """Check what a call did besides returning its result."""
    sheet.check(
        "leaves its input as it was", lambda: "it wrote into the images" if seen.input_changed else ""
    )
    sheet.check(
        "leaves the backbones as they were",
        lambda: "it changed weights or left gradients" if seen.backbones_changed else "",
    )
    sheet.check(
        "uses backbones only if pool() asks for them",
        lambda: "it took one, and pool() is None" if seen.backbones_used and not _pools(method) else "",
    )
    sheet.check(
        "reports each image to advance() once",
        lambda: "" if seen.advanced == count else f"it reported {seen.advanced} of {count} images",
    )


# -- attacks -------------------------------------------------------------------------------------------------


def _check_attack(sheet: _Sheet, attack: Attack) -> None:
    sheet.check("declares its threat model", lambda: _wrong_threat(attack))
    sheet.check("declares its scope", lambda: _wrong_choice("scope", attack.scope, ("image", "identity")))
    ctx = sheet.value("finds its files", lambda: ("", _context(attack)))
    if ctx is None:
        return
    if attack.threat.needs_targets:
        ctx = _with_targets(ctx, training_faces())
    ctx = _check_fit(sheet, attack, ctx)
    if ctx is None:
        return
    faces = sample_faces()
    observe = partial(_observe, attack.cloak)
    twice = sheet.value("cloaks without an error", lambda: ("", (observe(faces, ctx), observe(faces, ctx))))
    if twice is None:
        return
    seen, again = twice
    sound = _wrong_edits(faces, seen.result)
    sheet.check("edits images it was given, as float32 3×H×W in [0, 1]", lambda: sound)
    _check_manners(sheet, attack, seen, len(faces))
    _check_globals(sheet, seen.disturbed, again.disturbed)
    if sound:
        return
    bound = attack.threat.max_linf
    if bound is not None:
        sheet.check(
            "posted cloaks keep within the declared max_linf", lambda: _over(faces, seen.result, bound)
        )

    def repeated(rows: Sequence[int]) -> str:
        part = faces.subset(rows)
        edits = observe(part, ctx).result
        return _difference({name: seen.result[name] for name in part.ids if name in seen.result}, edits)

    everyone = range(len(faces))
    sheet.check("same seed, same bytes", lambda: _difference(seen.result, again.result))
    sheet.check("another order gives the same bytes", lambda: repeated(everyone[::-1]))
    alone = f"one {attack.scope} alone gives the same bytes as among others"
    sheet.check(alone, lambda: repeated(_one_scope(attack, faces)))
    if attack.erasable:
        _check_erasing(sheet, attack, faces, seen.result, ctx)


def _check_erasing(
    sheet: _Sheet, attack: Attack, faces: Faces, edits: Mapping[str, Tensor], ctx: Context
) -> None:
    """Check what `erase` makes of the cloaks, as posted, under the right key, another and none."""
    images = [edits.get(name, image) for name, image in zip(faces.ids, faces.images, strict=True)]
    posted = faces.with_images((torch.stack(images) * 255).round() / 255)

    def erased(key: bytes, given: Faces = posted) -> Tensor:
        result: Tensor = _observe(
            lambda cloaks, used: attack.erase(cloaks, key, used), given, replace(ctx, key=b"")
        ).result
        return result

    keys = (KEY, KEY + b", another", b"")
    made = sheet.value("erases without an error", lambda: ("", [erased(key) for key in keys]))
    if made is None:
        return
    shape = tuple(posted.images.shape)
    sound = next(filter(None, (_wrong_images(one, shape) for one in made)), "")
    sheet.check("erases to float32 N×3×H×W in [0, 1]", lambda: sound)
    if sound:
        return
    again = {"erased": made[0]}
    sheet.check("same key, same bytes", lambda: _difference(again, {"erased": erased(KEY)}))
    away = [float((one - faces.images).square().mean()) for one in (*made, posted.images)]
    sheet.check(
        "the right key brings photos nearer to the originals than another key, none, or nothing",
        lambda: "" if away[0] < min(away[1:]) else f"mean squared errors are {away[0]:.3g} and {away[1:]}",
    )


def _one_scope(attack: Attack, faces: Faces) -> list[int]:
    """Return the rows of the second photo, or of the second identity's photos."""
    if attack.scope == "image":
        return [1]
    identity = list(dict.fromkeys(faces.identities))[1]
    return [row for row, name in enumerate(faces.identities) if name == identity]


def _wrong_threat(attack: Attack) -> str:
    threat: Any = attack.threat
    if not isinstance(threat, ThreatModel):
        return f"threat is {threat!r}, not a bench.contracts.ThreatModel"
    if threat.surrogates and not _pools(attack):
        return f"it needs {threat.surrogates} surrogates, and pool() is None"
    return "" if threat.constraint else "constraint is empty; say the visibility budget"


def _wrong_choice(what: str, value: str, valid: tuple[str, ...]) -> str:
    return "" if value in valid else f"{what} is {value!r}. Valid: {', '.join(valid)}"


def _wrong_edits(faces: Faces, edits: object) -> str:
    if not isinstance(edits, Mapping):
        return f"cloak returned {type(edits).__name__}, not a mapping image id → image"
    for name, image in edits.items():
        if name not in faces.ids:
            return f"it edited '{name}', which it was not given"
        if wrong := _wrong_images(image, tuple(faces.images.shape[1:])):
            return f"'{name}': {wrong}"
    return ""


def _over(faces: Faces, edits: Mapping[str, Tensor], bound: float) -> str:
    """Say which cloak, rounded to 8 bits as it is posted, changes a pixel by more than `bound` grey levels."""
    original = dict(zip(faces.ids, (faces.images * 255).round(), strict=True))
    change = {name: float(((new * 255).round() - original[name]).abs().max()) for name, new in edits.items()}
    over = {name: levels for name, levels in change.items() if levels > bound + LINF_TOLERANCE}
    if not over:
        return ""
    worst = max(over, key=lambda name: over[name])
    most = f"'{worst}' changes a pixel by {over[worst]:.0f} of {bound:g} grey levels"
    return f"{len(over)} of {len(edits)} do not: {most}"


# -- defences ------------------------------------------------------------------------------------------------


def _check_defense_declarations(sheet: _Sheet, defense: Defense) -> Context | None:
    """Check what a defence says about itself; return its context."""
    binding = next(_bindings(defense))

    def told() -> str:
        try:
            trained, identities = defense.trained_on(binding), defense.training_identities(binding)
        except UsageError:
            return ""  # no weights for this cell: the plan refuses it
        named = isinstance(trained, tuple) and all(isinstance(name, str) for name in trained)
        return "" if named and isinstance(identities, str) and identities else f"{trained!r}, {identities!r}"

    sheet.check("says on which attacks and whose photos it was trained", told)
    return sheet.value("finds its files", lambda: ("", _context(defense)))


def _check_purifier(sheet: _Sheet, defense: Purifier) -> None:
    ctx = _check_defense_declarations(sheet, defense)
    ctx = None if ctx is None else _check_fit(sheet, defense, ctx)
    if ctx is None:
        return
    faces = sample_faces()

    def observe(part: Faces, seed: int = SEED) -> _Observation:
        with torch.inference_mode():
            return _observe(defense.purify, part, _with_seed(ctx, seed))

    twice = sheet.value("purifies without an error", lambda: ("", (observe(faces), observe(faces))))
    if twice is None:
        return
    seen, again = twice
    sound = _wrong_images(seen.result, tuple(faces.images.shape))
    sheet.check("returns one image for each, float32 N×3×H×W in [0, 1]", lambda: sound)
    _check_manners(sheet, defense, seen, len(faces))
    _check_globals(sheet, seen.disturbed, again.disturbed)
    if sound:
        return

    def repeated(rows: Sequence[int], seed: int = SEED) -> str:
        part = faces.subset(rows)
        purified = dict(zip(part.ids, observe(part, seed).result, strict=True))
        return _difference({name: seen.result[faces.ids.index(name)] for name in part.ids}, purified)

    everyone = range(len(faces))
    sheet.check(
        "same seed, same bytes", lambda: _difference({"images": seen.result}, {"images": again.result})
    )
    if defense.deterministic:
        sheet.check("another seed gives the same bytes, as declared", lambda: repeated(everyone, SEED + 1))
    sheet.check("another order gives the same bytes", lambda: repeated(everyone[::-1]))
    sheet.check("one image alone gives the same bytes as among others", lambda: repeated([1]))
    sheet.check(
        "different images stay different",
        lambda: "two photos became the same" if torch.equal(seen.result[0], seen.result[2]) else "",
    )
    if defense.differentiable:
        sheet.check("gradients pass through it, as declared", lambda: _wrong_purifier_gradient(defense, ctx))


def _wrong_purifier_gradient(defense: Purifier, ctx: Context) -> str:
    faces = sample_faces().subset([0, 2])
    images = faces.images.clone().requires_grad_()
    purified = defense.purify(faces.with_images(images), replace(ctx, backbones=fake_backbones()))
    return _wrong_gradient(purified, images)


def _wrong_gradient(outcome: Tensor, images: Tensor) -> str:
    """Say what is wrong with the gradient of a random projection of `outcome` for each image."""
    weights = torch.randn(outcome.shape, generator=torch_generator(SEED, "projection"))
    (gradient,) = torch.autograd.grad((outcome * weights).sum(), images)
    if not bool(gradient.isfinite().all()):
        return "the gradient is not finite"
    blind = (gradient.flatten(1).abs().amax(1) == 0).nonzero().flatten().tolist()
    return f"the gradient of image {blind[0]} is zero everywhere" if blind else ""


def _check_hardening(sheet: _Sheet, defense: Hardening) -> None:
    ctx = _check_defense_declarations(sheet, defense)
    if ctx is None:
        return
    tracker = FakeBackbone(FakeBackbone.Params(seed=SEED))
    tracker.load(torch.device("cpu"))
    faces = training_faces()
    seen: list[_Observation] = []

    def train() -> Mapping[str, Tensor]:
        seen.append(_observe(partial(defense.train, tracker), faces, ctx))
        return cast("Mapping[str, Tensor]", seen[-1].result)

    before = tracker.embed_batch(sample_faces().images)
    state = _check_state(sheet, "train", train)
    if state is None:
        return
    sheet.check("leaves its input as it was", lambda: "it wrote into it" if seen[0].input_changed else "")
    _check_globals(sheet, seen[0].disturbed, seen[-1].disturbed)
    hardened = sheet.value("hardens without an error", lambda: ("", defense.harden(tracker, state)))
    if hardened is None:
        return
    sheet.check("returns a backbone", lambda: _wrong_type("the result", hardened, Backbone))
    sheet.check("the backbone embeds as its card says", lambda: _wrong_vectors(hardened, hardened.embed))
    sheet.check("hardens the same again", lambda: _wrong_hardening(defense, tracker, state, hardened))
    sheet.check(
        "leaves the tracker's backbone as it was",
        lambda: "" if torch.equal(before, tracker.embed_batch(sample_faces().images)) else "it changed",
    )


def _wrong_hardening(
    defense: Hardening, tracker: Backbone, state: Mapping[str, Tensor], hardened: Backbone
) -> str:
    images = sample_faces().images
    first = hardened.embed_batch(images)
    again = defense.harden(tracker, state).embed_batch(images)
    return _difference({"embedding": first}, {"embedding": again})


# -- backbones -----------------------------------------------------------------------------------------------


def _check_backbone(sheet: _Sheet, backbone: Backbone) -> None:
    sheet.check("its card is complete", lambda: _wrong_card(backbone))
    device = torch.device("cpu")
    faces = sample_faces()
    images = faces.images.clone()
    loaded = sheet.value("loads its weights", lambda: ("", _watched(lambda: backbone.load(device))))
    if loaded is None:
        return
    embedded = sheet.value("embeds without an error", lambda: ("", _watched(lambda: backbone.embed(images))))
    if embedded is None:
        return
    vectors = embedded[0].detach()
    sheet.check(
        "embeds to finite float32 N×D as its card says", lambda: _wrong_vectors(backbone, backbone.embed)
    )
    sheet.check("embed_batch does too", lambda: _wrong_vectors(backbone, backbone.embed_batch))
    sheet.check(
        "leaves its input as it was",
        lambda: "" if torch.equal(images, faces.images) else "it wrote into the images",
    )
    _check_globals(sheet, loaded[1], embedded[1])
    sheet.check(
        f"embed_batch agrees with embed to {EMBED_TOLERANCE:g}",
        lambda: _too_far(backbone.embed_batch(faces.images), vectors, EMBED_TOLERANCE),
    )
    sheet.check(
        "an image's embedding does not depend on its place in the batch",
        lambda: _too_far(backbone.embed(faces.images.flip(0)).detach().flip(0), vectors, ROW_TOLERANCE),
    )
    sheet.check(
        "an image's embedding does not depend on the others",
        lambda: _too_far(backbone.embed(faces.images[1:2]).detach(), vectors[1:2], ROW_TOLERANCE),
    )
    sheet.check(
        "different faces have different embeddings",
        lambda: "two of them are the same" if torch.equal(vectors[0], vectors[2]) else "",
    )
    sheet.check("loading it again gives the same embeddings", lambda: _wrong_reload(backbone, vectors))
    if backbone.differentiable:
        sheet.check("gradients reach the images, as declared", lambda: _wrong_backbone_gradient(backbone))


def _wrong_card(backbone: Backbone) -> str:
    card = getattr(backbone, "card", None)
    if not isinstance(card, BackboneCard):
        return f"card is {card!r}, not a bench.contracts.BackboneCard"
    empty = [
        key for key in ("name", "licence", "training_data", "domain") if not str(getattr(card, key)).strip()
    ]
    return (
        f"{', '.join(empty)} of its card: empty; write 'unknown' where the source does not say"
        if empty
        else ""
    )


def _wrong_vectors(backbone: Backbone, embed: Callable[[Tensor], Tensor]) -> str:
    faces = sample_faces()
    vectors = embed(faces.images)
    expected = (len(faces), backbone.card.embedding_dim)
    if tuple(vectors.shape) != expected or vectors.dtype != torch.float32:
        return f"{vectors.dtype} {tuple(vectors.shape)} is not torch.float32 {expected}"
    return "" if bool(vectors.isfinite().all()) else "values are not finite"


def _too_far(found: Tensor, expected: Tensor, tolerance: float) -> str:
    relative = _largest(found, expected) / max(float(expected.abs().max()), 1e-12)
    return "" if relative <= tolerance else f"relative difference {relative:.3g}, allowed {tolerance:g}"


def _wrong_reload(backbone: Backbone, vectors: Tensor) -> str:
    again = type(backbone)(backbone.params)
    again.load(torch.device("cpu"))
    return _too_far(again.embed(sample_faces().images).detach(), vectors, ROW_TOLERANCE)


def _wrong_backbone_gradient(backbone: Backbone) -> str:
    images = sample_faces().images[:2].clone().requires_grad_()
    return _wrong_gradient(backbone.embed(images), images)


# -- datasets ------------------------------------------------------------------------------------------------


def _check_dataset(sheet: _Sheet, dataset: Dataset) -> None:
    identities = sheet.value("lists its identities", lambda: ("", dataset.identities()))
    if identities is None:
        return
    sheet.check("identities are unique and sorted by id", lambda: _wrong_identities(identities))
    sheet.check("image ids are unique, and everyone has some", lambda: _wrong_photos(identities))
    sheet.check(
        "at least two identities are evaluated; roles are valid", lambda: _wrong_roles(identities, dataset)
    )
    fresh = type(dataset)(dataset.params)
    sheet.check(
        "lists the same identities again", lambda: "" if fresh.identities() == identities else "they differ"
    )
    sheet.check("its fingerprint is a hex digest and stays", lambda: _wrong_fingerprint(dataset, fresh))
    ids = [image for identity in identities[:3] for image in identity.photos[:2]]
    twice = sheet.value(
        "gives crops",
        lambda: ("", (_watched(lambda: dataset.crops(ids)), _watched(lambda: fresh.crops(ids)))),
    )
    if twice is None:
        return
    (crops, first), (again, second) = twice
    expected = (len(ids), 3, CROP_SIZE, CROP_SIZE)
    sheet.check(
        "crops are uint8 N×3×112×112",
        lambda: (
            ""
            if crops.dtype == torch.uint8 and tuple(crops.shape) == expected
            else f"{crops.dtype} {tuple(crops.shape)} is not torch.uint8 {expected}"
        ),
    )
    _check_globals(sheet, first, second)
    sheet.check("crops are the same again", lambda: _difference({"crops": crops}, {"crops": again}))
    sheet.check("crops do not depend on order", lambda: _wrong_crops(dataset, ids, ids[::-1], crops))
    sheet.check("a crop alone is the same", lambda: _wrong_crops(dataset, ids, ids[1:2], crops))
    sheet.check("no images give no crops", lambda: _wrong_empty(dataset))


def _wrong_identities(identities: Sequence[Identity]) -> str:
    ids = [identity.id for identity in identities]
    if len(set(ids)) < len(ids):
        return f"'{max(ids, key=ids.count)}' is listed twice"
    return "" if ids == sorted(ids) else "they are not sorted"


def _wrong_photos(identities: Sequence[Identity]) -> str:
    bare = [identity.id for identity in identities if not identity.photos]
    if bare:
        return f"'{bare[0]}' has no photos"
    photos = [image for identity in identities for image in identity.photos]
    if len(set(photos)) == len(photos):
        return ""
    seen: set[str] = set()
    double = next(image for image in photos if image in seen or seen.add(image))  # type: ignore[func-returns-value]
    return f"image '{double}' is listed twice"


def _wrong_roles(identities: Sequence[Identity], dataset: Dataset) -> str:
    odd = [identity for identity in identities if identity.role not in ("evaluation", "training")]
    if odd:
        return _wrong_choice(f"role of '{odd[0].id}'", odd[0].role, ("evaluation", "training"))
    evaluated = sum(identity.role == "evaluation" for identity in identities)
    if dataset.impostors_only:  # photos without identities, for training and calibration
        return "it has impostors only, and some are evaluated" if evaluated else ""
    return "" if evaluated >= 2 else f"{evaluated} identities are evaluated"


def _wrong_fingerprint(dataset: Dataset, fresh: Dataset) -> str:
    first, second = dataset.fingerprint(), fresh.fingerprint()
    if not (isinstance(first, str) and _HEX.fullmatch(first)):
        return f"{first!r} is not a hex digest"
    return "" if first == second else f"{first} became {second}"


def _wrong_crops(dataset: Dataset, ids: Sequence[str], requested: Sequence[str], crops: Tensor) -> str:
    expected = {image: crops[ids.index(image)] for image in requested}
    return _difference(expected, dict(zip(requested, dataset.crops(requested), strict=True)))


def _wrong_empty(dataset: Dataset) -> str:
    shape = tuple(dataset.crops([]).shape)
    return "" if shape == (0, 3, CROP_SIZE, CROP_SIZE) else f"their shape is {shape}"


# -- protocols -----------------------------------------------------------------------------------------------


def _identities(counts: Sequence[int], role: Any = "evaluation") -> list[Identity]:
    return [
        Identity(f"{role}-{k:02d}", tuple(f"{role}-{k:02d}/{j:02d}" for j in range(count)), role)
        for k, count in enumerate(counts)
    ]


def _check_protocol(sheet: _Sheet, protocol: Protocol) -> None:
    sheet.check("offers heads", lambda: "" if protocol.heads else "heads is empty")
    sheet.check("says what it wants embedded", lambda: _wrong_views(protocol))
    identities = _identities((12, 20, 14, 13, 12, 16, 12))
    others = _identities((9, 9), "training")
    split = sheet.value("splits without an error", lambda: ("", protocol.split([*identities, *others], SEED)))
    if split is None:
        return
    fresh = type(protocol)(protocol.params)
    sheet.check(
        "deals every evaluated identity's own photos, and nobody else's",
        lambda: _wrong_owners(split, identities),
    )
    sheet.check("gallery and probes are disjoint", lambda: _wrong_overlap(split))
    sheet.check(
        "everyone is protected in one fold, with cloaked photos of the gallery", lambda: _wrong_folds(split)
    )
    sheet.check(
        "the same seed deals the same, in any order of identities",
        lambda: "" if fresh.split([*identities, *others][::-1], SEED) == split else "the splits differ",
    )
    more = [
        *identities,
        Identity("someone-else", tuple(f"someone-else/{j:02d}" for j in range(15)), "evaluation"),
    ]
    sheet.check("another identity moves nobody's photos", lambda: _moved(split, protocol.split(more, SEED)))
    for head in protocol.heads:
        if head not in protocol.end_to_end_heads:  # those train a network, which takes a run
            _check_head(sheet, protocol, head, split)


def _wrong_views(protocol: Protocol) -> str:
    if not protocol.views:
        return "views is empty"
    for name, view in protocol.views.items():
        if view.state != "natural" and view.photos not in ("gallery", "probes"):
            return f"view '{name}' is {view.state}, and nobody cloaks {view.photos} photos"
    if unknown_views := set(protocol.restored.values()) - set(protocol.views):
        return f"restored names the view '{min(unknown_views)}', which is not there"
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


def _moved(split: Split, more: Split) -> str:
    for name in split.gallery:
        if (split.gallery[name], split.probes[name]) != (more.gallery[name], more.probes[name]):
            return f"photos of '{name}' were dealt anew"
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


def _trial(protocol: Protocol, split: Split, head: str) -> Trial:
    target_assignment = {image: f"target-{i % 5}" for i, image in enumerate(sum(split.cloaked.values(), ()))}
    return Trial(split, head, protocol.impostors(_training_identities(), 0), target_assignment)


def _mirrored(views: Mapping[str, Embedded]) -> dict[str, Embedded]:
    return {
        name: Embedded(one.vectors[::-1].copy(), one.ids[::-1], one.identities[::-1])
        for name, one in views.items()
    }


def _check_head(sheet: _Sheet, protocol: Protocol, head: str, split: Split) -> None:
    trial = _trial(protocol, split, head)
    views = _seen(protocol, split)

    def decide(seen: Mapping[str, Embedded]) -> tuple[Decided, frozenset[str]]:
        return _watched(lambda: protocol.decide(seen, trial))

    twice = sheet.value(
        f"head {head}: decides without an error", lambda: ("", (decide(views), decide(_mirrored(views))))
    )
    if twice is None:
        return
    (decided, first), (again, second) = twice

    def schema() -> str:
        decisions.to_bytes(decided)
        return ""

    def order() -> str:
        columns = [*decisions.KEY, "predicted"]
        tables = (decisions.to_table(results.rows).to_pandas() for results in (decided, again))
        one, other = (table[columns].astype(object).fillna("").to_numpy() for table in tables)
        return "" if np.array_equal(one, other) else "other identities are recognised"

    sheet.check(f"head {head}: rows have the documented schema and facts", schema)
    sheet.check(f"head {head}: decides every identity's probes", lambda: _wrong_rows(decided, split))
    sheet.check(
        f"head {head}: leaves global random state and settings alone", lambda: _disturbed(first, second)
    )
    sheet.check(f"head {head}: answers do not depend on the order of embeddings", order)


def _wrong_rows(decided: Decided, split: Split) -> str:
    rows = decided.rows
    if impostors := set(rows["identity"]) - set(split.gallery):
        return f"rows are of identities that are not evaluated, first '{min(impostors)}'"
    conditions = rows["condition"] if "condition" in rows else [""] * len(rows)
    silent = [
        name for name, fact in decided.conditions.items() if not fact.reason and name not in set(conditions)
    ]
    if silent:
        return f"condition '{silent[0]}' has neither rows nor a reason"
    for condition, chosen in rows.groupby(np.array(conditions, dtype=object)):
        lacking = set(split.gallery) - set(chosen[chosen["protected"]]["identity"])
        if lacking:
            return f"'{min(lacking)}' is never protected under condition '{condition}'"
    return ""
