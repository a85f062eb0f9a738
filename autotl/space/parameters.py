"""The kinds of parameters a search space is made of, in the words of Optuna: low, high, log, step, choices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Condition = tuple[str, tuple[Any, ...]]
"""`(parameter, values)`: the parameter that carries it counts only where `parameter` has one of `values`."""


def resolve_depth(bound: int | str, n_stages: int) -> int:
    """The freeze depth meant by `bound`: a number, "all", or "all-N", clipped to 0..`n_stages`.

    Raises:
        ValueError: if `bound` is a text of another form.
    """
    if isinstance(bound, int):
        return max(0, min(bound, n_stages))
    match = re.fullmatch(r"all(?:-(\d+))?", bound)
    if match is None:
        raise ValueError(f"{bound!r} is neither a whole number nor all or all-N")
    return max(0, n_stages - int(match.group(1) or 0))


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in [`low`, `high`], sampled on a log scale if `log`."""

    name: str
    low: float
    high: float
    log: bool = False
    when: Condition | None = None

    def contains(self, value: Any) -> bool:
        """Whether `value` may be taken."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    def to_plain(self) -> dict[str, Any]:
        """As in the TOML file."""
        return {"low": self.low, "high": self.high} | ({"log": True} if self.log else {})


@dataclass(frozen=True, slots=True)
class Depth:
    """A freeze depth in [`low`, `high`]; "all" and "all-N" count from the backbone's number of stages."""

    name: str
    low: int | str
    high: int | str
    when: Condition | None = None

    def bounds(self, n_stages: int) -> tuple[int, int]:
        """Lowest and highest depth for a backbone of `n_stages` stages."""
        low = resolve_depth(self.low, n_stages)
        return low, max(low, resolve_depth(self.high, n_stages))

    def contains(self, value: Any, n_stages: int) -> bool:
        """Whether `value` may be taken with a backbone of `n_stages` stages."""
        low, high = self.bounds(n_stages)
        return isinstance(value, int) and low <= value <= high

    def to_plain(self) -> dict[str, Any]:
        """As in the TOML file."""
        return {"low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of `choices`; ("auto",) for backbones until the catalog has been asked."""

    name: str
    choices: tuple[Any, ...]
    when: Condition | None = None

    def contains(self, value: Any) -> bool:
        """Whether `value` may be taken."""
        return value in self.choices

    def to_plain(self) -> dict[str, Any]:
        """As in the TOML file."""
        return {"choices": list(self.choices)}


Parameter = Float | Depth | Categorical
