"""Real fits with what a program hands over as objects: callbacks that record and that fail, and a narrowed space."""

from __future__ import annotations

import contextlib
import io
import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import autotl
from autotl.records import Status
from autotl.space.files import load_space

LITE0 = "tf_efficientnet_lite0.in1k"
FAILURE = "callback Failing.on_trial failed"


class Recording(autotl.Callback):
    """Keeps what it was called with, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.threads: set[int] = set()
        self.found_a_result_file = False

    def on_advice(self, advice: autotl.Advice) -> None:
        self._keep("advice", advice)

    def on_trial(self, trial: autotl.TrialRecord) -> None:
        self._keep("probe" if trial.origin == "probe" else "trial", trial)

    def on_end(self, result: autotl.FitResult) -> None:
        self.found_a_result_file = (result.run_dir / "result.json").is_file()
        self._keep("end", result)

    def _keep(self, event: str, value: Any) -> None:
        self.events.append((event, value))
        self.threads.add(threading.get_ident())


class Failing(autotl.Callback):
    """Raises at every trial."""

    def on_trial(self, trial: autotl.TrialRecord) -> None:
        raise RuntimeError(f"trial {trial.number} is not welcome")


class Watched(NamedTuple):
    """A fit, what its second callback recorded after the first had failed, and what it printed."""

    result: autotl.FitResult
    recording: Recording
    printed: str


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, write_shapes: Callable[..., Path]) -> Path:
    """60 images, 12 of which are held back."""
    return write_shapes(tmp_path_factory.mktemp("dataset"), 20)


@pytest.fixture(scope="module")
def watched(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Two trials; ten minutes, so that only their number ends the search."""
    recording, printed = Recording(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = autotl.fit(
            dataset,
            backbones=LITE0,
            search_space="quick",
            n_trials=2,
            timeout="10m",
            output_dir=tmp_path_factory.mktemp("watched") / "run",
            callbacks=[Failing(), recording],
        )
    return Watched(result, recording, printed.getvalue())


class TestCallbacks:
    def test_a_callback_that_raises_does_not_end_the_fit(self, watched: Watched) -> None:
        result = watched.result
        assert not result.interrupted
        assert result.n_searched == 2
        assert result.validation.value > 0.8  # chance is a third
        assert autotl.load(result.run_dir).card == result.predictor.card

    def test_events_come_in_order(self, watched: Watched) -> None:
        events = [event for event, _ in watched.recording.events]
        assert events == ["probe", "advice", "trial", "trial", "end"]

    def test_every_trial_of_the_result_was_passed_on(self, watched: Watched) -> None:
        passed = [value for event, value in watched.recording.events if event in ("probe", "trial")]
        assert passed == list(watched.result.trials)

    def test_advice_and_result_are_those_of_the_fit(self, watched: Watched) -> None:
        values = dict(watched.recording.events)
        assert values["advice"] is watched.result.advice
        assert values["end"] is watched.result

    def test_the_result_is_written_before_the_last_event(self, watched: Watched) -> None:
        assert watched.recording.found_a_result_file

    def test_they_are_called_in_the_thread_of_the_caller(self, watched: Watched) -> None:
        assert watched.recording.threads == {threading.get_ident()}

    def test_the_failure_is_printed_once_and_logged_with_its_tracebacks(self, watched: Watched) -> None:
        assert watched.printed.count(FAILURE) == 1
        assert f"{FAILURE}, and the fit goes on: RuntimeError: trial 0 is not welcome" in watched.printed
        log = (watched.result.run_dir / "fit.log").read_text("utf-8")
        lines = [line for line in log.splitlines() if FAILURE in line]
        assert len([line for line in lines if " INFO " in line]) == 1  # what is printed is logged at this level
        assert len([line for line in lines if " WARNING " in line]) == len(watched.result.trials)
        assert log.count("RuntimeError: trial 2 is not welcome") == 1


class TestRecords:
    def test_a_completed_trial_has_a_training_loss_for_every_epoch(self, watched: Watched) -> None:
        lines = (watched.result.run_dir / "trials.jsonl").read_text("utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        assert [record["train_losses"] for record in records if record["origin"] == "probe"] == [[]]
        completed = [record for record in records if record["origin"] != "probe" and record["status"] == "completed"]
        assert completed
        for record in completed:
            assert record["epochs"] >= 1
            assert len(record["train_losses"]) == record["epochs"]
            assert all(isinstance(loss, float) and math.isfinite(loss) for loss in record["train_losses"])

    def test_the_leaderboard_is_best_first(self, watched: Watched) -> None:
        result = watched.result
        rows = result.leaderboard()
        scores = [row["score"] for row in rows]
        assert scores == sorted(scores, reverse=True)
        assert sorted(row["number"] for row in rows) == [0, 1, 2]
        card = result.predictor.card
        averaged = card.trial_id == "average"  # of the best trials, and no trial itself
        assert scores[0] == pytest.approx(max(trial.score for trial in result.trials) if averaged else card.score)

    def test_the_result_is_shown_in_three_lines(self, watched: Watched) -> None:
        winner, scores, trials = repr(watched.result).splitlines()
        assert winner.startswith(f"FitResult: {LITE0}, ")
        assert scores.startswith(f"  validation {watched.result.metric} ")
        assert trials.startswith("  2 trials in ")
        assert trials.endswith(str(watched.result.run_dir))


def test_a_narrowed_space_is_searched_as_it_is(dataset: Path, tmp_path: Path) -> None:
    """Of the shipped space a fit would begin at the advice's depths, which are lower."""
    space = replace(autotl.load_space("default").narrow(freeze_depth=(6, 7), augmentation=("none",)), max_t=3)
    run = tmp_path / "run"
    result = autotl.fit(
        dataset, backbones=LITE0, search_space=space, n_trials=3, timeout="10m", output_dir=run, quiet=True
    )
    trials = [trial for trial in result.trials if trial.origin != "probe"]
    assert len(trials) == 3
    assert all(trial.status is Status.COMPLETED for trial in trials), trials
    assert {trial.config["freeze_depth"] for trial in trials} <= {6, 7}
    assert {trial.config["augmentation"] for trial in trials} == {"none"}
    assert min(point["freeze_depth"] for point in result.advice.start_points) < 6
    assert load_space(str(run / "space.toml")) == space.narrow(backbone=(LITE0,))
    settings = json.loads((run / "settings.json").read_text("utf-8"))
    assert settings["search_space"] == json.loads(json.dumps(space.to_plain()))
