"""The report of an epoch, and the two errors that end a trial without one."""

from __future__ import annotations

import math
from dataclasses import dataclass


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


class OutOfTime(RuntimeError):
    """The time was up before there was anything to report."""


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What came of an epoch.

    Attributes:
        epoch: 0 is before training.
        score: validation score, larger is better.
        metrics: all validation metrics.
        train_loss: mean training loss, NaN at epoch 0.
        seconds: of training and validation.
        timed_out: the time was up before the epoch was complete.
    """

    epoch: int
    score: float
    metrics: dict[str, float]
    train_loss: float
    seconds: float
    timed_out: bool = False

    def better_than(self, other: EpochReport | None) -> bool:
        """Whether this epoch's model is to be preferred: a higher score, or the same with a lower log loss."""
        if not math.isfinite(self.score):
            return False
        return other is None or (self.score, -self.metrics["log_loss"]) > (other.score, -other.metrics["log_loss"])
