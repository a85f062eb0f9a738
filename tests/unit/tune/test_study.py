"""What a search proposes: start points first, then what the sampler says, within the space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotl.space.search_space import PARAMETERS, SearchSpace
from autotl.tune.study import StudySearch

Space = Callable[..., SearchSpace]
Make = Callable[..., StudySearch]
STAGES = {"shallow": 5, "deep": 9}
SAME_STAGES = {"shallow": 8, "deep": 8}
FROM_SCRATCH = {"initial_weights": "scratch", "freeze_depth": 0, "layer_decay": 1.0}


def test_proposals_lie_in_the_space_and_carry_the_constants(make: Make, space: Space) -> None:
    search = make(constants={"task": "/task.json"})
    for place in range(20):
        config = search.suggest(f"t{place}")
        assert config.pop("task") == "/task.json"
        assert space().contains(config, STAGES)


@pytest.mark.parametrize("stages", [STAGES, SAME_STAGES], ids=["different", "same"])
def test_a_remembered_config_is_the_point_of_the_space_and_nothing_else(make: Make, stages: dict[str, int]) -> None:
    search = make(n_stages=stages, constants={"task": "/task.json"})
    search.suggest("t0")
    assert set(search.configs["t0"]) == set(PARAMETERS)


def test_start_points_come_first_and_in_order_and_once(point: dict[str, Any], make: Make) -> None:
    second = point | {"backbone": "shallow", "freeze_depth": 2}
    # The third is the first after clipping: there are no 99 stages.
    deepest = point | {"freeze_depth": 9}
    search = make(start_points=[deepest, second, point | {"freeze_depth": 99}, second])
    found = [search.suggest(f"t{place}") for place in range(4)]
    for config, wanted in zip(found[:2], [deepest, second], strict=True):
        assert {name: config[name] for name in PARAMETERS} == wanted
    assert [search.origin(f"t{place}") for place in range(4)] == ["advice", "advice", "search", "search"]
    assert all({name: config[name] for name in PARAMETERS} not in (deepest, second) for config in found[2:])


def test_start_points_outside_the_space_are_clipped(point: dict[str, Any], make: Make, space: Space) -> None:
    search = make(start_points=[point | {"weight_decay": 5.0, "augmentation": "wild", "backbone": "unknown"}])
    config = search.suggest("t0")
    assert space().contains(config, STAGES)
    assert (config["weight_decay"], config["augmentation"], config["backbone"]) == (0.1, "none", "shallow")
    assert search.origin("t0") == "advice"


def test_a_start_point_from_scratch_is_tried_as_it_is(point: dict[str, Any], make: Make) -> None:
    search = make(start_points=[point, point | FROM_SCRATCH])
    search.suggest("t0")
    config = search.suggest("t1")
    assert {name: config[name] for name in PARAMETERS} == point | FROM_SCRATCH


def test_the_origin_of_an_unknown_trial_is_the_search(make: Make) -> None:
    assert make().origin("nobody") == "search"


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_the_share_of_training_from_scratch_is_respected(make: Make, space: Space, share: float) -> None:
    search = make(space=space(scratch_share=share))
    n_scratch = 0
    for place in range(40):
        n_scratch += search.suggest(f"t{place}")["initial_weights"] == "scratch"
        assert n_scratch <= share * (place + 1) + 1
    assert n_scratch >= 0.5 * share * 40


def test_nothing_trains_from_scratch_with_a_share_of_zero(make: Make, space: Space) -> None:
    search = make(space=space(scratch_share=0.0))
    assert {search.suggest(f"t{place}")["initial_weights"] for place in range(30)} == {"pretrained"}


def test_everything_may_train_from_scratch_with_a_share_of_one(make: Make, space: Space) -> None:
    search = make(space=space(scratch_share=1.0).narrow(initial_weights=("scratch",)))
    assert {search.suggest(f"t{place}")["initial_weights"] for place in range(10)} == {"scratch"}


def test_proposals_repeat_with_the_seed(make: Make, tmp_path: Path) -> None:
    def first(name: str, seed: int) -> list[dict[str, Any]]:
        search = make(study_name=name, seed=seed)
        return [search.suggest(f"t{place}") for place in range(5)]

    assert first("a", 3) == first("b", 3)
    assert first("c", 4) != first("d", 3)
