"""What a search records: how a trial ended, what it reached, and a metric with its interval. Plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a trial ended."""

    COMPLETED = "completed"
    """It trained for all its epochs."""
    STOPPED = "stopped"
    """Ended between two epochs with time left, as older versions did; also how a trial reports that still runs."""
    TIMED_OUT = "timed_out"
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
        train_losses: mean training loss of every epoch, from epoch 1; None for one that had no time for a step.
        error: traceback of a failed trial, else "".
        worker: host name and process id where it ran.
        origin: "probe", "advice" (a start point), "search", "refinement" (of the best, its rates varied),
            "continuation" (of the best, from its weights), "resumption" (of one that was cut), or "benefit" (trained
            after the search, to measure what pretraining is worth).
        note: what was out of the ordinary, such as why frozen stages could not be computed once.
        expected_seconds: what it was expected to take when it was proposed.
        continues: the trial from whose weights it began, else "".
        resumes: the trial that was cut, and that this one goes on with from the last epoch that was kept, else "":
            `epochs`, `seconds` and the curves are those of both.
        session: which call of the run tried it: 1 is the fit, later ones went on with it.
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
    train_losses: tuple[float | None, ...] = ()
    error: str = ""
    worker: str = ""
    origin: str = "search"
    note: str = ""
    expected_seconds: float | None = None
    continues: str = ""
    resumes: str = ""
    session: int = 1

    @property
    def searched(self) -> bool:
        """Whether the search proposed it."""
        return self.origin not in ("probe", "benefit")

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        lists = {"curve": list(self.curve), "train_losses": list(self.train_losses)}
        return asdict(self) | {"status": str(self.status)} | lists

    def to_row(self) -> dict[str, Any]:
        """What matters of it as one flat dict of plain JSON types, for a table."""
        names = ("number", "trial_id", "origin", "status", "score", "epochs", "seconds")
        return {name: getattr(self, name) for name in names} | {"status": str(self.status)} | self.config | self.metrics

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> TrialRecord:
        """The record written by `to_json`."""
        tuples = {"curve": tuple(map(nan_for_none, plain["curve"])), "train_losses": tuple(plain["train_losses"])}
        return cls(**(plain | {"status": Status(plain["status"])} | tuples))


def finite_or_none(value: float | None) -> float | None:
    """The value, where it is a finite number."""
    return value if value is not None and math.isfinite(value) else None


def json_text(value: Any, indent: int | None = None, *, ascii_only: bool = False) -> str:
    """JSON that every reader accepts: a number that is not finite (a metric without a value) is null.

    File names that are no UTF-8 are escaped, as everything is with `ascii_only`, and are read back as what they are.
    """
    plain = _finite(value)
    text = json.dumps(plain, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(plain, indent=indent, ensure_ascii=True, allow_nan=False)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return finite_or_none(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def nan_for_none(value: float | None) -> float:
    """NaN for the null that `json_text` wrote in its place."""
    return math.nan if value is None else value


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric measured on a sample, with its 95% confidence interval [`low`, `high`] and sample size."""

    value: float
    low: float
    high: float
    n_images: int

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Estimate:
        """What `json_text` made of it."""
        low, high = nan_for_none(plain["low"]), nan_for_none(plain["high"])
        return cls(nan_for_none(plain["value"]), low, high, int(plain["n_images"]))

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] on {self.n_images} images"


def interval_text(estimate: Estimate, metric: str = "") -> str:
    """`98.04% (95% interval 94.4 to 99.3%, 153 images)`, or plain numbers for a log loss."""
    if metric != "log_loss" and estimate.low >= 0 and estimate.high <= 1:
        low, high = 100 * estimate.low, 100 * estimate.high
        return f"{100 * estimate.value:.2f}% (95% interval {low:.1f} to {high:.1f}%, {estimate.n_images} images)"
    return f"{estimate.value:.4f} (95% interval {estimate.low:.4f} to {estimate.high:.4f}, {estimate.n_images} images)"
