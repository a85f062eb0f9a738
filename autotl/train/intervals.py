"""95% intervals of metrics, right at the boundary, too: 20 of 20 recognised images are not "100 to 100%".

Images count as drawn within their classes, whose sizes are given. `benchmarks/coverage.py` measures how often the
intervals hold the truth.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

LEVEL = 0.95
Z = float(norm.ppf(0.5 + LEVEL / 2))
PRIOR_IMAGES = 2.0
"""Images that every class is taken to have besides its own, as often recognised as all images are.

The variance of a recall is estimated with them: from the one image of a class, recognised or not, none would follow.
"""
TINY = 1e-9
DRAWS = 500
DRAWN_AT_ONCE = 2**22
"""Images of bootstrap draws that are in memory at once."""


def wilson_interval(successes: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a proportion (doi:10.1080/01621459.1927.10502953).

    Args:
        successes, n: may be fractions, for an effective number of images.
        level: coverage.

    Raises:
        ValueError: if `n` is not positive.
    """
    if n <= 0:
        raise ValueError(f"n must be positive, not {n}")
    low, high = _wilson(np.array([successes]), np.array([n]), float(norm.ppf(0.5 + level / 2)))
    return float(low[0]), float(high[0])


def _wilson(successes: Floats, n: Floats, z: float = Z) -> tuple[Floats, Floats]:
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(np.maximum(successes * (n - successes) / n, 0.0) + z * z / 4)
    low: Floats = np.where(successes <= 0, 0.0, np.maximum(centre - half, 0.0))
    high: Floats = np.where(successes >= n, 1.0, np.minimum(centre + half, 1.0))
    return low, high


class Confusions:
    """How many images of every class are recognised, and how many are taken for it.

    Args:
        predicted, labels: class numbers, shape (images,).

    Attributes:
        images, hits, taken: of every class, shape (classes,).
    """

    def __init__(self, predicted: Labels, labels: Labels) -> None:
        size = int(max(predicted.max(), labels.max())) + 1
        self.images = np.bincount(labels, minlength=size).astype(float)
        self.hits = np.bincount(labels[predicted == labels], minlength=size).astype(float)
        self.taken = np.bincount(predicted, minlength=size).astype(float)
        self._predicted, self._labels = predicted, labels

    def of_labels(self, values: Floats) -> Floats:
        """For every true class the sum of `values` over the predictions of its images, shape (classes,)."""
        sums = np.bincount(self._labels, weights=values[self._predicted], minlength=len(self.images))
        return sums.astype(float)

    def of_predictions(self, values: Floats) -> Floats:
        """For every class the sum of `values` over the true classes of the images that are taken for it."""
        sums = np.bincount(self._predicted, weights=values[self._labels], minlength=len(self.images))
        return sums.astype(float)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that occur."""
        occurs = self.images > 0
        return float((self.hits[occurs] / self.images[occurs]).mean())

    @property
    def f1_macro(self) -> float:
        """Mean F1 of the classes that occur or are predicted."""
        both = self.images + self.taken
        return float((2 * self.hits[both > 0] / both[both > 0]).mean())

    @property
    def share_recognised(self) -> float:
        """Of all images, with one more that is recognised and one that is not: never 0 or 1."""
        return float((self.hits.sum() + 1) / (self.images.sum() + 2))


def balanced_accuracy_interval(predicted: Labels, labels: Labels) -> tuple[float, float]:
    """Of the mean recall of the classes that occur: the wider end of two intervals, each of which is wider where it
    has to be.

    With few images a class: Wilson's for the number of equally weighted images with the same variance (as for surveys,
    Kott and Carr 1997). With unequal classes: the squares of Wilson's half widths of each class add up (Newcombe,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).
    """
    confusions = Confusions(predicted, labels)
    occurs = confusions.images > 0
    images, hits = confusions.images[occurs], confusions.hits[occurs]
    recalls, count = hits / images, int(occurs.sum())
    shrunk = (hits + PRIOR_IMAGES * confusions.share_recognised) / (images + PRIOR_IMAGES)
    variance = float((shrunk * (1 - shrunk) / images).sum()) / count**2
    value = confusions.balanced_accuracy
    low, high = _with_variance(value, float(shrunk.mean()), variance)
    lows, highs = _wilson(hits, images)
    below, above = (float(np.sqrt(((ends - recalls) ** 2).sum())) / count for ends in (lows, highs))
    return min(low, value - below), min(1.0, max(high, value + above))


def f1_macro_interval(predicted: Labels, labels: Labels) -> tuple[float, float]:
    """Of the mean F1 of the classes that occur or are predicted: Wilson's for the number of images with its variance.

    The variance is the delta method's (as in doi:10.1007/s10489-021-02635-5), at shares that are shrunk as those of
    `balanced_accuracy_interval` are.
    """
    confusions = Confusions(predicted, labels)
    images, right = confusions.images, confusions.share_recognised
    size = len(images)
    prior = PRIOR_IMAGES / (images + PRIOR_IMAGES)  # share of what is taken for granted, by true class
    spread = (1 - right) / max(1, size - 1)  # of a wrong image over each of the other classes

    def expected(values: Floats) -> Floats:
        """By true class, the mean of `values` over its predictions."""
        own = confusions.of_labels(values) / np.maximum(images, 1.0)
        assumed = right * values + spread * (values.sum() - values)
        result: Floats = (1 - prior) * own + prior * assumed
        return result

    recalls = (1 - prior) * confusions.hits / np.maximum(images, 1.0) + prior * right
    hits = images * recalls
    assumed = images * prior
    taken = confusions.of_predictions(1 - prior) + spread * (assumed.sum() - assumed) + right * assumed
    used = images + confusions.taken > 0
    both = np.where(used, images + taken, 1.0)
    f1 = np.where(used, 2 * hits / both, 0.0)
    own, every = np.where(used, 2 / both, 0.0), np.where(used, -f1 / both, 0.0)
    # An image of class i that is predicted as j moves the sum of F1 by every[j], and by own[i] if j is i.
    first = expected(every) + recalls * own
    second = expected(every**2) + recalls * (own**2 + 2 * own * every)
    variance = float((images * np.maximum(second - first**2, 0.0)).sum()) / int(used.sum()) ** 2
    return _with_variance(confusions.f1_macro, float(f1[used].mean()), variance)


def _with_variance(value: float, shrunk: float, variance: float) -> tuple[float, float]:
    """Wilson's interval for so many images that a proportion of `shrunk` would have this variance."""
    n = shrunk * (1 - shrunk) / max(variance, 1e-12)
    return wilson_interval(value * n, n)


def roc_auc_interval(area: float, positives: Floats, n_images: int) -> tuple[float, float]:
    """Of the mean area of several classes against the rest: the areas that differ from it by less than 1.96 of the
    standard errors that they would have themselves.

    Hanley and McNeil's standard errors with Newcombe's sizes (method 5 of doi:10.1002/sim.2324); those of several
    classes are taken as independent.

    Args:
        area: the mean.
        positives: images of each of these classes, shape (classes,).
        n_images: all of them.
    """
    negatives = n_images - positives

    def standard_error(truth: float) -> float:
        more = (n_images / 2 - 1) * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        variances = truth * (1 - truth) / (positives * negatives) * (1 + more)
        return math.sqrt(float(variances.sum())) / len(positives)

    def distance(truth: float) -> float:
        return abs(truth - area) - Z * standard_error(truth)

    inside = min(max(area, TINY), 1 - TINY)  # at 0 and 1 the standard error is 0
    low = 0.0 if distance(0.0) <= 0 else float(brentq(distance, 0.0, inside))
    high = 1.0 if distance(1.0) <= 0 else float(brentq(distance, inside, 1.0))
    return low, high


def mean_interval(values: Floats, seed: int = 0) -> tuple[float, float]:
    """Of a mean, by the percentile bootstrap; `values` has shape (images,)."""
    generator = np.random.default_rng(seed)
    n = len(values)
    at_once = max(1, DRAWN_AT_ONCE // n)
    means = [
        values[generator.integers(0, n, (min(at_once, DRAWS - done), n))].mean(axis=1)
        for done in range(0, DRAWS, at_once)
    ]
    low, high = np.percentile(np.concatenate(means), [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    return float(low), float(high)
