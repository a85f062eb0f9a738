"""A search space in Optuna's terms: configs asked of a trial parameter by parameter, and configs to enqueue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotl.space.parameters import Categorical, Depth
from autotl.space.search_space import SCRATCH_VALUES, Config, SearchSpace


def depth_name(name: str, n_stages: int, several: bool) -> str:
    """Optuna's name for a freeze depth: backbones with different numbers of stages have different parameters."""
    return f"{name}_of_{n_stages}" if several else name


def suggest_config(
    trial: Any, space: SearchSpace, n_stages: Mapping[str, int], *, scratch_allowed: bool = True
) -> Config:
    """One config, asked of an Optuna trial parameter by parameter.

    Args:
        trial: has Optuna's suggest_float, suggest_int and suggest_categorical.
        space: where the config lies.
        n_stages: stages of every backbone of the space.
        scratch_allowed: False where the share of trials from scratch is used up.
    """
    several = len({n_stages[name] for name in space.backbones}) > 1
    config: Config = {}
    for parameter in space.parameters:
        name = parameter.name
        if not space.is_active(parameter, config):
            config[name] = SCRATCH_VALUES[name]
        elif isinstance(parameter, Categorical) and not scratch_allowed and "pretrained" in parameter.choices:
            config[name] = "pretrained"
        elif isinstance(parameter, Categorical):
            config[name] = (
                parameter.choices[0]
                if len(parameter.choices) == 1
                else trial.suggest_categorical(name, list(parameter.choices))
            )
        elif isinstance(parameter, Depth):
            stages = n_stages[config["backbone"]]
            low, high = parameter.bounds(stages)
            config[name] = low if low == high else trial.suggest_int(depth_name(name, stages, several), low, high)
        else:
            fixed = parameter.low == parameter.high
            config[name] = (
                parameter.low if fixed else trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
            )
    return config


def to_optuna(config: Config, space: SearchSpace, n_stages: Mapping[str, int]) -> dict[str, Any]:
    """A config under Optuna's parameter names, to enqueue it."""
    several = len({n_stages[name] for name in space.backbones}) > 1
    names = {
        parameter.name: depth_name(parameter.name, n_stages[config["backbone"]], several)
        if isinstance(parameter, Depth)
        else parameter.name
        for parameter in space.parameters
        if space.is_active(parameter, config)
    }
    return {optuna_name: config[name] for name, optuna_name in names.items()}
