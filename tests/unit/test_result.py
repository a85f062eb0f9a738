"""What a fit hands back, as plain data."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.records import Estimate, Status, TrialRecord
from autotl.result import FitResult

RECORD = TrialRecord(
    number=3,
    trial_id="a1b2",
    config={"backbone": "resnet18.a1_in1k", "freeze_depth": 2},
    status=Status.STOPPED,
    score=0.75,
    epochs=4,
    seconds=12.5,
    metrics={"accuracy": 0.75},
    curve=(0.5, 0.75),
    error="",
    worker="host:17",
    origin="advice",
)


def a_trial(status: Status, origin: str = "search") -> TrialRecord:
    return TrialRecord(0, "t", {}, status, None, 0, 0.0, origin=origin)


def a_result(**changes: Any) -> FitResult:
    card = SimpleNamespace(trial_id="a1b2", epoch=4, config={"freeze_depth": 2})
    advice = SimpleNamespace(scenario=SimpleNamespace(number=1), similarity=SimpleNamespace(similarity=0.5))
    values: dict[str, Any] = {
        "predictor": SimpleNamespace(card=card),
        "advice": advice,
        "trials": (),
        "metric": "accuracy",
        "validation": Estimate(0.9, 0.8, 0.95, 100),
        "test": None,
        "test_metrics": {},
        "run_dir": Path("/runs/one"),
        "seconds": 61.26,
    }
    return FitResult(**(values | changes))


def test_a_trial_becomes_plain_json() -> None:
    assert RECORD.to_json() == {
        "number": 3,
        "trial_id": "a1b2",
        "config": {"backbone": "resnet18.a1_in1k", "freeze_depth": 2},
        "status": "stopped",
        "score": 0.75,
        "epochs": 4,
        "seconds": 12.5,
        "metrics": {"accuracy": 0.75},
        "curve": [0.5, 0.75],
        "error": "",
        "worker": "host:17",
        "origin": "advice",
        "note": "",
        "expected_seconds": None,
    }
    assert type(RECORD.to_json()["status"]) is str


@pytest.mark.parametrize("record", [RECORD, a_trial(Status.FAILED, "probe")])
def test_a_trial_reads_back_from_its_json(record: TrialRecord) -> None:
    copy = TrialRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert copy == record
    assert copy.status is record.status
    assert isinstance(copy.curve, tuple)


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(ValueError, match="'lost' is not a valid Status"):
        TrialRecord.from_json(RECORD.to_json() | {"status": "lost"})


def test_the_statuses_are_words() -> None:
    assert [str(status) for status in Status] == ["completed", "stopped", "cut", "failed"]


def test_an_estimate_reads_with_its_interval_and_sample() -> None:
    assert str(Estimate(0.98039, 0.9437, 0.99333, 153)) == "0.9804 [0.9437, 0.9933] on 153 images"


def test_a_result_becomes_json_without_the_model() -> None:
    result = a_result(test=Estimate(0.8, 0.7, 0.9, 50), test_metrics={"accuracy": 0.8}, interrupted=True)
    assert json.loads(json.dumps(result.to_json())) == {
        "run_dir": "/runs/one",
        "metric": "accuracy",
        "winner": {"trial_id": "a1b2", "epoch": 4, "config": {"freeze_depth": 2}},
        "validation": {"value": 0.9, "low": 0.8, "high": 0.95, "n_images": 100},
        "test": {"value": 0.8, "low": 0.7, "high": 0.9, "n_images": 50},
        "test_metrics": {"accuracy": 0.8},
        "trials": {},
        "scenario": 1,
        "similarity": 0.5,
        "seconds": 61.3,
        "interrupted": True,
        "benefit": None,
        "hindsight": None,
    }


def test_a_result_without_test_split_says_so() -> None:
    assert a_result().to_json()["test"] is None
    assert a_result().to_json()["test_metrics"] == {}


def test_a_result_counts_the_trials_of_the_search_by_status() -> None:
    trials = (
        a_trial(Status.COMPLETED, "probe"),
        a_trial(Status.COMPLETED, "advice"),
        a_trial(Status.COMPLETED),
        a_trial(Status.FAILED),
        a_trial(Status.CUT, "benefit"),
    )
    assert a_result(trials=trials).to_json()["trials"] == {"completed": 2, "failed": 1}
