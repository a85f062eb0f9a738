"""What a fit hands back, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotl.records import Estimate, Status, TrialRecord

if TYPE_CHECKING:
    from autotl.advice.advisor import Advice
    from autotl.advice.benefit import Benefit
    from autotl.advice.hindsight import Hindsight
    from autotl.predictor import Predictor


@dataclass(frozen=True, slots=True, eq=False)
class FitResult:
    """The outcome of a fit.

    Attributes:
        predictor: the best model, ready to predict.
        advice: what was thought of the data before the search.
        trials: every trial, the linear probes first, then in the order in which they ended.
        metric: what was optimised on the validation images.
        validation: that metric of the best model on the validation images it was chosen on, so on the bright side.
        test: that metric on the test split, which played no part in choosing; None without one.
        test_metrics: all metrics on the test split; empty without one.
        run_dir: where everything is.
        seconds: wall time of the fit.
        interrupted: whether the user ended the search early.
        benefit: pretrained weights against random ones; None where that was not measured.
        hindsight: the advice against what won.
    """

    predictor: Predictor
    advice: Advice
    trials: tuple[TrialRecord, ...]
    metric: str
    validation: Estimate
    test: Estimate | None
    test_metrics: dict[str, float]
    run_dir: Path
    seconds: float
    interrupted: bool = False
    benefit: Benefit | None = None
    hindsight: Hindsight | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain JSON types, without the model."""
        card = self.predictor.card
        statuses = [trial.status for trial in self.trials if trial.searched]
        return {
            "run_dir": str(self.run_dir),
            "metric": self.metric,
            "winner": {"trial_id": card.trial_id, "epoch": card.epoch, "config": card.config},
            "validation": asdict(self.validation),
            "test": None if self.test is None else asdict(self.test),
            "test_metrics": self.test_metrics,
            "trials": {str(status): statuses.count(status) for status in Status if status in statuses},
            "scenario": self.advice.scenario.number,
            "similarity": self.advice.similarity.similarity,
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "benefit": None if self.benefit is None else self.benefit.to_json(),
            "hindsight": None if self.hindsight is None else self.hindsight.to_json(),
        }
