"""A real fit that measures the benefit of pretraining: the curves, the files, and what the user is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import autotl
from autotl.pipeline.budget import KeptBack
from autotl.pipeline.fit import _measure_benefit

LITE0 = "tf_efficientnet_lite0.in1k"
EPOCHS = 3


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]) -> autotl.FitResult:
    """Two trials on 60 images of coloured shapes; an hour, so that only the epochs end it."""
    return autotl.fit(
        write_shapes(tmp_path_factory.mktemp("dataset"), 20),
        backbones=LITE0,
        search_space="quick",
        n_trials=2,
        timeout="1h",
        output_dir=tmp_path_factory.mktemp("fit") / "run",
        measure_benefit=True,
        quiet=True,
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_both_curves_have_all_epochs(result: autotl.FitResult) -> None:
    benefit = result.benefit
    assert benefit is not None
    assert (benefit.backbone, benefit.metric) == (LITE0, result.metric)
    assert (benefit.epochs, benefit.planned) == (EPOCHS, EPOCHS)
    assert len(benefit.pretrained) == len(benefit.scratch) == EPOCHS + 1


def test_pretrained_weights_help_on_a_few_coloured_shapes(result: autotl.FitResult) -> None:
    benefit = result.benefit
    assert benefit is not None
    assert benefit.asymptote.difference > 0  # not the start: a high rate loses accuracy before it gains it
    assert benefit.difference.low <= benefit.difference.value <= benefit.difference.high
    assert benefit.difference.n_images == result.validation.n_images
    assert benefit.pretrained[0] == pytest.approx(result.trials[0].score, abs=1 / 12 + 1e-9)  # the linear probe


def test_training_from_scratch_is_a_trial_with_the_settings_of_the_compared_one(result: autotl.FitResult) -> None:
    assert result.benefit is not None
    scratch = next(trial for trial in result.trials if trial.trial_id == "benefit-scratch")
    assert (scratch.origin, scratch.error) == ("benefit", "")
    assert (scratch.config["initial_weights"], scratch.config["learning_rate_factor"]) == ("scratch", 1.0)
    assert scratch.curve == result.benefit.scratch
    compared = [trial for trial in result.trials if trial.curve == result.benefit.pretrained]
    same = ("backbone", "augmentation", "batch_size", "weight_decay", "label_smoothing")
    settings = [{name: trial.config[name] for name in same} for trial in compared]
    assert {name: scratch.config[name] for name in same} in settings


def test_that_the_pretrained_curve_was_picked_from_two_trials_is_said(result: autotl.FitResult) -> None:
    benefit = result.benefit
    assert benefit is not None
    assert benefit.tried == (2, 1)
    assert "picked from 2 trials by these validation images; from scratch there was one" in benefit.sentences[-1]


def test_it_does_not_count_as_a_trial_of_the_search(result: autotl.FitResult) -> None:
    assert sum(result.to_json()["trials"].values()) == 2


def test_the_files_hold_it(result: autotl.FitResult) -> None:
    assert result.benefit is not None
    assert read(result.run_dir / "benefit.json") == json.loads(json.dumps(result.benefit.to_json()))
    assert read(result.run_dir / "result.json")["benefit"] == read(result.run_dir / "benefit.json")
    lines = (result.run_dir / "trials.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["number"] for line in lines] == [trial.number for trial in result.trials]
    assert [json.loads(line)["trial_id"] for line in lines] == [trial.trial_id for trial in result.trials]


def test_it_is_shown_before_the_winner(result: autotl.FitResult) -> None:
    assert result.benefit is not None
    text = (result.run_dir / "fit.log").read_text("utf-8")
    assert text.index("Search") < text.index("Pretrained or from scratch") < text.index("Winner")
    for sentence in result.benefit.sentences:
        assert sentence in text


def test_the_advice_is_compared_with_the_winner(result: autotl.FitResult) -> None:
    hindsight = result.hindsight
    assert hindsight is not None
    assert hindsight.text in (result.run_dir / "fit.log").read_text("utf-8")
    assert read(result.run_dir / "result.json")["hindsight"] == hindsight.to_json()
    assert (hindsight.winner.backbone, hindsight.winner.score) == (LITE0, result.predictor.card.score)
    assert hindsight.winner.freeze_depth == result.predictor.card.freeze_depth
    assert hindsight.advised.backbone == result.advice.backbones[0].name


@pytest.mark.parametrize("scratch", [True, False])
def test_where_scratch_is_worth_trying_but_does_not_fit_the_user_is_informed(scratch: bool) -> None:
    lines: list[str] = []
    context: Any = SimpleNamespace(console=SimpleNamespace(line=lines.append))
    advice: Any = SimpleNamespace(scenario=SimpleNamespace(scratch=scratch))
    records: list[autotl.TrialRecord] = []
    kept = KeptBack(average=2.0, benefit=0.0, end=5.0)
    assert _measure_benefit(context, advice, kept, records, records.append) is None
    assert records == []
    expected = "  benefit of pretraining not measured: training from scratch would not fit a fifth of the time"
    assert lines == ([expected] if scratch else [])
