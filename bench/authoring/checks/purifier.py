"""What a purifier must keep to: one image for each, whatever the order and the company."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from bench.authoring.checks.declarations import TRAINED, TRAINED_ON, wrong_training
from bench.authoring.checks.given import (
    FILES,
    FIND_FILES,
    SEED,
    context,
    fake_backbones,
    sample_faces,
    training_faces,
    with_seed,
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
    wrong_gradient,
    wrong_images,
)
from bench.authoring.checks.suite import Check, attempt
from bench.contracts import Context, Faces, Purifier

PURIFIES = "purifies without an error"
_RETURN = "return images.clamp(0, 1), one for each of faces.images, in their order"
_EACH_ALONE = (
    'let an image depend on the one given and on ctx.generator("noise", image_id): no mean over the batch, no '
    "batch norm in training mode"
)
SOUND = "returns one image for each, float32 N×3×H×W in [0, 1]"


class _Purifying:
    """A purifier at work on the sample faces, each step done once."""

    def __init__(self, defense: Purifier) -> None:
        self.defense = defense
        self.faces = sample_faces()
        self.fit = Learning("fit", lambda: observe(defense.fit, training_faces(), self.unfitted))

    @cached_property
    def unfitted(self) -> Context:
        return context(self.defense)

    @cached_property
    def ctx(self) -> Context:
        return replace(self.unfitted, state=self.fit.state) if self.defense.requires_fit else self.unfitted

    @cached_property
    def twice(self) -> tuple[Observation, Observation]:
        return self.purify(self.faces), self.purify(self.faces)

    def purify(self, faces: Faces, seed: int = SEED) -> Observation:
        with torch.inference_mode():
            return observe(self.defense.purify, faces, with_seed(self.ctx, seed))

    def repeated(self, rows: Sequence[int], seed: int = SEED) -> str:
        part, before = self.faces.subset(rows), self.twice[0].result
        purified = dict(zip(part.ids, self.purify(part, seed).result, strict=True))
        return difference({name: before[self.faces.ids.index(name)] for name in part.ids}, purified)

    def unsound(self) -> str:
        return wrong_images(self.twice[0].result, tuple(self.faces.images.shape))

    def unrepeated(self) -> str:
        first, second = (seen.result for seen in self.twice)
        return difference({"images": first}, {"images": second})

    def merged(self) -> str:
        images = self.twice[0].result
        return "two photos became the same" if torch.equal(images[0], images[2]) else ""


def checks(defense: Purifier) -> Iterator[Check]:
    """Yield the checks of a purifier."""
    work = _Purifying(defense)
    yield Check(TRAINED, lambda: wrong_training(defense), fix=TRAINED_ON)
    yield Check(FILES, attempt(lambda: work.unfitted), fix=FIND_FILES)
    if defense.requires_fit:
        yield from work.fit.checks()
    learnt = work.fit.learns if defense.requires_fit else FILES
    yield Check(
        PURIFIES, attempt(lambda: work.twice), learnt, fix=f"def purify(self, faces, ctx): … {_RETURN}"
    )
    yield Check(SOUND, work.unsound, PURIFIES, fix=_RETURN)
    yield from manners(defense, lambda: work.twice[0], len(work.faces), PURIFIES)
    yield Check(GLOBALS, lambda: disturbed(*(seen.disturbed for seen in work.twice)), PURIFIES, fix=DRAW)
    everyone = range(len(work.faces))
    yield Check("same seed, same bytes", work.unrepeated, SOUND, fix=DRAW)
    if defense.deterministic:
        yield Check(
            "another seed gives the same bytes, as declared",
            lambda: work.repeated(everyone, SEED + 1),
            SOUND,
            fix="deterministic = False in the class, or draw nothing",
        )
    yield Check(
        "another order gives the same bytes", lambda: work.repeated(everyone[::-1]), SOUND, fix=_EACH_ALONE
    )
    yield Check(
        "one image alone gives the same bytes as among others",
        lambda: work.repeated([1]),
        SOUND,
        fix=_EACH_ALONE,
    )
    yield Check(
        "different images stay different", work.merged, SOUND, fix="return the image that was given, purified"
    )
    if defense.differentiable:
        yield Check(
            "gradients pass through it, as declared",
            lambda: _wrong_gradient(defense, work.ctx),
            SOUND,
            fix="differentiable = False in the class, or torch operations from faces.images to the result: no NumPy, "
            "no .detach(), no torch.no_grad()",
        )


def _wrong_gradient(defense: Purifier, ctx: Context) -> str:
    faces = sample_faces().subset([0, 2])
    images = faces.images.clone().requires_grad_()
    purified = defense.purify(faces.with_images(images), replace(ctx, backbones=fake_backbones()))
    return wrong_gradient(purified, images)
