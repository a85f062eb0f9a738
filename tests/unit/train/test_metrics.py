"""Metrics against scikit-learn, closed forms and published intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from autotl.settings import METRICS
from autotl.train.metrics import (
    accuracy,
    all_metrics,
    balanced_accuracy,
    default_metric,
    estimate,
    f1_macro,
    log_loss,
    majority_score,
    roc_auc,
    score_of,
)


def sample(n_classes: int, seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Informative but imperfect probabilities with imbalanced labels."""
    generator = np.random.default_rng(seed)
    shares = np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum()
    labels = generator.choice(n_classes, n, p=shares)
    logits = generator.normal(size=(n, n_classes)) + 1.2 * np.eye(n_classes)[labels]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_metrics_agree_with_scikit_learn(n_classes: int) -> None:
    probabilities, labels = sample(n_classes)
    predicted = probabilities.argmax(1)
    auc = (
        sk.roc_auc_score(labels, probabilities[:, 1])
        if n_classes == 2
        else sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    assert all_metrics(probabilities, labels) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(labels, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "f1_macro": sk.f1_score(labels, predicted, average="macro"),
            "log_loss": sk.log_loss(labels, probabilities),
            "roc_auc": auc,
        },
        abs=1e-9,
    )


def test_all_metrics_are_those_the_user_may_choose() -> None:
    assert set(all_metrics(*sample(3))) == set(METRICS)


def test_roc_auc_counts_ties_as_half() -> None:
    labels = np.array([0, 1, 0, 1])
    scores = np.array([0.2, 0.2, 0.2, 0.9])
    # Of four pairs, two are won and two are tied.
    assert roc_auc(np.stack([1 - scores, scores], 1), labels) == pytest.approx(0.75)


def test_roc_auc_of_one_class_is_not_a_number() -> None:
    assert math.isnan(roc_auc(np.full((4, 2), 0.5), np.zeros(4, dtype=np.int64)))


def test_roc_auc_skips_classes_without_images() -> None:
    probabilities, labels = sample(3)
    kept = labels != 2
    assert roc_auc(probabilities[kept], labels[kept]) == pytest.approx(
        np.mean([sk.roc_auc_score(labels[kept] == label, probabilities[kept][:, label]) for label in (0, 1)])
    )


def test_accuracy_weights_images_and_balanced_accuracy_classes() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    always_first = np.tile([0.9, 0.1], (10, 1))
    assert accuracy(always_first, labels) == pytest.approx(0.8)
    assert balanced_accuracy(always_first, labels) == pytest.approx(0.5)


def test_balanced_accuracy_ignores_classes_without_images() -> None:
    assert balanced_accuracy(np.eye(3)[[0, 1]], np.array([0, 1])) == 1.0


def test_f1_counts_a_class_that_is_only_predicted_as_zero() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 2]]
    # F1 of class 0 is 1, of class 1 is 2/3, of class 2 is 0.
    assert f1_macro(probabilities, np.array([0, 0, 1, 1])) == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_log_loss_of_uniform_probabilities_is_the_logarithm_of_the_number_of_classes() -> None:
    assert log_loss(np.full((6, 4), 0.25), np.arange(6) % 4) == pytest.approx(math.log(4))


def test_log_loss_of_certain_mistakes_is_clipped() -> None:
    assert log_loss(np.eye(2)[[0]], np.array([1])) == pytest.approx(7 * math.log(10))


def test_score_of_log_loss_is_negated() -> None:
    assert score_of({"log_loss": 0.7}, "log_loss") == -0.7
    assert score_of({"accuracy": 0.7}, "accuracy") == 0.7


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_score_of_what_is_not_finite_is_not_a_number(metric: str, value: float) -> None:
    assert math.isnan(score_of({metric: value}, metric))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([10, 10], "accuracy"), ([29, 10], "accuracy"), ([30, 10], "balanced_accuracy"), ([5, 0], "balanced_accuracy")],
)
def test_default_metric_is_balanced_from_a_ratio_of_three(counts: list[int], expected: str) -> None:
    assert default_metric(np.array(counts)) == expected


def test_estimate_of_accuracy_has_wilsons_interval() -> None:
    labels = np.zeros(263, dtype=np.int64)
    probabilities = np.eye(2)[[0] * 81 + [1] * 182]
    found = estimate("accuracy", probabilities, labels)
    assert (found.value, found.low, found.high) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)
    assert found.n_images == 263


@pytest.mark.parametrize("metric", METRICS)
def test_an_interval_holds_the_value(metric: str) -> None:
    found = estimate(metric, *sample(3, n=60))
    assert found.low < found.value < found.high


@pytest.mark.parametrize("metric", METRICS)
def test_an_interval_shrinks_with_the_root_of_the_sample(metric: str) -> None:
    probabilities, labels = sample(3, n=100)
    small = estimate(metric, probabilities, labels)
    large = estimate(metric, np.tile(probabilities, (16, 1)), np.tile(labels, 16))
    assert (small.high - small.low) / (large.high - large.low) == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1_macro", "roc_auc"])
def test_twenty_of_twenty_are_not_certain(metric: str) -> None:
    labels = np.arange(20) % 2
    found = estimate(metric, np.eye(2)[labels] * 0.8 + 0.1, labels)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.75 < found.low < 0.9


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1_macro", "roc_auc"])
def test_none_of_twenty_is_not_hopeless(metric: str) -> None:
    labels = np.arange(20) % 2
    found = estimate(metric, np.eye(2)[1 - labels] * 0.8 + 0.1, labels)
    assert (found.value, found.low) == (0.0, 0.0)
    assert 0.1 < found.high < 0.35


def test_where_only_one_class_occurs_the_area_has_no_interval() -> None:
    found = estimate("roc_auc", np.full((4, 2), 0.5), np.zeros(4, dtype=np.int64))
    assert all(map(math.isnan, (found.value, found.low, found.high)))


def test_the_bootstrap_of_the_log_loss_repeats_with_the_seed() -> None:
    probabilities, labels = sample(3, n=60)
    first = estimate("log_loss", probabilities, labels, seed=1)
    assert estimate("log_loss", probabilities, labels, seed=1) == first
    assert estimate("log_loss", probabilities, labels, seed=2) != first


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", 0.5),
        ("balanced_accuracy", 1 / 3),
        ("f1_macro", 2 / 3 / 3),  # precision 1/2, recall 1 for the largest class; 0 for the others
        ("log_loss", -(0.5 * math.log(1 / 0.6) + 0.25 * math.log(1 / 0.3) + 0.25 * math.log(1 / 0.1))),
        ("roc_auc", 0.5),
    ],
)
def test_the_majority_class_baseline_knows_only_the_shares_of_the_training_images(metric: str, expected: float) -> None:
    train = np.repeat([2, 0, 1], [6, 3, 1])
    labels = np.array([2, 2, 0, 1])
    assert majority_score(metric, train, labels, 3) == pytest.approx(expected)


def test_a_class_without_training_images_costs_the_majority_class_baseline_much_but_not_everything() -> None:
    score = majority_score("log_loss", np.array([0, 0]), np.array([0, 1]), 2)
    assert score == pytest.approx(math.log(1e-7) / 2)
