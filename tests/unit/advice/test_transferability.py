"""LogME and the H-score against closed forms and direct maximisation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf_shrinkage

from autotl.advice.transferability import h_score, ledoit_wolf, logme

Matrix = NDArray[np.float64]


def clouds(n: int, dimensions: int, distance: float, n_classes: int = 3) -> tuple[Matrix, NDArray[np.int64]]:
    """Unit clouds, `distance` from the origin each."""
    generator = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    return generator.normal(size=(n, dimensions)) + distance * np.eye(n_classes, dimensions)[labels], labels


def highest_evidence(features: Matrix, labels: NDArray[np.int64]) -> float:
    """The definition: the density of the one-hot labels, weights integrated out, maximised over alpha and beta."""
    n = len(labels)

    def log_density(logs: Matrix, target: Matrix) -> float:
        alpha, beta = np.exp(logs)
        covariance = np.eye(n) / beta + features @ features.T / alpha
        return float(multivariate_normal.logpdf(target, np.zeros(n), covariance)) / n

    best = []
    for label in np.unique(labels):
        target = (labels == label).astype(float)
        starts = [np.array([a, b]) for a in (-1.0, 3.0) for b in (0.0, 3.0)]
        found = [minimize(lambda x, y=target: -log_density(x, y), start, method="Nelder-Mead") for start in starts]
        best.append(-min(result.fun for result in found))
    return float(np.mean(best))


@pytest.mark.parametrize(("n", "dimensions"), [(40, 5), (25, 25), (20, 35)])
def test_logme_is_the_highest_evidence_over_alpha_and_beta(n: int, dimensions: int) -> None:
    features, labels = clouds(n, dimensions, 0.7)
    assert logme(features, labels) == pytest.approx(highest_evidence(features, labels), abs=1e-3)


def test_logme_does_not_change_with_the_scale_or_a_rotation() -> None:
    features, labels = clouds(60, 6, 1.0)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    assert logme(7.0 * features @ rotation, labels) == pytest.approx(logme(features, labels), abs=1e-4)


def test_both_prefer_features_that_tell_classes_apart() -> None:
    sets = [clouds(120, 8, distance) for distance in (0.0, 1.0, 4.0)]
    by_logme = [logme(features, labels) for features, labels in sets]
    by_h = [h_score(features, labels) for features, labels in sets]
    assert by_logme == sorted(by_logme)
    assert by_h == sorted(by_h)
    assert by_h[2] > 5 * by_h[0]


@pytest.mark.parametrize("features", [np.zeros((6, 3)), np.eye(6), 1e6 * np.ones((6, 2))])
def test_degenerate_features_give_finite_scores(features: Matrix) -> None:
    labels = np.arange(6) % 2
    assert np.isfinite(logme(features, labels))
    assert np.isfinite(h_score(features, labels))


def test_logme_needs_images() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        logme(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))


def test_h_score_of_four_points() -> None:
    # Classes at -2 and +2 with one step of 1 to either side: cov(f) = 4 + 1, cov(E[f|y]) = 4.
    features, labels = np.array([[-3.0], [-1.0], [1.0], [3.0]]), np.array([0, 0, 1, 1])
    assert h_score(features, labels, shrinkage=0) == pytest.approx(4 / 5)
    # A second dimension that is the same up to a factor adds nothing, and neither does noise of its own.
    assert h_score(np.hstack([features, 9 * features]), labels, shrinkage=0) == pytest.approx(4 / 5)
    noise = np.array([[1.0], [-1.0], [-1.0], [1.0]])
    assert h_score(np.hstack([features, noise]), labels, shrinkage=0) == pytest.approx(4 / 5)
    # One that is the first one's noise with the other sign cancels it: the sum is -2 or 2 by the class alone, and two
    # classes can have no more than 1.
    cancels = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert h_score(np.hstack([features, cancels]), labels, shrinkage=0) == pytest.approx(1.0, abs=1e-12)


def test_plain_h_score_is_the_trace_of_its_definition() -> None:
    features, labels = clouds(90, 4, 1.0)
    means = np.stack([features[labels == label].mean(0) for label in labels])
    expected = np.trace(np.linalg.inv(np.cov(features.T, bias=True)) @ np.cov(means.T, bias=True))
    assert h_score(features, labels, shrinkage=0) == pytest.approx(expected)


def test_with_fewer_images_than_dimensions_only_the_shrunk_score_is_informative() -> None:
    noise, labels = clouds(30, 60, 0.0)
    good, _ = clouds(30, 60, 4.0)
    assert h_score(noise, labels, shrinkage=0) == pytest.approx(2.0)  # classes less one, whatever the features
    assert h_score(good, labels, shrinkage=0) == pytest.approx(2.0)
    assert h_score(noise, labels) < 0.5 * h_score(good, labels)


def test_a_given_shrinkage_is_that_of_the_definition() -> None:
    features, labels = clouds(50, 4, 1.0)
    covariance = np.cov(features.T, bias=True)
    means = np.stack([features[labels == label].mean(0) for label in labels])
    shrunk = 0.7 * covariance + 0.3 * np.trace(covariance) / 4 * np.eye(4)
    expected = 0.7 * np.trace(np.linalg.inv(shrunk) @ np.cov(means.T, bias=True))
    assert h_score(features, labels, shrinkage=0.3) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "dimensions"), [(20, 50), (200, 5)])
def test_ledoit_wolf_is_scikit_learns(n: int, dimensions: int) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(n, dimensions)) * np.linspace(1, 3, dimensions)
    features -= features.mean(0)
    expected = ledoit_wolf_shrinkage(features, assume_centered=True)
    assert ledoit_wolf(features, features.T @ features / n) == pytest.approx(expected)
