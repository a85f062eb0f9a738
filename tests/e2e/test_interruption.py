"""A search that is ended from outside: by Ctrl-C or a batch system, with a result; by SIGKILL, with a model."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ESCAPE = "\x1b["


class Interrupted(NamedTuple):
    """A fit that was ended by Ctrl-C on a terminal, after its first trial."""

    run: Path
    text: str
    code: int
    below: dict[int, str]


class Killed(NamedTuple):
    """A fit that was killed after its first trial, with its output on a pipe."""

    run: Path
    text: str
    below: dict[int, str]


ENDLESS = ("--timeout", "10m", "--n-trials", 500, "--slots", 1)
"""A fit that is ended from outside."""


class OnTerminal(NamedTuple):
    """A fit on a terminal that has had its first trial, and the processes below it."""

    run: Path
    terminal: Any
    below: dict[int, str]


def begin_on_terminal(commands: Any, dataset: Path, folder: Path) -> OnTerminal:
    run = folder / "run"
    terminal = commands.on_terminal("fit", dataset, *commands.QUICK, *ENDLESS, "--output", run, cwd=folder)
    commands.wait_for(
        lambda: commands.searched(run), "the first trial", process=terminal.process, output=lambda: terminal.text
    )
    return OnTerminal(run, terminal, commands.descendants(terminal.process.pid))


class OnPipe(NamedTuple):
    """A fit that writes to a file and has had its first trial, and the processes below it."""

    run: Path
    process: Any
    output: Path
    below: dict[int, str]


def begin_on_pipe(commands: Any, dataset: Path, folder: Path) -> OnPipe:
    run, output = folder / "run", folder / "output.txt"
    process = commands.start("fit", dataset, *commands.QUICK, *ENDLESS, "--output", run, cwd=folder, output=output)
    commands.wait_for(lambda: commands.searched(run), "the first trial", process=process, output=output.read_text)
    return OnPipe(run, process, output, commands.descendants(process.pid))


@pytest.fixture(scope="module")
def interrupted(commands: Any, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    run, terminal, below = begin_on_terminal(commands, dataset, tmp_path_factory.mktemp("interrupted"))
    terminal.press_ctrl_c()
    text = terminal.wait(120)
    return Interrupted(run, text, terminal.process.returncode, below)


@pytest.fixture(scope="module")
def killed(commands: Any, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    run, process, output, below = begin_on_pipe(commands, dataset, tmp_path_factory.mktemp("killed"))
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    return Killed(run, output.read_text("utf-8"), below)


class TestCtrlC:
    def test_it_ends_with_the_best_so_far_and_exit_code_0(self, interrupted: Interrupted) -> None:
        assert interrupted.code == 0, interrupted.text
        assert "Winner" in interrupted.text
        assert "interrupted after" in interrupted.text
        assert "Traceback" not in interrupted.text

    def test_the_result_says_that_it_was_interrupted(self, interrupted: Interrupted) -> None:
        result = json.loads((interrupted.run / "result.json").read_text("utf-8"))
        assert result["interrupted"] is True
        assert sum(result["trials"].values()) >= 1
        assert result["test"]["n_images"] == 18

    def test_no_trial_counts_as_failed_for_it(self, interrupted: Interrupted) -> None:
        lines = (interrupted.run / "trials.jsonl").read_text("utf-8").splitlines()
        assert {json.loads(line)["status"] for line in lines} <= {"completed", "stopped", "timed_out"}

    def test_the_model_loads(self, commands: Any, interrupted: Interrupted, dataset: Path, tmp_path: Path) -> None:
        done = commands.run("evaluate", interrupted.run, dataset, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        result = json.loads((interrupted.run / "result.json").read_text("utf-8"))
        assert json.loads(done.stdout)["accuracy"]["value"] == pytest.approx(result["test"]["value"])

    def test_nothing_is_left_running_nor_in_the_cache(self, commands: Any, interrupted: Interrupted) -> None:
        assert interrupted.below  # Ray's processes were seen
        commands.wait_for(lambda: not commands.alive(interrupted.below), "Ray's processes to end", seconds=60)
        assert not (interrupted.run / "cache").exists()

    def test_the_output_on_a_terminal_is_coloured(self, interrupted: Interrupted) -> None:
        assert "\x1b[1mSearch" in interrupted.text
        assert "\x1b[1;32m" in interrupted.text


class TestKilled:
    def test_rays_processes_end_with_the_driver(self, commands: Any, killed: Killed) -> None:
        assert len(killed.below) >= 3  # at least Ray's server, its local daemon, and a worker
        commands.wait_for(lambda: not commands.alive(killed.below), "Ray's processes to end", seconds=60)

    def test_the_model_predicts(self, commands: Any, killed: Killed, dataset: Path, tmp_path: Path) -> None:
        done = commands.run("predict", killed.run, dataset / "test", "--format", "json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        predictions = json.loads(done.stdout)
        right = sum(prediction["label"] == Path(prediction["path"]).parent.name for prediction in predictions)
        assert right >= 15  # of 18

    def test_trials_and_settings_survive_and_there_is_no_result(self, commands: Any, killed: Killed) -> None:
        assert len(commands.searched(killed.run)) >= 1
        assert json.loads((killed.run / "settings.json").read_text("utf-8"))["seed"] == 0
        assert not (killed.run / "result.json").exists()

    def test_the_output_in_a_pipe_was_plain_whole_lines(self, killed: Killed) -> None:
        assert ESCAPE not in killed.text
        assert "\r" not in killed.text
        assert killed.text.endswith("\n")  # each line is out as soon as it is written
        lines = [line.split() for line in killed.text.splitlines()]
        assert ["Search"] in lines
        assert any(words[:2] == ["1", "completed"] or words[:2] == ["1", "stopped"] for words in lines)

    def test_what_is_left_goes_with_the_next_fit_or_on_demand(
        self, commands: Any, killed: Killed, tmp_path: Path
    ) -> None:
        commands.wait_for(lambda: not commands.alive(killed.below), "Ray's processes to end", seconds=60)
        assert (killed.run / "cache").exists()
        done = commands.run("cache", "clear", cwd=tmp_path)
        assert f"{killed.run / 'cache'} removed: a fit that was killed left it" in done.stdout
        assert not (killed.run / "cache").exists()
        assert (killed.run / "model" / "model.json").exists()

    def test_the_run_goes_on_and_no_trial_is_lost(self, commands: Any, killed: Killed, tmp_path: Path) -> None:
        commands.wait_for(lambda: not commands.alive(killed.below), "Ray's processes to end", seconds=60)
        before = commands.searched(killed.run)
        done = commands.run("fit", "--resume", killed.run, "--timeout", "5m", "--n-trials", 1, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        after = commands.searched(killed.run)
        assert after[: len(before)] == before
        assert [trial["session"] for trial in after[len(before) :]] == [2]
        assert "Going on from" in done.stdout
        assert (killed.run / "result.json").exists()


class Ended(NamedTuple):
    """A fit that was told to end after its first trial: its exit code, and the seconds it took to end."""

    run: Path
    text: str
    code: int
    seconds: float
    below: dict[int, str]


@pytest.fixture(scope="module", params=[signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def told(request: Any, commands: Any, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    run, process, output, below = begin_on_pipe(commands, dataset, tmp_path_factory.mktemp("told"))
    begun = time.monotonic()
    os.kill(process.pid, request.param)
    process.wait(60)
    seconds = time.monotonic() - begun
    return Ended(run, output.read_text("utf-8"), process.returncode - 128, seconds, below)


class TestToldToEnd:
    def test_the_exit_code_names_the_signal(self, told: Ended) -> None:
        assert told.code in (signal.SIGTERM, signal.SIGHUP), told.text
        assert "Traceback" not in told.text

    def test_it_ends_before_it_is_killed(self, told: Ended) -> None:
        assert told.seconds < 30  # `docker stop` and systemd wait for 10 and 90 s; alone on a machine it takes 3

    def test_the_result_is_there(self, told: Ended) -> None:
        result = json.loads((told.run / "result.json").read_text("utf-8"))
        assert result["interrupted"] is True
        assert result["test"]["n_images"] == 18

    def test_nothing_is_left_running_nor_in_the_cache(self, commands: Any, told: Ended) -> None:
        assert told.below
        commands.wait_for(lambda: not commands.alive(told.below), "Ray's processes to end", seconds=60)
        assert not (told.run / "cache").exists()


def test_a_second_ctrl_c_does_not_wait_for_the_result(commands: Any, dataset: Path, tmp_path: Path) -> None:
    run, terminal, below = begin_on_terminal(commands, dataset, tmp_path)
    terminal.press_ctrl_c()
    commands.wait_for(
        lambda: "Ctrl-C again ends at once" in terminal.text,
        "the hint",
        process=terminal.process,
        output=lambda: terminal.text,
    )
    terminal.press_ctrl_c()
    text = terminal.wait(60)
    assert terminal.process.returncode == 128 + signal.SIGINT, text
    assert f"the best model so far is in {run}" in " ".join(text.split())
    assert "Traceback" not in text
    assert (run / "model" / "model.json").exists()
    assert not (run / "cache").exists()
    commands.wait_for(lambda: not commands.alive(below), "Ray's processes to end", seconds=60)


def test_a_terminal_that_is_closed_ends_the_fit_with_its_result(commands: Any, dataset: Path, tmp_path: Path) -> None:
    run, terminal, below = begin_on_terminal(commands, dataset, tmp_path)
    terminal.hang_up()
    assert terminal.process.wait(60) == 128 + signal.SIGHUP
    assert json.loads((run / "result.json").read_text("utf-8"))["interrupted"] is True
    assert not (run / "cache").exists()
    commands.wait_for(lambda: not commands.alive(below), "Ray's processes to end", seconds=60)


def test_what_ends_all_processes_at_once_leaves_the_model(commands: Any, dataset: Path, tmp_path: Path) -> None:
    """As Slurm and systemd do: Ray's processes are gone before the search can end, and its calls do not come back."""
    run, terminal, _ = begin_on_terminal(commands, dataset, tmp_path)
    os.killpg(terminal.process.pid, signal.SIGTERM)
    terminal.wait(60)
    assert terminal.process.returncode == 128 + signal.SIGTERM
    assert (run / "model" / "model.json").exists()
    assert not (run / "cache").exists()
