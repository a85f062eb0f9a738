"""What pretraining is worth here, measured: the winner's architecture from scratch against its pretrained weights.

Both train on equal terms: the same images, split, batches, augmentation and number of epochs, with rates that rise and
fall in the same way. From scratch, all stages train at the full rate of the backbone's own training. One inequality
remains: frozen stages see a few augmented views again and again, while training from scratch sees a new one in every
epoch.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from autotl.advice.advisor import Advice
from autotl.advice.benefit import Benefit, compare_curves
from autotl.models.saved import ModelCard, load_card, offer
from autotl.result import Estimate, Status, TrialRecord
from autotl.rundir import RunDir, read_json, write_json
from autotl.settings import FitSettings
from autotl.space.search_space import SCRATCH_VALUES, Config
from autotl.train.loop import EpochReport, FineTuning, OutOfTime
from autotl.train.task import TrainingTask

SHARE = 0.2
"""Of the time, at most."""
EPOCHS_WANTED = 2
"""Unasked, nothing is measured where fewer epochs from scratch would fit: one is no curve."""
PASSES_PER_EPOCH = 4
"""An epoch from scratch takes so many times as long as embedding its images did, or longer."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The benefit and the trials that were trained for it; without a benefit, `why` there is none."""

    benefit: Benefit | None
    trials: tuple[TrialRecord, ...] = ()
    why: str = ""


def benefit_seconds(settings: FitSettings, advice: Advice, n_train: int) -> float:
    """What is kept back to measure the benefit of pretraining; 0 where that is not done.

    It is done where it was asked for, and in the scenario that holds training from scratch possible, if enough epochs
    can be expected to fit: the search can use the time better than for nothing.
    """
    seconds = SHARE * settings.budget.timeout
    fastest = max(one.images_per_second for one in advice.backbones)
    fits = EPOCHS_WANTED * PASSES_PER_EPOCH * n_train / fastest <= seconds
    return seconds if settings.measure_benefit or (advice.scenario.scratch and fits) else 0.0


def measure_benefit(run: RunDir, records: Sequence[TrialRecord], deadline: float) -> Measured:
    """Train until `deadline`, and compare the curves as far as both go.

    The winner is compared where it was trained from pretrained weights, else the best trial that was. Its curve is
    taken as it was recorded if it is whole; else it is trained again, in turn with the one from scratch. Either becomes
    the run's model if its score is higher than those of all trials and of the model there, which may be an average.

    Args:
        run: with the task of the search in its cache, and a model.
        records: trials of the search with the linear probes.
        deadline: time.time() at which to stop.
    """
    task_file = run.cache / "task.json"
    chosen = comparable(records, load_card(run.model))
    if chosen is None or not task_file.exists():
        return Measured(None, why="no trial from pretrained weights has a score")
    task = replace(TrainingTask.from_plain(read_json(task_file)), deadline=deadline, whole_schedule=True)
    best = max(one.score for one in records if one.score is not None)
    scratch = Training(task, run, scratch_config(chosen.config), "benefit-scratch", best)
    again = None if is_whole(chosen, task.max_t) else Training(task, run, chosen.config, "benefit-pretrained", best)
    trainings = [scratch] if again is None else [again, scratch]
    train_in_turn(trainings, task)
    trials = tuple(one.record(len(records) + place) for place, one in enumerate(trainings))
    for trial in trials:
        run.append_trial(trial.to_json())
    pretrained = chosen.curve if again is None else tuple(again.curve)
    if min(len(pretrained), len(scratch.curve)) < 2:
        return Measured(None, trials, _why_not(trainings))
    assert scratch.validation is not None
    benefit = compare_curves(
        pretrained,
        scratch.curve,
        task.metric,
        scratch.validation.n_images,
        backbone=chosen.config["backbone"],
        planned=task.max_t,
        half_width=(scratch.validation.high - scratch.validation.low) / 2,
    )
    write_json(run.benefit, benefit.to_json())
    return Measured(benefit, trials)


def comparable(records: Sequence[TrialRecord], winner: ModelCard) -> TrialRecord | None:
    """The trial that the winner comes from, or else the best one from pretrained weights, of its backbone if possible.

    A linear probe has no curve, and a winner from scratch is nothing to compare scratch with.
    """
    scored = [one for one in records if one.searched and one.score is not None]
    pretrained = [one for one in scored if one.config["initial_weights"] == "pretrained"]

    def preference(one: TrialRecord) -> tuple[bool, bool, float]:
        same = one.config["backbone"] == winner.config["backbone"]
        return one.trial_id == winner.trial_id, same, one.score or 0.0

    return max(pretrained, key=preference, default=None)


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
        return not report.cut

    def _train(self) -> EpochReport:
        if self._tuning is None:
            self._tuning = FineTuning(self._task, self.config)
            self.curve.append(self._tuning.start().score)
        report = self._tuning.train_epoch()
        if not report.cut:
            self.curve.append(report.score)
            self._keep(self._tuning, report)
        return report

    def _keep(self, tuning: FineTuning, report: EpochReport) -> None:
        card = tuning.card(report, self._trial_id)
        self.validation = card.validation
        if report.better_than(self._best):
            self._best = report
        if report.score > max(self._beaten, load_card(self._run.model).score):
            offer(self._run, card, tuning.backbone.model.state_dict)

    def record(self, number: int) -> TrialRecord:
        """What became of it."""
        ended = Status.COMPLETED if self.epochs == self._task.max_t else Status.CUT
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
            error=self.error,
            origin="benefit",
            note="" if self._tuning is None else self._tuning.note,
        )


def train_in_turn(trainings: Sequence[Training], task: TrainingTask) -> None:
    """An epoch of each, as often as there are epochs and time for another round."""
    for _ in range(task.max_t):
        if time.time() + sum(one.seconds_per_epoch for one in trainings) > task.deadline:
            return
        if not all(one.advance() for one in trainings):
            return


def _why_not(trainings: Sequence[Training]) -> str:
    failed = [one.error.strip().splitlines()[-1] for one in trainings if one.error]
    return f"training failed: {failed[0]}" if failed else "there was no time for an epoch of each"
