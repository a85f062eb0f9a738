"""A search that goes on with the study of an earlier session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from autotl.records import Status, TrialRecord
from autotl.space.search_space import PARAMETERS
from autotl.tune.study import StudySearch, study_in

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
