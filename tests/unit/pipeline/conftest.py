"""What stands for the training after a search: a run with a model, a trial, and a tuning that takes no time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autotl.pipeline import scratch_baseline
from autotl.pipeline.scratch_baseline import scratch_config
from autotl.records import Estimate, Status, TrialRecord
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import ModelCard, save_model
from autotl.train.epoch import EpochReport

CONFIG: dict[str, Any] = {
    "backbone": "resnet18",
    "initial_weights": "pretrained",
    "freeze_depth": 3,
    "learning_rate_factor": 0.1,
    "head_learning_rate_factor": 0.2,
    "layer_decay": 0.8,
    "weight_decay": 0.02,
    "augmentation": "light",
    "label_smoothing": 0.05,
    "batch_size": 16,
}
MAX_T = 3
CARD = ModelCard(
    backbone="resnet18",
    classes=("a", "b"),
    preprocessing={"input_size": 64, "crop": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3, "store_size": 72},
    freeze_depth=3,
    metric="accuracy",
    score=0.9,
    log_loss=0.3,
    validation=Estimate(0.9, 0.8, 0.95, 100),
    trial_id="t0",
    epoch=2,
    config=CONFIG,
)


def trial(score: float | None = 0.9, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "trial_id": "t0",
        "config": CONFIG,
        "status": Status.COMPLETED,
        "epochs": MAX_T,
        "seconds": 1.0,
        "curve": (0.7, 0.8, 0.9, 0.85),
    }
    return TrialRecord(number=1, score=score, **(values | changes))


class Tuning:
    """Stands for `FineTuning`: scores that depend on the initial weights, a second of the clock an epoch."""

    scores: dict[str, tuple[float, ...]] = {}  # noqa: RUF012
    clock = 0.0
    fails: Exception | None = None
    cut_after = MAX_T
    begun: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, task: Any, config: dict[str, Any]) -> None:
        self.task, self.config, self.epoch, self.note = task, config, 0, ""
        assert task.whole_schedule
        self.begun.append(config)
        self.backbone = SimpleNamespace(model=SimpleNamespace(state_dict=lambda: {"w": torch.tensor([1.0])}))

    def _report(self) -> EpochReport:
        score = self.scores[self.config["initial_weights"]][self.epoch]
        cut = self.epoch > self.cut_after
        return EpochReport(self.epoch, score, {"accuracy": score, "log_loss": 1 - score}, 0.1, 1.0, cut)

    def start(self) -> EpochReport:
        return self._report()

    def train_epoch(self) -> EpochReport:
        self.epoch += 1
        Tuning.clock += 1.0
        if self.fails is not None and self.epoch == 2:
            raise self.fails
        return self._report()

    def card(self, report: EpochReport, trial_id: str) -> ModelCard:
        depth = None if self.config["initial_weights"] == "scratch" else 3
        values = {name: getattr(CARD, name) for name in ("backbone", "classes", "preprocessing", "metric")}
        interval = Estimate(report.score, report.score - 0.1, report.score + 0.1, 100)
        return ModelCard(
            **values,
            freeze_depth=depth,
            score=report.score,
            log_loss=report.metrics["log_loss"],
            validation=interval,
            trial_id=trial_id,
            epoch=report.epoch,
            config=self.config,
        )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose model has 0.9, with the fields of its task that are looked at."""
    scores = {"pretrained": (0.7, 0.75, 0.8, 0.88), "scratch": (0.1, 0.2, 0.3, 0.4)}
    for name, value in {"scores": scores, "clock": 0.0, "begun": []}.items():
        monkeypatch.setattr(Tuning, name, value)
    clock = lambda: Tuning.clock  # noqa: E731
    monkeypatch.setattr(scratch_baseline, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(scratch_baseline, "clock", SimpleNamespace(now=clock))
    monkeypatch.setattr(scratch_baseline, "FineTuning", Tuning)
    monkeypatch.setattr(scratch_baseline, "predictor", lambda task: lambda config, epochs, views_from: 0.0)
    task = {
        "run_dir": str(tmp_path),
        "store": "",
        "manifest": "",
        "classes": ["a", "b"],
        "metric": "accuracy",
        "balanced": False,
        "backbones": {},
        "precision": "fp32",
        "max_t": MAX_T,
        "n_views": 2,
        "cache_dir": "",
        "cache_limit": 0,
        "data_fingerprint": "",
        "seed": 0,
        "deadline": -1.0,
        "anchor": {"machine": "", "offset": 0.0},
        "threads": 1,
        "speed": 1.0,
        "provenance": {},
    }
    run = RunDir(tmp_path)
    run.cache.mkdir()
    (run.cache / "task.json").write_text(json.dumps(task))
    save_model(run.model, {"w": torch.tensor([0.0])}, CARD)
    return run


def scratch_trial(score: float, curve: tuple[float, ...], **changes: Any) -> TrialRecord:
    """One of the search."""
    values: dict[str, Any] = {"trial_id": f"s{score}", "config": scratch_config(CONFIG), "curve": curve}
    return trial(score, **(values | changes))
