"""What trainers share: which people they train on and which they keep out."""

import numpy as np

from bench.contracts import Dataset, Identity
from bench.errors import UsageError
from bench.methods import canonical


def deal_training_identities(
    dataset: Dataset, holdout: int, rng: np.random.Generator
) -> tuple[list[Identity], list[Identity]]:
    """Return held-out and trained-on people, dealt by `rng`; only people of role ``training``.

    Raises:
        UsageError: fewer than two people are left to train on.
    """
    people = [person for person in dataset.identities() if person.role == "training"]
    if len(people) < holdout + 2:
        raise UsageError(
            f"'{canonical(dataset)}' has {len(people)} training identities; holdout={holdout} leaves too few "
            "to train on. Lower holdout or take another dataset."
        )
    shuffled = [people[i] for i in rng.permutation(len(people))]
    return shuffled[:holdout], shuffled[holdout:]
