"""Trials that came to their end, and which of them are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autotl.records import Estimate
from autotl.storage import finished
from autotl.storage.finished import finished_trials, keep_finished
from autotl.storage.saved_model import ModelCard

PREPROCESSING = {"input_size": 64, "crop": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3, "store_size": 72}
CARD = ModelCard("net", ("a", "b"), PREPROCESSING, 3, "accuracy", 0.5, 0.3, Estimate(0.5, 0.4, 0.6, 50), "t", 4, {})


def keep(folder: Path, name: str, score: float, log_loss: float = 0.3, size: int = 4) -> None:
    tensors = {"weight": torch.full((size,), score)}
    keep_finished(folder, replace(CARD, trial_id=name, score=score, log_loss=log_loss), tensors)


def test_what_was_kept_comes_back_best_first(tmp_path: Path) -> None:
    keep(tmp_path, "low", 0.5)
    keep(tmp_path, "unsure", 0.75, log_loss=0.4)
    keep(tmp_path, "sure", 0.75, log_loss=0.2)
    found = finished_trials(tmp_path)
    assert [trial.card.trial_id for trial in found] == ["sure", "unsure", "low"]
    assert torch.equal(found[2].trained()["weight"], torch.full((4,), 0.5))


def test_only_the_best_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "MAX_KEPT", 3)
    for place, score in enumerate((0.5, 0.9, 0.1, 0.7, 0.6)):
        keep(tmp_path, f"t{place}", score)
    assert [trial.card.score for trial in finished_trials(tmp_path)] == [0.9, 0.7, 0.6]


def test_large_models_are_kept_in_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "MAX_BYTES", 5000)
    for place, score in enumerate((0.5, 0.9, 0.7, 0.8)):
        keep(tmp_path, f"t{place}", score, size=1000)
    assert [trial.card.score for trial in finished_trials(tmp_path)] == [0.9, 0.8]


def test_nothing_is_kept_where_no_trial_came_to_its_end(tmp_path: Path) -> None:
    assert finished_trials(tmp_path / "none") == []
