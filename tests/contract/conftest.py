"""A real training task on the coloured shapes with the bundled lite0, made once for all contracts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autotl
from autotl.data.pixels import open_store
from autotl.storage.rundir import write_json
from autotl.train.metrics import all_metrics
from autotl.train.task import TrainingTask
from autotl.tune.runner import Searched, SearchPlan
from autotl.tune.session import Slots

LITE0 = "tf_efficientnet_lite0.in1k"
FAR_AWAY = 1e12
WEAKER = 0.2


@dataclasses.dataclass(frozen=True)
class ToyRun:
    """What a driver prepared, and all metrics of its linear probe on the validation images."""

    task: TrainingTask
    probe_metrics: dict[str, float]


class _NoRay:
    """Stands in for the session of Ray."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __enter__(self) -> _NoRay:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def choices(self) -> tuple[Slots, ...]:
        return (Slots(1, 1, 0.0),)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> ToyRun:
    """The task of a fit that ends where its search would begin: 27 training and 9 validation images, float32.

    The head that trials start from is made weaker: a head that is right about everything would hide differences.
    """
    folder = tmp_path_factory.mktemp("toy-run")
    tasks: list[TrainingTask] = []

    def keep_task(plan: SearchPlan, on_trial: object) -> Searched:
        shutil.copytree(plan.run.cache, folder / "cache")
        text = json.dumps(plan.task.to_plain()).replace(str(plan.run.cache), str(folder / "cache"))
        tasks.append(TrainingTask.from_plain(json.loads(text)))
        return Searched((), interrupted=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotl.tune.session.RaySession", _NoRay)
        patch.setattr("autotl.pipeline.search.run_search", keep_task)
        settings: dict[str, Any] = {"backbones": LITE0, "search_space": "quick", "val_fraction": 0.25, "n_trials": 1}
        result = autotl.fit(shapes, output_dir=folder / "run", timeout="10m", quiet=True, **settings)
    (task,) = tasks
    task = dataclasses.replace(
        task, metric="log_loss", precision="fp32", max_t=2, deadline=FAR_AWAY, threads=1, speed=1.0
    )
    head = Path(task.backbones[LITE0].head)
    with np.load(head) as probe:
        weaker = {"weight": WEAKER * probe["weight"], "bias": WEAKER * probe["bias"]}
    np.savez(head, **weaker)
    classifier = result.predictor.model.get_classifier()
    with torch.no_grad():
        for name, parameter in classifier.named_parameters():
            parameter.copy_(torch.from_numpy(weaker[name]))
    labels, split = task.load_manifest()
    val = np.flatnonzero(split == "val")
    assert len(val) == 9
    probabilities = result.predictor.probabilities_of_pixels(open_store(Path(task.store)).open()[val])
    return ToyRun(task, all_metrics(probabilities, labels[val]))


@pytest.fixture
def task_file(tmp_path: Path, toy_run: ToyRun) -> Callable[..., Path]:
    """A function that writes the task, with changes, for a run folder of the test's own, and returns the file."""

    def write(**changes: Any) -> Path:
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        path = tmp_path / f"task-{len(list(tmp_path.glob('task-*.json')))}.json"
        write_json(path, dataclasses.replace(toy_run.task, run_dir=str(run), **changes).to_plain())
        return path

    return write
