"""Trials between two epochs, kept in the run folder: what ends a search, or a worker, costs minutes and no trial.

A trial is one safetensors file, which is replaced as a whole: its tensors, and the rest as JSON in its header. It is
removed when the trial ends, so that there are as many as trials run at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from autotl.errors import ModelFileError
from autotl.predicates import is_number, is_whole
from autotl.storage.rundir import write_atomically

KEY = "autotl"
"""Of the JSON in the header."""
SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A trial that was in the middle of its training.

    Attributes:
        trial_id: the search's name for it.
        config: the point of the search space.
        weights_sha256: of the pretrained weights that it is trained from.
        epoch, planned: epochs trained, and those after which its rates have fallen to zero.
        elapsed: seconds it took so far.
        continues: the trial from whose weights it began, else "".
        resumed: how often it has been gone on with.
        curve: validation scores, from epoch 0.
        train_losses: mean training losses, from epoch 1.
        best: `EpochReport` of its best epoch as plain data; None where it has none.
        training: what else its training needs to go on, as plain data; see `autotl.train.loop`.
    """

    trial_id: str
    config: dict[str, Any]
    weights_sha256: str
    epoch: int
    planned: int
    elapsed: float
    continues: str
    resumed: int
    curve: tuple[float | None, ...]
    train_losses: tuple[float | None, ...]
    best: dict[str, Any] | None
    training: dict[str, Any]


def keep_unfinished(parent: Path, trial: Unfinished, tensors: Mapping[str, torch.Tensor]) -> None:
    """Keep a trial below `parent`, in place of what it was before.

    Raises:
        OSError: if the disk is full or cannot be written to; what was kept before is still there.
    """
    parent.mkdir(parents=True, exist_ok=True)
    plain = {name: getattr(trial, name) for name in Unfinished.__slots__}
    content = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={KEY: json.dumps(plain)},
    )
    write_atomically(parent / f"{trial.trial_id}{SUFFIX}", content)


def drop_unfinished(parent: Path, trial_id: str) -> None:
    """The trial has ended: what was kept of it goes."""
    with suppress(OSError):
        (parent / f"{trial_id}{SUFFIX}").unlink()


def find_unfinished(parent: Path, trial_id: str) -> Unfinished | None:
    """The trial without its tensors; None where it is not kept, or cannot be read."""
    return _read(parent / f"{trial_id}{SUFFIX}")


def unfinished_trials(parent: Path) -> list[Unfinished]:
    """What is kept below `parent` and can be read, the one with the fewest epochs to go first."""
    found = [trial for path in sorted(parent.glob(f"*{SUFFIX}")) if (trial := _read(path)) is not None]
    return sorted(found, key=lambda trial: trial.planned - trial.epoch)


def load_tensors(parent: Path, trial_id: str) -> dict[str, torch.Tensor]:
    """The tensors of a trial.

    Raises:
        ModelFileError: if they are not there or cannot be read.
    """
    path = parent / f"{trial_id}{SUFFIX}"
    try:
        tensors: dict[str, torch.Tensor] = load(path.read_bytes())
    except Exception as error:  # safetensors raises errors of its own, and those of whatever a damaged head names
        raise ModelFileError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    return tensors


def _read(path: Path) -> Unfinished | None:
    try:
        with safe_open(path, framework="pt") as file:
            plain = json.loads((file.metadata() or {})[KEY])
        trial = Unfinished(**(plain | {name: tuple(plain[name]) for name in ("curve", "train_losses")}))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return trial if _is_sound(trial) and trial.trial_id == path.stem else None


def _is_sound(trial: Unfinished) -> bool:
    """Whether a search can go on with it: a run folder may come from anybody."""
    texts = trial.trial_id, trial.weights_sha256, trial.continues
    numbers = *trial.curve, *trial.train_losses
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(mapping, dict) for mapping in (trial.config, trial.training, trial.best or {}))
        and all(is_whole(count) for count in (trial.epoch, trial.planned, trial.resumed))
        and 0 < trial.epoch < trial.planned
        and is_number(trial.elapsed)
        and all(number is None or is_number(number) for number in numbers)
    )
