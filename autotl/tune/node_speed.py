"""How fast the nodes of a cluster train: measured there, since the driver's machine may have other cores, or no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotl.tune.nodes import named, working_nodes
from autotl.tune.session import Slots

if TYPE_CHECKING:
    from autotl.compute.device import Precision
    from autotl.train.cost import StageSeconds
    from autotl.train.task import BackboneFiles, TrainingTask

MEASURING_SECONDS = 90.0
"""A node that has not measured itself by then is planned for as if it were the driver's machine."""


@dataclass(frozen=True, slots=True)
class NodeSpeed:
    """What a slot of a node takes.

    Attributes:
        name: of the node.
        precision: what its CPUs (or its GPU) are fast in.
        stages: of every backbone's training step, an image, on one core (or one GPU).
        speed: how many times as fast as one core the slot's cores train; 1 on a GPU.
    """

    name: str
    precision: Precision
    stages: Mapping[str, StageSeconds]
    speed: float

    @property
    def seconds(self) -> float:
        """An image's training step of every backbone, one after the other."""
        return sum(stages.train(0) for stages in self.stages.values()) / self.speed


def measure_nodes(task: TrainingTask, slots: Slots, seconds: float) -> list[NodeSpeed]:
    """Time the backbones' training steps in one slot of every node of a cluster, all nodes at once.

    Args:
        task: the backbones, whose files every node has to see.
        slots: how trials are placed; nodes without room for one are not asked.
        seconds: at most so many, and `MEASURING_SECONDS`.

    Returns:
        Those that answered; empty where the driver's is the only node, or Ray does not run. Nodes that cannot work are
        found by `check_nodes`, not here.
    """
    import ray

    if not ray.is_initialized():
        return []
    nodes = working_nodes(ray)
    own = ray.get_runtime_context().get_node_id()
    if all(node["NodeID"] == own for node in nodes):
        return []
    pending = {_ask(ray, node, task, slots): named(node) for node in nodes if _has_room(node["Resources"], slots)}
    if not pending:
        return []
    timeout = min(max(0.0, seconds), MEASURING_SECONDS)
    ready, late = ray.wait(list(pending), num_returns=len(pending), timeout=timeout)
    for answer in late:
        ray.cancel(answer, force=True)
    return [speed for answer in ready if (speed := _answer(ray, answer, pending[answer])) is not None]


def at_the_slowest(task: TrainingTask, nodes: Sequence[NodeSpeed]) -> tuple[TrainingTask, NodeSpeed]:
    """The task with the costs of the slowest node, by which all can keep the time; and that node.

    Its precision is what every node is fast in, float32 where they differ.
    """
    slowest = max(nodes, key=lambda node: node.seconds)
    precisions = {node.precision for node in nodes}
    files = {name: _costing(task.backbones[name], stages) for name, stages in slowest.stages.items()}
    precision: Precision = slowest.precision if len(precisions) == 1 else "fp32"
    return replace(task, backbones=files, precision=precision, speed=slowest.speed), slowest


def _costing(files: BackboneFiles, stages: StageSeconds) -> BackboneFiles:
    """The same backbone on another machine: its frozen passes are slower or faster by as much as the forward pass."""
    ratio = stages.evaluate(0) / files.stages.evaluate(0)
    return replace(files, stages=stages, seconds_per_image=ratio * files.seconds_per_image)


def _has_room(resources: Mapping[str, float], slots: Slots) -> bool:
    return resources.get("CPU", 0) >= slots.cpus and resources.get("GPU", 0) >= slots.gpus


def _ask(ray: Any, node: Mapping[str, Any], task: TrainingTask, slots: Slots) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    room = {"num_cpus": slots.cpus, "num_gpus": slots.gpus, "max_retries": 0}
    backbones = {name: (files.timm_name, files.state) for name, files in task.backbones.items()}
    measure = ray.remote(scheduling_strategy=there, **room)(measure_here)
    return measure.remote(backbones, len(task.classes), slots.cpus, slots.gpus)


def _answer(ray: Any, answer: Any, name: str) -> NodeSpeed | None:
    """What a node measured; None where it failed: then no trial will work there either, and its error is told."""
    try:
        precision, stages, speed = ray.get(answer)
    except Exception:
        return None
    return NodeSpeed(name, precision, stages, speed)


def measure_here(
    backbones: Mapping[str, tuple[str, str]], n_classes: int, threads: int, gpus: float
) -> tuple[Precision, dict[str, StageSeconds], float]:
    """What a slot of this machine computes in, how long it takes, and how many times as fast as one core it is.

    Args:
        backbones: timm's full name and the file of the weights, by name.
        n_classes: outputs of the classifier.
        threads: of the slot.
        gpus: of the slot.

    Raises:
        RuntimeError: if a GPU was promised and there is none to be seen.
    """
    import torch

    from autotl.compute.device import measure_device, pick_device, use_gpus
    from autotl.train.cost import measure_backbones, measure_speed

    use_gpus(gpus)
    torch.set_num_threads(threads)
    precision = measure_device(pick_device()).precision
    files = {name: (timm_name, Path(state)) for name, (timm_name, state) in backbones.items()}
    stages = measure_backbones(files, n_classes, precision)
    first = next(iter(files))
    return precision, stages, measure_speed(*files[first], n_classes, precision, stages[first])
