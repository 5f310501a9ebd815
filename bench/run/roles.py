"""Who is evaluated and whom methods learn from, under either split of a run.

Under ``development`` some training identities stand in for the evaluated ones, so that parameters, checkpoints and
variants are chosen on nobody whom a result is of. Nothing of the run learns from them, imitates them or sets a
threshold by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.contracts import Dataset, Identity, TrainingIdentities
from bench.errors import UsageError
from bench.randomness import stream_seed
from bench.run.spec import SplitName

SEED = 0
"""Of the draw of development identities. It is no option: two runs must not disagree on whom choices are made."""

TRAINING = "training"
EVALUATION = "evaluation"
REMAINING = "training without development"
"""Ends of what says on whose photos something was trained: ``lfw/training``; the last is what a run on the development
split learns from itself."""


@dataclass(frozen=True)
class Roles:
    """The identities of a dataset by what a run does with them; none is in both.

    Attributes:
        evaluated: whose probes are asked for, of role ``evaluation``.
        others: whom methods learn from and imitate, and who gives impostors and distractors; of role ``training``.
    """

    evaluated: tuple[Identity, ...]
    others: tuple[Identity, ...]


def roles(dataset: Dataset, split: SplitName) -> Roles:
    """Return who is evaluated under a split, and who is left to learn from.

    Raises:
        UsageError: the dataset has too few training identities with enough photos for the development split.
    """
    from bench.run import calls  # loads torch, and who reads a finished run needs none

    evaluated, training = (tuple(calls.identities(dataset, role)) for role in ("evaluation", "training"))
    if split == "evaluation":
        return Roles(evaluated, training)
    able = _with_enough_photos(dataset, evaluated, training)
    count = round(dataset.development.share * len(able))
    chosen = _drawn(dataset, able)[: min(count, len(evaluated) or count)]
    if len(chosen) < 2:
        raise UsageError(
            f"'{dataset.name}' has {len(training)} training identities, {len(able)} of them with enough photos, which "
            "makes too few for split development: it evaluates some of them, 2 at least, and leaves others to learn "
            "from. Use a dataset with more training identities, or split evaluation."
        )
    most = max((len(identity.photos) for identity in evaluated), default=None)
    standing_in = {identity.id: replace(identity, photos=identity.photos[:most]) for identity in chosen}
    return Roles(
        tuple(replace(standing_in[one.id], role="evaluation") for one in training if one.id in standing_in),
        tuple(one for one in training if one.id not in standing_in),
    )


def identities_of(dataset: Dataset, role: str) -> tuple[Identity, ...]:
    """Return the identities that one of `TRAINING`, `EVALUATION` and `REMAINING` names.

    Raises:
        UsageError: it is `REMAINING`, and the dataset has no development split.
    """
    if role == REMAINING:
        return roles(dataset, "development").others
    return tuple(identity for identity in dataset.identities() if identity.role == role)


def for_training(dataset: Dataset, name: str, *, with_development: bool = False) -> TrainingIdentities:
    """Return whom weights are trained on that runs will use: nobody of the development split, where there is one.

    So choices can be made on that split with the weights as with anything else.

    Args:
        dataset: whose identities.
        name: its canonical name.
        with_development: learn from the development split's identities too.
    """
    if not with_development:
        try:
            return TrainingIdentities(f"{name}/{REMAINING}", roles(dataset, "development").others)
        except UsageError:  # it has no such split
            pass
    return TrainingIdentities(f"{name}/{TRAINING}", identities_of(dataset, TRAINING))


def learnt_from(dataset: str, split: SplitName) -> str:
    """Return what says on whose photos a run of a dataset trains what it trains itself.

    >>> learnt_from("lfw", "evaluation"), learnt_from("lfw", "development")
    ('lfw/training', 'lfw/training without development')
    """
    return f"{dataset}/{TRAINING if split == 'evaluation' else REMAINING}"


def _with_enough_photos(
    dataset: Dataset, evaluated: Sequence[Identity], training: Sequence[Identity]
) -> list[Identity]:
    """Return the training identities that can stand in: with as many photos as the rule says, or as evaluated ones."""
    fewest = min((len(identity.photos) for identity in evaluated), default=dataset.development.least_photos)
    least = min(dataset.development.least_photos, fewest)
    return [identity for identity in training if len(identity.photos) >= least]


def _drawn(dataset: Dataset, identities: Sequence[Identity]) -> list[Identity]:
    """Return identities in a drawn order; an identity's place depends on its own id."""
    return sorted(identities, key=lambda one: stream_seed(SEED, "development", dataset.name, one.id))
