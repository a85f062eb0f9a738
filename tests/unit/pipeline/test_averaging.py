"""The winner averaged with its rivals: what goes in, what comes out, and when it takes the winner's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autotl.pipeline import averaging
from autotl.pipeline.averaging import average, average_winner, takes_over
from autotl.records import Estimate, Status, TrialRecord
from autotl.storage.finished import finished_trials, keep_finished
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import ModelCard, load_card, load_weights, save_model
from autotl.train.epoch import EpochReport, OutOfTime

CARD = ModelCard(
    backbone="net",
    classes=("a", "b"),
    preprocessing={"input_size": 64, "crop": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3, "store_size": 72},
    freeze_depth=3,
    metric="accuracy",
    score=0.9,
    log_loss=0.3,
    validation=Estimate(0.9, 0.85, 0.94, 50),
    trial_id="best",
    epoch=4,
    config={"backbone": "net", "freeze_depth": 3, "initial_weights": "pretrained"},
)
TASK: Any = SimpleNamespace(backbones={name: SimpleNamespace(n_stages=8) for name in ("net", "birds/net")})
PROBE = TrialRecord(0, "probe-net", {}, Status.COMPLETED, 0.88, 0, 1.0, origin="probe")


class Tuning:
    """Stands for `FineTuning`: two parameters, and a validation that gives what the test says."""

    score, log_loss = 0.92, 0.2
    late = False

    def __init__(self, task: Any, config: dict[str, Any]) -> None:
        self.config = config
        self.tensors = {"frozen": torch.tensor([7.0]), "head": torch.tensor([0.0])}
        self.backbone = SimpleNamespace(
            model=SimpleNamespace(state_dict=lambda: self.tensors, load_state_dict=self.load)
        )

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def start(self) -> EpochReport:
        if self.late:
            raise OutOfTime("the time was up")
        return EpochReport(0, self.score, {"log_loss": self.log_loss}, 0.0, 0.0)

    def card(self, report: EpochReport, trial_id: str) -> ModelCard:
        return replace(
            CARD, score=report.score, log_loss=report.metrics["log_loss"], trial_id=trial_id, config=self.config
        )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """The best trial, one within its interval, one below, others of other weights, and one of the head alone."""
    monkeypatch.setattr(averaging, "FineTuning", Tuning)
    run = RunDir(tmp_path)
    save_model(run.model, {"head": torch.tensor([-1.0])}, CARD)
    for card, value in (
        (CARD, 2.0),
        (replace(CARD, trial_id="near", score=0.86, config=CARD.config | {"freeze_depth": 2}), 4.0),
        (replace(CARD, trial_id="far", score=0.84), 100.0),
        (replace(CARD, trial_id="other", backbone="another", config=CARD.config | {"backbone": "another"}), 100.0),
        (replace(CARD, trial_id="own", config=CARD.config | {"backbone": "birds/net"}), 100.0),
        (replace(CARD, trial_id="head", config=CARD.config | {"freeze_depth": 8}), 100.0),
    ):
        keep_finished(run.finished, card, {"head": torch.tensor([value])})
    return run


def head(run: RunDir) -> float:
    return float(load_weights(run.model, load_card(run.model))["head"])


def test_near_ties_of_a_backbone_and_their_start_are_averaged(run: RunDir) -> None:
    assert average_winner(TASK, run, PROBE) == "averaged 3 models that are within the 95% interval of the best"
    card = load_card(run.model)
    assert head(run) == pytest.approx((2.0 + 4.0 + 0.0) / 3)
    assert (card.trial_id, card.provenance["average"]) == ("average", ["best", "near", "probe-net"])
    assert card.config["freeze_depth"] == 2  # everything above the shallowest ingredient's depth may differ
    assert card.epoch == 4


def test_a_winner_from_an_earlier_run_is_averaged_with_trials_of_that_run_alone(run: RunDir) -> None:
    config = CARD.config | {"backbone": "birds/net"}
    save_model(run.model, {"head": torch.tensor([-1.0])}, replace(CARD, trial_id="own", config=config))
    keep_finished(run.finished, replace(CARD, trial_id="own2", config=config), {"head": torch.tensor([50.0])})
    assert average_winner(TASK, run, replace(PROBE, trial_id="probe-birds/net")).startswith("averaged 3")
    assert head(run) == pytest.approx((100.0 + 50.0 + 0.0) / 3)
    assert load_card(run.model).provenance["average"] == ["own", "own2", "probe-birds/net"]


def test_the_probe_of_a_backbone_that_was_not_searched_stays(run: RunDir) -> None:
    config = CARD.config | {"backbone": "elsewhere/net", "freeze_depth": 8}
    probe = replace(PROBE, trial_id="probe-elsewhere/net")
    save_model(run.model, {"head": torch.tensor([-1.0])}, replace(CARD, trial_id=probe.trial_id, config=config))
    assert "was not searched" in average_winner(TASK, run, probe)
    assert head(run) == -1.0


def test_a_worse_probe_is_left_out(run: RunDir) -> None:
    average_winner(TASK, run, replace(PROBE, score=0.5))
    assert head(run) == pytest.approx(3.0)


def test_one_model_alone_is_no_average(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter((0.5, 0.99))  # of both near-ties, and of half of them
    monkeypatch.setattr(Tuning, "start", lambda self: EpochReport(0, next(scores), {"log_loss": 0.1}, 0.0, 0.0))
    assert "not as good" in average_winner(TASK, run, replace(PROBE, score=0.5))
    assert head(run) == -1.0


def test_an_average_that_is_worse_is_not_kept(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuning, "score", 0.8)
    assert average_winner(TASK, run, PROBE) == "averages of the best models were not as good as the best one"
    assert head(run) == -1.0


def test_without_the_time_the_winner_stays(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuning, "late", True)
    assert average_winner(TASK, run, PROBE) == "the time was up"
    assert head(run) == -1.0


def test_a_winner_without_rivals_stays(run: RunDir) -> None:
    save_model(
        run.model, {"head": torch.tensor([-1.0])}, replace(CARD, score=0.99, validation=Estimate(0.99, 0.95, 1.0, 50))
    )
    assert "no other model" in average_winner(TASK, run, PROBE)
    assert head(run) == -1.0


def test_a_winner_from_scratch_has_no_start_in_common_with_any(run: RunDir) -> None:
    save_model(run.model, {"head": torch.tensor([-1.0])}, replace(CARD, config={"initial_weights": "scratch"}))
    assert "from scratch" in average_winner(TASK, run, PROBE)


@pytest.mark.parametrize(
    ("score", "log_loss", "expected"),
    [(0.91, 0.5, True), (0.9, 0.29, True), (0.86, 0.3, True), (0.86, 0.31, False), (0.84, 0.1, False)],
)
def test_an_average_takes_over_if_it_is_better_or_near_and_surer(score: float, log_loss: float, expected: bool) -> None:
    assert takes_over(replace(CARD, score=score, log_loss=log_loss), CARD) is expected


def test_a_log_loss_is_a_score_upside_down() -> None:
    card = replace(CARD, metric="log_loss", score=-0.3, validation=Estimate(0.3, 0.25, 0.37, 50))
    assert card.least_score == -0.37


def test_what_a_trial_did_not_train_counts_as_it_began(tmp_path: Path) -> None:
    keep_finished(tmp_path, replace(CARD, trial_id="a"), {"x": torch.tensor([3.0])})
    keep_finished(tmp_path, replace(CARD, trial_id="b"), {"x": torch.tensor([5.0]), "y": torch.tensor([9.0])})
    start = {"x": torch.tensor([1.0]), "y": torch.tensor([1.0]), "count": torch.tensor(4)}
    mean = average(start, [trial.trained() for trial in finished_trials(tmp_path)], with_start=True)
    assert {name: float(tensor) for name, tensor in mean.items()} == pytest.approx({"x": 3.0, "y": 11 / 3, "count": 4})
    assert mean["count"].dtype == torch.int64
