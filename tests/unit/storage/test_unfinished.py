"""Trials between two epochs: what was kept comes back whole, and what is damaged is as if it were not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from autotl.errors import ModelFileError
from autotl.storage.unfinished import (
    Unfinished,
    drop_unfinished,
    find_unfinished,
    keep_unfinished,
    load_tensors,
    unfinished_trials,
)

TRIAL = Unfinished(
    trial_id="t1",
    config={"backbone": "net", "freeze_depth": 3},
    weights_sha256="0" * 64,
    epoch=2,
    planned=6,
    elapsed=12.5,
    continues="",
    resumed=0,
    curve=(0.5, None, 0.7),
    train_losses=(None, 0.3),
    best={"epoch": 2, "score": 0.7},
    training={"part": 4},
)
TENSORS = {"model/weight": torch.arange(6.0).reshape(2, 3), "optimizer/0/step": torch.tensor(7.0)}


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    keep_unfinished(tmp_path / "unfinished", TRIAL, TENSORS)
    assert find_unfinished(tmp_path / "unfinished", "t1") == TRIAL
    loaded = load_tensors(tmp_path / "unfinished", "t1")
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())


def test_a_later_epoch_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    keep_unfinished(tmp_path, TRIAL, TENSORS)
    keep_unfinished(tmp_path, replace(TRIAL, epoch=3), TENSORS)
    assert [trial.epoch for trial in unfinished_trials(tmp_path)] == [3]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_one_with_the_fewest_epochs_to_go_comes_first(tmp_path: Path) -> None:
    for name, epoch, planned in (("a", 3, 20), ("b", 2, 3), ("c", 5, 10)):
        keep_unfinished(tmp_path, replace(TRIAL, trial_id=name, epoch=epoch, planned=planned), TENSORS)
    assert [trial.trial_id for trial in unfinished_trials(tmp_path)] == ["b", "c", "a"]


def test_one_that_has_ended_goes(tmp_path: Path) -> None:
    keep_unfinished(tmp_path, TRIAL, TENSORS)
    drop_unfinished(tmp_path, "t1")
    drop_unfinished(tmp_path, "t1")
    assert unfinished_trials(tmp_path) == []
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_tensors(tmp_path, "t1")


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff" * 100], ids=["empty", "text", "huge header"])
def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t1.safetensors").write_bytes(content)
    assert unfinished_trials(tmp_path) == []
    with pytest.raises(ModelFileError):
        load_tensors(tmp_path, "t1")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 0},
        {"epoch": 6},
        {"epoch": "2"},
        {"planned": None},
        {"elapsed": "long"},
        {"curve": ["high"]},
        {"curve": 3},
        {"config": []},
        {"training": None},
        {"best": "the last"},
        {"trial_id": "another"},
        {"trial_id": 7},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_no_trial_is_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    plain = {name: getattr(TRIAL, name) for name in Unfinished.__slots__} | change
    save_file(TENSORS, tmp_path / "t1.safetensors", metadata={"autotl": json.dumps(plain)})
    assert unfinished_trials(tmp_path) == []


def test_a_file_of_tensors_alone_is_left_out(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "t1.safetensors")
    assert find_unfinished(tmp_path, "t1") is None
