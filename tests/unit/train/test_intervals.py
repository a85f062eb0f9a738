"""Intervals: published values, closed forms, and how often they hold the truth."""

from __future__ import annotations

from statistics import mean

import numpy as np
import pytest
from coverage import coverage

from autotl.train.intervals import (
    Confusions,
    balanced_accuracy_interval,
    f1_macro_interval,
    mean_interval,
    roc_auc_interval,
    wilson_interval,
)


# Newcombe (1998), Statistics in Medicine 17, table I, method 3.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_has_the_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_symmetric() -> None:
    low, high = wilson_interval(3, 17)
    assert wilson_interval(14, 17) == pytest.approx((1 - high, 1 - low))


def test_wilson_interval_stays_within_zero_and_one() -> None:
    for n in (1, 7, 1000):
        assert wilson_interval(0, n)[0] >= 0
        assert wilson_interval(n, n)[1] <= 1


def test_wilson_interval_widens_with_the_level() -> None:
    narrow, wide = wilson_interval(30, 100, 0.8), wilson_interval(30, 100, 0.99)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


@pytest.mark.parametrize("n", [0, -1])
def test_wilson_interval_of_nothing_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        wilson_interval(0, n)


def test_of_equally_many_images_a_class_balanced_accuracy_is_a_proportion() -> None:
    labels = np.repeat([0, 1], 50)
    predicted = labels.copy()
    predicted[[0, 1, 2, 50, 51, 52]] = 1 - labels[[0, 1, 2, 50, 51, 52]]
    assert balanced_accuracy_interval(predicted, labels) == pytest.approx(wilson_interval(94, 100), abs=0.01)


def test_one_image_of_a_class_says_little_of_its_recall() -> None:
    labels = np.array([0] * 99 + [1])
    low, high = balanced_accuracy_interval(labels, labels)
    assert high == 1.0
    assert low < 0.65  # the recall of the second may be as low as 0.2


def test_f1_of_two_even_classes_is_as_sure_as_accuracy() -> None:
    labels = np.repeat([0, 1], 100)
    predicted = labels.copy()
    predicted[::10] = 1 - labels[::10]
    assert f1_macro_interval(predicted, labels) == pytest.approx(wilson_interval(180, 200), abs=0.005)


def test_the_sums_of_a_confusion_matrix() -> None:
    confusions = Confusions(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]))
    assert confusions.images.tolist() == [1, 3, 0]
    assert confusions.hits.tolist() == [1, 1, 0]
    assert confusions.taken.tolist() == [2, 1, 1]
    assert confusions.of_labels(np.array([1.0, 10.0, 100.0])).tolist() == [1, 111, 0]
    assert confusions.of_predictions(np.array([1.0, 10.0, 100.0])).tolist() == [11, 10, 10]


# Newcombe (2006), doi:10.1002/sim.2324: the ends solve |estimate - truth| = 1.96 standard errors of the truth.
@pytest.mark.parametrize(("area", "positives", "n"), [(0.8, 10, 30), (0.95, 40, 80), (1.0, 5, 105), (0.0, 5, 10)])
def test_the_ends_of_an_area_are_a_standard_errors_multiple_away(area: float, positives: int, n: int) -> None:
    for truth in roc_auc_interval(area, np.array([float(positives)]), n):
        pairs = positives * (n - positives)
        more = (n / 2 - 1) * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        error = (truth * (1 - truth) / pairs * (1 + more)) ** 0.5
        assert abs(truth - area) == pytest.approx(1.959964 * error, abs=1e-6)


def test_the_bootstrap_of_a_mean_is_as_wide_as_four_standard_errors() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = mean_interval(values)
    assert (high - low) / (2 * 1.96 * values.std() / 20) == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("counts", [(15, 15), (57, 3), (10,) * 10])
@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1_macro", "roc_auc"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(metric: str, counts: tuple[int, ...]) -> None:
    shares, _ = coverage(metric, np.array(counts), repeats=25, recalls=(0.6, 0.9, 0.97))
    assert mean(shares) > 0.85
