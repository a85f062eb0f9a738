"""A search is ended from outside where its trials cannot do it."""

from __future__ import annotations

import pickle
import time
from types import SimpleNamespace

import pytest
from ray import tune

from autotl.tune import end_of_time
from autotl.tune.end_of_time import HANGING_SECONDS, EndOfTime


@pytest.mark.parametrize(
    ("now", "begun", "ends"),
    [
        (99.0, False, False),
        (101.0, False, True),
        (101.0, True, False),
        (100.0 + HANGING_SECONDS - 1, True, False),
        (100.0 + HANGING_SECONDS + 1, True, True),
    ],
)
def test_what_has_not_begun_ends_at_the_deadline_and_what_runs_a_little_later(
    monkeypatch: pytest.MonkeyPatch, now: float, begun: bool, ends: bool
) -> None:
    monkeypatch.setattr(end_of_time, "clock", SimpleNamespace(now=lambda: now))
    assert EndOfTime(100.0, lambda: begun).stop_all() is ends


def test_no_trial_is_ended_for_what_it_says() -> None:
    assert EndOfTime(0.0, lambda: False)("t0", {"score": 0.0}) is False


def test_it_can_be_pickled_whatever_it_asks() -> None:
    ender = EndOfTime(time.time(), lambda: False)
    assert isinstance(pickle.loads(pickle.dumps(ender)), tune.stopper.NoopStopper)
