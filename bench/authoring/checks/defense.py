"""What a defence, a purifier or a hardening, says of its own training."""

from __future__ import annotations

from collections.abc import Iterator

from bench.authoring.checks.contexts import bindings
from bench.authoring.checks.suite import Check
from bench.contracts import Defense
from bench.errors import UsageError


def checks(defense: Defense) -> Iterator[Check]:
    """Yield the checks of what a defence declares."""
    yield Check("says on which attacks and whose photos it was trained", lambda: _wrong_training(defense))


def _wrong_training(defense: Defense) -> str:
    binding = next(bindings(defense))
    try:
        trained, identities = defense.trained_on(binding), defense.training_identities(binding)
    except UsageError:
        return ""  # no weights for this cell: the plan refuses it
    named = isinstance(trained, tuple) and all(isinstance(name, str) for name in trained)
    return "" if named and isinstance(identities, str) and identities else f"{trained!r}, {identities!r}"
