"""One Ray Tune class trainable that runs every trial of a slot: the process, its imports and its pages stay warm."""

from __future__ import annotations

import gc
import json
import os
import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray import tune

from autotl import clock
from autotl.compute.device import precision_here, use_gpus
from autotl.compute.memory import give_back_memory, keep_freed_memory
from autotl.records import Status
from autotl.space.search_space import PARAMETERS
from autotl.storage.finished import find_finished, keep_finished
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import offer
from autotl.train.epoch import EpochReport, OutOfTime
from autotl.train.loop import FineTuning
from autotl.train.task import TrainingTask

TASK_KEY, EPOCHS_KEY, CONTINUES_KEY = "task", "epochs", "continues"
"""Keys of the config beside its parameters: the path of the task's JSON file, the epochs of the trial, and the trial
from whose weights it begins ("" for the linear probe or, from scratch, random ones)."""


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
        self._continues = config.get(CONTINUES_KEY, "")
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
            return self._result(None, Status.FAILED, traceback.format_exc())
        status = self._status(report)
        if status is not Status.STOPPED:
            self._fine_tuning = None  # frees the model before the next trial makes its own
        return self._result(report, status, "")

    def _advance(self) -> EpochReport:
        if self._fine_tuning is None:
            use_gpus(self._task.gpus)
            task = replace(self._task, precision=precision_here(self._task.precision))
            self._fine_tuning = FineTuning(task, self._config, self._start_weights())
            report = self._fine_tuning.start()
        else:
            report = self._fine_tuning.train_epoch()
        self._note = self._fine_tuning.note
        return report

    def _start_weights(self) -> Mapping[str, torch.Tensor] | None:
        """What the trial that this one continues has trained."""
        if not self._continues:
            return None
        return find_finished(RunDir(Path(self._task.run_dir)).finished, self._continues).trained()

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
            run = RunDir(Path(self._task.run_dir))
            offer(run, card, self._fine_tuning.backbone.model.state_dict)
            if finished and self._config["initial_weights"] == "pretrained":
                keep_finished(run.finished, card, self._fine_tuning.trained())

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
