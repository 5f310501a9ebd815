"""Rankings of methods within a comparison group, and which are not significantly different (DESIGN 7).

What lives here: ranks with their range, tie groups as compact letters, critical differences. What must not:
which cells make a comparison group, and tables (their callers). A group is one dataset, protocol and head with a fixed
set of opponents and backbones; the numbers here are each identity's mean rate over those.
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar

import numpy as np
import pandas as pd

from bench.stats.intervals import Floats
from bench.stats.significance import (
    ALPHA,
    Friedman,
    PairedDifference,
    friedman,
    holm,
    paired_differences,
    resamples_for,
)

Pair = tuple[str, str]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Ranked:
    """One method's place in a comparison group.

    Attributes:
        method: its name.
        mean: mean rate over identities.
        mean_rank: mean over identities of its rank among the methods, 1 the best, ties shared (Friedman).
        rank_low: 1 + the number of methods significantly better.
        rank_high: number of methods − the number significantly worse.
        tie_group: compact letters; two methods share a letter exactly where they are not significantly different.
    """

    method: str
    mean: float
    mean_rank: float
    rank_low: int
    rank_high: int
    tie_group: str


@dataclass(frozen=True)
class PairTest:
    """Two methods of a comparison group.

    Attributes:
        found: their difference over the same identities, with the p value of this pair alone.
        p_holm: p corrected over the pairs of the group, None where there is none.
        significant: whether they are significantly different.
    """

    found: PairedDifference
    p_holm: float | None
    significant: bool


@dataclass(frozen=True)
class Ranking:
    """A comparison group's methods, the best first.

    Attributes:
        methods: empty where the group is not ranked.
        omnibus: Friedman's test over three methods or more, else None.
        pairs: each pair (the better mean first), with its tests; empty where the group is not ranked.
        reason: why the group is not ranked, or why all its methods are tied without pairwise tests; else "".
    """

    methods: tuple[Ranked, ...]
    omnibus: Friedman | None = None
    pairs: Mapping[Pair, PairTest] = field(default_factory=dict)
    reason: str = ""


def rank_methods(
    rates: pd.DataFrame,
    *,
    higher_is_better: bool,
    rng: np.random.Generator,
    alpha: float = ALPHA,
    resamples: int | None = None,
) -> Ranking:
    """Rank the methods of a comparison group.

    Friedman's test over identities says whether any differ; where it does not reject, all are tied. Else each
    pair is tested by sign flips, corrected by Holm over the pairs.

    Args:
        rates: identities × methods, rates in [0, 1]; a column with an empty value is a failed cell.
        higher_is_better: whether rank 1 has the highest mean.
        rng: decides the signs.
        alpha: level of the omnibus test and of the family of pairs.
        resamples: of each sign-flip test; default `resamples_for` the number of pairs.

    Raises:
        ValueError: a method or an identity is there twice.
    """
    if not (rates.columns.is_unique and rates.index.is_unique):
        raise ValueError("a comparison group names every method and every identity once")
    k = rates.shape[1]
    whole = int(rates.notna().all().sum()) if len(rates) else 0
    if whole < k or not k:
        return Ranking((), reason=f"not ranked: {whole} of {k} methods have results for everyone")
    # Equal means in the order of names, so that the order of columns decides nothing.
    means: dict[str, float] = dict(zip(map(str, rates.columns), rates.mean().round(12), strict=True))
    sign = -1 if higher_is_better else 1
    order = sorted(means, key=lambda name: (sign * means[name], name))
    ordered = rates[order]
    omnibus = friedman(ordered.to_numpy()) if k >= 3 else None
    differ = omnibus is None or (omnibus.p is not None and omnibus.p <= alpha)
    pairs = _test_pairs(ordered, rng, alpha, resamples, differ=differ)
    reason = ""
    if omnibus is not None and not differ:
        reason = omnibus.reason or f"all tied: Friedman's test over the {k} methods has p = {omnibus.p:.3g}"
    return Ranking(_ranked(ordered, pairs, higher_is_better), omnibus, pairs, reason)


def compact_letters(items: Sequence[Name], apart: Sequence[tuple[Name, Name]]) -> dict[Name, str]:
    """Return letters such that two items share one exactly where they are not significantly different.

    >>> compact_letters(["fawkes", "lowkey", "pgd"], apart=[("fawkes", "pgd")])
    {'fawkes': 'a', 'lowkey': 'ab', 'pgd': 'b'}

    Insert and absorb (Piepho, 2004): begin with one group of all; each pair that is significantly
    different splits every
    group that holds both in two, each without one of them; a group inside another goes. Letters follow the
    order of `items`.

    Args:
        items: the best first.
        apart: pairs that are significantly different, in any order.

    Raises:
        ValueError: a pair names an item that is not there, or the same one twice.
    """
    groups = [frozenset(items)] if items else []
    for one, two in apart:
        if one == two or one not in items or two not in items:
            raise ValueError(f"a pair to tell apart is two of the items, got {one} and {two}")
        split = [group - {out} for group in groups if {one, two} <= group for out in (one, two)]
        groups = _absorbed([*(group for group in groups if not {one, two} <= group), *split])
    place = {item: index for index, item in enumerate(items)}
    groups.sort(key=lambda group: sorted(place[item] for item in group))
    letters = [_letter(index) for index in range(len(groups))]
    return {
        item: "".join(letter for letter, group in zip(letters, groups, strict=True) if item in group)
        for item in items
    }


def critical_difference(methods: int, identities: int, alpha: float = ALPHA) -> float:
    """Return by how much mean ranks must differ (Nemenyi; Demšar, 2006): q_α·√(k(k + 1)/(6n)).

    Args:
        methods: k ≥ 2.
        identities: n ≥ 1, the blocks.
        alpha: level.

    Raises:
        ValueError: an argument is out of its range.
    """
    from scipy.stats import studentized_range

    if methods < 2 or identities < 1 or not 0 < alpha < 1:
        raise ValueError(
            f"a critical difference needs 2 methods, 1 identity and a level in (0, 1), got {methods}, "
            f"{identities} and {alpha}"
        )
    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * identities))


def critical_difference_groups(
    rates: pd.DataFrame, *, higher_is_better: bool, alpha: float = ALPHA
) -> list[tuple[str, ...]]:
    """Return the bars of a critical-difference diagram: methods whose mean ranks are within it of each other.

    Args:
        rates: identities × methods without empty values.
        higher_is_better: whether rank 1 has the highest rate.
        alpha: level.

    Returns:
        groups of two methods or more, none within another, each from the best mean rank down.
    """
    ranks = mean_ranks(rates, higher_is_better=higher_is_better)
    order = sorted(ranks, key=lambda name: (ranks[name], name))
    reach = critical_difference(len(order), len(rates), alpha)
    groups: list[tuple[str, ...]] = []
    for start, best in enumerate(order):
        group = tuple(name for name in order[start:] if ranks[name] - ranks[best] <= reach)
        if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
            groups.append(group)
    return groups


def mean_ranks(rates: pd.DataFrame, *, higher_is_better: bool) -> dict[str, float]:
    """Return each method's rank, 1 the best, ties shared, in the mean over identities.

    Args:
        rates: identities × methods without empty values.
        higher_is_better: whether rank 1 has the highest rate.
    """
    values: Floats = rates.to_numpy(dtype=np.float64).round(12)
    ranks = pd.DataFrame(values).rank(axis=1, ascending=not higher_is_better).to_numpy().mean(axis=0)
    return dict(zip(map(str, rates.columns), map(float, ranks), strict=True))


def _test_pairs(
    ordered: pd.DataFrame,
    rng: np.random.Generator,
    alpha: float,
    resamples: int | None,
    *,
    differ: bool,
) -> dict[Pair, PairTest]:
    pairs = list(combinations(map(str, ordered.columns), 2))
    count = resamples_for(max(len(pairs), 1), alpha) if resamples is None else resamples
    columns = {str(name): column for name, column in ordered.items()}
    rates = [(columns[one], columns[two]) for one, two in pairs]
    found = dict(zip(pairs, paired_differences(rates, rng=rng, resamples=count), strict=True))
    corrected = holm({pair: one.p for pair, one in found.items()})
    return {
        pair: PairTest(found[pair], p, significant=differ and p is not None and p <= alpha)
        for pair, p in corrected.items()
    }


def _ranked(
    ordered: pd.DataFrame, pairs: Mapping[Pair, PairTest], higher_is_better: bool
) -> tuple[Ranked, ...]:
    names = [str(name) for name in ordered.columns]
    apart = [pair for pair, test in pairs.items() if test.significant]
    letters = compact_letters(names, apart)
    ranks = mean_ranks(ordered, higher_is_better=higher_is_better)
    better, worse = (Counter(pair[side] for pair in apart) for side in (0, 1))
    return tuple(
        Ranked(
            method=name,
            mean=float(ordered[name].mean()),
            mean_rank=ranks[name],
            rank_low=1 + worse[name],
            rank_high=len(names) - better[name],
            tie_group=letters[name],
        )
        for name in names
    )


def _absorbed(groups: Sequence[frozenset[Name]]) -> list[frozenset[Name]]:
    """Return the groups that are not inside another, each once."""
    unique = list(dict.fromkeys(groups))
    return [group for group in unique if not any(group < other for other in unique)]


def _letter(index: int) -> str:
    """Return a, b, … z, then A … Z, then other letters: always one character."""
    letters = string.ascii_letters
    return letters[index] if index < len(letters) else chr(0x100 + index - len(letters))
