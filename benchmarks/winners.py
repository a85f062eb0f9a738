"""Better models from the same training? Each way on top of one trial, on the same images, seeds and epochs.

    python benchmarks/winners.py measure DIR [DIR ...] --table winners.jsonl [--seeds 0 1 2] [--epochs 12]
    python benchmarks/winners.py show --table winners.jsonl

The trial is what the advice would try first on 600 images of each set (see `subsets.py`): freeze depth and rate by the
set's scenario. A seed draws the images and orders the training. Every way is a line of JSON with its accuracy on the
validation and test images; what is there is not computed again. Run it with OMP_NUM_THREADS=1, one process a core.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from oracle import Cell, Strategy, append_line, config_of, read_table, task_of
from ready import LITE0, Features, ReadySet, make_ready
from subsets import read_set

from autotl.train.loop import FineTuning
from autotl.train.metrics import all_metrics
from autotl.train.task import TrainingTask, load_manifest, save_manifest

SUBSET = "600 images"
NEAR = ("hymenoptera", "fire", "clothing", "cats_dogs", "cats_dogs_large")
"""Sets whose scenario is "similar"; all others are not. Their first start points: depth, rate."""
STARTS = {True: (6, 0.1), False: (5, 0.3)}
EMA_DECAY = 0.98
"""Of the average of weights over steps: a memory of 50 steps."""
CONTINUED_RATE = 0.5

State = dict[str, torch.Tensor]
Config = dict[str, Any]


class Averaging(FineTuning):
    """A trial that keeps an exponential moving average of its weights."""

    averaged: State

    def _step(self, *arguments: Any) -> torch.Tensor:
        loss = super()._step(*arguments)
        if not hasattr(self, "averaged"):
            self.averaged = {name: tensor.detach().clone() for name, tensor in self.trained().items()}
        for name, tensor in self.trained().items():
            self.averaged[name].lerp_(tensor.detach(), 1 - EMA_DECAY)
        return loss


class Judge:
    """Says how good a model is: on the validation images and on the test images."""

    def __init__(self, ready: ReadySet, task: TrainingTask, config: Config) -> None:
        self._labels = {name: ready.data.labels[ready.data.splits[SUBSET] == name] for name in ("val", "test")}
        tested = replace(task, manifest=str(ready.manifest(SUBSET, evaluated="test")))
        self._models = {"val": FineTuning(task, config), "test": FineTuning(tested, config)}
        self.start = state_of(self._models["val"])

    def probabilities(self, state: Mapping[str, torch.Tensor], *, mirrored: bool = False) -> dict[str, Features]:
        """Of the images of both splits, by a model with these weights."""
        outputs = {}
        for name, tuning in self._models.items():
            tuning.backbone.model.load_state_dict(self.start | dict(state))
            outputs[name] = mirrored_probabilities(tuning) if mirrored else tuning.validation_probabilities()
        return outputs

    def accuracies(self, probabilities: Mapping[str, Features]) -> dict[str, float]:
        """Accuracy and log loss by split."""
        found = {}
        for name, labels in self._labels.items():
            metrics = all_metrics(probabilities[name], labels)
            found |= {f"{name}_accuracy": metrics["accuracy"], f"{name}_log_loss": metrics["log_loss"]}
        return found


def state_of(tuning: FineTuning) -> State:
    """A copy of its weights."""
    return {name: tensor.clone() for name, tensor in tuning.backbone.model.state_dict().items()}


def mirrored_probabilities(tuning: FineTuning) -> Features:
    """Of the mirror images of its validation images."""
    images = tuning._images
    tuning.backbone.model.eval()
    outputs = []
    with torch.inference_mode():
        for rows in np.array_split(images.val_rows, max(1, len(images.val_rows) // 32)):
            batch = images._loader.batch(rows, None, 0).flip(-1)
            outputs.append(torch.softmax(tuning.backbone.model(batch).float(), dim=1).numpy())
    return np.concatenate(outputs)


def mean_of(*states: Mapping[str, torch.Tensor]) -> State:
    """The mean of weights."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        for name, tensor in states[0].items()
    }


def train(task: TrainingTask, config: Config, start: Mapping[str, torch.Tensor] | None = None) -> Averaging:
    """A trial, to its end."""
    tuning = Averaging(task, config, start)
    for _ in range(task.max_t):
        tuning.train_epoch()
    return tuning


def on_everything(ready: ReadySet, task: TrainingTask) -> TrainingTask:
    """The task with the validation images among those for training."""
    labels, split = load_manifest(Path(task.manifest))
    path = ready.folder / f"{SUBSET}-everything.npz"
    everything = np.where(split == "val", "train", split)
    everything[np.flatnonzero(everything == "train")[:2]] = "val"  # something has to be evaluated after every epoch
    save_manifest(path, labels, everything)
    return replace(task, manifest=str(path))


def ways(ready: ReadySet, task: TrainingTask, config: Config) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Each way: its name, the seconds of training it took, and its accuracies."""
    judge = Judge(ready, task, config)

    def timed(train_it: Callable[[], Averaging]) -> tuple[Averaging, float]:
        begun = time.perf_counter()
        tuning = train_it()
        return tuning, time.perf_counter() - begun

    probe = judge.probabilities({})
    yield "probe", 0.0, judge.accuracies(probe)
    tuning, seconds = timed(lambda: train(task, config))
    winner = state_of(tuning)
    plain = judge.probabilities(winner)
    yield "winner", seconds, judge.accuracies(plain)
    yield "weights averaged over steps", seconds, judge.accuracies(judge.probabilities(tuning.averaged))
    yield (
        "mean of weights with the probe's",
        seconds,
        judge.accuracies(judge.probabilities(mean_of(winner, judge.start))),
    )
    yield (
        "3 : 1 with the probe's weights",
        seconds,
        judge.accuracies(judge.probabilities(mean_of(winner, winner, winner, judge.start))),
    )
    yield (
        "mean of probabilities with the probe's",
        seconds,
        judge.accuracies({name: (plain[name] + probe[name]) / 2 for name in plain}),
    )
    mirrored = judge.probabilities(winner, mirrored=True)
    yield "and mirror images", seconds, judge.accuracies({name: (plain[name] + mirrored[name]) / 2 for name in plain})
    gentler = config | {
        name: CONTINUED_RATE * config[name] for name in ("learning_rate_factor", "head_learning_rate_factor")
    }
    half = replace(task, max_t=max(2, task.max_t // 2))
    trained = {name: tensor.detach().clone() for name, tensor in tuning.trained().items()}
    more, further = timed(lambda: train(half, gentler, trained))
    continued = state_of(more)
    yield "continued", seconds + further, judge.accuracies(judge.probabilities(continued))
    yield (
        "mean with its continuation",
        seconds + further,
        judge.accuracies(judge.probabilities(mean_of(winner, continued))),
    )
    everything = on_everything(ready, task)
    more, further = timed(lambda: train(replace(everything, max_t=half.max_t), gentler, trained))
    yield "continued on all images", seconds + further, judge.accuracies(judge.probabilities(state_of(more)))
    again, further = timed(lambda: train(everything, config))
    yield "again on all images", seconds + further, judge.accuracies(judge.probabilities(state_of(again)))
    for name, changed in {
        "medium augmentation": {"augmentation": "medium"},
        "label smoothing": {"label_smoothing": 0.1},
    }.items():
        other, further = timed(lambda changed=changed: train(task, config | changed))  # type: ignore[misc]
        yield name, further, judge.accuracies(judge.probabilities(state_of(other)))


def measure(folders: list[Path], table: Path, seeds: list[int], epochs: int) -> None:
    """Fill the table."""
    torch.set_num_threads(1)
    table.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for folder in folders:
            if any(row["set"] == folder.name and row["seed"] == seed for row in read_table(table)):
                continue
            ready = make_ready(read_set(folder, seed), table.parent / "sets")
            depth, factor = STARTS[folder.name in NEAR]
            cell = Cell(folder.name, SUBSET, "winner", factor, seed)
            task, config = task_of(cell, epochs, ready), config_of(cell, Strategy("winner", LITE0, depth))
            rows = [
                {"set": folder.name, "seed": seed, "epochs": epochs, "way": way, "seconds": round(seconds, 1)} | found
                for way, seconds, found in ways(ready, task, config)
            ]
            for row in rows:
                append_line(table, row)
            best = max(rows, key=lambda row: row["test_accuracy"])
            print(f"{folder.name} seed {seed}: {best['way']} {100 * best['test_accuracy']:.2f}", flush=True)


def show(rows: list[dict[str, Any]]) -> None:
    """For every way the mean difference to the winner, with its standard error over sets and seeds."""
    draws: dict[tuple[str, int], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        draws[row["set"], row["seed"]][row["way"]] = row
    sets = sorted({name for name, _ in draws})
    names = list(next(iter(draws.values())))
    print("| way | seconds | " + " | ".join(sets) + " | mean difference to the winner, test | log loss |")
    print("|---|---|" + "---|" * (len(sets) + 2))
    for way in names:
        by_set = [mean(100 * d[way]["test_accuracy"] for (name, _), d in draws.items() if name == one) for one in sets]
        gains = [100 * (d[way]["test_accuracy"] - d["winner"]["test_accuracy"]) for d in draws.values()]
        loss = mean(d[way]["test_log_loss"] - d["winner"]["test_log_loss"] for d in draws.values())
        error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        seconds = mean(d[way]["seconds"] for d in draws.values())
        cells = " | ".join(f"{value:.2f}" for value in by_set)
        print(f"| {way} | {seconds:.0f} | {cells} | {mean(gains):+.2f} ± {error:.2f} | {loss:+.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    measuring.add_argument("--table", type=Path, required=True)
    measuring.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    measuring.add_argument("--epochs", type=int, default=12)
    showing = commands.add_parser("show")
    showing.add_argument("--table", type=Path, required=True)
    chosen = parser.parse_args()
    if chosen.command == "measure":
        measure([folder.resolve() for folder in chosen.folders], chosen.table, chosen.seeds, chosen.epochs)
    else:
        show(read_table(chosen.table))


if __name__ == "__main__":
    main()
