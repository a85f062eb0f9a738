"""The scripts in examples/ run as they are, with small budgets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(commands: Any, script: str, *arguments: object, cwd: Path) -> str:
    done = commands.run_program(sys.executable, EXAMPLES / script, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    output: str = done.stdout
    return output


def test_every_example_is_tested() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {"fit_a_folder.py", "advise_only.py", "own_search_space.py", "callbacks.py"}


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_each_explains_itself(commands: Any, script: str, tmp_path: Path) -> None:
    assert f"python examples/{script}" in run(commands, script, "--help", cwd=tmp_path)


def test_fit_a_folder(commands: Any, dataset: Path, tmp_path: Path) -> None:
    text = run(
        commands,
        "fit_a_folder.py",
        dataset,
        *("--timeout", "10m", "--n-trials", 1, "--space", "quick", "--backbone", commands.LITE0, "--output", "run"),
        cwd=tmp_path,
    )
    assert "test accuracy: " in text
    predicted = [line.split() for line in text.splitlines() if line.endswith(".png")]
    assert len(predicted) == 5
    assert sum(label == Path(path).parent.name for label, _, path in predicted) >= 4
    assert (tmp_path / "run" / "result.json").exists()


def test_advise_only(commands: Any, dataset: Path, tmp_path: Path) -> None:
    text = run(commands, "advise_only.py", dataset, "--backbone", commands.LITE0, "--json", "advice.json", cwd=tmp_path)
    assert "The data set is small: 60 images in 3 classes" in text
    advice = json.loads((tmp_path / "advice.json").read_text("utf-8"))
    assert f"Scenario {advice['scenario']['number']} of 4: {advice['strategy']}" in text
    assert [path.name for path in tmp_path.iterdir()] == ["advice.json"]


def test_own_search_space(commands: Any, dataset: Path, tmp_path: Path) -> None:
    text = run(
        commands,
        "own_search_space.py",
        dataset,
        *("--timeout", "10m", "--n-trials", 1, "--backbone", commands.LITE0),
        cwd=tmp_path,
    )
    assert "mine.toml has the fingerprint " in text
    (run_dir,) = (tmp_path / "autotl_runs").iterdir()
    *_, last = (run_dir / "trials.jsonl").read_text("utf-8").splitlines()
    config = json.loads(last)["config"]
    assert config["freeze_depth"] in (7, 8)
    assert 0.02 <= config["learning_rate_factor"] <= 0.2
    assert config["batch_size"] == 16
    assert f"best: {json.loads((run_dir / 'result.json').read_text('utf-8'))['validation']['value']:.4f}" in text


def test_callbacks(commands: Any, dataset: Path, tmp_path: Path) -> None:
    text = run(
        commands,
        "callbacks.py",
        dataset,
        *("--timeout", "10m", "--n-trials", 1, "--space", "quick", "--backbone", commands.LITE0),
        cwd=tmp_path,
    )
    lines = (tmp_path / "trials.jsonl").read_text("utf-8").splitlines()
    assert f"{len(lines)} trials in trials.jsonl, 1 of them proposed by the search" in text
    (run_dir,) = (tmp_path / "autotl_runs").iterdir()
    written = (run_dir / "trials.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["trial_id"] for line in lines] == [json.loads(line)["trial_id"] for line in written]
