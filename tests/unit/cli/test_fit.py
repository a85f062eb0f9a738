"""`autotl fit` and `autotl advise`: what they hand on to `autotl.api`, and bad input, all of it at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotl.cli import main
from autotl.settings import Resources
from autotl.space.files import spaces_dir

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]
Replace = Callable[[str, Any], Any]
Heads = Callable[[], list[str]]


RESULT = SimpleNamespace(to_json=lambda: {"metric": "accuracy"})


def test_fit_passes_its_defaults_on(stand_in: Replace, capsys: Capture) -> None:
    fit = stand_in("fit", RESULT)
    assert main(["fit", "photos"]) == 0
    assert fit.given == ("photos",)
    assert fit.options == {
        "timeout": "10m",
        "n_trials": None,
        "metric": "auto",
        "search_space": "auto",
        "backbones": "auto",
        "reuse": (),
        "output_dir": None,
        "seed": 0,
        "val_fraction": 0.2,
        "skip_unreadable": False,
        "allow_download": False,
        "resources": Resources(),
        "reference": None,
        "measure_benefit": False,
        "device": "auto",
        "quiet": False,
    }
    assert capsys.readouterr().out == ""


def test_fit_passes_every_option_on(stand_in: Replace) -> None:
    fit = stand_in("fit", RESULT)
    options = (
        "--timeout 1.5h --n-trials 7 --metric log_loss --space quick --backbone resnet18 --backbone a=b.pth "
        "--reuse old --reuse older "
        "--output run --seed 3 --val-fraction 0.3 --skip-unreadable --allow-download --slots 2 --cpus-per-trial 4 "
        "--gpus-per-trial 0.5 --address auto --reference own.npz --measure-benefit --device cpu --quiet"
    )
    assert main(["fit", *options.split(), "photos"]) == 0
    assert fit.given == ("photos",)
    assert fit.options == {
        "timeout": "1.5h",
        "n_trials": 7,
        "metric": "log_loss",
        "search_space": "quick",
        "backbones": ["resnet18", "a=b.pth"],
        "reuse": ["old", "older"],
        "output_dir": "run",
        "seed": 3,
        "val_fraction": 0.3,
        "skip_unreadable": True,
        "allow_download": True,
        "resources": Resources(address="auto", slots=2, cpus_per_trial=4, gpus_per_trial=0.5),
        "reference": "own.npz",
        "measure_benefit": True,
        "device": "cpu",
        "quiet": True,
    }


def test_fit_with_json_prints_the_result_and_nothing_else(stand_in: Replace, capsys: Capture) -> None:
    fit = stand_in("fit", RESULT)
    assert main(["fit", "photos", "--json"]) == 0
    assert fit.options["quiet"] is True
    assert json.loads(capsys.readouterr().out) == {"metric": "accuracy"}


@pytest.mark.parametrize("as_json", [False, True])
def test_advise_passes_its_options_on(stand_in: Replace, capsys: Capture, as_json: bool) -> None:
    advise = stand_in("advise", SimpleNamespace(to_json=lambda: {"scenario": 1}))
    options = (
        "--metric f1_macro --backbone resnet18 --reuse old --seed 3 --val-fraction 0.3 --skip-unreadable "
        "--allow-download --timeout 2m --device cuda"
    )
    assert main(["advise", "photos", *options.split(), *(["--json"] if as_json else [])]) == 0
    assert advise.given == ("photos",)
    assert advise.options == {
        "timeout": "2m",
        "backbones": ["resnet18"],
        "reuse": ["old"],
        "metric": "f1_macro",
        "seed": 3,
        "val_fraction": 0.3,
        "skip_unreadable": True,
        "allow_download": True,
        "reference": None,
        "device": "cuda",
        "quiet": as_json,
    }
    assert capsys.readouterr().out == ('{\n  "scenario": 1\n}\n' if as_json else "")


@pytest.mark.usefixtures("_fitting")
def test_fit_lists_the_problems_of_every_kind_and_starts_nothing(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run").touch()
    options = (
        "--timeout 5s --n-trials 0 --metric acc --space fast --backbone zzzzzqqq --output run --seed -1 "
        "--val-fraction 0.9 --slots 0 --cpus-per-trial 0 --gpus-per-trial -1 --device tpu"
    )
    assert main(["fit", "photos", *options.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "autotl: Found 13 problems in the input:",
        "  - timeout: 5 seconds",
        "    allowed: at least 20 seconds and at most a year, as a number or as 90s, 10m, 1.5h",
        "  - n_trials: 0",
        "    allowed: a whole number from 1, or None for as many as the time allows",
        "  - metric: 'acc'",
        "    allowed: auto, accuracy, balanced_accuracy, f1_macro, log_loss, roc_auc",
        "  - seed: -1",
        "    allowed: a whole number from 0 to 4294967295",
        "  - val_fraction: 0.9",
        "    allowed: 0.05 to 0.5",
        "  - slots: 0",
        "    allowed: from 1",
        "  - cpus_per_trial: 0",
        "    allowed: from 1",
        "  - gpus_per_trial: -1.0",
        "    allowed: 0 to 1, or a whole number above it",
        "  - device: 'tpu'",
        "    allowed: auto, cpu, cuda",
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
def test_fit_lists_every_problem_of_a_space_file_with_those_of_the_rest(tmp_path: Path, heads: Heads) -> None:
    text = (spaces_dir() / "quick.toml").read_text("utf-8").replace("max_t = 3", "max_t = 0")
    (tmp_path / "mine.toml").write_text(text.replace("[batch_size]\nchoices = [32]", "[batch_size]\nchoices = [1]"))
    assert main(["fit", "photos", "--timeout", "1s", "--space", "mine.toml"]) == 2
    assert heads() == [
        "  - timeout: 1 seconds",
        "  - mine.toml: max_t: 0",
        "  - mine.toml: [batch_size] choices: 1",
        "  - dataset photos: no such folder",
    ]


@pytest.mark.usefixtures("_fitting")
def test_advise_lists_the_problems_of_every_kind(heads: Heads) -> None:
    assert main(["advise", "photos", "--metric", "acc", "--seed", "-1", "--backbone", "zzzzzqqq"]) == 2
    assert heads() == [
        "  - metric: 'acc'",
        "  - seed: -1",
        "  - backbones 'zzzzzqqq': unknown to autotl's catalog and to timm",
        "  - dataset photos: no such folder",
    ]


@pytest.mark.usefixtures("_fitting")
def test_earlier_runs_are_checked_with_everything_else(tmp_path: Path, heads: Heads) -> None:
    (tmp_path / "photos_only").mkdir()
    assert main(["fit", "photos", "--reuse", "gone", "--reuse", "photos_only", "--seed", "-1"]) == 2
    assert heads() == [
        "  - seed: -1",
        "  - reuse gone: no such folder",
        "  - reuse photos_only: is not a run folder (no model/model.json)",
        "  - dataset photos: no such folder",
    ]


def test_resume_gives_a_run_more_time(stand_in: Replace) -> None:
    made = stand_in("resume", RESULT)
    assert main(["fit", "--resume", "run", "--timeout", "5m", "--n-trials", "3", "--quiet"]) == 0
    assert made.given == ("run",)
    assert made.options == {"timeout": "5m", "n_trials": 3, "quiet": True}


def test_resume_changes_nothing_else(heads: Heads) -> None:
    assert main(["fit", "photos", "--resume", "run", "--seed", "3", "--cpus-per-trial", "2"]) == 2
    assert heads() == ["  - --resume: given together with --cpus-per-trial, DIR, --seed"]


def test_a_fit_needs_data_or_a_run(heads: Heads) -> None:
    assert main(["fit"]) == 2
    assert heads() == ["  - DIR: is missing"]
