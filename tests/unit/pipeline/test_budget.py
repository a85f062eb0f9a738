"""How the time is divided: embedding, probing, and what is kept back for the end."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.compute.device import Speed
from autotl.pipeline.budget import EMBEDDING_SHARE, affordable_share, benefit_seconds, probing_seconds, within_reach
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


class TestTheImagesThatCanBeEmbedded:
    def test_are_those_that_take_the_share_of_the_time(self) -> None:
        # 1,000 images of 0.4 GMAC on two cores of 20 GMAC/s take 10 s, a third of which are 0.3 of 11 s.
        share, seconds = affordable_share(1000, 0.4, 11.0, Speed("fp32", 20e9), 2)
        assert seconds == pytest.approx(10.0)
        assert share == pytest.approx(EMBEDDING_SHARE * 11 / 10)

    def test_are_more_where_nothing_follows(self) -> None:
        share, _ = affordable_share(1000, 0.4, 11.0, Speed("fp32", 20e9), 2, searches=False)
        assert share == pytest.approx(0.8 * 11 / 10)

    def test_are_all_where_they_fit_or_nobody_knows_what_they_cost(self) -> None:
        assert affordable_share(1000, 0.4, 1000.0, Speed("fp32", 20e9), 2)[0] == 1.0
        assert affordable_share(10**9, 0.0, 1.0, Speed("fp32", 20e9), 2)[0] == 1.0

    def test_are_all_on_a_gpu(self) -> None:
        assert affordable_share(10**6, 0.4, 10.0, Speed("bf16", math.inf), 2)[0] == 1.0


class TestProbing:
    def test_has_half_of_the_time_where_frozen_features_serve_well_and_most_where_nothing_follows(self) -> None:
        assert probing_seconds(100.0, searches=True, serve_well=False) == pytest.approx(20.0)
        assert probing_seconds(100.0, searches=True, serve_well=True) == pytest.approx(50.0)
        assert probing_seconds(100.0, searches=False, serve_well=False) == pytest.approx(80.0)


class TestBackbonesWithinReach:
    ENTRIES = tuple(SimpleNamespace(name=name, gmacs=gmacs) for name, gmacs in (("small", 0.4), ("large", 40.0)))

    def names(self, n_images: int, timeout: float, *, searches: bool = True, speed: float = 20e9) -> list[str]:
        entries: Any = self.ENTRIES
        found = within_reach(entries, n_images, timeout, Speed("fp32", speed), 2, searches=searches)
        return [entry.name for entry in found]

    def test_are_those_that_could_be_embedded_three_times_as_fast_as_was_measured(self) -> None:
        # 1,000 images of 40 GMAC on two cores of 20 GMAC/s take 1,000 s; half of 667 s is a third of that.
        assert self.names(1000, 668.0) == ["small", "large"]
        assert self.names(1000, 666.0) == ["small"]

    def test_are_more_where_nothing_follows(self) -> None:
        assert self.names(1000, 417.0, searches=False) == ["small", "large"]
        assert self.names(1000, 416.0, searches=False) == ["small"]

    def test_are_all_on_a_gpu(self) -> None:
        assert self.names(10**9, 1.0, speed=math.inf) == ["small", "large"]
