"""The command line in processes of its own: output for people and programs, and exit codes."""

from __future__ import annotations

import csv
import io
import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

CLASSES = ["circle", "square", "triangle"]
ESCAPE = "\x1b["
RED = "\x1b[31m"


def test_the_command_is_installed_under_its_name() -> None:
    (entry,) = entry_points(group="console_scripts", name="autotl")
    assert entry.value == "autotl.cli:main"


class TestFitJson:
    def test_prints_nothing_but_the_result(self, json_fit: tuple[Path, Any]) -> None:
        run, done = json_fit
        plain = json.loads(done.stdout)
        assert plain == json.loads((run / "result.json").read_text("utf-8"))
        assert plain["run_dir"] == str(run)
        assert plain["test"]["n_images"] == 18
        assert plain["test"]["value"] > 0.8
        assert sum(plain["trials"].values()) == 2
        assert plain["interrupted"] is False

    def test_prints_no_errors(self, json_fit: tuple[Path, Any]) -> None:
        assert json_fit[1].stderr == ""

    def test_the_result_comes_before_the_timeout(self, json_fit: tuple[Path, Any]) -> None:
        assert "timed_out" not in json.loads(json_fit[1].stdout)["trials"]


class TestPredict:
    def test_csv(self, commands: Any, json_fit: tuple[Path, Any], dataset: Path, tmp_path: Path) -> None:
        done = commands.run("predict", json_fit[0], dataset / "test", "--format", "csv", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert list(rows[0]) == ["path", "label", "probability", *CLASSES]
        assert [row["path"] for row in rows] == [str(path) for path in sorted((dataset / "test").rglob("*.png"))]
        for row in rows:
            assert sum(float(row[name]) for name in CLASSES) == pytest.approx(1, abs=1e-4)
            assert float(row["probability"]) == max(float(row[name]) for name in CLASSES)
        right = sum(row["label"] == Path(row["path"]).parent.name for row in rows)
        assert right >= 15  # of 18

    def test_json(self, commands: Any, json_fit: tuple[Path, Any], dataset: Path, tmp_path: Path) -> None:
        image = dataset / "test" / "square" / "03.png"
        done = commands.run("predict", json_fit[0], image, "--format", "json", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        (prediction,) = json.loads(done.stdout)
        assert set(prediction) == {"path", "label", "probability", "probabilities"}
        assert prediction["path"] == str(image)
        assert list(prediction["probabilities"]) == CLASSES

    def test_bad_images_and_no_run_are_bad_input(
        self, commands: Any, json_fit: tuple[Path, Any], dataset: Path, tmp_path: Path
    ) -> None:
        done = commands.run("predict", json_fit[0], tmp_path / "gone.png", tmp_path / "lost.png", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "gone.png" in done.stderr
        assert "lost.png" in done.stderr
        done = commands.run("predict", dataset, dataset / "test", cwd=tmp_path)
        assert done.returncode == 2
        assert "is not a run folder" in done.stderr


def test_evaluate_json_gives_the_fits_test_estimate(
    commands: Any, json_fit: tuple[Path, Any], dataset: Path, tmp_path: Path
) -> None:
    done = commands.run("evaluate", json_fit[0], dataset, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    estimates = json.loads(done.stdout)
    assert set(estimates) >= {"accuracy", "balanced_accuracy", "f1_macro", "log_loss"}
    assert estimates["accuracy"] == pytest.approx(json.loads(json_fit[1].stdout)["test"])


class TestBadInput:
    def test_exit_code_2_with_every_problem_and_nothing_written(self, commands: Any, tmp_path: Path) -> None:
        done = commands.run(
            "fit", "missing", "--timeout", "1s", "--space", "nowhere", "--backbone", "nonesuch", cwd=tmp_path
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("autotl: Found 4 problems in the input:")
        for word in ("missing", "timeout", "nowhere", "nonesuch"):
            assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_option_has_exit_code_2_as_well(self, commands: Any, tmp_path: Path) -> None:
        done = commands.run("fit", "somewhere", "--no-such-option", cwd=tmp_path)
        assert done.returncode == 2
        assert "--no-such-option" in done.stderr


class TestColours:
    BAD = ("spaces", "show", "nowhere")

    def test_errors_are_red_on_a_terminal(self, commands: Any, tmp_path: Path) -> None:
        terminal = commands.on_terminal(*self.BAD, cwd=tmp_path)
        assert RED in terminal.wait(60)
        assert terminal.process.returncode == 2

    def test_no_color_takes_the_colour_away(self, commands: Any, tmp_path: Path) -> None:
        text = commands.on_terminal(*self.BAD, cwd=tmp_path, NO_COLOR="1").wait(60)
        assert "no such space" in text
        assert "\x1b[3" not in text

    def test_no_colour_in_a_pipe(self, commands: Any, tmp_path: Path) -> None:
        done = commands.run(*self.BAD, cwd=tmp_path)
        assert "no such space" in done.stderr
        assert ESCAPE not in done.stderr


class TestExample:
    @pytest.fixture(scope="class")
    @classmethod
    def digits(cls, commands: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("example")
        done = commands.run("example", "digits", "digits", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("1797 images in digits: ")
        return folder / "digits"

    def test_digits_are_written_by_split_and_class(self, digits: Path) -> None:
        assert sorted(path.name for path in digits.iterdir()) == ["test", "train"]
        for split in ("train", "test"):
            assert sorted(path.name for path in (digits / split).iterdir()) == list("0123456789")
        assert len(list(digits.rglob("*.png"))) == 1797

    def test_a_folder_in_use_is_refused(self, commands: Any, digits: Path) -> None:
        done = commands.run("example", "digits", digits, cwd=digits.parent)
        assert done.returncode == 2
        assert "exists already" in done.stderr

    def test_ctrl_c_before_there_is_a_model_has_exit_code_130(
        self, commands: Any, digits: Path, tmp_path: Path
    ) -> None:
        """On enough images for the first linear probe to take its time."""
        run = tmp_path / "run"
        terminal = commands.on_terminal("fit", digits, "--timeout", "10m", "--output", run, cwd=tmp_path)
        log = run / "fit.log"
        commands.wait_for(
            lambda: log.exists() and "Backbones on your images" in log.read_text("utf-8"),
            "the first embedding",
            process=terminal.process,
            output=lambda: terminal.text,
        )
        terminal.press_ctrl_c()
        text = terminal.wait(120)
        assert not (run / "model" / "model.json").exists()
        assert terminal.process.returncode == 130, text
        assert "autotl: interrupted" in text
        assert "Traceback" not in text
        assert not (run / "cache").exists()


def test_a_reference_set_is_built_and_measured_with(commands: Any, dataset: Path, tmp_path: Path) -> None:
    """Measured with a reference set of shapes, other shapes are similar, and each class is nearest to itself."""
    build = ("reference", "build", "--images", dataset / "train", "--backbone", commands.LITE0, "--name", "shapes")
    done = commands.run(*build, "--output", "shapes.npz", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("60 photographs of 3 classes of shapes in shapes.npz; ")
    again = commands.run(*build, "--output", "shapes.npz", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    options = ("--backbone", commands.LITE0, "--reference", "shapes.npz", "--json")
    done = commands.run("advise", dataset / "test", *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    similarity = json.loads(done.stdout)["similarity"]
    assert similarity["reference"] == "shapes"
    assert similarity["similarity"] > 0.8
    assert {name: nearest[0] for name, nearest in similarity["nearest"].items()} == {name: name for name in CLASSES}
