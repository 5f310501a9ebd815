"""Defences made of others: one after another (``jpeg:quality=75 + puface``), and what any method of parts needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bench.contracts import Binding, Context, Defense, Faces, Method, MethodParams, Purifier
from bench.errors import MethodError, UsageError

if TYPE_CHECKING:
    from torch import Tensor


def part_context(ctx: Context, index: int) -> Context:
    """Return the context of one part, with its share of what the whole has learnt (see `fit_part`).

    Raises:
        MethodError: the context has none: whoever calls a method of parts must fill `Context.parts`.
    """
    if index >= len(ctx.parts):
        raise MethodError(f"no context for part {index + 1}: Context.parts has {len(ctx.parts)}")
    prefix = f"{index}."
    state = {name.removeprefix(prefix): value for name, value in ctx.state.items() if name.startswith(prefix)}
    return replace(ctx.parts[index], state=state) if state else ctx.parts[index]


def fit_part(part: Defense, faces: Faces, ctx: Context, index: int) -> Mapping[str, Tensor]:
    """Return what one part learns, under names that `part_context` finds again; {} where it does not learn."""
    if not part.requires_fit:
        return {}
    learnt = part.fit(faces, part_context(ctx, index))
    return {f"{index}.{name}": value for name, value in learnt.items()}


def purify_part(part: Purifier, faces: Faces, ctx: Context, index: int) -> Tensor:
    """Return what one part makes of images.

    Raises:
        MethodError: it returned something else than as many images.
    """
    import torch

    images = part.purify(faces, part_context(ctx, index))
    if images.shape != faces.images.shape or images.dtype != torch.float32:
        raise MethodError(
            f"defence '{part.name}' returned {images.dtype} {tuple(images.shape)}, "
            f"not torch.float32 {tuple(faces.images.shape)}"
        )
    return images


class OfPurifiers(Purifier):
    """Base of purifiers that are made of others, and declare of themselves what these do.

    It is deterministic where its parts are and putting them together draws no random numbers, which the class states.

    Args:
        params: its own parameters.
        members: what it is made of.
    """

    def __init__(self, params: MethodParams | None, members: Sequence[Purifier]) -> None:
        super().__init__(params)
        self._members = tuple(members)
        self.requires_fit = any(member.requires_fit for member in members)
        self.deterministic = type(self).deterministic and all(member.deterministic for member in members)
        self.differentiable = all(member.differentiable for member in members)

    def parts(self) -> tuple[Method, ...]:
        """Return the purifiers it is made of, in order."""
        return self._members

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Return the attacks that any part saw in training, canonical, sorted."""
        bound = zip(self._members, binding.parts, strict=True)
        return tuple(sorted({name for member, own in bound for name in member.trained_on(own)}))


class Composition(OfPurifiers):
    """Applies purifiers one after another, as the tracker would who has them all.

    Images are rounded to 8 bits in between, as each would leave them, except while gradients are recorded.
    """

    name: ClassVar[str] = "composition"
    joins: ClassVar[str] = " + "

    class Params(MethodParams):
        """Parameters of `Composition`."""

        members: tuple[str, ...] = Field(
            (),
            description="purifiers in the order they are applied, at least two",
            json_schema_extra={"method": "defenses"},
        )

    params: Params

    def __init__(self, params: Params | None = None, members: Sequence[Purifier] = ()) -> None:
        super().__init__(params, members)
        texts = self.params.members
        inside = self.joins.join(texts)
        if len(texts) < 2:
            raise UsageError(
                f"'{inside}' has {len(texts)} members; write two purifiers or more, joined by ' + '."
            )
        if len(members) != len(texts):
            raise ValueError(f"'{inside}' has {len(texts)} members, {len(members)} methods were given")
        for text, member in zip(texts, self._members, strict=True):
            if not member.changes_images:
                raise UsageError(f"'{text}' in '{inside}' changes no image; leave it out.")

    def fit(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Let each member that learns do so on the photos as those before it leave them."""
        import torch

        state: dict[str, Tensor] = {}
        for index, member in enumerate(self._members):
            state |= fit_part(member, faces, replace(ctx, state=state), index)
            if any(later.requires_fit for later in self._members[index + 1 :]):
                with torch.no_grad():
                    images = purify_part(member, faces, replace(ctx, state=state), index)
                faces = faces.with_images(_rounded(images))
        return state

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return what the last member makes of what the others made, N×3×H×W in [0, 1].

        Raises:
            MethodError: a member returned something else than as many images.
        """
        last = len(self._members) - 1
        for index, member in enumerate(self._members):
            images = purify_part(member, faces, ctx, index)
            faces = faces.with_images(images if index == last else _rounded(images))
        ctx.advance(len(faces))
        return faces.images


def _rounded(images: Tensor) -> Tensor:
    """Return images as 8 bits would hold them; as they are where a gradient passes, which rounding would end."""
    import torch

    if torch.is_grad_enabled() and images.requires_grad:
        return images
    return images.clamp(0, 1).mul(255).round().div(255)
