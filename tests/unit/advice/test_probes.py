"""Noise of scores, learning curves and stage profiles on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from autotl.advice.probes import (
    DRAWN_IMAGES,
    LabelledFeatures,
    LearningCurve,
    learning_curve,
    propose_depth,
    score_draws,
    stage_profile,
    standard_error,
)
from autotl.settings import METRICS


def forecasts(share_right: float, n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sure forecasts of two classes, of which a share is right."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    right = generator.permutation(n) < round(share_right * n)
    return np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)], labels


def clouds(n: int, distance: float, dimensions: int = 20, seed: int = 0) -> LabelledFeatures:
    """Three clouds, `distance` from the origin each; a third of the images for validation."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    rows = (generator.normal(size=(n, dimensions)) + distance * np.eye(3, dimensions)[labels]).astype(np.float32)
    cut = 2 * n // 3
    return LabelledFeatures(rows[:cut], labels[:cut], rows[cut:], labels[cut:], 3)


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
    one, labels = forecasts(0.8, 200)
    other = one.copy()
    other[:2] = other[:2, ::-1]  # two images forecast otherwise
    difference = score_draws(one, labels, "accuracy") - score_draws(other, labels, "accuracy")
    assert standard_error(difference) < 0.5 * standard_error(score_draws(one, labels, "accuracy"))


def test_a_curve_grows_in_nested_parts_and_says_that_data_helps_where_it_does() -> None:
    hard = learning_curve(clouds(600, 1.2, 60), 0.01, "accuracy", balanced=False)
    assert hard.n_images == (100, 200, 400)
    assert hard.scores == tuple(sorted(hard.scores))
    assert hard.gain == pytest.approx(hard.scores[2] - hard.scores[1])
    easy = learning_curve(clouds(600, 6.0), 0.01, "accuracy", balanced=False)
    assert easy.scores[-1] > 0.99
    assert not easy.more_data_helps


@pytest.mark.parametrize(("gain", "helps"), [(0.041, True), (0.039, False), (-0.1, False)])
def test_data_helps_from_two_standard_errors_on(gain: float, helps: bool) -> None:
    assert LearningCurve((1, 2), (0.5, 0.5 + gain), (0.0, 0.0), gain, 0.02).more_data_helps is helps


def test_parts_of_very_little_data_hold_every_class() -> None:
    data = clouds(9, 3.0)
    assert learning_curve(data, 0.1, "accuracy", balanced=False).n_images == (3, 6)


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
    profile = stage_profile(stages, 0.01, "accuracy", balanced=False)
    assert list(profile.scores) == [1, 2, 3, 4, 5]
    assert profile.proposed_depth == 3
    assert all(0 < error < 0.06 for error in profile.errors.values())


def test_a_stage_where_all_are_recognised_has_an_error_of_an_image() -> None:
    profile = stage_profile({2: clouds(90, 50.0)}, 0.01, "accuracy", balanced=False)
    assert profile.scores == {2: 1.0}
    assert profile.errors == {2: pytest.approx(1 / 30)}
