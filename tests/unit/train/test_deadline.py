"""The end of a trial's time leaves room for a last evaluation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from autotl.train.deadline import MARGIN, Deadline


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock's `seconds`, which a test may set."""
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("autotl.train.deadline.clock", SimpleNamespace(now=lambda: clock.seconds))
    return clock


def test_before_the_first_evaluation_all_the_time_is_left(now: SimpleNamespace) -> None:
    deadline = Deadline(100.0)
    now.seconds = 30.0
    assert deadline.seconds_left == 70.0
    assert not deadline.is_past()


def test_the_time_of_an_evaluation_is_set_aside(now: SimpleNamespace) -> None:
    deadline = Deadline(100.0)
    deadline.evaluation_seconds = 10.0
    now.seconds = 30.0
    assert deadline.seconds_left == pytest.approx(70.0 - MARGIN * 10.0)


@pytest.mark.parametrize(("seconds", "past"), [(0.0, False), (87.9, False), (88.1, True), (100.0, True), (250.0, True)])
def test_it_is_past_when_only_that_evaluation_fits(now: SimpleNamespace, seconds: float, past: bool) -> None:
    assert MARGIN == 1.2
    deadline = Deadline(100.0)
    deadline.evaluation_seconds = 10.0
    now.seconds = seconds
    assert deadline.is_past() is past
    assert (deadline.seconds_left == 0.0) is past


def test_no_time_is_left_after_the_end(now: SimpleNamespace) -> None:
    now.seconds = 101.0
    assert Deadline(100.0).seconds_left == 0.0
