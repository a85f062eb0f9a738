"""What fails after the search is told, and nothing is lost for it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

from autotl.console import Console
from autotl.pipeline.guard import guarded


def test_a_failure_is_told_and_the_run_goes_on() -> None:
    printed = io.StringIO()
    with redirect_stdout(printed), guarded(Console(), "there is no average"):
        raise RuntimeError("devices differ\nand more of it")
    shown = " ".join(printed.getvalue().split())
    assert shown == "there is no average (RuntimeError: devices differ); the model is not affected"


def test_the_log_has_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with guarded(Console(quiet=True), "there is no average"):
        raise RuntimeError("devices differ")
    assert "Traceback" in caplog.text


def test_ctrl_c_passes() -> None:
    with pytest.raises(KeyboardInterrupt), guarded(Console(quiet=True), "there is no average"):
        raise KeyboardInterrupt


def test_nothing_is_said_where_nothing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with guarded(Console(), "there is no average"):
        pass
    assert capsys.readouterr().out == ""
