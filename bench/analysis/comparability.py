"""Which rows may stand in one table: those of the same benchmark, protocol, photos, split and measures."""

from dataclasses import dataclass

from bench.errors import UsageError
from bench.run.folder import RunFacts


@dataclass(frozen=True)
class FieldDifference:
    """A field in which two runs differ so that their rows must not be compared.

    Attributes:
        field: what differs, in words.
        first: its value in the first run.
        second: its value in the second.
    """

    field: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.field}: {self.first} and {self.second}"


def incomparable_fields(first: RunFacts, second: RunFacts) -> list[FieldDifference]:
    """Return every field that keeps the rows of two runs from being compared; empty where nothing does.

    An LPIPS trunk counts only where both runs have one: without it a run has no LPIPS to compare.
    """
    same_run = first.run == second.run  # the run's digest covers the photos
    pairs = {
        "benchmark version": (first.benchmark_version, second.benchmark_version),
        "protocol": (first.spec.protocol, second.spec.protocol),
        "dataset": (first.spec.dataset, second.spec.dataset),
        "fingerprint of the photos": ("", "")
        if same_run
        else (first.fingerprint or "not recorded", second.fingerprint or "none recorded"),
        "split": (first.spec.split, second.spec.split),
        "split seed": (str(first.spec.split_seed), str(second.spec.split_seed)),
        "number of identities": (
            str(first.spec.identities or "all"),
            str(second.spec.identities or "all"),
        ),
    }
    if first.given_targets != second.given_targets:
        pairs["who imitates whom"] = (
            first.given_targets or "attacks draw",
            second.given_targets or "attacks draw",
        )
    if first.task and second.task:
        pairs["task"] = (first.task, second.task)
    if first.lpips_trunk and second.lpips_trunk:
        pairs["LPIPS trunk"] = (first.lpips_trunk, second.lpips_trunk)
    return [FieldDifference(field, *values) for field, values in pairs.items() if values[0] != values[1]]


def require_comparable(first: RunFacts, second: RunFacts) -> None:
    """Refuse to set rows of two runs beside each other where they were not measured alike.

    Raises:
        UsageError: names every field that differs, with both values.
    """
    found = incomparable_fields(first, second)
    if found:
        raise UsageError(
            f"runs {first.run} and {second.run} cannot be compared; they differ in "
            f"{'; '.join(map(str, found))}. Make one of them again with the other's values."
        )
