"""The command line as a whole: arguments that make no command, help, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.cli import main
from autotl.errors import DatasetError, ModelFileError, Problem, SearchError, SettingsError

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
        (["advise"], "the following arguments are required: DIR"),
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


def test_a_mistake_inside_autotl_is_called_one_and_shown_on_demand(stand_in: Replace, capsys: Capture) -> None:
    error = ZeroDivisionError("a bug")
    error.add_note("the best model so far is in RUN")
    stand_in("fit", error)
    assert main(["fit", "photos"]) == 1
    assert capsys.readouterr().err == (
        "autotl: unexpected ZeroDivisionError: a bug\n    → this is a fault of autotl; --debug shows where\n"
        "the best model so far is in RUN\n"
    )
    assert main(["fit", "photos", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_the_machine_refuses_is_a_message(stand_in: Replace, capsys: Capture) -> None:
    stand_in("load", PermissionError(13, "Permission denied", "/runs/1/model/model.json"))
    assert main(["predict", "run", "photo.jpg"]) == 1
    assert capsys.readouterr().err.startswith(
        "autotl: /runs/1/model/model.json: Permission denied\n    → give this user"
    )


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (SettingsError([Problem("settings", "seed", "-1", "from 0")]), "SettingsError", 2),
        (SearchError("Ray did not start"), "SearchError", 1),
        (OSError(28, "No space left on device"), "MachineError", 1),
        (KeyboardInterrupt(), "AutotlError", 130),
    ],
)
def test_with_json_errors_are_json(
    stand_in: Replace, capsys: Capture, error: BaseException, kind: str, code: int
) -> None:
    stand_in("fit", error)
    assert main(["fit", "photos", "--json"]) == code
    captured = capsys.readouterr()
    told = json.loads(captured.out)["error"]
    assert told["kind"] == kind
    assert captured.err.startswith(f"autotl: {told['message']}")
    assert told["problems"] == [
        {"area": "settings", "where": "seed", "found": "-1", "allowed": "from 0", "remedy": ""}
    ] * (kind == "SettingsError")


def test_of_very_many_problems_all_are_in_a_file(stand_in: Replace, capsys: Capture) -> None:
    problems = [Problem("dataset", f"caf\udce9{number}.jpg", "unreadable") for number in range(50)]
    stand_in("fit", DatasetError(problems))
    assert main(["fit", "photos", "--json"]) == 2
    captured = capsys.readouterr()
    told = json.loads(captured.out)["error"]
    assert len(told["problems"]) == 20
    assert f"all of them: {told['all_problems']}" in captured.err
    assert len(Path(told["all_problems"]).read_text("utf-8").splitlines()) == 50
    Path(told["all_problems"]).unlink()


def test_output_that_nobody_wants_more_of_is_no_error(stand_in: Replace, capsys: Capture) -> None:
    stand_in("fit", BrokenPipeError())
    assert main(["fit", "photos"]) == 141
    assert capsys.readouterr() == ("", "")


def test_a_current_folder_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["spaces", "list"]) == 1
    assert "the current folder is no longer there" in capsys.readouterr().err
