"""How a search divides its time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autotl.pipeline.schedule import (
    FEWEST_EPOCHS,
    FEWEST_VIEWS,
    MOST_EPOCHS,
    MOST_VIEWS,
    VIEWS_SHARE,
    Schedule,
    expected_maximum,
    plan_schedule,
    value,
)
from autotl.space.files import load_space
from autotl.tune.pace import Predict
from autotl.tune.session import Slots

ONE_A_CORE, ALL_CORES = Slots(4, 1, 0.0), Slots(1, 4, 0.0)
CHOICES = (ALL_CORES, Slots(2, 2, 0.0), ONE_A_CORE)
POINTS: list[dict[str, Any]] = [
    {"backbone": "net", "freeze_depth": depth, "augmentation": "light", "batch_size": 32} for depth in (5, 6, 4)
]
AUTO = replace(load_space("default"), max_t="auto")


def predict_with(epoch: float, view: float = 0.0, start: float = 0.0) -> Callable[[Slots, int], Predict]:
    """Seconds on one core of an epoch, of a view and of a start; cores share all but the start perfectly."""

    def predicted(slots: Slots, views: int) -> Predict:
        return lambda config, epochs, views_from: start + (epochs * epoch + min(views, epochs) * view) / slots.cpus

    return predicted


def plan(seconds: float, epoch: float = 10.0, n_train: int = 640, n_classes: int = 10, **changes: Any) -> Schedule:
    values: dict[str, Any] = {
        "space": AUTO,
        "start_points": POINTS,
        "predict_with": predict_with(epoch),
        "choices": CHOICES,
        "n_trials": None,
    }
    return plan_schedule(n_train=n_train, n_classes=n_classes, seconds=seconds, **(values | changes))


def test_little_time_is_one_trial_on_all_cores_for_as_long_as_it_fits() -> None:
    schedule = plan(30.0)  # 2.5 s an epoch on all cores
    assert (schedule.slots, schedule.epochs, schedule.trials) == (ALL_CORES, 12, 1)


def test_much_time_is_many_long_trials() -> None:
    schedule = plan(3600.0)
    assert schedule.trials > 20
    assert schedule.epochs * 20 > 300  # steps


@pytest.mark.parametrize("seconds", np.geomspace(10, 10_000, 40))
def test_the_trials_fit_the_time_and_fill_it(seconds: float) -> None:
    schedule = plan(float(seconds))
    rounds = schedule.trials / schedule.slots.count
    assert rounds * schedule.seconds <= seconds
    if schedule.epochs < MOST_EPOCHS:
        assert rounds * schedule.seconds > 0.5 * seconds


def test_the_value_grows_with_the_time_without_a_jump() -> None:
    worths = [value(found.trials, found.epochs * 20) for found in map(plan, np.geomspace(6, 10_000, 120).tolist())]
    assert worths == sorted(worths)
    assert max(np.diff(worths)) < 0.1


def test_starts_that_take_long_overlap_in_several_slots() -> None:
    assert plan(200.0, predict_with=predict_with(10.0, start=60.0)).slots.count > 1


def test_where_not_even_the_shortest_trial_fits_it_is_tried_as_fast_as_can_be() -> None:
    schedule = plan(0.1)
    assert (schedule.slots, schedule.epochs, schedule.views) == (ALL_CORES, FEWEST_EPOCHS, FEWEST_VIEWS)


def test_no_more_trials_are_planned_than_are_allowed() -> None:
    allowed = plan(3600.0, n_trials=2)
    assert allowed.trials == 2
    assert allowed.epochs > plan(3600.0).epochs or allowed.epochs == MOST_EPOCHS


def test_a_space_that_says_how_long_a_trial_is_is_obeyed() -> None:
    assert plan(3600.0, space=replace(AUTO, max_t=33)).epochs == 33
    assert plan(0.1, space=replace(AUTO, max_t=33)).epochs == 33


def test_without_start_points_there_is_a_schedule_all_the_same() -> None:
    assert plan(100.0, start_points=()).trials >= 1


def test_trials_of_many_classes_are_longer() -> None:
    assert plan(200.0, n_classes=200).epochs > plan(200.0).epochs


def test_trials_of_much_data_have_few_epochs() -> None:
    assert plan(3600.0, epoch=10.0, n_train=64_000).epochs <= 2


class TestViews:
    def test_there_are_more_where_they_are_cheap(self) -> None:
        assert plan(100.0, predict_with=predict_with(10.0, 0.01)).views == MOST_VIEWS
        assert plan(300.0, predict_with=predict_with(10.0, 300.0)).views == FEWEST_VIEWS

    def test_further_views_take_no_more_than_their_share(self) -> None:
        schedule = plan(200.0, predict_with=predict_with(10.0, 40.0))
        assert FEWEST_VIEWS < schedule.views < MOST_VIEWS
        extra = (schedule.views - FEWEST_VIEWS) * 40.0 / schedule.slots.cpus
        assert extra <= VIEWS_SHARE * schedule.seconds

    def test_there_are_no_more_than_epochs(self) -> None:
        assert plan(9.0, predict_with=predict_with(10.0, 0.0)).views <= max(FEWEST_VIEWS, plan(9.0).epochs)


class TestValue:
    def test_more_steps_and_more_trials_are_worth_more_and_each_less_than_the_one_before(self) -> None:
        for worths in ([value(1, steps) for steps in (50, 100, 150, 200)], [value(n, 100) for n in (1, 2, 3, 4)]):
            gains = np.diff(worths)
            assert (gains > 0).all()
            assert (np.diff(gains) < 0).all()

    def test_nothing_tried_is_nothing_gained(self) -> None:
        assert value(0, 1000) == 0.0

    @pytest.mark.parametrize(("count", "expected"), [(1, 0.0), (2, 0.5642), (3, 0.8463), (10, 1.5388), (100, 2.5076)])
    def test_the_expected_maximum_of_normal_variables(self, count: int, expected: float) -> None:
        # Exact values: Teichroew (1956), doi:10.1214/aoms/1177728266.
        assert expected_maximum(count) == pytest.approx(expected, abs=0.03)


def sentences() -> Sequence[tuple[Schedule, str]]:
    return (
        (
            Schedule(Slots(1, 2, 0.0), 12, 4, 1, 31.2),
            "about 1 trial of 12 epochs (31 s), 1 at once with 2 cores each, 4 augmented views of the images",
        ),
        (
            Schedule(Slots(1, 2, 0.0), 2, 3, 0, 42.0),
            "too short for a full trial of 2 epochs (42 s), so what fits is tried, "
            "1 at once with 2 cores each, 3 augmented views of the images",
        ),
        (
            Schedule(Slots(4, 1, 0.0), 8, 3, 24, 60.0),
            "about 24 trials of 8 epochs (60 s each), 4 at once with one core each, 3 augmented views of the images",
        ),
        (
            Schedule(Slots(2, 8, 1.0), 8, 3, 24, 6.0),
            "about 24 trials of 8 epochs (6 s each), 2 at once with one GPU each, 3 augmented views of the images",
        ),
    )


@pytest.mark.parametrize(("schedule", "sentence"), sentences())
def test_the_plan_is_a_sentence(schedule: Schedule, sentence: str) -> None:
    assert schedule.sentence == sentence
    assert schedule.to_json()["sentence"] == sentence
    assert math.isfinite(schedule.to_json()["seconds"])
