"""Bad input on the command line: all that is wrong is listed at once, and nothing is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotl.advice.reference_set import make_yardstick, save_yardstick
from autotl.cli import main
from autotl.space.files import spaces_dir

pytestmark = pytest.mark.usefixtures("_elsewhere")
Capture = pytest.CaptureFixture[str]


def heads_of(capsys: Capture) -> list[str]:
    """The first line of each problem that was printed since the last call."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]


# -- fit, advise, predict and evaluate ---------------------------------------------------------------------------


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
    assert heads_of(capsys) == [
        "  - timeout: not a duration",
        "  - mine.toml: max_t: 0",
        "  - mine.toml: [batch_size] choices: 1",
        "  - dataset photos: no such folder",
    ]


@pytest.mark.usefixtures("_fitting")
def test_advise_lists_the_problems_of_every_kind(capsys: Capture) -> None:
    assert main(["advise", "photos", "--metric", "acc", "--seed", "-1", "--backbone", "zzzzzqqq"]) == 2
    assert heads_of(capsys) == [
        "  - metric: 'acc'",
        "  - seed: -1",
        "  - backbones 'zzzzzqqq': unknown to autotl's catalog and to timm",
        "  - dataset photos: no such folder",
    ]


@pytest.mark.usefixtures("_fitting")
def test_sources_are_looked_at_with_everything_else(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "photos_only").mkdir()
    assert main(["fit", "photos", "--source", "gone", "--source", "photos_only", "--seed", "-1"]) == 2
    assert heads_of(capsys) == [
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


def test_yardstick_build_lists_every_problem(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "own.npz").touch()
    options = "--images photos --backbone zzzzzqqq --output own.npz"
    assert main(["yardstick", "build", *options.split()]) == 2
    assert heads_of(capsys) == [
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
    heads = heads_of(capsys)
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
        heads = heads_of(capsys)
        assert heads[0].startswith(f"  - yardstick {file}: {backbone}: ")
        assert len(heads) == 2
