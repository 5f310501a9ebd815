"""Learning that must be repeatable: `fit` of attacks and purifiers, `train` of hardenings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from torch import Tensor

from bench.authoring.checks.contexts import FILES
from bench.authoring.checks.observation import Observation
from bench.authoring.checks.suite import Check, attempt
from bench.authoring.checks.tensors import difference, stored


class Learning:
    """Something learnt twice from the same faces and seed.

    Args:
        verb: ``fit`` or ``train``.
        learn: calls the method, watched; its result is named tensors.
    """

    def __init__(self, verb: str, learn: Callable[[], Observation]) -> None:
        self.verb = verb
        self._learn = learn

    @property
    def learns(self) -> str:
        """The name of the check that something is learnt at all."""
        return f"{self.verb} returns named tensors that can be stored"

    @cached_property
    def first(self) -> tuple[Observation, Mapping[str, Tensor]]:
        """What was observed the first time, and what was learnt, as read back from the store."""
        seen = self._learn()
        return seen, stored(seen.result)

    @cached_property
    def second(self) -> tuple[Observation, Mapping[str, Tensor]]:
        """The same the second time."""
        seen = self._learn()
        return seen, stored(seen.result)

    @property
    def state(self) -> Mapping[str, Tensor]:
        """What was learnt."""
        return self.first[1]

    def checks(self) -> Iterator[Check]:
        """Yield the checks of learning."""
        yield Check(self.learns, attempt(lambda: self.first), (FILES,))
        yield Check(
            f"{self.verb} learns the same again from the same seed",
            lambda: difference(self.state, self.second[1]),
            (self.learns,),
        )
