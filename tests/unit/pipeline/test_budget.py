"""How the time given is divided."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.advice.evidence import BackboneEvidence
from autotl.pipeline.budget import (
    FEWEST,
    FULL_TRIALS_WANTED,
    MAX_BACKBONES,
    MOST,
    chosen_backbones,
    epochs,
    starts_with,
    without_twins,
)
from autotl.space.files import load_space

POINTS: list[dict[str, Any]] = [{"freeze_depth": depth} for depth in (2, 5, 8)]


def predict(config: dict[str, Any], n_epochs: int, views_from: int) -> float:
    return 10.0 + n_epochs * (10.0 - config["freeze_depth"])


@pytest.mark.parametrize(
    ("seconds_a_trial", "expected"), [(10.0 + 5 * 7, 7), (10.0 + 5 * 7.9, 7), (1.0, FEWEST), (1e6, MOST)]
)
def test_so_many_full_trials_of_the_typical_start_point_fit(seconds_a_trial: float, expected: int) -> None:
    space = load_space("default")
    assert epochs(space, POINTS, predict, FULL_TRIALS_WANTED * seconds_a_trial) == expected


def test_a_space_that_sets_its_epochs_is_obeyed() -> None:
    assert epochs(replace(load_space("default"), max_t=33), POINTS, predict, 1.0) == 33


def test_without_start_points_there_are_epochs_all_the_same() -> None:
    assert epochs(load_space("default"), [], predict, 1e6) == MOST


def evidence(name: str, probe: float = 0.9, knn: float = 0.9) -> BackboneEvidence:
    return BackboneEvidence(name, "accuracy", probe, knn, {}, 0.0, 1.0, 8)


def test_the_backbone_ranked_first_is_searched_whatever_its_probe_alone_says() -> None:
    ranked = (evidence("first", 0.80, 0.80), evidence("far", 0.86, 0.62), evidence("near", 0.86, 0.70))
    chosen, left_out = chosen_backbones(ranked)
    assert [one.name for one in chosen] == ["first", "near"]
    assert left_out == {"far": "its frozen features score 0.060 less than those of first"}


def test_no_more_than_so_many_backbones_are_searched() -> None:
    chosen, left_out = chosen_backbones([evidence(name) for name in "abcde"])
    assert [one.name for one in chosen] == list("abc")
    assert left_out == dict.fromkeys("de", f"only the first {MAX_BACKBONES} are")


def test_backbones_without_a_score_leave_the_first() -> None:
    chosen, left_out = chosen_backbones([evidence(name, math.nan, math.nan) for name in "ab"])
    assert [one.name for one in chosen] == ["a"]
    assert left_out == {"b": "there is no score to compare"}


def test_weights_are_searched_once_under_the_name_of_the_better_ranked() -> None:
    ranked = tuple(evidence(name) for name in ("b", "run/a", "a", "run/b"))
    kept, twins = without_twins(ranked, {"a": "1", "run/a": "1", "b": "2", "run/b": "3", "not ranked": "1"})
    assert [one.name for one in kept] == ["b", "run/a", "run/b"]
    assert twins == {"a": "run/a"}


def test_start_points_of_a_twin_are_those_of_the_backbone_that_stands_for_it() -> None:
    points = [("b", 1), ("a", 1), ("run/a", 1), ("a", 0), ("not searched", 1)]
    advice: Any = SimpleNamespace(start_points=tuple({"backbone": name, "freeze_depth": n} for name, n in points))
    found = starts_with(advice, ("b", "run/a"), {"a": "run/a"})
    assert [(one["backbone"], one["freeze_depth"]) for one in found] == [("b", 1), ("run/a", 1), ("run/a", 0)]
