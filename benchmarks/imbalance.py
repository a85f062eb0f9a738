"""Balanced accuracy on imbalanced data: autotl's loss against torch's class weights, with label smoothing.

    python benchmarks/imbalance.py DIR [DIR ...] --work FOLDER [--ratio 30] [--seeds 0 1 2] [--epochs 8]

The training images of each set (600 at most, see `subsets.py`) are thinned out so that the classes fall off evenly,
from the largest to one `--ratio` times smaller; test images stay as they are. A set that is imbalanced by itself is
used as it is with `--ratio 0`. Both losses train the same trial, freeze depth 5 with a smoothing of 0.1, from the same
linear probe on the same batches. A row a set: test balanced accuracy in %, mean over the seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from oracle import Cell, Strategy, config_of, task_of
from ready import LITE0, ReadySet, make_ready
from subsets import read_set

from autotl.train import loop
from autotl.train.loss import summed_loss
from autotl.train.metrics import all_metrics
from autotl.train.probe import START_FLOOR, fit_probe, save_head
from autotl.train.task import save_manifest

SUBSET = "600 images"
SMOOTHING, FREEZE_DEPTH, FACTOR = 0.1, 5, 0.3


def torch_loss(
    logits: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """As `summed_loss`, but with torch's own weights, which count for the smoothed part of the target, too."""
    return F.cross_entropy(logits, targets, weight=class_weights, label_smoothing=smoothing, reduction="sum")


LOSSES: dict[str, Callable[..., torch.Tensor]] = {"torch's": torch_loss, "autotl's": summed_loss}


def thinned(labels: NDArray[np.int64], rows: NDArray[np.int64], ratio: float, seed: int) -> NDArray[np.int64]:
    """The rows of which each class keeps its part: sizes fall geometrically from the first class to the last.

    Args:
        labels: of all images.
        rows: to choose from.
        ratio: of the largest class to the smallest; 0 leaves all as it is.
        seed: of the choice.
    """
    if not ratio:
        return rows
    generator = np.random.default_rng(seed)
    counts = np.bincount(labels[rows])
    sizes = counts.min() * ratio ** -np.linspace(0.0, 1.0, len(counts))
    kept = [generator.permutation(rows[labels[rows] == k])[: max(3, round(size))] for k, size in enumerate(sizes)]
    return np.sort(np.concatenate(kept))


def thin_out(ready: ReadySet, ratio: float, seed: int) -> tuple[dict[str, Path], Path, str]:
    """Manifests with the thinned training images, by the split that is evaluated; the head to start from; the sizes."""
    labels, split, n_classes = ready.data.labels, ready.data.splits[SUBSET], len(ready.data.classes)
    train = thinned(labels, np.flatnonzero(split == "train"), ratio, seed)
    val = np.flatnonzero(split == "val")
    manifests = {}
    for evaluated in ("val", "test"):
        own = np.where(split == evaluated, "val", "").astype(split.dtype)
        own[train] = "train"
        manifests[evaluated] = ready.folder / f"thinned-{evaluated}.npz"
        save_manifest(manifests[evaluated], labels, own)
    features = ready.embeddings(LITE0)
    parts = features[train], labels[train], features[val], labels[val], n_classes
    head = ready.folder / "thinned-head.npz"
    save_head(fit_probe(*parts, balanced=True, floor=START_FLOOR), head)
    return manifests, head, " ".join(map(str, np.bincount(labels[train], minlength=n_classes)))


def balanced_accuracies(ready: ReadySet, ratio: float, seed: int, epochs: int) -> tuple[dict[str, float], str]:
    """Of the test images, in %, by the loss; and the sizes of the classes in training."""
    manifests, head, sizes = thin_out(ready, ratio, seed)
    cell = Cell(ready.data.name, SUBSET, "imbalance", FACTOR, seed)
    config = config_of(cell, Strategy("imbalance", LITE0, FREEZE_DEPTH)) | {"label_smoothing": SMOOTHING}
    task = task_of(cell, epochs, ready)
    backbones = {LITE0: replace(task.backbones[LITE0], head=str(head))}
    task = replace(task, manifest=str(manifests["test"]), backbones=backbones, balanced=True)
    test = ready.data.labels[ready.data.splits[SUBSET] == "test"]
    found: dict[str, float] = {}
    for name, loss in LOSSES.items():
        loop.summed_loss = loss
        tuning = loop.FineTuning(task, config)
        for _ in range(epochs):
            tuning.train_epoch()
        found[name] = 100 * all_metrics(tuning.validation_probabilities(), test)["balanced_accuracy"]
    return found, sizes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, help="folder for pixels and embeddings")
    parser.add_argument("--ratio", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    chosen = parser.parse_args()
    print(f"| set | training images by class | {' | '.join(LOSSES)} | difference |")
    print("|---|---|" + "---|" * (len(LOSSES) + 1))
    for folder in chosen.folders:
        rows: list[dict[str, Any]] = []
        for seed in chosen.seeds:
            ready = make_ready(read_set(folder.resolve(), seed), chosen.work)
            found, sizes = balanced_accuracies(ready, chosen.ratio, seed, chosen.epochs)
            rows.append(found)
        gains = [row["autotl's"] - row["torch's"] for row in rows]
        error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        means = " | ".join(f"{mean(row[name] for row in rows):.2f}" for name in LOSSES)
        print(f"| {folder.name} | {sizes} | {means} | {mean(gains):+.2f} ± {error:.2f} |", flush=True)


if __name__ == "__main__":
    main()
