"""Calibration on impostors: by hand, against plain loops, and against simulated identities."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import MethodError
from bench.protocols.thresholds import (
    LEAST_EXCEEDING,
    calibrate,
    cosines,
    pairs_of,
    rate_interval_of_pairs,
    shortage,
    thresholds_at,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("rate", "threshold"),
    # Of ten scores 0.05, 0.15 … 0.95: three may pass at 0.3, the highest to be refused is 0.65.
    [(0.3, 0.6501), (0.39, 0.6501), (0.1, 0.8501), (0.05, 0.9501), (0.9, 0.0501)],
)
def test_thresholds_by_hand(rate, threshold):
    (found,) = thresholds_at(np.arange(0.05, 1, 0.1), [rate])
    assert found == pytest.approx(threshold, abs=1e-9)


def test_equal_scores_are_refused_together():
    scores = np.array([0.5] * 4 + [0.1] * 6)
    (found,) = thresholds_at(scores, [0.3])
    assert found == pytest.approx(0.5001)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.1, 0.01, 0.001, 0.37]))
def test_threshold_keeps_the_rate_and_no_lower_one_does(seed, rate):
    scores = rng(seed).uniform(-1, 1, 2000).astype(np.float32)
    (threshold,) = thresholds_at(scores, [rate])
    assert np.mean(scores >= threshold) <= rate
    assert np.mean(scores >= threshold - 1e-4) > rate


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(0.001, 0.9), min_size=2, max_size=6, unique=True))
def test_a_higher_rate_never_has_a_higher_threshold(seed, rates):
    found = thresholds_at(rng(seed).normal(size=700), sorted(rates))
    assert (np.diff(found) <= 0).all()


def test_pairs_and_what_is_too_few():
    assert [pairs_of(n) for n in (0, 1, 2, 3, 1000)] == [0, 0, 1, 3, 499_500]
    assert shortage(0.1, 46) == ""  # 1,035 pairs
    assert shortage(0.1, 45) == (
        "a threshold for a false-accept rate of 0.1 needs 1000 impostor pairs or more; 45 identities give 990"
    )
    for n in range(2, 60):
        assert (shortage(0.1, n) == "") == (
            0.1 * len(list(itertools.combinations(range(n), 2))) >= LEAST_EXCEEDING
        )


def loops(accepted, weights):
    """Return a resample's rate by the formula's two loops."""
    above = below = 0.0
    for i, j in itertools.permutations(range(len(accepted)), 2):
        above += weights[i] * weights[j] * accepted[i, j]
        below += weights[i] * weights[j]
    return above / below


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(5, 12), st.floats(0.1, 0.9))
def test_interval_agrees_with_loops_over_the_definition(seed, identities, share):
    accepted = rng(seed).random((identities, identities)) < share
    rate, low, high = rate_interval_of_pairs(accepted, rng(seed), 200)
    drawn = rng(seed).multinomial(identities, np.full(identities, 1 / identities), size=200)
    rates = [loops(accepted, weights) for weights in drawn if np.count_nonzero(weights) > 1]
    assert rate == pytest.approx(loops(accepted, np.ones(identities)))
    assert (low, high) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])), abs=1e-6)


def test_comparisons_of_a_person_with_itself_never_count():
    accepted = np.eye(6, dtype=bool)
    assert rate_interval_of_pairs(accepted, rng(), 50) == (0, 0, 0)
    assert rate_interval_of_pairs(~accepted, rng(), 50) == (1, 1, 1)
    with pytest.raises(ValueError, match="needs 2 identities"):
        rate_interval_of_pairs(np.ones((1, 1), dtype=bool), rng())


def test_one_persons_photo_that_everyone_is_taken_for_widens_the_interval():
    """The same number of accepted pairs tells less where they are all one identity's."""
    one, many = np.zeros((2, 60, 60), dtype=bool)
    one[0, 1:] = one[1:, 0] = True  # 118 comparisons
    upper = np.argwhere(np.triu(np.ones((60, 60), dtype=bool), 1))
    for i, j in upper[rng().permutation(len(upper))[:59]]:
        many[i, j] = many[j, i] = True
    (rate, low, high), (other, lower, higher) = (rate_interval_of_pairs(a, rng()) for a in (one, many))
    assert rate == other
    assert high - low > 2 * (higher - lower)


def test_intervals_cover_the_true_rate():
    """60 identities whose photos are alike to different degrees; the truth is the rate among very many."""

    def draw(generator, n):
        return generator.normal(size=(n, 8)) + 0.6 * generator.gamma(2.0, size=(n, 1))

    everyone = draw(rng(1), 3000)
    truth = np.mean(cosines(everyone, everyone)[~np.eye(3000, dtype=bool)] >= 0.6)
    hits = []
    for seed in range(300):
        identities = draw(rng(seed + 2), 60)
        _, low, high = rate_interval_of_pairs(cosines(identities, identities) >= 0.6, rng(seed), 300)
        hits.append(low <= truth <= high)
    assert 0.90 <= np.mean(hits) <= 0.985  # 95 % ± 3 standard errors, and what a percentile interval loses


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_calibration_agrees_with_loops(seed, treatment):
    presented = rng(seed).normal(size=(60, 6)).astype(np.float32)
    enrolled = presented + np.float32(treatment) * rng(seed + 1).normal(size=(60, 6)).astype(np.float32)
    (point,) = calibrate(enrolled, presented, [0.1], rng())

    def cosine(i, j):
        a, b = enrolled[i].astype(float), presented[j].astype(float)
        return np.float32(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    scores = [cosine(i, j) for i, j in itertools.permutations(range(60), 2)]
    share = np.mean([score >= point.threshold for score in scores])
    assert point.rate == pytest.approx(share)
    assert share <= 0.1 < np.mean([score >= point.threshold - 1e-4 for score in scores])
    assert point.low < point.rate < point.high
    assert (point.pairs, point.identities, point.wanted) == (1770, 60, 0.1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_measured_rates_grow_with_those_wanted_and_stay_below(seed):
    vectors = rng(seed).normal(size=(150, 5))
    rates = (0.3, 0.1, 0.02)
    points = calibrate(vectors, vectors, rates, rng(), 50)
    assert [point.wanted for point in points] == list(rates)
    for point in points:
        assert 0.9 * point.wanted < point.rate <= point.wanted
    thresholds = [point.threshold for point in points]
    assert thresholds == sorted(thresholds)


def test_the_order_of_people_does_not_move_the_threshold():
    vectors = rng().normal(size=(80, 5))
    order = rng(1).permutation(80)
    (one,), (other,) = (calibrate(v, v, [0.1], rng(), 50) for v in (vectors, vectors[order]))
    assert (one.threshold, one.rate) == (other.threshold, other.rate)


def test_calibration_says_what_it_cannot_do():
    vectors = rng().normal(size=(50, 4))
    with pytest.raises(ValueError, match="50 identities are enrolled and 49 presented"):
        calibrate(vectors, vectors[1:], [0.1], rng())
    with pytest.raises(ValueError, match="needs 10000 impostor pairs or more; 50 identities give 1225"):
        calibrate(vectors, vectors, [0.1, 0.01], rng())
    with pytest.raises(MethodError, match="not finite"):
        cosines(vectors * np.nan, vectors)
