"""One search by Ray Tune: its scheduler, its sampler and the records of its trials."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotl import clock
from autotl.errors import SearchError
from autotl.interrupt import search_ends_by_itself
from autotl.records import TrialRecord
from autotl.space.search_space import Config, SearchSpace
from autotl.storage.finished import is_kept
from autotl.storage.rundir import RunDir, write_json
from autotl.storage.saved_model import load_card
from autotl.storage.unfinished import Unfinished, find_unfinished, unfinished_trials
from autotl.train.task import TrainingTask
from autotl.tune.pace import Pace, Predict, predictor
from autotl.tune.session import Slots

if TYPE_CHECKING:
    from autotl.tune.recorder import Recorder
    from autotl.tune.study import StudySearch

log = logging.getLogger("autotl")

MIN_TRIAL_SECONDS = 2.0
"""No trial is proposed when less time than this is left."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """One search.

    Attributes:
        run: the run folder.
        task: what the workers train on.
        space, n_stages, start_points: what is searched, and from where.
        n_trials: at most so many, None for as many as the time allows.
        slots: at once.
        first_number: number of the first record; the probes, and the trials of earlier sessions, come before.
        earlier: those trials: the study that is in the run folder goes on with what it knows of them.
        trainable: the class that runs trials; another one in tests.
        predict: see `autotl.tune.pace`; from the costs in the task unless given.
    """

    run: RunDir
    task: TrainingTask
    space: SearchSpace
    n_stages: Mapping[str, int]
    start_points: Sequence[Config]
    n_trials: int | None
    slots: Slots
    first_number: int = 0
    earlier: Sequence[TrialRecord] = ()
    trainable: type | None = None
    predict: Predict | None = None


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of a search: the records in the order in which trials ended, and whether the user ended it early."""

    records: tuple[TrialRecord, ...]
    interrupted: bool


def run_search(plan: SearchPlan, on_trial: Callable[[TrialRecord], None]) -> Searched:
    """Search until the time, the number of trials, or the user's patience (Ctrl-C) is at an end.

    Args:
        plan: what to search.
        on_trial: called with every finished trial's record, in the driver.

    Raises:
        SearchError: if nodes of a cluster cannot work for this run, or if Ray Tune itself failed; the best model so far
            is in the run folder nevertheless.
    """
    from autotl.tune.nodes import check_nodes
    from autotl.tune.recorder import Recorder

    check_nodes(plan.run, plan.task)
    task_file = plan.run.cache / "task.json"
    write_json(task_file, plan.task.to_plain())
    search = _study_search(plan, task_file)
    session = 1 + max((record.session for record in plan.earlier), default=0)
    recorder = Recorder(plan.run, search, plan.first_number, on_trial, session)
    try:
        with _silenced(), search_ends_by_itself(lambda: _clean_up(plan.run)):
            _tuner(plan, search, recorder).fit()
    except Exception as error:  # whatever it is (a node out of memory, a full disk): the best model so far is there
        raise SearchError(f"Ray Tune ended the search: {type(error).__name__}: {error}") from error
    finally:
        recorder.finish()
    done = search.finished or len(recorder.records) == plan.n_trials or clock.now() >= plan.task.deadline
    return Searched(tuple(recorder.records), interrupted=not done)


def _clean_up(run: RunDir) -> None:
    """What is left to do where Ray's processes were killed and its calls do not come back: the best model is saved."""
    shutil.rmtree(run.cache, ignore_errors=True)
    log.error("ended: Ray's processes are gone; the best model so far is in %s", run.path)


def _study_search(plan: SearchPlan, task_file: Path) -> StudySearch:
    from autotl.tune.study import StudySearch, study_in
    from autotl.tune.trainable import TASK_KEY

    return StudySearch(
        plan.space,
        plan.n_stages,
        journal=plan.run.journal,
        study_name=(study_in(plan.run.journal) if plan.earlier else None)
        or f"{plan.run.path.name}-{uuid.uuid4().hex[:6]}",
        seed=plan.task.seed,
        start_points=plan.start_points,
        deadline=plan.task.deadline - MIN_TRIAL_SECONDS,
        constants={TASK_KEY: str(task_file)},
        pace=_pace(plan),
        least=lambda: load_card(plan.run.model).least_score if plan.run.has_model else -math.inf,
        earlier=plan.earlier,
        is_kept=lambda trial_id: is_kept(plan.run.finished, trial_id),
        unfinished=_to_go_on_with(plan),
        find_unfinished=lambda trial_id: find_unfinished(plan.run.unfinished, trial_id),
    )


def _to_go_on_with(plan: SearchPlan) -> list[Unfinished]:
    """What an earlier session was in the middle of: of the same space, and from the same weights."""
    return [
        trial
        for trial in unfinished_trials(plan.run.unfinished)
        if plan.space.contains(trial.config, plan.n_stages)
        and trial.weights_sha256 == plan.task.backbones[trial.config["backbone"]].weights_sha256
    ]


def _tuner(plan: SearchPlan, search: StudySearch, recorder: Recorder) -> Any:
    from ray import tune

    from autotl.tune.end_of_time import EndOfTime
    from autotl.tune.trainable import FineTuningTrainable

    resources = {"CPU": plan.slots.cpus} | ({"GPU": plan.slots.gpus} if plan.slots.gpus else {})
    return tune.Tuner(
        tune.with_resources(plan.trainable or FineTuningTrainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=search,
            # A score in the middle of a schedule is no forecast of its end: every trial runs to its own.
            scheduler=tune.schedulers.FIFOScheduler(),
            num_samples=plan.n_trials or -1,
            max_concurrent_trials=plan.slots.count,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            # Ray Tune insists on a place for its own state; nothing in it is needed afterwards.
            storage_path=str(plan.run.cache / "tune"),
            callbacks=[recorder],
            stop=EndOfTime(plan.task.deadline, lambda: recorder.has_begun),
            verbose=0,
            # The best model is saved by autotl itself; a checkpoint a trial would fill the disk.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


def _pace(plan: SearchPlan) -> Pace:
    if plan.predict is not None:
        return Pace(plan.predict, plan.task.max_t)
    base_depths = {name: files.base_depth for name, files in plan.task.backbones.items()}
    evaluation_depths = {name: files.evaluation_depth for name, files in plan.task.backbones.items()}
    first_seconds = {name: files.stages.first for name, files in plan.task.backbones.items()}
    predict, slots = predictor(plan.task), plan.slots.count
    return Pace(predict, plan.task.max_t, base_depths, evaluation_depths, first_seconds, slots)


@contextlib.contextmanager
def _silenced() -> Any:
    """Ray's own loggers off: what the user needs to know is in the records and in fit.log."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.data", "ray.air")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
