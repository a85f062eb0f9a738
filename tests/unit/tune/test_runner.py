"""What a search makes of its plan before Ray Tune runs it."""

from __future__ import annotations

import logging

import pytest

from autotl.tune.runner import _grace_period, _silenced


@pytest.mark.parametrize(
    ("wanted", "max_t", "grace"), [(2, 4, 3), (1, 2, 1), (1, 1, 1), (2, 20, 2), (5, 6, 5), (30, 20, 20)]
)
def test_short_trials_are_judged_by_their_last_epochs(wanted: int, max_t: int, grace: int) -> None:
    assert _grace_period(wanted, max_t) == grace


def test_the_loggers_of_ray_are_silent_only_during_a_search() -> None:
    logger = logging.getLogger("ray.tune")
    before = logger.level
    with _silenced():
        assert logger.level == logging.CRITICAL
    assert logger.level == before
