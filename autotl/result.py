"""What a fit hands back: the result at its end, and events on the way to whoever asked for them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autotl.records import Estimate, Status, TrialRecord, interval_text

if TYPE_CHECKING:
    from autotl.advice.advisor import Advice
    from autotl.advice.benefit import Benefit
    from autotl.advice.hindsight import Hindsight
    from autotl.predictor import Predictor

SHOWN_TRIALS = 10
"""Rows of the table that a notebook shows."""
_SHOWN_COLUMNS = ("number", "backbone", "initial_weights", "freeze_depth", "score", "status", "epochs", "seconds")


class Callback(Protocol):
    """What is called while a fit goes on; the console is one.

    A subclass need only define what it wants, for these do nothing; any other object needs all three. They are called
    in the thread that called `autotl.fit`. What one raises is reported once, and does not end the fit. All that is
    handed over is plain, frozen data, with `to_json()` for other programs.
    """

    def on_advice(self, advice: Advice) -> None:
        """The advice is there; the search begins."""
        return

    def on_trial(self, trial: TrialRecord) -> None:
        """A trial ended; linear probes come first, and trials that measure the benefit of pretraining last."""
        return

    def on_end(self, result: FitResult) -> None:
        """The result is there, and written."""
        return


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FitResult:
    """The outcome of a fit.

    Attributes:
        predictor: the best model, ready to predict.
        advice: what was thought of the data before the search.
        trials: every trial, the linear probes first, then in the order in which they ended.
        metric: what was optimised on the validation images.
        validation: that metric of the best model on the validation images it was chosen on, so optimistically biased.
        test: that metric on the test split, which played no part in choosing; None without one.
        test_metrics: all metrics on the test split; empty without one.
        run_dir: where everything is.
        seconds: wall time of the fit.
        interrupted: whether the user ended the search early.
        benefit: pretrained weights against random ones; None where that was not measured.
        hindsight: the advice against what won.
        schedule: how the search was to divide its time, as plain JSON types with a `sentence`; None if there was none.
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
    schedule: dict[str, Any] | None = None

    @property
    def n_searched(self) -> int:
        """Trials that the search proposed: without linear probes, and without those that measured the benefit."""
        return sum(trial.searched for trial in self.trials)

    @property
    def winner(self) -> str:
        """The best model in a few words: its backbone, what was trained, and whether it is an average."""
        card = self.predictor.card
        name = card.config["backbone"]
        if card.trial_id.startswith("probe-"):
            return f"{name}, linear probe on frozen features"
        if card.freeze_depth is None:
            return f"{name}, trained from scratch"
        n_stages = next(backbone.n_stages for backbone in self.advice.backbones if backbone.name == name)
        averaged = card.provenance.get("average", ())
        average = f", average of {len(averaged)} models" if averaged else ""
        return f"{name}, freeze depth {card.freeze_depth} of {n_stages}{average}"

    def leaderboard(self) -> list[dict[str, Any]]:
        """Every trial as one flat dict of plain JSON types, best first; trials without a score come last.

        Keys are `number`, `trial_id`, `origin`, `status`, `score` (larger is better, see `TrialRecord`), `epochs`,
        `seconds`, the parameters of the config, and the validation metrics by name. A linear probe has only some of
        the parameters.
        """
        return [trial.to_row() for trial in sorted(self.trials, key=_preference)]

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
            "schedule": self.schedule,
            "benefit": None if self.benefit is None else self.benefit.to_json(),
            "hindsight": None if self.hindsight is None else self.hindsight.to_json(),
        }

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> tuple[str, str, str]:
        chosen = f"validation {self.metric} {interval_text(self.validation, self.metric)}"
        tested = f"test {self.metric} {interval_text(self.test, self.metric)}; " if self.test is not None else ""
        ended = "interrupted after" if self.interrupted else "in"
        trials = "1 trial" if self.n_searched == 1 else f"{self.n_searched} trials"
        return (
            f"FitResult: {self.winner}",
            f"  {tested}{chosen}",
            f"  {trials} {ended} {self.seconds:.0f} s; everything is in {self.run_dir}",
        )

    def _repr_html_(self) -> str:
        """For notebooks: the three lines of `repr`, and the best trials."""
        lines = "<br>".join(html.escape(line.strip()) for line in self._lines())
        rows = self.leaderboard()
        more = f"<p>{len(rows) - SHOWN_TRIALS} more in leaderboard()</p>" if len(rows) > SHOWN_TRIALS else ""
        return f"<p>{lines}</p>{_table(_SHOWN_COLUMNS, rows[:SHOWN_TRIALS])}{more}"


def _preference(trial: TrialRecord) -> tuple[bool, float, int]:
    return trial.score is None, -(trial.score or 0.0), trial.number


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """An HTML table with a head."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in columns)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else html.escape(str(value))


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A run's winner trained once more.

    Attributes:
        trial_id: of the winner; "average" for the mean of several.
        metric: of the scores.
        recorded: that metric on the validation images, as the run has it.
        again: the same of the model that was trained again.
        trained: trials that were trained for it, in order.
        changed: what is not as it was then, a sentence each.
        seconds: wall time.
    """

    trial_id: str
    metric: str
    recorded: Estimate
    again: Estimate
    trained: tuple[str, ...]
    changed: tuple[str, ...]
    seconds: float

    @property
    def is_same(self) -> bool:
        """Whether the score is the same number."""
        return self.again.value == self.recorded.value

    @property
    def agrees(self) -> bool:
        """Whether the score lies in the 95% interval of the one that is recorded."""
        return self.recorded.low <= self.again.value <= self.recorded.high

    @property
    def text(self) -> str:
        """Both scores, and what that means, in a sentence."""
        verdict = "the same" if self.is_same else "within its interval" if self.agrees else "outside its interval"
        recorded, again = interval_text(self.recorded, self.metric), interval_text(self.again, self.metric)
        return f"validation {self.metric} {again}, recorded {recorded}: {verdict}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with `is_same`, `agrees` and `text`."""
        return asdict(self) | {"is_same": self.is_same, "agrees": self.agrees, "text": self.text}
