"""Scores and their differences in words."""

from __future__ import annotations

import pytest

from autotl.advice.wording import difference_text, score_text


@pytest.mark.parametrize(
    ("score", "metric", "text"),
    [(0.98039, "accuracy", "98.0%"), (1.0, "roc_auc", "100.0%"), (-0.12, "log_loss", "0.1200")],
)
def test_a_score_is_a_share_or_the_loss_itself(score: float, metric: str, text: str) -> None:
    assert score_text(score, metric) == text


@pytest.mark.parametrize(
    ("difference", "metric", "text"),
    [
        (0.0149, "accuracy", "+1.5 points"),
        (-0.2, "f1_macro", "-20.0 points"),
        (-0.0001, "accuracy", "+0.0 points"),
        (0.03, "log_loss", "-0.0300 in log loss"),
        (0.0, "log_loss", "+0.0000 in log loss"),
    ],
)
def test_a_difference_carries_its_sign(difference: float, metric: str, text: str) -> None:
    assert difference_text(difference, metric) == text
