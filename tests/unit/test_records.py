"""What a search records, as plain data and in words."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from autotl.records import Estimate, Status, TrialRecord, finite_or_none, interval_text, json_text
from autotl.storage.rundir import RunDir

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
    train_losses=(0.9, None),
    error="",
    worker="host:17",
    origin="advice",
)


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
        "train_losses": [0.9, None],
        "error": "",
        "worker": "host:17",
        "origin": "advice",
        "note": "",
        "expected_seconds": None,
        "continues": "",
        "resumes": "",
        "session": 1,
    }
    assert type(RECORD.to_json()["status"]) is str


@pytest.mark.parametrize("record", [RECORD, TrialRecord(0, "t", {}, Status.FAILED, None, 0, 0.0, origin="probe")])
def test_a_trial_reads_back_from_its_json(record: TrialRecord) -> None:
    copy = TrialRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert copy == record
    assert copy.status is record.status
    assert isinstance(copy.curve, tuple)
    assert isinstance(copy.train_losses, tuple)


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(ValueError, match="'lost' is not a valid Status"):
        TrialRecord.from_json(RECORD.to_json() | {"status": "lost"})


def test_the_statuses_are_words() -> None:
    assert [str(status) for status in Status] == ["completed", "stopped", "timed_out", "failed"]


def test_an_estimate_reads_with_its_interval_and_sample() -> None:
    assert str(Estimate(0.98039, 0.9437, 0.99333, 153)) == "0.9804 [0.9437, 0.9933] on 153 images"


def test_a_row_is_flat_and_plain() -> None:
    assert RECORD.to_row() == {
        "number": 3,
        "trial_id": "a1b2",
        "origin": "advice",
        "status": "stopped",
        "score": 0.75,
        "epochs": 4,
        "seconds": 12.5,
        "backbone": "resnet18.a1_in1k",
        "freeze_depth": 2,
        "accuracy": 0.75,
    }
    assert type(RECORD.to_row()["status"]) is str


@pytest.mark.parametrize(
    ("value", "kept"), [(1.5, 1.5), (0.0, 0.0), (None, None), (math.nan, None), (math.inf, None), (-math.inf, None)]
)
def test_what_is_not_a_finite_number_becomes_none(value: float | None, kept: float | None) -> None:
    assert finite_or_none(value) == kept


def test_an_interval_of_shares_is_in_per_cent() -> None:
    assert interval_text(Estimate(0.98039, 0.9437, 0.99333, 153)) == ("98.04% (95% interval 94.4 to 99.3%, 153 images)")


def test_an_interval_above_one_is_in_plain_numbers() -> None:
    assert interval_text(Estimate(1.2, 0.95, 1.5, 40)) == "1.2000 (95% interval 0.9500 to 1.5000, 40 images)"


def test_json_never_holds_a_number_that_is_not_finite() -> None:
    text = json_text({"curve": (0.5, math.nan), "deep": {"low": -math.inf, "n": 3}, "name": "Straße"})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "curve": [0.5, None],
        "deep": {"low": None, "n": 3},
        "name": "Straße",
    }


def test_a_trial_whose_score_was_no_number_comes_back_from_its_json(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_trial(replace(RECORD, curve=(0.5, math.nan)).to_json())
    assert "NaN" not in run.trials.read_text("utf-8")
    (plain,) = run.read_trials()
    first, second = TrialRecord.from_json(plain).curve
    assert first == 0.5
    assert math.isnan(second)


def test_an_estimate_without_an_interval_comes_back_from_its_json() -> None:
    plain = json.loads(json_text(asdict(Estimate(0.5, math.nan, math.nan, 4))))
    again = Estimate.from_json(plain)
    assert (again.value, again.n_images) == (0.5, 4)
    assert math.isnan(again.low)
    assert math.isnan(again.high)


def test_a_file_name_that_is_no_utf8_is_escaped_and_read_back() -> None:
    text = json_text({"path": "caf\udce9.jpg", "label": "é"})
    assert text.isascii()
    assert json.loads(text) == {"path": "caf\udce9.jpg", "label": "é"}
    assert json_text({"label": "é"}) == '{"label": "é"}'
    assert json_text({"label": "é"}, ascii_only=True) == '{"label": "\\u00e9"}'
