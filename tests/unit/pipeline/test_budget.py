"""What is kept back of the time for the end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.pipeline.budget import benefit_seconds
from autotl.settings import Budget, FitSettings


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
