"""A tracker that keeps each gallery photo in several views: as it is, blurred, denoised, purified, under one label.

A cloak that survives one purifier is gone after another, and the tracker need not know which: with the head ``nn`` the
best view of an identity's photos decides. What is known and what is ours: docs/methods/views.md.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from pydantic import Field

from bench.contracts import Defense, Method, MethodParams, Purifier
from bench.errors import UsageError
from bench.plugins.factory import canonical, purifiers


class Views(Defense):
    """Puts what each of several purifiers makes of a photo into the gallery, under the photo's identity.

    Probes stay as they are. A view is the very image that the purifier makes as a defence of its own; so two that draw
    at random draw the same numbers for a photo.
    """

    name: ClassVar[str] = "views"

    class Params(MethodParams):
        """Parameters of `Views`."""

        members: tuple[str, ...] = Field(
            ("none", "gaussian:sigma=2"),
            description="purifiers, each of which gives one view of a photo, at least two, joined by ' & '; none: the "
            "photo as it is",
            json_schema_extra={"method": "defenses"},
        )

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        inside = f"views:members=[{' & '.join(self.params.members)}]"
        if len(self.params.members) < 2:
            raise UsageError(
                f"{inside} is less than two views of a photo; name two purifiers or more, e.g. "
                "views:members=[none & gaussian:sigma=2]."
            )
        self._members = purifiers(self.params.members, inside)
        name, count = Counter(map(canonical, self._members)).most_common(1)[0]
        if count > 1:
            raise UsageError(f"{inside} has '{name}' {count} times; leave the others out.")
        self.deterministic = all(member.deterministic for member in self._members)
        self.differentiable = all(member.differentiable for member in self._members)

    def parts(self) -> tuple[Method, ...]:
        """Return the purifiers, in order."""
        return self._members

    @property
    def purifiers(self) -> tuple[Purifier, ...]:
        """All of them: the tracker keeps what each makes of a photo."""
        return self._members
