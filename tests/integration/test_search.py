"""The search on a real Ray with pretended training: trials that fail in every way, and what is recorded of them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from autotl.records import Status, TrialRecord
from autotl.settings import Resources
from autotl.space.files import load_space
from autotl.storage.rundir import RunDir, create
from autotl.tune.runner import SearchPlan, run_search
from autotl.tune.session import RaySession

N_TRIALS = 7
BEHAVIOURS = ("none", "light", "medium", "strong")
POINT = {
    "backbone": "pretended",
    "initial_weights": "pretrained",
    "freeze_depth": 3,
    "learning_rate_factor": 0.1,
    "head_learning_rate_factor": 0.2,
    "layer_decay": 0.8,
    "weight_decay": 0.02,
    "augmentation": "none",
    "label_smoothing": 0.05,
    "batch_size": 32,
}


Search = tuple[RunDir, list[TrialRecord], list[TrialRecord]]


def make_trainable() -> type:
    """A trainable without training; its augmentation says how it behaves. Local, so that Ray sends it by value."""
    import math
    import os
    import signal

    from ray import tune

    class Pretended(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, config: dict[str, Any]) -> bool:
            self.kind, self.epoch = config["augmentation"], -1
            return True

        def step(self) -> dict[str, Any]:
            self.epoch += 1
            if self.kind == "none" and self.epoch == 1:
                raise RuntimeError("escaped from the trainable")
            if self.kind == "light" and self.epoch == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            failed = self.kind == "medium"
            done = failed or self.epoch == 2
            best = math.nan if failed or self.epoch == 0 else 0.5 + self.epoch / 10
            return {
                "score": math.nan if failed else 0.5 + self.epoch / 10,
                "train_loss": math.nan if failed or self.epoch == 0 else 1.0 / self.epoch,
                "epoch": self.epoch,
                "best_score": best,
                "best_epoch": self.epoch,
                "best_metrics": {},
                "status": "failed" if failed else "completed" if done else "stopped",
                "error": "it went wrong" if failed else "",
                "elapsed": 1.0,
                "worker": f"here:{os.getpid()}",
                "done": done,
            }

    return Pretended


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """One search whose first four trials behave in four ways; the run, the records, and those reported on the way."""
    run = create(tmp_path_factory.mktemp("search") / "run")
    run.cache.mkdir()
    space = load_space("quick").narrow(backbone=("pretended",), augmentation=BEHAVIOURS)
    reported: list[TrialRecord] = []
    handler = signal.getsignal(signal.SIGINT)
    with RaySession(Resources(slots=1, cpus_per_trial=1)) as ray:
        slots = ray.wait()
        # All that the search itself looks at; the rest is for the trainable, and this trainable trains nothing.
        task: Any = SimpleNamespace(seed=0, max_t=2, deadline=time.time() + 300, to_plain=dict)
        plan = SearchPlan(
            run=run,
            task=task,
            space=space,
            n_stages={"pretended": 3},
            start_points=[POINT | {"augmentation": kind} for kind in BEHAVIOURS],
            n_trials=N_TRIALS,
            slots=slots,
            first_number=1,
            trainable=make_trainable(),
            predict=lambda config, epochs, views_from: 0.1 * epochs,
        )
        outcome = run_search(plan, reported.append)
    assert not outcome.interrupted
    assert signal.getsignal(signal.SIGINT) == handler, "Ctrl-C after a search is no longer what it was before"
    return run, list(outcome.records), reported


def test_a_search_whose_workers_come_too_late_ends_with_its_time(tmp_path: Path) -> None:
    """They hang as they start, and would go on doing so."""

    from ray import tune

    class Late(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            import threading

            threading.Event().wait(300)

    run = create(tmp_path / "run")
    run.cache.mkdir()
    space = load_space("quick").narrow(backbone=("pretended",))
    with RaySession(Resources(slots=1, cpus_per_trial=1)) as ray:
        slots, begun = ray.wait(), time.time()
        task: Any = SimpleNamespace(seed=0, max_t=2, deadline=begun + 8, to_plain=dict)
        plan = SearchPlan(
            run=run,
            task=task,
            space=space,
            n_stages={"pretended": 3},
            start_points=[POINT],
            n_trials=None,
            slots=slots,
            first_number=1,
            trainable=Late,
            predict=lambda config, epochs, views_from: 0.1 * epochs,
        )
        records = run_search(plan, lambda record: None).records
        seconds = time.time() - begun
    assert [record.status for record in records] == [Status.TIMED_OUT]
    assert seconds < 8 + 12  # Ray takes some to end an actor that does not answer


def first_of(searched: Search, kind: str) -> TrialRecord:
    return next(record for record in searched[1] if record.config["augmentation"] == kind)


def test_no_failure_ends_the_search(searched: Search) -> None:
    _, records, _ = searched
    assert len(records) == N_TRIALS
    assert {record.config["augmentation"] for record in records[:4]} == set(BEHAVIOURS)


def test_an_exception_that_escapes_is_a_failed_trial(searched: Search) -> None:
    record = first_of(searched, "none")
    assert record.status is Status.FAILED
    assert "escaped from the trainable" in record.error


def test_a_worker_that_is_killed_is_a_failed_trial(searched: Search) -> None:
    record = first_of(searched, "light")
    assert record.status is Status.FAILED
    assert record.error.startswith("the worker was lost: ")


def test_a_failure_that_the_trainable_reports_is_a_failed_trial(searched: Search) -> None:
    record = first_of(searched, "medium")
    assert (record.status, record.score, record.error) == (Status.FAILED, None, "it went wrong")
    assert (record.curve, record.train_losses) == ((), ())


def test_a_trial_among_failures_is_recorded_whole(searched: Search) -> None:
    record = first_of(searched, "strong")
    assert (record.status, record.score, record.epochs) == (Status.COMPLETED, 0.7, 2)
    assert record.curve == (0.5, 0.6, 0.7)
    assert record.train_losses == (1.0, 0.5)
    assert record.origin == "advice"
    assert record.error == ""


def test_start_points_are_the_advices_and_the_rest_the_searchs(searched: Search) -> None:
    """So few trials tell the sampler nothing yet: the rest are variations of the best."""
    _, records, _ = searched
    assert sorted(record.origin for record in records) == ["advice"] * 4 + ["refinement"] * 3


def test_records_are_reported_numbered_and_written_as_they_come(searched: Search) -> None:
    run, records, reported = searched
    assert reported == records
    assert [record.number for record in records] == list(range(1, N_TRIALS + 1))
    lines = run.trials.read_text("utf-8").splitlines()
    assert [json.loads(line)["trial_id"] for line in lines] == [record.trial_id for record in records]


def test_the_study_knows_how_each_trial_ended(searched: Search) -> None:
    run, _, _ = searched
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    assert len(trials) == N_TRIALS
    for trial in trials:
        kind = trial.user_attrs["config"]["augmentation"]
        expected = (TrialState.COMPLETE, TrialState.PRUNED) if kind == "strong" else (TrialState.FAIL,)
        assert trial.state in expected, kind


def test_ray_is_left_as_it_was_found(searched: Search) -> None:
    import ray

    assert not ray.is_initialized()


def test_rays_own_state_is_not_in_the_run_folder(searched: Search) -> None:
    run, _, _ = searched
    names = {path.name for path in run.path.iterdir() if not path.name.startswith(".")}
    assert names == {"settings.json", "cache", "trials.jsonl", "study.journal"}
