"""Heads: what a tracker puts on top of its backbone's embeddings.

What lives here: one small class a head, all with one method, `Head.fit`. What must not: who is protected
or how photos are split (`bench.protocols`).

All heads here see unit-length embeddings and return one score a class; the one that sees photos is in
`bench.protocols.finetuning`. A class without a gallery photo scores −inf, so it is never the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.errors import MethodError, unknown

Vectors = NDArray[np.floating[Any]]
Labels = NDArray[np.intp]
Scores = NDArray[np.float32]
Scorer = Callable[[Vectors], Scores]
"""Maps M×D embeddings to M×K scores. Scores are float32 already: decisions are made on what is stored, and
the last bits in which a matrix product rounds differently from place to place cannot break a tie."""


def unit(vectors: Vectors) -> NDArray[np.float64]:
    """Return N×D vectors scaled to length 1 in float64; a zero vector stays zero (cosine 0 with all).

    Raises:
        MethodError: an embedding is not finite.
    """
    wide = np.array(vectors, dtype=np.float64)
    if not np.isfinite(wide).all():
        bad = int((~np.isfinite(wide).all(axis=1)).sum())
        raise MethodError(
            f"{bad} of {len(wide)} embeddings are not finite. Look at the images an attack or a purifier "
            "returned, and at the backbone's preprocessing."
        )
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    wide /= np.where(lengths > 0, lengths, 1.0)
    return wide


@dataclass(frozen=True)
class Points:
    """What is kept of a gallery by a head to which only the nearest point of a class counts.

    Attributes:
        vectors: P×D, of any length; what counts is the cosine.
        labels: the class of each.
    """

    vectors: Vectors
    labels: Labels


class Head(ABC):
    """Learns classes from a gallery.

    Attributes:
        name: the registered name.
    """

    name: ClassVar[str]

    @abstractmethod
    def fit(self, vectors: Vectors, labels: Labels, n_classes: int) -> Scorer:
        """Learn from N×D embeddings with labels in [0, n_classes).

        Returns:
            a function from M×D embeddings to M×n_classes float32 scores.

        Raises:
            MethodError: embeddings are not finite, or the fit does not converge.
        """

    def points(self, vectors: Vectors, labels: Labels) -> Points | None:
        """Return what decides, where a class's score is the cosine to its nearest point; None where it is not.

        Then a class's score depends on that class's own photos only, and no rotation needs a fit of its own.
        """
        del vectors, labels
        return None


class _NearestPoint(Head):
    """Base of heads that score a class by the cosine to the nearest of its points."""

    @abstractmethod
    def points(self, vectors: Vectors, labels: Labels) -> Points:
        """Return the points of N×D embeddings."""

    def fit(self, vectors: Vectors, labels: Labels, n_classes: int) -> Scorer:
        """Keep the points; see `Head.fit`. Scores are cosines in [−1, 1]."""
        points = self.points(vectors, labels)
        order = np.argsort(points.labels, kind="stable")
        kept = unit(points.vectors[order]).T
        present, starts = np.unique(points.labels[order], return_index=True)

        def score(probes: Vectors) -> Scores:
            scores = np.full((len(probes), n_classes), -np.inf, dtype=np.float32)
            if len(present):
                scores[:, present] = np.maximum.reduceat(unit(probes) @ kept, starts, axis=1)
            return scores

        return score


class NearestNeighbour(_NearestPoint):
    """Scores a class by the cosine to its nearest gallery photo."""

    name = "nn"

    def points(self, vectors: Vectors, labels: Labels) -> Points:
        """Return the gallery as it is."""
        return Points(vectors, labels)


class Centroid(_NearestPoint):
    """Scores a class by the cosine to the mean of its unit-length gallery embeddings."""

    name = "centroid"

    def points(self, vectors: Vectors, labels: Labels) -> Points:
        """Return a point a class: the sum of its unit-length embeddings."""
        present, classes = np.unique(labels, return_inverse=True)
        sums = np.zeros((len(present), np.shape(vectors)[1]))
        np.add.at(sums, classes, unit(vectors))
        return Points(sums, present.astype(np.intp))


class Linear(Head):
    """Multinomial logistic regression on standardised unit-length embeddings, C = 1, L-BFGS to 1e-6."""

    name = "linear"
    tolerance: ClassVar[float] = 1e-6
    max_iterations: ClassVar[int] = 10_000

    def fit(self, vectors: Vectors, labels: Labels, n_classes: int) -> Scorer:
        """Standardise on the gallery and fit; see `Head.fit`. Scores are probabilities in [0, 1]."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        present = np.unique(labels)
        if len(present) < 2:
            return constant_scorer(present, n_classes)
        scaler = StandardScaler()
        model = LogisticRegression(C=1.0, tol=self.tolerance, max_iter=self.max_iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            # One gallery photo an identity is as many classes as photos, which scikit-learn takes for a mistake.
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            try:
                model.fit(scaler.fit_transform(unit(vectors)), labels)
            except ConvergenceWarning as error:
                raise MethodError(
                    f"head 'linear' did not converge to {self.tolerance} in {self.max_iterations} "
                    f"iterations on {len(labels)} photos of {len(present)} identities ({error})."
                ) from error

        def score(probes: Vectors) -> Scores:
            scores = np.full((len(probes), n_classes), -np.inf, dtype=np.float32)
            logits = scaler.transform(unit(probes)) @ model.coef_.T + model.intercept_
            if len(present) == 2:  # scikit-learn keeps one logit for two classes
                logits = np.hstack([np.zeros_like(logits), logits])
            scores[:, present] = _softmax(logits)
            return scores

        return score


def constant_scorer(present: Labels, n_classes: int) -> Scorer:
    """Return the scorer of a gallery with one class (probability 1) or none."""

    def score(probes: Vectors) -> Scores:
        scores = np.full((len(probes), n_classes), -np.inf, dtype=np.float32)
        scores[:, present] = 1.0
        return scores

    return score


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return result


HEADS: dict[str, type[Head]] = {head.name: head for head in (NearestNeighbour, Centroid, Linear)}
"""Every head by name."""


def make_head(name: str) -> Head:
    """Return the head called `name`.

    Raises:
        UsageError: no head is called so.
    """
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    return HEADS[name]()
