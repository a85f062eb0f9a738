"""A cluster is planned for by what its nodes measured of themselves, not by the driver's machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotl.models.catalog import find_entry
from autotl.models.weights import load_pretrained, locate, save_state
from autotl.train.cost import StageSeconds
from autotl.train.task import BackboneFiles, TrainingTask
from autotl.tune.node_speed import NodeSpeed, at_the_slowest, measure_here

LITE0 = "tf_efficientnet_lite0.in1k"
STAGES = StageSeconds((0.0, 1.0, 2.0), (4.0, 2.0), (3, 2))


def times(factor: float) -> StageSeconds:
    return StageSeconds(
        tuple(factor * seconds for seconds in STAGES.forward),
        tuple(factor * seconds for seconds in STAGES.backward),
        STAGES.numbers,
    )


@pytest.fixture
def task() -> TrainingTask:
    files = BackboneFiles("", "", "", "", 1e-3, 1, 0.5, "lite0", STAGES)
    plain: dict[str, Any] = dict.fromkeys(("run_dir", "store", "manifest", "cache_dir", "data_fingerprint"), "")
    plain |= {"classes": ("a", "b"), "metric": "accuracy", "balanced": False, "backbones": {"lite0": files}}
    plain |= {"precision": "bf16", "max_t": 1, "n_views": 1, "cache_limit": 0, "seed": 0, "deadline": 0.0}
    return TrainingTask(**plain, threads=2, speed=1.9, provenance={})


def node(name: str, factor: float, speed: float = 2.0, precision: Any = "bf16") -> NodeSpeed:
    return NodeSpeed(name, precision, {"lite0": times(factor)}, speed)


def test_the_slowest_node_counts(task: TrainingTask) -> None:
    planned, slowest = at_the_slowest(task, [node("one", 1.0), node("two", 3.0), node("three", 2.0)])
    assert slowest.name == "two"
    assert planned.backbones["lite0"].stages == times(3.0)
    assert planned.backbones["lite0"].seconds_per_image == pytest.approx(1.5)  # frozen passes are slower by as much
    assert planned.speed == 2.0
    assert planned.precision == "bf16"


def test_cores_that_help_one_another_less_are_slower(task: TrainingTask) -> None:
    _, slowest = at_the_slowest(task, [node("one", 1.0, speed=1.0), node("two", 1.5, speed=2.0)])
    assert slowest.name == "one"


def test_nodes_that_differ_compute_in_float32(task: TrainingTask) -> None:
    planned, _ = at_the_slowest(task, [node("one", 1.0), node("two", 1.0, precision="fp32")])
    assert planned.precision == "fp32"


def test_a_driver_without_a_gpu_plans_for_those_of_its_nodes(task: TrainingTask) -> None:
    planned, _ = at_the_slowest(replace(task, speed=1.9), [node("gpu", 0.01, speed=1.0)])
    assert planned.backbones["lite0"].stages.train(0) == pytest.approx(0.01 * STAGES.train(0))
    assert planned.speed == 1.0


def test_a_slot_measures_itself(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    save_state(load_pretrained(find_entry(LITE0), locate(find_entry(LITE0))), state)
    precision, stages, speed = measure_here({LITE0: (LITE0, str(state))}, 3, threads=1, gpus=0)
    assert precision in ("bf16", "fp32")
    assert stages[LITE0].train(0) > stages[LITE0].train(5) > 0
    assert speed == 1.0  # one thread


def test_a_slot_that_was_promised_a_gpu_and_sees_none_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="promised a GPU and sees none"):
        measure_here({}, 3, threads=1, gpus=1)
