"""The curriculum of ErasableMask: look like somebody, then fool backbones, then be erasable (arXiv 2412.17038).

The abstract says that curriculum learning mitigates "optimization conflicts between adversarial attack and
perturbation erasion". The three stages and what moves them are ours: a stage ends when its measured progress
reaches a goal, or when its share of the steps is used up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

MEMORY = 0.95
"""Weight of the past in the running means."""

APPEARANCE_GOAL = 0.3
"""Cosine of a mask to the way from the photo to the target's looks at which the first stage ends."""

LIKENESS_GOAL = -0.1
"""Loss of `likeness` at which the second stage ends: the mask is nearer to its target than to its wearer."""

LATEST_END = {0: 0.1, 1: 0.4}
"""Stage → share of all steps at which it ends, whatever it has reached."""

RAMP = 0.2
"""Share of all steps over which the weight of erasing rises."""


class Stage(IntEnum):
    """What the networks learn first, next and last."""

    ATTRIBUTE = 0
    ADVERSARIAL = 1
    RESTORATION = 2


@dataclass(frozen=True)
class Weights:
    """Weights of the losses in one step, as shares of their full weights."""

    attribute: float
    adversarial: float
    restoration: float


EVERYTHING_AT_ONCE = Weights(1.0, 1.0, 1.0)
"""What a training without curriculum uses from the first step to the last."""


@dataclass(frozen=True)
class Curriculum:
    """Where a training stands.

    Attributes:
        stage: the present stage.
        since: step at which it began.
        appearance: running mean of the masks' appearance (cosine), None before the first step.
        likeness: running mean of the adversarial loss.
    """

    stage: Stage = Stage.ATTRIBUTE
    since: int = 0
    appearance: float | None = None
    likeness: float | None = None

    def after(self, step: int, steps: int, appearance: float, likeness: float) -> Curriculum:
        """Return the curriculum after a step in which these were measured.

        Args:
            step: the step's number, from 0.
            steps: of the whole training.
            appearance: mean cosine of the batch's masks to their targets' looks.
            likeness: mean adversarial loss of the batch.
        """
        seen = replace(
            self,
            appearance=_running(self.appearance, appearance),
            likeness=_running(self.likeness, likeness),
        )
        if self.stage is Stage.RESTORATION or not (
            seen._goal_reached() or step + 1 >= LATEST_END[self.stage] * steps
        ):
            return seen
        return replace(seen, stage=Stage(self.stage + 1), since=step + 1)

    def _goal_reached(self) -> bool:
        if self.stage is Stage.ATTRIBUTE:
            return self.appearance is not None and self.appearance >= APPEARANCE_GOAL
        return self.likeness is not None and self.likeness <= LIKENESS_GOAL

    def weights(self, step: int, steps: int) -> Weights:
        """Return the weights of this step: what comes later starts small, what came first stays a little."""
        if self.stage is Stage.ATTRIBUTE:
            return Weights(1.0, 0.25, 0.1)
        if self.stage is Stage.ADVERSARIAL:
            return Weights(0.25, 1.0, 0.1)
        risen = min(1.0, (step - self.since) / max(1.0, RAMP * steps))
        return Weights(0.25, 1.0, 0.1 + 0.9 * risen)


def _running(mean: float | None, value: float) -> float:
    return value if mean is None else MEMORY * mean + (1 - MEMORY) * value
