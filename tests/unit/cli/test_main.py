"""The command line as a whole: arguments that make no command, help, exit codes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.cli import main
from autotl.errors import ModelFileError, Problem, SearchError, SettingsError

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]
Replace = Callable[[str, Any], Any]
Heads = Callable[[], list[str]]


RESULT = SimpleNamespace(to_json=lambda: {"metric": "accuracy"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["train"], "argument COMMAND: invalid choice: 'train'"),
        (["fit"], "the following arguments are required: DIR"),
        (["fit", "photos", "--n-trials", "many"], "argument --n-trials: invalid int value: 'many'"),
        (["fit", "photos", "--val-fraction", "half"], "argument --val-fraction: invalid float value: 'half'"),
        (["fit", "photos", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["advise", "photos", "--n-trials", "3"], "unrecognized arguments: --n-trials 3"),
        (["predict", "run"], "the following arguments are required: IMAGE"),
        (["predict", "run", "a.jpg", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
        (["evaluate", "run"], "the following arguments are required: DIR"),
        (["spaces"], "the following arguments are required: ACTION"),
        (["spaces", "copy", "quick"], "the following arguments are required: FILE"),
        (["backbones"], "the following arguments are required: ACTION"),
        (["reference"], "the following arguments are required: ACTION"),
        (["reference", "build"], "the following arguments are required: --images, --backbone, --output"),
        (["example", "letters", "there"], "argument name: invalid choice: 'letters'"),
    ],
)
def test_arguments_that_make_no_command_end_with_code_2(arguments: list[str], message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: Capture) -> None:
    import autotl

    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"autotl {autotl.__version__}\n"


def test_help_names_every_command_and_the_layouts(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    first_words = {line.split()[0] for line in printed.splitlines() if line.startswith("    ")}
    assert first_words >= {"fit", "advise", "predict", "evaluate", "spaces", "backbones", "reference", "example"}
    assert "DIR/train/CLASS/images" in printed


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            SettingsError([Problem("settings", "seed", "-1", "from 0")]),
            2,
            "autotl: Found 1 problem in the input:\n  - seed: -1\n    allowed: from 0\n",
        ),
        (SearchError("Ray did not start"), 1, "autotl: Ray did not start\n"),
        (ModelFileError("model.json is damaged"), 1, "autotl: model.json is damaged\n"),
        (KeyboardInterrupt(), 130, "autotl: interrupted\n"),
    ],
)
def test_the_exit_code_tells_what_went_wrong(
    stand_in: Replace, capsys: Capture, error: BaseException, code: int, message: str
) -> None:
    stand_in("fit", error)
    assert main(["fit", "photos"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == message


def test_a_mistake_inside_autotl_is_not_dressed_up(stand_in: Replace) -> None:
    stand_in("fit", ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["fit", "photos"])
