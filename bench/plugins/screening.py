"""A detector of cloaks before a defence: its purifier acts on the photos that the detector flags, and on no others."""

from __future__ import annotations

from collections.abc import Mapping

from bench.contracts import Defense, Detector
from bench.errors import UsageError
from bench.plugins import factory, registry, syntax

PURIFIER = "purifier"
"""The parameter of a `bench.contracts.Detector` that names what flagged photos are given to."""


def first_detector() -> str:
    """Return the name of the first registered detector.

    Raises:
        UsageError: none is registered.
    """
    for name in registry.DEFENSES.entries():
        if issubclass(registry.DEFENSES.load(name), Detector):
            return name
    raise UsageError("no defence is registered that detects cloaks; name one by its file, FILE.py:Class.")


def values_of(detector: str) -> Mapping[str, str]:
    """Return the parameters of a detector's text, checked: it is one, and leaves its purifier open.

    Raises:
        UsageError: it is no detector, or names a purifier.
    """
    made, values = factory.defense(detector), dict(syntax.parse(detector).values)
    if not isinstance(made, Detector):
        raise UsageError(f"'{detector}' detects no cloaks; `bench list defenses` has those that do.")
    if PURIFIER in values:
        raise UsageError(
            f"'{detector}' names a purifier, and here the purifier is each cell's defence. Leave {PURIFIER}= out."
        )
    return values


def why_not(defense: Defense) -> str:
    """Say why no detector can stand before a defence, as a sentence, or return ""."""
    if len(defense.purifiers) > 1:
        return (
            f"a detector says of a photo whether one purifier acts on it, and the defence keeps "
            f"{len(defense.purifiers)} views of each. Use one of the views as a defence of its own."
        )
    if any(isinstance(each, Detector) for each in defense.purifiers):
        return "the defence detects cloaks itself. Use it with defended=all."
    return ""


def screened(defense: Defense, detector: str) -> Defense:
    """Return a defence that purifies what a detector flags; the very defence where it purifies nothing.

    Args:
        defense: of one purifier at most (`why_not`), and perhaps a hardening, which stays as it is.
        detector: its text, without a purifier.

    Raises:
        UsageError: see `values_of`.
    """
    acting = [each for each in defense.purifiers if each.changes_images]
    if not acting:
        return defense
    values = {**values_of(detector), PURIFIER: factory.text_of(acting[0])}
    written = ",".join(f"{key}=[{value}]" for key, value in values.items())
    text = f"{syntax.parse(detector).name}:{written}"
    if defense.hardening is not None:
        text = f"{text} + {factory.text_of(defense.hardening)}"
    return factory.defense(text)
