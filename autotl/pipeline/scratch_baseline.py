"""What pretraining is worth here, measured: the winner's architecture from scratch against its pretrained weights.

Equal are the images, the split, the batches, the augmentation and the number of epochs, with rates that rise and fall
in the same way. From scratch, all stages train at the full rate of the backbone's own training. Not equal are:

- the choice: the pretrained curve is that of the best of several trials on the same validation images, so it is
  optimistically biased. From scratch there is one config. Where the search had trials from scratch of the same
  backbone, with rates, batches and augmentation of their own, the best of all is compared; they are few;
- the tuning: rates, weight decay, augmentation and smoothing were searched for pretrained weights, and scratch gets
  what served those best, but for its rates;
- the views: frozen stages see a few augmented views again and again, training from scratch a new one in every epoch.

The first two favour pretrained weights, and one of the benefit's sentences says so.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autotl import clock
from autotl.advice.benefit import Benefit, compare_curves
from autotl.data.splits import stratified_order
from autotl.records import Estimate, Status, TrialRecord, finite_or_none
from autotl.space.search_space import SCRATCH_VALUES, Config
from autotl.storage.rundir import RunDir, read_json, write_json
from autotl.storage.saved_model import ModelCard, load_card, offer
from autotl.train.epoch import EpochReport, OutOfTime
from autotl.train.loop import FineTuning
from autotl.train.task import TrainingTask, save_manifest
from autotl.tune.pace import predictor

ENOUGH_EPOCHS = 4
"""Where all training images allow fewer, both are trained on half of them, or half of that, and so on."""
FEWEST_IMAGES = 64
"""No curve is of fewer training images for that reason."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The benefit and the trials that were trained for it; without a benefit, `why` there is none."""

    benefit: Benefit | None
    trials: tuple[TrialRecord, ...] = ()
    why: str = ""


def measure_benefit(run: RunDir, records: Sequence[TrialRecord], deadline: float) -> Measured:
    """Train until `deadline`, and compare the curves as far as both go.

    The winner is compared where it was trained from pretrained weights, else the best trial that was. Both have as many
    epochs as fit the time, and where these are few, a part of the training images. Its curve is taken as it was
    recorded if it has so many epochs of all images; else it is trained again, in turn with the one from scratch. Either
    becomes the run's model if it saw all images, and its score is higher than those of all trials and of the model
    there, which may be an average. Of the new curve from scratch and the whole ones that the search has of the same
    backbone, the one that ends highest is compared.

    Args:
        run: with the task of the search in its cache, and a model.
        records: trials of the search with the linear probes.
        deadline: clock.now() at which to stop.
    """
    task_file = run.cache / "task.json"
    winner = load_card(run.model)
    chosen = comparable(records, winner)
    if chosen is None or not task_file.exists():
        return Measured(None, why="no trial from pretrained weights has a score")
    task = replace(TrainingTask.from_plain(read_json(task_file)), deadline=deadline, whole_schedule=True)
    task, images = fitting(task, chosen.config, run)
    # A model of some of the images is for the comparison only.
    best = math.inf if images else max(record.score for record in records if record.score is not None)
    scratch = Training(task, run, scratch_config(chosen.config), "benefit-scratch", best)
    recorded = images is None and is_whole(chosen, task.max_t)
    again = None if recorded else Training(task, run, chosen.config, "benefit-pretrained", best)
    trainings = [scratch] if again is None else [again, scratch]
    train_in_turn(trainings, task)
    trials = tuple(training.record(len(records) + place, images) for place, training in enumerate(trainings))
    for trial in trials:
        run.append_trial(trial.to_json())
    pretrained = chosen.curve if again is None else tuple(again.curve)
    rivals = [trial for trial in trials[-1:] if trial.epochs]
    if images is None:
        rivals += whole_scratch(records, chosen, task.max_t)
    if len(pretrained) < 2 or not rivals:
        return Measured(None, trials, _why_not(trainings))
    validation = scratch.validation or winner.validation
    benefit = compare_curves(
        pretrained,
        max(rivals, key=lambda trial: trial.curve[-1]).curve,
        task.metric,
        validation.n_images,
        backbone=chosen.config["backbone"],
        planned=task.max_t,
        half_width=(validation.high - validation.low) / 2,
        tried=(len(_scored(records, "pretrained")), len(rivals)),
        failure=_failure(trainings),
        images=images,
    )
    write_json(run.benefit, benefit.to_json())
    return Measured(benefit, trials)


def fitting(task: TrainingTask, config: Config, run: RunDir) -> tuple[TrainingTask, tuple[int, int] | None]:
    """The task with as many epochs as fit the time; and, where all images allow few, with some of them.

    Args:
        task: with the deadline and the epochs of a full trial.
        config: from pretrained weights.
        run: in whose cache the list of some images is written.

    Returns:
        The task, and how many training images it has of how many; None for all.
    """
    enough = min(ENOUGH_EPOCHS, task.max_t)
    epochs = fitting_epochs(task, config, config["freeze_depth"])
    if epochs >= enough:
        return replace(task, max_t=epochs), None
    labels, split = task.load_manifest()
    rows = np.flatnonzero(split == "train")
    order = rows[stratified_order(labels[rows], task.seed)]
    some, manifest, n_images = task, run.cache / "benefit-manifest.npz", len(rows)
    while epochs < enough and n_images >= 2 * FEWEST_IMAGES:
        n_images //= 2
        kept = split.copy()
        kept[order[n_images:]] = ""
        save_manifest(manifest, labels, kept)
        some = replace(task, manifest=str(manifest))
        epochs = fitting_epochs(some, config, 0)
    return replace(some, max_t=epochs), None if some is task else (n_images, len(rows))


def fitting_epochs(task: TrainingTask, config: Config, views_from: int) -> int:
    """Epochs for which both can be trained until the deadline, so that their rates fall to zero.

    Args:
        task: with the deadline and the epochs of a full trial, which are the most.
        config: from pretrained weights.
        views_from: the depth at which views of the images are cached for `config`; 0 if at none.

    Returns:
        One or more.
    """
    predict, scratch = predictor(task), scratch_config(config)
    seconds = task.deadline - clock.now()

    def both(epochs: int) -> float:
        return predict(scratch, epochs, 0) + predict(config, epochs, views_from)

    return next((epochs for epochs in range(task.max_t, 1, -1) if both(epochs) <= seconds), 1)


def comparable(records: Sequence[TrialRecord], winner: ModelCard) -> TrialRecord | None:
    """The trial that the winner comes from, or else the best one from pretrained weights, of its backbone if possible.

    A linear probe has no curve, and a winner from scratch is nothing to compare scratch with.
    """

    def preference(record: TrialRecord) -> tuple[bool, bool, float]:
        same = record.config["backbone"] == winner.config["backbone"]
        return record.trial_id == winner.trial_id, same, record.score or 0.0

    return max(_scored(records, "pretrained"), key=preference, default=None)


def whole_scratch(records: Sequence[TrialRecord], chosen: TrialRecord, max_t: int) -> list[TrialRecord]:
    """The trials of the search that trained the backbone of `chosen` from scratch, for all epochs of a full one."""
    name = chosen.config["backbone"]
    scratch = [record for record in _scored(records, "scratch") if record.config["backbone"] == name]
    return [record for record in scratch if is_whole(record, max_t)]


def _scored(records: Sequence[TrialRecord], weights: str) -> list[TrialRecord]:
    """The trials of the search with a score that began with such weights, and not with those of another trial."""
    scored = [record for record in records if record.searched and record.score is not None and not record.continues]
    return [record for record in scored if record.config["initial_weights"] == weights]


def scratch_config(config: Config) -> Config:
    """The same from scratch: all stages train at the full rate of the backbone's own training."""
    full = {"learning_rate_factor": 1.0, "head_learning_rate_factor": 1.0}
    return config | SCRATCH_VALUES | full | {"initial_weights": "scratch"}


def is_whole(record: TrialRecord, max_t: int) -> bool:
    """Whether a trial has the scores of all epochs of a full one."""
    finished = record.status is Status.COMPLETED and record.epochs == max_t
    return finished and len(record.curve) == max_t + 1 and all(map(math.isfinite, record.curve))


class Training:
    """One of the trainings: its curve so far, of whole epochs only.

    What goes wrong is kept in `error` and ends it: the run's model must not be lost for a measurement.

    Args:
        task: of the run.
        run: is offered every epoch that scores higher than its model and `beaten`.
        config: what to train.
        trial_id: for the record.
        beaten: the best score of the search.
    """

    def __init__(self, task: TrainingTask, run: RunDir, config: Config, trial_id: str, beaten: float) -> None:
        self.config = config
        self.curve: list[float] = []
        self.train_losses: list[float | None] = []
        self.validation: Estimate | None = None
        self.seconds_per_epoch = 0.0
        self.error = ""
        self._task, self._run, self._trial_id, self._beaten = task, run, trial_id, beaten
        self._tuning: FineTuning | None = None
        self._best: EpochReport | None = None
        self._seconds = 0.0

    @property
    def epochs(self) -> int:
        """Whole epochs of training so far."""
        return max(0, len(self.curve) - 1)

    def advance(self) -> bool:
        """One more epoch, before the first one the score at epoch 0 as well; False if it did not become whole."""
        begun = time.perf_counter()
        try:
            report = self._train()
        except OutOfTime:
            return False
        except Exception:  # a failed trial is a record
            self.error = traceback.format_exc()
            return False
        finally:
            self.seconds_per_epoch = time.perf_counter() - begun
            self._seconds += self.seconds_per_epoch
        return not report.timed_out

    def _train(self) -> EpochReport:
        if self._tuning is None:
            self._tuning = FineTuning(self._task, self.config)
            self.curve.append(self._tuning.start().score)
        report = self._tuning.train_epoch()
        if not report.timed_out:
            self.curve.append(report.score)
            self.train_losses.append(finite_or_none(report.train_loss))
            self._keep(self._tuning, report)
        return report

    def _keep(self, tuning: FineTuning, report: EpochReport) -> None:
        card = replace(tuning.card(report, self._trial_id), finished=report.epoch == self._task.max_t)
        self.validation = card.validation
        if report.better_than(self._best):
            self._best = report
        if report.score > max(self._beaten, load_card(self._run.model).score):
            offer(self._run, card, tuning.backbone.model.state_dict)

    def record(self, number: int, images: tuple[int, int] | None) -> TrialRecord:
        """What became of it; `images` as in `Benefit`."""
        part = "" if images is None else f"trained on {images[0]} of {images[1]} images"
        ended = Status.COMPLETED if self.epochs == self._task.max_t else Status.TIMED_OUT
        metrics: dict[str, Any] = {} if self._best is None else dict(self._best.metrics)
        return TrialRecord(
            number=number,
            trial_id=self._trial_id,
            config=self.config,
            status=Status.FAILED if self.error else ended,
            score=None if self._best is None else self._best.score,
            epochs=self.epochs,
            seconds=round(self._seconds, 2),
            metrics=metrics,
            curve=tuple(self.curve),
            train_losses=tuple(self.train_losses),
            error=self.error,
            origin="benefit",
            note="; ".join(filter(None, [part, "" if self._tuning is None else self._tuning.note])),
        )


def train_in_turn(trainings: Sequence[Training], task: TrainingTask) -> None:
    """An epoch of each, as often as there are epochs and time for another round."""
    for _ in range(task.max_t):
        if clock.now() + sum(training.seconds_per_epoch for training in trainings) > task.deadline:
            return
        if not all(training.advance() for training in trainings):
            return


def _why_not(trainings: Sequence[Training]) -> str:
    return _failure(trainings) or "there was no time for an epoch of each"


def _failure(trainings: Sequence[Training]) -> str:
    """What ended a training, if it was not the time; else ""."""
    failed = [training.error.strip().splitlines()[-1] for training in trainings if training.error]
    return f"training failed: {failed[0]}" if failed else ""
