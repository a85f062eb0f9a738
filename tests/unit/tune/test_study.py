"""The search space as an Optuna study, and what is proposed from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from autotl.space.files import shipped_names
from autotl.space.search_space import PARAMETERS, SearchSpace
from autotl.tune.study import StudySearch, depth_name, suggest_config, to_optuna

Space = Callable[..., SearchSpace]
Make = Callable[..., StudySearch]
STAGES = {"shallow": 5, "deep": 9}
SAME_STAGES = {"shallow": 8, "deep": 8}
FROM_SCRATCH = {"initial_weights": "scratch", "freeze_depth": 0, "layer_decay": 1.0}


def study(seed: int = 0) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))


# --- suggest_config and to_optuna


@pytest.mark.parametrize("name", shipped_names())
@pytest.mark.parametrize("stages", [STAGES, SAME_STAGES], ids=["different", "same"])
def test_suggested_configs_lie_in_the_space(space: Space, name: str, stages: dict[str, int]) -> None:
    wide, asked = space(name=name), study()
    configs = [suggest_config(asked.ask(), wide, stages) for _ in range(150)]
    assert all(wide.contains(config, stages) for config in configs)
    assert all(tuple(config) == PARAMETERS for config in configs)
    assert {config["backbone"] for config in configs} == set(stages)
    assert {config["initial_weights"] for config in configs} == {"pretrained", "scratch"}


def test_every_depth_of_every_backbone_is_suggested(space: Space) -> None:
    asked = study()
    configs = [suggest_config(asked.ask(), space(), STAGES, scratch_allowed=False) for _ in range(300)]
    for backbone, n_stages in STAGES.items():
        depths = {config["freeze_depth"] for config in configs if config["backbone"] == backbone}
        assert depths == set(range(n_stages + 1))


def test_training_from_scratch_freezes_nothing_and_is_not_asked_how_much(space: Space) -> None:
    asked = study()
    for _ in range(40):
        trial = asked.ask()
        config = suggest_config(trial, space(), STAGES)
        conditional = {"layer_decay", "freeze_depth_of_5", "freeze_depth_of_9"} & set(trial.params)
        if config["initial_weights"] == "scratch":
            assert (config["freeze_depth"], config["layer_decay"]) == (0, 1.0)
            assert not conditional
        else:
            assert conditional == {"layer_decay", f"freeze_depth_of_{STAGES[config['backbone']]}"}


def test_no_config_trains_from_scratch_where_that_is_not_allowed(space: Space) -> None:
    asked = study()
    configs = [suggest_config(asked.ask(), space(), STAGES, scratch_allowed=False) for _ in range(40)]
    assert {config["initial_weights"] for config in configs} == {"pretrained"}


def test_a_space_without_pretrained_weights_is_kept_when_the_share_is_used_up(space: Space) -> None:
    only = space().narrow(initial_weights=("scratch",))
    config = suggest_config(study().ask(), only, STAGES, scratch_allowed=False)
    assert only.contains(config, STAGES)


def test_what_is_fixed_is_not_asked(space: Space) -> None:
    fixed = space().narrow(backbone=("deep",), augmentation=("light",), weight_decay=(0.02, 0.02), freeze_depth=(3, 3))
    trial = study().ask()
    config = suggest_config(trial, fixed, STAGES, scratch_allowed=False)
    assert (config["backbone"], config["augmentation"]) == ("deep", "light")
    assert (config["weight_decay"], config["freeze_depth"]) == (0.02, 3)
    assert set(trial.params) == {
        "learning_rate_factor",
        "head_learning_rate_factor",
        "layer_decay",
        "label_smoothing",
    }


def test_rates_are_spread_over_a_log_scale(space: Space) -> None:
    asked = study()
    rates = [suggest_config(asked.ask(), space(), STAGES)["learning_rate_factor"] for _ in range(200)]
    below = sum(rate < 0.1 for rate in rates)  # half of 0.01..1 on a log scale, a tenth of it on a linear one
    assert 75 < below < 125


def test_depths_of_backbones_with_as_many_stages_share_a_name(point: dict[str, Any], space: Space) -> None:
    assert depth_name("freeze_depth", 8, several=False) == "freeze_depth"
    assert depth_name("freeze_depth", 8, several=True) == "freeze_depth_of_8"
    assert "freeze_depth" in to_optuna(point, space(), SAME_STAGES)
    assert "freeze_depth_of_9" in to_optuna(point, space(), STAGES)


@pytest.mark.parametrize("stages", [STAGES, SAME_STAGES], ids=["different", "same"])
@pytest.mark.parametrize("change", [{}, {"backbone": "shallow", "freeze_depth": 0}, FROM_SCRATCH])
def test_an_enqueued_config_comes_back(
    space: Space, point: dict[str, Any], change: dict[str, Any], stages: dict[str, int]
) -> None:
    asked, config = study(), point | change
    asked.enqueue_trial(to_optuna(config, space(), stages))
    assert suggest_config(asked.ask(), space(), stages) == config


def test_any_suggested_config_comes_back(space: Space) -> None:
    asked = study()
    for _ in range(30):
        config = suggest_config(asked.ask(), space(), STAGES)
        again = study(seed=1)
        again.enqueue_trial(to_optuna(config, space(), STAGES))
        assert suggest_config(again.ask(), space(), STAGES) == config


# --- StudySearch


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
