"""`autotl predict` and `autotl evaluate`: what is printed of the answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from autotl.cli import main
from autotl.records import Estimate

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]
Replace = Callable[[str, Any], Any]
Heads = Callable[[], list[str]]


@pytest.fixture
def predictions(_fitting: None) -> list[Any]:
    """What a model says of two images."""
    from autotl.predictor import Prediction

    return [
        Prediction("a.jpg", "cat", 0.75, {"cat": 0.75, "guinea pig": 0.25}),
        Prediction("b, c.jpg", "guinea pig", 0.9, {"cat": 0.1, "guinea pig": 0.9}),
    ]


def test_predictions_are_printed_in_columns(stand_in: Replace, capsys: Capture, predictions: list[Any]) -> None:
    predict = Mock(return_value=predictions)
    load = stand_in("load", SimpleNamespace(predict=predict))
    assert main(["predict", "run", "a.jpg", "b, c.jpg", "--device", "cpu"]) == 0
    assert load.given == ("run",)
    assert load.options == {"device": "cpu"}
    predict.assert_called_once_with(["a.jpg", "b, c.jpg"])
    assert capsys.readouterr().out == "cat         0.750  a.jpg\nguinea pig  0.900  b, c.jpg\n"


def test_predictions_as_csv_have_a_column_for_every_class(
    stand_in: Replace, capsys: Capture, predictions: list[Any]
) -> None:
    stand_in("load", SimpleNamespace(predict=Mock(return_value=predictions)))
    assert main(["predict", "run", "x", "--format", "csv"]) == 0
    assert capsys.readouterr().out == (
        "path,label,probability,cat,guinea pig\n"
        "a.jpg,cat,0.750000,0.750000,0.250000\n"
        '"b, c.jpg",guinea pig,0.900000,0.100000,0.900000\n'
    )


def test_predictions_as_json_hold_everything(stand_in: Replace, capsys: Capture, predictions: list[Any]) -> None:
    stand_in("load", SimpleNamespace(predict=Mock(return_value=predictions[:1])))
    assert main(["predict", "run", "x", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"path": "a.jpg", "label": "cat", "probability": 0.75, "probabilities": {"cat": 0.75, "guinea pig": 0.25}}
    ]


def test_evaluate_prints_a_metric_a_line(stand_in: Replace, capsys: Capture) -> None:
    evaluate = stand_in(
        "evaluate", {"accuracy": Estimate(0.9, 0.8, 0.95, 100), "log_loss": Estimate(1.2, 1.0, 1.5, 100)}
    )
    assert main(["evaluate", "run", "photos"]) == 0
    assert evaluate.given == ("run", "photos")
    assert evaluate.options == {"device": "auto"}
    assert capsys.readouterr().out == (
        "accuracy           90.00% (95% interval 80.0 to 95.0%, 100 images)\n"
        "log_loss           1.2000 (95% interval 1.0000 to 1.5000, 100 images)\n"
    )


def test_evaluate_does_not_print_a_small_log_loss_in_per_cent(stand_in: Replace, capsys: Capture) -> None:
    stand_in("evaluate", {"log_loss": Estimate(0.05, 0.03, 0.08, 100)})
    assert main(["evaluate", "run", "photos"]) == 0
    assert capsys.readouterr().out == "log_loss           0.0500 (95% interval 0.0300 to 0.0800, 100 images)\n"


def test_a_metric_without_a_value_is_null_in_json(stand_in: Replace, capsys: Capture) -> None:
    stand_in("evaluate", {"roc_auc": Estimate(math.nan, -math.inf, math.inf, 3)})
    assert main(["evaluate", "run", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"roc_auc": {"value": None, "low": None, "high": None, "n_images": 3}}


def test_evaluate_as_json_holds_the_intervals(stand_in: Replace, capsys: Capture) -> None:
    stand_in("evaluate", {"accuracy": Estimate(0.9, 0.8, 0.95, 100)})
    assert main(["evaluate", "run", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n_images": 100}
    }


@pytest.mark.usefixtures("_fitting")
@pytest.mark.parametrize("arguments", [["predict", "gone", "a.jpg"], ["evaluate", "gone", "photos"]])
def test_a_run_that_does_not_exist_ends_with_code_2(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == "autotl: Found 1 problem in the input:\n  - gone: no such folder\n"
