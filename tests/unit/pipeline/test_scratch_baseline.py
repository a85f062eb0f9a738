"""Measuring the benefit of pretraining: when, what is trained, until when, and what is kept of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from autotl.pipeline import scratch_baseline
from autotl.pipeline.scratch_baseline import (
    Measured,
    comparable,
    is_whole,
    measure_benefit,
    scratch_config,
    whole_scratch,
)
from autotl.records import Status, TrialRecord
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import load_card, save_model
from autotl.train.epoch import Diverged, OutOfTime
from tests.unit.pipeline.conftest import CARD, CONFIG, MAX_T, Tuning, scratch_trial, trial


class TestWhat:
    def test_from_scratch_everything_trains_at_the_full_rate_and_all_else_is_the_same(self) -> None:
        changed = {
            "initial_weights": "scratch",
            "freeze_depth": 0,
            "layer_decay": 1.0,
            "learning_rate_factor": 1.0,
            "head_learning_rate_factor": 1.0,
        }
        assert scratch_config(CONFIG) == CONFIG | changed
        assert CONFIG["initial_weights"] == "pretrained"

    def test_the_winner_itself_is_compared_among_near_ties(self) -> None:
        trials = [trial(0.9, trial_id="first"), trial(0.9)]
        assert comparable(trials, CARD) is trials[1]

    def test_a_probe_or_scratch_that_won_gives_way_to_the_best_pretrained_trial_of_its_backbone(self) -> None:
        other = CONFIG | {"backbone": "other"}
        trials = [
            trial(0.99, trial_id="probe-resnet18", origin="probe"),
            trial(0.98, trial_id="t0", config=scratch_config(CONFIG)),
            trial(0.95, trial_id="t1", config=other),
            trial(0.90, trial_id="t2"),
            trial(0.92, trial_id="t3"),
            trial(None, trial_id="t4"),
        ]
        for winner in ("probe-resnet18", "t0"):
            assert comparable(trials, replace(CARD, trial_id=winner)) is trials[4]
        assert comparable(trials, replace(CARD, trial_id="probe-other", config=other)) is trials[2]
        third = CONFIG | {"backbone": "third"}
        assert comparable(trials, replace(CARD, trial_id="probe-third", config=third)) is trials[2]
        assert comparable(trials[:2], CARD) is None

    def test_an_earlier_run_is_another_backbone_than_the_pretrained_one_of_its_architecture(self) -> None:
        own = CONFIG | {"backbone": "birds/resnet18"}
        trials = [trial(0.95, trial_id="t1"), trial(0.90, trial_id="t2", config=own)]
        winner = replace(CARD, backbone="resnet18", trial_id="probe-birds/resnet18", config=own)
        assert comparable(trials, winner) is trials[1]
        assert comparable(trials, replace(winner, trial_id="average")) is trials[1]
        assert scratch_config(own)["backbone"] == "birds/resnet18"

    def test_negative_scores_are_compared_as_well(self) -> None:
        trials = [trial(score, trial_id=f"log-loss-{score}") for score in (-0.5, -0.2, -0.4)]
        assert comparable(trials, CARD) is trials[1]

    def test_whole_trials_from_scratch_of_the_same_backbone_are_rivals(self) -> None:
        other = scratch_config(CONFIG | {"backbone": "other"})
        rival = scratch_trial(0.6, (0.1, 0.3, 0.5, 0.6))
        trials = [
            trial(),
            scratch_trial(0.7, (0.1, 0.3, 0.5, 0.7), config=other),
            scratch_trial(0.7, (0.1, 0.3, 0.7), epochs=2, status=Status.TIMED_OUT),
            scratch_trial(0.7, (0.1, 0.3, 0.5, 0.7), origin="benefit"),
            rival,
        ]
        assert whole_scratch(trials, trial(), MAX_T) == [rival]

    @pytest.mark.parametrize(
        ("changes", "whole"),
        [
            ({}, True),
            ({"status": Status.STOPPED}, False),
            ({"epochs": 2, "curve": (0.7, 0.8, 0.9)}, False),
            ({"curve": (0.8, 0.9, 0.85)}, False),
            ({"curve": (0.7, 0.8, float("nan"), 0.9)}, False),
        ],
    )
    def test_a_recorded_curve_serves_if_it_is_whole(self, changes: dict[str, Any], whole: bool) -> None:
        assert is_whole(trial(**changes), MAX_T) is whole


def origins(measured: Measured) -> list[tuple[str, Status, int]]:
    return [(trial.trial_id, trial.status, trial.epochs) for trial in measured.trials]


class TestMeasuring:
    def test_a_whole_recorded_curve_is_used_as_it_is(self, run: RunDir) -> None:
        measured = measure_benefit(run, [trial()], deadline=100.0)
        assert Tuning.begun == [scratch_config(CONFIG)]
        assert measured.benefit is not None
        assert measured.benefit.pretrained == (0.7, 0.8, 0.9, 0.85)
        assert measured.benefit.scratch == (0.1, 0.2, 0.3, 0.4)
        assert (measured.benefit.verdict, measured.benefit.epochs) == ("positive transfer", MAX_T)
        assert origins(measured) == [("benefit-scratch", Status.COMPLETED, MAX_T)]

    def test_it_is_written_into_the_run_folder(self, run: RunDir) -> None:
        measured = measure_benefit(run, [trial()], deadline=100.0)
        assert measured.benefit is not None
        assert json.loads(run.benefit.read_text()) == json.loads(json.dumps(measured.benefit.to_json()))
        (line,) = run.trials.read_text().splitlines()
        assert TrialRecord.from_json(json.loads(line)) == measured.trials[0]
        assert (measured.trials[0].number, measured.trials[0].origin) == (1, "benefit")
        assert (measured.trials[0].score, measured.trials[0].curve) == (0.4, (0.1, 0.2, 0.3, 0.4))

    def test_a_curve_that_was_stopped_is_trained_again_in_turn(self, run: RunDir) -> None:
        measured = measure_benefit(run, [trial(status=Status.STOPPED)], deadline=100.0)
        assert Tuning.begun == [CONFIG, scratch_config(CONFIG)]
        assert measured.benefit is not None
        assert measured.benefit.pretrained == (0.7, 0.75, 0.8, 0.88)
        assert [trial.number for trial in measured.trials] == [1, 2]

    def test_both_end_at_the_same_epoch_when_the_time_is_up(self, run: RunDir) -> None:
        measured = measure_benefit(run, [trial(status=Status.TIMED_OUT)], deadline=5.0)
        assert origins(measured) == [
            ("benefit-pretrained", Status.TIMED_OUT, 2),
            ("benefit-scratch", Status.TIMED_OUT, 2),
        ]
        assert measured.benefit is not None
        assert (measured.benefit.epochs, measured.benefit.planned) == (2, MAX_T)
        assert measured.benefit.sentences[-1].startswith("Compared after 2 of 3 epochs")

    def test_curves_that_the_time_cuts_before_half_are_undecided(self, run: RunDir) -> None:
        measured = measure_benefit(run, [trial(status=Status.TIMED_OUT)], deadline=3.0)
        assert measured.benefit is not None
        assert (measured.benefit.epochs, measured.benefit.verdict) == (1, "undecided")
        assert measured.benefit.sentences[-1].endswith("more time is needed (`timeout`).")

    def test_an_epoch_that_was_cut_does_not_count(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tuning, "cut_after", 1)
        measured = measure_benefit(run, [trial()], deadline=100.0)
        assert measured.trials[0].curve == (0.1, 0.2)
        assert measured.benefit is not None
        assert measured.benefit.epochs == 1

    def test_without_a_whole_epoch_it_says_so(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tuning, "cut_after", 0)
        measured = measure_benefit(run, [trial()], deadline=100.0)
        assert (measured.benefit, measured.why) == (None, "there was no time for an epoch of each")
        assert (measured.trials[0].score, measured.trials[0].status) == (None, Status.TIMED_OUT)
        assert not run.benefit.exists()

    @pytest.mark.parametrize("error", [Diverged("the loss became nan in epoch 2"), ValueError("odd")])
    def test_a_failure_is_a_record_and_what_was_trained_counts(
        self, run: RunDir, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        monkeypatch.setattr(Tuning, "fails", error)
        measured = measure_benefit(run, [trial()], deadline=100.0)
        assert measured.benefit is not None
        assert (measured.benefit.epochs, measured.benefit.verdict) == (1, "undecided")
        assert "; training failed: " in measured.benefit.sentences[-1]
        assert measured.benefit.sentences[-1].endswith(f"{type(error).__name__}: {error}.")
        assert measured.trials[0].status is Status.FAILED
        assert str(error) in measured.trials[0].error
        assert load_card(run.model).trial_id == "t0"

    def test_the_end_of_the_time_is_no_failure(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tuning, "fails", OutOfTime("the time was up"))
        measured = measure_benefit(run, [trial()], deadline=100.0)
        assert (measured.trials[0].status, measured.trials[0].error) == (Status.TIMED_OUT, "")

    def test_a_failure_at_once_says_why(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(task: Any, config: dict[str, Any]) -> Tuning:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(scratch_baseline, "FineTuning", refuse)
        measured = measure_benefit(run, [trial()], deadline=100.0)
        assert (measured.benefit, measured.why) == (None, "training failed: RuntimeError: out of memory")

    def test_without_a_pretrained_trial_there_is_nothing_to_compare(self, run: RunDir) -> None:
        measured = measure_benefit(run, [trial(origin="probe"), trial(None)], deadline=100.0)
        assert measured == Measured(None, (), "no trial from pretrained weights has a score")


class TestRivals:
    """Trials from scratch of the search against the training after it, whose curve is 0.1, 0.2, 0.3, 0.4."""

    def test_one_that_ends_higher_is_compared(self, run: RunDir) -> None:
        rivals = [scratch_trial(0.6, (0.1, 0.3, 0.5, 0.6)), scratch_trial(0.85, (0.1, 0.3, 0.5, 0.85))]
        measured = measure_benefit(run, [trial(), *rivals], deadline=100.0)
        assert measured.benefit is not None
        assert measured.benefit.scratch == (0.1, 0.3, 0.5, 0.85)
        assert (measured.benefit.verdict, measured.benefit.epochs) == ("no measurable benefit", MAX_T)
        assert origins(measured) == [("benefit-scratch", Status.COMPLETED, MAX_T)]

    def test_one_that_ends_lower_is_not(self, run: RunDir) -> None:
        measured = measure_benefit(run, [trial(), scratch_trial(0.39, (0.1, 0.3, 0.35, 0.39))], deadline=100.0)
        assert measured.benefit is not None
        assert measured.benefit.scratch == (0.1, 0.2, 0.3, 0.4)

    def test_from_how_many_each_curve_was_picked_is_kept_and_said(self, run: RunDir) -> None:
        before = [trial(origin="probe"), trial(), trial(0.8, trial_id="t1"), trial(None, trial_id="t2")]
        measured = measure_benefit(run, [*before, scratch_trial(0.3, (0.1, 0.2, 0.25, 0.3))], deadline=100.0)
        assert measured.benefit is not None
        assert measured.benefit.tried == (2, 2)
        assert (
            "picked from 2 trials by these validation images; from scratch there were 2"
            in (measured.benefit.sentences[-1])
        )

    def test_one_serves_where_there_is_no_time_for_another(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tuning, "cut_after", 0)
        measured = measure_benefit(run, [trial(), scratch_trial(0.3, (0.1, 0.2, 0.25, 0.3))], deadline=100.0)
        assert measured.benefit is not None
        assert measured.benefit.scratch == (0.1, 0.2, 0.25, 0.3)
        assert measured.benefit.tried == (1, 1)
        assert measured.benefit.difference.n_images == CARD.validation.n_images


class TestTheRunsModel:
    def test_it_stays_where_scratch_loses(self, run: RunDir) -> None:
        measure_benefit(run, [trial()], deadline=100.0)
        assert load_card(run.model).trial_id == "t0"

    def test_scratch_that_wins_becomes_the_model_at_its_best_epoch(
        self, run: RunDir, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Tuning, "scores", {"scratch": (0.1, 0.95, 0.98, 0.97)})
        measured = measure_benefit(run, [trial()], deadline=100.0)
        card = load_card(run.model)
        assert (card.trial_id, card.epoch, card.score, card.freeze_depth) == ("benefit-scratch", 2, 0.98, None)
        assert measured.trials[0].score == 0.98
        assert measured.benefit is not None
        assert measured.benefit.verdict == "negative transfer"

    def test_an_average_below_the_best_trial_stays_where_that_trial_is_not_beaten(
        self, run: RunDir, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_model(run.model, {"w": torch.tensor([0.0])}, replace(CARD, trial_id="average", score=0.87))
        measure_benefit(run, [trial(0.88, status=Status.TIMED_OUT)], deadline=100.0)  # trained again, to 0.88
        assert load_card(run.model).trial_id == "average"

    def test_the_same_score_does_not_replace_it(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tuning, "scores", {"scratch": (0.1, 0.9, 0.9, 0.9)})
        measure_benefit(run, [trial()], deadline=100.0)
        assert load_card(run.model).trial_id == "t0"
