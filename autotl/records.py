"""What a search records: how a trial ended, what it reached, and a metric with its interval. Plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a trial ended."""

    COMPLETED = "completed"
    """It trained for all its epochs."""
    STOPPED = "stopped"
    """The scheduler stopped it early because others were better at the same epoch."""
    CUT = "cut"
    """The time was up."""
    FAILED = "failed"
    """It raised; `TrialRecord.error` holds the traceback."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of the search.

    Attributes:
        number: place in the order in which trials ended, from 0; the linear probes, one a backbone, come first.
        trial_id: the search's own name for the trial.
        config: the point of the search space.
        status: how it ended.
        score: best validation score, larger is better (`log_loss` is negated); None if it never reported one.
        epochs: training epochs finished.
        seconds: wall time in the worker.
        metrics: the validation metrics at its best epoch.
        curve: validation score after every epoch, from epoch 0 (before training).
        error: traceback of a failed trial, else "".
        worker: host name and process id where it ran.
        origin: "probe", "advice" (a start point), "search", "refinement" (of the best, when time is short), or
            "benefit" (trained after the search, to measure what pretraining is worth).
        note: what was out of the ordinary, such as why frozen stages could not be computed once.
        expected_seconds: what a full trial was expected to take when it was proposed.
    """

    number: int
    trial_id: str
    config: dict[str, Any]
    status: Status
    score: float | None
    epochs: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    curve: tuple[float, ...] = ()
    error: str = ""
    worker: str = ""
    origin: str = "search"
    note: str = ""
    expected_seconds: float | None = None

    @property
    def searched(self) -> bool:
        """Whether the search proposed it."""
        return self.origin not in ("probe", "benefit")

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        return asdict(self) | {"status": str(self.status), "curve": list(self.curve)}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> TrialRecord:
        """The record written by `to_json`."""
        return cls(**(plain | {"status": Status(plain["status"]), "curve": tuple(plain["curve"])}))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric measured on a sample, with its 95 % confidence interval [`low`, `high`] and sample size."""

    value: float
    low: float
    high: float
    n_images: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] on {self.n_images} images"
