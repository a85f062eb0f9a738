"""Heads on frozen features: the linear probe and k-nearest neighbours."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autotl.data.splits import stratified_order

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation strengths that are tried, on standardised features."""
SPREAD_FLOOR = 0.3
"""Least spread that a feature is scaled by, as a share of the features' root mean square spread.

A feature that hardly varies would otherwise be blown up until it counts as much as any other: on handwritten digits,
where half of the features are nearly dead, weights reached 2,600. With the floor the log loss is lower on five of seven
data sets, and the same on the others.
"""
START_FLOOR = 3.0
"""The same for a head that fine-tuning starts from: all features are scaled nearly alike, and the weights stay small.

Fine-tuning moves the features, and large weights turn that into wrong logits: from the probe itself, accuracy falls in
the first epoch. Test accuracy after 4 epochs from a probe without a floor, with the one above, and with this one:
digits at depth 5 98.3, 99.1 (means of three seeds), 99.3%; hand signs at depth 5 98.7, 99.2, 99.8; clothes at depth 4
90.3, 89.8, 94.1.
"""
SHRINKAGES = (0.1, 0.3)
SCALES = tuple(float(scale) for scale in np.geomspace(0.01, 1.0, 13))
"""Of the logits of a discriminant."""
LEAST_VARIANCE = 1e-3
"""Within the classes, of standardised features: with an image of each there is none."""
COVARIANCE_IMAGES = 50_000
"""More do not change the covariance, and their number is the cost."""
ROWS_AT_ONCE = 1024
"""Of a covariance: all at once would take the memory of another copy."""
LOGISTIC_WORK = 5 * 10**8
"""Images x features x classes that regressions are fitted on: about 5 s on one core, for all strengths."""
LEAST_PER_CLASS = 10
"""Images of every class that a sample has to have for a regression."""
CHOSEN_ON = 2000
"""Validation images on which settings are chosen."""
MAX_ITERATIONS = 200
SMOOTHING = 0.1
ONE_THREAD = 10**9
"""Multiplications of a step of the fit, up to which it runs on one core: waiting for one another takes longer.

On 600 images and 10 classes the probe took 0.4 s on one core, and 14 to 25 s on two that another program used as well.
"""
SIMILARITIES = 2**21
"""Of nearest neighbours, computed at once: blocks of queries take the same memory however many images there are."""


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """How a head is fitted.

    Attributes:
        kind: logistic regression, or the linear discriminant of classes with one covariance.
        strength: of the regression the inverse regularisation strength; of the discriminant the share of the covariance
            that is replaced by a multiple of the identity.
        scale: of the discriminant's logits.
    """

    kind: Literal["logistic", "discriminant"]
    strength: float
    scale: float = 1.0


UNKNOWN = HeadSettings("discriminant", SHRINKAGES[-1], 0.1)
"""Where none were chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A linear classifier on raw features: logits = features @ weight.T + bias.

    Attributes:
        weight: shape (classes, dimensions).
        bias: shape (classes,).
        settings: that were chosen.
    """

    weight: Features
    bias: Features
    settings: HeadSettings

    def probabilities(self, features: Features) -> Features:
        """Class probabilities, shape (images, classes)."""
        return softmax(features @ self.weight.T + self.bias)


Fit = tuple[HeadSettings, Features, Features]
"""Settings, weight and bias, on standardised features."""


def softmax(logits: Features) -> Features:
    """Row-wise softmax."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Features = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def fit_probe(
    features: Features,
    labels: Labels,
    val_features: Features,
    val_labels: Labels,
    n_classes: int,
    *,
    balanced: bool = False,
    floor: float = SPREAD_FLOOR,
) -> Probe:
    """The linear classifier with the lowest log loss on the validation images.

    Candidates are logistic regressions of several strengths and linear discriminants of several shrinkages. The first
    are better where classes are many-shaped, the second where there are few images of unusual kind: on hand signs with
    600 images 92.3 against 89.8% of the test images, on satellite tiles 83.5 against 89.3%.

    What this costs is bounded. Regressions are fitted on a sample where there are many images and classes, and not at
    all where that would have too few of each class.

    Args:
        features, labels: training images, shapes (n, dimensions) and (n,); every class occurs.
        val_features, val_labels: validation images.
        n_classes: number of classes.
        balanced: weight classes inversely to their frequency.
        floor: `SPREAD_FLOOR`, or `START_FLOOR` for a head to start fine-tuning from: only regressions then, where
            there are any.
    """
    mean, scale = features.mean(axis=0), spreads(features, floor)
    standard = _standardised(features, mean, scale)
    some = stratified_order(val_labels, 0)[:CHOSEN_ON]
    judged, truth = _standardised(val_features[some], mean, scale), val_labels[some]
    fits = _logistic(standard, labels, balanced)
    fits = fits and [min(fits, key=lambda fit: _log_loss(judged @ fit[1].T + fit[2], truth))]
    if floor == SPREAD_FLOOR or not fits:
        fits += _scaled(_discriminants(standard, labels, balanced), judged, truth)
    settings, weight, bias = min(fits, key=lambda fit: _cautious_loss(judged @ fit[1].T + fit[2], truth))
    return _on_raw_features(weight, bias, mean, scale, settings)


def fit_head(features: Features, labels: Labels, settings: HeadSettings, *, balanced: bool = False) -> Probe:
    """A linear classifier fitted as another one was; arguments as for `fit_probe`."""
    mean, scale = features.mean(axis=0), spreads(features)
    standard = _standardised(features, mean, scale)
    if settings.kind == "logistic":
        fits = _logistic(standard, labels, balanced, (settings.strength,))
    else:
        fits = _discriminants(standard, labels, balanced, (settings.strength,))
    if not fits:  # a regression that fewer classes or images allowed
        return fit_head(features, labels, UNKNOWN, balanced=balanced)
    ((_, weight, bias),) = fits
    return _on_raw_features(settings.scale * weight, settings.scale * bias, mean, scale, settings)


def save_head(probe: Probe, path: Path) -> None:
    """Write a linear probe for the workers to start from."""
    np.savez(path, weight=probe.weight, bias=probe.bias)


def spreads(features: Features, floor: float = SPREAD_FLOOR) -> Features:
    """What each feature is divided by: its deviation with a floor, added in quadrature, shape (dimensions,)."""
    deviation = features.std(axis=0)
    result: Features = np.hypot(deviation, floor * np.sqrt(np.mean(deviation**2)) + 1e-6).astype(np.float32)
    return result


def _standardised(features: Features, mean: Features, scale: Features) -> Features:
    """(features - mean) / scale, in the memory of one copy."""
    standard = features - mean
    standard /= scale
    return standard


def _on_raw_features(
    weight: Features, bias: Features, mean: Features, scale: Features, settings: HeadSettings
) -> Probe:
    """A classifier of standardised features as one of the features themselves."""
    raw = (weight / scale).astype(np.float32)
    return Probe(raw, (bias - raw @ mean).astype(np.float32), settings)


def _log_loss(logits: Features, labels: Labels) -> float:
    own = softmax(logits)[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(own, 1e-7, 1)).mean())


def _cautious_loss(logits: Features, labels: Labels) -> float:
    """The log loss if there were one more image, of any class: of few that are all right none is sure (Laplace)."""
    log_shares = logits - logits.max(axis=1, keepdims=True)
    log_shares = log_shares - np.log(np.exp(log_shares).sum(axis=1, keepdims=True))
    own = float(-log_shares[np.arange(len(labels)), labels].mean())
    unseen = 1 / (len(labels) + 2)
    return (1 - unseen) * own - unseen * float(log_shares.mean())


def _logistic(
    standard: Features, labels: Labels, balanced: bool, strengths: tuple[float, ...] = STRENGTHS
) -> list[Fit]:
    """Regressions from the strongest to the weakest regularisation, each started from the one before.

    On a stratified sample where all images would take too long; none where that would be too small.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    n_classes = int(labels.max()) + 1
    affordable = LOGISTIC_WORK // (standard.shape[1] * n_classes)
    if affordable < len(labels):
        if affordable < LEAST_PER_CLASS * n_classes:
            return []
        sample = np.sort(stratified_order(labels, 0)[:affordable])
        standard, labels = standard[sample], labels[sample]
    threads = 1 if standard.size * n_classes <= ONE_THREAD else None
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True, class_weight="balanced" if balanced else None)
    fits: list[Fit] = []
    for strength in strengths:
        model.set_params(C=strength)
        with warnings.catch_warnings(), threadpool_limits(threads, "blas"):
            # The last digits do not matter: the strength is chosen on held-out images.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # One or two images a class are what there is.
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            model.fit(standard, labels)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # two classes: scikit-learn keeps one row of log odds
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        fits.append((HeadSettings("logistic", strength), weight.astype(np.float32), bias.astype(np.float32)))
    return fits


def _discriminants(
    standard: Features, labels: Labels, balanced: bool, shrinkages: tuple[float, ...] = SHRINKAGES
) -> list[Fit]:
    """Linear discriminants: the classes are taken as normal, with means of their own and one covariance.

    In closed form, so its cost is known however many classes there are.
    """
    from scipy.linalg import cho_factor, cho_solve

    counts = np.bincount(labels).astype(np.float32)
    means = np.zeros((len(counts), standard.shape[1]), dtype=np.float32)
    for start in range(0, len(labels), ROWS_AT_ONCE):
        np.add.at(means, labels[start : start + ROWS_AT_ONCE], standard[start : start + ROWS_AT_ONCE])
    means /= np.maximum(counts, 1)[:, None]
    sample = np.sort(stratified_order(labels, 0)[:COVARIANCE_IMAGES])
    covariance = np.zeros((standard.shape[1], standard.shape[1]), dtype=np.float32)
    for start in range(0, len(sample), ROWS_AT_ONCE):
        rows = sample[start : start + ROWS_AT_ONCE]
        within = standard[rows] - means[labels[rows]]
        covariance += within.T @ within / len(sample)
    variance = max(float(np.trace(covariance)) / len(covariance), LEAST_VARIANCE)
    priors = np.zeros(len(counts)) if balanced else np.log(np.maximum(counts, 1) / counts.sum())
    fits: list[Fit] = []
    for shrinkage in shrinkages:
        shrunk = (1 - shrinkage) * covariance
        shrunk[np.diag_indices_from(shrunk)] += shrinkage * variance
        weight = cho_solve(cho_factor(shrunk), means.T).T
        bias = priors - 0.5 * (means * weight).sum(axis=1)
        settings = HeadSettings("discriminant", shrinkage)
        fits.append((settings, weight.astype(np.float32), bias.astype(np.float32)))
    return fits


def _scaled(fits: list[Fit], judged: Features, truth: Labels) -> list[Fit]:
    """Each with the scale of its logits that has the lowest log loss: normal classes are too sure of themselves."""
    scaled: list[Fit] = []
    for settings, weight, bias in fits:
        logits = judged @ weight.T + bias
        scale = min(SCALES, key=lambda factor: _cautious_loss(factor * logits, truth))
        scaled.append((replace(settings, scale=scale), scale * weight, scale * bias))
    return scaled


def knn_probabilities(features: Features, labels: Labels, queries: Features, n_classes: int, k: int = 10) -> Features:
    """Class probabilities from the `k` nearest training images by cosine, weighted by exp(similarity / 0.07).

    As in arXiv 1805.01978. `k` is at most the number of training images. An eleventh of every row is shared by all
    classes.

    Returns:
        Shape (queries, classes).
    """
    reference, asked = unit(features), unit(queries)
    k = min(k, len(reference))
    result = np.zeros((len(asked), n_classes), dtype=np.float32)
    step = max(1, SIMILARITIES // len(reference))
    for start in range(0, len(asked), step):
        block = slice(start, start + step)
        similarity = asked[block] @ reference.T
        nearest = np.argpartition(similarity, -k, axis=1)[:, -k:].copy()  # not a view that keeps the rest
        weight = np.exp((np.take_along_axis(similarity, nearest, axis=1) - 1) / 0.07)
        rows = np.arange(len(similarity))[:, None]
        np.add.at(result[block], (rows, labels[nearest]), weight)
    # A little for every class: one without a neighbour is improbable, not impossible (log loss).
    result += SMOOTHING * result.sum(axis=1, keepdims=True) / n_classes
    shares: Features = result / result.sum(axis=1, keepdims=True)
    return shares


def unit(features: Features) -> Features:
    """Rows scaled to length 1."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    result: Features = (features / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
    return result
