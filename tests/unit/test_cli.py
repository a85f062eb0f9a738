"""The command line: arguments, output, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autotl.advice.reference import make_yardstick, save_yardstick
from autotl.cli import main
from autotl.errors import ModelFileError, Problem, SearchError, SettingsError
from autotl.result import Estimate
from autotl.settings import Resources
from autotl.space.files import load_space, shipped_names, spaces_dir

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def _fitting() -> None:
    """Everything that fit and advise import, outside the time of a test."""
    import_module("autotl.fitting")
    import_module("autotl.tune.runner")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each command in an empty folder."""
    monkeypatch.chdir(tmp_path)


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


@pytest.mark.usefixtures("_fitting")
def test_fit_lists_the_problems_of_every_kind_and_starts_nothing(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run").touch()
    options = (
        "--timeout 5s --n-trials 0 --metric acc --space fast --backbone zzzzzqqq --output run --seed -1 "
        "--val-fraction 0.9 --slots 0 --cpus-per-trial 0 --gpus-per-trial -1"
    )
    assert main(["fit", "photos", *options.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "autotl: 12 problems with what was given:",
        "  - timeout: 5 seconds",
        "    allowed: at least 20 seconds, as a number or as 90s, 10m, 1.5h",
        "  - n_trials: 0",
        "    allowed: a whole number from 1, or None for as many as the time allows",
        "  - metric: 'acc'",
        "    allowed: auto, accuracy, balanced_accuracy, f1_macro, log_loss, roc_auc",
        "  - seed: -1",
        "    allowed: a whole number from 0",
        "  - val_fraction: 0.9",
        "    allowed: 0.05 to 0.5",
        "  - slots: 0",
        "    allowed: from 1",
        "  - cpus_per_trial: 0",
        "    allowed: from 1",
        "  - gpus_per_trial: -1.0",
        "    allowed: 0 to 1, or a whole number above it",
        "  - search_space 'fast': no such space",
        "    allowed: default, large_dissimilar, large_similar, quick, small_dissimilar, small_similar, or the path of "
        "a TOML file",
        "  - backbones 'zzzzzqqq': unknown to autotl's catalog and to timm",
        "    allowed: a timm model",
        "    → see `autotl backbones list`",
        "  - output_dir run: is a file",
        "    allowed: a new or empty folder",
        "  - dataset photos: no such folder",
        "    allowed: DIR/CLASS/images, or DIR/train/CLASS/images with optional val (valid, validation) and test "
        "beside train",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.usefixtures("_fitting")
def test_fit_lists_every_problem_of_a_space_file_with_those_of_the_rest(tmp_path: Path, capsys: Capture) -> None:
    text = (spaces_dir() / "quick.toml").read_text("utf-8").replace("max_t = 3", "max_t = 0")
    (tmp_path / "mine.toml").write_text(text.replace("[batch_size]\nchoices = [32]", "[batch_size]\nchoices = [1]"))
    assert main(["fit", "photos", "--timeout", "soon", "--space", "mine.toml"]) == 2
    heads = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]
    assert heads == [
        "  - timeout: not a duration",
        "  - mine.toml: max_t: 0",
        "  - mine.toml: [batch_size] choices: 1",
        "  - dataset photos: no such folder",
    ]


@pytest.mark.usefixtures("_fitting")
def test_advise_lists_the_problems_of_every_kind(capsys: Capture) -> None:
    assert main(["advise", "photos", "--metric", "acc", "--seed", "-1", "--backbone", "zzzzzqqq"]) == 2
    heads = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]
    assert heads == [
        "  - metric: 'acc'",
        "  - seed: -1",
        "  - backbones 'zzzzzqqq': unknown to autotl's catalog and to timm",
        "  - dataset photos: no such folder",
    ]


@pytest.mark.usefixtures("_fitting")
def test_sources_are_looked_at_with_everything_else(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "photos_only").mkdir()
    assert main(["fit", "photos", "--source", "gone", "--source", "photos_only", "--seed", "-1"]) == 2
    heads = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]
    assert heads == [
        "  - seed: -1",
        "  - source gone: no such folder",
        "  - source photos_only: is not a run folder (no model/model.json)",
        "  - dataset photos: no such folder",
    ]


@pytest.mark.usefixtures("_fitting")
@pytest.mark.parametrize("arguments", [["predict", "gone", "a.jpg"], ["evaluate", "gone", "photos"]])
def test_a_run_that_does_not_exist_ends_with_code_2(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == "autotl: 1 problem with what was given:\n  - gone: no such folder\n"


# -- the yardstick -----------------------------------------------------------------------------------------------


def test_yardstick_build_passes_its_options_on(door: Replace, capsys: Capture) -> None:
    build = door("build_yardstick", SimpleNamespace(names=("ant", "ant", "bee"), source="insects"))
    options = "--images photos --backbone resnet18 --source insects --output own.npz --allow-download"
    assert main(["yardstick", "build", *options.split()]) == 0
    assert build.given == ("photos", "resnet18", "own.npz")
    assert build.options == {"source": "insects", "allow_download": True, "quiet": False}
    assert capsys.readouterr().out == (
        "3 photographs of 2 classes of insects in own.npz; use it with autotl advise DIR --yardstick own.npz\n"
    )


def test_yardstick_build_lists_every_problem(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "own.npz").touch()
    options = "--images photos --backbone zzzzzqqq --output own.npz"
    assert main(["yardstick", "build", *options.split()]) == 2
    heads = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]
    assert heads == [
        "  - images photos: no such folder",
        "  - backbones 'zzzzzqqq': unknown to autotl's catalog and to timm",
        "  - output own.npz: exists already",
    ]


@pytest.mark.usefixtures("_fitting")
def test_a_yardstick_that_a_model_of_a_run_made_is_none_of_its_pretrained_backbone(capsys: Capture) -> None:
    backbone, rows, names = "tf_efficientnet_lite0.in1k", np.eye(20, dtype=np.float32), ("x",) * 20
    made = make_yardstick("birds", backbone, rows, names)
    save_yardstick(replace(made, weights_sha256="abc"), Path("own.npz"))
    assert main(["advise", "photos", "--yardstick", "own.npz"]) == 2
    shown = capsys.readouterr().err
    assert "  - yardstick own.npz: was made by the model of a run" in shown
    assert "name that run as a source instead" in shown


@pytest.mark.usefixtures("_fitting")
@pytest.mark.parametrize("content", [None, b"PK no archive", b""])
def test_a_yardstick_that_cannot_be_read_is_told_with_the_rest(
    tmp_path: Path, capsys: Capture, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "own.npz").write_bytes(content)
    assert main(["advise", "photos", "--yardstick", "own.npz", "--seed", "-1"]) == 2
    heads = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]
    found = "no such file" if content is None else "cannot be read ("
    assert [heads[0], heads[2]] == ["  - seed: -1", "  - dataset photos: no such folder"]
    assert heads[1].startswith(f"  - yardstick own.npz: {found}")


@pytest.mark.usefixtures("_fitting")
def test_a_yardstick_whose_backbone_is_not_here_is_told(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    names = tuple("x" * 20)
    for file, backbone in (("hub.npz", "convnext_tiny.fb_in1k"), ("gone.npz", "resnet18.a1_in1k=gone.pth")):
        save_yardstick(make_yardstick("source", backbone, rows, names), tmp_path / file)
        assert main(["advise", "photos", "--yardstick", file]) == 2
        heads = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]
        assert heads[0].startswith(f"  - yardstick {file}: {backbone}: ")
        assert len(heads) == 2


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


def test_evaluate_as_json_holds_the_intervals(door: Replace, capsys: Capture) -> None:
    door("evaluate", {"accuracy": Estimate(0.9, 0.8, 0.95, 100)})
    assert main(["evaluate", "run", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n_images": 100}
    }


# -- spaces ------------------------------------------------------------------------------------------------------


def test_spaces_list_says_what_each_is_for(capsys: Capture) -> None:
    assert main(["spaces", "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["space", "what", "it", "is", "for"]
    assert [tuple(line.rstrip().split(maxsplit=1)) for line in lines] == [
        (name, load_space(name).description) for name in shipped_names()
    ]


def test_spaces_show_prints_the_file_with_its_comments(capsys: Capture) -> None:
    assert main(["spaces", "show", "quick"]) == 0
    assert capsys.readouterr().out == (spaces_dir() / "quick.toml").read_text("utf-8")


def test_a_copied_space_is_the_same_and_checks_fine(tmp_path: Path, capsys: Capture) -> None:
    assert main(["spaces", "copy", "quick", "mine.toml"]) == 0
    assert capsys.readouterr().out == "quick copied to mine.toml; use it with autotl fit --space mine.toml\n"
    assert (tmp_path / "mine.toml").read_bytes() == (spaces_dir() / "quick.toml").read_bytes()
    assert main(["spaces", "check", "mine.toml"]) == 0
    fingerprint = load_space("quick").fingerprint()
    assert capsys.readouterr().out == f"mine.toml: fine, 10 parameters, fingerprint {fingerprint}\n"


def test_a_copy_overwrites_nothing(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine.toml").write_text("precious")
    assert main(["spaces", "copy", "quick", "mine.toml"]) == 2
    assert capsys.readouterr().err == (
        "autotl: 1 problem with what was given:\n  - mine.toml: exists already\n    allowed: the name of a new file\n"
    )
    assert (tmp_path / "mine.toml").read_text() == "precious"


def test_a_copy_into_a_folder_that_does_not_exist_ends_with_code_2(capsys: Capture) -> None:
    assert main(["spaces", "copy", "quick", "gone/mine.toml"]) == 2
    assert "gone/mine.toml" in capsys.readouterr().err


@pytest.mark.parametrize("action", [["show"], ["copy"]])
def test_a_space_that_is_no_text_ends_with_code_2(tmp_path: Path, capsys: Capture, action: list[str]) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert main(["spaces", *action, "photo.jpg", *(["new.toml"] if action == ["copy"] else [])]) == 2
    assert "photo.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("action", [["show", "fast"], ["check", "fast"], ["copy", "fast", "mine.toml"]])
def test_an_unknown_space_ends_with_code_2(tmp_path: Path, capsys: Capture, action: list[str]) -> None:
    assert main(["spaces", *action]) == 2
    assert capsys.readouterr().err.startswith(
        "autotl: 1 problem with what was given:\n  - search_space 'fast': no such space\n    allowed: default, "
    )
    assert list(tmp_path.iterdir()) == []


def test_spaces_check_lists_every_problem(tmp_path: Path, capsys: Capture) -> None:
    text = (spaces_dir() / "quick.toml").read_text("utf-8")
    text = text.replace('name = "quick"', "").replace("max_t = 3", "max_t = 0").replace("[layer_decay]", "[layer_dcay]")
    (tmp_path / "mine.toml").write_text(text)
    assert main(["spaces", "check", "mine.toml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "autotl: 4 problems with what was given:",
        "  - mine.toml: max_t: 0",
        '    allowed: "auto" or a whole number from 1',
        "  - mine.toml: name is missing",
        "    allowed: a text",
        "  - mine.toml: layer_dcay: unknown key",
        "    allowed: name, description, max_t, grace_period, reduction_factor, scratch_share, backbone, "
        "initial_weights, freeze_depth, learning_rate_factor, head_learning_rate_factor, layer_decay, weight_decay, "
        "augmentation, label_smoothing, batch_size",
        "  - mine.toml: [layer_decay] is missing",
        "    → copy it from `autotl spaces show default`",
    ]


# -- backbones ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_fitting")
def test_backbones_list_as_json_holds_the_catalog_and_what_is_here(capsys: Capture) -> None:
    assert main(["backbones", "list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert len(entries) == 68
    lite = entries["tf_efficientnet_lite0.in1k"]
    assert (lite["weights"], lite["available"], lite["stages"], lite["parameters_m"]) == ("bundled", True, 8, 4.65)
    assert [name for name, entry in entries.items() if entry["weights"] == "bundled" and not entry["available"]] == []
    assert {type(entry["available"]) for entry in entries.values()} == {bool}


@pytest.mark.usefixtures("_fitting")
def test_backbones_list_shows_the_catalog_in_columns(capsys: Capture) -> None:
    assert main(["backbones", "list"]) == 0
    head, first, *others = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "backbone here weights params M GMACs top-1 % input stages licence"
    assert " ".join(first.split()) == "tf_efficientnet_lite0.in1k yes bundled 4.7 0.40 74.8 224 8 apache-2.0"
    assert len(others) == 67


# -- example -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_fitting")
def test_example_digits_writes_all_digits_a_quarter_of_them_as_test(tmp_path: Path, capsys: Capture) -> None:
    assert main(["example", "digits", "photos/digits"]) == 0
    counts = {
        split: [len(list((tmp_path / "photos/digits" / split / str(digit)).iterdir())) for digit in range(10)]
        for split in ("train", "test")
    }
    train, test = sum(counts["train"]), sum(counts["test"])
    assert capsys.readouterr().out == f"1797 images in photos/digits: {train} train, {test} test\n"
    totals = [one + other for one, other in zip(counts["train"], counts["test"], strict=True)]
    assert totals == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert counts["test"] == pytest.approx([total / 4 for total in totals], abs=1)
    with Image.open(next((tmp_path / "photos/digits/test/7").iterdir())) as image:
        assert (image.format, image.size) == ("PNG", (64, 64))


@pytest.mark.parametrize("kind", ["a file", "a full folder"])
def test_an_example_overwrites_nothing(tmp_path: Path, capsys: Capture, kind: str) -> None:
    target = tmp_path / "target"
    precious = target if kind == "a file" else target / "thesis.doc"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    assert main(["example", "digits", "target"]) == 2
    assert capsys.readouterr().err == (
        "autotl: 1 problem with what was given:\n  - DIR target: exists already\n    allowed: a new or empty folder\n"
    )
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["precious"]


@pytest.mark.usefixtures("_fitting")
def test_an_example_below_a_file_ends_with_code_2(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    assert main(["example", "digits", "file/digits"]) == 2
    assert "file/digits" in capsys.readouterr().err


def test_the_cache_is_shown_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from autotl.train.cache import DiskCache

    monkeypatch.setenv("AUTOTL_CACHE_DIR", str(tmp_path))
    DiskCache(tmp_path).get_or_build({"kind": "test"}, 8, lambda target: target.write_bytes(b"12345678") == 8)
    assert main(["cache", "show"]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path) in shown
    assert "1 files, 0.00 of at most 20 GiB" in shown
    assert main(["cache", "clear"]) == 0
    assert main(["cache", "show"]) == 0
    assert "0 files" in capsys.readouterr().out
