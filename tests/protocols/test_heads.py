import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from bench.errors import MethodError, UsageError
from bench.protocols.heads import HEADS, Linear, make_head, unit

EVERY = sorted(HEADS)


def gallery(n_classes=6, per_class=5, dim=12, noise=1.2, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), per_class)
    centres = rng.normal(size=(n_classes, dim))
    draw = centres[labels] + noise * rng.normal(size=(len(labels), dim))
    probes = centres[labels] + noise * rng.normal(size=(len(labels), dim))
    return draw.astype(np.float32), labels, probes.astype(np.float32)


def test_nearest_neighbour_agrees_with_scikit_learn():
    vectors, labels, probes = gallery()
    scores = make_head("nn").fit(vectors, labels, 6)(probes)
    model = KNeighborsClassifier(1, metric="cosine").fit(vectors, labels)
    np.testing.assert_array_equal(scores.argmax(1), model.predict(probes))
    np.testing.assert_allclose(1 - scores.max(1), model.kneighbors(probes)[0][:, 0], atol=1e-6)


def test_centroid_agrees_with_scikit_learn():
    vectors, labels, probes = gallery()
    scores = make_head("centroid").fit(vectors, labels, 6)(probes)
    centroids = Normalizer().transform(
        NearestCentroid().fit(Normalizer().transform(vectors), labels).centroids_
    )
    np.testing.assert_allclose(scores, Normalizer().transform(probes) @ centroids.T, atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 6])
def test_linear_is_standardised_logistic_regression_on_unit_vectors(n_classes):
    vectors, labels, probes = gallery(n_classes)
    scores = make_head("linear").fit(vectors, labels, n_classes)(probes)
    # An independent solver of the same convex problem: Newton instead of L-BFGS.
    model = make_pipeline(
        Normalizer(), StandardScaler(), LogisticRegression(C=1.0, solver="newton-cg", tol=1e-9)
    ).fit(vectors.astype(np.float64), labels)
    np.testing.assert_allclose(scores, model.predict_proba(probes.astype(np.float64)), atol=2e-4)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_scores_are_float32_and_the_same_every_time(name):
    vectors, labels, probes = gallery()
    one, two = (make_head(name).fit(vectors, labels, 6)(probes) for _ in range(2))
    assert one.dtype == np.float32
    assert one.shape == (30, 6)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", EVERY)
def test_only_the_direction_of_an_embedding_counts(name):
    vectors, labels, probes = gallery()
    lengths = np.random.default_rng(1).uniform(0.1, 9, size=(30, 1)).astype(np.float32)
    plain = make_head(name).fit(vectors, labels, 6)(probes)
    scaled = make_head(name).fit(vectors * lengths, labels, 6)(probes * lengths)
    np.testing.assert_allclose(plain, scaled, atol=2e-4)
    np.testing.assert_array_equal(plain.argmax(1), scaled.argmax(1))


@pytest.mark.parametrize("name", EVERY)
def test_a_class_without_a_photo_is_never_the_answer(name):
    vectors, labels, probes = gallery()
    kept = labels != 2
    scores = make_head(name).fit(vectors[kept], labels[kept], 6)(probes)
    assert (scores[:, 2] == -np.inf).all()
    assert np.isfinite(np.delete(scores, 2, axis=1)).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_gallery_of_one_class_or_none_still_scores(name):
    vectors, _, probes = gallery()
    one = make_head(name).fit(vectors[:3], np.array([1, 1, 1]), 3)(probes)
    assert (np.isfinite(one) == [False, True, False]).all()
    none = make_head(name).fit(vectors[:0], np.array([], dtype=int), 3)(probes)
    assert none.shape == (30, 3)
    assert (none == -np.inf).all()


@pytest.mark.parametrize("name", EVERY)
def test_gallery_order_does_not_matter(name):
    vectors, labels, probes = gallery()
    order = np.random.default_rng(2).permutation(30)
    plain = make_head(name).fit(vectors, labels, 6)(probes)
    shuffled = make_head(name).fit(vectors[order], labels[order], 6)(probes)
    np.testing.assert_allclose(plain, shuffled, atol=2e-4)


@pytest.mark.parametrize("name", EVERY)
def test_embeddings_that_are_not_finite_are_a_method_error(name):
    vectors, labels, probes = gallery()
    broken = vectors.copy()
    broken[3, 0] = np.nan
    with pytest.raises(MethodError, match="1 of 30 embeddings are not finite"):
        make_head(name).fit(broken, labels, 6)
    scorer = make_head(name).fit(vectors, labels, 6)
    with pytest.raises(MethodError, match="not finite"):
        scorer(np.full_like(probes, np.inf))


def test_a_linear_head_that_does_not_converge_is_a_method_error(monkeypatch):
    vectors, labels, _ = gallery()
    monkeypatch.setattr(Linear, "max_iterations", 2)
    with pytest.raises(MethodError, match="did not converge to 1e-06 in 2 iterations on 30 photos of 6"):
        Linear().fit(vectors, labels, 6)


def test_a_linear_head_learns_from_one_photo_an_identity_without_a_warning():
    vectors = np.eye(30, 64, dtype=np.float32)
    scorer = Linear().fit(vectors, np.arange(30), 30)
    assert (scorer(vectors).argmax(1) == np.arange(30)).all()


def test_a_zero_vector_stays_zero():
    np.testing.assert_array_equal(unit(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0, 0], [0.6, 0.8]])


def test_an_unknown_head_names_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown head 'linera'\. Did you mean 'linear'\? Valid: centroid"):
        make_head("linera")
