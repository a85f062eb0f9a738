"""Configs that are tried first: those of scenario and strategy, inside the scenario's space, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autotl.advice.evidence import BackboneEvidence
from autotl.advice.scenario import SCENARIOS, Scenario, Strategy
from autotl.advice.start_points import StartPoint, choose_start_points, depth_of, first_depths, start_points_of
from autotl.models.catalog import load_catalog
from autotl.space.files import load_space

MakeEvidence = Callable[..., BackboneEvidence]
Starts = Callable[..., tuple[StartPoint, ...]]

PARTIAL: Strategy = "freeze the first stages, train the rest"
NUMBERS = (1, 2, 3, 4)
"""Of the scenarios."""
STAGES = sorted({entry.stages for entry in load_catalog()} | {1, 2, 3})

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.space)


@pytest.fixture(scope="module")
def starts(make_evidence: MakeEvidence) -> Starts:
    """A function that chooses start points in the scenario of a number, best.model ahead of the faster second.model."""

    def choose(
        number: int, best: BackboneEvidence | None = None, n_stages: tuple[int, int] = (8, 8)
    ) -> tuple[StartPoint, ...]:
        scenario = SCENARIOS[number - 1]
        first = best or make_evidence("best.model", 0.9, 100.0, n_stages[0])
        second = make_evidence("second.model", 0.7, 300.0, n_stages[1])
        return choose_start_points(scenario, scenario.strategy, (first, second))

    return choose


def depths(points: tuple[StartPoint, ...]) -> list[int]:
    return [point.config["freeze_depth"] for point in points]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("n_stages", STAGES)
def test_clipped_start_points_lie_in_the_space(starts: Starts, number: int, n_stages: int) -> None:
    configs = [point.config for point in starts(number, n_stages=(n_stages, 5))]
    stages = {"best.model": n_stages, "second.model": 5}
    space = load_space(SCENARIOS[number - 1].space).narrow(backbone=tuple(stages))
    clipped = [space.clip(config, stages) for config in configs]
    assert all(space.contains(config, stages) for config in clipped)
    # Nothing is lost by clipping: backbones, weights, rates and augmentation were on offer.
    for config, original in zip(clipped, configs, strict=True):
        kept = [name for name in config if name not in ("freeze_depth", "layer_decay")]
        assert {name: config[name] for name in kept} == {name: original[name] for name in kept}


@pytest.mark.parametrize("number", NUMBERS)
def test_start_points_differ_and_need_no_clipping_with_eight_stages(starts: Starts, number: int) -> None:
    configs = [point.config for point in starts(number)]
    stages = {"best.model": 8, "second.model": 8}
    space = load_space(SCENARIOS[number - 1].space).narrow(backbone=tuple(stages))
    assert all(space.contains(config, stages) for config in configs)
    clipped = [space.clip(config, stages) for config in configs]
    assert all(config not in clipped[:place] for place, config in enumerate(clipped))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("n_stages", STAGES)
def test_no_config_is_tried_twice(starts: Starts, number: int, n_stages: int) -> None:
    configs = [point.config for point in starts(number, n_stages=(n_stages, 5))]
    assert all(config not in configs[:place] for place, config in enumerate(configs))


def test_start_points_begin_with_the_best_backbone_and_try_the_second(starts: Starts) -> None:
    assert [point.config["backbone"] for point in starts(1)] == ["best.model"] * 3 + ["second.model"]


def test_small_similar_data_starts_more_frozen_than_large_dissimilar_data(starts: Starts) -> None:
    assert [depths(starts(number))[0] for number in NUMBERS] == [7, 5, 5, 6]
    assert min(depths(starts(1))) == 5
    assert min(depths(starts(4))) == 0


def test_training_from_scratch_starts_on_the_fastest_backbone_in_scenario_3_only(starts: Starts) -> None:
    scratch: dict[int, list[dict[str, Any]]] = {
        number: [point.config for point in starts(number) if point.config["initial_weights"] == "scratch"]
        for number in NUMBERS
    }
    assert [len(scratch[number]) for number in NUMBERS] == [0, 0, 1, 0]
    assert scratch[3][0]["backbone"] == "second.model"
    assert scratch[3][0]["freeze_depth"] == 0


def test_a_depth_of_the_stage_probes_is_tried_after_the_scenarios(starts: Starts, probed_closely: MakeEvidence) -> None:
    found = starts(3, probed_closely(6))
    assert depths(found)[:4] == [5, 0, 4, 6]
    assert [point.reason for point in found[:4]] == [
        "trains 5 stages fewer",
        "the strategy",
        "trains 4 stages fewer",
        "proposed by the stage probes",
    ]


def test_a_depth_that_the_scenario_names_as_well_is_tried_once(starts: Starts, probed_closely: MakeEvidence) -> None:
    found = starts(2, probed_closely(6))
    assert depths(found)[:3] == [5, 6, 4]
    assert found[1].reason == "trains 1 stage fewer, proposed by the stage probes"


def test_freezing_everything_is_no_trial_since_the_probe_is_there(starts: Starts, probed_closely: MakeEvidence) -> None:
    assert starts(2, probed_closely(8)) == starts(2, probed_closely(None))


@pytest.mark.parametrize("n_stages", STAGES)
@every_scenario
def test_first_depths_are_those_of_the_first_start_points(
    make_evidence: MakeEvidence, scenario: Scenario, n_stages: int
) -> None:
    found = first_depths(scenario, scenario.strategy, n_stages)
    points = choose_start_points(scenario, scenario.strategy, [make_evidence("only.model", 0.9, n_stages=n_stages)])
    pretrained = tuple(point for point in points if point.config["initial_weights"] == "pretrained")
    # Depths that fall together are tried once, unless their learning rates differ.
    assert list(dict.fromkeys(depths(pretrained))) == list(dict.fromkeys(found))
    assert all(0 <= depth < n_stages for depth in found)


@pytest.mark.parametrize(("number", "found"), [(1, (7, 6, 5)), (2, (5, 6, 4)), (3, (5, 0, 4)), (4, (6, 0, 4))])
def test_first_depths_of_eight_stages(number: int, found: tuple[int, ...]) -> None:
    scenario = SCENARIOS[number - 1]
    assert first_depths(scenario, scenario.strategy, 8) == found


def test_first_depths_freeze_less_where_frozen_features_leave_headroom() -> None:
    assert first_depths(SCENARIOS[0], PARTIAL, 8) == (6, 7, 4)
    assert first_depths(SCENARIOS[0], PARTIAL, 5) == (3, 4, 2)


@every_scenario
@pytest.mark.parametrize("n_stages", STAGES)
def test_a_strategy_means_all_stages_none_or_the_depth_of_its_first_try(scenario: Scenario, n_stages: int) -> None:
    assert depth_of(scenario, "feature extraction", n_stages) == n_stages
    assert depth_of(scenario, "fine-tune everything", n_stages) == 0
    assert depth_of(scenario, PARTIAL, n_stages) == first_depths(scenario, PARTIAL, n_stages)[0]


def test_start_points_of_a_duplicate_are_those_of_the_backbone_that_stands_for_it() -> None:
    points = [("b", 1), ("a", 1), ("run/a", 1), ("a", 0), ("not searched", 1)]
    configs = [{"backbone": name, "freeze_depth": depth} for name, depth in points]
    found = start_points_of(configs, ("b", "run/a"), {"a": "run/a"})
    assert [(config["backbone"], config["freeze_depth"]) for config in found] == [("b", 1), ("run/a", 1), ("run/a", 0)]
