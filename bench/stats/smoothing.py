"""Certificates by randomised smoothing: what a smoothed score can become after a change of bounded L2 norm.

What lives here: the bound on a mean from samples, and the radius from two bounds. What must not: networks, photos, and
who is recognised (`bench.analysis.certificates`). docs/methods/smooth.md derives both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def bernstein_width(variance: ArrayLike, samples: int, failure: float) -> Floats:
    """Return how far a mean of samples may lie from its expectation, on one side.

    √(2 V ln(2/δ) / n) + 7 ln(2/δ) / (3 (n − 1)) for n independent samples in [0, 1] (Maurer and Pontil, Empirical
    Bernstein Bounds and Sample Variance Penalization, COLT 2009, Theorem 4).

    >>> round(float(bernstein_width(0.01, 1000, 1e-6)), 4)
    0.0509

    Args:
        variance: V, of the samples, with n − 1 in the denominator; ≥ 0.
        samples: n, at least 2.
        failure: δ, probability in (0, 1) with which the expectation lies farther on that side.

    Raises:
        ValueError: fewer than 2 samples, or a probability that is none.
    """
    if samples < 2:
        raise ValueError(f"an empirical Bernstein bound needs 2 samples or more, got {samples}")
    if not 0 < failure < 1:
        raise ValueError(f"a probability of failure lies in (0, 1), got {failure}")
    log_term = np.log(2 / failure)
    values = np.asarray(variance, dtype=np.float64).clip(min=0)
    width: Floats = np.sqrt(2 * values * log_term / samples) + 7 * log_term / (3 * (samples - 1))
    return width


def score_bounds(
    means: ArrayLike, variances: ArrayLike, samples: int, failure: float
) -> tuple[Floats, Floats]:
    """Return a lower and an upper bound on expected scores in [−1, 1], each of which fails with probability `failure`.

    Args:
        means: of the samples of each score.
        variances: likewise, with n − 1 in the denominator.
        samples: n of each.
        failure: of one bound; of several together add them up.
    """
    # (1 + score) / 2 lies in [0, 1] and has a quarter of the variance.
    width = 2 * bernstein_width(np.asarray(variances, dtype=np.float64) / 4, samples, failure)
    values = np.asarray(means, dtype=np.float64)
    return (values - width).clip(min=-1), (values + width).clip(max=1)


def certified_radius(own_low: ArrayLike, other_high: ArrayLike, sigma: float) -> Floats:
    """Return the L2 norm of changes below which the own score stays above the other's.

    σ (Φ⁻¹((1 + own) / 2) − Φ⁻¹((1 + other) / 2)): for f with values in [0, 1], Φ⁻¹ of E f(x + σn) is Lipschitz in x
    with constant 1/σ (Salman et al., Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers,
    NeurIPS 2019, Lemma 2; Levine et al., arXiv 1905.12105), and (1 + score) / 2 is such an f. Only the photos behind
    the own score change.

    >>> round(float(certified_radius(0.6, 0.3, 0.25)), 3)
    0.114

    Args:
        own_low: lower bound of the own smoothed score, in [−1, 1].
        other_high: upper bound of the best other one, in [−1, 1].
        sigma: σ of the noise, > 0.

    Returns:
        in the unit of σ; at most 0 where nothing is certified, −∞ where a bound says nothing at all.
    """
    from scipy.special import ndtri

    own, other = (np.asarray(each, dtype=np.float64) for each in (own_low, other_high))
    empty = (own <= -1) | (other >= 1)
    inside = np.where(empty, 0.0, own), np.where(empty, 0.0, other)
    radius = sigma * (ndtri((1 + inside[0]) / 2) - ndtri((1 + inside[1]) / 2))
    return np.where(empty, -np.inf, radius)
