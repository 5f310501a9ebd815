"""What an attack must keep to: its bounds, its own photos, and cloaks that depend on seed and scope alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.analysis.warning_rules import LINF_TOLERANCE
from bench.authoring.checks import person_mask
from bench.authoring.checks.declarations import wrong_choice
from bench.authoring.checks.given import (
    FILES,
    FIND_FILES,
    KEY,
    context,
    pools,
    sample_faces,
    training_faces,
    with_hardened,
    with_targets,
)
from bench.authoring.checks.observation import (
    DRAW,
    GLOBALS,
    Learning,
    Observation,
    difference,
    disturbed,
    manners,
    observe,
    wrong_images,
)
from bench.authoring.checks.suite import Check, attempt
from bench.contracts import Attack, Context, Faces, PersonMask, ThreatModel

CLOAKS = "cloaks without an error"
SOUND = "edits images it was given, as float32 3×H×W in [0, 1]"
ERASES = "erases without an error"
_RETURN = "return {name: image.clamp(0, 1) for name, image in zip(faces.ids, cloaks)}"
_EACH_ALONE = (
    'let a cloak depend on its own photo (scope "identity": on the identity\'s photos) and on '
    'ctx.generator("noise", image_id): no mean over the batch, no batch norm in training mode'
)
ERASED = "erases to float32 N×3×H×W in [0, 1]"


class _Cloaking:
    """An attack at work on the sample faces, each step done once."""

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self.faces = sample_faces()
        self.fit = Learning("fit", lambda: observe(attack.fit, training_faces(), self.unfitted))

    @cached_property
    def unfitted(self) -> Context:
        ctx, targets = context(self.attack), training_faces()
        if self.attack.edits_others:  # a run gives it the one identity that is to be protected
            own = [row for row, name in enumerate(targets.identities) if name == targets.identities[0]]
            targets = targets.subset(own)
        return with_targets(ctx, targets) if self.attack.threat.needs_targets else ctx

    @cached_property
    def ctx(self) -> Context:
        ready = with_hardened(self.attack, self.unfitted)
        return replace(ready, state=self.fit.state) if self.attack.requires_fit else ready

    @cached_property
    def twice(self) -> tuple[Observation, Observation]:
        return self.cloak(self.faces), self.cloak(self.faces)

    @property
    def edits(self) -> Mapping[str, Tensor]:
        result: Mapping[str, Tensor] = self.twice[0].result
        return result

    def cloak(self, faces: Faces) -> Observation:
        return observe(self.attack.cloak, faces, self.ctx)

    def repeated(self, rows: Sequence[int]) -> str:
        part = self.faces.subset(rows)
        edits = self.cloak(part).result
        return difference({name: self.edits[name] for name in part.ids if name in self.edits}, edits)


def checks(attack: Attack) -> Iterator[Check]:
    """Yield the checks of an attack; those of `erase` where it declares that it can."""
    work = _Cloaking(attack)
    learnt = work.fit.learns if attack.requires_fit else FILES
    yield Check(
        "declares its threat model",
        lambda: _wrong_threat(attack),
        fix='threat = ThreatModel(goal="untargeted", surrogates=1, constraint="L∞ at most 8 grey levels", max_linf=8), '
        'and with surrogates def pool(self): return "auto"',
    )
    yield Check(
        "declares its scope",
        lambda: wrong_choice("scope", attack.scope, ("image", "identity")),
        fix='scope = "image" in the class; "identity" where all photos of an identity are cloaked together',
    )
    yield Check(FILES, attempt(lambda: work.unfitted), fix=FIND_FILES)
    if attack.requires_fit:
        yield from work.fit.checks()
    yield Check(CLOAKS, attempt(lambda: work.twice), learnt, fix=f"def cloak(self, faces, ctx): … {_RETURN}")
    yield Check(SOUND, lambda: _wrong_edits(work.faces, work.edits), CLOAKS, fix=_RETURN)
    yield from manners(attack, lambda: work.twice[0], len(work.faces), CLOAKS)
    yield Check(GLOBALS, lambda: disturbed(*(seen.disturbed for seen in work.twice)), CLOAKS, fix=DRAW)
    bound = attack.threat.max_linf if isinstance(attack.threat, ThreatModel) else None
    if bound is not None:
        yield Check(
            "posted cloaks keep within the declared max_linf",
            lambda: _over(work.faces, work.edits, bound),
            SOUND,
            fix=f"(image + change.clamp(-{bound:g} / 255, {bound:g} / 255)).clamp(0, 1), or a larger max_linf",
        )
    everyone = range(len(work.faces))
    yield Check(
        "same seed, same bytes", lambda: difference(work.edits, work.twice[1].result), SOUND, fix=DRAW
    )
    yield Check(
        "another order gives the same bytes", lambda: work.repeated(everyone[::-1]), SOUND, fix=_EACH_ALONE
    )
    yield Check(
        f"one {attack.scope} alone gives the same bytes as among others",
        lambda: work.repeated(_one_scope(attack, work.faces)),
        SOUND,
        fix=_EACH_ALONE,
    )
    if isinstance(attack, PersonMask):
        yield from person_mask.checks(attack, work.faces, lambda: work.ctx, lambda: work.edits)
    elif attack.erasable:
        yield from _erasing(attack, work)


# -- erasing -----------------------------------------------------------------------------------------------


class _Erasing:
    """What `erase` makes of the cloaks, as posted, under the right key, another and none."""

    def __init__(self, attack: Attack, work: _Cloaking) -> None:
        self.attack, self.work = attack, work

    @cached_property
    def posted(self) -> Faces:
        faces, edits = self.work.faces, self.work.edits
        images = [edits.get(name, image) for name, image in zip(faces.ids, faces.images, strict=True)]
        return faces.with_images((torch.stack(images) * 255).round() / 255)

    @cached_property
    def erased(self) -> list[Tensor]:
        return [self.erase(key) for key in (KEY, KEY + b", another", b"")]

    def erase(self, key: bytes) -> Tensor:
        ctx = replace(self.work.ctx, key=b"")
        seen = observe(lambda cloaks, used: self.attack.erase(cloaks, key, used), self.posted, ctx)
        result: Tensor = seen.result
        return result

    def unsound(self) -> str:
        shape = tuple(self.posted.images.shape)
        return next(filter(None, (wrong_images(one, shape) for one in self.erased)), "")

    def no_nearer(self) -> str:
        originals = self.work.faces.images
        away = [float((one - originals).square().mean()) for one in (*self.erased, self.posted.images)]
        return "" if away[0] < min(away[1:]) else f"mean squared errors are {away[0]:.3g} and {away[1:]}"


def _erasing(attack: Attack, work: _Cloaking) -> Iterator[Check]:
    erasing = _Erasing(attack, work)
    yield Check(
        ERASES,
        attempt(lambda: erasing.erased),
        SOUND,
        fix='def erase(self, faces, key, ctx): … return images, under any key, b"" included',
    )
    yield Check(ERASED, erasing.unsound, ERASES, fix="return images.clamp(0, 1), one for each that was given")
    yield Check(
        "same key, same bytes",
        lambda: difference({"erased": erasing.erased[0]}, {"erased": erasing.erase(KEY)}),
        ERASED,
        fix="derive everything that erase() draws from its key",
    )
    yield Check(
        "the right key brings photos nearer to the originals than another key, none, or nothing",
        erasing.no_nearer,
        ERASED,
        fix="make the cloak from ctx.key, and undo it in erase() by the key given there",
    )


# -- what is wrong -----------------------------------------------------------------------------------------


def _wrong_threat(attack: Attack) -> str:
    threat: Any = attack.threat
    if not isinstance(threat, ThreatModel):
        return f"threat is {threat!r}, not a bench.contracts.ThreatModel"
    if threat.surrogates and not pools(attack):
        return f"it needs {threat.surrogates} surrogates, and pool() is None"
    return "" if threat.constraint else "constraint is empty; say the visibility budget"


def _one_scope(attack: Attack, faces: Faces) -> list[int]:
    """Return the rows of the second photo, or of the second identity's photos."""
    if attack.scope == "image":
        return [1]
    identity = list(dict.fromkeys(faces.identities))[1]
    return [row for row, name in enumerate(faces.identities) if name == identity]


def _wrong_edits(faces: Faces, edits: object) -> str:
    if not isinstance(edits, Mapping):
        return f"cloak returned {type(edits).__name__}, not a mapping image id → image"
    for name, image in edits.items():
        if name not in faces.ids:
            return f"it edited '{name}', which it was not given"
        if wrong := wrong_images(image, tuple(faces.images.shape[1:])):
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
