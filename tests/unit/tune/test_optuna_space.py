"""The search space in Optuna's terms: every config can be asked for, and comes back where it is enqueued."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest

from autotl.space.files import shipped_names
from autotl.space.search_space import PARAMETERS, SearchSpace
from autotl.tune.optuna_space import depth_name, suggest_config, to_optuna

Space = Callable[..., SearchSpace]
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
