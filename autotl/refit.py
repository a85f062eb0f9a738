"""The winner once more, on training and validation images together.

What was held back to choose among models is data as well, and on small data sets a fifth more images is worth more
than another trial. The validation score stays that of the model that was chosen.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from autotl.models.saved import ModelCard, load_card, save_model
from autotl.rundir import RunDir
from autotl.train.loop import Diverged, FineTuning, OutOfTime
from autotl.train.prepare import Prepared, probe_state
from autotl.train.probe import fit_head
from autotl.train.task import TrainingTask

TIME_FACTOR = 1.25
"""Training and validation images take so many times as long as training images alone."""
REFIT = "trained on training and validation images"
"""In the provenance of a card: under "refit"."""


def refit_trial(task: TrainingTask, run: RunDir, seconds_per_epoch: float) -> str:
    """Train the config of the run's best model for all its epochs on all images but the test split, and save it.

    Args:
        task: of the run, with a deadline that leaves time for it.
        run: holds the best model, which is replaced only by one that is as good on the validation images.
        seconds_per_epoch: that the trial took.

    Returns:
        Why the model was left as it is; "" if it was replaced.
    """
    card = load_card(run.model)
    left, needed = task.deadline - time.time(), TIME_FACTOR * seconds_per_epoch * task.max_t
    if needed > left:
        return f"it would take {needed:.0f} s of {max(0.0, left):.0f} s left"
    try:
        tuning = FineTuning(replace(task, refit=True), card.config)
        tuning.start()
        report = tuning.train_epoch()
        while tuning.epoch < tuning.planned and not report.cut:
            report = tuning.train_epoch()
    except (Diverged, OutOfTime) as error:
        return str(error)
    if report.cut or tuning.epoch < task.max_t:
        return "the time was up"
    if not report.score >= card.score:
        return "it came out worse on images it had been trained on"
    with run.lock():
        save_model(run.model, tuning.backbone.model.state_dict(), _refitted(card))
    return ""


def refit_probe(
    prepared: Prepared, labels: np.ndarray, strength: float, n_classes: int, run: RunDir, *, balanced: bool
) -> str:
    """The same for a linear probe: `labels` are those of the images that were embedded, shape (images,)."""
    state = probe_state(prepared, fit_head(prepared.embeddings, labels, strength, balanced=balanced), n_classes)
    if state is None:
        return "the classifier is not linear"
    with run.lock():
        save_model(run.model, state, _refitted(load_card(run.model)))
    return ""


def _refitted(card: ModelCard) -> ModelCard:
    return replace(card, provenance=card.provenance | {"refit": REFIT})
