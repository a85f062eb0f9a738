"""The oracle table: what each strategy gives on two subsets of each data set; `benchmarks/advice.py table` fills it.

A cell is one line of JSON, keyed by set, subset, strategy, learning rate (a factor on the backbone's own) and seed: the
seed draws the images and orders the training. With 20 images a class it is the draw that moves an accuracy most. It is
appended when it is whole, and a cell that is there is not computed again: the table can be stopped at any time, also
with SIGKILL, and several processes may fill it at once.

Everything is trained on the training images alone, for a fixed number of epochs, and measured after the last one: on
the validation images, which choose the learning rate, and on the test images.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from ready import LITE0, LITE1, LITE2, ReadySet, make_ready
from subsets import SubsetData, read_set

from autotl.compute.memory import keep_freed_memory
from autotl.storage.cache import default_folder
from autotl.storage.rundir import fingerprint
from autotl.train.epoch import Diverged
from autotl.train.loop import FineTuning
from autotl.train.task import BackboneFiles, TrainingTask

N_VIEWS = 4
"""Augmented views of a cell's training images, whatever the search computes today: cells have to be comparable."""
VIEWS_LIMIT = 12 * 2**30
"""Bytes of cached views; those of depth 2 take 0.4 MB an image."""


# -- what is computed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to train, with everything about it fixed but the learning rate.

    Attributes:
        name: as in the table.
        backbone: timm's full name.
        freeze_depth: leading stages that stay as pretrained; None is all of them: the linear probe, nothing is tuned.
        epochs: of training; more on sets where they would be fewer than `least_steps` steps.
        factors: learning rates to choose from on the validation images, on the backbone's own.
        speed: images trained a second on one core, roughly: only orders the cells.
        scratch: start from random weights.
    """

    name: str
    backbone: str = LITE0
    freeze_depth: int | None = None
    epochs: int = 0
    least_steps: int = 0
    factors: tuple[float, ...] = (0.0,)
    speed: float = math.inf
    scratch: bool = False


FEATURES, FULL, SCRATCH = "feature extraction", "full fine-tuning", "from scratch"
_TUNED = (0.1, 0.5)
STRATEGIES = (
    Strategy(FEATURES),
    Strategy(f"{FEATURES}, lite1", LITE1),
    Strategy(f"{FEATURES}, lite2", LITE2),
    Strategy("freeze 6", LITE0, 6, 6, 45, _TUNED, speed=110),
    Strategy("freeze 5", LITE0, 5, 6, 45, _TUNED, speed=80),
    Strategy("freeze 4", LITE0, 4, 6, 45, _TUNED, speed=40),
    Strategy("freeze 2", LITE0, 2, 6, 45, _TUNED, speed=27),
    Strategy(FULL, LITE0, 0, 6, 45, _TUNED, speed=17),
    Strategy(SCRATCH, LITE0, 0, 15, 120, (0.5, 1.0), speed=17, scratch=True),
)
SEEDS = (0, 1)
BATCH_SIZE = 32


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """The key of a line of the table."""

    set: str
    subset: str
    strategy: str
    learning_rate: float
    seed: int


def strategy_named(name: str) -> Strategy:
    """The strategy called `name`."""
    return next(strategy for strategy in STRATEGIES if strategy.name == name)


def epochs_of(strategy: Strategy, n_train: int) -> int:
    """The strategy's epochs, or as many as make `least_steps` steps."""
    steps = math.ceil(n_train / BATCH_SIZE)
    return max(strategy.epochs, math.ceil(strategy.least_steps / steps))


def read_draws(folders: Sequence[Path]) -> list[SubsetData]:
    """Each set with each seed."""
    return [read_set(folder, seed) for seed in SEEDS for folder in folders]


def plan(sets: Sequence[SubsetData]) -> list[Cell]:
    """Every cell of these draws: the first seed first; in each the cheapest first, and from scratch last."""
    costs: dict[Cell, float] = {}
    for data in sets:
        for subset, split in data.splits.items():
            n_train = int((split == "train").sum())
            for strategy in STRATEGIES:
                for factor in strategy.factors:
                    cost = epochs_of(strategy, n_train) * n_train / strategy.speed
                    costs[Cell(data.name, subset, strategy.name, factor, data.seed)] = cost
    names = [strategy.name for strategy in STRATEGIES]

    def order(cell: Cell) -> tuple[int, bool, float, int, str, str]:
        scratch = cell.strategy == SCRATCH
        return cell.seed, scratch, costs[cell], names.index(cell.strategy), cell.subset, cell.set

    return sorted(costs, key=order)


# -- the table -------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> list[dict[str, Any]]:
    """The lines of a table. One that is not whole (its writer was killed) is left out and computed again."""
    lines = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def key_of(line: dict[str, Any]) -> Cell:
    """The key of a line."""
    return Cell(*(line[name] for name in Cell.__slots__))


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add a line; what a killed writer left of one is closed first."""
    with FileLock(path.with_suffix(".lock")), open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


# -- filling it --------------------------------------------------------------------------------------------------------


def fill_table(folders: list[Path], table: Path, minutes: float, jobs: int) -> None:
    """Compute cells in `jobs` processes until all are there or the time is up; no cell is begun after it."""
    table.parent.mkdir(parents=True, exist_ok=True)
    until = time.time() + 60 * minutes
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=work, args=(folders, table, until)) for _ in range(jobs - 1)]
    for other in others:
        other.start()
    work(folders, table, until)
    for other in others:
        other.join()
    there = {key_of(line) for line in read_table(table)}
    wanted = plan(read_draws(folders))
    print(f"{sum(cell in there for cell in wanted)} of {len(wanted)} cells are in {table}")


def work(folders: list[Path], table: Path, until: float) -> None:
    """Take the cheapest cell that is neither there nor being computed, until there is none or the time is up.

    A cell is claimed by a lock, which the system takes back from a process that is killed.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    sets = {(data.name, data.seed): data for data in read_draws(folders)}
    ready: dict[tuple[str, int], ReadySet] = {}
    claims = table.parent / "claims"
    claims.mkdir(exist_ok=True)
    parent = multiprocessing.parent_process()
    for cell in plan(list(sets.values())):
        if time.time() > until or (parent is not None and not parent.is_alive()):
            return
        with suppress(Timeout), FileLock(claims / f"{fingerprint(str(cell))}.lock", timeout=0):
            if all(key_of(line) != cell for line in read_table(table)):
                draw = cell.set, cell.seed
                if draw not in ready:
                    ready[draw] = make_ready(sets[draw], table.parent / "sets")
                line = compute_cell(cell, ready[draw])
                append_line(table, line)
                _print_cell(cell, line)


def _print_cell(cell: Cell, line: dict[str, Any]) -> None:
    accuracy = line.get("error") or f"val {100 * line['val_accuracy']:6.2f} test {100 * line['test_accuracy']:6.2f}"
    named = f"{cell.set:<14} {cell.subset:<11} {cell.strategy:<26} rate {cell.learning_rate:<4} seed {cell.seed}"
    print(f"{named} {line['epochs']:3d} epochs {line['seconds']:7.1f} s  {accuracy}", flush=True)


# -- a cell ----------------------------------------------------------------------------------------------------------


def compute_cell(cell: Cell, ready: ReadySet) -> dict[str, Any]:
    """The line of a cell."""
    begun = time.perf_counter()
    strategy = strategy_named(cell.strategy)
    measured = _probed(cell, strategy, ready) if strategy.freeze_depth is None else _tuned(cell, strategy, ready)
    split = ready.data.splits[cell.subset]
    sizes = {f"n_{name}": int((split == name).sum()) for name in ("train", "val", "test")}
    return asdict(cell) | sizes | measured | {"seconds": round(time.perf_counter() - begun, 1)}


def _probed(cell: Cell, strategy: Strategy, ready: ReadySet) -> dict[str, Any]:
    features = ready.embeddings(strategy.backbone)
    probe = ready.probe(cell.subset, features)
    split = ready.data.splits[cell.subset]
    val, test = (
        ready.metrics(cell.subset, name, probe.probabilities(features[split == name])) for name in ("val", "test")
    )
    return {"epochs": 0, **_three(val, test)}


def _three(val: dict[str, float], test: dict[str, float]) -> dict[str, float]:
    return {"val_accuracy": val["accuracy"], "val_log_loss": val["log_loss"], "test_accuracy": test["accuracy"]}


def _tuned(cell: Cell, strategy: Strategy, ready: ReadySet) -> dict[str, Any]:
    n_train = int((ready.data.splits[cell.subset] == "train").sum())
    epochs = epochs_of(strategy, n_train)
    config = config_of(cell, strategy)
    task = task_of(cell, epochs, ready)
    training = FineTuning(task, config)
    try:
        for _ in range(epochs):
            report = training.train_epoch()
    except Diverged as error:
        return {"epochs": epochs, "error": str(error)}
    # A second one whose validation images are the test images: it sees them once, after the training.
    tested = FineTuning(replace(task, manifest=str(ready.manifest(cell.subset, evaluated="test"))), config)
    tested.backbone.model.load_state_dict(training.backbone.model.state_dict())
    test = ready.metrics(cell.subset, "test", tested.validation_probabilities())
    return {"epochs": epochs, **_three(report.metrics, test)}


def config_of(cell: Cell, strategy: Strategy) -> dict[str, Any]:
    """As autotl's own start points, see `autotl.advice.advisor`."""
    return {
        "backbone": strategy.backbone,
        "initial_weights": "scratch" if strategy.scratch else "pretrained",
        "freeze_depth": strategy.freeze_depth,
        "learning_rate_factor": cell.learning_rate,
        "head_learning_rate_factor": cell.learning_rate,
        "layer_decay": 1.0 if strategy.scratch else 0.8,
        "weight_decay": 0.02,
        "augmentation": "light",
        "label_smoothing": 0.0,
        "batch_size": BATCH_SIZE,
    }


def task_of(cell: Cell, epochs: int, ready: ReadySet) -> TrainingTask:
    files = BackboneFiles(**(ready.facts["backbones"][LITE0] | {"timm_name": LITE0}))
    return TrainingTask(
        run_dir=str(ready.folder),
        store=str(ready.folder / "pixels.u8"),
        manifest=str(ready.manifest(cell.subset, evaluated="val")),
        classes=ready.data.classes,
        metric="accuracy",
        balanced=False,
        backbones={LITE0: replace(files, head=str(ready.head(cell.subset)))},
        precision=ready.facts["precision"],
        max_t=epochs,
        n_views=N_VIEWS,
        cache_dir=str(default_folder()),
        cache_limit=VIEWS_LIMIT,
        data_fingerprint=ready.facts["fingerprint"],
        seed=cell.seed,
        deadline=time.time() + 1e9,
        threads=1,
        speed=1.0,
        provenance={},
    )
