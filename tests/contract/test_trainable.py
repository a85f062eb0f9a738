"""Contract of the class that runs trials: what Ray Tune may expect of it, driven without Ray."""

from __future__ import annotations

import gc
import json
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from autotl.data.pixels import open_store
from autotl.predictor import load_predictor
from autotl.storage.finished import finished_trials
from autotl.storage.saved_model import load_card
from autotl.storage.unfinished import find_unfinished, keep_unfinished, load_tensors, unfinished_trials
from autotl.train.metrics import log_loss
from autotl.tune import trainable as trainables
from autotl.tune.trainable import CONTINUES_KEY, EPOCHS_KEY, RESUMES_KEY, TASK_KEY, FineTuningTrainable

LITE0 = "tf_efficientnet_lite0.in1k"
STAGES = 8
CONFIG: dict[str, Any] = {
    "backbone": LITE0,
    "initial_weights": "pretrained",
    "freeze_depth": STAGES,
    "learning_rate_factor": 0.1,
    "head_learning_rate_factor": 0.5,
    "layer_decay": 0.8,
    "weight_decay": 0.01,
    "augmentation": "none",
    "label_smoothing": 0.0,
    "batch_size": 9,
}
KEYS = {
    *("score", "train_loss", "epoch", "best_score", "best_epoch", "best_metrics"),
    *("status", "error", "elapsed", "worker", "done"),
}
Start = Callable[..., tune.Trainable]


class TrainableContract:
    """What `tune.runner`, the recorder and the study rely on. A subclass names the class of trainables.

    A trial's config holds, besides the point of the search space, the path of a task file under `TASK_KEY`; it may hold
    its number of epochs and the trial that it continues.
    """

    kind: type[tune.Trainable]

    @pytest.fixture
    def start(self, task_file: Callable[..., Path]) -> Iterator[Start]:
        """A function that makes a trainable for CONFIG with changes; keyword arguments change the task."""
        made: list[tune.Trainable] = []

        def begin(changes: dict[str, Any] | None = None, **task_changes: Any) -> tune.Trainable:
            config = CONFIG | (changes or {}) | {TASK_KEY: str(task_file(**task_changes))}
            made.append(self.kind(config=config))
            return made[-1]

        yield begin
        for trainable in made:
            trainable.cleanup()

    @staticmethod
    def restart(trainable: tune.Trainable, task: Path, changes: dict[str, Any] | None = None) -> None:
        """Begin another trial in the same trainable, as Ray does with `reuse_actors`."""
        assert trainable.reset_config(CONFIG | (changes or {}) | {TASK_KEY: str(task)}) is True

    @staticmethod
    def run(trainable: tune.Trainable, at_most: int = 10) -> list[dict[str, Any]]:
        """The results of a whole trial."""
        results = []
        for _ in range(at_most):
            results.append(trainable.step())
            if results[-1]["done"]:
                return results
        raise AssertionError(f"the trial was not done after {at_most} steps")

    @pytest.mark.parametrize("depth", [STAGES, 6, 0])
    def test_epoch_0_is_the_linear_probe(self, start: Start, toy_run: Any, depth: int) -> None:
        trainable = start({"freeze_depth": depth})
        result = trainable.step()
        assert result["epoch"] == 0
        expected = toy_run.probe_metrics["log_loss"]
        assert 0.01 < expected < 0.9  # neither nothing to see nor chance, which is log 3
        assert result["score"] == pytest.approx(-expected, rel=0.03)  # cached features are rounded to bfloat16

    def test_a_trial_runs_from_epoch_0_to_max_t(self, start: Start) -> None:
        results = self.run(start(max_t=3))
        assert [result["epoch"] for result in results] == [0, 1, 2, 3]
        assert [result["done"] for result in results] == [False, False, False, True]
        assert [result["status"] for result in results] == ["stopped", "stopped", "stopped", "completed"]
        assert all(math.isfinite(result["score"]) for result in results)
        assert [math.isfinite(result["train_loss"]) for result in results] == [False, True, True, True]
        assert all(result["error"] == "" for result in results)

    def test_every_result_has_the_keys_in_plain_json(self, start: Start) -> None:
        for result in self.run(start()):
            assert set(result) >= KEYS
            json.dumps(result)
            assert result["elapsed"] > 0

    def test_the_best_epoch_is_the_best_so_far_and_at_the_end_the_last(self, start: Start) -> None:
        results = self.run(start(max_t=3))
        assert math.isnan(results[0]["best_score"])  # epoch 0 is the probe's, not this trial's
        for number, result in enumerate(results[1:], start=1):
            scores = [earlier["score"] for earlier in results[1 : number + 1]]
            best = scores[-1] if result["status"] == "completed" else max(scores)
            assert result["best_score"] == best
            assert result["best_epoch"] == 1 + scores.index(best)
            assert result["best_metrics"]["log_loss"] == pytest.approx(-best)

    def test_training_the_head_of_a_weak_probe_improves_it(self, start: Start) -> None:
        results = self.run(start({"head_learning_rate_factor": 1.0}, max_t=6))
        assert results[-1]["score"] > results[0]["score"] + 0.05

    def test_the_same_config_and_seed_give_the_same_scores(self, start: Start, task_file: Callable[..., Path]) -> None:
        trainable = start({"augmentation": "light"})
        first = [result["score"] for result in self.run(trainable)]
        self.restart(trainable, task_file(), {"augmentation": "light"})
        again = [result["score"] for result in self.run(trainable)]
        assert again == pytest.approx(first, rel=1e-4)
        assert first[1] != first[0]

    def test_another_trial_starts_afresh_in_the_same_process(
        self, start: Start, task_file: Callable[..., Path]
    ) -> None:
        trainable = start()
        first = self.run(trainable)
        self.restart(trainable, task_file(), {"freeze_depth": 7})
        result = trainable.step()
        assert result["error"] == ""
        assert (result["epoch"], result["done"]) == (0, False)
        assert math.isnan(result["best_score"])
        assert result["best_metrics"] == {}
        assert result["score"] == pytest.approx(first[0]["score"], rel=0.03)
        assert result["worker"] == first[0]["worker"]

    def test_deeper_trials_after_shallower_ones_start_from_the_probe_too(
        self, start: Start, toy_run: Any, task_file: Callable[..., Path]
    ) -> None:
        """What was computed for one depth may serve another; it must not change what the other sees."""
        trainable = start({"freeze_depth": 3})
        for depth in (3, 5, 4):
            self.restart(trainable, task_file(), {"freeze_depth": depth})
            result = trainable.step()
            assert result["error"] == ""
            assert result["score"] == pytest.approx(-toy_run.probe_metrics["log_loss"], rel=0.05)

    def test_a_trial_that_was_given_up_halfway_leaves_nothing_behind(
        self, start: Start, task_file: Callable[..., Path]
    ) -> None:
        trainable = start(max_t=3)
        epoch_0, _ = trainable.step(), trainable.step()
        self.restart(trainable, task_file())
        assert trainable.step()["score"] == pytest.approx(epoch_0["score"], rel=1e-4)

    def test_an_exception_becomes_a_failed_result_with_the_traceback(self, start: Start) -> None:
        (result,) = self.run(start({"backbone": "not-prepared"}))
        assert result["status"] == "failed"
        assert result["done"] is True
        assert set(result) >= KEYS
        assert math.isnan(result["score"])
        assert "Traceback (most recent call last)" in result["error"]
        assert "KeyError: 'not-prepared'" in result["error"]

    def test_a_trial_after_a_failed_one_is_sound(self, start: Start, task_file: Callable[..., Path]) -> None:
        trainable = start({"backbone": "not-prepared"})
        assert self.run(trainable)[-1]["status"] == "failed"
        self.restart(trainable, task_file())
        results = self.run(trainable)
        assert results[-1]["status"] == "completed"
        assert all(result["error"] == "" and math.isfinite(result["score"]) for result in results)

    def test_a_loss_that_is_no_number_fails_the_trial_and_keeps_no_model(self, start: Start, tmp_path: Path) -> None:
        results = self.run(start({"head_learning_rate_factor": 1e42}))
        assert results[-1]["status"] == "failed"
        assert "Diverged: the loss became" in results[-1]["error"]
        assert math.isnan(results[-1]["best_score"])
        assert not (tmp_path / "run" / "model" / "model.json").exists()

    def test_past_the_deadline_the_first_result_is_timed_out_and_still_has_a_score(
        self, start: Start, toy_run: Any
    ) -> None:
        (result,) = self.run(start(deadline=1.0))
        assert result["status"] == "timed_out"
        assert result["epoch"] == 0
        assert result["score"] == pytest.approx(-toy_run.probe_metrics["log_loss"], rel=0.03)

    def test_a_model_on_the_way_is_kept_until_there_is_one_at_its_end(self, start: Start, tmp_path: Path) -> None:
        model = tmp_path / "run" / "model"
        trainable = start(max_t=2)
        kept = []
        for _ in range(3):
            trainable.step()
            card = load_card(model) if (model / "model.json").exists() else None
            kept.append(None if card is None else (card.epoch, card.finished))
        assert kept == [None, (1, False), (2, True)]

    def test_a_trial_has_its_own_number_of_epochs(self, start: Start) -> None:
        results = self.run(start({EPOCHS_KEY: 1}, max_t=3))
        assert [result["status"] for result in results] == ["stopped", "completed"]

    def test_a_trial_goes_on_from_the_weights_of_another(
        self, start: Start, task_file: Callable[..., Path], tmp_path: Path
    ) -> None:
        trainable = start({"freeze_depth": 7, "head_learning_rate_factor": 1.0}, max_t=3)
        first = self.run(trainable)
        assert abs(first[-1]["score"] - first[0]["score"]) > 0.05
        (finished,) = finished_trials(tmp_path / "run" / "finished")
        more = {"freeze_depth": 7, EPOCHS_KEY: 1, CONTINUES_KEY: finished.card.trial_id}
        self.restart(trainable, task_file(), more)
        results = self.run(trainable)
        assert [result["error"] for result in results] == ["", ""]
        assert results[0]["score"] == pytest.approx(first[-1]["score"], rel=0.03)
        assert CONTINUES_KEY not in load_card(tmp_path / "run" / "model").config

    def test_going_on_from_a_trial_that_is_gone_fails_the_trial_alone(self, start: Start) -> None:
        (result,) = self.run(start({CONTINUES_KEY: "gone"}))
        assert result["status"] == "failed"
        assert "ModelFileError" in result["error"]

    @pytest.mark.parametrize(
        "changes",
        [{"freeze_depth": 6, "augmentation": "light"}, {"freeze_depth": 0, "initial_weights": "scratch"}],
        ids=["pretrained", "scratch"],
    )
    def test_a_trial_that_was_cut_goes_on_as_if_it_had_not_been(
        self,
        changes: dict[str, Any],
        start: Start,
        task_file: Callable[..., Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self._keep_every_epoch(monkeypatch)
        whole = self.run(start(changes, max_t=4))
        assert unfinished_trials(tmp_path / "run" / "unfinished") == []  # it has ended
        cut = start(changes, max_t=4)
        seconds = [cut.step() for _ in range(3)][-1]["elapsed"]
        self._rename(tmp_path / "run" / "unfinished", cut.trial_id, "cut")
        rest = self.run(start(changes | {RESUMES_KEY: "cut"}, max_t=4))
        assert [result["epoch"] for result in rest] == [3, 4]
        assert [result["score"] for result in rest] == pytest.approx(
            [result["score"] for result in whole[3:]], rel=1e-3
        )
        assert rest[-1]["best_score"] == rest[-1]["score"]
        assert rest[0]["elapsed"] > 0.9 * seconds
        assert unfinished_trials(tmp_path / "run" / "unfinished") == []

    @staticmethod
    def _keep_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trainables, "KEEP_SECONDS", 0.0)
        monkeypatch.setattr(trainables, "KEEP_SHARE", math.inf)

    @staticmethod
    def _rename(folder: Path, old: str, new: str) -> None:
        trial = find_unfinished(folder, old)
        assert trial is not None
        assert (trial.epoch, trial.planned, trial.resumed, len(trial.curve)) == (2, 4, 0, 3)
        assert trial.best is not None
        keep_unfinished(folder, replace(trial, trial_id=new), load_tensors(folder, old))
        (folder / f"{old}.safetensors").unlink()

    def test_what_was_kept_stays_until_more_of_the_trial_is(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "run" / "unfinished"
        self._keep_every_epoch(monkeypatch)
        cut = start(max_t=4)
        _ = [cut.step() for _ in range(3)]
        self._rename(folder, cut.trial_id, "cut")
        monkeypatch.setattr(trainables, "KEEP_SECONDS", 1e9)
        assert start({RESUMES_KEY: "cut"}, max_t=4).step()["epoch"] == 3
        assert [trial.trial_id for trial in unfinished_trials(folder)] == ["cut"]

    def test_going_on_with_what_is_gone_fails_the_trial_alone(self, start: Start) -> None:
        (result,) = self.run(start({RESUMES_KEY: "gone"}))
        assert result["status"] == "failed"
        assert "ModelFileError" in result["error"]

    def test_a_full_disk_does_not_end_a_trial(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(trainables, "KEEP_SECONDS", 0.0)
        monkeypatch.setattr(trainables, "keep_unfinished", full)
        assert self.run(start(max_t=3))[-1]["status"] == "completed"

    def test_the_kept_model_scores_what_the_trial_said(self, start: Start, toy_run: Any, tmp_path: Path) -> None:
        best = self.run(start({"freeze_depth": 7}))[-1]
        assert best["error"] == ""
        predictor = load_predictor(tmp_path / "run" / "model")
        assert predictor.card.epoch == best["best_epoch"]
        assert predictor.card.score == best["best_score"]
        assert predictor.card.freeze_depth == 7
        assert TASK_KEY not in predictor.card.config
        labels, split = toy_run.task.load_manifest()
        val = np.flatnonzero(split == "val")
        pixels = open_store(Path(toy_run.task.store)).open()[val]
        loss = log_loss(predictor.probabilities_of_pixels(pixels), labels[val])
        assert loss == pytest.approx(-best["best_score"], rel=0.05, abs=0.01)


class TestFineTuningTrainable(TrainableContract):
    """`autotl.tune.trainable`."""

    kind = FineTuningTrainable

    def test_the_last_trial_s_model_is_gone_when_the_next_begins(
        self, start: Start, task_file: Callable[..., Path]
    ) -> None:
        trainable = start()
        trainable.step()
        assert trainable._fine_tuning is not None
        model = weakref.ref(trainable._fine_tuning.backbone.model)
        gc.disable()  # not by luck
        try:
            self.restart(trainable, task_file(), {"freeze_depth": 7})
            assert model() is None
        finally:
            gc.enable()
