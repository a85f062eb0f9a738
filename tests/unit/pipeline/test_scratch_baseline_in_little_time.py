"""Measuring the benefit of pretraining where the time allows few epochs of all images."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autotl.pipeline import scratch_baseline
from autotl.pipeline.scratch_baseline import fitting, measure_benefit, scratch_config
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import load_card
from autotl.train.task import TrainingTask, save_manifest
from tests.unit.pipeline.conftest import CONFIG, MAX_T, Tuning, scratch_trial, trial


class TestLittleTime:
    """96 and 160 training images; an epoch of both takes a tenth of a second for each image, without its views."""

    @pytest.fixture(autouse=True)
    def images(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        labels = np.array([0] * 96 + [1] * 160 + [0] * 8)
        save_manifest(run.cache / "manifest.npz", labels, np.array(["train"] * 256 + ["val"] * 8))
        task = json.loads((run.cache / "task.json").read_text()) | {"manifest": str(run.cache / "manifest.npz")}
        (run.cache / "task.json").write_text(json.dumps(task))

        def seconds_with(task: Any) -> Any:
            n_images = int((task.load_manifest()[1] == "train").sum())
            return lambda config, epochs, views_from: n_images / 20 * epochs + 0.1 * (views_from == 0)

        monkeypatch.setattr(scratch_baseline, "predictor", seconds_with)

    @pytest.mark.parametrize(
        ("deadline", "expected"), [(77.0, None), (76.0, (128, 256)), (38.5, (64, 256)), (10.0, (64, 256))]
    )
    def test_both_are_trained_on_as_many_images_as_enough_epochs_allow(
        self, run: RunDir, deadline: float, expected: tuple[int, int] | None
    ) -> None:
        benefit = measure_benefit(run, [trial()], deadline).benefit
        assert benefit is not None
        assert benefit.images == expected
        assert benefit.planned == (MAX_T if deadline > 20.0 else 1)
        assert benefit.sentences[0].startswith(f"Both were trained on {(expected or [0])[0]} of 256") is bool(expected)

    def test_the_recorded_curve_of_all_images_is_no_match_for_some(self, run: RunDir) -> None:
        measured = measure_benefit(run, [trial(), scratch_trial(0.85, (0.1, 0.3, 0.5, 0.85))], deadline=60.0)
        assert Tuning.begun == [CONFIG, scratch_config(CONFIG)]
        assert measured.benefit is not None
        assert measured.benefit.scratch == (0.1, 0.2, 0.3, 0.4)
        assert {trial.note for trial in measured.trials} == {"trained on 128 of 256 images"}

    def test_a_model_of_some_images_is_not_the_runs(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tuning, "scores", dict.fromkeys(("scratch", "pretrained"), (0.1, 0.95, 0.98, 0.97)))
        measure_benefit(run, [trial()], deadline=60.0)
        assert load_card(run.model).trial_id == "t0"

    def test_the_images_are_a_stratified_part_of_the_training_images(self, run: RunDir) -> None:
        task = TrainingTask.from_plain(json.loads((run.cache / "task.json").read_text()))
        part, images = fitting(replace(task, deadline=38.5), CONFIG, run)
        labels, split = part.load_manifest()
        assert images == (64, 256)
        assert np.bincount(labels[split == "train"]).tolist() == [24, 40]
        assert (split == "val").sum() == 8
        assert (task.load_manifest()[1] == "train").sum() == 256
