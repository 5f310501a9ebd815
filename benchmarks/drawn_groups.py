"""Groups of drawn faces, whose traits are known: a worked example for `bench table groups`.

    python -m benchmarks.drawn_groups skin synthetic:identities=60,photos=6 --out groups.csv

Of drawn faces alone: nobody is ever put into a group by a photo.
"""

import argparse
import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bench.datasets._face_traits import Traits, draw_traits
from bench.plugins import factory
from bench.randomness import numpy_generator

TRAITS: Mapping[str, Callable[[Traits], str]] = {
    "skin": lambda traits: "lighter" if float(np.mean(traits.skin)) > 150 else "darker",
    "glasses": lambda traits: "glasses" if traits.glasses else "none",
    "beard": lambda traits: str(traits.beard),
}
"""Trait → the group of an identity."""


def groups(trait: str, dataset: str) -> dict[str, str]:
    """Return identity id → group of the evaluated identities of a drawn dataset."""
    drawn = factory.dataset(dataset)
    world = int(drawn.params.model_dump()["world"])
    return {
        identity.id: TRAITS[trait](draw_traits(numpy_generator(world, "synthetic identity", identity.id)))
        for identity in drawn.identities()
        if identity.role == "evaluation"
    }


def main() -> None:
    """Write the groups."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trait", choices=TRAITS)
    parser.add_argument("dataset", help="as of the run, e.g. synthetic:identities=60,photos=6")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    found = groups(asked.trait, asked.dataset)
    with asked.out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("identity", "group"), *found.items()])
    print(f"{asked.out}: {len(found)} identities, groups {', '.join(sorted(set(found.values())))}")


if __name__ == "__main__":
    main()
