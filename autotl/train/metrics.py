"""Metrics of class probabilities, scores where larger is better, and their uncertainty."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from autotl.records import Estimate

Probabilities = NDArray[np.float32] | NDArray[np.float64]
IMBALANCE = 3.0
"""From this ratio of the largest to the smallest class on, plain accuracy is no longer the default metric."""


def default_metric(counts: NDArray[np.int64]) -> str:
    """`accuracy`, or `balanced_accuracy` when the largest class is `IMBALANCE` times the smallest or more."""
    return "balanced_accuracy" if counts.max() >= IMBALANCE * max(1, counts.min()) else "accuracy"


def accuracy(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Share of images whose most probable class is theirs."""
    return float((probabilities.argmax(1) == labels).mean())


def balanced_accuracy(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Mean over the classes that occur of the share of their images that is recognised."""
    predicted = probabilities.argmax(1)
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def f1_macro(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Mean F1 of the classes that occur among the labels or the predictions."""
    predicted = probabilities.argmax(1)
    scores = []
    for label in np.union1d(labels, predicted):
        hits = float(((predicted == label) & (labels == label)).sum())
        scores.append(2 * hits / float((predicted == label).sum() + (labels == label).sum()))
    return float(np.mean(scores))


def log_loss(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Mean negative logarithm of the probability of the true class; probabilities are clipped at 1e-7."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(own, 1e-7, 1.0)).mean())


def roc_auc(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Area under the ROC curve; the mean of one-against-rest areas for more than two classes.

    NaN when only one class occurs.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    columns = [1] if probabilities.shape[1] == 2 else [int(label) for label in present]
    return float(np.mean([_auc(probabilities[:, column], labels == column) for column in columns]))


def _auc(scores: Probabilities, positive: NDArray[np.bool_]) -> float:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


_METRICS: dict[str, Callable[[Probabilities, NDArray[np.int64]], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "f1_macro": f1_macro,
    "log_loss": log_loss,
    "roc_auc": roc_auc,
}


def all_metrics(probabilities: Probabilities, labels: NDArray[np.int64]) -> dict[str, float]:
    """Every metric by its name."""
    return {name: function(probabilities, labels) for name, function in _METRICS.items()}


def score_of(metrics: dict[str, float], metric: str) -> float:
    """The metric as a score, larger is better; NaN where the metric is not a finite number."""
    value = metrics[metric]
    return float("nan") if not np.isfinite(value) else -value if metric == "log_loss" else value


def majority_score(metric: str, train_labels: NDArray[np.int64], labels: NDArray[np.int64], n_classes: int) -> float:
    """The score on `labels` of the majority-class baseline, which gives every image the training images' class shares.

    Its answer is therefore always the largest class. Larger is better, as in `score_of`; 0.5 for ROC AUC.

    Args:
        metric: one of `autotl.settings.METRICS`.
        train_labels: shape (training images,).
        labels: of the images it is scored on, shape (images,).
        n_classes: labels lie in 0..n_classes - 1.
    """
    shares = np.bincount(train_labels, minlength=n_classes) / len(train_labels)
    return score(metric, np.tile(shares, (len(labels), 1)), labels)


def score(metric: str, probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """One metric as a score, larger is better; NaN where it is not a finite number."""
    return score_of({metric: _METRICS[metric](probabilities, labels)}, metric)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (doi:10.1080/01621459.1927.10502953).

    Raises:
        ValueError: if `n` is not positive.
    """
    if n <= 0:
        raise ValueError(f"n must be positive, not {n}")
    z = float(norm.ppf(0.5 + level / 2))
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(successes * (n - successes) / n + z * z / 4)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def estimate(metric: str, probabilities: Probabilities, labels: NDArray[np.int64], seed: int = 0) -> Estimate:
    """A metric with its 95% interval: Wilson's for accuracy, the percentile bootstrap (500 draws) for the others."""
    function = _METRICS[metric]
    value = function(probabilities, labels)
    if metric == "accuracy":
        low, high = wilson_interval(round(value * len(labels)), len(labels))
        return Estimate(value, low, high, len(labels))
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(500):
        chosen = generator.integers(0, len(labels), len(labels))
        draws.append(function(probabilities[chosen], labels[chosen]))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Estimate(value, float(low), float(high), len(labels))
