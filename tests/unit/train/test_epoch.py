"""Which of two epochs of a trial is to be preferred."""

from __future__ import annotations

import math

import pytest

from autotl.train.epoch import EpochReport


def report(score: float, log_loss: float = 0.5, epoch: int = 1) -> EpochReport:
    return EpochReport(epoch, score, {"log_loss": log_loss}, 0.7, 1.0)


def test_a_first_epoch_is_better_than_none() -> None:
    assert report(0.0).better_than(None)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_an_epoch_without_a_finite_score_is_never_better(score: float) -> None:
    assert not report(score).better_than(None)
    assert not report(score).better_than(report(0.1))


def test_a_higher_score_is_better_whatever_the_log_loss() -> None:
    assert report(0.9, log_loss=2.0).better_than(report(0.8, log_loss=0.1))
    assert not report(0.8, log_loss=0.1).better_than(report(0.9, log_loss=2.0))


def test_of_the_same_score_the_lower_log_loss_is_better() -> None:
    assert report(0.9, log_loss=0.2).better_than(report(0.9, log_loss=0.3))
    assert not report(0.9, log_loss=0.3).better_than(report(0.9, log_loss=0.2))


def test_of_two_that_are_the_same_the_first_stays() -> None:
    assert not report(0.9, epoch=2).better_than(report(0.9, epoch=1))


def test_an_epoch_is_complete_by_default() -> None:
    assert not report(0.9).timed_out
