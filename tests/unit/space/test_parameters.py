"""The kinds of parameters: what they contain, and depths that count from the end."""

from __future__ import annotations

from typing import Any

import pytest

from autotl.space.parameters import Categorical, Depth, Float, resolve_depth


@pytest.mark.parametrize(
    ("bound", "n_stages", "depth"),
    [
        (0, 8, 0),
        (3, 8, 3),
        (8, 8, 8),
        (9, 8, 8),
        ("all", 8, 8),
        ("all-0", 8, 8),
        ("all-1", 8, 7),
        ("all-8", 8, 0),
        ("all-10", 8, 0),
        ("all-2", 26, 24),
    ],
)
def test_a_depth_counts_from_the_start_or_from_all_and_is_clipped(bound: int | str, n_stages: int, depth: int) -> None:
    assert resolve_depth(bound, n_stages) == depth


@pytest.mark.parametrize("bound", ["", "3", "all-", "all -1", "all+1", "ALL", "all-1.5", "none", "all-1\n"])
def test_a_depth_in_other_words_is_refused(bound: str) -> None:
    with pytest.raises(ValueError) as caught:
        resolve_depth(bound, 8)
    assert str(caught.value) == f"{bound!r} is neither a whole number nor all or all-N"


@pytest.mark.parametrize(("value", "inside"), [(0.1, True), (1.0, True), (1, True), (0.0999, False), (1.01, False)])
def test_a_real_number_lies_within_its_bounds(value: float, inside: bool) -> None:
    assert Float("weight_decay", 0.1, 1.0).contains(value) is inside


@pytest.mark.parametrize("value", ["0.5", None, [0.5], float("nan")])
def test_a_real_number_is_nothing_else(value: Any) -> None:
    assert not Float("weight_decay", 0.1, 1.0).contains(value)


@pytest.mark.parametrize(
    ("low", "high", "n_stages", "bounds"),
    [
        (0, "all", 5, (0, 5)),
        ("all-4", "all", 13, (9, 13)),
        ("all-4", "all", 3, (0, 3)),
        (1, "all-1", 8, (1, 7)),
        (1, "all-9", 8, (1, 1)),
        (6, "all-3", 5, (5, 5)),
    ],
)
def test_bounds_of_the_depth_follow_the_backbone(
    low: int | str, high: int | str, n_stages: int, bounds: tuple[int, int]
) -> None:
    assert Depth("freeze_depth", low, high).bounds(n_stages) == bounds


def test_a_depth_contains_whole_numbers_within_the_bounds_of_the_backbone() -> None:
    depth = Depth("freeze_depth", "all-2", "all")
    assert [value for value in range(10) if depth.contains(value, 6)] == [4, 5, 6]
    assert not depth.contains(5.0, 6)
    assert not depth.contains("all", 6)
    assert not depth.contains(None, 6)


def test_a_categorical_contains_its_choices() -> None:
    parameter = Categorical("augmentation", ("none", "light"))
    assert parameter.contains("light")
    assert not parameter.contains("strong")
    assert not parameter.contains(None)


def test_parameters_read_as_in_the_file() -> None:
    assert Float("weight_decay", 0.1, 1.0).to_plain() == {"low": 0.1, "high": 1.0}
    assert Float("weight_decay", 0.1, 1.0, log=True).to_plain() == {"low": 0.1, "high": 1.0, "log": True}
    assert Depth("freeze_depth", 0, "all-1").to_plain() == {"low": 0, "high": "all-1"}
    assert Categorical("batch_size", (16, 32)).to_plain() == {"choices": [16, 32]}
