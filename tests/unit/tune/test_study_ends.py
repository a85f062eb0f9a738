"""How trials end and what that counts for, what no longer fits the time left, and how a search ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from autotl.space.search_space import PARAMETERS, SearchSpace
from autotl.tune.pace import Pace
from autotl.tune.study import MAX_FAILURES, RATES, STARTUP_TRIALS, StudySearch
from autotl.tune.trainable import CONTINUES_KEY, EPOCHS_KEY

Space = Callable[..., SearchSpace]
Make = Callable[..., StudySearch]


def reopened(tmp_path: Path) -> optuna.Study:
    return optuna.load_study(
        study_name="run-1", storage=JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    )


def tried(tmp_path: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of the study without the proposals that were withdrawn."""
    return [trial for trial in reopened(tmp_path).trials if "withdrawn" not in trial.user_attrs]


def result(status: str, best: float = math.nan, score: float = math.nan, epoch: int = 1) -> dict[str, Any]:
    return {"status": status, "best_score": best, "score": score, "epoch": epoch}


def by_depth(config: dict[str, Any], epochs: int, views_from: int) -> float:
    """Ten seconds for the views, and an epoch that is longer the less is frozen."""
    return (0.0 if views_from == config["freeze_depth"] else 10.0) + epochs * (10.0 - config["freeze_depth"])


# --- what the study remembers


def test_a_completed_trial_keeps_its_best_score(make: Make, tmp_path: Path) -> None:
    search = make()
    search.suggest("t0")
    for epoch, score in enumerate([0.5, 0.9, 0.7]):
        search.on_trial_result("t0", result("stopped", score=score, epoch=epoch))
    search.on_trial_complete("t0", result("completed", best=0.9, score=0.7, epoch=2))
    (trial,) = tried(tmp_path)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.9)
    assert trial.intermediate_values == {0: 0.5, 1: 0.9, 2: 0.7}


@pytest.mark.parametrize("status", ["stopped", "timed_out"])
def test_a_trial_that_was_stopped_or_timed_out_is_pruned(make: Make, tmp_path: Path, status: str) -> None:
    search = make()
    search.suggest("t0")
    search.on_trial_result("t0", result("stopped", best=0.6, score=0.6))
    search.on_trial_complete("t0", result(status, best=0.6, score=0.6))
    (trial,) = tried(tmp_path)
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.6}


@pytest.mark.parametrize("best", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_fails_the_trial(make: Make, tmp_path: Path, best: float) -> None:
    search = make()
    search.suggest("t0")
    search.on_trial_result("t0", result("stopped", score=0.4, epoch=0))
    search.on_trial_result("t0", result("failed", score=best, epoch=1))
    search.on_trial_complete("t0", result("completed", best=best))
    (trial,) = tried(tmp_path)
    assert trial.state is TrialState.FAIL
    assert trial.intermediate_values == {0: 0.4}


@pytest.mark.parametrize(
    ("last", "error"),
    [(result("failed", best=0.8), False), (result("stopped", best=0.8), True), (None, True), (None, False), ({}, True)],
)
def test_a_trial_that_crashed_fails_and_keeps_its_scores(
    make: Make, tmp_path: Path, last: dict[str, Any] | None, error: bool
) -> None:
    search = make()
    search.suggest("t0")
    search.on_trial_result("t0", result("stopped", score=0.4, epoch=0))
    search.on_trial_complete("t0", last, error=error)
    (trial,) = tried(tmp_path)
    assert trial.state is TrialState.FAIL
    assert trial.intermediate_values == {0: 0.4}


def test_a_trial_ends_once(make: Make, tmp_path: Path) -> None:
    search = make()
    search.suggest("t0")
    search.on_trial_complete("t0", result("completed", best=0.9))
    search.on_trial_complete("t0", result("failed"), error=True)
    search.on_trial_result("t0", result("stopped", score=0.1, epoch=5))
    (trial,) = tried(tmp_path)
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.9, {})


def test_the_result_with_which_a_trial_ends_counts(point: dict[str, Any], make: Make, tmp_path: Path) -> None:
    search = make(start_points=[point])
    search.suggest("t0")
    search.on_trial_result("t0", {"score": 0.9, "epoch": 0, "elapsed": 1.0, "status": "stopped"})
    last = {"score": 0.7, "epoch": 1, "elapsed": 2.0, "status": "stopped", "best_score": 0.7}
    search.on_trial_complete("t0", last)  # Ray does not call on_trial_result with it
    (trial,) = tried(tmp_path)
    assert trial.intermediate_values == {0: 0.9, 1: 0.7}


def test_the_end_of_an_unknown_trial_is_ignored(make: Make, tmp_path: Path) -> None:
    make().on_trial_complete("nobody", result("completed", best=0.9))
    assert reopened(tmp_path).trials == []


def test_the_journal_can_be_opened_again(point: dict[str, Any], make: Make, tmp_path: Path) -> None:
    search = make(start_points=[point])
    for place in range(4):
        search.suggest(f"t{place}")
        search.on_trial_complete(f"t{place}", result("completed", best=0.1 * place))
    opened = reopened(tmp_path)
    assert opened.direction is optuna.study.StudyDirection.MAXIMIZE
    assert [trial.state for trial in tried(tmp_path)] == [TrialState.COMPLETE] * 4
    assert opened.best_value == pytest.approx(0.3)
    first = tried(tmp_path)[0].user_attrs
    assert first["origin"] == "advice"
    assert {name: first["config"][name] for name in PARAMETERS} == point


def test_two_runs_in_one_journal_are_two_studies(point: dict[str, Any], make: Make, tmp_path: Path) -> None:
    make(start_points=[point]).suggest("t0")
    other = make(study_name="run-2")
    other.suggest("t0")
    other.suggest("t1")
    assert len(tried(tmp_path)) == 1


def test_ray_gets_no_pickle_of_the_study(make: Make, tmp_path: Path) -> None:
    search = make()
    search.save(str(tmp_path / "state.pkl"))
    assert not (tmp_path / "state.pkl").exists()
    with pytest.raises(NotImplementedError):
        search.restore(str(tmp_path / "state.pkl"))


# --- what trials that ended change


def test_the_sampler_learns_from_completed_trials(make: Make, space: Space) -> None:
    search = make(space=space(0.0).narrow(backbone=("deep",)))
    rates = []
    for place in range(40):
        rates.append(math.log10(search.suggest(f"t{place}")["learning_rate_factor"]))
        search.on_trial_complete(f"t{place}", result("completed", best=-abs(rates[-1] + 1.0)))
    distance = [abs(rate + 1.0) for rate in rates]
    assert sum(distance[-20:]) / 20 < 0.6 * 0.5  # by chance 0.5: uniform over two decades around the optimum


def test_a_depth_that_lost_twice_is_not_proposed_again(
    point: dict[str, Any], make: Make, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.tune.study.STARTUP_TRIALS", 3)
    narrow = space().narrow(backbone=("deep",), freeze_depth=(5, 6), initial_weights=("pretrained",))
    starts = [point | {"freeze_depth": depth, "weight_decay": 0.01 * n} for n in (1, 2) for depth in (5, 6)]
    search = make(space=narrow, start_points=starts, least=lambda: 0.9)
    for place, score in enumerate((0.95, 0.8, 0.7, 0.85)):  # depths 5, 6, 5, 6
        search.suggest(f"t{place}")
        search.on_trial_result(f"t{place}", {"score": score, "epoch": 1, "elapsed": 1.0, "status": "stopped"})
        if place < 3:
            search.on_trial_complete(f"t{place}", {"status": "completed", "best_score": score})
    assert {search.suggest(f"u{place}")["freeze_depth"] for place in range(20)} == {5, 6}  # one has not ended yet
    search.on_trial_complete("t3", {"status": "completed", "best_score": 0.85})
    assert {search.suggest(f"v{place}")["freeze_depth"] for place in range(20)} == {5}
    reasons = {trial.user_attrs["withdrawn"] for trial in reopened(tmp_path).trials if "withdrawn" in trial.user_attrs}
    assert reasons == {"trials of its kind lost"}


def test_a_costlier_depth_that_scores_less_twice_is_not_proposed_again(
    point: dict[str, Any], make: Make, space: Space
) -> None:
    narrow = space().narrow(backbone=("deep",), freeze_depth=(5, 6), initial_weights=("pretrained",))
    starts = [point | {"freeze_depth": depth, "weight_decay": 0.01 * n} for n in (1, 2) for depth in (5, 6)]
    search = make(space=narrow, start_points=starts, pace=Pace(by_depth, max_t=4), least=lambda: 0.5)
    for place, score in enumerate((0.90, 0.91, 0.89, 0.88)):  # depths 5, 6, 5, 6: all near-ties of the best
        search.suggest(f"t{place}")
        search.on_trial_result(f"t{place}", {"score": score, "epoch": 1, "elapsed": 1.0, "status": "stopped"})
        assert {search._lost(point | {"freeze_depth": depth, "backbone": "deep"}) for depth in (5, 6)} == {False}
        search.on_trial_complete(f"t{place}", {"status": "completed", "best_score": score})
    assert {search.suggest(f"u{place}")["freeze_depth"] for place in range(20)} == {6}


def test_a_search_in_which_everything_fails_ends(make: Make) -> None:
    search = make()
    for place in range(200):
        if search.suggest(f"t{place}") == "FINISHED":
            break
        search.on_trial_complete(f"t{place}", {"status": "failed"})
    assert search.finished
    assert place < 50


# --- what the time left allows


@pytest.mark.parametrize(("ends_well", "goes_on"), [(MAX_FAILURES - 1, True), (0, False)])
def test_only_failures_in_a_row_end_a_search(ends_well: int, goes_on: bool, make: Make) -> None:
    search = make()
    for number in range(MAX_FAILURES + 1):
        name = f"t{number}"
        assert search.suggest(name) != "FINISHED"
        if number == ends_well:
            search.on_trial_result(name, result("stopped", score=0.9))
            search.on_trial_complete(name, result("completed", best=0.9, score=0.9, epoch=2))
        else:
            search.on_trial_complete(name, result("failed"))
    assert (search.suggest("last") != "FINISHED") is goes_on


def test_nothing_is_proposed_after_the_deadline(point: dict[str, Any], make: Make, tmp_path: Path) -> None:
    search = make(deadline=0.0, start_points=[point])
    assert search.suggest("t0") == "FINISHED"
    assert search.configs == {}
    assert reopened(tmp_path).trials == []


def test_no_trial_is_proposed_that_does_not_fit_the_time_left(
    point: dict[str, Any], make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.tune.study.clock.now", lambda: 0.0)
    pace = Pace(by_depth, max_t=4)
    # 4 epochs and the views: 10 + 4 * 10 at depth 0, 14 at depth 9. With 25 s left, only depths from 7 on fit.
    search = make(deadline=25.0, pace=pace, start_points=[point | {"freeze_depth": 9}])
    configs = [search.suggest(f"t{place}") for place in range(6)]
    assert all(config["freeze_depth"] >= 7 for config in configs if config != "FINISHED")
    assert sum(config != "FINISHED" for config in configs) > 2
    withdrawn = [trial for trial in reopened(tmp_path).trials if "withdrawn" in trial.user_attrs]
    assert {trial.state for trial in withdrawn} == {TrialState.FAIL}


def test_the_first_start_point_is_tried_even_if_it_may_not_fit(
    point: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.tune.study.clock.now", lambda: 0.0)
    search = make(deadline=5.0, pace=Pace(by_depth, max_t=4), start_points=[point])
    assert search.suggest("t0") != "FINISHED"
    assert search.expected("t0") == 10.0 + 1 * (10.0 - point["freeze_depth"])  # a single epoch, whatever it takes
    assert search.suggest("t1") == "FINISHED"


def with_views(config: dict[str, Any], epochs: int, views_from: int) -> float:
    """Four views of the frozen stages, or one without augmentation, cost 10 s each; an epoch 10 s less the depth."""
    views = 0 if views_from or config["freeze_depth"] == 0 else 1 if config["augmentation"] == "none" else 4
    return 10.0 * views + epochs * (10.0 - config["freeze_depth"])


@pytest.mark.parametrize("left", [25.0, 9.0])
def test_where_no_start_point_fits_one_is_tried_without_its_random_views(
    left: float, point: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.tune.study.clock.now", lambda: 0.0)
    starts = [point | {"freeze_depth": depth} for depth in (4, 0, 8)]  # 64, 40 and 48 s; 34, 40 and 18 s without views
    search = make(deadline=left, pace=Pace(with_views, max_t=4), start_points=starts)
    first = search.suggest("t0")
    assert (first["freeze_depth"], first["augmentation"]) == (8, "none")
    assert search.origin("t0") == "advice"
    second = search.suggest("t1")
    assert second == "FINISHED" or search.origin("t1") == "search", "each once"


def test_the_same_depth_of_another_backbone_is_another_first_try(
    point: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotl.tune.study.clock.now", lambda: 0.0)
    starts = [point | {"backbone": name, "freeze_depth": 5} for name in ("deep", "shallow")]
    search = make(deadline=35.0, pace=Pace(with_views, max_t=4), start_points=starts)
    assert [search.suggest(f"t{place}")["backbone"] for place in range(2)] == ["deep", "shallow"]
    assert {search.origin("t0"), search.origin("t1")} == {"advice"}


def test_where_a_start_point_fits_none_loses_its_views(
    point: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("autotl.tune.study.clock.now", lambda: now[0])
    starts = [point | {"freeze_depth": depth} for depth in (7, 8, 6)]
    search = make(deadline=50.0, pace=Pace(with_views, max_t=4), start_points=starts)
    first = search.suggest("t0")  # depth 7 takes 52 s, and 6 more
    assert (first["freeze_depth"], first["augmentation"]) == (8, "medium")
    assert search.suggest("t1") == "FINISHED" or search.origin("t1") != "advice", "while the first is running"
    search.on_trial_result("t0", {"score": 0.9, "epoch": 4, "elapsed": 48.0, "status": "completed"})
    search.on_trial_complete("t0", {"status": "completed", "best_score": 0.9})
    now[0] = 10.0
    assert search.suggest("t2") == "FINISHED" or search.origin("t2") != "advice"


def test_when_time_is_short_the_best_trial_goes_on_and_then_is_varied(
    point: dict[str, Any], make: Make, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("autotl.tune.study.clock.now", lambda: now[0])
    narrow = space().narrow(backbone=("deep",), freeze_depth=(6, 6), initial_weights=("pretrained",))
    pace = Pace(by_depth, max_t=10)
    search = make(space=narrow, deadline=100.0, start_points=[point | {"freeze_depth": 6}], pace=pace)
    best = search.suggest("t0")
    assert (best[EPOCHS_KEY], best[CONTINUES_KEY]) == (10, "")
    search.on_trial_result("t0", {"score": 0.9, "epoch": 4, "elapsed": 26.0, "status": "stopped"})
    search.on_trial_complete("t0", {"status": "completed", "best_score": 0.9})
    now[0] = 83.0  # half a trial takes 20 s with its views cached, four epochs 16
    more = search.suggest("t1")
    assert (more[EPOCHS_KEY], more[CONTINUES_KEY]) == (4, "t0")
    assert search.continued_by("t1") == "t0"
    assert search.origin("t1") == "continuation"
    fixed = ("backbone", "freeze_depth", "augmentation", "batch_size")
    assert {name: more[name] for name in fixed} == {name: best[name] for name in fixed}
    assert [more[name] for name in RATES] == pytest.approx([best[name] / 2 for name in RATES])
    varied = search.suggest("t2")
    assert varied[CONTINUES_KEY] == ""
    assert {name: varied[name] for name in fixed} == {name: best[name] for name in fixed}
    assert varied["learning_rate_factor"] != best["learning_rate_factor"]
    assert search.origin("t2") == "refinement"
    now[0] = 85.0
    assert search.suggest("t3") == "FINISHED"
    assert search.finished


def test_a_trial_from_scratch_does_not_go_on(
    point: dict[str, Any], make: Make, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("autotl.tune.study.clock.now", lambda: now[0])
    narrow = space(scratch_share=1.0).narrow(backbone=("deep",), initial_weights=("scratch",))
    start = point | {"initial_weights": "scratch", "freeze_depth": 0, "layer_decay": 1.0}
    search = make(space=narrow, deadline=100.0, start_points=[start], pace=Pace(by_depth, max_t=4))
    search.suggest("t0")
    search.on_trial_result("t0", {"score": 0.9, "epoch": 4, "elapsed": 50.0, "status": "stopped"})
    search.on_trial_complete("t0", {"status": "completed", "best_score": 0.9})
    now[0] = 45.0
    assert search.suggest("t1")[CONTINUES_KEY] == ""


def test_a_trial_goes_on_only_where_it_is_the_best(
    point: dict[str, Any], make: Make, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("autotl.tune.study.clock.now", lambda: now[0])
    narrow = space().narrow(backbone=("deep",), freeze_depth=(6, 6), initial_weights=("pretrained",))
    starts = [point | {"freeze_depth": 6, "weight_decay": decay} for decay in (0.01, 0.02)]
    search = make(space=narrow, deadline=100.0, start_points=starts, pace=Pace(by_depth, max_t=10))
    for name, score in (("t0", 0.8), ("t1", 0.9)):
        search.suggest(name)
        search.on_trial_result(name, {"score": score, "epoch": 10, "elapsed": 40.0, "status": "stopped"})
        search.on_trial_complete(name, {"status": "completed", "best_score": score})
    now[0] = 83.0
    assert search.suggest("t2")[CONTINUES_KEY] == "t1"
    search.on_trial_complete("t2", {"status": "completed", "best_score": 0.85})
    assert search.suggest("t3")[CONTINUES_KEY] == ""  # t1 has gone on once, and nothing is better


def test_before_the_sampler_knows_enough_the_best_is_varied(point: dict[str, Any], make: Make, space: Space) -> None:
    narrow = space().narrow(backbone=("deep",), freeze_depth=(5, 7), initial_weights=("pretrained",))
    search = make(space=narrow, start_points=[point | {"freeze_depth": 6}])
    for place in range(STARTUP_TRIALS):
        config = search.suggest(f"t{place}")
        assert config["freeze_depth"] == 6
        assert search.origin(f"t{place}") == ("refinement" if place else "advice")
        search.on_trial_result(f"t{place}", {"score": 0.9, "epoch": 4, "elapsed": 1.0, "status": "stopped"})
        search.on_trial_complete(f"t{place}", {"status": "completed", "best_score": 0.9 - place / 100})
    search.suggest("then")
    assert search.origin("then") == "search"
