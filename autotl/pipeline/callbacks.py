"""The callbacks of a call, the console among them: called in turn, and none of them can end a fit."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autotl.records import TrialRecord
from autotl.result import Callback, FitResult

if TYPE_CHECKING:
    from autotl.advice.advisor import Advice

log = logging.getLogger("autotl")


class Callbacks:
    """Several callbacks as one.

    What a callback raises is reported once, with its traceback in the log, and changes nothing: the others are called,
    the fit goes on, and so do calls of that callback. KeyboardInterrupt and other exceptions that are
    no `Exception` pass.

    Args:
        callbacks: in the order in which they are called.
        report: called with a line about the first exception of each.
    """

    def __init__(self, callbacks: Sequence[Callback], report: Callable[[str], None]) -> None:
        self._callbacks = tuple(callbacks)
        self._report = report
        self._reported: set[int] = set()

    def on_advice(self, advice: Advice) -> None:
        """The advice is there; the search begins."""
        self._call("on_advice", advice)

    def on_trial(self, trial: TrialRecord) -> None:
        """A trial, or a linear probe, ended."""
        self._call("on_trial", trial)

    def on_end(self, result: FitResult) -> None:
        """The fit is over."""
        self._call("on_end", result)

    def _call(self, event: str, value: Any) -> None:
        for place, callback in enumerate(self._callbacks):
            try:
                getattr(callback, event)(value)
            except Exception as error:
                self._note_failure(place, f"{type(callback).__name__}.{event}", error)

    def _note_failure(self, place: int, where: str, error: Exception) -> None:
        log.warning("callback %s failed:\n%s", where, traceback.format_exc())
        if place not in self._reported:
            self._reported.add(place)
            self._report(f"  callback {where} failed, and the fit goes on: {type(error).__name__}: {error}")
