"""Configs that a search tries first: those of scenario and strategy, and what the probes of the stages propose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotl.advice.evidence import BackboneEvidence
from autotl.advice.scenario import Scenario, Strategy

_STARTS: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.875, 0.1), (0.75, 0.1), (0.625, 0.05)),
    2: ((0.625, 0.3), (0.75, 0.3), (0.5, 0.3)),
    3: ((0.625, 0.5), (0.0, 0.3), (0.5, 0.5)),
    4: ((0.75, 0.3), (0.0, 0.1), (0.5, 0.2)),
}
"""For each scenario: share of a backbone's stages that is frozen, and factor on the source learning rate."""
_STARTS_WITH_HEADROOM = ((0.75, 0.3), (0.875, 0.3), (0.5, 0.3))
"""For scenario 1 where frozen features do not serve well enough: the cheap second one shares the views of the first."""


@dataclass(frozen=True, slots=True)
class StartPoint:
    """A config to try first.

    Attributes:
        config: a point of the search space.
        reason: why it is tried.
    """

    config: dict[str, Any]
    reason: str


def depth_of(scenario: Scenario, strategy: Strategy, n_stages: int) -> int:
    """The freeze depth that a strategy means: all stages, none, or that of its first start point."""
    if strategy == "feature extraction":
        return n_stages
    if strategy == "fine-tune everything":
        return 0
    return first_depths(scenario, strategy, n_stages)[0]


def first_depths(scenario: Scenario, strategy: Strategy, n_stages: int) -> tuple[int, ...]:
    """The freeze depths of the first tries with a backbone of so many stages, that of the strategy first."""
    return tuple(_depth(share, n_stages) for share, _ in _starts(scenario, strategy))


def _starts(scenario: Scenario, strategy: Strategy) -> tuple[tuple[float, float], ...]:
    return _STARTS[scenario.number] if strategy == scenario.strategy else _STARTS_WITH_HEADROOM


def _depth(share_frozen: float, n_stages: int) -> int:
    return math.floor(share_frozen * n_stages)


def choose_start_points(
    scenario: Scenario, strategy: Strategy, ranked: Sequence[BackboneEvidence]
) -> tuple[StartPoint, ...]:
    """Configs to try first, each with its reason: those of scenario and strategy, then what the stage probes propose.

    Their depths are tried on the best backbone, the first of them on the second best, too. A proposal to
    freeze everything is no trial: that is the linear probe, which is there already. Probes say where frozen features
    serve best, not what training them gains: on handwritten digits they propose depth 7 (94.4%), 5 reaches 99%.
    """
    best, starts = ranked[0], _starts(scenario, strategy)
    meant = depth_of(scenario, strategy, best.n_stages)
    points = [
        StartPoint(_config(best, share, factor), _beside(_depth(share, best.n_stages), meant))
        for share, factor in starts
    ]
    points = _with_proposal(points, best, starts[0][1])
    points += [StartPoint(_config(second, *starts[0]), "the second best backbone") for second in ranked[1:2]]
    if scenario.scratch:
        cheapest = max(ranked, key=lambda backbone: backbone.images_per_second)
        scratch = _config(cheapest, 0.0, 1.0) | {"initial_weights": "scratch"}
        points.append(StartPoint(scratch, "from scratch: do pretrained weights help at all"))
    seen = [point.config for point in points]
    return tuple(point for place, point in enumerate(points) if point.config not in seen[:place])


def _with_proposal(points: list[StartPoint], best: BackboneEvidence, factor: float) -> list[StartPoint]:
    """The points with the depth that the stage probes propose: a point more, or a further reason for one of them."""
    if best.proposed_depth is None or best.proposed_depth >= best.n_stages:
        return points
    reason = "proposed by the stage probes"
    for place, point in enumerate(points):
        if point.config["freeze_depth"] == best.proposed_depth:
            agreed = StartPoint(point.config, f"{point.reason}, {reason}")
            return [*points[:place], agreed, *points[place + 1 :]]
    return [*points, StartPoint(_config(best, 0.0, factor) | {"freeze_depth": best.proposed_depth}, reason)]


def start_points_of(
    configs: Sequence[Mapping[str, Any]], backbones: Sequence[str], duplicates: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The start points of the backbones that are searched, each once.

    Args:
        configs: of the start points.
        backbones: names of those that are searched.
        duplicates: by name of a backbone the one with the same weights that is searched in its place.
    """
    found: list[dict[str, Any]] = []
    for config in configs:
        renamed = {**config, "backbone": duplicates.get(config["backbone"], config["backbone"])}
        if renamed["backbone"] in backbones and renamed not in found:
            found.append(renamed)
    return found


def _beside(depth: int, meant: int) -> str:
    """Why a depth is tried: it is the strategy's, or beside it."""
    stages = f"{abs(depth - meant)} {'stage' if abs(depth - meant) == 1 else 'stages'}"
    return "the strategy" if depth == meant else f"trains {stages} {'more' if depth < meant else 'fewer'}"


def _config(backbone: BackboneEvidence, share_frozen: float, factor: float) -> dict[str, Any]:
    return {
        "backbone": backbone.name,
        "initial_weights": "pretrained",
        "freeze_depth": _depth(share_frozen, backbone.n_stages),
        "learning_rate_factor": factor,
        "head_learning_rate_factor": factor,
        "layer_decay": 0.8,
        "weight_decay": 0.02,
        "augmentation": "light",
        "label_smoothing": 0.0,
        "batch_size": 32,
    }
