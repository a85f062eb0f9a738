"""The command line: what commands hand on to `autotl.api`, what they print of the answer, and exit codes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.cli import main
from autotl.errors import ModelFileError, Problem, SearchError, SettingsError
from autotl.records import Estimate
from autotl.settings import Resources

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]


class Door:
    """Stands in for a function of `autotl.api`: keeps the arguments and returns or raises `outcome`."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.given: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __call__(self, *given: Any, **options: Any) -> Any:
        self.given, self.options = given, options
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], Door]:
    """Replace a function of `autotl.api` by a `Door`."""

    def replace(name: str, outcome: Any) -> Door:
        stand_in = Door(outcome)
        monkeypatch.setattr(f"autotl.api.{name}", stand_in)
        return stand_in

    return replace


Replace = Callable[[str, Any], Door]
RESULT = SimpleNamespace(to_json=lambda: {"metric": "accuracy"})


# -- arguments ---------------------------------------------------------------------------------------------------


def test_fit_passes_its_defaults_on(door: Replace, capsys: Capture) -> None:
    fit = door("fit", RESULT)
    assert main(["fit", "photos"]) == 0
    assert fit.given == ("photos",)
    assert fit.options == {
        "timeout": "10m",
        "n_trials": None,
        "metric": "auto",
        "search_space": "auto",
        "backbones": "auto",
        "source": (),
        "output_dir": None,
        "seed": 0,
        "val_fraction": 0.2,
        "skip_unreadable": False,
        "allow_download": False,
        "resources": Resources(),
        "yardstick": None,
        "measure_benefit": False,
        "quiet": False,
    }
    assert capsys.readouterr().out == ""


def test_fit_passes_every_option_on(door: Replace) -> None:
    fit = door("fit", RESULT)
    options = (
        "--timeout 1.5h --n-trials 7 --metric log_loss --space quick --backbone resnet18 --backbone a=b.pth "
        "--source old --source older "
        "--output run --seed 3 --val-fraction 0.3 --skip-unreadable --allow-download --slots 2 --cpus-per-trial 4 "
        "--gpus-per-trial 0.5 --address auto --yardstick own.npz --measure-benefit --quiet"
    )
    assert main(["fit", *options.split(), "photos"]) == 0
    assert fit.given == ("photos",)
    assert fit.options == {
        "timeout": "1.5h",
        "n_trials": 7,
        "metric": "log_loss",
        "search_space": "quick",
        "backbones": ["resnet18", "a=b.pth"],
        "source": ["old", "older"],
        "output_dir": "run",
        "seed": 3,
        "val_fraction": 0.3,
        "skip_unreadable": True,
        "allow_download": True,
        "resources": Resources(address="auto", slots=2, cpus_per_trial=4, gpus_per_trial=0.5),
        "yardstick": "own.npz",
        "measure_benefit": True,
        "quiet": True,
    }


def test_fit_with_json_prints_the_result_and_nothing_else(door: Replace, capsys: Capture) -> None:
    fit = door("fit", RESULT)
    assert main(["fit", "photos", "--json"]) == 0
    assert fit.options["quiet"] is True
    assert json.loads(capsys.readouterr().out) == {"metric": "accuracy"}


@pytest.mark.parametrize("as_json", [False, True])
def test_advise_passes_its_options_on(door: Replace, capsys: Capture, as_json: bool) -> None:
    advise = door("advise", SimpleNamespace(to_json=lambda: {"scenario": 1}))
    options = (
        "--metric f1_macro --backbone resnet18 --source old --seed 3 --val-fraction 0.3 --skip-unreadable "
        "--allow-download --timeout 2m"
    )
    assert main(["advise", "photos", *options.split(), *(["--json"] if as_json else [])]) == 0
    assert advise.given == ("photos",)
    assert advise.options == {
        "timeout": "2m",
        "backbones": ["resnet18"],
        "source": ["old"],
        "metric": "f1_macro",
        "seed": 3,
        "val_fraction": 0.3,
        "skip_unreadable": True,
        "allow_download": True,
        "yardstick": None,
        "quiet": as_json,
    }
    assert capsys.readouterr().out == ('{\n  "scenario": 1\n}\n' if as_json else "")


def test_yardstick_build_passes_its_options_on(door: Replace, capsys: Capture) -> None:
    build = door("build_yardstick", SimpleNamespace(names=("ant", "ant", "bee"), source="insects"))
    options = "--images photos --backbone resnet18 --source insects --output own.npz --allow-download"
    assert main(["yardstick", "build", *options.split()]) == 0
    assert build.given == ("photos", "resnet18", "own.npz")
    assert build.options == {"source": "insects", "allow_download": True, "quiet": False}
    assert capsys.readouterr().out == (
        "3 photographs of 2 classes of insects in own.npz; use it with autotl advise DIR --yardstick own.npz\n"
    )


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
        (["yardstick"], "the following arguments are required: ACTION"),
        (["yardstick", "build"], "the following arguments are required: --images, --backbone, --output"),
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
    assert first_words >= {"fit", "advise", "predict", "evaluate", "spaces", "backbones", "yardstick", "example"}
    assert "DIR/train/CLASS/images" in printed


# -- exit codes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            SettingsError([Problem("settings", "seed", "-1", "from 0")]),
            2,
            "autotl: 1 problem with what was given:\n  - seed: -1\n    allowed: from 0\n",
        ),
        (SearchError("Ray did not start"), 1, "autotl: Ray did not start\n"),
        (ModelFileError("model.json is damaged"), 1, "autotl: model.json is damaged\n"),
        (KeyboardInterrupt(), 130, "autotl: interrupted\n"),
    ],
)
def test_the_exit_code_tells_what_went_wrong(
    door: Replace, capsys: Capture, error: BaseException, code: int, message: str
) -> None:
    door("fit", error)
    assert main(["fit", "photos"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == message


def test_a_mistake_inside_autotl_is_not_dressed_up(door: Replace) -> None:
    door("fit", ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["fit", "photos"])


# -- predict and evaluate ----------------------------------------------------------------------------------------


@pytest.fixture
def predictions(_fitting: None) -> list[Any]:
    """What a model says of two images."""
    from autotl.predictor import Prediction

    return [
        Prediction("a.jpg", "cat", 0.75, {"cat": 0.75, "guinea pig": 0.25}),
        Prediction("b, c.jpg", "guinea pig", 0.9, {"cat": 0.1, "guinea pig": 0.9}),
    ]


def test_predictions_are_printed_in_columns(door: Replace, capsys: Capture, predictions: list[Any]) -> None:
    predict = Door(predictions)
    load = door("load", SimpleNamespace(predict=predict))
    assert main(["predict", "run", "a.jpg", "b, c.jpg"]) == 0
    assert load.given == ("run",)
    assert predict.given == (["a.jpg", "b, c.jpg"],)
    assert capsys.readouterr().out == "cat         0.750  a.jpg\nguinea pig  0.900  b, c.jpg\n"


def test_predictions_as_csv_have_a_column_for_every_class(
    door: Replace, capsys: Capture, predictions: list[Any]
) -> None:
    door("load", SimpleNamespace(predict=Door(predictions)))
    assert main(["predict", "run", "x", "--format", "csv"]) == 0
    assert capsys.readouterr().out == (
        "path,label,probability,cat,guinea pig\n"
        "a.jpg,cat,0.750000,0.750000,0.250000\n"
        '"b, c.jpg",guinea pig,0.900000,0.100000,0.900000\n'
    )


def test_predictions_as_json_hold_everything(door: Replace, capsys: Capture, predictions: list[Any]) -> None:
    door("load", SimpleNamespace(predict=Door(predictions[:1])))
    assert main(["predict", "run", "x", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"path": "a.jpg", "label": "cat", "probability": 0.75, "probabilities": {"cat": 0.75, "guinea pig": 0.25}}
    ]


def test_evaluate_prints_a_metric_a_line(door: Replace, capsys: Capture) -> None:
    evaluate = door("evaluate", {"accuracy": Estimate(0.9, 0.8, 0.95, 100), "log_loss": Estimate(1.2, 1.0, 1.5, 100)})
    assert main(["evaluate", "run", "photos"]) == 0
    assert evaluate.given == ("run", "photos")
    assert capsys.readouterr().out == (
        "accuracy           90.00 % (95 % interval 80.0 to 95.0 %, 100 images)\n"
        "log_loss           1.2000 (95 % interval 1.0000 to 1.5000, 100 images)\n"
    )


def test_evaluate_does_not_print_a_small_log_loss_in_per_cent(door: Replace, capsys: Capture) -> None:
    door("evaluate", {"log_loss": Estimate(0.05, 0.03, 0.08, 100)})
    assert main(["evaluate", "run", "photos"]) == 0
    assert capsys.readouterr().out == "log_loss           0.0500 (95 % interval 0.0300 to 0.0800, 100 images)\n"


def test_a_metric_without_a_value_is_null_in_json(door: Replace, capsys: Capture) -> None:
    door("evaluate", {"roc_auc": Estimate(math.nan, -math.inf, math.inf, 3)})
    assert main(["evaluate", "run", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"roc_auc": {"value": None, "low": None, "high": None, "n_images": 3}}


def test_evaluate_as_json_holds_the_intervals(door: Replace, capsys: Capture) -> None:
    door("evaluate", {"accuracy": Estimate(0.9, 0.8, 0.95, 100)})
    assert main(["evaluate", "run", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n_images": 100}
    }
