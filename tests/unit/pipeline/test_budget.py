"""How the time given is divided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.advice.benefit import compare_curves
from autotl.pipeline.budget import (
    FEWEST_EPOCHS,
    FEWEST_VIEWS,
    FULL_TRIALS_WANTED,
    MOST_EPOCHS,
    MOST_VIEWS,
    SCRATCH_EPOCHS,
    VIEWS_SHARE,
    benefit_seconds,
    plan_epochs,
    plan_views,
)
from autotl.settings import Budget, FitSettings
from autotl.space.files import load_space

POINTS: list[dict[str, Any]] = [{"freeze_depth": depth} for depth in (2, 5, 8)]


def predict(config: dict[str, Any], n_epochs: int, views_from: int) -> float:
    return 10.0 + n_epochs * (10.0 - config["freeze_depth"])


@pytest.mark.parametrize(
    ("seconds_a_trial", "expected"), [(10.0 + 5 * 7, 7), (10.0 + 5 * 7.9, 7), (1.0, FEWEST_EPOCHS), (1e6, MOST_EPOCHS)]
)
def test_so_many_full_trials_of_the_typical_start_point_fit(seconds_a_trial: float, expected: int) -> None:
    space = load_space("default")
    assert plan_epochs(space, POINTS, predict, FULL_TRIALS_WANTED * seconds_a_trial) == expected


def test_a_space_that_sets_its_epochs_is_obeyed() -> None:
    assert plan_epochs(replace(load_space("default"), max_t=33), POINTS, predict, 1.0) == 33


def test_without_start_points_there_are_epochs_all_the_same() -> None:
    assert plan_epochs(load_space("default"), [], predict, 1e6) == MOST_EPOCHS


POINT = {"backbone": "some.model", "freeze_depth": 5}


def predict_views(config: dict[str, Any], epochs: int, views_from: int) -> float:
    """An epoch takes 3 s; the views 40 s, unless they are cached at the depth of the config."""
    return 3.0 * epochs + (0.0 if views_from == config["freeze_depth"] else 40.0)


@pytest.mark.parametrize(
    ("seconds", "views"), [(40 / VIEWS_SHARE, MOST_VIEWS), (39 / VIEWS_SHARE, FEWEST_VIEWS), (0.0, FEWEST_VIEWS)]
)
def test_the_last_view_is_computed_where_views_take_a_small_share_of_the_time(seconds: float, views: int) -> None:
    assert plan_views([POINT], 4, predict_views, seconds) == views


def test_without_anything_frozen_views_cost_nothing() -> None:
    assert plan_views([POINT | {"freeze_depth": 0}], 4, predict_views, 1.0) == MOST_VIEWS
    assert plan_views([], 4, predict_views, 1.0) == MOST_VIEWS


def settings(timeout: float, *, asked: bool = False) -> FitSettings:
    return FitSettings(Path("photos"), Budget(timeout), measure_benefit=asked)


def backbones(*speeds: float) -> Any:
    return tuple(SimpleNamespace(images_per_second=speed) for speed in speeds)


ALL = backbones(100.0, 50.0, 200.0)


def advice(*, scratch: bool) -> Any:
    return SimpleNamespace(scenario=SimpleNamespace(scratch=scratch))


class TestTheBenefitOfPretraining:
    def test_a_fifth_of_the_time_is_kept_back_where_it_is_asked_for(self) -> None:
        assert benefit_seconds(settings(600.0, asked=True), advice(scratch=False), 10**6, ALL) == pytest.approx(120.0)

    def test_without_being_asked_only_the_scenario_for_scratch_gets_it(self) -> None:
        assert benefit_seconds(settings(600.0), advice(scratch=False), 100, ALL) == 0.0
        assert benefit_seconds(settings(600.0), advice(scratch=True), 100, ALL) == pytest.approx(120.0)

    def test_and_only_where_two_epochs_of_both_can_fit_with_the_slowest_backbone(self) -> None:
        # Two epochs of four passes over 375 images at 50 images/s are 60 s, and twice that for two trainings.
        assert benefit_seconds(settings(600.0), advice(scratch=True), 375, ALL) == pytest.approx(120.0)
        assert benefit_seconds(settings(600.0), advice(scratch=True), 376, ALL) == 0.0

    def test_a_slow_backbone_that_is_not_searched_does_not_count(self) -> None:
        searched = backbones(100.0, 200.0)
        assert benefit_seconds(settings(600.0), advice(scratch=True), 750, searched) == pytest.approx(120.0)
        assert benefit_seconds(settings(600.0), advice(scratch=True), 751, searched) == 0.0

    def test_the_epochs_wanted_can_decide_in_the_shortest_trial(self) -> None:
        curve = (0.5,) * (SCRATCH_EPOCHS + 1)
        shortest = compare_curves(curve, curve, "accuracy", 100, backbone="resnet18", planned=FEWEST_EPOCHS)
        assert shortest.verdict != "undecided"
