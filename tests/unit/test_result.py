"""What a fit hands back: as JSON, as a table, in three lines, and in a notebook."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.records import Estimate, Status, TrialRecord
from autotl.result import Callback, FitResult

CONFIG = {"backbone": "resnet18", "freeze_depth": 2}


def a_trial(status: Status, origin: str = "search") -> TrialRecord:
    return TrialRecord(0, "t", {}, status, None, 0, 0.0, origin=origin)


def a_result(**changes: Any) -> FitResult:
    card = SimpleNamespace(trial_id="a1b2", epoch=4, config=CONFIG, freeze_depth=2, provenance={})
    backbones = (SimpleNamespace(name="resnet18", n_stages=5),)
    advice = SimpleNamespace(
        scenario=SimpleNamespace(number=1), similarity=SimpleNamespace(similarity=0.5), backbones=backbones
    )
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


def test_a_result_becomes_json_without_the_model() -> None:
    result = a_result(test=Estimate(0.8, 0.7, 0.9, 50), test_metrics={"accuracy": 0.8}, interrupted=True)
    assert json.loads(json.dumps(result.to_json())) == {
        "run_dir": "/runs/one",
        "metric": "accuracy",
        "winner": {"trial_id": "a1b2", "epoch": 4, "config": CONFIG},
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
        "schedule": None,
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
        a_trial(Status.TIMED_OUT, "benefit"),
    )
    assert a_result(trials=trials).to_json()["trials"] == {"completed": 2, "failed": 1}


def scored(number: int, score: float | None, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {"config": CONFIG, "status": Status.COMPLETED, "epochs": 3, "seconds": 4.0}
    return TrialRecord(number=number, trial_id=f"t{number}", score=score, **(values | changes))


def test_the_leaderboard_is_best_first_and_trials_without_a_score_come_last() -> None:
    trials = (scored(0, -0.9), scored(1, None), scored(2, -0.1), scored(3, -0.1), scored(4, None))
    rows = a_result(trials=trials).leaderboard()
    assert [row["number"] for row in rows] == [2, 3, 0, 1, 4]
    assert rows[0] == trials[2].to_row()
    assert json.loads(json.dumps(rows)) == rows


def test_a_result_is_three_lines() -> None:
    trials = (scored(0, 0.8, origin="probe"), scored(1, 0.9), scored(2, 0.7))
    assert repr(a_result(trials=trials, test=Estimate(0.8, 0.7, 0.9, 50))).splitlines() == [
        "FitResult: resnet18, freeze depth 2 of 5",
        "  test accuracy 80.00% (95% interval 70.0 to 90.0%, 50 images); "
        "validation accuracy 90.00% (95% interval 80.0 to 95.0%, 100 images)",
        "  2 trials in 61 s; everything is in /runs/one",
    ]


def test_a_result_without_test_split_is_three_lines_too() -> None:
    assert repr(a_result(trials=(scored(1, 0.9),), interrupted=True)).splitlines()[1:] == [
        "  validation accuracy 90.00% (95% interval 80.0 to 95.0%, 100 images)",
        "  1 trial interrupted after 61 s; everything is in /runs/one",
    ]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"freeze_depth": 0}, "freeze depth 0 of 5"),
        ({"freeze_depth": None}, "trained from scratch"),
        ({"freeze_depth": 5, "trial_id": "probe-resnet18"}, "linear probe on frozen features"),
        ({"provenance": {"average": ["a", "b", "c"]}}, "freeze depth 2 of 5, average of 3 models"),
    ],
)
def test_the_winner_in_a_few_words(card: dict[str, Any], words: str) -> None:
    values: dict[str, Any] = {"trial_id": "t", "config": CONFIG, "freeze_depth": 2, "provenance": {}}
    predictor = SimpleNamespace(card=SimpleNamespace(**(values | card)))
    assert a_result(predictor=predictor).winner == f"resnet18, {words}"


def test_a_notebook_shows_the_lines_and_the_best_trials() -> None:
    trials = tuple(scored(number, number / 100) for number in range(12))
    shown = a_result(trials=trials)._repr_html_()
    assert "FitResult: resnet18, freeze depth 2 of 5<br>" in shown
    assert shown.count("<tr>") == 1 + 10
    assert "<td>0.1100</td>" in shown
    assert "<td>0.0100</td>" not in shown
    assert "2 more in leaderboard()" in shown


def test_a_notebook_shows_names_as_they_are() -> None:
    odd = scored(1, 0.5, config={"backbone": "<b>odd</b>", "freeze_depth": 2})
    shown = a_result(trials=(odd,), run_dir=Path("/runs/<i>"))._repr_html_()
    assert "&lt;b&gt;odd&lt;/b&gt;" in shown
    assert "<b>odd" not in shown
    assert "<i>" not in shown


def test_a_callback_need_only_define_what_it_wants() -> None:
    class Counter(Callback):
        def __init__(self) -> None:
            self.trials = 0

        def on_trial(self, trial: TrialRecord) -> None:
            self.trials += 1

    counter, advice = Counter(), a_result().advice
    counter.on_advice(advice)
    counter.on_trial(scored(1, 0.5))
    counter.on_end(a_result())
    assert counter.trials == 1
