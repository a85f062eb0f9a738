"""Trials that came to their end, kept in the run folder: only what they trained is stored."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from autotl.storage.saved_model import ModelCard, load_card, load_weights, save_model

MAX_KEPT = 40
MAX_BYTES = 2 * 2**30
"""Of all that are kept, on disk; two are kept whatever their size."""


KEPT_IN_THE_END = 2
"""When the search is over: another session goes on from the best, and averages it with its near-ties."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial that trained until its rates had fallen to zero: its card, and the folder of its trained tensors."""

    card: ModelCard
    folder: Path

    def trained(self) -> dict[str, torch.Tensor]:
        """The tensors it trained, by name; all others are as pretrained."""
        return load_weights(self.folder, self.card)


def keep_finished(parent: Path, card: ModelCard, trained: dict[str, torch.Tensor]) -> None:
    """Keep a trial below `parent`, and of all that are there only the best."""
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / ".lock"):
        save_model(parent / card.trial_id, trained, card)
        total = 0
        for place, trial in enumerate(finished_trials(parent)):
            total += (trial.folder / trial.card.weights).stat().st_size
            if place >= MAX_KEPT or (place >= 2 and total > MAX_BYTES):
                shutil.rmtree(trial.folder)


def is_kept(parent: Path, trial_id: str) -> bool:
    """Whether it is kept below `parent`."""
    return (parent / trial_id / "model.json").exists()


def keep_best(parent: Path) -> None:
    """The search is over: what another session may go on from stays, which is the best."""
    for trial in finished_trials(parent)[KEPT_IN_THE_END:]:
        shutil.rmtree(trial.folder, ignore_errors=True)


def find_finished(parent: Path, trial_id: str) -> Finished:
    """One that is kept below `parent`.

    Raises:
        ModelFileError: if it is not there, or damaged.
    """
    folder = parent / trial_id
    return Finished(load_card(folder), folder)


def finished_trials(parent: Path) -> list[Finished]:
    """What is kept below `parent`, best first."""
    folders = [path.parent for path in parent.glob("*/model.json")]
    found = [Finished(load_card(folder), folder) for folder in folders]
    return sorted(found, key=lambda trial: (-trial.card.score, trial.card.log_loss, trial.card.trial_id))
