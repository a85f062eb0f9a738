"""Several callbacks as one: none of them can end a fit."""

from __future__ import annotations

from typing import Any

import pytest

from autotl.pipeline.callbacks import Callbacks
from autotl.result import Callback


class Listener(Callback):
    """Keeps what it hears; raises first where it is to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.heard: list[Any] = []
        self._error = error

    def on_advice(self, advice: Any) -> None:
        self._hear(advice)

    def on_trial(self, trial: Any) -> None:
        self._hear(trial)

    def on_end(self, result: Any) -> None:
        self._hear(result)

    def _hear(self, value: Any) -> None:
        self.heard.append(value)
        if self._error is not None:
            raise self._error


def call_all(callbacks: Any) -> None:
    callbacks.on_advice("advice")
    callbacks.on_trial("trial 1")
    callbacks.on_trial("trial 2")
    callbacks.on_end("result")


EVERYTHING = ["advice", "trial 1", "trial 2", "result"]


def test_each_is_called_with_everything() -> None:
    listeners, reports = (Listener(), Listener()), list[str]()
    call_all(Callbacks(listeners, reports.append))
    assert [listener.heard for listener in listeners] == [EVERYTHING, EVERYTHING]
    assert reports == []


def test_an_exception_is_reported_once_and_keeps_nobody_from_hearing_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, sound, reports = Listener(ValueError("no network")), Listener(), list[str]()
    call_all(Callbacks((broken, sound), reports.append))
    assert broken.heard == sound.heard == EVERYTHING
    assert reports == ["  callback Listener.on_advice failed, and the fit goes on: ValueError: no network"]
    assert caplog.text.count("Traceback") == 4


def test_each_that_fails_is_reported() -> None:
    reports: list[str] = []
    Callbacks((Listener(ValueError("a")), Listener(KeyError("b"))), reports.append).on_trial("trial")
    assert [report.rsplit(": ", 2)[1:] for report in reports] == [["ValueError", "a"], ["KeyError", "'b'"]]


def test_ctrl_c_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        Callbacks((Listener(KeyboardInterrupt()),), lambda report: None).on_trial("trial")
