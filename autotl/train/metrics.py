"""Metrics of class probabilities, scores where larger is better, and their uncertainty."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autotl.records import Estimate
from autotl.train.intervals import (
    Confusions,
    balanced_accuracy_interval,
    f1_macro_interval,
    mean_interval,
    roc_auc_interval,
    wilson_interval,
)

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
    return Confusions(probabilities.argmax(1), labels).balanced_accuracy


def f1_macro(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Mean F1 of the classes that occur among the labels or the predictions."""
    return Confusions(probabilities.argmax(1), labels).f1_macro


def log_loss(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Mean negative logarithm of the probability of the true class; probabilities are clipped at 1e-7."""
    return float(_own_losses(probabilities, labels).mean())


def _own_losses(probabilities: Probabilities, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: NDArray[np.float64] = -np.log(np.clip(own, 1e-7, 1.0))
    return losses


def roc_auc(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Area under the ROC curve; the mean of one-against-rest areas for more than two classes.

    NaN when only one class occurs.
    """
    columns, counts = _against_rest(probabilities, labels)
    if not len(columns):
        return float("nan")
    positives = counts[columns].astype(float)
    rank_sums = np.array([_rank_sum(probabilities[:, column], labels == column) for column in columns])
    pairs = positives * (len(labels) - positives)
    return float(((rank_sums - positives * (positives + 1) / 2) / pairs).mean())


def _rank_sum(scores: Probabilities, positive: NDArray[np.bool_]) -> float:
    """Of the ranks of the positives among all scores, from 1; ties share their mean. Sorting beats ranking all."""
    ordered, own = np.sort(scores), scores[positive]
    below, upto = np.searchsorted(ordered, own, "left"), np.searchsorted(ordered, own, "right")
    return float((below + upto + 1).sum()) / 2


def _against_rest(
    probabilities: Probabilities, labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes whose area against the rest counts (of two, one; none where only one occurs), and images a class."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return present[:0], counts
    return (np.array([1]) if probabilities.shape[1] == 2 else present), counts


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


def estimate(metric: str, probabilities: Probabilities, labels: NDArray[np.int64], seed: int = 0) -> Estimate:
    """A metric with its 95% interval, see `autotl.train.intervals`; `seed` is the bootstrap's, for the log loss.

    The interval is NaN where the metric is.
    """
    value = _METRICS[metric](probabilities, labels)
    if not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"), len(labels))
    predicted = probabilities.argmax(1)
    if metric == "accuracy":
        low, high = wilson_interval(round(value * len(labels)), len(labels))
    elif metric == "balanced_accuracy":
        low, high = balanced_accuracy_interval(predicted, labels)
    elif metric == "f1_macro":
        low, high = f1_macro_interval(predicted, labels)
    elif metric == "roc_auc":
        columns, counts = _against_rest(probabilities, labels)
        low, high = roc_auc_interval(value, counts[columns].astype(float), len(labels))
    else:
        low, high = mean_interval(_own_losses(probabilities, labels), seed)
    return Estimate(value, min(low, value), max(high, value), len(labels))
