"""What a search makes of its plan before Ray Tune runs it."""

from __future__ import annotations

import logging

from autotl.tune.runner import _silenced


def test_the_loggers_of_ray_are_silent_only_during_a_search() -> None:
    logger = logging.getLogger("ray.tune")
    before = logger.level
    with _silenced():
        assert logger.level == logging.CRITICAL
    assert logger.level == before
