"""The winner once more: what is replaced, and when it is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autotl import refit
from autotl.models.saved import ModelCard, load_card, load_weights, save_model
from autotl.refit import refit_trial
from autotl.result import Estimate
from autotl.rundir import RunDir

CARD = ModelCard(
    backbone="resnet10t",
    classes=("a", "b"),
    preprocessing={},
    freeze_depth=3,
    metric="accuracy",
    score=0.9,
    log_loss=0.3,
    validation=Estimate(0.9, 0.8, 0.95, 50),
    trial_id="t0",
    epoch=2,
    config={"freeze_depth": 3},
)


class Tuning:
    """Stands for `FineTuning`: a score an epoch, and weights that say how often it was trained."""

    scores: tuple[float, ...] = (0.95, 0.97)
    cut = False

    def __init__(self, task: Any, config: dict[str, Any]) -> None:
        assert task.refit
        self.epoch, self.planned = 0, task.max_t
        self.backbone = SimpleNamespace(model=SimpleNamespace(state_dict=self.state))

    def state(self) -> dict[str, torch.Tensor]:
        return {"epochs": torch.tensor([float(self.epoch)])}

    def start(self) -> None:
        pass

    def train_epoch(self) -> Any:
        self.epoch += 1
        return SimpleNamespace(score=self.scores[self.epoch - 1], cut=self.cut and self.epoch == 2)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    save_model(tmp_path / "model", {"epochs": torch.tensor([-1.0])}, CARD)
    return RunDir(tmp_path)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(refit, "FineTuning", Tuning)
    monkeypatch.setattr(refit, "replace", lambda one, **changes: SimpleNamespace(**(vars(one) | changes)), raising=True)
    monkeypatch.setattr(refit, "_refitted", lambda card: card)
    monkeypatch.setattr(refit.time, "time", lambda: 0.0)
    return SimpleNamespace(max_t=2, deadline=100.0, refit=False)


def weights(run: RunDir) -> float:
    return float(load_weights(run.model, load_card(run.model))["epochs"])


def test_a_winner_that_is_as_good_replaces_the_one_before(task: Any, run: RunDir) -> None:
    assert refit_trial(task, run, 1.0) == ""
    assert weights(run) == 2.0
    assert load_card(run.model).validation == CARD.validation


def test_it_is_left_alone_without_the_time(task: Any, run: RunDir) -> None:
    assert refit_trial(task, run, 41.0) == "it would take 102 s of 100 s left"
    assert weights(run) == -1.0


def test_it_is_left_alone_if_it_came_out_worse(task: Any, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuning, "scores", (0.95, 0.89))
    assert refit_trial(task, run, 1.0) == "it came out worse on images it had been trained on"
    assert weights(run) == -1.0


def test_it_is_left_alone_if_it_was_cut(task: Any, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuning, "cut", True)
    assert refit_trial(task, run, 1.0) == "the time was up"
    assert weights(run) == -1.0


def test_a_card_says_that_it_was_refitted() -> None:
    card = refit._refitted(CARD)
    assert card.provenance["refit"] == "trained on training and validation images"
    assert card.score == CARD.score
    assert json.dumps(card.provenance)
    assert np.isfinite(card.score)
