"""The end of a trial's time."""

from __future__ import annotations

from autotl import clock

MARGIN = 1.2
"""What an evaluation may take, as a multiple of what the last one took."""


class Deadline:
    """The end of a trial's time, less what evaluating the model once more takes.

    Args:
        end: clock.now() at which everything has to be done.

    Attributes:
        evaluation_seconds: that the last evaluation took; whoever evaluates sets it.
    """

    def __init__(self, end: float) -> None:
        self.end = end
        self.evaluation_seconds = 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds for anything else than that evaluation."""
        return max(0.0, self.end - MARGIN * self.evaluation_seconds - clock.now())

    def is_past(self) -> bool:
        """Whether it is time to evaluate and end."""
        return clock.now() + MARGIN * self.evaluation_seconds > self.end
