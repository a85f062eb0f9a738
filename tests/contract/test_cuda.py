"""The seam to the GPU: forward passes, averaging and prediction keep all their tensors on one device.

There is no GPU: `fake_cuda` has tensors without values, and torch refuses to mix devices as it always does. Backward
passes need a real one, see `benchmarks/gpu.py`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import gpu
import numpy as np
import pytest
import torch

from autotl import predictor
from autotl.data.pixels import open_store
from autotl.frozen import prepare
from autotl.models.backbone import create
from autotl.models.catalog import find_entry
from autotl.pipeline.averaging import average_winner
from autotl.records import Status, TrialRecord
from autotl.storage.cache import DiskCache
from autotl.storage.finished import keep_finished
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import ModelCard, save_model
from autotl.train import loop
from autotl.train.loop import FineTuning
from autotl.train.task import TrainingTask

from .conftest import LITE0, ToyRun
from .fake_cuda import fake_cuda

CUDA = torch.device("cuda")
pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")


config = partial(gpu.config, LITE0)
"""A point of the search space at a freeze depth, as the proof on a real GPU has it."""


@pytest.fixture
def task(toy_run: ToyRun, tmp_path: Path) -> TrainingTask:
    cache = str(tmp_path / "views")
    return dataclasses.replace(
        toy_run.task, precision="bf16", balanced=True, run_dir=str(tmp_path / "run"), cache_dir=cache
    )


def test_a_model_on_a_gpu_refuses_tensors_on_the_cpu() -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match="device"):
        torch.zeros(2, device="cuda") + torch.zeros(2)


class TestTraining:
    @pytest.mark.parametrize("depth", [0, 5, 8])
    def test_validation_stays_on_the_gpu(self, depth: int, task: TrainingTask) -> None:
        with fake_cuda(loop):
            tuning = FineTuning(task, config(depth))
            report = tuning.start()
            assert {parameter.device.type for parameter in tuning.backbone.model.parameters()} == {"cuda"}
        assert (report.epoch, tuning.note) == (0, "")

    def test_without_room_for_a_view_the_frozen_stages_run_in_every_epoch(self, task: TrainingTask) -> None:
        with fake_cuda(loop, room=0):
            tuning = FineTuning(task, config(5))
            assert tuning.start().epoch == 0
        assert "no room for a view" in tuning.note

    @pytest.mark.parametrize("room", [0, 2**30])
    @pytest.mark.parametrize("depth", [0, 5, 8])
    def test_the_loss_of_a_batch_stays_on_the_gpu(self, depth: int, room: int, task: TrainingTask) -> None:
        with fake_cuda(loop, room=room):
            tuning = FineTuning(task, config(depth))
            view = tuning._images.training_view()
            loss = tuning._loss(*tuning._batch(view, np.arange(8), 0), view is not None)
            assert loss.device.type == "cuda"

    def test_so_it_does_from_scratch(self, task: TrainingTask) -> None:
        with fake_cuda(loop):
            tuning = FineTuning(task, config(0, "scratch"))
            assert tuning._loss(*tuning._batch(None, np.arange(8), 0), False).device.type == "cuda"


class TestAveraging:
    def test_trials_that_were_kept_on_disk_are_averaged_with_the_start_on_the_gpu(self, task: TrainingTask) -> None:
        run = RunDir(Path(task.run_dir))
        run.path.mkdir()
        tuning = FineTuning(task, config(7))
        card = dataclasses.replace(tuning.card(tuning.start(), "one"), score=0.0, log_loss=9.0)
        save_model(run.model, tuning.backbone.model.state_dict(), card)
        for name in ("one", "two"):
            keep_finished(run.finished, dataclasses.replace(card, trial_id=name), tuning.trained())
        probe = TrialRecord(0, "probe", config(8), Status.COMPLETED, 0.0, 0, 1.0, origin="probe")
        with fake_cuda(loop):
            assert average_winner(task, run, probe).startswith(("averaged 3 models", "averages of the best"))


class TestPrediction:
    def test_pixels_go_to_the_gpu_and_probabilities_come_back(self, task: TrainingTask) -> None:
        backbone = create(LITE0, 3, None)
        tuning = FineTuning(task, config(8))
        card: ModelCard = tuning.card(tuning.start(), "one")
        pixels = open_store(Path(task.store)).open()[:3]
        with fake_cuda(predictor):
            model = predictor.Predictor(card, backbone.model, tuning._images.preprocessing)
            assert model.probabilities_of_pixels(pixels).shape == (3, len(task.classes))
            model._batch = 2  # the last batch is filled up
            assert model.probabilities_of_pixels(pixels).shape == (3, len(task.classes))
            assert model.device == CUDA


class TestEmbedding:
    def test_embeddings_and_stages_come_back_from_the_gpu(self, task: TrainingTask, tmp_path: Path) -> None:
        rows = np.arange(5)
        with fake_cuda(prepare):
            prepared = prepare.prepare(
                find_entry(LITE0),
                open_store(Path(task.store)),
                rows,
                tmp_path,
                "bf16",
                allow_download=False,
                workers=2,
                passes=1,
                cache=DiskCache(tmp_path / "cache"),
                on_progress=lambda done: None,
                stage_rows=rows[:3],
            )
        assert prepared.embeddings.shape == (5, 1280)
        assert {features.shape[0] for features in prepared.stage_features.values()} == {3}
