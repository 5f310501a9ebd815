"""The table of an ablation: every level's rates, and whether they differ from the base's.

What lives here: rows from finished runs. What must not: means and tests (`leaderboard.means`, `stats.significance`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.ablation.suite import MeasuredLevel, Plan, SuiteOutcome
from bench.analysis.claims import LACKING
from bench.analysis.comparison_groups import EVERY
from bench.analysis.results import Results
from bench.analysis.training_seeds import TrainingSeeds
from bench.leaderboard import means as averages
from bench.leaderboard.means import Mean
from bench.randomness import numpy_generator
from bench.stats.random_seeds import LEAST_SEEDS, paired_difference_over_seeds
from bench.stats.significance import ALPHA, holm, paired_difference, resamples_for
from bench.stats.unlike_spread import unlike_spread

_TAKEN = (
    "adapted",
    "adapted_partial",
    "asr",
    "asr_low",
    "asr_high",
    "asr_reason",
    "undefended_asr",
    "baseline_error",
    "defended_baseline_error",
    "normal_accuracy",
    "normal_accuracy_low",
    "normal_accuracy_high",
    "normal_accuracy_reason",
    "undefended_accuracy",
    "not_worse",
    "natural_psnr",
    "purified_psnr",
    "purified_reason",
    "cloak_psnr",
    "n_identities",
)

COLUMNS: Mapping[str, str] = {
    "factor": "what varies",
    "level": "its level",
    "is_base": "True where the level is the base itself",
    "attack": f"canonical name, or {EVERY} the level's",
    "backbone": f"the tracker's backbone, or {EVERY} the level's",
    "head": averages.COLUMNS["head"],
    "condition": averages.COLUMNS["condition"],
    "access": averages.COLUMNS["access"],
    **{name: averages.COLUMNS[name] for name in _TAKEN},
    "difference": "asr - asr of the base, over the same identities",
    "difference_low": "lower end of its 95 % interval",
    "difference_high": "upper end",
    "p": f"sign-flip test over identities; of {LEAST_SEEDS} training seeds or more t test, identities and "
    "training seeds both random effects",
    "p_holm": "after Holm over the factor's levels, for this attack, tracker and head",
    "p_reason": "why there is no p",
    "caution": f"what p and difference are to be read with: fewer than {LEAST_SEEDS} training seeds, or unlike spread "
    "near 0 or 1",
    "defense": "canonical name",
    "parameters": "trained parameters of the defence's network",
    "trainer": "canonical; empty: nothing was trained for this level",
    "trainer_attacks": "attacks trained against",
    "trainer_backbones": "surrogates and feature extractors of the training",
    "trainer_seed": "of the trainings, which rates are averaged over, joined by |",
    "training_seeds": "number of trainings",
    "weights_sha256": "of the trained weights, likewise",
    "dataset": "canonical name",
    "split": "whom: evaluation, or development, training identities on which choices are made",
    "identities": "identities requested; empty: all",
    "split_seed": "of splits, folds and of the choice of identities",
    "protocol": "canonical name",
    "run": "digest of the run's specification",
}
"""Every column with its meaning, in order."""

_Key = tuple[str, str, str, str, str]
"""Attack, tracker, head, condition and access of a row."""


def table(requested: Plan, outcome: SuiteOutcome) -> pd.DataFrame:
    """Return one row a factor, level, attack, tracker, head, condition and access; and their means.

    Args:
        requested: the plan.
        outcome: of its execution.

    Raises:
        DataError: a run is not finished or damaged.
    """
    measured = _Measured(tuple(Results.of(folder) for folder in outcome.folders))
    base = measured.of(requested.base)
    rows = []
    for place in requested.places:
        facts = _facts(requested, place, measured.results[place.matrix].facts.run)
        reasons = [outcome.untrained.get(training.digest) for training in place.trainings]
        reason = next(filter(None, reasons), None)
        if reason is not None:
            rows += [{**facts, **row, "asr_reason": reason} for row in _unmeasured(requested, place)]
            continue
        for key, mean in measured.of(place).items():
            taken = {name: mean.columns[name] for name in _TAKEN}
            against = _against_base(requested, place, key, mean, base.get(key))
            rows.append({**facts, **_where(key), **taken, **against})
    whole = ("n_identities", "parameters", "training_seeds")
    found = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(whole, "Int64"))
    return found.assign(p_holm=_corrected(found))


@dataclass
class _Measured:
    """The means of a plan's runs, computed once each."""

    results: tuple[Results, ...]
    _means: dict[tuple[int, tuple[str, ...]], dict[_Key, Mean]] = field(default_factory=dict)

    def of(self, place: MeasuredLevel) -> dict[_Key, Mean]:
        """Return a level's means over its trainings, on each tracker and, where there are several, on all."""
        wanted = (place.matrix, place.defenses)
        if wanted not in self._means:
            self._means[wanted] = dict(self._all(self.results[place.matrix], place.defenses))
        return self._means[wanted]

    @staticmethod
    def _all(results: Results, defenses: tuple[str, ...]) -> Iterator[tuple[_Key, Mean]]:
        trackers = results.values("backbone")
        choices = [(name, (name,)) for name in trackers] + ([(EVERY, trackers)] if len(trackers) > 1 else [])
        for name, chosen in choices:
            for mean in averages.over_trainings(results, defenses, chosen):
                yield (mean.against, name, mean.head, mean.condition, mean.access), mean


def _where(key: _Key) -> dict[str, str]:
    return dict(zip(("attack", "backbone", "head", "condition", "access"), key, strict=True))


def _facts(requested: Plan, place: MeasuredLevel, run: str) -> dict[str, Any]:
    spec = requested.matrices[place.matrix].resolved.spec
    facts: dict[str, Any] = {
        "factor": place.level.factor,
        "level": place.level.name,
        "is_base": _is_base(requested, place),
        "defense": "|".join(place.defenses),
        "dataset": spec.dataset,
        "split": spec.split,
        "identities": spec.identities,
        "split_seed": spec.split_seed,
        "protocol": spec.protocol,
        "run": run,
    }
    if not place.trainings:
        return facts
    first, cards = place.trainings[0], [training.card() or {} for training in place.trainings]
    digests = [str(card["sha256"]) for card in cards if "sha256" in card]
    return facts | {
        "parameters": cards[0].get("parameters"),
        "trainer": first.trainer,
        "trainer_attacks": " & ".join(first.attacks),
        "trainer_backbones": "|".join(first.backbones),
        "trainer_seed": "|".join(str(training.seed) for training in place.trainings),
        "training_seeds": len(place.trainings),
        "weights_sha256": "|".join(digests) or None,
    }


def _is_base(requested: Plan, place: MeasuredLevel) -> bool:
    return (place.matrix, place.defenses) == (requested.base.matrix, requested.base.defenses)


def _unmeasured(requested: Plan, place: MeasuredLevel) -> Iterator[dict[str, str]]:
    spec = requested.matrices[place.matrix].resolved.spec
    for attack in spec.attacks:
        for backbone in spec.backbones:
            for head in spec.heads:
                yield {"attack": attack, "backbone": backbone, "head": head}


def _against_base(
    requested: Plan, place: MeasuredLevel, key: _Key, mean: Mean, base: Mean | None
) -> dict[str, Any]:
    """Return the columns of the test against the base, over the same identities."""
    if _is_base(requested, place):
        return {"p_reason": "the row is the base itself"}
    if base is None:
        return {"p_reason": "the base has no such cell"}
    if reason := _unlike(mean, base):
        return {"p_reason": reason}
    level, trained = place.level, _training_seeds(requested, place)
    rng = numpy_generator(level.settings.split_seed, "ablation", level.factor, level.name, *key)
    peers = sum(other.level.factor == level.factor for other in requested.places)
    found = paired_difference(mean.rates, base.rates, rng=rng, resamples=resamples_for(peers))
    spread = unlike_spread(mean.rates, base.rates) if found.p is not None and found.p <= ALPHA else ""
    if trained.enough and found.p is not None:
        found, spread = paired_difference_over_seeds(*_by_training(mean, base)), ""
    return {
        "difference": found.difference.value,
        "difference_low": found.difference.low,
        "difference_high": found.difference.high,
        "p": found.p,
        "p_reason": found.reason,
        "caution": "; ".join(filter(None, (trained.caution(), spread))),
    }


def _training_seeds(requested: Plan, place: MeasuredLevel) -> TrainingSeeds:
    """Return the trainings behind a level and the base, those of them that are trained.

    A level that has the base's own weights is no claim about them, however few they are.
    """
    if place.trainings == requested.base.trainings and len(place.trainings) < LEAST_SEEDS:
        return TrainingSeeds({})
    sides = {f"the level '{place.level.name}'": place, "the base": requested.base}
    return TrainingSeeds({name: len(side.trainings) for name, side in sides.items() if side.trainings})


def _by_training(mean: Mean, base: Mean) -> "tuple[Sequence[pd.Series[float]], Sequence[pd.Series[float]]]":
    """Return both sides' rates under each training both have; what is not trained is the same under each."""
    sides = mean.by_training, base.by_training
    count = min(len(side) for side in sides if len(side) > 1)
    first, second = (side[:count] if len(side) > 1 else side * count for side in sides)
    return first, second


def _unlike(mean: Mean, base: Mean) -> str:
    """Return why two means are not of one question to the same identities, or why these are not independent."""
    if any(mean.columns[axis] != base.columns[axis] for axis in ("attacks", "backbones")):
        return "the base's mean is over other attacks or trackers"
    if not len(mean.rates) or not len(base.rates):
        return LACKING
    if not mean.rates.sort_index().index.equals(base.rates.sort_index().index):
        return "the base was measured on other identities"
    return mean.dependence or base.dependence


def _corrected(found: pd.DataFrame) -> "pd.Series[float]":
    corrected = pd.Series(float("nan"), index=found.index)
    known = found[found["p"].notna()]
    for _, rows in known.groupby(["factor", "attack", "backbone", "head", "condition", "access"], sort=False):
        corrected.update(pd.Series(holm({index: float(p) for index, p in rows["p"].items()}), dtype=float))
    return corrected
