"""How backbones are ranked, and which of them are searched."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from autotl.advice.evidence import BackboneEvidence
from autotl.advice.probes import Draws
from autotl.advice.ranking import MAX_BACKBONES, choose_searched, is_within_noise, rank, without_duplicates


def evidence(name: str, probe: float = 0.9, knn: float = 0.9, top1: float = 0.0) -> BackboneEvidence:
    return BackboneEvidence(name, "accuracy", probe, knn, {}, top1, 1.0, 8)


def test_rank_is_by_the_mean_of_both_scores() -> None:
    ranked = rank([evidence("a", 0.9, 0.5), evidence("b", 0.8, 0.8), evidence("c", 0.1, 0.2)])
    assert [backbone.name for backbone in ranked] == ["b", "a", "c"]


def test_ties_are_broken_by_imagenet_accuracy() -> None:
    ranked = rank([evidence("a", 0.5, 0.75, 70), evidence("b", 0.75, 0.5, 80), evidence("c", 0.5, 0.75, 75)])
    assert [backbone.name for backbone in ranked] == ["b", "c", "a"]


def drawn(backbone: BackboneEvidence, draws: Draws) -> BackboneEvidence:
    return dataclasses.replace(backbone, draws=backbone.mean_score + draws)


def test_what_is_within_the_noise_is_decided_by_imagenet_accuracy() -> None:
    # Two independent noises of 0.03: a difference has a standard error of 0.042.
    generator = np.random.default_rng(0)
    ahead, near, far = (generator.normal(0, 0.03, 1000) for _ in range(3))
    ranked = rank(
        [
            drawn(evidence("ahead", 0.90, 0.90, 70), ahead),
            drawn(evidence("near", 0.87, 0.87, 80), near),
            drawn(evidence("far", 0.80, 0.80, 90), far),
        ]
    )
    assert [backbone.name for backbone in ranked] == ["near", "ahead", "far"]


def test_noise_is_paired() -> None:
    # The same difference on every resample is no noise, however much the images differ.
    noise = np.random.default_rng(0).normal(0, 0.1, 1000)
    ranked = rank([drawn(evidence("a", 0.90, 0.90, 70), noise), drawn(evidence("b", 0.88, 0.88, 80), noise)])
    assert [backbone.name for backbone in ranked] == ["a", "b"]


@pytest.mark.parametrize("top1", [(0, 80), (80, 0)])
def test_unknown_imagenet_accuracy_moves_nobody(top1: tuple[float, float]) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 1000))
    ranked = rank(
        [drawn(evidence("a", 0.90, 0.90, top1[0]), noise[0]), drawn(evidence("b", 0.88, 0.88, top1[1]), noise[1])]
    )
    assert [backbone.name for backbone in ranked] == ["a", "b"]


def test_rank_orders_negative_scores() -> None:
    assert [backbone.name for backbone in rank([evidence("a", -2, -2), evidence("b", -0.5, -1)])] == ["b", "a"]


@pytest.mark.parametrize(("behind", "within"), [(0.0, True), (0.03, True), (0.06, False), (-0.1, True)])
def test_within_noise_is_a_standard_error_of_the_difference(behind: float, within: bool) -> None:
    # Two independent noises of 0.03: a difference has a standard error of 0.042.
    noise = np.random.default_rng(0).normal(0, 0.03, (2, 1000))
    leader, other = evidence("leader", 0.9, 0.9), evidence("other", 0.9 - behind, 0.9 - behind)
    assert is_within_noise(drawn(leader, noise[0]), drawn(other, noise[1])) is within


def test_without_draws_only_equal_scores_are_within_noise() -> None:
    assert is_within_noise(evidence("leader"), evidence("other"))
    assert not is_within_noise(evidence("leader"), evidence("other", 0.9, 0.899))


def test_the_backbone_ranked_first_is_searched_whatever_its_probe_alone_says() -> None:
    ranked = (evidence("first", 0.80, 0.80), evidence("far", 0.86, 0.62), evidence("near", 0.86, 0.70))
    chosen, left_out = choose_searched(ranked)
    assert [backbone.name for backbone in chosen] == ["first", "near"]
    assert left_out == {"far": "its frozen features score 0.060 less than those of first"}


def test_no_more_than_so_many_backbones_are_searched() -> None:
    chosen, left_out = choose_searched([evidence(name) for name in "abcde"])
    assert [backbone.name for backbone in chosen] == list("abc")
    assert left_out == dict.fromkeys("de", f"only the first {MAX_BACKBONES} are")


def test_backbones_without_a_score_leave_the_first() -> None:
    chosen, left_out = choose_searched([evidence(name, math.nan, math.nan) for name in "ab"])
    assert [backbone.name for backbone in chosen] == ["a"]
    assert left_out == {"b": "there is no score to compare"}


def test_weights_are_searched_once_under_the_name_of_the_better_ranked() -> None:
    ranked = tuple(evidence(name) for name in ("b", "run/a", "a", "run/b"))
    kept, duplicates = without_duplicates(ranked, {"a": "1", "run/a": "1", "b": "2", "run/b": "3", "not ranked": "1"})
    assert [backbone.name for backbone in kept] == ["b", "run/a", "run/b"]
    assert duplicates == {"a": "run/a"}
