"""A trial, trained epoch by epoch, on a small model with random weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autotl.train.epoch import Diverged, OutOfTime
from autotl.train.loop import FineTuning
from autotl.train.task import TrainingTask, save_manifest

Config = dict[str, Any]


def test_without_cached_activations_nothing_is_written_and_the_scores_are_the_same(
    task: TrainingTask, config: Config, tmp_path: Path
) -> None:
    cached = FineTuning(replace(task, cache_dir=str(tmp_path / "cached")), config)
    plain = FineTuning(replace(task, cache_dir=str(tmp_path / "plain"), cache_activations=False), config)
    before = [tuning.start().metrics["log_loss"] for tuning in (cached, plain)]
    after = [tuning.train_epoch() for tuning in (cached, plain)]
    assert before[0] == pytest.approx(before[1], rel=0.01)  # cached activations are rounded to bfloat16
    assert after[0].train_loss == pytest.approx(after[1].train_loss, rel=0.01)
    assert len(list((tmp_path / "cached").glob("activations-*.bin"))) == 2  # validation, and the only view of "none"
    assert not (tmp_path / "plain").exists()
    assert (cached.note, plain.note) == ("", "the frozen stages run in every epoch: as asked")


@pytest.mark.parametrize(("augmentation", "same"), [("none", True), ("light", False)])
def test_without_cached_activations_every_epoch_has_views_of_its_own(
    task: TrainingTask, config: Config, augmentation: str, same: bool
) -> None:
    plain = FineTuning(replace(task, cache_activations=False), config | {"augmentation": augmentation})
    seen: list[torch.Tensor] = []
    plain.backbone.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    plain.train_epoch()
    del seen[:2]  # one image and two, to see what their activations take
    plain.train_epoch()
    first, second = torch.cat(seen[:2]), torch.cat(seen[3:5])  # two batches to train on, one to validate with
    assert len(seen) == 6
    assert torch.equal(first.sort(0)[0], second.sort(0)[0]) == same  # whatever their order


def test_a_trial_with_no_time_for_its_validation_images_has_nothing_to_report(
    task: TrainingTask, config: Config, tmp_path: Path
) -> None:
    late = FineTuning(replace(task, deadline=0.0, cache_dir=str(tmp_path)), config)
    with pytest.raises(OutOfTime, match="before the validation images were through"):
        late.start()


def test_an_epoch_that_the_time_is_up_in_is_reported_as_timed_out(task: TrainingTask, config: Config) -> None:
    late = FineTuning(replace(task, deadline=0.0), config | {"freeze_depth": 0})
    report = late.train_epoch()
    assert (report.epoch, report.timed_out) == (1, True)
    assert math.isnan(report.train_loss)  # there was no time for a step


def test_a_loss_that_is_not_finite_ends_the_trial(task: TrainingTask, config: Config) -> None:
    tuning = FineTuning(task, config | {"freeze_depth": 0})
    with torch.no_grad():
        tuning.backbone.model.get_classifier().bias.fill_(math.nan)
    with pytest.raises(Diverged, match="the loss became nan in epoch 1"):
        tuning.train_epoch()


def test_a_model_of_an_earlier_run_trains_under_its_own_name_and_is_saved_under_that_of_its_architecture(
    task: TrainingTask, config: Config, tmp_path: Path
) -> None:
    name = config["backbone"]
    renamed = replace(task, cache_dir=str(tmp_path), backbones={f"birds/{name}": task.backbones[name]})
    tuning = FineTuning(renamed, config | {"backbone": f"birds/{name}"})
    tuning.start()
    report = tuning.train_epoch()
    card = tuning.card(report, "t0")
    assert (card.backbone, card.config["backbone"]) == (name, f"birds/{name}")
    views = sorted(path.name for path in tmp_path.glob("activations-*.bin"))
    assert len(views) == 2
    FineTuning(replace(task, cache_dir=str(tmp_path)), config).start()  # the same weights: the same views
    assert sorted(path.name for path in tmp_path.glob("activations-*.bin")) == views


@pytest.mark.parametrize("balanced", [False, True])
def test_parts_of_a_batch_train_as_the_whole(
    task: TrainingTask, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, balanced: bool
) -> None:
    smoothed = config | {"batch_size": 8, "label_smoothing": 0.1}
    uneven = save_uneven(task, tmp_path / "uneven.npz", balanced)
    trained, losses = [], []
    for size in (8, 2):
        monkeypatch.setattr("autotl.train.microbatch.PART", size)
        tuning = FineTuning(replace(uneven, cache_dir=str(tmp_path / "cache")), smoothed)
        losses.append(tuning.train_epoch().train_loss)
        trained.append({name: tensor.detach().clone() for name, tensor in tuning.trained().items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    before = {name: tensor.detach() for name, tensor in FineTuning(uneven, smoothed).trained().items()}
    moved = max(float((trained[0][name] - before[name]).abs().max()) for name in before)
    apart = max(float((trained[0][name] - trained[1][name]).abs().max()) for name in before)
    assert apart < 0.02 * moved


def test_where_memory_runs_out_a_batch_trains_in_smaller_parts_to_the_same_end(
    task: TrainingTask, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, trained, loss = config | {"batch_size": 8}, [], FineTuning._loss
    for room in (8, 3):

        def with_room(tuning: FineTuning, view: Any, places: np.ndarray, live: int, room: int = room) -> torch.Tensor:
            if len(places) > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return loss(tuning, view, places, live)

        with monkeypatch.context() as patch:
            patch.setattr(FineTuning, "_loss", with_room)
            patch.setattr(FineTuning, "_choose_part", lambda *arguments: 8)
            tuning = FineTuning(task, large)
            tuning.train_epoch()
        trained.append({name: tensor.detach().clone() for name, tensor in tuning.trained().items()})
        assert tuning._part == (8 if room == 8 else 2)
    before = {name: tensor.detach() for name, tensor in FineTuning(task, large).trained().items()}
    moved = max(float((trained[0][name] - before[name]).abs().max()) for name in before)
    apart = max(float((trained[0][name] - trained[1][name]).abs().max()) for name in before)
    assert apart < 0.02 * moved


@pytest.mark.parametrize("part", [4, 1])
def test_where_memory_runs_out_for_a_batch_steps_are_made_smaller_and_no_batch_is_lost(
    part: int, task: TrainingTask, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = FineTuning(task, config | {"batch_size": 2})
    batch, loaded = FineTuning._batch, list[int]()

    def with_little_room(tuning: FineTuning, view: Any, places: np.ndarray, live: int) -> Any:
        if tuning._part > part:
            raise torch.OutOfMemoryError("CUDA out of memory")
        loaded.extend(places.tolist())
        return batch(tuning, view, places, live)

    monkeypatch.setattr(FineTuning, "_choose_part", lambda *arguments: 8)
    monkeypatch.setattr(FineTuning, "_batch", with_little_room)
    tuning.train_epoch()
    assert sorted(loaded) == list(range(8))
    assert tuning._part == part


def test_a_batch_that_cannot_be_loaded_ends_the_trial(
    task: TrainingTask, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FineTuning, "_choose_part", lambda *arguments: 4)
    monkeypatch.setattr(FineTuning, "_batch", no_room)
    with pytest.raises(torch.OutOfMemoryError):
        FineTuning(task, config).train_epoch()


def test_float16_trains_to_the_same_end_with_scaled_gradients(task: TrainingTask, config: Config) -> None:
    trained = {}
    for precision in ("fp32", "fp16"):
        tuning = FineTuning(replace(task, precision=precision), config)
        before = {name: tensor.detach().clone() for name, tensor in tuning.trained().items()}
        tuning.train_epoch()
        trained[precision] = {name: tensor.detach().clone() for name, tensor in tuning.trained().items()}
    assert tuning._scaler.get_scale() > 1
    moved = sum(float((trained["fp32"][name] - before[name]).square().sum()) for name in before)
    apart = sum(float((trained["fp32"][name] - trained["fp16"][name]).square().sum()) for name in before)
    assert 0 < apart < 0.1**2 * moved


def test_a_step_whose_scaled_gradients_are_infinite_is_left_out(
    task: TrainingTask, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = FineTuning(replace(task, precision="fp16"), config | {"batch_size": 8})
    tuning._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = {name: tensor.detach().clone() for name, tensor in tuning.trained().items()}
    tuning.train_epoch()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tuning.trained().items())
    assert tuning._scaler.get_scale() == 2.0**126


def test_a_single_image_that_does_not_fit_ends_the_trial(
    task: TrainingTask, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*arguments: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FineTuning, "_choose_part", lambda *arguments: 4)
    monkeypatch.setattr(FineTuning, "_loss", no_room)
    with pytest.raises(torch.OutOfMemoryError):
        FineTuning(task, config).train_epoch()


def save_uneven(task: TrainingTask, manifest: Path, balanced: bool) -> TrainingTask:
    """The same images in classes of very different sizes."""
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1])
    save_manifest(manifest, labels, np.repeat(["train", "val"], [8, 4]))
    return replace(task, manifest=str(manifest), balanced=balanced)


def test_from_scratch_a_batch_passes_at_once(
    task: TrainingTask, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.train.microbatch.PART", 2)
    scratch = config | {"initial_weights": "scratch", "freeze_depth": 0, "batch_size": 8}
    sizes: list[int] = []
    tuning = FineTuning(task, scratch)
    tuning.backbone.model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    tuning.train_epoch()
    assert sizes == [8, 4]  # training, validation


def planned_epochs(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> int:
    """What a trial of at most 8 epochs plans after its fourth, with 10 s left and 1 s an epoch."""
    task = SimpleNamespace(max_t=8, whole_schedule=False, deadline=10.0)
    values = {"epoch": 4, "task": task, "_epoch_seconds": 1.0, "_view_seconds": 0.0, "views": 0} | changes
    views = values.pop("views")
    tuning: Any = SimpleNamespace(_images=SimpleNamespace(views_to_make=views), **values)
    monkeypatch.setattr("autotl.train.loop.clock", SimpleNamespace(now=lambda: 0.0))
    return FineTuning._plan_epochs(tuning)


@pytest.mark.parametrize(
    ("changes", "planned"),
    [
        ({}, 8),
        ({"_epoch_seconds": 4.0}, 6),
        ({"_epoch_seconds": 11.0}, 5),
        ({"_epoch_seconds": 2.0, "_view_seconds": 4.0, "views": 1}, 7),
        ({"_epoch_seconds": 2.0, "_view_seconds": 4.0, "views": 0}, 8),
        ({"epoch": 0, "_epoch_seconds": 11.0}, 8),
    ],
)
def test_epochs_are_planned_by_the_time_left_and_the_views_to_make(
    changes: dict[str, Any], planned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned_epochs(monkeypatch, **changes) == planned


def test_a_whole_schedule_is_kept_where_the_time_ends_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    task = SimpleNamespace(max_t=8, whole_schedule=True, deadline=0.0)
    assert planned_epochs(monkeypatch, task=task) == 8
