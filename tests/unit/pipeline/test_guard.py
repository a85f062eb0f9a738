"""What fails after the search is told, and nothing is lost for it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from autotl.console import Console
from autotl.errors import MachineError, SearchError
from autotl.pipeline.guard import guarded, told
from autotl.storage.rundir import RunDir


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


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """One with a model."""
    made = RunDir(tmp_path)
    made.model.mkdir()
    (made.model / "model.json").write_text("{}", "utf-8")
    return made


def test_what_the_machine_refuses_names_the_model_that_there_is(run: RunDir) -> None:
    with pytest.raises(MachineError, match="x: No space left on device\n    → free some room") as caught, told(run):
        raise OSError(28, "No space left on device", "x")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__notes__ == [f"the best model so far is in {run.path}: autotl predict {run.path} IMAGES..."]


@pytest.mark.parametrize("error", [SearchError("Ray is gone"), ZeroDivisionError("a bug")])
def test_so_does_any_other_failure(run: RunDir, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, told(run):
        raise error
    assert caught.value is error
    assert len(error.__notes__) == 1


def test_without_a_model_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught, told(RunDir(tmp_path)):
        raise FileNotFoundError(2, "No such file or directory", "a.jpg")
    assert not hasattr(caught.value, "__notes__")
