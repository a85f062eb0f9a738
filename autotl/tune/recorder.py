"""A Tune callback that turns trials into records as they end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from autotl.records import Status, TrialRecord, finite_or_none, nan_for_none
from autotl.storage.rundir import RunDir
from autotl.tune.study import StudySearch

log = logging.getLogger("autotl")


class Recorder(tune.Callback):  # type: ignore[misc]
    """Keeps a record of every trial: in `records`, in the run folder, and by calling `on_trial`.

    Args:
        run: where records are appended.
        search: knows the configs of the trials and where they came from.
        first_number: number of the first record.
        on_trial: called with every record.
        session: number of this session of the run.
    """

    def __init__(
        self,
        run: RunDir,
        search: StudySearch,
        first_number: int,
        on_trial: Callable[[TrialRecord], None],
        session: int = 1,
    ) -> None:
        self.records: list[TrialRecord] = []
        self._run = run
        self._search = search
        self._first_number = first_number
        self._on_trial = on_trial
        self._session = session
        self._curves: dict[str, list[float]] = {}
        self._train_losses: dict[str, list[float | None]] = {}
        self._last: dict[str, dict[str, Any]] = {}

    @property
    def has_begun(self) -> bool:
        """Whether any trial has ever said anything."""
        return bool(self._last or self.records)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Pickled as a callback that does nothing: Ray pickles callbacks for `Tuner.restore`, which is not used."""
        return tune.Callback, ()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Remember an epoch."""
        name = trial.trial_id
        if name not in self._last:
            before = self._search.resumed(name)
            self._curves[name] = [] if before is None else list(map(nan_for_none, before.curve))
            self._train_losses[name] = [] if before is None else list(before.train_losses)
        self._last[name] = result
        if result["status"] != Status.FAILED:
            self._curves[name].append(float(result["score"]))
        if result.get("epoch", 0) > 0:
            self._train_losses[name].append(finite_or_none(result.get("train_loss")))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record a trial that ended, by itself or by the scheduler."""
        self._record(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record a trial whose worker was lost."""
        file = Path(trial.error_file) if trial.error_file else None
        reason = file.read_text("utf-8", "replace").strip() if file is not None and file.is_file() else ""
        self._record(trial.trial_id, f"the worker was lost: {reason or 'no reason given'}")

    def finish(self) -> None:
        """Record the trials that were still running when the search ended."""
        for trial_id in list(self._search.configs):
            self._record(trial_id, timed_out=True)

    def _record(self, trial_id: str, error: str = "", timed_out: bool = False) -> None:
        config = self._search.configs.pop(trial_id, None)
        if config is None:
            return
        last, resumed = self._last.pop(trial_id, {}), self._search.resumed(trial_id)
        record = TrialRecord(
            number=self._first_number + len(self.records),
            trial_id=trial_id,
            config=config,
            status=_status(last, error, timed_out),
            score=finite_or_none(last.get("best_score")),
            epochs=int(last.get("epoch", 0)),
            seconds=round(float(last.get("elapsed", 0.0)), 2),
            metrics=dict(last.get("best_metrics", {})),
            curve=tuple(self._curves.pop(trial_id, [])),
            train_losses=tuple(self._train_losses.pop(trial_id, [])),
            error=error or str(last.get("error", "")),
            worker=str(last.get("worker", "")),
            origin=self._search.origin(trial_id),
            note=str(last.get("note", "")),
            expected_seconds=self._search.expected(trial_id),
            continues=self._search.continued_by(trial_id),
            resumes="" if resumed is None else resumed.trial_id,
            session=self._session,
        )
        self.records.append(record)
        self._run.append_trial(record.to_json())
        if record.note:
            log.info("trial %d: %s", record.number, record.note)
        if record.error:
            log.warning("trial %d failed:\n%s", record.number, record.error)
        self._on_trial(record)


def _status(last: dict[str, Any], error: str, timed_out: bool) -> Status:
    if error:
        return Status.FAILED
    status = Status(last.get("status", Status.TIMED_OUT))
    return Status.TIMED_OUT if timed_out and status is Status.STOPPED else status
