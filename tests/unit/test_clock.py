"""Deadlines are kept, whatever somebody does to the time of day."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from autotl import clock
from autotl.train.deadline import Deadline


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = clock.current()
    yield
    clock.adopt(before)


def test_it_is_the_time_of_day() -> None:
    assert clock.now() == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("set_by", [-3600.0, 3600.0])
def test_a_clock_that_is_set_moves_no_deadline(monkeypatch: pytest.MonkeyPatch, set_by: float) -> None:
    deadline = Deadline(clock.now() + 100)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + set_by)
    assert 90 < deadline.seconds_left <= 100
    assert not deadline.is_past()


def test_a_worker_on_the_same_machine_counts_as_the_driver_does() -> None:
    here = clock.current()
    clock.adopt(clock.Anchor(here.machine, here.offset - 3600))  # the driver began before the clock was set
    assert clock.now() == pytest.approx(time.time() - 3600, abs=60)


def test_a_worker_on_another_machine_looks_at_its_own_time_of_day() -> None:
    clock.adopt(clock.Anchor("elsewhere", 5.0))
    assert clock.now() == pytest.approx(time.time(), abs=60)
    assert clock.current().machine != "elsewhere"
