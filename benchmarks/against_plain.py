"""What computing frozen stages once is worth: the same trials with and without cached activations.

    python benchmarks/against_plain.py search DIR [DIR ...] [--trials 8] [--epochs 4] [--space small_similar]
    python benchmarks/against_plain.py epoch DIR [DIR ...] [--depths 4 5 6 7] [--seeds 3] [--epochs 6]

All with EfficientNet-Lite0, one trial at a time on one core, as a slot of a search has it. Without the cache the frozen
stages run in every epoch, in the same precision (bfloat16 where it is measured to be faster), on random views that are
new in every epoch; with it, on views that repeat after `n_views` epochs. Reading, embedding and the linear probe are
the same for both and are not counted. Test accuracies are those of a trial's best epoch on the validation images, in
float32. A folder without a test split gets one, as in fit.py. "torch" is an epoch without the cache and without
autotl's faster gradients of depthwise convolutions: bfloat16 as torch alone computes it.

The aim of `epoch`: at least 3 times as fast from depth 4 on, and accuracies within half a point. "suffix" is what no
cache can pass: the share of a whole training step at this depth that the stages which train take themselves.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fit import BACKBONE, with_test_split

from autotl.compute import device
from autotl.console import Console
from autotl.data.pixels import open_store
from autotl.pipeline.context import make_context
from autotl.pipeline.ingest import read_data
from autotl.pipeline.probe import make_advice, probe_backbones
from autotl.pipeline.search import make_task
from autotl.pipeline.validate import validate
from autotl.predictor import Predictor
from autotl.settings import Budget, FitSettings
from autotl.space.files import load_space
from autotl.space.parameters import Categorical, Depth
from autotl.space.search_space import SearchSpace
from autotl.storage import rundir
from autotl.storage.cache import DiskCache
from autotl.threads import local_cpus
from autotl.train.epoch import Diverged, EpochReport
from autotl.train.loop import FineTuning
from autotl.train.task import TrainingTask
from autotl.tune.session import Slots

Config = dict[str, Any]
TIMEOUT = 24 * 3600.0
CONFIG: Config = {
    "backbone": BACKBONE,
    "initial_weights": "pretrained",
    "learning_rate_factor": 0.3,
    "head_learning_rate_factor": 0.3,
    "layer_decay": 1.0,
    "weight_decay": 0.01,
    "augmentation": "light",
    "label_smoothing": 0.0,
    "batch_size": 32,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial: its score before training, its epochs, its best one, the test accuracy there, and seconds in all."""

    reports: tuple[EpochReport, ...]
    best: EpochReport
    test: float
    seconds: float


@contextmanager
def prepared(folder: Path, epochs: int) -> Iterator[tuple[TrainingTask, SearchSpace]]:
    """The task that a fit of `folder` would give its workers, and the space that its advice names."""
    with with_test_split(folder) as root, tempfile.TemporaryDirectory() as temporary:
        settings = FitSettings(root, Budget(TIMEOUT), metric="accuracy", backbones=(BACKBONE,))
        run = rundir.create(Path(temporary, "run"))
        cache = DiskCache(Path(temporary, "cache"))
        context = make_context(settings, validate(settings), run, Console(quiet=True), time.time(), cache=cache)
        data = read_data(context)
        probed = probe_backbones(context, data, lambda record: None)
        space = load_space(make_advice(context, data, probed).scenario.space).narrow(backbone=(BACKBONE,))
        # The very task of a fit, and not one that is like it.
        task = make_task(context, data, probed, space, Slots(1, 1, 0.0), time.time() + TIMEOUT)
        torch.set_num_threads(1)
        yield replace(task, max_t=epochs), space


def run_trial(task: TrainingTask, config: Config) -> Outcome:
    """All epochs of a config; predicting the test split is not counted."""
    begun, aside = time.perf_counter(), 0.0
    tuning = FineTuning(task, config)
    if not task.cache_activations:
        assert tuning.note, "the frozen stages must not be cached"
    reports, best, test = [tuning.start()], None, float("nan")
    for _ in range(task.max_t):
        try:
            reports.append(tuning.train_epoch())
        except Diverged:
            break
        if reports[-1].better_than(best):
            paused = time.perf_counter()
            best, test = reports[-1], test_accuracy(tuning, reports[-1])
            aside += time.perf_counter() - paused
    return Outcome(tuple(reports), best or reports[0], test, time.perf_counter() - begun - aside)


def test_accuracy(tuning: FineTuning, report: EpochReport) -> float:
    """Of the model as it stands, as `Predictor` computes it."""
    labels, split = tuning.task.load_manifest()
    rows = np.flatnonzero(split == "test")
    card = tuning.card(report, "benchmark")
    store = open_store(Path(tuning.task.store))
    predictor = Predictor(card, tuning.backbone.model, replace(tuning.backbone.preprocessing, store_size=store.size))
    torch.set_num_threads(local_cpus())
    try:
        right = predictor.probabilities_of_pixels(store.open()[rows]).argmax(1) == labels[rows]
    finally:
        torch.set_num_threads(1)
    return 100 * float(right.mean())


# -- search ----------------------------------------------------------------------------------------------------------


def draw(space: SearchSpace, n_stages: int, n_trials: int, seed: int) -> list[Config]:
    """Configs drawn evenly from a space (on a log scale where it says so), all from pretrained weights."""
    generator = np.random.default_rng(seed)
    configs = []
    for _ in range(n_trials):
        config: Config = {}
        for parameter in space.parameters:
            if isinstance(parameter, Categorical):
                config[parameter.name] = parameter.choices[generator.integers(len(parameter.choices))]
            elif isinstance(parameter, Depth):
                low, high = parameter.bounds(n_stages)
                config[parameter.name] = int(generator.integers(low, high + 1))
            else:
                scale, back = (np.log, np.exp) if parameter.log else (float, float)
                config[parameter.name] = float(back(generator.uniform(scale(parameter.low), scale(parameter.high))))
        configs.append(config | {"initial_weights": "pretrained"})
    return configs


def search(folder: Path, n_trials: int, epochs: int, seed: int, space_name: str | None) -> None:
    """The same configs both ways, one after the other: scores of every one and of the winner, and the time."""
    with prepared(folder, epochs) as (task, advised), tempfile.TemporaryDirectory() as cache:
        space = advised if space_name is None else load_space(space_name).narrow(backbone=(BACKBONE,))
        task = replace(task, cache_dir=cache, seed=seed)
        configs = draw(space, task.backbones[BACKBONE].n_stages, n_trials, seed)
        print(f"{folder.name}: {n_trials} configs of {space.name}, {epochs} epochs, {task.precision}, seed {seed}")
        print("depth  augmentation   validation: cached  plain    test: cached  plain   seconds: cached  plain")
        pairs: list[tuple[Outcome, Outcome]] = []
        for config in configs:
            cached, plain = (run_trial(replace(task, cache_activations=on), config) for on in (True, False))
            pairs.append((cached, plain))
            print(
                f"{config['freeze_depth']:5d}  {config['augmentation']:<12} "
                f"{100 * cached.best.score:19.2f} {100 * plain.best.score:6.2f} {cached.test:15.2f} {plain.test:6.2f} "
                f"{cached.seconds:17.1f} {plain.seconds:6.1f}",
                flush=True,
            )
    winners = [max((pair[way] for pair in pairs), key=_rank) for way in (0, 1)]
    seconds = [sum(pair[way].seconds for pair in pairs) for way in (0, 1)]
    for name, winner, taken in zip(("cached", "plain"), winners, seconds, strict=True):
        print(f"{name:<7} winner: validation {100 * winner.best.score:.2f}, test {winner.test:.2f}; {taken:.1f} s")
    apart = [cached.test - plain.test for cached, plain in pairs]
    print(
        f"cached against plain: winner's test accuracy {winners[0].test - winners[1].test:+.2f} points, "
        f"mean of all configs {np.nanmean(apart):+.2f}; {seconds[1] / seconds[0]:.1f} times as fast"
    )


def _rank(outcome: Outcome) -> tuple[float, float]:
    """As `EpochReport.better_than`."""
    return outcome.best.score, -outcome.best.metrics["log_loss"]


# -- epoch -----------------------------------------------------------------------------------------------------------


def epoch(folder: Path, depths: list[int], n_seeds: int, epochs: int) -> None:
    """A row a freeze depth: seconds of an epoch with its validation, and test accuracies over seeds.

    "warm": from views that exist. "amortised": of the first trial, which builds the views from the images, its time
    from the start divided by its epochs (the trials after it find them).
    """
    with prepared(folder, epochs) as (task, _):
        _, split = task.load_manifest()
        n_train, n_val = int((split == "train").sum()), int((split == "val").sum())
        print(f"{folder.name}: {n_train} training, {n_val} validation images, {epochs} epochs, {task.precision}")
        print(
            "depth   seconds an epoch: warm  amortised  plain  torch   plain/warm  torch/warm  amortised  suffix   "
            "test: cached  plain  difference"
        )
        for depth in depths:
            with tempfile.TemporaryDirectory() as cache:  # views of shallower depths must not help
                config = CONFIG | {"freeze_depth": depth}
                tasks = [replace(task, cache_dir=cache, seed=seed) for seed in range(n_seeds)]
                cached = [run_trial(seeded, config) for seeded in tasks]
                plain = [run_trial(replace(seeded, cache_activations=False), config) for seeded in tasks]
                with native_depthwise():
                    torch_alone = run_trial(replace(task, cache_activations=False, max_t=2), config)
            stages = task.backbones[BACKBONE].stages
            suffix = stages.train(depth) / (stages.train(depth) + stages.forward[depth])
            _print_depth(depth, cached, plain, torch_alone, task.n_views, suffix)


@contextmanager
def native_depthwise() -> Iterator[None]:
    """Depthwise convolutions as torch computes them."""
    fast = device.FastDepthwise
    device.FastDepthwise = nullcontext  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        device.FastDepthwise = fast  # type: ignore[misc]


def _print_depth(
    depth: int, cached: list[Outcome], plain: list[Outcome], torch_alone: Outcome, n_views: int, suffix: float
) -> None:
    warm = [report.seconds for report in cached[0].reports[1 + n_views :]]
    warm += [report.seconds for outcome in cached[1:] for report in outcome.reports[1:]]
    fast = float(np.median(warm)) if warm else float("nan")
    first = cached[0].seconds / (len(cached[0].reports) - 1)
    slow = float(np.median([report.seconds for outcome in plain for report in outcome.reports[1:]]))
    slowest = float(np.median([report.seconds for report in torch_alone.reports[1:]]))
    # Both in all, with what comes before the first epoch.
    slow_in_all = plain[0].seconds / (len(plain[0].reports) - 1)
    means = [float(np.mean([outcome.test for outcome in way])) for way in (cached, plain)]
    spread = [float(np.std([outcome.test for outcome in way])) for way in (cached, plain)]
    print(
        f"{depth:5d} {fast:23.2f} {first:10.2f} {slow:6.2f} {slowest:6.2f} {slow / fast:12.1f} {slowest / fast:11.1f} "
        f"{slow_in_all / first:10.1f} {suffix:7.2f} {means[0]:14.2f} {means[1]:6.2f} {means[0] - means[1]:+11.2f}   "
        f"(deviation {spread[0]:.2f}, {spread[1]:.2f})",
        flush=True,
    )


def main() -> None:
    """Run one of the comparisons on every folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="what", required=True)
    searching, per_epoch = actions.add_parser("search"), actions.add_parser("epoch")
    for action, epochs in ((searching, 4), (per_epoch, 6)):
        action.add_argument("folders", nargs="+", type=Path, metavar="DIR")
        action.add_argument("--epochs", type=int, default=epochs)
    searching.add_argument("--trials", type=int, default=8)
    searching.add_argument("--seed", type=int, default=0)
    searching.add_argument("--space", help="a shipped space or a file; without it the one that the advice names")
    per_epoch.add_argument("--depths", type=int, nargs="+", default=[4, 5, 6, 7])
    per_epoch.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    for folder in chosen.folders:
        if chosen.what == "search":
            search(folder, chosen.trials, chosen.epochs, chosen.seed, chosen.space)
        else:
            epoch(folder, chosen.depths, chosen.seeds, chosen.epochs)


if __name__ == "__main__":
    main()
