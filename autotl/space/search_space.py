"""The search space: which configs there are. Plain data; `tune.study` turns it into Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autotl.space.parameters import Categorical, Depth, Float, Parameter
from autotl.storage.rundir import fingerprint

Config = dict[str, Any]

AUGMENTATIONS = ("none", "light", "medium", "strong")
INITIAL_WEIGHTS = ("pretrained", "scratch")

PARAMETERS = (
    "backbone",
    "initial_weights",
    "freeze_depth",
    "learning_rate_factor",
    "head_learning_rate_factor",
    "layer_decay",
    "weight_decay",
    "augmentation",
    "label_smoothing",
    "batch_size",
)
"""The parameters every space gives, all of them, in this order."""

SCRATCH_VALUES: Config = {"freeze_depth": 0, "layer_decay": 1.0}
"""What training from scratch means for the parameters that only pretrained weights have."""


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """A named set of configs and how long trials in it are.

    Attributes:
        name, description: what it is for.
        parameters: one of each of `PARAMETERS`, in that order.
        max_t: epochs of a full trial; "auto" sets them from the time given and the measured speed.
        scratch_share: largest share of the trials that may train from scratch.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    max_t: int | str = "auto"
    scratch_share: float = 0.15

    def __getitem__(self, name: str) -> Parameter:
        return {parameter.name: parameter for parameter in self.parameters}[name]

    @property
    def backbones(self) -> tuple[str, ...]:
        """The backbones to choose from."""
        parameter = self["backbone"]
        assert isinstance(parameter, Categorical)
        return parameter.choices

    def lowest_depth(self, n_stages: int) -> int:
        """The smallest freeze depth of a backbone with so many stages."""
        parameter = self["freeze_depth"]
        assert isinstance(parameter, Depth)
        return parameter.bounds(n_stages)[0]

    def narrow(self, **changes: tuple[Any, ...] | Parameter) -> SearchSpace:
        """The same space with some parameters replaced; a tuple stands for choices (or low, high of a range)."""
        parameters = []
        for parameter in self.parameters:
            change = changes.pop(parameter.name, None)
            if change is None:
                parameters.append(parameter)
            elif not isinstance(change, tuple):
                parameters.append(change)
            elif isinstance(parameter, Categorical):
                parameters.append(replace(parameter, choices=change))
            else:
                parameters.append(replace(parameter, low=change[0], high=change[1]))
        if changes:
            raise KeyError(f"no such parameter: {', '.join(changes)}")
        return replace(self, parameters=tuple(parameters))

    def is_active(self, parameter: Parameter, config: Mapping[str, Any]) -> bool:
        """Whether `parameter` counts, given the parameters already chosen in `config`."""
        return parameter.when is None or config.get(parameter.when[0]) in parameter.when[1]

    def contains(self, config: Mapping[str, Any], n_stages: Mapping[str, int]) -> bool:
        """Whether `config` is a point of this space; `n_stages` gives the stages of every backbone."""
        for parameter in self.parameters:
            if not self.is_active(parameter, config):
                continue
            if parameter.name not in config:
                return False
            value = config[parameter.name]
            if isinstance(parameter, Depth):
                if not parameter.contains(value, n_stages[config["backbone"]]):
                    return False
            elif not parameter.contains(value):
                return False
        return True

    def clip(self, config: Mapping[str, Any], n_stages: Mapping[str, int]) -> Config:
        """The point of this space nearest to `config`: numbers are clipped, and a choice not on offer gives way."""
        clipped: Config = {}
        for parameter in self.parameters:
            value = config.get(parameter.name)
            if not self.is_active(parameter, clipped):
                clipped[parameter.name] = SCRATCH_VALUES[parameter.name]
            elif isinstance(parameter, Categorical):
                clipped[parameter.name] = value if value in parameter.choices else parameter.choices[0]
            elif isinstance(parameter, Depth):
                low, high = parameter.bounds(n_stages[clipped["backbone"]])
                clipped[parameter.name] = min(max(high if value is None else value, low), high)
            else:
                middle = (parameter.low * parameter.high) ** 0.5 if parameter.log else parameter.low
                clipped[parameter.name] = min(max(middle if value is None else value, parameter.low), parameter.high)
        return clipped

    def to_plain(self) -> dict[str, Any]:
        """As in the TOML file."""
        head: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "max_t": self.max_t,
            "scratch_share": self.scratch_share,
        }
        for parameter in self.parameters:
            plain = parameter.to_plain()
            if parameter.when is not None:
                plain["when"] = {parameter.when[0]: list(parameter.when[1])}
            head[parameter.name] = plain
        return head

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that stand for this space."""
        return fingerprint(self.to_plain())


__all__ = ["AUGMENTATIONS", "INITIAL_WEIGHTS", "PARAMETERS", "SCRATCH_VALUES", "Config", "Float", "SearchSpace"]
