"""Where a trial's images come from: which view each epoch sees, and why there may be none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import Timeout

from autotl.models.backbone import Backbone, create
from autotl.models.partition import DoesNotDivide
from autotl.train.deadline import Deadline
from autotl.train.task import TrainingTask
from autotl.train.trial_images import TrialImages

Config = dict[str, Any]
FAR_AWAY = 1e12


@pytest.fixture
def backbone(task: TrainingTask, config: Config) -> Backbone:
    """The backbone of the config with its weights, in evaluation mode."""
    files = task.backbones[config["backbone"]]
    backbone = create(files.timm_name, 2, Path(files.state))
    backbone.model.eval()
    return backbone


@pytest.fixture
def make(task: TrainingTask, config: Config, backbone: Backbone, tmp_path: Path) -> Callable[..., TrialImages]:
    """A function that gives a trial's images, with changes of its config and task; their cache is the test's folder."""

    def build(changes: Config | None = None, seed: int = 0, end: float = FAR_AWAY, **of_task: Any) -> TrialImages:
        changed = replace(task, **({"cache_dir": str(tmp_path)} | of_task))
        return TrialImages(changed, config | (changes or {}), backbone, torch.device("cpu"), Deadline(end), seed)

    return build


class FakeViews:
    """Views that are their numbers, or "validation". It knows those that are cached, and those others compute.

    Attributes:
        asked: the number and the seconds to wait of every request, in order.
    """

    def __init__(self) -> None:
        self.cached: set[int] = set()
        self.others: set[int] = set()
        self.room = True
        self.asked: list[tuple[int | str, float]] = []

    def size(self, rows: np.ndarray) -> int:
        return 3 * 2**29

    def is_cached(self, rows: np.ndarray, recipe: Any, number: int) -> bool:
        return number in self.cached

    def get(self, rows: np.ndarray, recipe: Any, number: int, wait: float) -> Any:
        view = "validation" if recipe is None else number
        self.asked.append((view, wait))
        if number in self.others:
            raise Timeout("held by another trial")
        return view if self.room else None


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> FakeViews:
    """What every trial of the test gets its views from."""
    fake = FakeViews()
    monkeypatch.setattr("autotl.train.trial_images.Views", lambda *args: fake)
    return fake


LIGHT = {"augmentation": "light"}


class TestChoiceOfViews:
    def test_every_view_is_used_as_often_as_the_others(
        self, make: Callable[..., TrialImages], views: FakeViews
    ) -> None:
        images = make(LIGHT, n_views=3)
        assert [images.training_view() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
        assert [number for number, _ in views.asked] == [0, 1, 2]  # each is asked for once

    @pytest.mark.parametrize(("seed", "order"), [(0, [0, 1, 2]), (1, [1, 2, 0]), (5, [2, 0, 1])])
    def test_trials_begin_with_different_views(
        self, make: Callable[..., TrialImages], views: FakeViews, seed: int, order: list[int]
    ) -> None:
        images = make(LIGHT, seed=seed, n_views=3)
        assert [images.training_view() for _ in range(3)] == order

    def test_without_augmentation_there_is_a_single_view(
        self, make: Callable[..., TrialImages], views: FakeViews
    ) -> None:
        images = make(seed=1, n_views=3)
        assert [images.training_view() for _ in range(3)] == [0, 0, 0]

    def test_a_cached_view_comes_before_those_to_be_computed(
        self, make: Callable[..., TrialImages], views: FakeViews
    ) -> None:
        views.cached = {2}
        images = make(LIGHT, n_views=3)
        assert [images.training_view() for _ in range(4)] == [2, 0, 1, 0]

    def test_a_view_that_another_trial_computes_is_passed_over(
        self, make: Callable[..., TrialImages], views: FakeViews
    ) -> None:
        views.others = {0}
        images = make(LIGHT, n_views=3)
        assert images.training_view() == 1
        assert views.asked == [(0, 0.0), (1, 0.0)]  # without waiting

    def test_where_others_compute_all_views_one_of_them_is_waited_for(
        self, make: Callable[..., TrialImages], views: FakeViews
    ) -> None:
        views.others = {0, 1}
        images = make(LIGHT, n_views=2)
        assert images.training_view() is None
        assert [number for number, _ in views.asked] == [0, 1, 0, 1]
        assert [wait > 0 for _, wait in views.asked] == [False, False, True, True]
        assert images.is_divided
        assert images.note == ""

    def test_the_validation_view_is_asked_for_once(self, make: Callable[..., TrialImages], views: FakeViews) -> None:
        images = make()
        assert [images.validation_view() for _ in range(3)] == ["validation"] * 3
        assert len(views.asked) == 1

    def test_a_validation_view_that_another_trial_still_computes_is_none(
        self, make: Callable[..., TrialImages], views: FakeViews
    ) -> None:
        views.others = {0}
        images = make()
        assert images.validation_view() is None
        assert (images.is_divided, images.note) == (True, "")


class TestViewsToMake:
    def test_what_is_cached_or_was_seen_need_not_be_made(
        self, make: Callable[..., TrialImages], views: FakeViews
    ) -> None:
        views.cached = {2}
        images = make(LIGHT, n_views=4)
        left = [images.views_to_make]
        for _ in range(4):
            images.training_view()
            left.append(images.views_to_make)
        assert left == [3, 3, 2, 1, 0]

    def test_without_augmentation_there_is_one(self, make: Callable[..., TrialImages], views: FakeViews) -> None:
        assert make(n_views=4).views_to_make == 1

    def test_where_frozen_stages_run_in_every_epoch_there_are_none(self, make: Callable[..., TrialImages]) -> None:
        assert make(LIGHT, n_views=4, cache_activations=False).views_to_make == 0


class TestWhyFrozenStagesRunInEveryEpoch:
    def test_full_fine_tuning_has_nothing_to_cache(self, make: Callable[..., TrialImages], tmp_path: Path) -> None:
        images = make({"freeze_depth": 0})
        assert (images.is_divided, images.note) == (False, "")
        assert images.validation_view() is None
        assert images.training_view() is None
        assert list(tmp_path.iterdir()) == []

    def test_activations_are_not_cached_where_that_was_asked(self, make: Callable[..., TrialImages]) -> None:
        images = make(cache_activations=False)
        assert (images.is_divided, images.note) == (False, "the frozen stages run in every epoch: as asked")
        assert images.training_view() is None

    def test_a_model_that_does_not_divide_says_why(
        self, make: Callable[..., TrialImages], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: object) -> None:
            raise DoesNotDivide("the parts differ from the whole by 1.0e-01")

        monkeypatch.setattr("autotl.train.trial_images.divide", refuse)
        images = make()
        expected = "the frozen stages run in every epoch: the parts differ from the whole by 1.0e-01"
        assert (images.is_divided, images.note) == (False, expected)

    @pytest.mark.parametrize("ask", [TrialImages.validation_view, TrialImages.training_view])
    def test_a_cache_without_room_is_given_up(
        self, make: Callable[..., TrialImages], views: FakeViews, ask: Callable[[TrialImages], Any]
    ) -> None:
        views.room = False
        images = make()
        assert ask(images) is None
        expected = "the frozen stages run in every epoch: there is no room for a view of 1.5 GiB"
        assert (images.is_divided, images.note) == (False, expected)
        assert (images.validation_view(), images.training_view()) == (None, None)
        assert len(views.asked) == 1  # no further view is asked for

    def test_a_cache_that_is_too_small_is_given_up(self, make: Callable[..., TrialImages], tmp_path: Path) -> None:
        images = make(cache_limit=1)
        assert images.validation_view() is None
        assert images.note.startswith("the frozen stages run in every epoch: there is no room for a view of")
        assert not list(tmp_path.glob("*.bin"))

    @pytest.mark.parametrize("ask", [TrialImages.validation_view, TrialImages.training_view])
    def test_where_the_time_is_up_the_cache_is_not_at_fault(
        self, make: Callable[..., TrialImages], views: FakeViews, ask: Callable[[TrialImages], Any]
    ) -> None:
        views.room = False
        images = make(end=0.0)
        assert ask(images) is None
        assert (images.is_divided, images.note) == (True, "")


class TestLogits:
    def test_a_view_gives_what_the_images_give(self, make: Callable[..., TrialImages], backbone: Backbone) -> None:
        images = make()
        view, places = images.validation_view(), np.array([2, 0])
        rows = images.val_rows[places]
        with torch.no_grad():
            cached = images.logits(images.inputs(view, places, rows, None), cached=True)
            whole = images.logits(images.inputs(None, places, rows, None), cached=False)
        assert view is not None
        assert cached.shape == (2, 2)
        torch.testing.assert_close(cached, whole, rtol=0.05, atol=0.02)  # cached activations are bfloat16

    @pytest.mark.parametrize(("augmentation", "same"), [("none", True), ("light", False)])
    def test_live_views_differ_by_their_number(
        self, make: Callable[..., TrialImages], augmentation: str, same: bool
    ) -> None:
        images = make({"augmentation": augmentation}, cache_activations=False)
        places = np.arange(4)
        with torch.no_grad():
            views = [images.inputs(None, places, images.train_rows[places], number) for number in (0, 0, 1)]
            logits = [images.logits(inputs, cached=False) for inputs in views]
        assert torch.equal(logits[0], logits[1])
        assert torch.equal(logits[0], logits[2]) == same


def test_images_are_those_of_the_manifest(make: Callable[..., TrialImages]) -> None:
    images = make()
    assert images.train_rows.tolist() == list(range(8))
    assert images.val_rows.tolist() == [8, 9, 10, 11]
    assert images.labels.tolist() == [0, 1] * 6


def test_the_preprocessing_is_for_images_as_they_are_stored(
    make: Callable[..., TrialImages], backbone: Backbone
) -> None:
    own = backbone.preprocessing
    assert own.store_size != 64
    assert make().preprocessing == replace(own, store_size=64)
