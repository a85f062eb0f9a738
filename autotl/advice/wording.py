"""Scores and differences of scores in words, for the statements that compare trials."""

from __future__ import annotations


def score_text(score: float, metric: str) -> str:
    """`98.0%`; a log loss, whose score is negated, as it is: `0.1200`."""
    return f"{-score:.4f}" if metric == "log_loss" else f"{100 * score:.1f}%"


def difference_text(difference: float, metric: str) -> str:
    """`+1.5 points`; positive is better, except for a log loss, where `-0.0300 in log loss` is the better one."""
    if metric == "log_loss":
        return f"{round(-difference, 4) + 0.0:+.4f} in log loss"  # + 0.0: no negative zero
    return f"{round(100 * difference, 1) + 0.0:+.1f} points"
