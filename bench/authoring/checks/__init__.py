"""What every plugin of a kind must keep to, checked on one instance in seconds.

`bench check` and `bench.authoring.parametrize_with_checks` run the same checks. Each returns a finding and never
raises: an exception of the plugin is a finding too. Attacks and defences see a few rendered faces and fake backbones.

One file a kind; `suite` runs them; `given` and `observation` are what they share.
"""

from collections.abc import Iterator

from bench.authoring.checks import (
    attack,
    backbone,
    dataset,
    declarations,
    defense_of_others,
    hardening,
    protocol,
    purifier,
    substitution,
)
from bench.authoring.checks.given import fake_backbones, sample_faces, training_faces
from bench.authoring.checks.suite import Check, Finding, Suite
from bench.contracts import (
    Attack,
    Backbone,
    Dataset,
    Defense,
    Hardening,
    Method,
    Protocol,
    Purifier,
    Substitution,
)  # fmt: skip

__all__ = ["Finding", "fake_backbones", "run_checks", "sample_faces", "suite_of", "training_faces"]


def run_checks(method: Method) -> tuple[Finding, ...]:
    """Check one plugin, under the parameters it was made with, against the contract of its kind.

    Of trainers only the declarations are checked.
    """
    return suite_of(method).findings()


def suite_of(method: Method) -> Suite:
    """Return the checks that apply to a plugin as it declares itself; none has run yet."""
    return Suite((*declarations.checks(method), *_of_its_kind(method)))


def _of_its_kind(method: Method) -> Iterator[Check]:
    if isinstance(method, Attack):
        yield from attack.checks(method)
    elif isinstance(method, Purifier):
        yield from purifier.checks(method)
    elif isinstance(method, Substitution):
        yield from substitution.checks(method)
    elif isinstance(method, Hardening):
        yield from hardening.checks(method)
    elif isinstance(method, Backbone):
        yield from backbone.checks(method)
    elif isinstance(method, Dataset):
        yield from dataset.checks(method)
    elif isinstance(method, Protocol):
        yield from protocol.checks(method)
    elif isinstance(method, Defense):
        yield from defense_of_others.checks(method)
