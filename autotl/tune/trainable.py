"""One Ray Tune class trainable that runs every trial of a slot: the process, its imports and its pages stay warm."""

from __future__ import annotations

import gc
import json
import logging
import os
import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from ray import tune

from autotl import clock
from autotl.compute.device import precision_here, use_gpus
from autotl.compute.memory import give_back_memory, keep_freed_memory
from autotl.errors import ModelFileError
from autotl.records import Status, finite_or_none, nan_for_none
from autotl.space.search_space import PARAMETERS
from autotl.storage.finished import find_finished, keep_finished
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import offer
from autotl.storage.unfinished import Unfinished, drop_unfinished, find_unfinished, keep_unfinished, load_tensors
from autotl.train.checkpoint import Checkpoint
from autotl.train.epoch import EpochReport, OutOfTime
from autotl.train.loop import FineTuning
from autotl.train.task import TrainingTask

TASK_KEY, EPOCHS_KEY, CONTINUES_KEY, RESUMES_KEY = "task", "epochs", "continues", "resumes"
"""Keys of the config beside its parameters: the path of the task's JSON file, the epochs of the trial, the trial from
whose weights it begins ("" for the linear probe or, from scratch, random ones), and the one that was cut and that it
goes on with ("" for none)."""
KEEP_SECONDS = 15.0
"""So much of a trial may be lost with its worker, or an epoch if that takes longer."""
KEEP_SHARE = 0.02
"""Of a trial's time at most for keeping what it has reached."""

log = logging.getLogger("autotl")


def load_task(path: Path) -> TrainingTask:
    """The task written by the driver."""
    return TrainingTask.from_plain(json.loads(path.read_text("utf-8")))


class FineTuningTrainable(tune.Trainable):  # type: ignore[misc]
    """A trial: epoch 0 is the score before training, then an epoch a step, until max_t or the deadline.

    Whatever goes wrong inside a trial becomes a result with status "failed" and the traceback; the process lives on.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the first trial of this slot."""
        keep_freed_memory()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next trial in the same process."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._begun = time.perf_counter()
        self._config = {name: config[name] for name in PARAMETERS}
        task = load_task(Path(config[TASK_KEY]))
        clock.adopt(task.anchor)
        self._task = replace(task, max_t=config.get(EPOCHS_KEY, task.max_t))
        self._continues, self._resumes = config.get(CONTINUES_KEY, ""), config.get(RESUMES_KEY, "")
        self._earlier: Unfinished | None = None
        self._curve: list[float] = []
        self._losses: list[float] = []
        self._keep_next = self._begun + KEEP_SECONDS
        self._best: EpochReport | None = None
        self._note = ""
        self._fine_tuning: FineTuning | None = None
        gc.collect()  # the last trial's model is part of a cycle of references: it would stay for several trials
        give_back_memory()
        torch.set_num_threads(self._task.threads)

    def step(self) -> dict[str, Any]:
        """One epoch (the first call: epoch 0), or the record of what went wrong."""
        try:
            report = self._advance()
            self._keep_best(report)
        except OutOfTime:
            self._fine_tuning = None
            return self._result(None, Status.TIMED_OUT, "")
        except Exception:  # one trial's failure must not end the search
            self._fine_tuning = None
            self._forget()
            return self._result(None, Status.FAILED, traceback.format_exc())
        status = self._status(report)
        if status is Status.STOPPED:
            self._keep_trial()
        else:
            self._fine_tuning = None  # frees the model before the next trial makes its own
        if status is Status.COMPLETED:
            self._forget()
        return self._result(report, status, "")

    def _advance(self) -> EpochReport:
        if self._fine_tuning is not None:
            report = self._fine_tuning.train_epoch()
        else:
            use_gpus(self._task.gpus)
            task = replace(self._task, precision=precision_here(self._task.precision))
            if self._resumes:
                self._fine_tuning = self._resumed(task)
                report = self._fine_tuning.train_epoch()
            else:
                self._fine_tuning = FineTuning(task, self._config, self._start_weights())
                report = self._fine_tuning.start()
        self._note = self._fine_tuning.note
        self._curve.append(report.score)
        if report.epoch > 0:
            self._losses.append(report.train_loss)
        return report

    def _resumed(self, task: TrainingTask) -> FineTuning:
        """The trial that was cut, as it was after the last epoch that was kept.

        Raises:
            ModelFileError: if that is no longer there.
        """
        folder = self._run_dir.unfinished
        earlier, tensors = find_unfinished(folder, self._resumes), load_tensors(folder, self._resumes)
        if earlier is None:
            raise ModelFileError(f"{folder}: what was kept of trial {self._resumes} cannot be read")
        self._earlier, self._continues = earlier, earlier.continues
        self._best = None if earlier.best is None else EpochReport(**earlier.best)
        self._curve, self._losses = (
            list(map(nan_for_none, earlier.curve)),
            list(map(nan_for_none, earlier.train_losses)),
        )
        self._begun -= earlier.elapsed
        return FineTuning(task, self._config, checkpoint=Checkpoint(earlier.epoch, earlier.training, tensors))

    @property
    def _run_dir(self) -> RunDir:
        return RunDir(Path(self._task.run_dir))

    def _keep_trial(self) -> None:
        """Keep what the trial has reached, if it is long ago that this was done; a full disk does not end a trial."""
        assert self._fine_tuning is not None
        now = time.perf_counter()
        if self._fine_tuning.epoch == 0 or now < self._keep_next:
            return
        checkpoint = self._fine_tuning.checkpoint()
        trial = Unfinished(
            trial_id=self.trial_id,
            config=self._config,
            weights_sha256=self._task.backbones[self._config["backbone"]].weights_sha256,
            epoch=checkpoint.epoch,
            planned=self._task.max_t,
            elapsed=now - self._begun,
            continues=self._continues,
            resumed=0 if self._earlier is None else self._earlier.resumed + 1,
            curve=tuple(map(finite_or_none, self._curve)),
            train_losses=tuple(map(finite_or_none, self._losses)),
            best=None if self._best is None else asdict(self._best),
            training=checkpoint.training,
        )
        try:
            keep_unfinished(self._run_dir.unfinished, trial, checkpoint.tensors)
        except OSError as error:
            log.warning("what trial %s has reached could not be kept: %s", self.trial_id, error)
        else:
            self._forget_earlier()
        taken = time.perf_counter() - now
        self._keep_next = time.perf_counter() + max(KEEP_SECONDS, taken / KEEP_SHARE)

    def _forget(self) -> None:
        """The trial has ended: nothing goes on with it."""
        drop_unfinished(self._run_dir.unfinished, self.trial_id)
        self._forget_earlier()

    def _forget_earlier(self) -> None:
        if self._resumes:
            drop_unfinished(self._run_dir.unfinished, self._resumes)

    def _start_weights(self) -> Mapping[str, torch.Tensor] | None:
        """What the trial that this one continues has trained."""
        if not self._continues:
            return None
        return find_finished(self._run_dir.finished, self._continues).trained()

    def _keep_best(self, report: EpochReport) -> None:
        """Remember this trial's best epoch, and offer its model to the run folder as the best of all.

        Epoch 0 is left out: it is the linear probe, which the run folder has, and a trial that only makes it worse
        must not look as good as the probe to the sampler. A model whose rates have fallen to zero counts in place of a
        better one on the way: the best of many noisy epochs is mostly a lucky one. For the same reason one on the way
        is kept only where it is clearly better than what there is (`ModelCard.better_than`).
        """
        assert self._fine_tuning is not None
        if report.epoch == 0:
            return
        finished = self._status(report) is Status.COMPLETED
        if finished or report.better_than(self._best):
            self._best = report
            card = replace(self._fine_tuning.card(report, self.trial_id), finished=finished)
            offer(self._run_dir, card, self._fine_tuning.backbone.model.state_dict)
            if finished and self._config["initial_weights"] == "pretrained":
                keep_finished(self._run_dir.finished, card, self._fine_tuning.trained())

    def _status(self, report: EpochReport) -> Status:
        assert self._fine_tuning is not None
        if report.epoch >= self._fine_tuning.planned and not report.timed_out:
            return Status.COMPLETED
        # A trial that goes on counts as stopped: if it is ended from outside, this is its last word.
        return Status.TIMED_OUT if report.timed_out or clock.now() >= self._task.deadline else Status.STOPPED

    def _result(self, report: EpochReport | None, status: Status, error: str) -> dict[str, Any]:
        best = self._best
        return {
            "score": report.score if report else float("nan"),
            "train_loss": report.train_loss if report else float("nan"),
            "epoch": report.epoch if report else 0,
            "best_score": best.score if best else float("nan"),
            "best_epoch": best.epoch if best else 0,
            "best_metrics": dict(best.metrics) if best else {},
            "status": str(status),
            "error": error,
            "note": self._note,
            "elapsed": time.perf_counter() - self._begun,
            "worker": f"{platform.node()}:{os.getpid()}",
            "done": status is not Status.STOPPED,
        }

    def cleanup(self) -> None:
        """Free the model when the slot ends."""
        self._fine_tuning = None
