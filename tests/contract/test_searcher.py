"""Contract of a searcher: what Ray Tune asks of it, and what a run relies on."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from autotl.space.files import load_space
from autotl.space.search_space import PARAMETERS, Config, SearchSpace
from autotl.tune.pace import Pace
from autotl.tune.study import StudySearch
from autotl.tune.trainable import CONTINUES_KEY, EPOCHS_KEY, RESUMES_KEY

N_STAGES = {"shallow": 5, "deep": 9}
CONSTANTS = {"task": "/somewhere/task.json"}
ORDERS = {EPOCHS_KEY: 4, CONTINUES_KEY: "", RESUMES_KEY: ""}
NO_PARAMETERS = CONSTANTS.keys() | ORDERS.keys()
NEVER, LONG_AGO = math.inf, 0.0
Make = Callable[..., Searcher]


def report(score: float, epoch: int = 1, status: str = "stopped", best: float | None = None) -> dict[str, Any]:
    return {"score": score, "epoch": epoch, "status": status, "best_score": score if best is None else best}


class SearcherContract:
    """A subclass gives `build`, from a space, start points, a seed and a deadline, in a folder of its own."""

    space: SearchSpace = load_space("default").narrow(backbone=tuple(N_STAGES))

    def build(self, folder: Path, seed: int, start_points: Sequence[Config], deadline: float) -> Searcher:
        raise NotImplementedError

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        """A function that builds a searcher with a folder of its own."""

        def new(seed: int = 0, start_points: Sequence[Config] = (), deadline: float = NEVER) -> Searcher:
            folder = tmp_path / f"searcher-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return self.build(folder, seed, start_points, deadline)

        return new

    @staticmethod
    def ask(searcher: Searcher, trial_id: str) -> Config:
        """A suggestion, which has to be a config."""
        suggested = searcher.suggest(trial_id)
        assert isinstance(suggested, dict)
        return suggested

    def test_suggestions_are_points_of_the_space(self, make: Make) -> None:
        searcher = make()
        for number in range(30):
            config = {key: value for key, value in self.ask(searcher, f"t{number}").items() if key not in NO_PARAMETERS}
            assert tuple(config) == PARAMETERS
            assert self.space.contains(config, N_STAGES)

    def test_suggestions_carry_the_constants(self, make: Make) -> None:
        config = self.ask(make(), "t0")
        assert {key: config[key] for key in CONSTANTS} == CONSTANTS

    def test_a_suggestion_may_be_changed_without_harm(self, make: Make, point: Config) -> None:
        searcher = make(start_points=[point])
        self.ask(searcher, "t0").clear()
        searcher.on_trial_complete("t0", report(0.5, status="completed"))
        assert len(self.ask(searcher, "t1")) == len(PARAMETERS) + len(NO_PARAMETERS)

    def test_start_points_come_first_and_in_order(self, make: Make, point: Config) -> None:
        other = point | {"backbone": "shallow", "freeze_depth": 2}
        searcher = make(start_points=[point, other])
        first, second = self.ask(searcher, "t0"), self.ask(searcher, "t1")
        assert first == point | CONSTANTS | ORDERS
        assert second == other | CONSTANTS | ORDERS

    def test_the_seed_decides(self, make: Make) -> None:
        def suggestions(seed: int) -> list[Config]:
            searcher = make(seed=seed)
            return [self.ask(searcher, f"t{number}") for number in range(5)]

        assert suggestions(3) == suggestions(3)
        assert suggestions(3) != suggestions(4)

    def test_after_the_deadline_the_search_is_finished(self, make: Make) -> None:
        assert make(deadline=LONG_AGO).suggest("t0") == Searcher.FINISHED

    def test_a_whole_search_with_every_kind_of_ending_goes_on(self, make: Make, point: Config) -> None:
        searcher = make(start_points=[point])
        endings: list[Callable[[str], None]] = [
            lambda trial: searcher.on_trial_complete(trial, report(0.8, 3, "completed")),
            lambda trial: searcher.on_trial_complete(trial, report(0.4, 1, "stopped")),
            lambda trial: searcher.on_trial_complete(trial, report(0.4, 1, "timed_out")),
            lambda trial: searcher.on_trial_complete(trial, report(math.nan, 1, "failed", math.nan)),
            lambda trial: searcher.on_trial_complete(trial, None, error=True),
            lambda trial: searcher.on_trial_complete(trial, report(0.5, 1), error=True),
        ]
        for number in range(18):  # past the random start, so that the sampler has to digest these reports
            trial = f"t{number}"
            self.ask(searcher, trial)
            searcher.on_trial_result(trial, report(0.3, 1))
            endings[number % len(endings)](trial)
        assert isinstance(searcher.suggest("last"), dict)

    def test_a_score_that_is_no_number_is_survived(self, make: Make) -> None:
        searcher = make()
        self.ask(searcher, "t0")
        searcher.on_trial_result("t0", report(math.nan, 1))
        searcher.on_trial_complete("t0", report(math.nan, 1, "completed"))
        assert isinstance(searcher.suggest("t1"), dict)

    def test_news_of_unknown_and_of_ended_trials_is_survived(self, make: Make) -> None:
        searcher = make()
        searcher.on_trial_complete("stranger", report(0.5, 1, "completed"))
        self.ask(searcher, "t0")
        searcher.on_trial_complete("t0", report(0.5, 2, "completed"))
        searcher.on_trial_complete("t0", report(0.1, 2, "completed"))
        searcher.on_trial_result("t0", report(0.1, 3))
        assert isinstance(searcher.suggest("t1"), dict)

    def test_the_mode_is_to_maximise_the_score(self, make: Make) -> None:
        searcher = make()
        assert (searcher.metric, searcher.mode) == ("score", "max")

    def test_nothing_is_pickled(self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        searcher = make()
        self.ask(searcher, "t0")

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("something was pickled")

        monkeypatch.setattr(pickle, "dump", refuse)
        searcher.save(str(tmp_path / "state"))
        assert not (tmp_path / "state").exists()


class TestStudySearch(SearcherContract):
    """`autotl.tune.study`."""

    def build(self, folder: Path, seed: int, start_points: Sequence[Config], deadline: float) -> StudySearch:
        return StudySearch(
            self.space,
            N_STAGES,
            journal=folder / "study.journal",
            study_name="contract",
            seed=seed,
            start_points=start_points,
            deadline=deadline,
            constants=CONSTANTS,
            pace=Pace(lambda config, epochs, views_from: 0.0, max_t=4),
        )
