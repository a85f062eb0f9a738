"""The advice against what won: which trials followed it, and the sentence."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.advice.hindsight import Hindsight, advised_depth, compare_with_winner
from autotl.advice.scenario import choose_scenario
from autotl.records import Estimate, Status, TrialRecord

STRATEGIES = ("feature extraction", "freeze the first stages, train the rest", "fine-tune everything")
PARTIAL = STRATEGIES[1]


def advice(strategy: str = PARTIAL) -> Any:
    """`best` with 7 stages before `other` with 5; on small and dissimilar data the first start point freezes 4 of 7."""
    backbones = (SimpleNamespace(name="best", n_stages=7), SimpleNamespace(name="other", n_stages=5))
    return SimpleNamespace(strategy=strategy, scenario=choose_scenario(False, False), backbones=backbones)


def trial(depth: int, score: float | None, backbone: str = "best", weights: str = "pretrained") -> TrialRecord:
    config = {"backbone": backbone, "initial_weights": weights, "freeze_depth": depth}
    return TrialRecord(0, "t", config, Status.COMPLETED, score, 3, 1.0)


def card(depth: int | None, score: float, backbone: str = "best", **changes: Any) -> Any:
    values = {
        "metric": "accuracy",
        "trial_id": "t",
        "validation": Estimate(score, score - 0.02, score + 0.01, 200),
        "provenance": {},
    }
    config, values = {"backbone": backbone}, values | changes
    interval = values["validation"]
    least = -interval.high if values["metric"] == "log_loss" else interval.low
    return SimpleNamespace(config=config, freeze_depth=depth, score=score, least_score=least, **values)


def text_of(depth: int | None, score: float, *records: TrialRecord, strategy: str = PARTIAL, **changes: Any) -> str:
    return compare_with_winner(advice(strategy), records, card(depth, score, **changes)).text


@pytest.mark.parametrize(("strategy", "depth"), list(zip(STRATEGIES, (7, 4, 0), strict=True)))
def test_a_strategy_means_a_depth(strategy: str, depth: int) -> None:
    assert advised_depth(advice(strategy)) == depth


def test_the_best_trial_that_followed_stands_for_the_advice() -> None:
    trials = (trial(4, 0.97), trial(4, 0.98), trial(4, None), trial(3, 0.99), trial(4, 0.995, "other"))
    found = compare_with_winner(advice(), trials, card(4, 0.995, "other"))
    assert (found.followed, found.advised.score) == (2, 0.98)
    assert found.difference == pytest.approx(0.015)


def test_training_from_scratch_does_not_follow_fine_tuning() -> None:
    found = compare_with_winner(advice(STRATEGIES[2]), [trial(0, 0.9, weights="scratch")], card(None, 0.9))
    assert (found.followed, found.difference) == (0, None)


def test_another_depth_that_won() -> None:
    assert text_of(3, 0.995, trial(4, 0.97), trial(3, 0.995)) == (
        "Advised: freeze 4 of 7 stages (97.0%); best: freeze 3 of 7 stages (99.5%), +2.5 points."
    )


@pytest.mark.parametrize(("advised", "within"), [(0.976, True), (0.974, False)])
def test_a_difference_within_the_interval_says_so(advised: float, within: bool) -> None:
    found = compare_with_winner(advice(), [trial(4, advised)], card(3, 0.995))
    assert found.within_interval is within
    assert found.text.endswith("points, within the interval." if within else "points.")


def test_advice_that_won() -> None:
    assert text_of(4, 0.97, trial(4, 0.97), trial(4, 0.96)) == (
        "Advised and best: freeze 4 of 7 stages (97.0%), of 2 trials that followed the advice."
    )


def test_advice_that_no_trial_followed() -> None:
    assert text_of(3, 0.97, trial(3, 0.97), trial(4, None)) == (
        "Advised: freeze 4 of 7 stages, which no trial followed to a score; best: freeze 3 of 7 stages (97.0%)."
    )


def test_the_probe_that_won_against_advice() -> None:
    assert text_of(7, 0.99, trial(4, 0.95), trial(7, 0.99), trial_id="probe-best") == (
        "Advised: freeze 4 of 7 stages (95.0%); best: feature extraction by the linear probe (99.0%), +4.0 points."
    )


def test_the_probe_follows_advice_of_feature_extraction() -> None:
    text = text_of(7, 0.99, trial(7, 0.99), trial(6, 0.98), strategy=STRATEGIES[0], trial_id="probe-best")
    assert text == (
        "Advised and best: feature extraction by the linear probe (99.0%), of 1 trial that followed the advice."
    )


def test_an_average_that_won_says_so_even_below_the_best_trial() -> None:
    text = text_of(3, 0.97, trial(4, 0.975), trial_id="average", provenance={"average": ["a1", "b2"]})
    assert text == (
        "Advised: freeze 4 of 7 stages (97.5%); chosen: freeze 3 of 7 stages, averaged with its near-ties (97.0%), "
        "-0.5 points, within the interval."
    )


def test_scratch_that_won() -> None:
    text = text_of(None, 0.9, trial(0, 0.8), trial(0, 0.9, weights="scratch"), strategy=STRATEGIES[2])
    assert text == "Advised: fine-tune everything (80.0%); best: train from scratch (90.0%), +10.0 points."


def test_another_backbone_that_won_is_named_with_the_advised_one() -> None:
    assert text_of(2, 0.95, trial(4, 0.9), trial(2, 0.95, "other"), backbone="other") == (
        "Advised: freeze 4 of 7 stages with best (90.0%); best: freeze 2 of 5 stages with other (95.0%), +5.0 points."
    )


def test_the_same_depth_of_another_backbone_is_not_what_was_advised() -> None:
    text = text_of(4, 0.95, trial(4, 0.9), trial(4, 0.95, "other"), backbone="other")
    assert text.startswith("Advised: freeze 4 of 7 stages with best (90.0%); best: freeze 4 of 5 stages with other")


def test_an_earlier_run_that_won_is_another_backbone_than_the_advised_one_of_its_architecture() -> None:
    advised = advice()
    advised.backbones = (*advised.backbones, SimpleNamespace(name="birds/best", n_stages=6))
    winner = SimpleNamespace(**(vars(card(4, 0.95, "birds/best")) | {"backbone": "best"}))
    found = compare_with_winner(advised, (trial(4, 0.9), trial(4, 0.95, "birds/best")), winner)
    assert (found.followed, found.winner.backbone, found.winner.n_stages) == (1, "birds/best", 6)
    assert found.text == (
        "Advised: freeze 4 of 7 stages with best (90.0%); best: freeze 4 of 6 stages with birds/best (95.0%), "
        "+5.0 points."
    )


def test_a_log_loss_is_better_when_lower() -> None:
    interval = Estimate(0.20, 0.18, 0.26, 100)
    found = compare_with_winner(advice(), [trial(4, -0.25)], card(3, -0.20, metric="log_loss", validation=interval))
    assert found.within_interval
    assert found.text == (
        "Advised: freeze 4 of 7 stages (0.2500); best: freeze 3 of 7 stages (0.2000), -0.0500 in log loss, "
        "within the interval."
    )


def test_it_becomes_plain_json() -> None:
    found: Hindsight = compare_with_winner(advice(), [trial(4, 0.97)], card(3, 0.98))
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["advised"] == {
        "strategy": "freeze 4 of 7 stages",
        "freeze_depth": 4,
        "n_stages": 7,
        "backbone": "best",
        "score": 0.97,
    }
    assert plain["winner"]["freeze_depth"] == 3
    assert plain["text"] == found.text
