"""Ray, started and left as it was found, and how its cores and GPUs are divided among trials."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotl import clock
from autotl.errors import SearchError
from autotl.settings import Resources
from autotl.threads import local_cpus
from autotl.tune.ray_folder import make_ray_folder

MAX_SLOTS = 8
OBJECT_STORE_BYTES = 80 * 2**20
"""Nothing large travels through Ray's object store: images and activations are memory-mapped files."""
WORKER_BYTES = 1.1 * 2**30
"""Of a process with torch, timm and Ray (0.5 GiB without what libraries share), and of the activations of a part of a
batch, which `autotl.train.microbatch` bounds."""
WEIGHTS_HELD = 5
"""Times the bytes of a backbone's weights: these, their gradients, AdamW's two moments, and a copy to be saved."""
START_SECONDS = 180.0
"""Longest wait for Ray to start or a cluster to be joined; it takes 3 to 10 s."""
LEAVE_SECONDS = 30.0
"""Longest wait, after an error, for a Ray that is still starting."""
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


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster, or the only one there is."""

    cpus: int
    gpus: int


def plan_slots(nodes: Sequence[Node], asked: Resources) -> Slots:
    """Divide the nodes among trials: one slot a GPU where there are any, else one a core up to `MAX_SLOTS`.

    A trial runs on one node: what counts is what each of them has, not their sum. One core a trial wastes nothing on
    synchronisation. How long trials are is not known yet: what is planned then may divide a machine's cores in another
    way (`autotl.pipeline.schedule`). More slots than GPUs share them evenly.

    Raises:
        SearchError: if no node has the GPUs of a trial, or all together have too few for the slots that were asked for.
    """
    gpus = sum(node.gpus for node in nodes)
    share = asked.gpus_per_trial
    if share is None and gpus:
        share = 1.0 if asked.slots is None else 1 / math.ceil(asked.slots / gpus)
    share = share or 0.0
    by_gpus = sum(_gpu_slots(node.gpus, share) for node in nodes) if share else 0
    if share and by_gpus < (asked.slots or 1):
        wanted = f"{asked.slots} slots of {share:g} GPUs each" if asked.slots else f"{share:g} GPUs a trial"
        there = ", ".join(str(node.gpus) for node in nodes)
        raise SearchError(f"{wanted} cannot be placed: the nodes have {there} GPUs")

    def fitting(cpus: int) -> int:
        """Slots of so many cores that all nodes together have room for."""
        by_cpus = [node.cpus // cpus for node in nodes]
        if not share:
            return sum(by_cpus)
        return sum(min(by_cpu, _gpu_slots(node.gpus, share)) for by_cpu, node in zip(by_cpus, nodes, strict=True))

    if asked.slots is not None:
        count = asked.slots
    elif share:
        count = by_gpus
    elif asked.cpus_per_trial is not None:
        count = max(1, fitting(asked.cpus_per_trial))
    else:
        count = max(1, min(MAX_SLOTS, fitting(1)))
    most = max(node.cpus for node in nodes)
    cpus = next((cpus for cpus in range(most, 0, -1) if fitting(cpus) >= count), 1)
    return Slots(count, asked.cpus_per_trial or cpus, share)


def slot_choices(slots: Slots, cores: int) -> tuple[Slots, ...]:
    """The ways to divide the cores of this machine among trials that are worth comparing.

    Args:
        slots: what was planned without knowing the data; with GPUs, it stays.
        cores: of this machine.
    """
    if slots.gpus:
        return (slots,)
    counts = [count for count in range(1, min(MAX_SLOTS, cores) + 1) if cores % count == 0 or count == slots.count]
    return tuple(Slots(count, cores // count, 0.0) for count in counts)


def slots_in_memory(choices: Sequence[Slots], most: int) -> tuple[Slots, ...]:
    """Those ways to divide a machine that have at most so many trials at once; where all have more, the first with so
    many."""
    fitting = tuple(slots for slots in choices if slots.count <= most)
    return fitting or (replace(choices[0], count=most),)


def worker_bytes(weights: int) -> float:
    """Memory that a trial takes in a process of its own, on CPUs.

    Args:
        weights: bytes of its backbone's.
    """
    return WORKER_BYTES + WEIGHTS_HELD * weights


def _gpu_slots(gpus: int, per_trial: float) -> int:
    """Trials that fit `gpus` at once. Ray takes a part of a GPU from one: on two GPUs four of 0.4 fit, not five."""
    if per_trial >= 1:
        return int(gpus // per_trial)
    return gpus * int(1 / per_trial + 1e-9)  # 1 / (1 / 49) is less than 49


class RaySession:
    """Ray, started in the background while the images are embedded, and left as it was found.

    Args:
        resources: what trials run on.
        leaves: told the folder of Ray's logs and sockets, which nobody needs when this call's own Ray has ended.
        deadline: clock.now() after which nothing is waited for.

    Use as a context manager; `wait` and `choices` return slots when Ray is up. The thread that starts Ray lives until
    the session ends: Linux kills Ray's processes when the thread that started them ends, not only with the process.
    """

    def __init__(
        self,
        resources: Resources,
        leaves: Callable[[Path], None] = lambda folder: None,
        deadline: float = math.inf,
    ) -> None:
        self._resources = resources
        self.deadline = deadline
        self._leaves = leaves
        self._slots: Slots | None = None
        self._error: BaseException | None = None
        self._owned = False
        self._folder: Path | None = None
        self._started = threading.Event()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._start, name="autotl-ray-start", daemon=True)

    def __enter__(self) -> RaySession:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # An interrupt in the middle of an import can leave the thread waiting for ever for the import lock.
        given_up = isinstance(self._error, TimeoutError)
        if not self._started.wait(None if exception[0] is None else 0.0 if given_up else LEAVE_SECONDS):
            return
        if self._owned:
            import ray

            ray.shutdown()
        self._leaving.set()
        self._thread.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # an agent that is still ending may write once more

    def wait(self) -> Slots:
        """The slots of the running Ray.

        Raises:
            SearchError: if Ray did not start or the cluster could not be joined, or not within `START_SECONDS`, or not
                before the deadline.
        """
        seconds = max(0.0, min(START_SECONDS, self.deadline - clock.now()))
        if not self._started.wait(seconds):
            self._error = TimeoutError(f"it has not come up in {seconds:.0f} s more")
        if self._error is not None or self._slots is None:
            if isinstance(self._error, SearchError):
                raise self._error
            where = self._resources.address or "this machine"
            raise SearchError(f"Ray could not be started on {where}: {self._error}") from self._error
        return self._slots

    def choices(self) -> tuple[Slots, ...]:
        """The ways to divide the running Ray: several where it is this call's own, and nothing was asked; else one.

        Raises:
            SearchError: as `wait`.
        """
        slots = self.wait()
        asked = self._resources
        # Asking for no GPUs leaves open how cores are divided.
        free = self._owned and replace(asked, gpus_per_trial=asked.gpus_per_trial or None) == Resources()
        return slot_choices(slots, local_cpus()) if free else (slots,)

    def _start(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Ray's processes inherit it: a terminal that is closed ends the fit, which still needs them for a moment.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            self._slots = self._connect()
        except BaseException as error:  # carried to the thread that waits
            self._error = error
        self._started.set()
        if self._error is None:
            with contextlib.suppress(Exception):  # nothing depends on it
                _import_trainable()
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
        slots = plan_slots([Node(local_cpus(), _local_gpus())], self._resources)
        self._folder = make_ray_folder()
        if self._folder is not None:
            self._leaves(self._folder)
        begun = ray.init(
            address="local",
            _temp_dir=None if self._folder is None else str(self._folder),
            num_cpus=max(local_cpus(), slots.count * slots.cpus),
            num_gpus=_local_gpus() or None,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
        self._owned = True
        if self._folder is None:
            self._leaves(Path(begun.address_info["session_dir"]))
        return slots

    def _plan_for_cluster(self, ray: Any) -> Slots:
        there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in there]
        return plan_slots([node for node in nodes if node.cpus] or [Node(1, 0)], self._resources)


def _import_trainable() -> None:
    """What the search will need: importing it then would take seconds of the time for trials."""
    import autotl.tune.recorder
    import autotl.tune.trainable  # noqa: F401


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
