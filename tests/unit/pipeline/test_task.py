"""How many views a search can afford."""

from __future__ import annotations

from typing import Any

import pytest

from autotl.pipeline.task import FEWEST_VIEWS, MOST_VIEWS, VIEWS_SHARE, count_views

POINT = {"backbone": "some.model", "freeze_depth": 5}


def predict(config: dict[str, Any], epochs: int, views_from: int) -> float:
    """An epoch takes 3 s; the views 40 s, unless they are cached at the depth of the config."""
    return 3.0 * epochs + (0.0 if views_from == config["freeze_depth"] else 40.0)


@pytest.mark.parametrize(
    ("seconds", "views"), [(40 / VIEWS_SHARE, MOST_VIEWS), (39 / VIEWS_SHARE, FEWEST_VIEWS), (0.0, FEWEST_VIEWS)]
)
def test_the_last_view_is_computed_where_views_take_a_small_share_of_the_time(seconds: float, views: int) -> None:
    assert count_views([POINT], 4, predict, seconds) == views


def test_without_anything_frozen_views_cost_nothing() -> None:
    assert count_views([POINT | {"freeze_depth": 0}], 4, predict, 1.0) == MOST_VIEWS
    assert count_views([], 4, predict, 1.0) == MOST_VIEWS
