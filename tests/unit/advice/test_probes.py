"""Noise of scores, learning curves and stage profiles on data whose answer is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from autotl.advice.probes import (
    DRAWN_IMAGES,
    FOLDED_IMAGES,
    LabelledFeatures,
    LearningCurve,
    folds_of,
    forecast,
    learning_curve,
    propose_depth,
    score_draws,
    stage_profile,
    standard_error,
)
from autotl.settings import METRICS
from autotl.train.probe import HeadSettings, fit_head, fit_probe

LOGISTIC, WEAK, STRONG = (HeadSettings("logistic", strength) for strength in (1.0, 0.1, 0.01))


def forecasts(share_right: float, n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sure forecasts of two classes, of which a share is right."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    right = generator.permutation(n) < round(share_right * n)
    return np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)], labels


def clouds(n: int, distance: float, dimensions: int = 20, seed: int = 0, *, folded: bool = False) -> LabelledFeatures:
    """Three clouds, `distance` from the origin each; a third of the images for validation."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    rows = (generator.normal(size=(n, dimensions)) + distance * np.eye(3, dimensions)[labels]).astype(np.float32)
    n_train = 2 * n // 3
    folds = folds_of(labels, np.arange(n), 3, own_validation=False) if folded else None
    return LabelledFeatures(rows[:n_train], labels[:n_train], rows[n_train:], labels[n_train:], 3, folds)


@pytest.mark.parametrize("n", [150, 4 * DRAWN_IMAGES])
def test_the_error_of_an_accuracy_is_that_of_a_proportion(n: int) -> None:
    draws = score_draws(*forecasts(0.8, n), "accuracy")
    assert draws.mean() == pytest.approx(0.8)
    assert standard_error(draws) == pytest.approx(np.sqrt(0.8 * 0.2 / n), rel=0.25)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_draws(metric: str) -> None:
    draws = score_draws(*forecasts(0.8, 100), metric)
    assert np.isfinite(draws).all()
    assert standard_error(draws) > 0
    assert (draws.mean() < 0) == (metric == "log_loss")


def test_draws_of_two_forecasts_are_paired() -> None:
    first, labels = forecasts(0.8, 200)
    other = first.copy()
    other[:2] = other[:2, ::-1]  # two images forecast otherwise
    difference = score_draws(first, labels, "accuracy") - score_draws(other, labels, "accuracy")
    assert standard_error(difference) < 0.5 * standard_error(score_draws(first, labels, "accuracy"))


def test_a_curve_grows_in_nested_parts_and_shows_that_data_helps_where_it_does() -> None:
    hard = learning_curve(clouds(600, 1.2, 60), STRONG, "accuracy", balanced=False)
    assert hard is not None
    assert hard.n_images == (100, 200, 400)
    assert hard.scores == tuple(sorted(hard.scores))
    assert hard.gain == pytest.approx(hard.scores[2] - hard.scores[1])
    easy = learning_curve(clouds(600, 6.0), STRONG, "accuracy", balanced=False)
    assert easy is not None
    assert easy.scores[-1] > 0.99
    assert not easy.more_data_helps


@pytest.mark.parametrize(("gain", "helps"), [(0.041, True), (0.039, False), (-0.1, False)])
def test_data_helps_from_two_standard_errors_on(gain: float, helps: bool) -> None:
    assert LearningCurve((1, 2), (0.5, 0.5 + gain), (0.0, 0.0), gain, 0.02).more_data_helps is helps


def test_parts_of_very_little_data_hold_every_class() -> None:
    data = clouds(9, 3.0)
    curve = learning_curve(data, WEAK, "accuracy", balanced=False)
    assert curve is not None
    assert curve.n_images == (3, 6)


def test_one_image_a_class_makes_no_curve() -> None:
    data = clouds(9, 3.0)
    tiny = dataclasses.replace(data, train=data.train[:3], train_labels=data.train_labels[:3])
    assert learning_curve(tiny, WEAK, "accuracy", balanced=False) is None


def test_stages_without_a_score_propose_nothing() -> None:
    assert propose_depth({2: math.nan, 4: 0.9, 8: math.nan}, dict.fromkeys((2, 4, 8), 0.1)) == 4
    assert propose_depth({2: math.nan, 8: math.nan}, {2: 0.1, 8: 0.1}) == 8


def test_the_proposed_depth_is_the_deepest_within_an_error_of_the_best() -> None:
    errors = dict.fromkeys(range(1, 9), 0.02)
    profile = {1: 0.3, 2: 0.5, 3: 0.7, 4: 0.90, 5: 0.91, 6: 0.895, 7: 0.88, 8: 0.80}
    assert propose_depth(profile, errors) == 6
    assert propose_depth(profile | {8: 0.89}, errors) == 8
    assert propose_depth(profile, dict.fromkeys(errors, 0.0)) == 5
    assert propose_depth(profile, errors | {5: 0.2}) == 8  # the error of the best counts
    assert propose_depth({2: -0.5, 4: -0.1, 8: -0.3}, dict.fromkeys((2, 4, 8), 0.05)) == 4


def test_features_that_are_lost_after_a_stage_propose_that_stage() -> None:
    # Clouds that are far apart at stage 3, and nearer again behind it, as features that became too specific.
    stages = {depth: clouds(450, distance) for depth, distance in {1: 0.5, 2: 1.5, 3: 5.0, 4: 1.5, 5: 1.0}.items()}
    profile = stage_profile(stages, STRONG, "accuracy", balanced=False)
    assert list(profile.scores) == [1, 2, 3, 4, 5]
    assert profile.proposed_depth == 3
    assert all(0 < error < 0.06 for error in profile.errors.values())


def test_a_stage_where_all_are_recognised_has_an_error_of_an_image() -> None:
    profile = stage_profile({2: clouds(90, 50.0)}, STRONG, "accuracy", balanced=False)
    assert profile.scores == {2: 1.0}
    assert profile.errors == {2: pytest.approx(1 / 30)}


def test_folded_forecasts_are_of_images_that_were_not_seen() -> None:
    # Labels without any meaning: whoever has seen an image knows its label, its nearest neighbour being itself.
    data = clouds(150, 0.0, dimensions=300, folded=True)
    probe = fit_head(data.train, data.train_labels, LOGISTIC)
    found = forecast(data, probe, balanced=False)
    assert np.bincount(found.labels).tolist() == [50, 50, 50]
    for probabilities in (found.probe, found.neighbours):
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
        assert (probabilities.argmax(1) == found.labels).mean() < 0.5
    assert (probe.probabilities(data.train).argmax(1) == data.train_labels).mean() > 0.9


def test_folded_forecasts_agree_with_those_of_validation_images() -> None:
    data = clouds(600, 2.0, folded=True)
    probe = fit_probe(data.train, data.train_labels, data.val, data.val_labels, 3)
    folded = forecast(data, probe, balanced=False)
    right = (folded.probe.argmax(1) == folded.labels).mean()
    assert right == pytest.approx((probe.probabilities(data.val).argmax(1) == data.val_labels).mean(), abs=0.04)


def test_curve_and_stages_are_scored_on_all_images_where_these_are_few() -> None:
    data = clouds(60, 2.0, folded=True)
    curve = learning_curve(data, STRONG, "accuracy", balanced=False)
    assert curve is not None
    assert curve.n_images == (12, 24, 48)
    assert {round(60 * score, 6) % 1 for score in curve.scores} == {0.0}, "shares of 60 images"
    profile = stage_profile({4: clouds(60, 1.0, folded=True), 8: data}, STRONG, "accuracy", balanced=False)
    assert profile.scores[8] == curve.scores[-1] > profile.scores[4]


def test_a_stage_of_noise_scores_chance_however_few_images_there_are() -> None:
    # 60 images in 300 dimensions: every fit is perfect on what it has seen.
    scores = [
        stage_profile({1: clouds(60, 0.0, 300, seed, folded=True)}, LOGISTIC, "accuracy", balanced=False).scores[1]
        for seed in range(5)
    ]
    assert np.mean(scores) == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize(
    ("n", "rare", "own_validation", "folded"),
    [(60, 5, False, True), (60, 4, False, False), (60, 5, True, False), (FOLDED_IMAGES + 1, 5, False, False)],
)
def test_images_are_forecast_in_turn_if_they_are_few_of_each_class_enough_and_not_split_by_the_user(
    n: int, rare: int, own_validation: bool, folded: bool
) -> None:
    labels = np.r_[np.zeros(n - rare, dtype=np.int64), np.ones(rare, dtype=np.int64)]
    assert (folds_of(labels, np.arange(n), 2, own_validation=own_validation) is not None) == folded
