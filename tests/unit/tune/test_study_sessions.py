"""A search that goes on with the study of an earlier session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from autotl import clock
from autotl.records import Status, TrialRecord
from autotl.space.search_space import PARAMETERS
from autotl.storage.unfinished import Unfinished
from autotl.tune.pace import Pace
from autotl.tune.study import MAX_RESUMED, StudySearch, study_in
from autotl.tune.trainable import EPOCHS_KEY, RESUMES_KEY

Make = Callable[..., StudySearch]


def completed(score: float) -> dict[str, Any]:
    return {"status": "completed", "best_score": score, "score": score, "epoch": 1}


def record(name: str, config: dict[str, Any], score: float | None, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {"status": Status.COMPLETED, "epochs": 4, "seconds": 1.0} | changes
    return TrialRecord(number=1, trial_id=name, config=config, score=score, **values)


class TestAnotherSession:
    """A search that goes on with the study of one that was killed."""

    def killed(self, make: Make) -> dict[str, Any]:
        """A search with a trial that ended and one in the middle; the config of the former."""
        search = make()
        config = search.suggest("a")
        assert isinstance(config, dict)
        search.on_trial_complete("a", completed(0.9))
        search.suggest("b")
        return {name: config[name] for name in PARAMETERS}

    def test_what_it_knew_is_known_and_what_it_was_in_the_middle_of_has_failed(self, make: Make) -> None:
        config = self.killed(make)
        search = make(earlier=[record("a", config, 0.9)])
        assert [trial.state for trial in search._ot_study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
        assert search._ends == {"a": 0.9}
        search.suggest("c")
        search.on_trial_complete("c", completed(0.8))
        assert [trial.value for trial in search._ot_study.trials] == [0.9, None, 0.8]

    def test_a_start_point_that_was_tried_is_not_tried_again(self, make: Make) -> None:
        config = self.killed(make)
        other = config | {"freeze_depth": 1 if config["freeze_depth"] != 1 else 2}
        search = make(earlier=[record("a", config, 0.9)], start_points=[config, other])
        proposed = search.suggest("c")
        assert isinstance(proposed, dict)
        assert {name: proposed[name] for name in PARAMETERS} == search._search_space.clip(other, search._n_stages)

    def test_trials_that_failed_or_were_cut_count_as_such(self, make: Make) -> None:
        config = self.killed(make)
        cut = record("cut", config, 0.7, status=Status.TIMED_OUT, epochs=2)
        failed = record("failed", config, None, status=Status.FAILED, epochs=0)
        search = make(earlier=[record("a", config, 0.9), cut, failed, record("probe", {}, 0.8, origin="probe")])
        assert search._scores == {"a": 0.9, "cut": 0.7}
        assert search._ends == {"a": 0.9}
        assert search._n_suggested == 3

    def test_a_trial_whose_weights_are_gone_is_not_gone_on_with(self, make: Make) -> None:
        config = self.killed(make)
        for kept in (True, False):
            search = make(earlier=[record("a", config, 0.9)], is_kept=lambda name, kept=kept: kept)
            assert (search._continue("c", 1e9) is None) is not kept

    def test_the_study_is_found_by_its_journal(self, make: Make, tmp_path: Path) -> None:
        assert study_in(tmp_path / "none.journal") is None
        make(study_name="run-7")
        assert study_in(tmp_path / "study.journal") == "run-7"


def cut(name: str, config: dict[str, Any], **changes: Any) -> Unfinished:
    values: dict[str, Any] = {
        "weights_sha256": "",
        "epoch": 3,
        "planned": 10,
        "elapsed": 30.0,
        "continues": "",
        "resumed": 0,
        "curve": (0.5, 0.6, 0.7, 0.8),
        "train_losses": (0.9, 0.6, 0.4),
        "best": None,
        "training": {},
    }
    return Unfinished(trial_id=name, config=config, **(values | changes))


def ten_seconds_an_epoch(config: dict[str, Any], epochs: int, views_from: int) -> float:
    return 10.0 * epochs


class TestResumption:
    """Trials that were cut go on before anything else is tried."""

    def test_it_comes_first_with_the_epochs_it_had(self, make: Make, point: dict[str, Any]) -> None:
        other = point | {"freeze_depth": 1}
        search = make(
            unfinished=[cut("old", point)], start_points=[point, other], pace=Pace(ten_seconds_an_epoch, max_t=12)
        )
        first = search.suggest("new")
        assert (first[RESUMES_KEY], first[EPOCHS_KEY]) == ("old", 10)
        assert {name: first[name] for name in PARAMETERS} == point
        assert search.origin("new") == "resumption"
        assert search.resumed("new") == cut("old", point)
        assert search.expected("new") == pytest.approx(30.0 + 70.0)
        second = search.suggest("next")
        assert {name: second[name] for name in PARAMETERS} == other  # `point` is not begun anew
        assert second[RESUMES_KEY] == ""

    def test_it_has_the_epochs_that_fit(self, make: Make, point: dict[str, Any]) -> None:
        search = make(
            unfinished=[cut("old", point)],
            pace=Pace(ten_seconds_an_epoch, max_t=12),
            deadline=clock.now() + 45.0,
        )
        assert search.suggest("new")[EPOCHS_KEY] == 3 + 4

    def test_where_not_one_epoch_fits_it_waits_for_another_session(self, make: Make, point: dict[str, Any]) -> None:
        search = make(
            unfinished=[cut("old", point)],
            pace=Pace(lambda config, epochs, views_from: 100.0 * epochs, max_t=12),
            deadline=clock.now() + 45.0,
        )
        assert search.suggest("new") == "FINISHED"

    def test_one_that_continued_another_still_does(self, make: Make, point: dict[str, Any]) -> None:
        search = make(unfinished=[cut("old", point, continues="first")])
        search.suggest("new")
        assert search.continued_by("new") == "first"

    def test_a_trial_whose_worker_was_lost_goes_on_in_the_same_search(self, make: Make) -> None:
        kept: dict[str, Unfinished] = {}
        search = make(find_unfinished=kept.get)
        config = search.suggest("a")
        point = {name: config[name] for name in PARAMETERS}
        kept["a"] = cut("a", point)
        search.on_trial_complete("a", error=True)
        assert search.suggest("b")[RESUMES_KEY] == "a"
        kept["b"] = cut("b", point, resumed=1)
        search.on_trial_complete("b", {"status": "failed"})  # it raised: it would do so again
        assert search.suggest("c")[RESUMES_KEY] == ""

    def test_one_that_kills_its_workers_is_given_up(self, make: Make) -> None:
        search = make(find_unfinished=lambda name: cut(name, point, resumed=MAX_RESUMED))
        config = search.suggest("a")
        point = {name: config[name] for name in PARAMETERS}
        search.on_trial_complete("a", error=True)
        assert search.suggest("b")[RESUMES_KEY] == ""
