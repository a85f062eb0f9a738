"""When a search is ended from outside: its trials keep the deadline themselves, if they can."""

from __future__ import annotations

from collections.abc import Callable

from ray import tune

from autotl import clock

HANGING_SECONDS = 15.0
"""After the deadline, a trial that still runs hangs."""


class EndOfTime(tune.Stopper):  # type: ignore[misc]
    """Ends a search whose trials hang, and one of which no trial has begun when the time is up.

    A worker takes seconds to start, on a busy machine a minute: one that starts after the deadline has nothing to do.

    Args:
        deadline: clock.now() at which training stops.
        has_begun: whether any trial has ever said anything.
    """

    def __init__(self, deadline: float, has_begun: Callable[[], bool]) -> None:
        self._deadline, self._has_begun = deadline, has_begun

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Pickled as one that ends nothing: Ray pickles it for `Tuner.restore`, which is not used."""
        return tune.stopper.NoopStopper, ()

    def __call__(self, trial_id: str, result: object) -> bool:
        """No trial is ended for what it says."""
        return False

    def stop_all(self) -> bool:
        """Whether the search ends now."""
        late = clock.now() - self._deadline
        return late > HANGING_SECONDS or (late > 0 and not self._has_begun())
