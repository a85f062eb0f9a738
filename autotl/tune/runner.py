"""What drives Ray: starting and leaving it, slots, scheduler, and the records of the trials."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotl.compute.device import local_cpus
from autotl.errors import SearchError
from autotl.interrupt import handlers_restored
from autotl.records import TrialRecord
from autotl.settings import Resources
from autotl.space.search_space import Config, SearchSpace
from autotl.storage.rundir import RunDir, write_json
from autotl.storage.saved_model import load_card
from autotl.train.task import TrainingTask
from autotl.tune.pace import Pace, Predict, predictor

log = logging.getLogger("autotl")

MAX_SLOTS = 8
OBJECT_STORE_BYTES = 80 * 2**20
"""Nothing large travels through Ray's object store: images and activations are memory-mapped files."""
START_SECONDS = 180.0
"""Longest wait for Ray to start or a cluster to be joined; it takes 3 to 10 s."""
LEAVE_SECONDS = 30.0
"""Longest wait, after an error, for a Ray that is still starting."""
SHORT_TRIAL = 6
"""Epochs."""
MIN_TRIAL_SECONDS = 3.0
"""No trial is proposed when less time than this is left."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True, slots=True)
class Slots:
    """How trials share a machine or cluster: `count` at once, each with `cpus` cores and `gpus` GPUs."""

    count: int
    cpus: int
    gpus: float


def plan_slots(cpus: int, gpus: int, asked: Resources) -> Slots:
    """Divide cores and GPUs among trials: one slot a GPU where there are any, else one a core up to `MAX_SLOTS`.

    One core a trial wastes nothing on synchronisation, and gives the scheduler rivals to compare.
    """
    per_trial_gpus = asked.gpus_per_trial if asked.gpus_per_trial is not None else (1.0 if gpus else 0.0)
    count = asked.slots
    if count is None and per_trial_gpus > 0:
        count = max(1, _gpu_slots(gpus, per_trial_gpus))
    elif count is None and asked.cpus_per_trial is not None:
        count = max(1, cpus // asked.cpus_per_trial)
    elif count is None:
        count = min(MAX_SLOTS, cpus)
    return Slots(count, asked.cpus_per_trial or max(1, cpus // count), per_trial_gpus)


def _gpu_slots(gpus: int, per_trial: float) -> int:
    """Trials that fit `gpus` at once. Ray takes a part of a GPU from one: on two GPUs four of 0.4 fit, not five."""
    if per_trial >= 1:
        return int(gpus // per_trial)
    return gpus * int(1 / per_trial + 1e-9)  # 1 / (1 / 49) is less than 49


class RaySession:
    """Ray, started in the background while the images are embedded, and left as it was found.

    Use as a context manager; `wait` returns the slots when Ray is up. The thread that starts Ray lives until the
    session ends: Linux kills Ray's processes when the thread that started them ends, not only with the process.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._slots: Slots | None = None
        self._error: BaseException | None = None
        self._owned = False
        self._started = threading.Event()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._start, name="autotl-ray-start", daemon=True)

    def __enter__(self) -> RaySession:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # An interrupt in the middle of an import can leave the thread waiting for ever for the import lock.
        if not self._started.wait(None if exception[0] is None else LEAVE_SECONDS):
            return
        if self._owned:
            import ray

            ray.shutdown()
        self._leaving.set()
        self._thread.join()

    def wait(self) -> Slots:
        """The slots of the running Ray.

        Raises:
            SearchError: if Ray did not start or the cluster could not be joined, or not within `START_SECONDS`.
        """
        if not self._started.wait(START_SECONDS):
            self._error = TimeoutError(f"it has not come up in {START_SECONDS:.0f} s")
        if self._error is not None or self._slots is None:
            where = self._resources.address or "this machine"
            raise SearchError(f"Ray could not be started on {where}: {self._error}") from self._error
        return self._slots

    def _start(self) -> None:
        try:
            self._slots = self._connect()
        except BaseException as error:  # carried to the thread that waits
            self._error = error
        self._started.set()
        self._leaving.wait()

    def _connect(self) -> Slots:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if ray.is_initialized():
            return self._plan_for_cluster(ray)
        if self._resources.address is not None:
            ray.init(address=self._resources.address, **quiet)
            self._owned = True
            return self._plan_for_cluster(ray)
        slots = plan_slots(local_cpus(), _local_gpus(), self._resources)
        ray.init(
            address="local",
            num_cpus=max(local_cpus(), slots.count * slots.cpus),
            num_gpus=max(_local_gpus(), math.ceil(slots.count * slots.gpus)) or None,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
        self._owned = True
        return slots

    def _plan_for_cluster(self, ray: Any) -> Slots:
        resources = ray.cluster_resources()
        return plan_slots(int(resources.get("CPU", 1)), int(resources.get("GPU", 0)), self._resources)


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """One search.

    Attributes:
        run: the run folder.
        task: what the workers train on.
        space, n_stages, start_points: what is searched, and from where.
        n_trials: at most so many, None for as many as the time allows.
        slots: at once.
        first_number: number of the first record; the probes come before.
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
        SearchError: if Ray Tune itself failed; the best model so far is in the run folder nevertheless.
    """
    from ray import tune

    from autotl.tune.recorder import Recorder
    from autotl.tune.study import SCORE, StudySearch
    from autotl.tune.trainable import TASK_KEY, FineTuningTrainable

    task_file = plan.run.cache / "task.json"
    write_json(task_file, plan.task.to_plain())
    search = StudySearch(
        plan.space,
        plan.n_stages,
        journal=plan.run.journal,
        study_name=f"{plan.run.path.name}-{uuid.uuid4().hex[:6]}",
        seed=plan.task.seed,
        start_points=plan.start_points,
        deadline=plan.task.deadline - MIN_TRIAL_SECONDS,
        constants={TASK_KEY: str(task_file)},
        pace=_pace(plan),
        least=lambda: load_card(plan.run.model).least_score if plan.run.has_model else -math.inf,
    )
    recorder = Recorder(plan.run, search, plan.first_number, on_trial)
    # Ray Tune insists on a place for its own state; nothing in it is needed afterwards.
    scratch = tempfile.mkdtemp(prefix="autotl-tune-")
    resources = {"CPU": plan.slots.cpus} | ({"GPU": plan.slots.gpus} if plan.slots.gpus else {})
    tuner = tune.Tuner(
        tune.with_resources(plan.trainable or FineTuningTrainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=tune.schedulers.AsyncHyperBandScheduler(
                time_attr="epoch",
                metric=SCORE,
                mode="max",
                max_t=plan.task.max_t + 1,  # a trial ends itself at max_t, with the status that says so
                grace_period=_grace_period(plan.space.grace_period, plan.task.max_t),
                reduction_factor=plan.space.reduction_factor,
            ),
            num_samples=plan.n_trials or -1,
            max_concurrent_trials=plan.slots.count,
            # The workers keep the deadline themselves; this only ends a trial that hangs.
            time_budget_s=max(1.0, plan.task.deadline + 15 - time.time()),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=scratch,
            callbacks=[recorder],
            verbose=0,
            # The best model is saved by autotl itself; a checkpoint a trial would fill the disk.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        with _silenced(), handlers_restored():
            tuner.fit()
    except Exception as error:  # whatever it is (a node out of memory, a full disk): the best model so far is there
        raise SearchError(f"Ray Tune ended the search: {type(error).__name__}: {error}") from error
    finally:
        recorder.finish()
        shutil.rmtree(scratch, ignore_errors=True)
    done = search.finished or len(recorder.records) == plan.n_trials or time.time() >= plan.task.deadline
    return Searched(tuple(recorder.records), interrupted=not done)


def _pace(plan: SearchPlan) -> Pace:
    if plan.predict is not None:
        return Pace(plan.predict, plan.task.max_t)
    base_depths = {name: files.base_depth for name, files in plan.task.backbones.items()}
    return Pace(predictor(plan.task), plan.task.max_t, base_depths)


def _grace_period(wanted: int, max_t: int) -> int:
    """Epochs before a trial may be stopped: in a short trial only the last says how good it will be.

    High rates lose accuracy at first, and win it back with interest when they fall.
    """
    return max_t - 1 if 2 <= max_t <= SHORT_TRIAL else min(wanted, max_t)


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
