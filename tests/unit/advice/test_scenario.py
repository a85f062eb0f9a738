"""Four scenarios from size and similarity, and where their boundaries are."""

from __future__ import annotations

import numpy as np
import pytest

from autotl.advice.scenario import (
    HEADROOM,
    HEADROOM_PER_CLASS,
    SCENARIOS,
    choose_scenario,
    choose_strategy,
    measure_size,
)
from autotl.space.files import load_space, shipped_names


@pytest.mark.parametrize(
    ("large", "similar", "number", "space", "strategy", "scratch"),
    [
        (False, True, 1, "small_similar", "feature extraction", False),
        (False, False, 2, "small_dissimilar", "freeze the first stages, train the rest", False),
        (True, False, 3, "large_dissimilar", "fine-tune everything", True),
        (True, True, 4, "large_similar", "fine-tune everything", False),
    ],
)
def test_size_and_similarity_choose_the_scenario(
    large: bool, similar: bool, number: int, space: str, strategy: str, scratch: bool
) -> None:
    found = choose_scenario(large, similar)
    assert (found.number, found.space, found.strategy, found.scratch) == (number, space, strategy, scratch)
    assert found.name == space.replace("_", " and ")


def test_every_scenario_has_a_shipped_space() -> None:
    assert {scenario.space for scenario in SCENARIOS} <= set(shipped_names())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.space)
def test_scratch_is_in_the_space_where_the_scenario_wants_it(scenario) -> None:
    space = load_space(scenario.space)
    assert ("scratch" in space["initial_weights"].choices) == scenario.scratch
    assert (space.scratch_share > 0) == scenario.scratch


@pytest.mark.parametrize(
    ("counts", "large"),
    [
        ([2000, 2000], True),
        ([2000, 1999], False),  # too few images
        ([100] * 40, True),
        ([99] * 60, False),  # enough images, but too few a class
        ([5000, 10, 10], False),  # the median class is small
        ([100, 100, 4000], True),
        ([99, 99, 5000], False),
    ],
)
def test_a_set_is_large_from_4000_images_and_100_in_the_median_class(counts: list[int], large: bool) -> None:
    assert measure_size(np.array(counts)).large is large


def test_size_is_described() -> None:
    size = measure_size(np.array([10, 40, 20, 31]))
    assert (size.n_images, size.n_classes, size.smallest, size.median, size.largest) == (101, 4, 10, 25.5, 40)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.space)
@pytest.mark.parametrize(
    ("per_class", "recall", "headroom"),
    [
        (HEADROOM_PER_CLASS, 0.9, True),
        (HEADROOM_PER_CLASS, 1 - HEADROOM - 0.01, True),
        (HEADROOM_PER_CLASS, 1 - HEADROOM + 0.01, False),
        (HEADROOM_PER_CLASS - 0.5, 0.5, False),
        (1000, 0.5, True),
    ],
)
def test_only_headroom_on_small_and_similar_data_changes_the_strategy(scenario, per_class, recall, headroom) -> None:
    found = choose_strategy(scenario, per_class, recall)
    changed = headroom and scenario.number == 1
    assert found == ("freeze the first stages, train the rest" if changed else scenario.strategy)
