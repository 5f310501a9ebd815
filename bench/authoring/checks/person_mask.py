"""What an attack that learns masks must keep to: one mask an identity, laid on each photo by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from torch import Tensor

from bench.authoring.checks.observation import DRAW, Learning, difference, observe, wrong_images
from bench.authoring.checks.suite import Check
from bench.contracts import Context, Faces, PersonMask

MASKS = "lays a mask that came back from the store on any photo, as float32 N×3×H×W in [0, 1]"
TAKES_OFF = "takes masks off to float32 N×3×H×W in [0, 1]"


class _Masking:
    """An attack at work on one identity's photos, and on a mask of another identity.

    Args:
        attack: that learns masks.
        faces: photos of several identities.
        ctx: of the attack.
        edits: what its `cloak` made of the photos.
    """

    def __init__(
        self,
        attack: PersonMask,
        faces: Faces,
        ctx: Callable[[], Context],
        edits: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        self.attack, self._ctx, self._edits = attack, ctx, edits
        first, other = list(dict.fromkeys(faces.identities))[:2]
        self.own, self.others = (_photos_of(faces, name) for name in (first, other))
        self.learning = Learning("learn", lambda: observe(attack.learn, self.own, ctx()))

    @cached_property
    def another(self) -> Mapping[str, Tensor]:
        """The mask of the other identity, as it comes back from the store."""
        return Learning("learn", lambda: observe(self.attack.learn, self.others, self._ctx())).state

    def apply(self, faces: Faces) -> Tensor:
        found: Tensor = observe(
            lambda given, ctx: self.attack.apply(given, self.learning.state, ctx), faces, self._ctx()
        ).result
        return found

    def unsound(self) -> str:
        """Say what is wrong with the mask on photos that it was learnt from, and on others."""
        shown = ((each, self.apply(each)) for each in (self.own, self.others))
        return next(filter(None, (wrong_images(found, tuple(of.images.shape)) for of, found in shown)), "")

    def not_the_cloak(self) -> str:
        made = self._edits()
        found = dict(zip(self.own.ids, self.apply(self.own), strict=True))
        return difference({name: made[name] for name in self.own.ids if name in made}, found)

    def not_alone(self) -> str:
        last = self.own.subset([len(self.own) - 1])
        return difference({last.ids[0]: self.apply(self.own)[-1]}, {last.ids[0]: self.apply(last)[0]})

    # -- taking off --------------------------------------------------------------------------------------

    @cached_property
    def posted(self) -> Faces:
        return self.own.with_images((self.apply(self.own) * 255).round() / 255)

    def taken_off(self, mask: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = observe(
            lambda given, ctx: self.attack.take_off(given, mask, ctx), self.posted, self._ctx()
        ).result
        return found

    def takes_off(self) -> str:
        shape = tuple(self.posted.images.shape)
        tried = (self.taken_off(mask) for mask in (self.learning.state, self.another))
        return next(filter(None, (wrong_images(found, shape) for found in tried)), "")

    def no_nearer(self) -> str:
        tried = (self.taken_off(self.learning.state), self.taken_off(self.another), self.posted.images)
        away = [float((found - self.own.images).square().mean()) for found in tried]
        return "" if away[0] < min(away[1:]) else f"mean squared errors are {away[0]:.3g} and {away[1:]}"


def checks(
    attack: PersonMask,
    faces: Faces,
    ctx: Callable[[], Context],
    edits: Callable[[], Mapping[str, Tensor]],
) -> Iterator[Check]:
    """Yield the checks of masks; those of `take_off` where the attack declares that it is erasable.

    Args:
        attack: that learns masks.
        faces: photos of several identities.
        ctx: gives the attack's context.
        edits: gives what its `cloak` made of `faces`.
    """
    work = _Masking(attack, faces, ctx, edits)
    yield from work.learning.checks()
    yield Check(
        MASKS,
        work.unsound,
        work.learning.learns,
        fix='return (faces.images + mask["mask"].to(faces.images)).clamp(0, 1) from apply()',
    )
    yield Check(
        "cloak is learn and apply",
        work.not_the_cloak,
        MASKS,
        fix="leave cloak() as PersonMask has it, and " + DRAW,
    )
    yield Check(
        "lays a mask on each photo as if it were alone",
        work.not_alone,
        MASKS,
        fix="let apply() depend on the photo and the mask alone, without ctx.generator and without a mean over photos",
    )
    if attack.erasable:
        yield Check(
            TAKES_OFF, work.takes_off, MASKS, fix="return images.clamp(0, 1), one for each that was given"
        )
        yield Check(
            "an identity's own mask brings its photos nearer to the originals than another's, or nothing",
            work.no_nearer,
            TAKES_OFF,
            fix="undo in take_off() what apply() did with this very mask",
        )


def _photos_of(faces: Faces, identity: str) -> Faces:
    return faces.subset([row for row, name in enumerate(faces.identities) if name == identity])
