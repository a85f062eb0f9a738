"""Trials become records as they end: in memory, in the run folder, and for whoever asked."""

from __future__ import annotations

import logging
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from autotl.records import Status, TrialRecord
from autotl.space.files import load_space
from autotl.space.search_space import PARAMETERS
from autotl.storage.rundir import RunDir
from autotl.storage.unfinished import Unfinished
from autotl.tune.pace import Pace
from autotl.tune.recorder import Recorder
from autotl.tune.study import StudySearch


@dataclass
class Trial:
    """What the recorder sees of a trial of Ray's."""

    trial_id: str
    error_file: str | None = None


PACE = Pace(lambda config, epochs, views_from: 2.0 * epochs, max_t=4)


class Stage:
    """A recorder with a search behind it; the test plays Ray."""

    def __init__(self, path: Path, first_number: int = 0) -> None:
        space = load_space("quick").narrow(backbone=("net",))
        point = space.clip({}, {"net": 8})
        self.search = StudySearch(space, {"net": 8}, path / "journal", "run", 0, [point], math.inf, {}, PACE)
        self.run = RunDir(path)
        self.heard: list[TrialRecord] = []
        self.recorder = Recorder(self.run, self.search, first_number, self.heard.append)

    def begin(self, trial_id: str) -> dict[str, Any]:
        config = self.search.suggest(trial_id)
        assert isinstance(config, dict)
        return {name: config[name] for name in PARAMETERS}

    def epoch(self, trial_id: str, epoch: int, score: float, status: str = "stopped", **more: Any) -> None:
        plain = {
            "score": score,
            "train_loss": 1.0 / epoch if epoch else math.nan,
            "epoch": epoch,
            "best_score": score if epoch else math.nan,
            "best_metrics": {"accuracy": score} if epoch else {},
            "status": status,
            "error": "",
            "elapsed": 1.23456 * (epoch + 1),
            "worker": "host:7",
        }
        self.recorder.on_trial_result(0, [], Trial(trial_id), plain | more)

    def end(self, trial_id: str) -> None:
        self.recorder.on_trial_complete(0, [], Trial(trial_id))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_trial_that_went_on_has_the_curves_of_both_halves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stage.begin("t0")
    earlier = Unfinished("cut", config, "", 1, 2, 9.0, "", 0, (0.5, None), (None,), None, {})
    monkeypatch.setattr(stage.search, "resumed", {"t0": earlier}.get)
    stage.epoch("t0", 2, 0.75, "completed")
    stage.end("t0")
    (record,) = stage.recorder.records
    assert record.resumes == "cut"
    assert record.curve[0] == 0.5
    assert math.isnan(record.curve[1])
    assert record.curve[2:] == (0.75,)
    assert record.train_losses == (None, 0.5)
    assert TrialRecord.from_json(record.to_json()).resumes == "cut"


def test_a_completed_trial_is_recorded_with_all_it_reported(stage: Stage) -> None:
    config = stage.begin("t0")
    stage.epoch("t0", 0, 0.5)
    stage.epoch("t0", 1, 0.75)
    stage.epoch("t0", 2, 0.625, "completed", best_score=0.75, best_metrics={"accuracy": 0.75})
    stage.end("t0")
    assert stage.recorder.records == [
        TrialRecord(
            number=0,
            trial_id="t0",
            config=config,
            status=Status.COMPLETED,
            score=0.75,
            epochs=2,
            seconds=3.7,
            metrics={"accuracy": 0.75},
            curve=(0.5, 0.75, 0.625),
            train_losses=(1.0, 0.5),
            error="",
            worker="host:7",
            origin="advice",
            expected_seconds=8.0,
        )
    ]


def test_records_go_to_the_listener_and_to_the_run_folder(stage: Stage) -> None:
    for trial_id in ("t0", "t1"):
        stage.begin(trial_id)
        stage.epoch(trial_id, 1, 0.5, "completed")
        stage.end(trial_id)
    assert stage.heard == stage.recorder.records
    assert [TrialRecord.from_json(plain) for plain in stage.run.read_trials()] == stage.recorder.records


def test_numbers_follow_the_order_of_the_ends(tmp_path: Path) -> None:
    stage = Stage(tmp_path, first_number=3)
    for trial_id in ("t0", "t1", "t2"):
        stage.begin(trial_id)
    for trial_id in ("t1", "t2", "t0"):
        stage.end(trial_id)
    assert [(record.number, record.trial_id) for record in stage.heard] == [(3, "t1"), (4, "t2"), (5, "t0")]
    assert [record.origin for record in stage.heard] == ["search", "search", "advice"]


def test_trials_side_by_side_are_kept_apart(stage: Stage) -> None:
    configs = [stage.begin("t0"), stage.begin("t1")]
    for epoch, (first, second) in enumerate([(0.1, 0.9), (0.2, 0.8)]):
        stage.epoch("t0", epoch, first)
        stage.epoch("t1", epoch, second)
    stage.end("t1")
    stage.end("t0")
    assert [record.curve for record in stage.heard] == [(0.9, 0.8), (0.1, 0.2)]
    assert [record.config for record in stage.heard] == configs[::-1]


def test_training_losses_begin_with_epoch_1_and_are_kept_apart(stage: Stage) -> None:
    for trial_id in ("t0", "t1"):
        stage.begin(trial_id)
        stage.epoch(trial_id, 0, 0.5)
    for epoch, (first, second) in enumerate([(0.9, 0.7), (0.6, 0.8)], 1):
        stage.epoch("t0", epoch, 0.5, train_loss=first)
        stage.epoch("t1", epoch, 0.5, train_loss=second)
    stage.end("t0")
    stage.end("t1")
    assert [record.train_losses for record in stage.heard] == [(0.9, 0.6), (0.7, 0.8)]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, None])
def test_a_training_loss_that_is_not_finite_is_none(stage: Stage, loss: float | None) -> None:
    stage.begin("t0")
    stage.epoch("t0", 1, 0.5, train_loss=0.9)
    stage.epoch("t0", 2, 0.4, "timed_out", train_loss=loss)
    stage.end("t0")
    assert stage.heard[0].train_losses == (0.9, None)
    (plain,) = stage.run.read_trials()
    assert plain["train_losses"] == [0.9, None]
    assert "NaN" not in stage.run.trials.read_text("utf-8")


def test_a_failure_adds_no_training_loss(stage: Stage) -> None:
    stage.begin("t0")
    stage.epoch("t0", 1, 0.5, train_loss=0.9)
    stage.epoch("t0", 0, math.nan, "failed", error="Traceback: out of luck", train_loss=math.nan)
    stage.end("t0")
    assert stage.heard[0].train_losses == (0.9,)


def test_a_trial_that_never_trained_has_no_training_losses(stage: Stage) -> None:
    stage.begin("t0")
    stage.epoch("t0", 0, 0.5)
    stage.end("t0")
    assert stage.heard[0].train_losses == ()


def test_a_trial_the_scheduler_ended_is_stopped(stage: Stage) -> None:
    stage.begin("t0")
    stage.epoch("t0", 1, 0.4)
    stage.end("t0")
    assert (stage.heard[0].status, stage.heard[0].score) == (Status.STOPPED, 0.4)


def test_a_trial_out_of_time_is_timed_out(stage: Stage) -> None:
    stage.begin("t0")
    stage.epoch("t0", 1, 0.4, "timed_out")
    stage.end("t0")
    assert stage.heard[0].status is Status.TIMED_OUT


def test_a_failed_trial_keeps_its_scores_and_its_traceback(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.begin("t0")
    stage.epoch("t0", 0, 0.5)
    stage.epoch("t0", 1, 0.6)
    with caplog.at_level(logging.WARNING, "autotl"):
        stage.epoch("t0", 0, math.nan, "failed", error="Traceback: out of luck", best_score=0.6)
        stage.end("t0")
    (record,) = stage.heard
    assert (record.status, record.score, record.curve) == (Status.FAILED, 0.6, (0.5, 0.6))
    assert record.error == "Traceback: out of luck"
    assert "out of luck" in caplog.text


def test_a_trial_that_failed_at_once_has_no_score(stage: Stage) -> None:
    stage.begin("t0")
    stage.epoch("t0", 0, math.nan, "failed", error="Traceback: at once")
    stage.end("t0")
    (record,) = stage.heard
    assert (record.status, record.score, record.epochs, record.curve) == (Status.FAILED, None, 0, ())


def test_a_lost_worker_fails_its_trial(stage: Stage, tmp_path: Path) -> None:
    reason = tmp_path / "error.txt"
    reason.write_text("killed by the kernel", "utf-8")
    stage.begin("t0")
    stage.epoch("t0", 1, 0.6)
    stage.recorder.on_trial_error(1, [], Trial("t0", str(reason)))
    (record,) = stage.heard
    assert (record.status, record.score, record.curve) == (Status.FAILED, 0.6, (0.6,))
    assert "worker was lost" in record.error
    assert "killed by the kernel" in record.error


def test_a_worker_lost_without_a_reason_still_fails_its_trial(stage: Stage) -> None:
    stage.begin("t0")
    stage.recorder.on_trial_error(1, [], Trial("t0"))
    assert stage.heard[0].status is Status.FAILED
    assert "no reason given" in stage.heard[0].error


def test_trials_still_running_at_the_end_are_timed_out(stage: Stage) -> None:
    for trial_id in ("t0", "t1", "t2"):
        stage.begin(trial_id)
    stage.epoch("t0", 1, 0.5)
    stage.epoch("t1", 3, 0.7, "completed")
    stage.recorder.finish()
    found = {record.trial_id: (record.status, record.score, record.epochs) for record in stage.heard}
    assert found == {
        "t0": (Status.TIMED_OUT, 0.5, 1),
        "t1": (Status.COMPLETED, 0.7, 3),
        "t2": (Status.TIMED_OUT, None, 0),
    }


def test_a_trial_is_recorded_once(stage: Stage) -> None:
    stage.begin("t0")
    stage.epoch("t0", 1, 0.5, "completed")
    stage.end("t0")
    stage.end("t0")
    stage.recorder.on_trial_error(1, [], Trial("t0"))
    stage.recorder.finish()
    assert len(stage.heard) == 1
    assert len(stage.run.read_trials()) == 1


def test_a_trial_the_search_does_not_know_is_not_recorded(stage: Stage) -> None:
    stage.end("nobody")
    assert stage.heard == []


def test_ray_pickles_it_as_a_callback_that_does_nothing(stage: Stage) -> None:
    copy = pickle.loads(pickle.dumps(stage.recorder))
    assert type(copy) is tune.Callback
